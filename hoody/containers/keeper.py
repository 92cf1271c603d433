"""
Who sees to one container: begins what its life asks for, one thing after the other, and
writes down what has become of it.

Each task is written down before it is begun (C{pending}) and after it is done, with its
event. A server that dies in between leaves the first, and the next one does it again or
undoes it (L{Fleet.start}); a database that is away in between is waited for.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from math import inf
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field
from automat import NoTransition
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody.commands import CommandFailed
from hoody.containers.container import MANUAL, Container, Status
from hoody.containers.lifecycle import SETTLED, Core, Life, Machine, Task, unknown
from hoody.containers.orders import CouldNot, Order, Outcome
from hoody.containers.record import Record
from hoody.containers.restoring import Restoring
from hoody.containers.runtime import Run, RuntimeFailed
from hoody.containers.sleep import Sleep
from hoody.containers.storage import trouble
from hoody.errors import Conflict, DatabaseAway, HoodyError

if TYPE_CHECKING:
    from hoody.containers.fleet import Fleet

_BAD = (RuntimeFailed, CommandFailed, OSError, TimeoutError)

_log = Logger(namespace="hoody.containers")


@define(eq=False)
class Keeper:
    """
    @ivar record: what is written of it.
    @ivar sleep: how it falls asleep, and wakes.
    @ivar restoring: how it is put back to a snapshot.
    @ivar run: while it runs.
    @ivar visits: requests that it is answering.
    @ivar commands: that run in it.
    @ivar errands: of those, how many are nobody's visit.
    @ivar moved_at: when bytes passed last, by the reactor's clock.
    @ivar held: whether it is to stay as it is, since it is being copied.
    """

    around: Fleet
    record: Record
    sleep: Sleep = field(init=False)
    restoring: Restoring = field(init=False)
    run: Run | None = field(default=None, init=False)
    visits: int = field(default=0, init=False)
    moved_at: float = field(default=0.0, init=False)
    commands: int = field(default=0, init=False)
    errands: int = field(default=0, init=False)
    held: bool = field(default=False, init=False)
    _idle_before: float = field(default=0.0, init=False)
    life: Life = field(init=False)
    _state: str | None = field(default=None, init=False)
    _origin: str = field(default="unknown", init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    @classmethod
    def of(cls, around: Fleet, container: Container) -> Keeper:
        keeper = cls(around, Record(around.reactor, around.store, container))
        keeper.record.at_rest = lambda: keeper.state in SETTLED
        return keeper

    def __attrs_post_init__(self) -> None:
        self.sleep, self.restoring = Sleep(self), Restoring(self)
        self.life = Machine(Core(self._begin, self._settled), unknown)
        self.moved_at = self.reactor.seconds()

    @property
    def reactor(self) -> Any:
        return self.around.reactor

    @property
    def container(self) -> Container:
        """As it is."""
        return self.record.container

    @container.setter
    def container(self, changed: Container) -> None:
        self.record.container = changed

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
    def may_doze(self) -> bool:
        """Whether nobody is there; what was written down last must be, too."""
        return self.state == "running" and not (
            self.held or self.visits or self.commands or self.record.unwritten
        )

    async def hold(self) -> None:
        """Have nothing done to it from now on until L{release}."""
        await self.settled()
        self.held = True

    def release(self) -> None:
        self.held = False
        self._settled()
        self.sleep.released()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """A command runs in it, for as long as this lasts."""
        self.commands += 1
        try:
            yield
        finally:
            self.commands -= 1
            self.moved_at = self.reactor.seconds()

    @contextlib.contextmanager
    def errand(self) -> Iterator[None]:
        """
        As L{busy}, of a command that nobody waits for: as long as it lasts nothing counts as a
        visit but visits, and afterwards the container is as idle as if it had not been. One that
        was awake is as idle as before: what keeps it awake by itself is not seen meanwhile.
        """
        if not self.errands:
            is_awake = self.state == "running"
            self._idle_before = self.reactor.seconds() - self.moved_at if is_awake else inf
        self.commands += 1
        self.errands += 1
        try:
            yield
        finally:
            self.commands -= 1
            self.errands -= 1
            if not self.errands:
                self.moved_at = max(self.moved_at, self.reactor.seconds() - self._idle_before)
            self.around.idle.forget(self)

    def has_moved(self) -> None:
        """By itself, or by something that is done to it: that may be an errand's."""
        if not self.errands:
            self.moved_at = self.reactor.seconds()

    def touch(self, *, by_itself: bool = False) -> None:
        """
        Something has come to it, or from it.

        @param by_itself: whether nobody has come.
        """
        if by_itself:
            self.has_moved()
        else:
            self.moved_at = self.reactor.seconds()
        if self.sleep.is_noticed:
            self.sleep.wake()

    def ask(self, operation: str, order: Order) -> Deferred[None]:
        """
        @param operation: a method of L{Life}.
        @return: fires when it is done.
        @raise Conflict: if it makes no sense now.
        """
        self.sleep.tell_of_wake()  # it is told before what comes now
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
        self.sleep.tell_of_wake()
        await self.record.written()

    async def settled(self) -> None:
        """Wait until nothing is being done to it."""
        while not self.is_settled:
            done: Deferred[None] = Deferred()
            self._waiting.append(done)
            await done

    def _settled(self) -> None:
        self._state = None
        # In a turn of its own: whoever waits may ask for the next thing.
        self.reactor.callLater(0, self._has_settled)
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            self.reactor.callLater(0, done.callback, None)

    def _has_settled(self) -> None:
        self.sleep.settled()
        self.around.idle.changed(self)
        # While something was being done, nobody was told that it ended.
        if self.run is not None and self.run.over and self.is_settled:
            self.ended()

    def _begin(self, task: Task, order: Order) -> None:
        self._state = None
        # In a turn of its own, so that the machine is in its new state.
        self.reactor.callLater(
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
        if task is Task.DOZE:
            await self.sleep.fall_asleep(order)
            return
        if task not in (Task.CREATE, Task.COPY, Task.BURY, Task.RETURN):
            try:
                await self.record.begins(task, order)
            except HoodyError as refusal:
                getattr(self.life, f"back_to_{self._origin}")()
                order.done.errback(refusal)
                if isinstance(refusal, DatabaseAway):
                    await self.record.begins_not()
                return
        tasks: dict[Task, Callable[[Order], Any]] = {
            Task.CREATE: self._create,
            Task.COPY: self._copy,
            Task.START: self.start,
            Task.STOP: self._stop,
            Task.KILL: self._kill,
            Task.RESTART: self._restart,
            Task.PAUSE: self._pause,
            Task.RESUME: self._resume,
            Task.DELETE: self._delete,
            Task.BURY: self._bury,
            Task.RESTORE: self.restoring.put_back,
            Task.RETURN: self.restoring.go_on,
        }
        error: HoodyError | None = None
        outcome: Outcome | None
        try:
            outcome = await tasks[task](order)
        except Exception as failed:
            error, reason = self._in_words(task, failed)
            outcome = await self._after_failure(task, reason)
        if outcome is None:
            await self.record.ends(task, order)
            (self.life.done if task is Task.DELETE else self.life.failed)()
            self.around.gone(self)
        else:
            await self.record.becomes(outcome, order)
            if task in (Task.RESTORE, Task.RETURN):
                await self.restoring.written()
                getattr(self.life, f"back_to_{outcome.status}")()
            else:
                well = outcome.status is not Status.FAILED and error is None
                (self.life.done if well else self.life.failed)()
            error = error or outcome.told
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
        if task is Task.RESTORE and not await self.restoring.has_happened():
            return await self.restoring.forgo()
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
            run.abandon(self.reactor)
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
        async with source.standing_still(needed=order.source_snapshot is None):
            await deferToThread(
                storage.copy_container,
                *(source.container.id, own.id, own.disk_limit, order.source_snapshot),
                [each.name for each in own.volumes],
            )
        return Outcome(
            status=Status.STOPPED,
            reason=None,
            event_type="container.copied",
            data={"source": source.container.name},
        )

    @contextlib.asynccontextmanager
    async def standing_still(self, *, needed: bool = True) -> AsyncIterator[Run | None]:
        """
        Have all its processes stand still for as long as this lasts, if it runs. Who calls has
        it on L{hold}.

        @param needed: C{False} if that does not matter.
        """
        run = self.run if needed and self.state == "running" else None
        try:
            if run is not None:
                await run.cgroup.freeze(self.reactor)
            yield run
        finally:
            if run is not None:
                with contextlib.suppress(OSError):  # it may have ended
                    run.cgroup.thaw()

    async def start(self, order: Order) -> Outcome:
        self.run = await self.around.launch(self.container, dense=self.record.is_dense)
        self.run.ended = self.ended
        self.has_moved()
        return Outcome(
            status=Status.RUNNING,
            reason=None,
            event_type="container.started",
            incarnation=self.run.incarnation,
        )

    def ended(self) -> None:
        self.sleep.tell_of_wake()  # it is told before what comes now
        order = Order(actor="container", began=self.reactor.seconds(), by_hand=False, grace=0)
        order.done.addErrback(lambda _: None)
        self.life.ended(order)

    async def _stop(self, order: Order) -> Outcome:
        await self.end_run(order.grace)
        return Outcome(
            status=Status.STOPPED,
            reason=MANUAL if order.by_hand else None,
            event_type="container.stopped",
        )

    async def _kill(self, order: Order) -> Outcome:
        await self.end_run(0)
        return Outcome(
            status=Status.STOPPED,
            reason=MANUAL if order.by_hand else None,
            event_type="container.stopped",
            data={"forced": True},
        )

    async def end_run(self, grace: float) -> None:
        run = self.run
        if run is None:
            await self.around.runtime.clear(self.container.id)
        else:
            run.ended = None
            await self.around.close_door(self.container.id)
            await self.around.runtime.stop(run, self.container.id, grace)
            self.run = None

    async def _restart(self, order: Order) -> Outcome:
        await self.end_run(order.grace)
        return await self.start(order)

    async def _pause(self, order: Order) -> Outcome:
        assert self.run is not None
        await self.run.cgroup.freeze(self.reactor)
        return Outcome(
            status=Status.PAUSED,
            reason=MANUAL,
            event_type="container.paused",
            incarnation=self.run.incarnation,
        )

    async def _resume(self, order: Order) -> Outcome:
        assert self.run is not None
        self.run.cgroup.thaw()
        self.moved_at = self.reactor.seconds()
        return evolve(self._still_runs(), event_type="container.resumed")

    async def _delete(self, order: Order) -> None:
        self.around.deleting(self.container.id)
        await self.end_run(0)
        await deferToThread(self.around.storage.remove_container, self.container.id)

    async def _bury(self, order: Order) -> Outcome:
        """It ended by itself: what is left of it is tidied up."""
        run, self.run = self.run, None
        status = None if run is None else await run.how_it_ended(self.reactor)
        if run is not None:
            run.close()
        await self.around.close_door(self.container.id)
        await self.around.runtime.clear(self.container.id)
        if status == 0:
            return Outcome(status=Status.STOPPED, reason="exited", event_type="container.stopped")
        return Outcome(
            status=Status.FAILED, reason=_how_it_ended(status), event_type="container.failed"
        )


def _how_it_ended(status: int | None) -> str:
    if status is None:
        return "its main process ended, nobody knows how"
    if status < 0:
        return f"its main process was ended by signal {-status}"
    return f"its main process ended with status {status}"
