"""
A container's tasks, each cut off at each of its steps: something fails, the database goes, the
server dies. The truth is written in the end, and nothing is half-made.

What keepers work with is played here; the tests with real parts are in tests/real.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from attrs import define, evolve, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from hoody.audit.events import Filter
from hoody.containers import fleet as fleets
from hoody.containers import keeper as keepers
from hoody.containers import record
from hoody.containers.container import Container, Incarnation, Status
from hoody.containers.destinations import Destination
from hoody.containers.fleet import Fleet
from hoody.containers.idle import IdleWatch
from hoody.containers.merging import Merging
from hoody.containers.orders import Return
from hoody.containers.runtime import RuntimeFailed
from hoody.errors import Conflict, DatabaseAway, HoodyError, NotWrittenYet
from hoody.later import sleep
from hoody.snapshots.snapshot import Snapshot
from hoody.store.memory import MemoryStore, MemoryTransaction

NOW = datetime(2026, 5, 4, tzinfo=UTC)
BOOT = "this one"
TASKS = (
    *("create", "copy", "start", "stop", "force_stop", "restart", "pause", "resume", "delete"),
    "restore",
)
BEFORE = {
    "start": "stopped",
    "stop": "running",
    "force_stop": "paused",
    "restart": "running",
    "pause": "running",
    "resume": "paused",
    "delete": "running",
    "restore": "running",
}
AWAY = 3
"""For so many questions the database is away, if it is."""


class Killed(BaseException):
    """The server is no more; nobody catches this."""


@define(eq=False)
class World:
    """
    What outlives a server: files, processes, the database.

    @ivar content: what each container has, in a word; C{prepared}: what is to take the place
        of that, with the note that comes with it; C{notes}: those that have come; C{kept}: what
        snapshots have, by their ids.
    @ivar log: the steps, by name.
    """

    files: set[str] = field(factory=set)
    runs: dict[str, Incarnation] = field(factory=dict)
    frozen: set[str] = field(factory=set)
    content: dict[str, str] = field(factory=dict)
    prepared: dict[str, tuple[str, bytes]] = field(factory=dict)
    notes: dict[str, bytes] = field(factory=dict)
    kept: dict[str, str] = field(factory=dict)
    log: list[str] = field(factory=list)
    at: int = 0
    fault: str = ""
    dead: bool = False
    away: int = 0
    goes_on: bool | None = None
    _lock: threading.Lock = field(factory=threading.Lock)
    _pids: Any = field(factory=lambda: itertools.count(1000))

    def step(self, name: str) -> None:
        with self._lock:
            if self.dead:
                raise Killed
            self.log.append(name)
            is_of_database = name.startswith("database")
            if is_of_database and self.away:
                self.away -= 1
                raise DatabaseAway("it has gone")
            if len(self.log) != self.at:
                return
            if self.fault == "kill":
                self.dead = True
                raise Killed
            if self.fault == "away" and is_of_database:
                self.away = AWAY
                raise DatabaseAway("it goes")
            # What is there can be thawed.
            if self.fault == "fail" and not is_of_database and name != "thaw":
                raise OSError(5, "Input/output error")

    def run(self, container_id: str) -> Incarnation:
        self.runs[container_id] = Incarnation(
            pid=next(self._pids), started=1, boot=BOOT, network=1
        )
        return self.runs[container_id]

    def end(self, container_id: str) -> None:
        self.runs.pop(container_id, None)
        self.frozen.discard(container_id)


@define(eq=False)
class Store(MemoryStore):
    world: World = field(factory=World, kw_only=True)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[MemoryTransaction]:
        self.world.step("database, asked")
        async with MemoryStore._transaction(self) as transaction:
            yield transaction
            self.world.step("database, at the COMMIT")
        self.world.step("database, after the COMMIT")


@define(eq=False)
class Cgroup:
    world: World
    container_id: str

    async def freeze(self, _: object) -> None:
        self.world.step("freeze")
        self.world.frozen.add(self.container_id)
        self.world.step("frozen")

    def thaw(self) -> None:
        self.world.step("thaw")
        self.world.frozen.discard(self.container_id)
        self.world.step("thawed")

    def reclaim(self, goes_on: Callable[[], bool]) -> None:
        """In a thread."""
        self.world.goes_on = goes_on()


@define(eq=False)
class Run:
    cgroup: Cgroup
    incarnation: Incarnation
    network: Any = None
    ended: Callable[[], None] | None = None
    over: bool = False
    is_dense: bool = False

    def close(self) -> None:
        pass

    def abandon(self, _: object) -> None:
        pass

    async def how_it_ended(self, _: object) -> int | None:
        return None


@define(eq=False)
class Runtime:
    world: World
    server_id: str = ""
    state: Path = Path()

    async def launch(self, container: Container, *_: object, **__: object) -> Run:
        try:
            await self.clear(container.id)
            self.world.step("launch")
            incarnation = self.world.run(container.id)
            self.world.step("launched")
        except OSError as error:
            await self.clear(container.id)
            raise RuntimeFailed(str(error)) from error
        return Run(Cgroup(self.world, container.id), incarnation)

    def adopt(self, container: Container) -> Run | None:
        incarnation = self.world.runs.get(container.id)
        if incarnation is None or incarnation != container.incarnation:
            return None
        return Run(Cgroup(self.world, container.id), incarnation)

    async def stop(self, run: Run, container_id: str, grace: float) -> None:
        self.world.step("stop")
        await self.clear(container_id)

    async def clear(self, container_id: str) -> None:
        self.world.step("clear")
        self.world.end(container_id)
        self.world.step("cleared")

    def end_commands(self, container_id: str) -> None:
        pass

    async def sweep(self, known: set[str]) -> list[str]:
        return []

    def prepare(self) -> None:
        pass

    def log_file(self, container_id: str) -> Path:
        return Path("/nowhere") / container_id


@define(eq=False, slots=False)
class Storage:
    """Each of its files is made in two steps."""

    world: World
    given: None = None

    def prepare(self, database: str, *, is_new: bool) -> None:
        pass

    def sweep(self, images: set[str], containers: set[str]) -> list[str]:
        for path in tuple(self.world.files):
            if path.partition("/")[0] not in containers:
                self.world.files.discard(path)
        return []

    def make_container(self, container_id: str, volumes: object, most: object) -> None:
        for name in ("root", "volume"):
            self.world.step(f"make {name}")
            self.world.files.add(f"{container_id}/{name}")
        self.world.step("made")

    def copy_container(self, source_id: str, container_id: str, most: object, *_: object) -> None:
        assert {f"{source_id}/root", f"{source_id}/volume"} <= self.world.files
        self.make_container(container_id, [], most)

    def remove_container(self, container_id: str) -> None:
        for name in ("root", "volume"):
            self.world.step(f"remove {name}")
            self.world.files.discard(f"{container_id}/{name}")

    def trim_logs(self, container_ids: object) -> bool:
        return False


@define(eq=False)
class States:
    """What is done to all that a container has: each time in two steps, but the exchange."""

    world: World

    def prepare(self, container_id: str, snapshot_id: str, *more: Any) -> None:
        note = more[-1]
        self.world.step("prepare")
        self.world.prepared[container_id] = (self.world.kept[snapshot_id], note)
        self.world.step("prepared")

    def exchange(self, container_id: str) -> None:
        self.world.step("exchange")
        content, note = self.world.prepared[container_id]
        self.world.prepared[container_id] = (self.world.content[container_id], b"")
        self.world.content[container_id], self.world.notes[container_id] = content, note

    def returned(self, container_id: str) -> bytes | None:
        return self.world.notes.get(container_id)

    def keep_replaced(self, container_id: str, undo_id: str) -> None:
        self.world.step("keep what is replaced")
        if container_id in self.world.prepared:
            self.world.kept[undo_id] = self.world.prepared.pop(container_id)[0]
        if self.world.fault != "fail":  # it is the last that is done
            self.world.step("it is kept")

    def settle(self, container_id: str) -> None:
        self.world.step("settle")
        self.world.notes.pop(container_id, None)

    def drop(self, container_id: str) -> None:
        self.world.prepared.pop(container_id, None)

    def known(self, container_id: str) -> set[str]:
        return set(self.world.kept)

    def forget(self, container_id: str, snapshot_id: str) -> None:
        del self.world.kept[snapshot_id]


class Nothing:
    """A network and a workshop that have nothing to do."""

    server_id = ""

    def identify(self, _: object) -> None:
        pass

    async def done(self, *_: object) -> None:
        pass

    take_up = furnish = unfurnish = leave = tidy = ensure_busybox = done


def server(world: World, store: Store) -> Fleet:
    given: dict[str, Any] = {
        "reactor": reactor,
        "store": store,
        "storage": Storage(world),
        "runtime": Runtime(world),
        "workshop": Nothing(),
        "network": Nothing(),
        "merging": Merging(is_allowed=False),
    }
    fleet = Fleet(**given, lacks=None, stop_grace=0, reclaim_after=0)
    fleet.states = cast(Any, States(world))
    fleet.identify("s" * 24, Path("/nowhere"))
    _fleets.append(fleet)
    return fleet


_fleets: list[Fleet] = []


@pytest.fixture(autouse=True)
def nobody_goes_on_looking() -> Iterator[None]:
    """What a fleet does now and then would go on in the tests' own process."""
    yield
    while _fleets:
        fleet = _fleets.pop()
        fleet.idle.stop()
        if fleet._trims is not None and fleet._trims.running:
            fleet._trims.stop()


