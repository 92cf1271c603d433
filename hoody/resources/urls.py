"""URLs as the client may write them again."""

from __future__ import annotations

from urllib.parse import quote

from hoody.protocols.request import Request

PIPES = "/api/v1/pipe"


def origin(request: Request) -> str:
    """Where the client found us."""
    scheme = "https" if request.isSecure() else "http"
    host = (request.getHeader(b"host") or b"localhost").decode("ascii", "replace")
    return f"{scheme}://{host}"


def pipe_url(request: Request, path: str) -> str:
    """A pipe's, under the same host, with or without the usual prefix, as it was asked for."""
    prefix = PIPES if request.path.decode("ascii", "replace").startswith(PIPES) else ""
    return f"{origin(request)}{prefix}/{quote(path, safe='/~')}"
