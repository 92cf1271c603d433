"""What tests of both stores, the real one and the one in memory, begin with."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import cast

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from hoody.containers.container import Container
from hoody.containers.image import Image
from hoody.interfaces import IStore
from hoody.projects import Project
from hoody.store.database import Database, External
from hoody.store.migrations import SchemaRefused
from tests.support.postgres import Postgres

NOW = datetime(2026, 5, 4, 2, 55, 8, tzinfo=UTC)
_numbers = itertools.count(1)


def fresh_id() -> str:
    return f"{next(_numbers):024x}"


def seconds() -> float:
    return cast(IReactorTime, reactor).seconds()


def awaits(test: Callable[..., Awaitable[None]]) -> Callable[..., Deferred[None]]:
    return pytest_twisted.ensureDeferred(test)  # type: ignore[no-any-return]


async def nothing() -> None:
    pass


def refused(refusal: SchemaRefused) -> None:
    raise AssertionError(refusal.sentence)


async def opened(cluster: Postgres, name: str) -> Database:
    database = Database(
        cast(ReactorBase, reactor),
        External(cluster.dsn(name)),
        lambda: None,
        nothing,
        refused,
    )
    database.start()
    await database.ready(20)
    return database


def project(alias: str, **more: object) -> Project:
    return Project(id=fresh_id(), alias=alias, created_at=NOW, updated_at=NOW, **more)  # type: ignore[arg-type]


def image(name: str = "box", **more: object) -> Image:
    given: dict[str, object] = {"server_id": "s1", "source": "busybox", **more}
    return Image(id=fresh_id(), name=name, created_at=NOW, **given)  # type: ignore[arg-type]


async def furnished(store: IStore) -> tuple[Project, Image]:
    made, box = project("house"), image(config={"command": ["sh"], "port": 80})
    async with store.transaction() as transaction:
        await transaction.projects.add(made)
        await transaction.images.add(box)
    return made, box


def container(name: str, of: tuple[Project, Image], number: int = 0, **more: object) -> Container:
    given: dict[str, object] = {"server_id": "s1", **more}
    return Container(
        id=fresh_id(),
        project_id=of[0].id,
        name=name,
        container_image=of[1].name,
        image_id=of[1].id,
        number=number,
        created_at=NOW,
        updated_at=NOW,
        **given,  # type: ignore[arg-type]
    )