def row(container_id: str, **more: Any) -> Container:
    given = {
        "id": container_id,
        "project_id": "p" * 24,
        "server_id": "s" * 24,
        "name": f"name-{container_id}",
        "container_image": "busybox",
        "image_id": "i" * 24,
        "egress": "none",
        "number": ord(container_id[0]),
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Container(**{**given, **more})


async def _with_one(world: World, store: Store, state: str) -> None:
    """There has been one for long, in that state."""
    world.files |= {"a/root", "a/volume"}
    incarnation = None if state == "stopped" else world.run("a")
    if state == "paused":
        world.frozen.add("a")
    async with store.transaction() as transaction:
        reason = "manual" if state == "paused" else None
        one = row("a", status=Status(state), status_reason=reason, incarnation=incarnation)
        await transaction.containers.add(one)
        await transaction.snapshots.add(snapshot("then"))
    world.content["a"], world.kept["then"] = "now", "then"


def snapshot(snapshot_id: str, **more: Any) -> Snapshot:
    return Snapshot(
        id=snapshot_id,
        container_id="a",
        name=f"name-{snapshot_id}",
        created_at=NOW,
        created_by="somebody",
        consistency="frozen",
        **more,
    )


async def _ask(fleet: Fleet, task: str) -> HoodyError | None:
    """@return: what whoever asked was told."""
    order = fleet.order("somebody", source_id="a" if task == "copy" else None)
    if task == "restore":
        back = Return(snapshot=snapshot("then"), undo=snapshot("undo", is_undo=True))
        order = evolve(order, puts_back=back)
    try:
        if task in ("create", "copy"):
            status = Status.COPYING if task == "copy" else Status.CREATING
            pending = "copying" if task == "copy" else "creating"

            async def write(transaction: Any) -> Container:
                made = row("b", status=status, pending=pending)
                await transaction.containers.add(made)
                return made

            await fleet.create(write, order)
        else:
            await fleet.operate(fleet.keepers["a"], task, order)
    except HoodyError as error:
        return error
    return None


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fleets, keepers):
        monkeypatch.setattr(module, "boot_id", lambda: BOOT, raising=False)
    monkeypatch.setattr(fleets, "DATABASE_PAUSE", 0.001)
    monkeypatch.setattr(record, "_DATABASE_PAUSE", 0.001)


