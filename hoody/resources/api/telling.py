"""Answers to what takes a while: when it is done, or told as it goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from twisted.logger import Logger

from hoody.errors import HoodyError
from hoody.protocols import sse
from hoody.protocols.sse import EventStream
from hoody.resources.accept import JSON, SSE, preferred
from hoody.resources.api.operations import Call

_log = Logger(namespace="hoody")

T = TypeVar("T")


async def told(call: Call, work: Callable[[Callable[[str], None]], Awaitable[T]]) -> T | None:
    """
    With C{Accept: text/event-stream}: C{progress} (C{message}) as it goes, and last C{done}
    (what is C{data} else) or C{error} (C{statusCode}, C{message}).

    @param work: given whom to tell.
    @return: C{data}; C{None} if it has been told.
    """
    if preferred(call.request, (JSON, SSE)) != SSE:
        return await work(lambda _: None)
    stream = EventStream.open(call.request)

    def tell(name: str, data: object) -> None:
        stream.write(sse.encode(None, msgspec.json.encode(data), name))

    try:
        done = await work(lambda said: tell("progress", {"message": said}))
    except HoodyError as error:
        tell("error", {"statusCode": error.status, "message": error.sentence})
    except Exception:
        _log.failure("what was told of as it went has failed")
        sentence = "It failed for a reason that is in the server's log."
        tell("error", {"statusCode": 500, "message": sentence})
    else:
        tell("done", done)
    stream.close()
    return None
