"""Leave for pages of other origins to use pipes (the Fetch standard's CORS protocol)."""

from __future__ import annotations

from hoody.pipes.heads import Header
from hoody.protocols.request import Request

METHODS = b"GET, HEAD, POST, PUT, OPTIONS"
HEADERS = (
    b"Content-Type, Content-Disposition, Authorization, X-Piping, X-Hoody-Pipe,"
    b" Last-Event-ID, Range"
)
EXPOSED = (
    b"X-Piping, X-Hoody-Pipe, Content-Length, Content-Disposition, Repr-Digest,"
    b" Retry-After, X-Request-Id"
)
MAX_AGE = b"86400"


def allow_origin(origin: bytes | None) -> list[Header]:
    """What every answer bears."""
    if not origin:
        return [(b"Access-Control-Allow-Origin", b"*")]
    return [(b"Access-Control-Allow-Origin", origin), (b"Vary", b"Origin")]


def allow(request: Request) -> None:
    """Let the page that asks read the answer."""
    for name, value in allow_origin(request.getHeader(b"origin")):
        request.setHeader(name, value)
    request.setHeader(b"access-control-expose-headers", EXPOSED)


def answer_preflight(request: Request, *, private_network: bool) -> None:
    """
    Answer C{OPTIONS}.

    @param private_network: whether a page of the public web may reach us on a
        private address (Private Network Access).
    """
    allow(request)
    request.setHeader(b"access-control-allow-methods", METHODS)
    request.setHeader(b"access-control-allow-headers", HEADERS)
    request.setHeader(b"access-control-max-age", MAX_AGE)
    asked = request.getHeader(b"access-control-request-private-network") == b"true"
    if private_network and asked:
        request.setHeader(b"access-control-allow-private-network", b"true")
    request.setHeader(b"content-length", b"0")
    request.finish()