async def _settled(fleet: Fleet) -> None:
    for _ in range(500):
        await sleep(reactor, 0.001)
        if all(keeper.is_settled for keeper in fleet.keepers.values()):
            await sleep(reactor, 0.003)
            if all(keeper.is_settled for keeper in fleet.keepers.values()):
                return
    raise AssertionError({k.container.id: k.state for k in fleet.keepers.values()})


async def _check(world: World, fleet: Fleet, store: Store) -> dict[str, str]:
    """All agree: the row, the files, the processes, and who sees to it."""
    await sleep(reactor, 0.008)
    world.away = 0
    await _settled(fleet)
    async with store.transaction() as transaction:
        rows = {each.id: each for each in await transaction.containers.of_server("s" * 24)}
    assert set(fleet.keepers) == set(rows)
    # A deletion that failed is asked for again.
    half_gone = (
        any("remove" in step for step in world.log)
        and "a" in rows
        and rows["a"].status == "failed"
    )
    assert half_gone or world.files == {
        f"{each}/{what}" for each in rows for what in ("root", "volume")
    }
    for container_id, one in rows.items():
        keeper = fleet.keepers[container_id]
        assert one.pending is None
        assert one.status == keeper.state == keeper.container.status
        assert (one.status in ("running", "paused")) == (container_id in world.runs), one
        assert (one.status == "paused") == (container_id in world.frozen)
        assert (keeper.run is not None) == (container_id in world.runs)
        if container_id in world.runs:
            assert one.incarnation == world.runs[container_id]
    assert set(world.runs) <= set(rows)
    await _check_restored(world, store)
    return {container_id: str(one.status) for container_id, one in rows.items()}


