"""
The database's schema: numbered SQL files, applied in order, once, by whoever
comes first.

All of it blocks; call it in a thread.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Callable
from contextlib import closing
from importlib import resources
from typing import Any

import psycopg2
from attrs import frozen

from hoody.errors import HoodyError

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_LOCK = 0x686F6F6479  # "hoody"
_LOCK_TIMEOUT = "60s"
# A peer that is gone without a word must be noticed.
_CONNECTING: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_SAVE_SECONDS = 3600


class SchemaRefused(HoodyError):
    """The database is not one that this version can work with. An operator has to act."""


@frozen
class Migration:
    """
    @ivar checksum: SHA-256 of the file, in hex.
    """

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def known() -> list[Migration]:
    """What this version has, in order."""
    found = []
    for file in resources.files("hoody.store").joinpath("schema").iterdir():
        match = _FILE.fullmatch(file.name)
        if match is not None:
            found.append(Migration(int(match[1]), match[2], file.read_text("utf-8")))
    return sorted(found, key=lambda migration: migration.number)


def migrate(
    dsn: str,
    *,
    now: str,
    migrations: list[Migration],
    save: Callable[[int], None] | None,
) -> list[Migration]:
    """
    Bring the database to this version's schema. Others who start at the same
    time wait for each other.

    @param now: the server's time, for the record.
    @param save: saves the database before the migration of this number; called only
        if there is something in it. C{None} to go without.
    @return: what was applied.
    @raise SchemaRefused: if it was made by a newer version, or its past is not ours.
    @raise psycopg2.Error: if it cannot be reached.
    """
    with closing(psycopg2.connect(dsn, **_CONNECTING)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, false)", (_LOCK_TIMEOUT,))
            cursor.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
            cursor.execute("CREATE SCHEMA IF NOT EXISTS hoody")
            cursor.execute("SET search_path = hoody")
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY,"
                " name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL)"
            )
            cursor.execute("SELECT number, name, checksum FROM migrations ORDER BY number")
            applied = cursor.fetchall()
            pending = _pending(applied, migrations)
            if applied and pending and save is not None:
                save(pending[0].number)
            for migration in pending:
                cursor.execute("BEGIN")
                cursor.execute(migration.sql)
                cursor.execute(
                    "INSERT INTO migrations VALUES (%s, %s, %s, %s)",
                    (migration.number, migration.name, migration.checksum, now),
                )
                cursor.execute("COMMIT")
            return pending


def _pending(applied: list[tuple[int, str, str]], migrations: list[Migration]) -> list[Migration]:
    ours = {migration.number: migration for migration in migrations}
    for number, name, checksum in applied:
        if number not in ours:
            raise SchemaRefused(
                f"The database has migration {number:04}_{name}, which this version does not"
                " know; start the newer hoody that applied it, or give another --database."
            )
        if ours[number].checksum != checksum:
            raise SchemaRefused(
                f"Migration {number:04}_{name} was applied to the database with another text than"
                " this version's; start the hoody that applied it, or give another --database."
            )
    done = {number for number, _, _ in applied}
    return [migration for migration in migrations if migration.number not in done]


def save_by_pg_dump(program: str, dsn: str, folder: str) -> Callable[[int], None]:
    """
    A C{save} for L{migrate}: to C{before-NNNN.dump} in C{folder}, for pg_restore.

    @param program: pg_dump, not older than the server.
    """

    def save(number: int) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        path = os.path.join(folder, f"before-{number:04}.dump")
        words = psycopg2.extensions.parse_dsn(dsn)
        password = words.pop("password", None)
        environment = dict(os.environ)
        if password:
            environment["PGPASSWORD"] = password  # not for the process list
        descriptor = os.open(f"{path}.part", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            try:
                done = subprocess.run(  # noqa: S603  # a program of Postgres, found by us
                    [program, "-Fc", "-n", "hoody", psycopg2.extensions.make_dsn(**words)],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.PIPE,
                    env=environment,
                    timeout=_SAVE_SECONDS,
                    check=False,
                )
                said = done.stderr.decode("utf-8", "replace").strip()
            except (OSError, subprocess.TimeoutExpired) as error:
                done, said = None, str(error)
            os.fsync(file.fileno())
        if done is None or done.returncode:
            raise SchemaRefused(
                f"The database could not be saved before migration {number:04} ({said}); install"
                " the pg_dump of the server's version, or say --database-save=off."
            )
        os.rename(f"{path}.part", path)

    return save
