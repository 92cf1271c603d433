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
