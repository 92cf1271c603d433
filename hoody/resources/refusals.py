"""What the gateway answers itself, where a container does not: as text, or as a page."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import parse_qsl

from hoody.errors import (
    BadGateway,
    Forbidden,
    GatewayTimeout,
    HoodyError,
    Misdirected,
    NoSuchThing,
    NoToken,
    NotServing,
    TooMany,
)
from hoody.protocols.request import Request
from hoody.resources import failures, forwarding, html
from hoody.resources.accept import HTML, TEXT, preferred

_TITLES: dict[type[HoodyError], str] = {
    NoSuchThing: "No such container",
    NoToken: "This needs a token",
    Forbidden: "Not with this token",
    TooMany: "Too many wrong tokens",
    Misdirected: "The container is on another server",
    BadGateway: "The container does not answer",
    GatewayTimeout: "The container does not answer",
}
WAIT_AGAIN = 2
"""Seconds after which a browser asks again."""
_WHY = {
    "paused": "The container is paused",
    "stopped": "The container is stopped",
    "failed": "The container has failed",
    "silent": "The container does not answer",
}


def refuse(request: Request, error: HoodyError, last_words: str = "") -> None:
    """
    Answer with C{error}.

    @param last_words: the end of the container's log, if they may read it.
    """
    if request.gone:
        return
    request.setHeader(b"cache-control", b"no-store")
    request.responseHeaders.addRawHeader(b"vary", b"Accept")
    if preferred(request, (TEXT, HTML)) == HTML:
        _show(request, error, last_words)
        return
    content_type, line = failures.as_line(error)
    if last_words:
        line += b"\n" + last_words.rstrip("\n").encode() + b"\n"
    request.setHeader(b"x-content-type-options", b"nosniff")
    failures.answer(request, error, (content_type, line))


def is_browsing(request: Request) -> bool:
    """Whether somebody waits for a page."""
    if request.method != b"GET" or preferred(request, (TEXT, HTML)) != HTML:
        return False
    # A script's fetch, as far as the browser says so, is none.
    return (request.getHeader(b"sec-fetch-dest") or b"document") in (b"document", b"iframe")


def have_wait(request: Request, name: str) -> None:
    """Show a page that asks again by itself: the container is being started."""
    request.setResponseCode(503)
    request.setHeader(b"cache-control", b"no-store")
    request.setHeader(b"retry-after", b"%d" % WAIT_AGAIN)
    request.setHeader(b"refresh", b"%d" % WAIT_AGAIN)
    request.responseHeaders.addRawHeader(b"vary", b"Accept")
    html.show(
        request,
        "waiting.html",
        style=("look.css", "controls.css", "refusal.css"),
        title=f"{name} is starting",
        name=name,
    )


def say_asleep(request: Request, found: str) -> None:
    """To who only wants to know whether it is well: it would be there if it were needed."""
    text = f"The container sleeps ({found}); a request that is no probe wakes it.\n".encode()
    request.setHeader(b"cache-control", b"no-store")
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    request.setHeader(b"x-content-type-options", b"nosniff")
    request.setHeader(b"x-hoody-asleep", found.encode())
    request.setHeader(b"content-length", b"%d" % len(text))
    request.write(b"" if request.method == b"HEAD" else text)
    request.finish()


def title_of(error: HoodyError) -> str:
    """The same in some words."""
    if isinstance(error, NotServing) and error.why in _WHY:
        return _WHY[error.why]
    return _TITLES.get(type(error), HTTPStatus(error.status).phrase)


def _show(request: Request, error: HoodyError, last_words: str) -> None:
    failures.set_status(request, error)
    html.show(
        request,
        "refusal.html",
        style=("look.css", "controls.css", "refusal.css"),
        title=title_of(error),
        sentence=error.sentence,
        last_words=last_words,
        asks_token=isinstance(error, NoToken) and request.method == b"GET",
        fields=_fields(request),
    )


def _fields(request: Request) -> list[tuple[str, str]]:
    """What else the URL asks for, to be asked for again along with the token."""
    query = forwarding.query_without_tokens(request.query).decode("ascii", "replace")
    return parse_qsl(query, keep_blank_values=True)
