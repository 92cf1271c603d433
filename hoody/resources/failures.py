"""The one place where errors become HTTP."""

from __future__ import annotations

import errno
from http import HTTPStatus
from uuid import uuid4

import msgspec
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import datetimeToString
from werkzeug.exceptions import HTTPException

from hoody.cron import errors
from hoody.errors import HoodyError, NoSuchThing, Unavailable, WrongMethod
from hoody.protocols.channel import Channel
from hoody.protocols.request import Request
from hoody.resources.cors import allow_origin

_log = Logger(namespace="hoody.http")

Body = tuple[bytes, bytes]
"""A Content-Type, and what is of it."""


def as_line(error: HoodyError) -> Body:
    """As pipes say it: one line of text."""
    return b"text/plain; charset=utf-8", f"[ERROR] {error.sentence}\n".encode()


def as_envelope(error: HoodyError) -> Body:
    """As the container API says it."""
    return b"application/json", as_json(
        {
            "statusCode": error.status,
            "error": HTTPStatus(error.status).phrase,
            "message": error.sentence,
        }
    )


def as_coded(error: HoodyError) -> Body:
    """As the cron API says it."""
    return b"application/json", as_json(
        {
            "code": errors.code_of(error),
            "message": error.sentence,
            "details": errors.details_of(error),
        }
    )


def as_json(value: object) -> bytes:
    """JSON on one line, with a line end for terminals."""
    return msgspec.json.format(msgspec.json.encode(value), indent=0) + b"\n"


def understood(failure: Failure) -> HoodyError:
    """
    What to tell a client of any failure. What is not one of ours is logged
    with its traceback, and says nothing of itself.
    """
    error = failure.value
    if isinstance(error, HoodyError):
        return error
    if isinstance(error, HTTPException):
        return routing_error(error)
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return Unavailable("No file descriptor is left for this; try again in a moment.")
    _log.failure("a request failed", failure)
    return HoodyError("Something broke here; the server's log says what, under this request's id.")


def routing_error(error: HTTPException) -> HoodyError:
    """What Klein's router means, in our words."""
    if error.code == WrongMethod.status:
        methods = ", ".join(sorted({"OPTIONS", *(getattr(error, "valid_methods", None) or [])}))
        return WrongMethod(f"This method is not for this path; use {methods}.", Allow=methods)
    return NoSuchThing("There is nothing under this path; see /api/v1/pipe/help.")


def answer(request: Request, error: HoodyError, body: Body) -> None:
    """
    Answer with C{error}'s status and C{body}, whole and with its length.

    Where an upload is refused, the connection closes after it, and not
    before the client could read it: see L{Channel.linger}.
    """
    if request.gone:
        return
    content_type, content = body
    set_status(request, error)
    request.setHeader(b"content-type", content_type)
    request.setHeader(b"content-length", b"%d" % len(content))
    request.write(content)
    request.finish()


def set_status(request: Request, error: HoodyError) -> None:
    """What an answer with C{error} bears, whatever its body."""
    request.setResponseCode(error.status, HTTPStatus(error.status).phrase.encode())
    for name, value in error.headers.items():
        request.setHeader(name.encode(), value.encode())
    if not request.body_done or request.length != 0:
        request.close_after()


def answer_coded(request: Request, error: HoodyError) -> None:
    """As L{answer}, as the cron API does."""
    error = errors.coded(error)
    answer(request, error, as_coded(error))


def refuse_connection(channel: Channel, error: HoodyError) -> None:
    """Answer bytes that never became a request. The channel closes by itself."""
    content_type, content = as_line(error)
    phrase = HTTPStatus(error.status).phrase
    head = [
        f"HTTP/1.1 {error.status} {phrase}".encode(),
        b"Server: " + channel.site.server_name,
        b"Date: " + datetimeToString(),
        b"X-Request-Id: " + uuid4().hex.encode(),
        b"Content-Type: " + content_type,
        b"Content-Length: %d" % len(content),
        b"Connection: close",
        *(b"%s: %s" % header for header in allow_origin(None)),
    ]
    channel.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + content)
    _log.info(
        "{client} sent what is no request: {status} {error}",
        client=getattr(channel.transport.getPeer(), "host", None),
        status=error.status,
        error=error.sentence,
    )
