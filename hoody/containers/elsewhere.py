"""Containers of other servers of the same database: who has them, for those who ask here."""

from __future__ import annotations

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from hoody.errors import Misdirected
from hoody.interfaces import IStore
from hoody.later import sleep

GOOD_FOR = 3.0
"""Seconds for which an answer is believed."""
MOST_KEPT = 4096
"""Answers."""
PAUSE = 0.02
"""Seconds between two questions."""


@frozen(kw_only=True)
class Owner:
    """
    Who has a container.

    @ivar container: what that is called.
    @ivar server: what the server is called; C{None} if it has never said.
    """

    container: str
    server_id: str
    server: str | None

    @property
    def misdirected(self) -> Misdirected:
        """What to answer who asks for it here."""
        said = self.server_id if self.server is None else f"{self.server!r} ({self.server_id})"
        return Misdirected(
            f"The container {self.container!r} is on the server {said}; ask that one."
        )


@define(eq=False)
class Elsewhere:
    """
    Labels that no container here has, as the database knows them.

    There is one question at a time, for all that have been asked for meanwhile, and answers
    are kept for a moment: so names that nobody has are no way to keep the database busy.
    """

    _store: IStore
    _clock: IReactorTime
    _kept: dict[str, tuple[float, Owner | None]] = field(factory=dict, init=False)
    _waiting: dict[str, list[Deferred[Owner | None]]] = field(factory=dict, init=False)
    _asks: bool = field(default=False, init=False)

    async def owner(self, label: str) -> Owner | None:
        """
        Who has what is called so.

        @raise hoody.errors.DatabaseAway: if that cannot be known.
        """
        until, owner = self._kept.get(label, (0.0, None))
        if 0 < until - self._clock.seconds() < GOOD_FOR + 1:  # the clock may have been set back
            return owner
        answer: Deferred[Owner | None] = Deferred()
        self._waiting.setdefault(label, []).append(answer)
        if not self._asks:
            self._asks = True
            ensureDeferred(self._ask_for_all())
        return await answer

    async def _ask_for_all(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, {}
            try:
                async with self._store.transaction() as transaction:
                    found = await transaction.containers.owners(list(waiting))
            except Exception:
                failure = Failure()  # type: ignore[no-untyped-call]
                for answer in _all_of(waiting):
                    answer.errback(failure)
            else:
                for label in waiting:
                    self._keep(label, found.get(label))
                for label, answers in waiting.items():
                    for answer in answers:
                        answer.callback(found.get(label))
            await sleep(self._clock, PAUSE)
        self._asks = False

    def _keep(self, label: str, owner: Owner | None) -> None:
        self._kept.pop(label, None)  # the oldest are first
        if len(self._kept) >= MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[label] = (self._clock.seconds() + GOOD_FOR, owner)


def _all_of(waiting: dict[str, list[Deferred[Owner | None]]]) -> list[Deferred[Owner | None]]:
    return [answer for answers in waiting.values() for answer in answers]