async def _check_restored(world: World, store: Store) -> None:
    """All that belongs to a restore has happened, or nothing of it."""
    if "a" not in world.content:
        return
    async with store.transaction() as transaction:
        found = {each.id for each in await transaction.snapshots.of_container("a")}
        own = await transaction.containers.find("a")
    step = (world.log + [""])[world.at - 1]
    assert not world.prepared
    # That one is of no more use to anybody, and in nobody's way.
    assert not world.notes or (world.fault, step) == ("fail", "settle")
    has_happened = world.content["a"] == "then"
    assert ("container.snapshot.restored" in await _events(store)) == has_happened
    kept = has_happened and (world.fault, step) != ("fail", "keep what is replaced")
    if own is not None:
        assert found == set(world.kept) == ({"then", "undo"} if kept else {"then"})
        assert own.last_used_snapshot == ("name-then" if has_happened else None)
    assert world.kept.get("undo", "now") == "now"


def _case(test: Any) -> Any:
    return pytest_twisted.ensureDeferred(test)


async def _steps(task: str) -> list[str]:
    """Those of a task to which nothing happens."""
    world = World()
    store = Store(world=world)
    await _with_one(world, store, BEFORE.get(task, "running"))
    fleet = server(world, store)
    await fleet.start()
    world.log.clear()
    assert await _ask(fleet, task) is None
    await _settled(fleet)
    steps = list(world.log)
    await _check(world, fleet, store)
    return steps


AFTER = {
    "create": "stopped",
    "copy": "stopped",
    "start": "running",
    "stop": "stopped",
    "force_stop": "stopped",
    "restart": "running",
    "pause": "paused",
    "resume": "running",
    "delete": None,
    "restore": "running",
}


@pytest.mark.parametrize("fault", ["fail", "away", "kill"])
@pytest.mark.parametrize("task", TASKS)
@_case
async def test_a_task_cut_off_at_any_step_leaves_nothing_half_done(task: str, fault: str) -> None:
    for at in range(1, len(await _steps(task)) + 1):
        world = World()
        store = Store(world=world)
        await _with_one(world, store, BEFORE.get(task, "running"))
        fleet = server(world, store)
        await fleet.start()
        world.log.clear()
        world.at, world.fault = at, fault
        asked: Deferred[Any] = ensureDeferred(_ask(fleet, task))
        told: Any = "nothing"
        if fault == "kill":
            asked.addErrback(lambda failure: failure.trap(Killed))
            while not world.dead:
                await sleep(reactor, 0.001)
            await sleep(reactor, 0.003)
            world.dead, world.at = False, 0
            fleet = server(world, store)
            await fleet.start()
        else:
            told = await asked
        await _settled(fleet)
        step = (world.log + [""])[at - 1]
        states = await _check(world, fleet, store)
        own = states.get("b" if task in ("create", "copy") else "a")
        if fault == "away":
            assert isinstance(told, DatabaseAway) == step.startswith("database"), (at, step)
            if told is not None and BEFORE.get(task) != AFTER[task]:
                # What they are told has been done has been, and what is not has not.
                assert isinstance(told, NotWrittenYet) == (own == AFTER[task]), (at, step)
        if told is None:
            assert own == AFTER[task]
        if fault == "fail" and told is not None:
            assert isinstance(told, HoodyError)
            assert "nput/output error" in told.sentence, told
            expected = {"create": None, "copy": None, "pause": "running"}.get(task, "failed")
            if task == "restore":
                # Put back, but not begun anew; or as it was.
                expected = "stopped" if world.content["a"] == "then" else "running"
            assert own == expected, (at, step)
        if task == "copy":
            assert states["a"] == "running"
        assert len(await _events(store)) <= 1 + (fault == "kill"), "told once"


