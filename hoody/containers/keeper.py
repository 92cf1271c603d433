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
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field, frozen
from automat import NoTransition
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody.audit.events import Event
from hoody.commands import CommandFailed
from hoody.containers.container import MANUAL, Container, Incarnation, Status
from hoody.containers.lifecycle import SETTLED, Core, Life, Machine, Task, unknown
from hoody.containers.runtime import Run, RuntimeFailed
from hoody.containers.storage import trouble
from hoody.containers.transitions import Transition
from hoody.errors import Conflict, DatabaseAway, HoodyError, Unavailable
from hoody.later import sleep

if TYPE_CHECKING:
    from hoody.containers.fleet import Fleet

_BAD = (RuntimeFailed, CommandFailed, OSError, TimeoutError)
_DATABASE_PAUSE = 0.5

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
    """

    status: Status
    reason: str | None
    event_type: str | None
    incarnation: Incarnation | None = None
    data: dict[str, object] = field(factory=dict)


@define(eq=False)
class Keeper:
    """
    @ivar container: as it is in the database.
    @ivar run: while it runs.
    @ivar visits: requests that it is answering.
    @ivar moved_at: when bytes passed last, by the reactor's clock.
    @ivar held: whether it is to stay as it is, since it is being copied.
    """

    around: Fleet
    container: Container
    run: Run | None = field(default=None, init=False)
    visits: int = field(default=0, init=False)
    moved_at: float = field(default=0.0, init=False)
    held: bool = field(default=False, init=False)
    life: Life = field(init=False)
    _origin: str = field(default="unknown", init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.life = Machine(Core(self._begin, self._settled), unknown)
        self.moved_at = self.around.reactor.seconds()

    @property
    def state(self) -> str:
        return self.life.state()

    @property
    def is_settled(self) -> bool:
        return self.state in SETTLED and not self.held

    async def hold(self) -> None:
        """Have nothing done to it from now on until L{release}."""
        await self.settled()
        self.held = True

    def release(self) -> None:
        self.held = False
        self._settled()

    def ask(self, operation: str, order: Order) -> Deferred[None]:
        """
        @param operation: a method of L{Life}.
        @return: fires when it is done.
        @raise Conflict: if it makes no sense now.
        """
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

    async def settled(self) -> None:
        """Wait until nothing is being done to it."""
        while not self.is_settled:
            done: Deferred[None] = Deferred()
            self._waiting.append(done)
            await done

    def _settled(self) -> None:
        # In a turn of its own: whoever waits may ask for the next thing.
        self.around.reactor.callLater(0, self._look_whether_it_ended)
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            self.around.reactor.callLater(0, done.callback, None)

    def _look_whether_it_ended(self) -> None:
        """While something was being done, nobody was told."""
        if self.run is not None and self.run.over and self.is_settled:
            self.ended()

    def _begin(self, task: Task, order: Order) -> None:
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

    # Tasks

    async def _perform(self, task: Task, order: Order) -> None:
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
        self.run = await self.around.launch(self.container)
        self.run.ended = self.ended
        return Outcome(
            status=Status.RUNNING,
            reason=None,
            event_type="container.started",
            incarnation=self.run.incarnation,
        )

    def ended(self) -> None:
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
            reason=MANUAL if order.by_hand else "idle",
            event_type="container.paused",
            incarnation=self.run.incarnation,
        )

    async def _resume(self, order: Order) -> Outcome:
        assert self.run is not None
        self.run.cgroup.thaw()
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
        while True:
            try:
                await self._write_pending(task)
                return
            except DatabaseAway:
                if not order.patient:
                    raise
                await sleep(self.around.reactor, _DATABASE_PAUSE)

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
        self.container = found

    async def _take_back_pending(self) -> None:
        """It may have been written, though the database went before it said so."""
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
        while True:
            try:
                await self._write(outcome, order, now)
                return
            except DatabaseAway as away:
                if not order.done.called:
                    order.done.errback(away)
                await sleep(self.around.reactor, _DATABASE_PAUSE)

    async def _write(self, outcome: Outcome, order: Order, now: datetime) -> None:
        took = round((self.around.reactor.seconds() - order.began) * 1000, 3)
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
            )
            if changed == found:  # it was written, though the database went before it said so
                self.container = found
                return
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
        self.container = changed

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
                if not order.done.called:
                    order.done.errback(away)
                await sleep(self.around.reactor, _DATABASE_PAUSE)
        (self.life.done if task is Task.DELETE else self.life.failed)()
        self.around.gone(self)

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
