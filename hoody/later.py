"""Coming back later."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from time import perf_counter
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred
from twisted.python.failure import Failure

T = TypeVar("T")


async def sleep(reactor: Any, seconds: float) -> None:
    """Come back later; may be cancelled."""
    call: Any = None
    done: Deferred[None] = Deferred(lambda _: call.cancel())
    call = reactor.callLater(seconds, done.callback, None)
    await done


async def unhurried(reactor: Any, things: Iterable[T], seconds: float) -> AsyncIterator[T]:
    """
    These, one after the other.

    @param seconds: when what is done with them has gone on for so long, the reactor sees to
        others before the next.
    """
    began = perf_counter()
    for thing in things:
        if perf_counter() - began > seconds:
            await sleep(reactor, 0)
            began = perf_counter()
        yield thing


@define(eq=False)
class Turns:
    """
    For what holds the reactor for some milliseconds, and comes by the dozen: one in each of its
    turns, so that others are seen to in between.
    """

    _reactor: Any
    _lock: DeferredLock = field(factory=DeferredLock, init=False)

    async def mine(self) -> None:
        """Come back when it is."""
        await self._lock.acquire()
        self._reactor.callLater(0, self._lock.release)


def to_its_end(work: Coroutine[Any, Any, T]) -> Deferred[T]:
    """
    Do what must not stop half-way: whoever waits for it may go (Klein cancels what a request
    waits for when its client leaves), and it goes on.
    """
    done: Deferred[T] = Deferred()

    def finish(result: Any) -> None:
        if not done.called:
            done.callback(result)  # a Failure goes down the errbacks

    ensureDeferred(work).addBoth(finish)
    return done


def in_thread(reactor: Any, work: Callable[[], T]) -> Deferred[T]:
    """
    Do what may hang for ever in a thread of its own: unlike the reactor's, which it
    waits for in the end, this one ends with the process.
    """
    done: Deferred[T] = Deferred()

    def finish(result: Any) -> None:
        if not done.called:
            done.callback(result)  # a Failure goes down the errbacks

    def run() -> None:
        result: Any
        try:
            result = work()
        except BaseException:
            result = Failure()  # type: ignore[no-untyped-call]
        reactor.callFromThread(finish, result)

    threading.Thread(target=run, daemon=True).start()
    return done
