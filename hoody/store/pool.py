"""The connections that questions are asked on: a few, opened when wanted, kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic

from attrs import define, field
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import LoopingCall

from hoody.errors import DatabaseAway
from hoody.store.links import Link

LOOK_EVERY = 0.25
"""Seconds between two looks at what takes too long."""
MOST_WAITING = 500
"""Who comes when as many wait for a connection is refused at once."""


@define(eq=False)
class Pool:
    """
    @ivar open_link: opens one connection.
    @ivar size: how many there may be.
    @ivar problem: why Postgres cannot be reached, or C{None}.
    """

    _reactor: ReactorBase
    open_link: Callable[[], Awaitable[Link]]
    size: int
    problem: str | None = field(default=None, init=False)
    links: set[Link] = field(factory=set, init=False)
    _idle: list[Link] = field(factory=list, init=False)
    _opening: int = field(default=0, init=False)
    _waiters: dict[Deferred[Link], float] = field(factory=dict, init=False)
    _looks: LoopingCall = field(init=False)
    _closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._looks = LoopingCall(self._look)
        self._looks.clock = self._reactor

    def start(self) -> None:
        self._closed = False
        self._looks.start(LOOK_EVERY, now=False)

    def stop(self) -> None:
        """Close all; who waits is told that Postgres is away."""
        self._closed = True
        if self._looks.running:
            self._looks.stop()
        self._fail_waiters("the server is stopping")
        for link in tuple(self.links):
            self._drop(link)

    @property
    def waiting(self) -> int:
        """How many wait for a connection."""
        return len(self._waiters)

    @property
    def busy(self) -> int:
        """How many connections are in use."""
        return len(self.links) - len(self._idle)

    def take(self, late: float) -> Deferred[Link]:
        """
        A connection of one's own, to be given back or retired.

        @param late: until when to wait for it, and for all that is asked on it; CLOCK_MONOTONIC.
        @return: may be cancelled. Fails with L{DatabaseAway}.
        """
        waiter: Deferred[Link] = Deferred(self._forget)
        if self._closed or len(self._waiters) >= MOST_WAITING:
            waiter.errback(DatabaseAway(self.problem or "too many wait for it"))
            return waiter
        self._waiters[waiter] = late
        self._serve()
        return waiter

    def _forget(self, waiter: Deferred[Link]) -> None:
        self._waiters.pop(waiter, None)

    def give_back(self, link: Link) -> None:
        """Let the next have it; nothing is under way on it."""
        if not link.usable or self._closed:
            self._drop(link)
        else:
            self.problem = None
            self._idle.append(link)
        self._serve()

    def retire(self, link: Link) -> None:
        """Let the next have it, once what is under way on it has been undone."""
        ensureDeferred(self._undo(link))

    async def _undo(self, link: Link) -> None:
        link.late = monotonic() + 2
        await link.quiet()
        if link.usable:
            try:
                await link.run("ROLLBACK")
            except Exception:
                link.close()
        self.give_back(link)

    def _serve(self) -> None:
        while self._waiters and self._idle:
            link = self._idle.pop()
            if not link.usable:
                self._drop(link)
                continue
            waiter = next(iter(self._waiters))
            link.late = self._waiters.pop(waiter)
            waiter.callback(link)
        room = self.size - len(self.links) - self._opening
        for _ in range(min(room, len(self._waiters) - self._opening)):
            self._opening += 1
            ensureDeferred(self._open())

    async def _open(self) -> None:
        try:
            link = await self.open_link()
        except Exception as error:
            # Whoever waits does so until the next look, which tries again, or gives up.
            self.problem = getattr(error, "reason", "the connection was lost")
            self._opening -= 1
            return
        self._opening -= 1
        self.links.add(link)
        link.on_death = lambda: self._drop(link)
        self.give_back(link)

    def _drop(self, link: Link) -> None:
        self.links.discard(link)
        if link in self._idle:
            self._idle.remove(link)
        link.close()

    def _look(self) -> None:
        for link in tuple(self.links):
            link.look()
        now = monotonic()
        for waiter, late in tuple(self._waiters.items()):
            if now > late and self._waiters.pop(waiter, None) is not None:
                waiter.errback(DatabaseAway(self.problem or "all connections are busy"))
        self._serve()

    def _fail_waiters(self, reason: str) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            waiter.errback(DatabaseAway(reason))
