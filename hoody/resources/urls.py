"""URLs as the client may write them again, and the curl lines that go with them."""

from __future__ import annotations

from shlex import quote as shell_quoted
from urllib.parse import quote

from hoody.protocols.request import Request

PIPES = "/api/v1/pipe"


def origin(request: Request) -> str:
    """Where the client found us."""
    scheme = "https" if request.isSecure() else "http"
    host = (request.getHeader(b"host") or b"localhost").decode("ascii", "replace")
    return f"{scheme}://{host}"


def pipes_path(request: Request) -> str:
    """What stands before a pipe's name: with or without the usual prefix, as it was asked for."""
    path = request.path.decode("ascii", "replace")
    return PIPES if path == PIPES or path.startswith(f"{PIPES}/") else ""


def pipes_url(request: Request) -> str:
    """The same, from its scheme on."""
    return f"{origin(request)}{pipes_path(request)}"


def pipe_url(request: Request, path: str) -> str:
    """A pipe's, under the same host."""
    return f"{origin(request)}{pipe_path(request, path)}"


def pipe_path(request: Request, path: str) -> str:
    """The same, less scheme and host."""
    return f"{pipes_path(request)}/{encoded(path)}"


def container_url(request: Request, host: str) -> str:
    """Of a container's host, by the scheme and the port by which the client found us."""
    scheme = "https" if request.isSecure() else "http"
    _, _, port = (request.getHeader(b"host") or b"").decode("ascii", "replace").rpartition(":")
    return f"{scheme}://{host}{f':{port}' if port.isdigit() else ''}/"


def encoded(path: str) -> str:
    """
    A pipe's path for a URL. Clients resolve parts that are dots, and take what begins with
    two slashes for a host: there the slashes are encoded too; to us they are the same.
    """
    misread = path.startswith("/") or {".", ".."} & set(path.split("/"))
    return quote(path, safe="~" if misread else "/~")


def receiving_line(url: str, filename: str, *, bearer: bool) -> str:
    """What a receiver types."""
    header = '-H "Authorization: Bearer $TOKEN" ' if bearer else ""
    return f"curl {header}{shell_quoted(url)} > {shell_quoted(filename)}"