async def _events(store: Store) -> list[str]:
    async with store.transaction() as transaction:
        found, _ = await transaction.events.page(Filter(), 0, 100, True)
    return [each.event_type for each in found]


@_case
async def test_a_name_is_free_when_its_maker_is_told_that_it_could_not_be() -> None:
    world = World()
    store = Store(world=world)
    fleet = server(world, store)
    await fleet.start()
    world.log.clear()
    world.at, world.fault = await _step_of("create", "make volume"), "fail"
    told = await _ask(fleet, "create")
    assert told is not None
    assert await _ask(fleet, "create") is None


async def _step_of(task: str, name: str) -> int:
    return (await _steps(task)).index(name) + 1


@_case
async def test_a_row_that_nobody_sees_to_is_taken_up_by_who_finds_it() -> None:
    """It came true after all, long after its maker was told that the database is away."""
    world = World()
    store = Store(world=world)
    fleet = server(world, store)
    await fleet.start()
    stray = row("b", status=Status.CREATING, pending="creating")
    async with store.transaction() as transaction:
        await transaction.containers.add(stray)
    with pytest.raises(Conflict):
        fleet.find(stray)
    await sleep(reactor, 0.01)
    await _settled(fleet)
    assert await _check(world, fleet, store) == {}


@_case
async def test_one_that_is_refused_while_another_is_noted_harms_neither() -> None:
    world = World()
    store = Store(world=world)
    await _with_one(world, store, "running")
    fleet = server(world, store)
    await fleet.start()
    world.log.clear()
    world.at, world.fault = 1, "away"
    keeper = fleet.keepers["a"]
    first = keeper.ask("stop", fleet.order("one"))
    with pytest.raises(Conflict):
        keeper.ask("start", fleet.order("other"))
    with pytest.raises(DatabaseAway):
        await first
    await _settled(fleet)
    assert await _check(world, fleet, store) == {"a": "running"}


@_case
async def test_a_start_that_breaks_is_not_for_ever() -> None:
    world = World()
    store = Store(world=world)
    fleet = server(world, store)

    def broken(*_: object) -> None:
        raise ValueError("of all things")

    storage: Any = fleet.storage
    storage.sweep = broken
    await fleet.start()
    assert fleet.part()["status"] == "off"
    with pytest.raises(HoodyError, match="server's log"):
        fleet.check()


# Sleep


async def _one_that_runs() -> tuple[World, Store, Fleet, keepers.Keeper]:
    world = World()
    store = Store(world=world)
    await _with_one(world, store, "running")
    fleet = server(world, store)
    await fleet.start()
    return world, store, fleet, fleet.keepers["a"]


@_case
async def test_one_that_keeps_itself_awake_is_not_put_to_sleep_behind_an_errand() -> None:
    """What it does by itself is not seen as long as that lasts."""
    _, _, _, keeper = await _one_that_runs()
    keeper.moved_at = keeper.reactor.seconds() - 5
    with keeper.errand():
        keeper.moved_at -= 60
        with keeper.errand():
            keeper.moved_at -= 40
    assert keeper.reactor.seconds() - keeper.moved_at == pytest.approx(5, abs=1)
    with keeper.errand():
        keeper.touch()
    assert keeper.reactor.seconds() - keeper.moved_at == pytest.approx(0, abs=1)


async def _fall_asleep(fleet: Fleet, keeper: keepers.Keeper) -> None:
    keeper.sleep.doze()
    await _settled(fleet)
    await keeper.written()
    assert keeper.is_asleep


