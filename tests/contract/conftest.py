"""The stores that there are: a real Postgres, and memory."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_twisted

from hoody.interfaces import IStore
from hoody.store.database import Database
from hoody.store.memory import MemoryStore
from tests.support.postgres import Postgres
from tests.support.stores import opened

_numbers = itertools.count(1)


@pytest_twisted.async_yield_fixture  # type: ignore[untyped-decorator]
async def postgres_store(cluster: Postgres) -> AsyncIterator[Database]:
    name = f"store{next(_numbers)}"
    cluster.run("createdb", name)
    database = await opened(cluster, name)
    yield database
    await database.stop()
    left = cluster.ask(
        "postgres",
        "SELECT count(*) FROM pg_stat_activity"
        f" WHERE datname = '{name}' AND state LIKE 'idle in%'",
    )
    assert left == "0"


@pytest.fixture
def memory_store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(params=["memory_store", "postgres_store"], ids=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> IStore:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]
