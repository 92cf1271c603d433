"""All containers of this server: found again at its start, made, and asked for."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredSemaphore, ensureDeferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody.containers.container import MANUAL, Container, Status
from hoody.containers.idle import IdleWatch
from hoody.containers.keeper import Keeper
from hoody.containers.lifecycle import SETTLED, Task
from hoody.containers.merging import Merging
from hoody.containers.network.apidoor import URL
from hoody.containers.network.wiring import Network
from hoody.containers.orders import Order
from hoody.containers.runtime import Run, Runtime, boot_id
from hoody.containers.sleep import REQUEST
from hoody.containers.spec import MEMORY
from hoody.containers.states import States
from hoody.containers.storage import NoStorage, Storage
from hoody.containers.swap import CompressedSwap
from hoody.containers.transitions import Transition
from hoody.containers.workshop import Workshop
from hoody.errors import Conflict, DatabaseAway, HoodyError, NoSuchThing, NotServing, Unavailable
from hoody.interfaces import IStore, ITransaction
from hoody.later import sleep
from hoody.units import moment

ACTOR = "server"
"""Who does what is done without anybody's asking."""
DATABASE_PAUSE = 0.5
TRIM_SECONDS = 1.0
"""How often logs are looked at that may have become too long."""
TRIM_AGAIN_SECONDS = 0.1
"""And how soon again where one was."""
COUNTED = ("running", "asleep", "stopped", "failed")

_log = Logger(namespace="hoody.containers")

T = TypeVar("T")


