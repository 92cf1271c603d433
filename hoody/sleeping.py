"""Coming back later."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


async def sleep(reactor: Any, seconds: float) -> None:
    """Come back later; may be cancelled."""
    call: Any = None
    done: Deferred[None] = Deferred(lambda _: call.cancel())
    call = reactor.callLater(seconds, done.callback, None)
    await done
