"""How long it is told what happened."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hoody.errors import DatabaseAway
from hoody.interfaces import IStore
from hoody.units import moment

BATCH = 5000

_log = Logger(namespace="hoody.audit")


@define(eq=False)
class Retention:
    """
    @ivar seconds: how old an event may become; C{None} for any age.
    @ivar every: seconds between two sweeps.
    """

    _store: IStore
    _clock: IReactorTime
    seconds: float | None
    every: float
    _call: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._call = LoopingCall(self._sweep_later)
        self._call.clock = self._clock

    def start(self) -> None:
        if self.seconds is not None:
            self._call.start(self.every, now=False)

    def stop(self) -> None:
        if self._call.running:
            self._call.stop()

    def _sweep_later(self) -> Deferred[None]:
        return ensureDeferred(self._try())

    async def _try(self) -> None:
        try:
            await self.sweep()
        except DatabaseAway as error:
            _log.warn("old events stay for now: {reason}", reason=error.reason)
        except Exception:
            _log.failure("old events stay for now")

    async def sweep(self) -> int:
        """Forget what is too old, a batch at a time. @return: how many events that was."""
        assert self.seconds is not None
        before = moment(self._clock.seconds() - self.seconds)
        gone = 0
        while True:
            async with self._store.transaction(patience=10) as transaction:
                batch = await transaction.events.expire(before, BATCH)
            gone += batch
            if batch < BATCH:
                return gone
