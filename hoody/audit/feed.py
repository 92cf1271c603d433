"""Being told that something has happened, on whatever server."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred


@define(eq=False)
class Feed:
    """@ivar count: how often something has happened, so that nobody misses what does meanwhile."""

    count: int = field(default=0, init=False)
    closed: bool = field(default=False, init=False)
    _waiters: set[Deferred[None]] = field(factory=set, init=False)

    def changed(self) -> None:
        """Something has happened, or may have."""
        self.count += 1
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            waiter.callback(None)

    def close(self) -> None:
        """Nothing will happen any more."""
        self.closed = True
        self.changed()

    def later_than(self, count: int) -> Deferred[None]:
        """@return: fires when L{count} is no longer this; may be cancelled."""
        waiter: Deferred[None] = Deferred(self._waiters.discard)
        if self.count != count or self.closed:
            waiter.callback(None)
        else:
            self._waiters.add(waiter)
        return waiter
