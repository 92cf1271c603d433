"""Connections that are kept for a little while, as the next request may be for the same."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from hoody.protocols.upstream import Upstream

Place = tuple[str, int]
"""A container's id, and its port."""

MOST = 256
"""Connections, all together."""
MOST_EACH = 8
"""Of these, to one place."""


@define(eq=False)
class KeptConnections:
    """@ivar seconds: how long each may wait; less than servers do, or they close first."""

    _clock: IReactorTime
    seconds: float
    _kept: dict[Place, list[tuple[float, Upstream]]] = field(factory=dict, init=False)
    _count: int = field(default=0, init=False)
    _sweep_call: IDelayedCall | None = field(default=None, init=False)

    def __len__(self) -> int:
        return self._count

    def take(self, place: Place) -> Upstream | None:
        """The one that was used last, as it is the likeliest to live."""
        waiting = self._kept.get(place)
        if not waiting:
            return None
        _, upstream = waiting.pop()
        self._forget(place, upstream)
        return upstream

    def keep(self, place: Place, upstream: Upstream) -> None:
        """Have it back after an answer; or close it, if it is of no use."""
        waiting = self._kept.get(place, [])
        if not upstream.is_good or self._count >= MOST or len(waiting) >= MOST_EACH:
            upstream.close()
            return
        self._kept[place] = waiting
        waiting.append((self._clock.seconds() + self.seconds, upstream))
        self._count += 1
        upstream.on_loss = lambda: self._lost(place, upstream)
        if self._sweep_call is None:
            self._sweep_call = self._clock.callLater(self.seconds, self._sweep)

    def close(self) -> None:
        """Close all."""
        if self._sweep_call is not None:
            self._sweep_call.cancel()
            self._sweep_call = None
        self._drop_before(float("inf"))

    def _lost(self, place: Place, upstream: Upstream) -> None:
        waiting = self._kept[place]
        waiting[:] = [entry for entry in waiting if entry[1] is not upstream]
        self._forget(place, upstream)

    def _forget(self, place: Place, upstream: Upstream) -> None:
        upstream.on_loss = None
        self._count -= 1
        if not self._kept[place]:
            del self._kept[place]

    def _sweep(self) -> None:
        self._sweep_call = None
        now = self._clock.seconds()
        self._drop_before(now)
        if self._kept:
            first = min(waiting[0][0] for waiting in self._kept.values())
            self._sweep_call = self._clock.callLater(max(0.1, first - now), self._sweep)

    def _drop_before(self, time: float) -> None:
        for place, waiting in tuple(self._kept.items()):
            while waiting and waiting[0][0] <= time:
                _, upstream = waiting.pop(0)
                self._forget(place, upstream)
                upstream.close()