@_case
async def test_a_byte_in_the_turn_before_it_would_stand_still_keeps_it_awake() -> None:
    world, store, fleet, keeper = await _one_that_runs()
    keeper.sleep.doze()
    keeper.touch()
    await _settled(fleet)
    assert not world.frozen
    assert await _check(world, fleet, store) == {"a": "running"}
    await _fall_asleep(fleet, keeper)
    keeper.touch()
    assert not world.frozen


@_case
async def test_a_probe_does_not_wake_one_that_is_falling_asleep() -> None:
    _, _, fleet, keeper = await _one_that_runs()
    destination = Destination(fleet, keeper)
    assert destination.sleeps is None
    keeper.sleep.doze()
    assert destination.sleeps == "paused"
    await _settled(fleet)
    assert destination.sleeps == "paused"


@_case
async def test_one_that_ends_as_it_wakes_is_told_of_in_order() -> None:
    world, store, fleet, keeper = await _one_that_runs()
    await _fall_asleep(fleet, keeper)
    keeper.sleep.wake()
    world.end("a")
    keeper.ended()
    await _settled(fleet)
    assert await _check(world, fleet, store) == {"a": "failed"}
    assert keeper.container.status_reason == "its main process ended, nobody knows how"
    assert keeper.container.wake_count == 1
    assert await _events(store) == [
        "container.paused",
        "container.woken",
        "container.failed",
    ]


@_case
async def test_a_server_that_stops_writes_down_who_has_just_woken() -> None:
    _, store, fleet, keeper = await _one_that_runs()
    await _fall_asleep(fleet, keeper)
    keeper.sleep.wake()
    await fleet.stop()
    async with store.transaction() as transaction:
        (found,) = await transaction.containers.of_server("s" * 24)
    assert found.status is Status.RUNNING
    assert found.wake_count == 1


@_case
async def test_a_thread_does_not_ask_the_machine_whether_it_sleeps() -> None:
    """That is a transition: the thread could undo one that has been made meanwhile."""
    world, _, fleet, keeper = await _one_that_runs()
    here, life = threading.get_ident(), keeper.life

    class OnlyHere:
        def __getattr__(self, name: str) -> Any:
            assert threading.get_ident() == here
            return getattr(life, name)

    guarded: Any = OnlyHere()
    keeper.life = guarded
    await _fall_asleep(fleet, keeper)
    for _ in range(500):
        if world.goes_on is not None:
            break
        await sleep(reactor, 0.001)
    assert world.goes_on is True


@_case
async def test_bytes_just_before_it_would_be_put_to_sleep_are_seen() -> None:
    _, _, fleet, keeper = await _one_that_runs()
    clock, count = Clock(), 0

    async def traffic(given: list[keepers.Keeper]) -> dict[keepers.Keeper, int]:
        return dict.fromkeys(given, count)

    async def timeouts() -> dict[str, int]:
        return {keeper.container.project_id: 8}

    watch = IdleWatch(clock, lambda: [keeper], timeouts, traffic, 10)
    watch.start()
    watch.changed(keeper)
    keeper.moved_at = 0.0
    clock.pump([0.5] * 15)  # the last look before it is 7.5 s
    count = 1
    clock.pump([0.5] * 15)
    assert keeper.state == "running"
    clock.pump([0.5] * 2)
    assert keeper.state == "dozing"
    watch.stop()
    await _settled(fleet)
    assert not clock.getDelayedCalls()


@_case
async def test_what_a_project_says_now_counts_for_who_would_be_put_to_sleep() -> None:
    _, _, _, keeper = await _one_that_runs()
    clock, timeout, asked = Clock(), 8, 0

    async def traffic(given: list[keepers.Keeper]) -> dict[keepers.Keeper, int]:
        return dict.fromkeys(given, 0)

    async def timeouts() -> dict[str, int]:
        nonlocal asked
        asked += 1
        return {keeper.container.project_id: timeout}

    watch = IdleWatch(clock, lambda: [keeper], timeouts, traffic, 10)
    watch.start()
    watch.changed(keeper)
    keeper.moved_at = 0.0
    clock.pump([0.5] * 15)
    assert asked == 2
    timeout = 0
    clock.pump([0.5] * 60)
    assert keeper.state == "running"
    assert asked < 10
    watch.stop()
