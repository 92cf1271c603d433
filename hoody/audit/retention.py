"""How long it is told what happened, how runs and how the last transfer of a path ended."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hoody.errors import DatabaseAway
from hoody.interfaces import ICron, IEvents, IResults, IStore, ITransaction
from hoody.units import moment

BATCH = 5000

_log = Logger(namespace="hoody.audit")


@define(eq=False)
class Retention:
    """
    @ivar events: how many seconds old an event may become; C{None} for any age.
    @ivar results: how many seconds old the end of a path's last transfer may become.
    @ivar runs: how many seconds old a run of cron may become.
    @ivar every: seconds between two sweeps.
    """

    _store: IStore
    _clock: IReactorTime
    events: float | None
    results: float
    runs: float
    every: float
    _call: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._call = LoopingCall(self._sweep_later)
        self._call.clock = self._clock

    def start(self) -> None:
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
            _log.warn("what is old stays for now: {reason}", reason=error.reason)
        except Exception:
            _log.failure("what is old stays for now")

    async def sweep(self) -> int:
        """Forget what is too old, a batch at a time. @return: how many rows that was."""
        gone = await self._expire(lambda transaction: transaction.results, self.results)
        gone += await self._expire(lambda transaction: transaction.cron, self.runs)
        if self.events is not None:
            gone += await self._expire(lambda transaction: transaction.events, self.events)
        return gone

    async def _expire(
        self, rows: Callable[[ITransaction], ICron | IEvents | IResults], seconds: float
    ) -> int:
        before = moment(self._clock.seconds() - seconds)
        gone = 0
        while True:
            async with self._store.transaction(patience=10) as transaction:
                batch = await rows(transaction).expire(before, BATCH)
            gone += batch
            if batch < BATCH:
                return gone
