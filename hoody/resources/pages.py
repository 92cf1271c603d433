"""What stands among the pipes and beside them: help, health, version, and the way to pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from klein import Klein
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from hoody import __version__
from hoody.auth.tokens import Scope
from hoody.metrics import CONTENT_TYPE
from hoody.protocols.request import Request
from hoody.resources import failures
from hoody.resources.api import openapi
from hoody.resources.api.operations import Operation, register
from hoody.resources.guard import Guard, PipeGuard
from hoody.resources.progress import ProgressFace
from hoody.resources.urls import pipes_url
from hoody.resources.webpage import WebPage, wants_html

HELP = """\
hoody pipe: what is PUT on one side is what the other side GETs. Nothing is
stored; the slower side sets the pace; either side may come first and waits up
to {ttl}.

  Send a file           curl -T FILE {url}/NAME
  Send a stream         pg_dump app | gzip | curl -T - {url}/NAME
  Receive it            curl {url}/NAME | gunzip | psql app
  To three receivers    curl -T FILE "{url}/NAME?n=3"
                        curl "{url}/NAME?n=3"          (three times)
  From a form           curl -F file=@FILE {url}/NAME
  With a checksum       curl -T FILE "{url}/NAME?digest=sha256"
  Watch it go           curl -N "{url}/NAME?progress"    (or in a browser)
  Save under a name     curl -OJ "{url}/NAME?filename=backup.sql.gz"

NAME is yours to choose: up to 1024 characters, slashes included. Whoever knows
it can take part, so choose one that cannot be guessed.

The sender reads how it goes, line by line. "[INFO] Transfer complete." means
that every receiver's machine has acknowledged the last byte; an [ERROR] line,
and an answer that breaks off, that it has not.

  {url}            in a browser: a page to send and receive
  {url}/help       this text
  {url}/version    the version
  {url}/health     whether all is well, as JSON
"""

ROBOTS = b"User-agent: *\nDisallow: /\n"


PROGRESS = b"progress"
"""Where L{Root} leads whoever watches a pipe, of whatever name."""


def pipe_pages(
    health: Callable[[Request], dict[str, object]],
    *,
    ttl: float,
    guard: PipeGuard,
    progress: ProgressFace,
) -> Klein:
    """
    What is under the reserved paths, by their folded names.

    @param health: makes the report for one request.
    @param guard: who may use pipes.
    """
    app = Klein()
    page = WebPage(_in_words(ttl), guard)

    @app.route("/progress", methods=["GET"])
    async def progress_page(request: Request) -> bytes | None:
        assert request.pipe_path is not None
        return await progress.show(request, request.pipe_path)

    @app.route("/", methods=["GET"])
    def web_page(request: Request) -> bytes | None:
        if not wants_html(request):
            return help_page(request)
        page.show(request)
        return None

    @app.route("/noscript", methods=["GET"])
    def plain_page(request: Request) -> None:
        page.show_plain(request)

    @app.route("/help", methods=["GET"])
    def help_page(request: Request) -> bytes:
        text = HELP.format(url=pipes_url(request), ttl=_in_words(ttl))
        return _plain(request, text.encode())

    @app.route("/version", methods=["GET"])
    def version(request: Request) -> bytes:
        return _plain(request, f"hoody {__version__}\n".encode())

    @app.route("/health", methods=["GET"])
    def health_page(request: Request) -> bytes:
        return _json(request, health(request))

    @app.route("/robots.txt", methods=["GET"])
    def robots(request: Request) -> bytes:
        return _plain(request, ROBOTS)

    @app.handle_errors(Exception)
    def failed(request: IRequest, failure: Failure) -> None:
        error = failures.understood(failure)
        failures.answer(cast(Request, request), error, failures.as_line(error))

    return app


def server_pages(
    health: Callable[[Request], dict[str, object]],
    *,
    metrics: Callable[[], bytes],
    guard: Guard,
    needs_token: bool,
    operations: list[Operation],
) -> Klein:
    """
    What is beside the pipes.

    @param metrics: makes the page for Prometheus.
    @param needs_token: whether that is for holders of a token only; by a container's own
        door it always is.
    @param operations: the API's; cron's are told of, and have pages of their own.
    """
    app = Klein()
    register(app, guard, [each for each in operations if not each.bare])
    described = failures.as_json(openapi.document(operations, openapi.plain_routes()))

    @app.route("/openapi.json", methods=["GET"])
    def openapi_page(request: Request) -> bytes:
        return _described(request, described)

    @app.route("/metrics", methods=["GET"])
    async def metrics_page(request: Request) -> bytes:
        if needs_token or request.door is not None:
            await guard.admit(request, Scope.READ, page=False)
        page = metrics()
        request.setHeader(b"content-type", CONTENT_TYPE)
        request.setHeader(b"content-length", b"%d" % len(page))
        return page

    @app.route("/", methods=["GET"])
    def index(request: Request) -> bytes:
        text = (
            f"hoody {__version__}\n\nPipes: /api/v1/pipe/help\nWhat happened: /api/v1/events\n"
            "Cron: /crontab\n"
            "The API: /openapi.json\nHealth: /health\nMetrics: /metrics\n"
        )
        return _plain(request, text.encode())

    @app.route("/health", methods=["GET"])
    def health_page(request: Request) -> bytes:
        return _json(request, health(request))

    @app.handle_errors(Exception)
    def failed(request: IRequest, failure: Failure) -> None:
        error = failures.understood(failure)
        failures.answer(cast(Request, request), error, failures.as_envelope(error))

    return app


def cron_pages(
    health: Callable[[Request], dict[str, object]], *, guard: Guard, operations: list[Operation]
) -> Klein:
    """
    What is where there is cron alone.

    @param operations: cron's.
    """
    app = Klein()
    register(app, guard, operations)
    described = failures.as_json(openapi.document(operations, openapi.plain_cron_routes()))

    @app.route("/openapi.json", methods=["GET"])
    def openapi_page(request: Request) -> bytes:
        return _described(request, described)

    @app.route("/health", methods=["GET"])
    def health_page(request: Request) -> bytes:
        return _json(request, health(request))

    @app.handle_errors(Exception)
    def failed(request: IRequest, failure: Failure) -> None:
        failures.answer_coded(cast(Request, request), failures.understood(failure))

    return app


def _described(request: Request, document: bytes) -> bytes:
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"content-length", b"%d" % len(document))
    return document


def _plain(request: Request, content: bytes) -> bytes:
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    return _whole(request, content)


def _json(request: Request, value: object) -> bytes:
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"cache-control", b"no-store")
    return _whole(request, failures.as_json(value))


def _whole(request: Request, content: bytes) -> bytes:
    """Say the length, so that the connection can be kept for HTTP/1.0 too, and HEAD is told."""
    request.setHeader(b"content-length", b"%d" % len(content))
    request.setHeader(b"x-content-type-options", b"nosniff")
    return content


def _in_words(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} seconds"
