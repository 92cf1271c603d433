"""
Events of what must not wait for the database: pipes go on while it is away.

They are written a little later, many at once; what cannot be written now is kept
until it can, up to a limit.
"""

from __future__ import annotations

from collections import deque

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hoody.audit.events import Event
from hoody.errors import DatabaseAway
from hoody.interfaces import IStore

EVERY = 0.25
"""Seconds between two times that what has come is written."""
MOST = 20_000
"""Events that are kept; then the oldest go."""
BATCH = 500

_log = Logger(namespace="hoody.audit")


@define(eq=False)
class Journal:
    """@ivar lost: how many events there was no room for."""

    _store: IStore
    _clock: IReactorTime
    lost: int = field(default=0, init=False)
    _batch: int = field(default=BATCH, init=False)
    _kept: deque[Event] = field(factory=deque, init=False)
    _writing: Deferred[None] | None = field(default=None, init=False)
    _call: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._call = LoopingCall(self._tick)
        self._call.clock = self._clock

    def start(self) -> None:
        self._call.start(EVERY, now=False)

    def add(self, event: Event) -> None:
        """Have it written soon."""
        if len(self._kept) >= MOST:
            self._kept.popleft()
            if not self.lost:
                _log.error("more events than can be kept while the database is away; some go")
            self.lost += 1
        self._kept.append(event)

    @property
    def waiting(self) -> int:
        """How many have not been written yet."""
        return len(self._kept)

    async def stop(self) -> None:
        """Write what is left, if that can be done at once."""
        if self._call.running:
            self._call.stop()
        if self._writing is not None:
            await self._writing
        await self._write()
        if self._kept:
            _log.error("{count} event(s) could not be written", count=len(self._kept))

    def _tick(self) -> None:
        if self._kept and self._writing is None:
            self._writing = ensureDeferred(self._write())
            self._writing.addBoth(self._written)

    def _written(self, _: object) -> None:
        self._writing = None

    async def _write(self) -> None:
        while self._kept:
            batch = [self._kept[i] for i in range(min(self._batch, len(self._kept)))]
            dropped = self.lost
            try:
                async with self._store.transaction(patience=5) as transaction:
                    for event in batch:
                        transaction.record(event)
            except DatabaseAway:
                return
            except Exception:
                if len(batch) > 1:
                    self._batch = 1  # which of them it is
                    continue
                _log.failure("an event could not be written, and is given up")
            if self._batch < BATCH:
                self._batch *= 2
            # Some may have been dropped meanwhile, from the same end.
            for _ in range(len(batch) - (self.lost - dropped)):
                self._kept.popleft()
