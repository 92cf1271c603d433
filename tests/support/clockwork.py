"""Cron on a clock of the test's own, with the store in memory, and commands that do as told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from hoody.audit.events import Event, Filter
from hoody.auth.keyring import Keyring
from hoody.containers.container import Container
from hoody.cron.claims import next_fire
from hoody.cron.entry import Due, Entry, Run
from hoody.cron.runs import Runs
from hoody.cron.scheduler import Scheduler
from hoody.errors import HoodyError
from hoody.interfaces import ICommand, IPlaces
from hoody.store.memory import MemoryStore

NIGHT = datetime(2026, 5, 4, 2, 0, tzinfo=UTC)
SERVER, OTHER = "5" * 24, "6" * 24
APP = "a" * 24


def entry(now: datetime, **fields: Any) -> Entry:
    """As if it had been made now; it says when it is due."""
    given = {
        "id": str(uuid4()),
        "user": "root",
        "schedule": "55 2 * * *",
        "command": "true",
        "server_id": SERVER,
        "changed_by": "root",
        "created_at": now,
        "updated_at": now,
        **fields,
    }
    made = Entry(**given)
    return evolve(made, next_fire_at=fields.get("next_fire_at", next_fire(made, now)))


def container(server_id: str = SERVER, **fields: Any) -> Container:
    given = {
        "id": APP,
        "project_id": "e" * 24,
        "name": "app",
        "container_image": "busybox",
        "image_id": "i" * 24,
        "number": 1,
        "created_at": NIGHT,
        "updated_at": NIGHT,
        **fields,
    }
    return Container(server_id=server_id, **given)


@implementer(ICommand)
@define(eq=False)
class Told:
    """@ivar signals: what it has been sent."""

    due: Due
    environment: dict[str, str]
    hear: Callable[[str, str], None]
    ended: Deferred[int] = field(factory=Deferred)
    signals: list[str] = field(factory=list)

    def terminate(self) -> None:
        self.signals.append("TERM")

    def kill(self) -> None:
        self.signals.append("KILL")

    def end(self, status: int = 0) -> None:
        self.ended.callback(status)


@implementer(IPlaces)
@define(eq=False)
class Stage:
    """@ivar commands: all that were begun, in order."""

    commands: list[Told] = field(factory=list)
    refusal: HoodyError | None = None

    async def begin(
        self, due: Due, environment: dict[str, str], hear: Callable[[str, str], None]
    ) -> Told:
        if self.refusal is not None:
            raise self.refusal
        self.commands.append(Told(due, environment, hear))
        return self.commands[-1]

    def url(self, entry: Entry) -> str | None:
        return "http://127.0.0.1:1008"


@define(eq=False)
class Clockwork:
    """
    A server's cron, and what it keeps.

    @ivar store: which several of them may share.
    """

    store: MemoryStore = field(factory=MemoryStore)
    clock: Clock = field(factory=Clock)
    stage: Stage = field(factory=Stage)
    server_id: str = SERVER
    most: int = 32
    keyring: Keyring = field(init=False)
    runs: Runs = field(init=False)
    scheduler: Scheduler = field(init=False)

    def __attrs_post_init__(self) -> None:
        if not self.clock.seconds():
            self.clock.advance(NIGHT.timestamp())
        self.keyring = Keyring(self.store, self.clock)
        self.runs = Runs(self.clock, self.store, self.keyring, self.stage, self.most, 30.0)
        self.scheduler = Scheduler(self.clock, self.store, self.runs)

    async def start(self) -> None:
        await self.keyring.load()
        self.scheduler.start(self.server_id)
        self.pass_by(0.2)

    def pass_by(self, seconds: float, step: float = 0.1) -> None:
        """Time as it goes."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def until(self, hour: int, minute: int, second: int = 0) -> None:
        """It is later the same night."""
        then = NIGHT.replace(hour=hour, minute=minute, second=second).timestamp()
        while self.clock.seconds() < then:
            self.clock.advance(min(10.0, then - self.clock.seconds()))
        self.pass_by(0.3)

    def set_clock(self, moment: datetime) -> None:
        """As somebody sets it: timers keep their durations, which hoody.clock sees to."""
        jump = moment.timestamp() - self.clock.seconds()
        calls: list[Any] = list(self.clock.getDelayedCalls())
        self.clock.rightNow += jump
        for call in calls:
            call.delay(jump)
        self.scheduler.jumped(jump)
        self.pass_by(0.3)

    async def add(self, **fields: Any) -> Entry:
        made = entry(now=self.scheduler.now, **fields)
        async with self.store.transaction() as transaction:
            await transaction.cron.add(made)
            transaction.announce("cron")
        self.pass_by(0.2)
        return made

    async def runs_of(self, entry: Entry) -> list[Run]:
        """Oldest first."""
        async with self.store.transaction() as transaction:
            found, _ = await transaction.cron.runs(entry.id, 0, 1000)
        return found[::-1]

    async def told(self) -> list[Event]:
        async with self.store.transaction() as transaction:
            found, _ = await transaction.events.page(Filter(), 0, 1000, True)
        return found