@define(kw_only=True, eq=False)
class Fleet:
    """
    @ivar server_id: whose containers these are.
    @ivar lacks: what is missing on this machine, with the cure; C{None} if nothing is.
    @ivar ready: whether all that was here before has been seen to.
    @ivar keepers: by container id.
    @ivar states: what is done on the disk to what containers have.
    @ivar has_room: whether there may be a connection to one with a descriptor of this number.
    @ivar stop_grace: seconds between asking processes to end and making them.
    @ivar reclaim_after: see L{IdleWatch}.
    @ivar woke: told of each request that woke a container: what it was, C{paused} or C{stopped},
        and after how many seconds that took the connection.
    @ivar deleting: told of each container that is about to be deleted.
    @ivar merging: of equal memory, for dense projects.
    @ivar swap: that is to be there, for what sleeps; C{None} to leave the machine as it is.
    @ivar start_patience: seconds that a request waits for its container to run.
    """

    reactor: Any
    store: IStore
    storage: Storage
    runtime: Runtime
    workshop: Workshop
    lacks: str | None
    network: Network
    stop_grace: float
    reclaim_after: float
    merging: Merging
    swap: CompressedSwap | None = None
    start_patience: float = 30.0
    woke: Callable[[str, float], None] = field(default=lambda found, seconds: None)
    deleting: Callable[[str], None] = field(default=lambda container_id: None, init=False)
    has_room: Callable[[int], bool] = field(default=lambda _: True, init=False)
    server_id: str = field(default="", init=False)
    ready: bool = field(default=False, init=False)
    keepers: dict[str, Keeper] = field(factory=dict, init=False)
    _labels: dict[str, Keeper] = field(factory=dict, init=False)
    _launches: DeferredSemaphore = field(
        factory=lambda: DeferredSemaphore(2 * (os.cpu_count() or 1)), init=False
    )
    _known_labels: set[str] | None = field(default=None, init=False)
    _has_network: bool = field(default=False, init=False)
    _wrote: set[str] = field(factory=set, init=False)
    _trims: LoopingCall | None = field(default=None, init=False)
    idle: IdleWatch = field(init=False)
    states: States = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.states = States(self.storage)
        self.idle = IdleWatch(
            self.reactor,
            lambda: self.keepers.values(),
            self._idle_timeouts,
            self._traffic,
            self.reclaim_after,
        )
        self.network.moved = self._moved_by_door

    # The server's own life

    def identify(self, server_id: str, state: Path) -> None:
        """
        Say which server this is: its containers are those that it has to see to.

        @param state: a folder that a reboot may forget.
        """
        self.server_id = self.runtime.server_id = self.workshop.server_id = server_id
        self.runtime.state = state / server_id
        self.network.identify(server_id)
        if self.storage.given is not None:
            self.storage.root = self.storage.given / f"hoody-{server_id}"

    async def start(self) -> None:
        """
        Find what was here before, and see to it: what runs goes on, what was begun is done
        again or undone, what nobody knows of is removed. Where containers cannot be, those that
        run are still reached.
        """
        try:
            await self._find_all()
        except Exception:
            _log.failure("the containers could not be seen to")
            self.lacks = "something broke as they were looked for; the server's log says what."
        self.ready = True
        if self.lacks is not None:
            _log.warn("no containers here: {lacks}", lacks=self.lacks)
            return
        self._trims = LoopingCall(self._trim_logs)
        self._trims.clock = self.reactor
        self._trims.start(TRIM_SECONDS)
        self.idle.start()
        try:
            await self._insist(self.workshop.ensure_busybox)
        except HoodyError as error:
            _log.warn("no busybox: {reason}", reason=error.sentence)

    async def _find_all(self) -> None:
        if self.lacks is None:
            await self._insist(self.workshop.tidy)
        rows, images = await self._insist(self._known)
        self._known_labels = {name for row in rows for name in row.labels}
        if self.lacks is None:
            self.lacks = await self._prepare(is_new=not (rows or images))
        if self.lacks is not None:
            await self._take_up_what_runs(rows)
            return
        await self._take_up_network(rows)
        for row in rows:
            await self._try_to_take_up(row)
        await self._sweep_snapshots(rows)
        known = {row.id for row in rows}
        swept = await deferToThread(self.storage.sweep, images, known)
        swept += await self.runtime.sweep(known)
        if swept:
            _log.info("removed what nobody knows of: {swept}", swept=", ".join(swept))

    async def _sweep_snapshots(self, rows: list[Container]) -> None:
        """What a server that died had begun to take, or to delete, and nobody was told of."""
        known = await self._insist(self._known_snapshots)
        for row in rows:
            if row.pending == Task.RESTORE:
                continue  # what it replaces is about to be known
            for stray in await deferToThread(self.states.known, row.id) - known:
                try:
                    await deferToThread(self.states.forget, row.id, stray)
                except OSError as error:
                    _log.error("cannot remove {stray}: {why}", stray=stray, why=error.strerror)

    async def _known_snapshots(self) -> set[str]:
        async with self.store.transaction() as transaction:
            return await transaction.snapshots.ids(self.server_id)

    async def _prepare(self, *, is_new: bool) -> str | None:
        """@return: what is missing."""
        database = await self._insist(self._database)
        try:
            await deferToThread(lambda: self.storage.prepare(database, is_new=is_new))
            await deferToThread(self.runtime.prepare)
            if self.swap is not None:
                await deferToThread(self.swap.ensure)
        except (NoStorage, OSError) as error:
            return error.sentence if isinstance(error, NoStorage) else str(error)
        return None

    async def _take_up_what_runs(self, rows: list[Container]) -> None:
        """What they need is in their own mounts, and goes on as it is."""
        found = [(row, self.runtime.adopt(row)) for row in rows]
        running = [(row, run) for row, run in found if run is not None]
        if running:
            await self._take_up_network(rows)
        for row, run in running:
            keeper = self._keep(row)
            keeper.run = run
            try:
                self._take_up_run(keeper, run)
            except OSError as error:
                _log.error("container {name}: {error}", name=row.name, error=error)
                keeper.life.adopt_failed()

    async def _take_up_network(self, rows: list[Container]) -> None:
        self._has_network = True
        await self.network.take_up(rows)

    async def _try_to_take_up(self, row: Container) -> None:
        keeper = self._keep(row)
        try:
            await self._take_up(keeper)
        except Exception:
            _log.failure("container {name} could not be taken up", name=row.name)
            if keeper.state == "unknown":
                keeper.life.adopt_failed()

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """However long the database is away."""
        while True:
            try:
                return await work()
            except DatabaseAway:
                await sleep(self.reactor, DATABASE_PAUSE)

    async def _database(self) -> str:
        """Which database this is."""
        async with self.store.transaction() as transaction:
            return (await transaction.secret("database", os.urandom(16))).hex()

    async def _known(self) -> tuple[list[Container], set[str]]:
        async with self.store.transaction() as transaction:
            rows = await transaction.containers.of_server(self.server_id)
            images = await transaction.images.of_server(self.server_id)
        return rows, {image.id for image in images}

    async def _take_up(self, keeper: Keeper) -> None:
        row = keeper.container
        keeper.run = run = self.runtime.adopt(row)
        if row.status in (Status.CREATING, Status.COPYING) or row.pending in (
            "creating",
            "copying",
        ):
            # Nobody was told of it.
            keeper.ask("delete", self._order(keeper))
        elif row.status is Status.DELETING:
            keeper.ask("delete", self._order(keeper))
        elif await self._was_put_back(row):
            keeper.ask("go_on_restoring", self._order(keeper))
        elif run is not None:
            await deferToThread(self.runtime.end_commands, row.id)
            self._take_up_running(keeper, run)
        else:
            await self.runtime.clear(row.id)
            await self._take_up_still(keeper)

    async def _was_put_back(self, row: Container) -> bool:
        """Whether a restore has come as far as there is no way back; else it is forgone."""
        is_begun = row.pending == Task.RESTORE
        if is_begun and await deferToThread(self.states.returned, row.id) is not None:
            return True
        try:
            await deferToThread(self.states.drop if is_begun else self.states.settle, row.id)
        except OSError as error:
            # The next restore sees to it; till then it is in nobody's way.
            _log.error("a left-over of {name} stays: {why}", name=row.name, why=error.strerror)
        return False

    def _take_up_running(self, keeper: Keeper, run: Run) -> None:
        row, life = keeper.container, keeper.life
        self._take_up_run(keeper, run)
        if row.status in (Status.STOPPED, Status.FAILED) or row.pending in ("stopping", "killing"):
            by_hand = row.status_reason == MANUAL or row.pending is not None
            keeper.ask("force_stop", evolve(self._order(keeper), by_hand=by_hand))
        elif row.pending == "restarting":
            keeper.ask("restart", self._order(keeper))
        elif row.pending is not None:
            still = life.state()
            reason = row.status_reason if still == Status.PAUSED else None
            self._write_down(keeper, Status(still), reason)

    def _take_up_run(self, keeper: Keeper, run: Run) -> None:
        row, life = keeper.container, keeper.life
        run.ended = keeper.ended
        if run.is_dense:
            self.merging.ensure()
        if row.status is Status.PAUSED and row.pending != "resuming":
            ensureDeferred(run.cgroup.freeze(self.reactor)).addErrback(lambda _: None)
            life.adopt_paused()
        else:
            run.cgroup.thaw()
            life.adopt_running()
        ensureDeferred(self._furnish_again(keeper, run)).addErrback(_report, row.name)

    async def _furnish_again(self, keeper: Keeper, run: Run) -> None:
        """What of its network was ours went with the server that was before us."""
        await self.network.furnish(keeper.container, run.network)

    async def _take_up_still(self, keeper: Keeper) -> None:
        row, life = keeper.container, keeper.life
        was_up = row.status in (Status.RUNNING, Status.PAUSED)
        rebooted = row.incarnation is None or row.incarnation.boot != boot_id()
        reason = "the machine was restarted" if rebooted else "it ended while nobody looked"
        starts = (
            row.pending in ("starting", "restarting")
            or (was_up and rebooted and row.autostart)
            or (row.status is Status.RUNNING and row.pending == Task.RESTORE)
        )
        if starts and was_up:
            down = Task.START  # which a server that dies now leaves to the next one
            await self._insist(lambda: self._correct(keeper, Status.STOPPED, reason, down))
        life.adopt_failed() if row.status is Status.FAILED else life.adopt_stopped()
        if starts:
            keeper.ask("start", self._order(keeper))
        elif was_up or row.pending is not None:
            by_hand = row.pending in ("stopping", "killing")
            self._write_down(keeper, Status.STOPPED, MANUAL if by_hand else reason)

    def _write_down(self, keeper: Keeper, status: Status, reason: str | None) -> None:
        writing = self._insist(lambda: self._correct(keeper, status, reason))
        ensureDeferred(writing).addErrback(_report, keeper.container.name)

    async def _correct(
        self, keeper: Keeper, status: Status, reason: str | None, pending: Task | None = None
    ) -> None:
        async with self.store.transaction() as transaction:
            found = await transaction.containers.find(keeper.container.id, for_change=True)
            was = keeper.container
            if found is None:
                return
            if (found.status, found.pending) != (was.status, was.pending):
                keeper.container = found  # more has come of it since, or just this
                return
            changed = evolve(found, status=status, status_reason=reason, pending=pending)
            await transaction.containers.change(changed)
            if found.status is not status:
                await transaction.containers.passed(
                    Transition(
                        container_id=found.id,
                        from_status=found.status,
                        to_status=status,
                        transition_time=self.now,
                        duration_ms=0.0,
                        triggered_by=ACTOR,
                        metadata={"reason": reason} if reason else {},
                    )
                )
            if status is Status.STOPPED and found.status is not status:
                data: dict[str, object] = {"reason": reason}
                order = self.order(ACTOR)
                transaction.record(
                    keeper.record.event("container.stopped", order, self.now, 0.0, data)
                )
        keeper.container = changed

    async def stop(self) -> None:
        """Let all go on without us."""
        self.idle.stop()
        if self._trims is not None and self._trims.running:
            self._trims.stop()
        late = self.reactor.seconds() + 5.0  # for all of them together
        for keeper in tuple(self.keepers.values()):
            with contextlib.suppress(Exception):
                await self._settled_within(keeper, max(0.0, late - self.reactor.seconds()))
                writing: Deferred[None] = ensureDeferred(keeper.written())
                writing.addTimeout(max(0.0, late - self.reactor.seconds()), self.reactor)
                await writing
        for keeper in self.keepers.values():
            if keeper.run is not None:
                keeper.run.ended = None
                keeper.run.close()
        if self._has_network:
            await self.network.leave([keeper.container for keeper in self.keepers.values()])

    async def _trim_logs(self) -> None:
        """
        Keep logs short; in a thread, since the disk may take its time. Who stands still writes
        nothing: its log is looked at once more, and then left alone.
        """
        running = {keeper.container.id for keeper in self.idle.awake}
        due, self._wrote = running | self._wrote, running
        while due and self._trims is not None and self._trims.running:
            if not await deferToThread(self.storage.trim_logs, list(due)):
                return
            await sleep(self.reactor, TRIM_AGAIN_SECONDS)

    async def _settled_within(self, keeper: Keeper, seconds: float) -> None:
        if not keeper.is_settled:
            waiting: Deferred[None] = ensureDeferred(keeper.settled())
            waiting.addTimeout(seconds, self.reactor)
            await waiting

    def pids(self) -> set[int]:
        """Of the first processes of all that run."""
        runs = (keeper.run for keeper in self.keepers.values())
        return {run.incarnation.pid for run in runs if run is not None}

    def part(self) -> dict[str, object]:
        """For C{/health}."""
        if self.lacks is not None:
            return {"status": "off", "problem": self.lacks}
        running = sum(keeper.state == "running" for keeper in self.keepers.values())
        return {
            "status": "ok" if self.ready else "starting",
            "containers": len(self.keepers),
            "running": running,
        }

    def jumped(self, seconds: float) -> None:
        """The clock was set by so much: nobody has been idle for longer or less long."""
        for keeper in self.keepers.values():
            keeper.moved_at += seconds
            if keeper.run is not None and keeper.run.began:
                keeper.run.began += seconds

    def counts(self) -> dict[str, float]:
        """How many there are by status, for C{/metrics}; those that sleep are C{asleep}."""
        found = Counter(
            "asleep" if keeper.is_asleep else str(keeper.container.status)
            for keeper in self.keepers.values()
        )
        # Those that everybody asks for are there at 0, too.
        return {**dict.fromkeys(COUNTED, 0), **found}

    # What sleep needs

    async def _idle_timeouts(self) -> dict[str, int]:
        async with self.store.transaction() as transaction:
            return await transaction.projects.idle_timeouts()

    async def _traffic(self, keepers: list[Keeper]) -> dict[Keeper, int]:
        counted = await self.network.traffic([keeper.container for keeper in keepers])
        return {keeper: counted[keeper.container.id] for keeper in keepers}

    def _moved_by_door(self, container_id: str) -> None:
        keeper = self.keepers.get(container_id)
        if keeper is not None:
            keeper.touch(by_itself=True)

    # What keepers need

    @property
    def now(self) -> datetime:
        return moment(self.reactor.seconds())

    async def launch(self, container: Container, *, dense: bool) -> Run:
        # All at once, as after a reboot, each would take longer than it may.
        run: Run = await self._launches.run(lambda: ensureDeferred(self._launch(container, dense)))
        return run

    async def _launch(self, container: Container, dense: bool) -> Run:
        environment = {"HOODY_URL": URL}
        if dense:
            environment["PYTHONHASHSEED"] = "0"  # else what it has in dicts differs
            self.merging.ensure()
        files = {
            "/etc/hostname": f"{container.host_label}\n",
            "/etc/hosts": f"127.0.0.1\tlocalhost {container.host_label}\n",
            "/etc/resolv.conf": "nameserver 127.0.0.1\n" if container.egress == "nat" else "",
        }
        try:
            return await self.runtime.launch(
                container,
                environment,
                files,
                lambda network: self.network.furnish(container, network),
                dense=dense,
            )
        except Exception:
            await self.network.unfurnish(container)
            raise

    async def close_door(self, container_id: str) -> None:
        keeper = self.keepers.get(container_id)
        if keeper is not None:
            await self.network.unfurnish(keeper.container)

    def gone(self, keeper: Keeper) -> None:
        """Nothing is left of it."""
        self.keepers.pop(keeper.container.id, None)
        self._labels = {name: one for name, one in self._labels.items() if one is not keeper}

    def _keep(self, container: Container) -> Keeper:
        keeper = Keeper.of(self, container)
        self.keepers[container.id] = keeper
        self._labels |= dict.fromkeys(container.labels, keeper)
        return keeper

    def relabel(self, keeper: Keeper) -> None:
        """It answers to other names from now on."""
        self._labels = {name: one for name, one in self._labels.items() if one is not keeper}
        for name in keeper.container.labels:
            self._labels[name] = keeper

    def order(
        self,
        actor: str,
        *,
        by_hand: bool = True,
        request_id: str | None = None,
        source_id: str | None = None,
    ) -> Order:
        """Something that is asked for now."""
        return Order(
            actor=actor,
            began=self.reactor.seconds(),
            by_hand=by_hand,
            grace=self.stop_grace,
            request_id=request_id,
            source_id=source_id,
        )

    def _order(self, keeper: Keeper) -> Order:
        order = evolve(self.order(ACTOR, by_hand=False), patient=True)
        order.done.addErrback(
            lambda failure: _log.warn(
                "container {name}: {reason}",
                name=keeper.container.name,
                reason=failure.getErrorMessage(),
            )
        )
        return order

    # Use cases

    def check(self) -> None:
        """@raise HoodyError: if there can be no containers here, or not yet."""
        if self.lacks is not None:
            raise Unavailable(f"There can be no containers on this server: {self.lacks}")
        if not self.ready:
            raise Unavailable("The containers are still being looked after; try again soon.")

    def find(self, container: Container) -> Keeper:
        """
        @param container: of this server, as the database has it.
        @raise Conflict: if nobody sees to it; soon somebody does.
        """
        self.check()
        keeper = self.keepers.get(container.id)
        if keeper is None:
            self.look_again(container.id)
            raise Conflict(
                f"The container {container.name!r} was not made as it should, and is being looked"
                " after; ask again in a moment."
            )
        return keeper

    async def create(
        self, write: Callable[[ITransaction], Awaitable[Container]], order: Order
    ) -> Keeper:
        """
        @param write: adds its row, and returns that.
        @raise HoodyError: if it cannot be; nothing is left of it then.
        """
        keeper: Keeper | None = None
        try:
            async with self.store.transaction() as transaction:
                # Whoever finds the row finds who sees to it.
                keeper = self._keep(await write(transaction))
        except BaseException:
            if keeper is not None:
                self.gone(keeper)
                self.look_again(keeper.container.id)
            raise
        await keeper.ask("copy_from" if order.source_id else "create", order)
        await keeper.settled()
        return keeper

    async def admit(self, write: Callable[[ITransaction], Awaitable[Container]]) -> Keeper:
        """
        As L{create}, of one that is on the disk already, and does not run.

        @raise HoodyError: if it cannot be. If the database went meanwhile, nobody can say yet
            whether it is; then what is on the disk is left to who looks again.
        """
        keeper: Keeper | None = None
        try:
            async with self.store.transaction() as transaction:
                keeper = self._keep(await write(transaction))
        except BaseException:
            if keeper is not None:
                self.gone(keeper)
            raise
        keeper.life.adopt_stopped()
        return keeper

    def look_again(self, container_id: str) -> None:
        """
        If the database goes within a COMMIT, nobody can say whether what was written is true.
        When it is back, that is looked up; one that nobody sees to is taken up as at a start.
        """
        looking = self._insist(lambda: self._look_at(container_id))
        ensureDeferred(looking).addErrback(_report, container_id)

    async def _look_at(self, container_id: str) -> None:
        async with self.store.transaction() as transaction:
            # Who is changing or deleting it is waited for: its keeper is there until then.
            found = await transaction.containers.find(container_id, for_change=True)
            keeper = self.keepers.get(container_id)
            if found is not None and keeper is not None:
                keeper.container = found
                self.relabel(keeper)
        if found is not None and container_id not in self.keepers:
            await self._try_to_take_up(found)

    async def operate(self, keeper: Keeper, operation: str, order: Order) -> None:
        """@raise Conflict: if it makes no sense now, or something else is being done."""
        if keeper.state == "dozing":
            keeper.sleep.wake()
            await keeper.settled()
        if keeper.held and keeper.state in SETTLED:
            await keeper.settled()  # it is being copied, which takes a moment
        if operation == "pause" and not keeper.held:
            keeper.sleep.wake()  # from now on it is to stand still for all
        if not keeper.is_settled:
            raise Conflict(
                f"The container {keeper.container.name!r} is {keeper.state} just now; ask again"
                " when that is done."
            )
        await keeper.ask(operation, order)

    async def serving(self, keeper: Keeper, actor: str = REQUEST) -> Run:
        """
        Have it run, if nobody has said that it should not.

        @param actor: for whom, as the audit names them.
        @raise NotServing: if it does not, and will not now.
        """
        late = self.reactor.seconds() + self.start_patience
        while self.reactor.seconds() < late:
            state, name = keeper.state, keeper.container.name
            if state == "running":
                assert keeper.run is not None
                return keeper.run
            if not keeper.is_settled:
                keeper.touch(by_itself=True)
                with contextlib.suppress(Exception):
                    await self._settled_within(keeper, late - self.reactor.seconds())
                continue
            if keeper.is_asleep:
                keeper.sleep.wake(actor)
                continue
            by_hand = keeper.container.status_reason == MANUAL
            if state == "paused":
                raise NotServing("paused", f"The container {name} was paused by hand.")
            if state == "stopped":
                if by_hand:
                    raise NotServing("stopped", f"The container {name} was stopped by hand.")
                self.check()
                await self._try(keeper, "start", actor)
            elif state == "failed":
                reason = keeper.container.status_reason or "nobody knows why"
                raise NotServing("failed", f"The container {name} failed: {reason}.")
            else:
                raise NoSuchThing(f"The container {name} is gone.")
        raise NotServing("silent", f"The container {keeper.container.name} takes too long.")

    async def _try(self, keeper: Keeper, operation: str, actor: str) -> None:
        order = self.order(actor, by_hand=False)
        try:
            await keeper.ask(operation, order)
        except DatabaseAway:
            raise
        except HoodyError:
            pass  # its state says more

    def is_deleting(self, container_id: str) -> bool:
        """Whether one of this server is being deleted just now."""
        keeper = self.keepers.get(container_id)
        return keeper is not None and keeper.state == "deleting"

    def memory_limit(self, container: Container) -> int:
        """Bytes of memory that it may have."""
        return container.memory_limit or MEMORY

    def may_be(self, name: str) -> bool:
        """Whether there is a container of this label, for all that we know."""
        return self._known_labels is None or name in self._known_labels

    def destination(self, name: str) -> Keeper | None:
        """Who answers to a label."""
        return self._labels.get(name)


def _report(failure: Any, name: str) -> None:
    _log.failure("container {name} could not be seen to", failure=failure, name=name)
