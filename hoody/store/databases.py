"""Which Postgres it is, by the settings."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable

from twisted.internet.base import ReactorBase

from hoody.process import DataDir
from hoody.settings import Settings
from hoody.store.cluster import Cluster
from hoody.store.database import Database, External
from hoody.store.embedded import EmbeddedPostgres
from hoody.store.migrations import SchemaRefused, save_by_pg_dump


def make(
    reactor: ReactorBase,
    settings: Settings,
    data_dir: DataDir,
    *,
    furnish: Callable[[], Awaitable[None]],
    refused: Callable[[SchemaRefused], None],
    somebody_elses: bool = False,
) -> Database:
    """
    See L{Database}.

    @param somebody_elses: whether another process has the data directory, and so
        looks after an embedded one.
    """
    source: External | EmbeddedPostgres
    if settings.database or somebody_elses:
        source = External(settings.database or Cluster(data_dir.path).dsn())
    else:
        source = EmbeddedPostgres(reactor, Cluster(data_dir.path))

    def save() -> Callable[[int], None] | None:
        if not settings.database_save:
            return None
        program = source.pg_dump if isinstance(source, EmbeddedPostgres) else None
        return save_by_pg_dump(
            program or shutil.which("pg_dump") or "pg_dump", source.dsn, data_dir.saved
        )

    return Database(reactor, source, save, furnish, refused)
