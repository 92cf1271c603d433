"""
Who sees to one container: begins what its life asks for, one thing after the other, and
writes down what has become of it.

Each task is written down before it is begun (C{pending}) and after it is done, with its
event. A server that dies in between leaves the first, and the next one does it again or
undoes it (L{Fleet.start}); a database that is away in between is waited for.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field, frozen
from automat import NoTransition
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredLock,
    ensureDeferred,
)
from twisted.internet.defer import (
    TimeoutError as TooLate,
)
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody.audit.events import Event
from hoody.commands import CommandFailed
from hoody.containers.container import IDLE, MANUAL, Container, Incarnation, Status
from hoody.containers.lifecycle import SETTLED, Core, Life, Machine, Task, unknown
from hoody.containers.runtime import Run, RuntimeFailed
from hoody.containers.storage import trouble
from hoody.containers.transitions import Transition
from hoody.errors import Conflict, DatabaseAway, HoodyError, NotWrittenYet, Unavailable
from hoody.interfaces import ITransaction
from hoody.later import sleep
from hoody.units import moment

if TYPE_CHECKING:
    from hoody.containers.fleet import Fleet

_BAD = (RuntimeFailed, CommandFailed, OSError, TimeoutError)
_DATABASE_PAUSE = 0.5
IDLE_TIMER = "idle timer"
"""Who puts to sleep, as the audit names it."""
WRITES_SECONDS = 1.5
"""How long who asks for something waits until what was done before it is written down."""
WAKE_TELLS = 0.25
"""Seconds after which a wake is written down, if nobody has said by then how long it took."""

_log = Logger(namespace="hoody.containers")


class CouldNot(Unavailable):
    """A container did not do what it was asked to."""


@frozen(kw_only=True)
class Order:
    """
    What somebody asks for.

    @ivar actor: as the audit names them.
    @ivar by_hand: whether a person, or a program of theirs, asked for just this.
    @ivar grace: seconds between asking processes to end and making them.
    @ivar patient: whether a database that is away is waited for before anything is done.
    @ivar began: by the reactor's clock.
    @ivar key: of its event, which is written again if nobody knows whether it was.
    @ivar done: fires with C{None}, or a L{HoodyError}.
    """

    actor: str
    began: float
    request_id: str | None = None
    by_hand: bool = True
    grace: float
    patient: bool = False
    source_id: str | None = None
    key: str = field(factory=lambda: secrets.token_hex(12))
    done: Deferred[None] = field(factory=Deferred)


@frozen(kw_only=True)
class Outcome:
    """
    What became of a task.

    @ivar event_type: as it is told; C{None} where nothing is.
    @ivar data: what is told with it; C{fields}: what else changes in the row.
    """

    status: Status
    reason: str | None
    event_type: str | None
    incarnation: Incarnation | None = None
    data: dict[str, object] = field(factory=dict)
    fields: dict[str, Any] = field(factory=dict)


@frozen
class Wake:
    """
    Somebody has come to one that slept.

    @ivar began: when, by the reactor's clock.
    @ivar asleep: since when nobody had.
    @ivar tell: what will write it down, if nothing does before.
    """

    began: float
    asleep: datetime | None
    tell: IDelayedCall


@define(eq=False)
class Keeper:
    """
    @ivar container: as it is in the database.
    @ivar run: while it runs.
    @ivar visits: requests that it is answering.
    @ivar commands: that run in it.
    @ivar moved_at: when bytes passed last, by the reactor's clock.
    @ivar held: whether it is to stay as it is, since it is being copied.
    """

    around: Fleet
    container: Container
    run: Run | None = field(default=None, init=False)
    visits: int = field(default=0, init=False)
    moved_at: float = field(default=0.0, init=False)
    commands: int = field(default=0, init=False)
    held: bool = field(default=False, init=False)
    life: Life = field(init=False)
    _state: str | None = field(default=None, init=False)
    _origin: str = field(default="unknown", init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)
    _freezing: Deferred[None] | None = field(default=None, init=False)
    _sleeps: bool = field(default=False, init=False)
    _wanted: bool = field(default=False, init=False)
    _wake: Wake | None = field(default=None, init=False)
    _writes: DeferredLock = field(factory=DeferredLock, init=False)
    _unwritten: int = field(default=0, init=False)
    _away: DatabaseAway | None = field(default=None, init=False)
    _dense: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.life = Machine(Core(self._begin, self._settled), unknown)
        self.moved_at = self.around.reactor.seconds()

    @property
    def state(self) -> str:
        # To ask the machine takes 14 us, and there may be a thousand of them.
        if self._state is None:
            self._state = self.life.state()
        return self._state

    @property
    def is_settled(self) -> bool:
        return self.state in SETTLED and not self.held

    @property
    def is_asleep(self) -> bool:
        """Whether it stands still until somebody comes."""
        return self.state == "paused" and self.container.status_reason != MANUAL

    @property
    def is_left_alone(self) -> bool:
        """
        Whether nobody has come since it fell asleep. To be asked from any thread: to ask the
        machine for its state is to have it make a transition.
        """
        return self._sleeps

    @property
    def may_doze(self) -> bool:
        """Whether nobody is there; what was written down last must be, too."""
        return (
            self.state == "running"
            and not (self.held or self.visits or self.commands or self._unwritten)
            and self._wake is None
        )

    async def hold(self) -> None:
        """Have nothing done to it from now on until L{release}."""
        await self.settled()
        self.held = True

    def release(self) -> None:
        self.held = False
        self._settled()
        wanted, self._wanted = self._wanted, False
        if wanted:
            self.wake()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """A command runs in it, for as long as this lasts."""
        self.commands += 1
        try:
            yield
        finally:
            self.commands -= 1
            self.moved_at = self.around.reactor.seconds()

    def touch(self) -> None:
        """Something has come to it, or from it."""
        self.moved_at = self.around.reactor.seconds()
        if self._sleeps:
            self.wake()

    def ask(self, operation: str, order: Order) -> Deferred[None]:
        """
        @param operation: a method of L{Life}.
        @return: fires when it is done.
        @raise Conflict: if it makes no sense now.
        """
        self.has_woken(None)  # it is told before what comes now
        origin = self.state
        try:
            getattr(self.life, operation)(order)
        except NoTransition:
            verb = operation.replace("_", "-")
            raise Conflict(
                f"The container {self.container.name!r} is {origin}; it takes no {verb} now."
            ) from None
        self._origin = origin
        return order.done

    async def written(self) -> None:
        """Wait until all that has been done to it is written down."""
        self.has_woken(None)
        await self._writes.acquire()
        self._writes.release()

    async def settled(self) -> None:
        """Wait until nothing is being done to it."""
        while not self.is_settled:
            done: Deferred[None] = Deferred()
            self._waiting.append(done)
            await done

    def _settled(self) -> None:
        self._state = None
        # In a turn of its own: whoever waits may ask for the next thing.
        self.around.reactor.callLater(0, self._has_settled)
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            self.around.reactor.callLater(0, done.callback, None)

    def _has_settled(self) -> None:
        self._sleeps = self.is_asleep or self._freezing is not None
        self.around.idle.changed(self)
        # While something was being done, nobody was told that it ended.
        if self.run is not None and self.run.over and self.is_settled:
            self.ended()

    def _begin(self, task: Task, order: Order) -> None:
        self._state = None
        # In a turn of its own, so that the machine is in its new state.
        self.around.reactor.callLater(
            0, lambda: ensureDeferred(self._perform(task, order)).addErrback(self._broken, order)
        )

    def _broken(self, failure: Any, order: Order) -> None:
        _log.failure("container {name} failed", failure=failure, name=self.container.name)
        if not self.is_settled:
            self.life.failed()
        if self.state == "gone":
            self.around.gone(self)
        if not order.done.called:
            order.done.errback(CouldNot("It failed for a reason that is in the server's log."))

    # Sleep. Nobody is to wait for the database on the way to a container: what has been done
    # is written down behind it, one thing after the other.

    def doze(self) -> None:
        """Have it stand still until somebody comes."""
        order = Order(
            actor=IDLE_TIMER, began=self.around.reactor.seconds(), by_hand=False, grace=0
        )
        order.done.addErrback(lambda _: None)
        self._wanted = False
        self.ask("doze", order)
        self._sleeps = True  # who comes from now on has to be noticed

    async def _doze(self, order: Order) -> None:
        wanted, self._wanted = self._wanted, False
        if wanted:  # somebody came in the turn before this
            self.life.failed()
            return
        run = self.run
        assert run is not None
        since = moment(self.moved_at)
        try:
            self._freezing = Deferred.fromCoroutine(run.cgroup.freeze(self.around.reactor))
            await self._freezing
        except CancelledError:  # somebody has come
            self.life.failed()
            return
        except (OSError, TimeoutError) as error:
            _log.warn("{name} does not sleep: {error}", name=self.container.name, error=error)
            self.moved_at = self.around.reactor.seconds()
            self.life.failed()
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
        self.life.done()

    def wake(self) -> None:
        """Have it go on at once, if it sleeps."""
        if self._freezing is not None:
            self._freezing.cancel()
            return
        if self.state == "dozing":
            self._wanted = True  # it is about to be put to sleep
            return
        if not self.is_asleep:
            return
        self._wanted = self.held
        if self.held:
            return
        assert self.run is not None
        now = self.around.reactor.seconds()
        with contextlib.suppress(OSError):  # it has ended, which is about to be told
            self.run.cgroup.thaw()
        self.moved_at = now
        self._sleeps = False
        own = self.container
        self._wake = Wake(
            began=now,
            asleep=own.idle_since,
            tell=self.around.reactor.callLater(WAKE_TELLS, self.has_woken, None),
        )
        self.container = evolve(own, status=Status.RUNNING, status_reason=None, idle_since=None)
        self.life.woke()

    def has_woken(self, milliseconds: float | None) -> None:
        """
        It has been woken, and that is to be written down.

        @param milliseconds: from the request to the container's taking the connection.
        """
        wake, self._wake = self._wake, None
        if wake is None:
            return
        if wake.tell.active():
            wake.tell.cancel()
        if milliseconds is None:
            milliseconds = (self.around.reactor.seconds() - wake.began) * 1000
        run, own = self.run, self.container
        if run is None or self.state != "running":
            return  # more has come of it since
        now = self.around.now
        order = Order(actor="request", began=wake.began, by_hand=False, grace=0)
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
                    "last_wake_ms": round(milliseconds, 3),
                },
            ),
            order,
        )

    def _be(self, outcome: Outcome, order: Order) -> None:
        """It is so already; write it down when that can be."""
        self.container = evolve(
            self.container, status=outcome.status, status_reason=outcome.reason, **outcome.fields
        )
        ensureDeferred(self._become(outcome, order)).addErrback(
            lambda failure: _log.failure(
                "what became of {name} was not written down",
                failure=failure,
                name=self.container.name,
            )
        )

    def mend(self, *, is_frozen: bool) -> None:
        """
        See to it that it stands still if it should, and goes on if that.

        @param is_frozen: whether it stood still a moment ago.
        """
        if self.run is None or self.run.over or not self.is_settled:
            return
        if (self.state == "paused") is is_frozen:
            return
        if self.run.cgroup.stands_still is not is_frozen:
            return  # it has changed since
        if is_frozen:
            _log.warn("{name} stood still, and goes on now", name=self.container.name)
            with contextlib.suppress(OSError):
                self.run.cgroup.thaw()
        else:
            _log.warn("{name} went on, and stands still now", name=self.container.name)
            freezing = ensureDeferred(self.run.cgroup.freeze(self.around.reactor))
            freezing.addErrback(lambda _: None)

    # Tasks

    async def _perform(self, task: Task, order: Order) -> None:
        if task is Task.DOZE:
            await self._doze(order)
            return
        if task not in (Task.CREATE, Task.COPY, Task.BURY):
            try:
                await self._note_pending(task, order)
            except HoodyError as refusal:
                getattr(self.life, f"back_to_{self._origin}")()
                order.done.errback(refusal)
                if isinstance(refusal, DatabaseAway):
                    await self._take_back_pending()
                return
        tasks: dict[Task, Callable[[Order], Any]] = {
            Task.CREATE: self._create,
            Task.COPY: self._copy,
            Task.START: self._start,
            Task.STOP: self._stop,
            Task.KILL: self._kill,
            Task.RESTART: self._restart,
            Task.PAUSE: self._pause,
            Task.RESUME: self._resume,
            Task.DELETE: self._delete,
            Task.BURY: self._bury,
        }
        error: HoodyError | None = None
        outcome: Outcome | None
        try:
            outcome = await tasks[task](order)
        except Exception as failed:
            error, reason = self._in_words(task, failed)
            outcome = await self._after_failure(task, reason)
        if outcome is None:
            await self._forget(task, order, error)
        else:
            await self._become(outcome, order)
            well = outcome.status is not Status.FAILED and error is None
            (self.life.done if well else self.life.failed)()
        if not order.done.called:
            order.done.errback(error) if error is not None else order.done.callback(None)

    def _in_words(self, task: Task, failed: Exception) -> tuple[HoodyError, str]:
        """What to tell who asked, and why it failed."""
        if isinstance(failed, OSError) and not isinstance(failed, TimeoutError):
            failed = trouble(failed)
        if isinstance(failed, HoodyError):
            reason = failed.sentence.rstrip(".")
        elif isinstance(failed, _BAD):
            reason = str(failed).rstrip(".")
        else:
            reason = "for a reason that is in the server's log"
            _log.failure("container {name}: {task} broke", name=self.container.name, task=task)
        if isinstance(failed, HoodyError) and task in (Task.CREATE, Task.COPY):
            return failed, reason
        return CouldNot(f"The container {self.container.name!r} failed: {reason}."), reason

    async def _after_failure(self, task: Task, reason: str) -> Outcome | None:
        """What it is now: nothing is to be left half-made, nor to run that is said not to."""
        if task is Task.PAUSE:
            assert self.run is not None
            with contextlib.suppress(OSError):  # it may have ended
                self.run.cgroup.thaw()
            return self._still_runs()
        if task in (Task.CREATE, Task.COPY):
            try:
                await deferToThread(self.around.storage.remove_container, self.container.id)
            except OSError as error:
                # The next start sweeps it away.
                _log.error(
                    "what was made of {name} stays on the disk: {reason}",
                    name=self.container.name,
                    reason=error.strerror,
                )
            return None
        run, self.run = self.run, None
        if run is not None:
            run.abandon(self.around.reactor)
        try:
            await self.around.close_door(self.container.id)
            await self.around.runtime.clear(self.container.id)
        except (RuntimeFailed, OSError) as error:
            _log.error("container {name}: {error}", name=self.container.name, error=error)
        return Outcome(status=Status.FAILED, reason=reason, event_type="container.failed")

    def _still_runs(self) -> Outcome:
        run = self.run
        assert run is not None
        return Outcome(
            status=Status.RUNNING, reason=None, event_type=None, incarnation=run.incarnation
        )

    async def _create(self, order: Order) -> Outcome:
        own, storage = self.container, self.around.storage
        volumes = [volume.name for volume in own.volumes]
        await deferToThread(storage.make_container, own.id, volumes, own.disk_limit)
        return Outcome(
            status=Status.STOPPED,
            reason=None,
            event_type="container.created",
            data={"image": own.container_image},
        )

    async def _copy(self, order: Order) -> Outcome:
        source = self.around.keepers.get(order.source_id or "")
        if source is not None:
            await source.hold()
        try:
            return await self._copy_of(source, order)
        finally:
            if source is not None:
                source.release()

    async def _copy_of(self, source: Keeper | None, order: Order) -> Outcome:
        own, storage = self.container, self.around.storage
        if source is None or source.state == "gone":
            raise Conflict("What was to be copied has been deleted meanwhile.")
        frozen = source.run if source.state == "running" else None
        try:
            if frozen is not None:
                await frozen.cgroup.freeze(self.around.reactor)
            await deferToThread(
                storage.copy_container, source.container.id, own.id, own.disk_limit
            )
        finally:
            if frozen is not None:
                with contextlib.suppress(OSError):  # it may have ended
                    frozen.cgroup.thaw()
        return Outcome(
            status=Status.STOPPED,
            reason=None,
            event_type="container.copied",
            data={"source": source.container.name},
        )

    async def _start(self, order: Order) -> Outcome:
        self.run = await self.around.launch(self.container, dense=self._dense)
        self.run.ended = self.ended
        self.moved_at = self.around.reactor.seconds()
        return Outcome(
            status=Status.RUNNING,
            reason=None,
            event_type="container.started",
            incarnation=self.run.incarnation,
        )

    def ended(self) -> None:
        self.has_woken(None)  # it is told before what comes now
        order = Order(
            actor="container", began=self.around.reactor.seconds(), by_hand=False, grace=0
        )
        order.done.addErrback(lambda _: None)
        self.life.ended(order)

    async def _stop(self, order: Order) -> Outcome:
        await self._end_run(order.grace)
        return Outcome(
            status=Status.STOPPED,
            reason=MANUAL if order.by_hand else None,
            event_type="container.stopped",
        )

    async def _kill(self, order: Order) -> Outcome:
        await self._end_run(0)
        return Outcome(
            status=Status.STOPPED,
            reason=MANUAL if order.by_hand else None,
            event_type="container.stopped",
            data={"forced": True},
        )

    async def _end_run(self, grace: float) -> None:
        run = self.run
        if run is None:
            await self.around.runtime.clear(self.container.id)
        else:
            run.ended = None
            await self.around.close_door(self.container.id)
            await self.around.runtime.stop(run, self.container.id, grace)
            self.run = None

    async def _restart(self, order: Order) -> Outcome:
        await self._end_run(order.grace)
        return await self._start(order)

    async def _pause(self, order: Order) -> Outcome:
        assert self.run is not None
        await self.run.cgroup.freeze(self.around.reactor)
        return Outcome(
            status=Status.PAUSED,
            reason=MANUAL,
            event_type="container.paused",
            incarnation=self.run.incarnation,
        )

    async def _resume(self, order: Order) -> Outcome:
        assert self.run is not None
        self.run.cgroup.thaw()
        self.moved_at = self.around.reactor.seconds()
        return evolve(self._still_runs(), event_type="container.resumed")

    async def _delete(self, order: Order) -> None:
        await self._end_run(0)
        await deferToThread(self.around.storage.remove_container, self.container.id)

    async def _bury(self, order: Order) -> Outcome:
        """It ended by itself: what is left of it is tidied up."""
        run, self.run = self.run, None
        status = None if run is None else await run.how_it_ended(self.around.reactor)
        if run is not None:
            run.close()
        await self.around.close_door(self.container.id)
        await self.around.runtime.clear(self.container.id)
        if status == 0:
            return Outcome(status=Status.STOPPED, reason="exited", event_type="container.stopped")
        return Outcome(
            status=Status.FAILED, reason=_how_it_ended(status), event_type="container.failed"
        )

    # What is written down

    async def _note_pending(self, task: Task, order: Order) -> None:
        acquiring = self._writes.acquire()
        if not order.patient:
            acquiring.addTimeout(WRITES_SECONDS, self.around.reactor)
        try:
            await acquiring
        except TooLate:
            # What was before this has not been written down.
            raise self._away or DatabaseAway("it takes too long") from None
        try:
            while True:
                try:
                    await self._write_pending(task)
                    return
                except DatabaseAway:
                    if not order.patient:
                        raise
                    await sleep(self.around.reactor, _DATABASE_PAUSE)
        finally:
            self._writes.release()

    async def _write_pending(self, task: Task) -> None:
        changes: dict[str, Any] = {"pending": str(task)}
        if task is Task.DELETE:
            changes["status"] = Status.DELETING
        async with self.around.store.transaction() as transaction:
            found = await transaction.containers.find(self.container.id, for_change=True)
            if found is None:
                if task is Task.DELETE:
                    return  # its files may be there
                raise Conflict(f"The container {self.container.name!r} is gone.")
            found = evolve(found, **changes)
            await transaction.containers.change(found)
            if task in (Task.START, Task.RESTART):
                project = await transaction.projects.find(found.project_id)
                self._dense = project is not None and project.dense
        self.container = found

    async def _take_back_pending(self) -> None:
        """It may have been written, though the database went before it said so."""
        await self._writes.acquire()
        try:
            await self._insist_on_taking_back()
        finally:
            self._writes.release()

    async def _insist_on_taking_back(self) -> None:
        while True:
            try:
                async with self.around.store.transaction() as transaction:
                    found = await transaction.containers.find(self.container.id, for_change=True)
                    # What is begun meanwhile is noted anew, and taken back by what comes of it.
                    if found is not None and found.pending is not None and self.state in SETTLED:
                        status = self.container.status
                        await transaction.containers.change(
                            evolve(found, status=status, pending=None)
                        )
                return
            except DatabaseAway:
                await sleep(self.around.reactor, _DATABASE_PAUSE)

    async def _become(self, outcome: Outcome, order: Order) -> None:
        """Until it is written; who asked is told of a database that is away before that."""
        now = self.around.now
        self._unwritten += 1
        await self._writes.acquire()
        try:
            while True:
                try:
                    await self._write(outcome, order, now)
                    return
                except DatabaseAway as away:
                    self._away = away
                    self._say_done(order, away, f"is {outcome.status}")
                    await sleep(self.around.reactor, _DATABASE_PAUSE)
        finally:
            self._away = None
            self._unwritten -= 1
            self._writes.release()

    async def _write(self, outcome: Outcome, order: Order, now: datetime) -> None:
        async with self.around.store.transaction() as transaction:
            found = await transaction.containers.find(self.container.id, for_change=True)
            if found is None:
                return
            changed = evolve(
                found,
                status=outcome.status,
                status_reason=outcome.reason,
                pending=None,
                incarnation=outcome.incarnation,
                updated_at=now,
                **{"idle_since": None, **outcome.fields},
            )
            # It may have been written, though the database went before it said so.
            if changed != found:
                await self._record(transaction, found, changed, outcome, order, now)
        if self._unwritten == 1 and self._wake is None:
            self.container = changed  # else more has come of it since

    async def _record(
        self,
        transaction: ITransaction,
        found: Container,
        changed: Container,
        outcome: Outcome,
        order: Order,
        now: datetime,
    ) -> None:
        took = round((self.around.reactor.seconds() - order.began) * 1000, 3)
        await transaction.containers.change(changed)
        await transaction.containers.passed(
            Transition(
                container_id=found.id,
                from_status=_public(found.status),
                to_status=outcome.status,
                transition_time=now,
                duration_ms=took,
                triggered_by=order.actor,
                metadata={"reason": outcome.reason} if outcome.reason else {},
            )
        )
        if outcome.event_type is not None:
            data = dict(outcome.data)
            if outcome.reason:
                data["error" if outcome.status is Status.FAILED else "reason"] = outcome.reason
            transaction.record(self.event(outcome.event_type, order, now, took, data))

    async def _forget(self, task: Task, order: Order, error: HoodyError | None) -> None:
        """The row goes, too: it was deleted, or could not be made."""
        now = self.around.now
        took = round((self.around.reactor.seconds() - order.began) * 1000, 3)
        while True:
            try:
                async with self.around.store.transaction() as transaction:
                    await transaction.containers.remove(self.container.id)
                    if task is Task.DELETE:
                        transaction.record(self.event("container.deleted", order, now, took, {}))
                break
            except DatabaseAway as away:
                self._say_done(order, away, "is deleted")
                await sleep(self.around.reactor, _DATABASE_PAUSE)
        (self.life.done if task is Task.DELETE else self.life.failed)()
        self.around.gone(self)

    def _say_done(self, order: Order, away: DatabaseAway, what: str) -> None:
        """To who asked, and will not be kept waiting for the database."""
        if not order.done.called:
            done = f"The container {self.container.name!r} {what}"
            order.done.errback(NotWrittenYet(away.reason, done))

    def event(
        self, event_type: str, order: Order, now: datetime, took: float, data: dict[str, object]
    ) -> Event:
        own = self.container
        return Event(
            ts=now,
            event_type=event_type,
            actor=order.actor,
            resource_type="container",
            resource_id=own.id,
            container_id=own.id,
            project_id=own.project_id,
            data={"alias": own.name, **data},
            duration_ms=took,
            request_id=order.request_id,
            key=order.key,
        )


def _public(status: Status) -> str:
    return str(status)


def _how_it_ended(status: int | None) -> str:
    if status is None:
        return "its main process ended, nobody knows how"
    if status < 0:
        return f"its main process was ended by signal {-status}"
    return f"its main process ended with status {status}"
