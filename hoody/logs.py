"""
What the server says of itself: one line an event, for eyes or as JSON.
"""

from __future__ import annotations

import json
import re
import sys
from functools import lru_cache
from typing import TextIO
from urllib.parse import unquote_plus

from twisted.logger import ILogObserver, LogEvent, Logger, formatEvent, formatTime
from zope.interface import implementer

from hoody.protocols.request import Request
from hoody.units import rfc3339

_access = Logger(namespace="hoody.access")
_READY = "{text}"
_SECRETS = ("token", "cap")
# What twisted.logger adds to an event for itself.
_INTERNAL = frozenset(
    {"message", "time", "system", "format", "isError", "failure", "why", "logLevel", "printed"}
    | {"text"}
)
_PLAIN = (str, int, float, bool, type(None))


def say(logger: Logger, text: str, **fields: object) -> None:
    """
    Log words that are ready. Twisted's way of putting fields into a format costs
    more than to answer a small request; for what is said of each, this is for.

    @param fields: for the JSON.
    """
    logger.info(_READY, text=text, **fields)


def log_access(request: Request) -> None:
    """One event for one request, when it is over, however it ended."""
    path = request.path.decode("ascii", "replace")
    query = "&".join(map(_masked, request.query.decode("ascii", "replace").split("&")))
    client, method = request.peer_address, request.method.decode("ascii", "replace")
    target = f"{path}?{query}" if query else path
    status = status_of(request)
    duration = round((request.site.reactor.seconds() - request.started_at) * 1000, 1)
    outcome = _outcome(request)
    say(
        _access,
        f"{client} {method} {target} {status} in={request.received} out={request.sentLength}"
        f" {duration} ms {outcome}",
        client=client,
        method=method,
        target=target,
        host=request.host_name.decode("ascii", "replace"),
        status=status,
        received=request.received,
        sent=request.sentLength,
        duration_ms=duration,
        outcome=outcome,
        user_agent=(request.getHeader(b"user-agent") or b"").decode("ascii", "replace"),
        http=request.clientproto.decode("ascii", "replace"),
        request_id=request.request_id.decode("ascii"),
    )


def _masked(pair: str) -> str:
    """A part of a query, without the secret that it may be; names may be encoded, too."""
    name, equals, _ = pair.partition("=")
    if equals and unquote_plus(name) in _SECRETS:
        return f"{name}=***"
    return pair


def status_of(request: Request) -> int:
    """What was answered; 499 if nobody waited for it."""
    return int(request.code) if request.startedWriting else 499


def _outcome(request: Request) -> str:
    """Whether the answer was whole, broken off by us, or lost with its client."""
    if request.broken:
        return "broken"
    return "lost" if request.gone else "whole"


_OF_PORTS = re.compile(r"\S+ starting on \S+|\(\S+ Port \S+ Closed\)")
"""What Twisted says of each port that is listened on: containers have several each."""


def _is_of_a_port(event: LogEvent) -> bool:
    return event.get("log_namespace") == "log_legacy" and bool(_OF_PORTS.fullmatch(_text(event)))


@implementer(ILogObserver)
class JsonLines:
    """Writes each event as one JSON object on one line."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out

    def __call__(self, event: LogEvent) -> None:
        if _is_of_a_port(event):
            return
        self._out.write(json.dumps(_fields(event), default=str) + "\n")
        self._out.flush()


@implementer(ILogObserver)
class TextLines:
    """Writes each event as a line to be read; a failure brings its traceback."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out

    def __call__(self, event: LogEvent) -> None:
        if _is_of_a_port(event):
            return
        name = event.get("log_namespace", "-")
        level = getattr(event.get("log_level"), "name", "info")
        # One event is one line: a client must not be able to forge another.
        text = _text(event).replace("\r", "\\r").replace("\n", "\\n")
        time = _format_second(int(event.get("log_time") or 0))
        self._out.write(f"{time} [{name}#{level}] {text}\n")
        failure = event.get("log_failure")
        if failure is not None:
            self._out.write(failure.getTraceback())
        self._out.flush()


@lru_cache(1)
def _format_second(second: int) -> str:
    return formatTime(second)


def _text(event: LogEvent) -> str:
    if event.get("log_format") is _READY:
        return str(event["text"])
    return formatEvent(event)


def observer(log_format: str) -> ILogObserver:
    """The observer for C{--log-format}."""
    return JsonLines() if log_format == "json" else TextLines()


def _fields(event: LogEvent) -> dict[str, object]:
    fields: dict[str, object] = {
        "time": rfc3339(event["log_time"]) if "log_time" in event else None,
        "level": getattr(event.get("log_level"), "name", "info"),
        "name": event.get("log_namespace"),
        "message": _text(event),
    }
    for key, value in event.items():
        if not key.startswith("log_") and key not in _INTERNAL and isinstance(value, _PLAIN):
            fields.setdefault(key, value)
    failure = event.get("log_failure")
    if failure is not None:
        fields["traceback"] = failure.getTraceback()
    return fields
