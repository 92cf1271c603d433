"""The pages that send and receive from a browser, with scripts and without."""

from __future__ import annotations

import secrets

from attrs import frozen

from hoody.errors import CallerError, HoodyError
from hoody.pipes import names, queries
from hoody.protocols.request import Request
from hoody.resources import html
from hoody.resources.accept import HTML, TEXT, preferred
from hoody.resources.forms import TEXT_FIELD
from hoody.resources.guard import PipeGuard
from hoody.resources.urls import encoded, pipe_path, pipe_url, pipes_path, receiving_line

_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # none that is taken for another


@frozen
class WebPage:
    """
    @ivar patience: how long either side waits, in words.
    @ivar guard: who may use pipes.
    """

    patience: str
    guard: PipeGuard

    def show(self, request: Request) -> None:
        """The page that scripts drive."""
        self._show(
            request,
            "send.html",
            script=("words.js", "copy.js", "send.js"),
            reserved=" ".join(sorted(names.RESERVED - {""})),
            longest=names.MAX_LENGTH,
            **_form(_new_name(), "1"),
        )

    def show_plain(self, request: Request) -> None:
        """The page of forms: first for a name and a number, then for the file."""
        asked = _asked(request)
        values = _form(asked.name, asked.n)
        if asked.is_asked:
            try:
                values |= self._addresses(request, *_checked(asked))
            except HoodyError as error:
                request.setResponseCode(CallerError.status)
                values["error"] = error.sentence
        self._show(request, "noscript.html", text_field=TEXT_FIELD, frame_src="'self'", **values)

    def _addresses(self, request: Request, name: str, receivers: int) -> dict[str, object]:
        path = pipe_path(request, name)
        n = f"?n={receivers}" if receivers > 1 else ""
        url = pipe_url(request, name) + n
        return {
            "action": path + n,
            "download": f"{path}{n}{'&' if n else '?'}download",
            "url": url,
            "line": receiving_line(url, "file", bearer=self.guard.wants_token(request)),
        }

    def _show(self, request: Request, template: str, **values: object) -> None:
        request.setHeader(b"cache-control", b"no-store")
        html.show(
            request,
            template,
            style=("look.css", "controls.css", "send.css"),
            base=pipes_path(request),
            patience=self.patience,
            bearer=self.guard.wants_token(request),
            most=queries.MAX_RECEIVERS,
            **values,
        )


def _form(name: str, n: str) -> dict[str, object]:
    """What the form for a path is filled with, before anything was found wrong with it."""
    return {"name": name, "n": n, "error": "", "url": ""}


@frozen
class _Asked:
    """What the form of the plain page was filled with, not yet checked."""

    name: str
    n: str
    is_asked: bool


def _asked(request: Request) -> _Asked:
    fields = queries.parse(request.query)
    given = fields.get("path")
    return _Asked(given[0] if given else _new_name(), fields.get("n", ["1"])[0], bool(given))


def _checked(asked: _Asked) -> tuple[str, int]:
    """@raise HoodyError: for what the pipe itself would not take."""
    name = names.read(encoded(asked.name).encode())
    page = names.page(name)
    if page == "":
        raise CallerError("The path is empty, or dots and slashes only; give it a name.")
    if page is not None:
        raise CallerError(f"The path {page} is reserved; choose another one.")
    return name, queries.read_send({"n": [asked.n]}).wanted


def _new_name() -> str:
    """One that nobody guesses, in groups that can be read out."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(4))


def wants_html(request: Request) -> bool:
    """Whether it is a browser that asks; say that others are answered otherwise."""
    request.responseHeaders.addRawHeader(b"vary", b"Accept")
    return preferred(request, (TEXT, HTML)) == HTML
