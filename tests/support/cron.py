"""Cron entries and runs for tests of the store."""

from __future__ import annotations

from datetime import datetime, timedelta

from hoody.containers.container import Container
from hoody.cron.entry import Due, Entry, Run
from hoody.interfaces import IStore
from tests.support.stores import NOW, container, fresh_id, furnished

MINUTE = timedelta(minutes=1)


def entry(**more: object) -> Entry:
    given: dict[str, object] = {
        "id": fresh_id(),
        "user": "root",
        "schedule": "* * * * *",
        "command": "true",
        "server_id": "s1",
        "changed_by": "root",
        "created_at": NOW,
        "updated_at": NOW,
        **more,
    }
    return Entry(**given)  # type: ignore[arg-type]


def run_of(own: Entry, at: datetime = NOW, **more: object) -> Run:
    given: dict[str, object] = {
        "id": fresh_id(),
        "entry_id": own.id,
        "version": own.version,
        "scheduled_at": at,
        "server_id": "s1",
        **more,
    }
    return Run(**given)  # type: ignore[arg-type]


async def keep(store: IStore, *entries: Entry) -> None:
    async with store.transaction() as transaction:
        for each in entries:
            await transaction.cron.add(each)


async def begin(store: IStore, *runs: Run) -> set[str]:
    async with store.transaction() as transaction:
        return await transaction.cron.begin(list(runs))


async def due(store: IStore, now: datetime = NOW, server_id: str = "s1") -> list[Due]:
    async with store.transaction() as transaction:
        return await transaction.cron.due(server_id, now, 100)


async def next_due(store: IStore, server_id: str = "s1") -> datetime | None:
    async with store.transaction() as transaction:
        return await transaction.cron.next_due(server_id)


async def housed(store: IStore, *servers: str) -> list[Container]:
    """A container on each of these servers."""
    of = await furnished(store)
    made = [
        container(f"{server}-{number}", of, number, server_id=server)
        for number, server in enumerate(servers)
    ]
    async with store.transaction() as transaction:
        for each in made:
            await transaction.containers.add(each)
    return made
