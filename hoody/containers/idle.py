"""
Containers that nobody has come to for a while are put to sleep: they stand still, and give
their memory back. Whoever comes next wakes them (L{Sleep.wake}).

What counts as coming is in the contract: requests that wait for their answer, bytes through
the gateway, through the container's own door and its way out, and commands that run in it.
An open connection on which nothing moves does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredSemaphore, ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody.containers.keeper import Keeper
from hoody.errors import DatabaseAway

LOOK_SECONDS = 0.5
"""How often it is looked whether somebody may sleep: so much later than asked for it does."""
POLICY_SECONDS = 5.0
"""For how long is believed what projects say of their containers, while none is to sleep."""
SAMPLES = 8
"""How often, within the time after which one may sleep, its traffic is looked at."""
MEND_SECONDS = 60.0
"""How often it is looked whether all that should stand still do, and no others."""

_log = Logger(namespace="hoody.containers")


@define(eq=False)
class IdleWatch:
    """
    Looks at those that are awake, and at no others: sleepers cost nothing.

    @ivar keepers: all there are.
    @ivar timeouts: asks the projects, by id, after how many seconds theirs may sleep; 0 for
        never.
    @ivar reclaim_after: seconds for which one sleeps before its memory is given back: who comes
        sooner should not wait for it.
    @ivar awake: those that run.
    @ivar traffic: asks how many bytes have gone through the network of each of some.
    """

    reactor: Any
    keepers: Callable[[], Iterable[Keeper]]
    timeouts: Callable[[], Awaitable[dict[str, int]]]
    traffic: Callable[[list[Keeper]], Awaitable[dict[Keeper, int]]]
    reclaim_after: float
    awake: set[Keeper] = field(factory=set, init=False)
    _policy: dict[str, int] = field(factory=dict, init=False)
    _policy_until: float = field(default=0.0, init=False)
    _seen: dict[Keeper, _Seen] = field(factory=dict, init=False)
    _reclaims: dict[Keeper, IDelayedCall] = field(factory=dict, init=False)
    # Of which one takes a core of its own.
    _reclaiming: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(1), init=False)
    _calls: list[LoopingCall] = field(factory=list, init=False)

    def start(self) -> None:
        for look, seconds in ((self._look, LOOK_SECONDS), (self._mend, MEND_SECONDS)):
            call = LoopingCall(self._safely, look)
            call.clock = self.reactor
            call.start(seconds, now=False)
            self._calls.append(call)

    def stop(self) -> None:
        for call in self._calls:
            if call.running:
                call.stop()
        for reclaim in self._reclaims.values():
            reclaim.cancel()
        self._reclaims.clear()
        self.awake.clear()  # a look may be in the middle of it

    def changed(self, keeper: Keeper) -> None:
        """It has become something else; to be called whenever it has."""
        if keeper.state == "running":
            self.awake.add(keeper)
        else:
            self.awake.discard(keeper)
            self._seen.pop(keeper, None)
        if keeper.is_asleep:
            if keeper not in self._reclaims:
                self._reclaims[keeper] = self.reactor.callLater(
                    self.reclaim_after, self._reclaim, keeper
                )
        elif keeper in self._reclaims:
            self._reclaims.pop(keeper).cancel()

    def forget(self, keeper: Keeper) -> None:
        """What has been counted of it until now makes no difference."""
        self._seen.pop(keeper, None)

    async def _safely(self, look: Callable[[], Awaitable[None]]) -> None:
        """Whatever goes wrong with one look, the next one comes."""
        try:
            await look()
        except Exception:
            _log.failure("idle containers could not be looked after")

    # Who may sleep

    async def _look(self) -> None:
        if not self.awake:
            return
        with contextlib.suppress(DatabaseAway):  # what was known before holds
            await self._learn_policy()
        await self._sample()
        now = self.reactor.seconds()
        for keeper in tuple(self.awake):
            if self._may_sleep(keeper, now):
                keeper.sleep.doze()

    def _may_sleep(self, keeper: Keeper, now: float) -> bool:
        timeout = self._timeout_of(keeper)
        return 0 < timeout <= now - keeper.moved_at and keeper.may_doze

    def _timeout_of(self, keeper: Keeper) -> float:
        own = keeper.container
        if own.idle_timeout_seconds is not None:
            return own.idle_timeout_seconds
        return self._policy.get(own.project_id, 0)

    async def _learn_policy(self) -> None:
        now = self.reactor.seconds()
        theirs = [each for each in self.awake if each.container.idle_timeout_seconds is None]
        # They are asked a last time, too.
        if not theirs or not (
            now >= self._policy_until or any(self._may_sleep(each, now) for each in theirs)
        ):
            return
        self._policy_until = now + POLICY_SECONDS
        self._policy = await self.timeouts()

    async def _sample(self) -> None:
        """
        Bytes of connections that are not ours to move: those are counted by the kernel. It is
        asked a last time of who would be put to sleep now.
        """
        now = self.reactor.seconds()
        due = []
        for keeper in self.awake:
            timeout = self._timeout_of(keeper)
            seen = self._seen.get(keeper)
            if timeout and (
                seen is None or now >= seen.at + timeout / SAMPLES or self._may_sleep(keeper, now)
            ):
                due.append(keeper)
        if not due:
            return
        for keeper, count in (await self.traffic(due)).items():
            if keeper not in self.awake:
                continue  # it has become something else meanwhile
            seen = self._seen.get(keeper)
            if seen is not None and seen.count != count and not keeper.errands:
                keeper.moved_at = max(keeper.moved_at, now)
            self._seen[keeper] = _Seen(count, now)

    # What sleepers give back

    def _reclaim(self, keeper: Keeper) -> None:
        del self._reclaims[keeper]
        reclaiming: Deferred[None] = self._reclaiming.run(
            lambda: ensureDeferred(self._reclaim_now(keeper))
        )
        reclaiming.addErrback(_report)

    async def _reclaim_now(self, keeper: Keeper) -> None:
        if keeper.is_asleep and keeper.run is not None:
            await deferToThread(keeper.run.cgroup.reclaim, lambda: keeper.sleep.is_noticed)

    # What may have gone wrong

    async def _mend(self) -> None:
        """Who stands still though it should not, goes on; and the other way round."""
        found = [each for each in self.keepers() if each.is_settled and each.run is not None]
        frozen = await deferToThread(
            lambda: [each for each in found if each.run and each.run.cgroup.stands_still]
        )
        for keeper in found:
            keeper.sleep.mend(is_frozen=keeper in frozen)


@define
class _Seen:
    """@ivar count: of bytes; C{at}: when that was."""

    count: int
    at: float


def _report(failure: Any) -> None:
    _log.failure("sleeping containers were not looked after", failure=failure)
