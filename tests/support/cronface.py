"""Cron's entries as they are asked for, on the store in memory."""

from __future__ import annotations

from typing import Any

from attrs import define, evolve, field
from twisted.internet.task import Clock
from zope.interface import implementer

from hoody.audit.events import Event, Filter
from hoody.auth import tokens
from hoody.auth.principal import Principal
from hoody.auth.tokens import Scope
from hoody.containers.container import Container
from hoody.cron.crontabs import Crontabs
from hoody.cron.entries import Entries
from hoody.cron.entry import TOPIC, Entry, Run
from hoody.cron.looking import Looking
from hoody.cron.rights import Asking, Own
from hoody.interfaces import IRunner, IUsers
from hoody.store.memory import MemoryStore
from hoody.units import new_id
from tests.support.clockwork import NIGHT, SERVER


def asking(
    *scopes: Scope,
    alias: str = "me",
    containers: tuple[str, ...] | None = None,
    own: Container | None = None,
) -> Asking:
    """Somebody who has a token of those scopes; without any, one who may all."""
    token, _ = tokens.mint(
        alias=alias, scopes=scopes or (Scope.ADMIN,), now=NIGHT, containers=containers
    )
    return Asking(
        principal=Principal(actor=alias, token=token),
        request_id="r1",
        own=None if own is None else Own(project_id=own.project_id, container_id=own.id),
    )


@implementer(IUsers)
@define
class Known:
    """@ivar asked: whom, and in which container."""

    users: set[str] = field(factory=lambda: {"root", "alice"})
    asked: list[tuple[str, str | None]] = field(factory=list)

    async def knows(self, user: str, container: Container | None) -> bool | None:
        self.asked.append((user, None if container is None else container.name))
        return user in self.users


@implementer(IRunner)
@define
class Started:
    """@ivar entries: what was to run, and who wanted it."""

    entries: list[tuple[Entry, str, str | None]] = field(factory=list)

    async def run_now(self, entry: Entry, actor: str, request_id: str | None = None) -> Run:
        self.entries.append((entry, actor, request_id))
        return Run(
            id=new_id(NIGHT),
            entry_id=entry.id,
            version=entry.version,
            scheduled_at=NIGHT,
            server_id=SERVER,
        )


@define(eq=False)
class Cron:
    """
    All that answers who asks for entries.

    @ivar announced: how often it was said that what is due may have changed.
    """

    store: MemoryStore = field(factory=MemoryStore)
    clock: Clock = field(factory=Clock)
    users: Known = field(factory=Known)
    runner: Started = field(factory=Started)
    server_id: str = SERVER
    announced: int = 0
    entries: Entries = field(init=False)
    looking: Looking = field(init=False)
    crontabs: Crontabs = field(init=False)

    def __attrs_post_init__(self) -> None:
        if not self.clock.seconds():
            self.clock.advance(NIGHT.timestamp())
        self.entries = Entries(
            self.store, self.clock, self.users, self.runner, lambda: self.server_id
        )
        self.looking = Looking(self.store, self.clock)
        self.crontabs = Crontabs(self.entries)
        self.store.observe(TOPIC, self._heard)

    def _heard(self) -> None:
        self.announced += 1

    async def has(self, container: Container) -> Container:
        async with self.store.transaction() as transaction:
            await transaction.containers.add(container)
        return container

    async def has_entry(self, made: Entry) -> Entry:
        async with self.store.transaction() as transaction:
            await transaction.cron.add(made)
        return made

    async def has_changed(self, entry: Entry, **fields: Any) -> None:
        """By somebody else: the clock, say."""
        async with self.store.transaction() as transaction:
            await transaction.cron.change(evolve(entry, **fields))

    async def create(self, by: Asking | None = None, user: str = "root", **given: Any) -> Entry:
        wanted = {"schedule": "55 2 * * *", "command": "true", **given}
        return (await self.entries.create(by or asking(), user, wanted)).entry

    async def change(self, entry: Entry, by: Asking | None = None, **given: Any) -> Entry:
        shown = await self.entries.change(by or asking(), entry.user, entry.id, given)
        return shown.entry

    async def all(self) -> list[Entry]:
        async with self.store.transaction() as transaction:
            found: list[Entry] = (await transaction.cron.page(0, 10**6))[0]
        return found

    async def told(self) -> list[Event]:
        async with self.store.transaction() as transaction:
            found: list[Event] = (await transaction.events.page(Filter(), 0, 10**6, True))[0]
        return found
