"""
How one container falls asleep, and wakes.

Nobody is to wait for the database on the way to a container: what has been done is written
down behind it, one thing after the other.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from hoody.containers.container import IDLE, Status
from hoody.containers.orders import Order, Outcome
from hoody.units import moment

if TYPE_CHECKING:
    from hoody.containers.keeper import Keeper

IDLE_TIMER = "idle timer"
"""Who puts to sleep, as the audit names it."""
REQUEST = "request"
"""Who wakes and starts, unless something else is known."""
WAKE_TELLS = 0.25
"""
Seconds after which a wake is written down: not sooner, as the answer to whom it was for is
on its way just then.
"""

_log = Logger(namespace="hoody.containers")


@define
class Wake:
    """
    Somebody has come to one that slept.

    @ivar actor: who, as the audit names them.
    @ivar began: when, by the reactor's clock.
    @ivar asleep: since when nobody had.
    @ivar tell: what will write it down, if nothing does before.
    @ivar took: milliseconds from the request to the container's taking the connection; C{None}
        while nobody knows.
    """

    actor: str
    began: float
    asleep: datetime | None
    tell: IDelayedCall
    took: float | None = None


@define(eq=False)
class Sleep:
    """
    @ivar is_noticed: whether who comes now has to be noticed: it stands still, or is about to.
        To be asked from any thread, which the machine is not (to ask it for its state is to
        have it make a transition).
    """

    _keeper: Keeper
    is_noticed: bool = field(default=False, init=False)
    _freezing: Deferred[None] | None = field(default=None, init=False)
    _wanted: bool = field(default=False, init=False)
    _wake: Wake | None = field(default=None, init=False)

    def doze(self) -> None:
        """Have it stand still until somebody comes."""
        order = Order(
            actor=IDLE_TIMER, began=self._keeper.reactor.seconds(), by_hand=False, grace=0
        )
        order.done.addErrback(lambda _: None)
        self._wanted = False
        self._keeper.ask("doze", order)
        self.is_noticed = True

    async def fall_asleep(self, order: Order) -> None:
        wanted, self._wanted = self._wanted, False
        if wanted:  # somebody came in the turn before this
            self._keeper.life.failed()
            return
        run = self._keeper.run
        assert run is not None
        since = moment(self._keeper.moved_at)
        try:
            self._freezing = Deferred.fromCoroutine(run.cgroup.freeze(self._keeper.reactor))
            await self._freezing
        except CancelledError:  # somebody has come
            self._keeper.life.failed()
            return
        except (OSError, TimeoutError) as error:
            _log.warn(
                "{name} does not sleep: {error}", name=self._keeper.container.name, error=error
            )
            self._keeper.moved_at = self._keeper.reactor.seconds()
            self._keeper.life.failed()
            return
        finally:
            self._freezing = None
        self._be(
            Outcome(
                status=Status.PAUSED,
                reason=IDLE,
                event_type="container.paused",
                incarnation=run.incarnation,
                fields={"idle_since": since, "last_activity_at": since},
            ),
            order,
        )
        self._keeper.life.done()

    def wake(self, actor: str = REQUEST) -> None:
        """
        Have it go on at once, if it sleeps.

        @param actor: for whom, as the audit names them.
        """
        if self._freezing is not None:
            self._freezing.cancel()
            return
        if self._keeper.state == "dozing":
            self._wanted = True  # it is about to be put to sleep
            return
        if not self._keeper.is_asleep:
            return
        self._wanted = self._keeper.held
        if self._keeper.held:
            return
        assert self._keeper.run is not None
        now = self._keeper.reactor.seconds()
        with contextlib.suppress(OSError):  # it has ended, which is about to be told
            self._keeper.run.cgroup.thaw()
        self._keeper.has_moved()
        self.is_noticed = False
        own = self._keeper.container
        self._wake = Wake(
            actor=actor,
            began=now,
            asleep=own.idle_since,
            tell=self._keeper.reactor.callLater(WAKE_TELLS, self.tell_of_wake),
        )
        self._keeper.record.unwritten += 1
        self._keeper.container = evolve(
            own, status=Status.RUNNING, status_reason=None, idle_since=None
        )
        self._keeper.life.woke()

    def has_woken(self, milliseconds: float) -> None:
        """@param milliseconds: see L{Wake}."""
        if self._wake is not None:
            self._wake.took = milliseconds

    def tell_of_wake(self) -> None:
        """If it has been woken, and that is not written down, now is the time."""
        wake, self._wake = self._wake, None
        if wake is None:
            return
        self._keeper.record.unwritten -= 1
        if wake.tell.active():
            wake.tell.cancel()
        run, own = self._keeper.run, self._keeper.container
        if run is None or self._keeper.state != "running":
            return  # more has come of it since
        seconds = self._keeper.reactor.seconds()
        now = moment(seconds)
        took = (seconds - wake.began) * 1000 if wake.took is None else wake.took
        order = Order(actor=wake.actor, began=wake.began, by_hand=False, grace=0)
        order.done.addErrback(lambda _: None)
        data: dict[str, object] = {}
        if wake.asleep is not None:
            data["idle_seconds"] = round((now - wake.asleep).total_seconds(), 3)
        self._be(
            Outcome(
                status=Status.RUNNING,
                reason=None,
                event_type="container.woken",
                incarnation=run.incarnation,
                data=data,
                fields={
                    "idle_since": None,
                    "last_activity_at": now,
                    "wake_count": own.wake_count + 1,
                    "last_wake_ms": round(took, 3),
                },
            ),
            order,
        )

    def _be(self, outcome: Outcome, order: Order) -> None:
        """It is so already; write it down when that can be."""
        self._keeper.container = evolve(
            self._keeper.container,
            status=outcome.status,
            status_reason=outcome.reason,
            **outcome.fields,
        )
        ensureDeferred(self._keeper.record.becomes(outcome, order)).addErrback(
            lambda failure: _log.failure(
                "what became of {name} was not written down",
                failure=failure,
                name=self._keeper.container.name,
            )
        )

    def settled(self) -> None:
        """Something that was being done to it has been."""
        self.is_noticed = self._keeper.is_asleep or self._freezing is not None

    def released(self) -> None:
        """It may be woken again."""
        wanted, self._wanted = self._wanted, False
        if wanted:
            self.wake()

    def mend(self, *, is_frozen: bool) -> None:
        """
        See to it that it stands still if it should, and goes on if that.

        @param is_frozen: whether it stood still a moment ago.
        """
        if self._keeper.run is None or self._keeper.run.over or not self._keeper.is_settled:
            return
        if (self._keeper.state == "paused") is is_frozen:
            return
        if self._keeper.run.cgroup.stands_still is not is_frozen:
            return  # it has changed since
        if is_frozen:
            _log.warn("{name} stood still, and goes on now", name=self._keeper.container.name)
            with contextlib.suppress(OSError):
                self._keeper.run.cgroup.thaw()
        else:
            _log.warn("{name} went on, and stands still now", name=self._keeper.container.name)
            freezing = ensureDeferred(self._keeper.run.cgroup.freeze(self._keeper.reactor))
            freezing.addErrback(lambda _: None)
