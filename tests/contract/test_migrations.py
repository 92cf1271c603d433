"""The schema's numbered files, and a real Postgres that they are applied to."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import psycopg2
import pytest

from hoody.store.migrations import Migration, SchemaRefused, known, migrate, save_by_pg_dump
from tests.support.postgres import Postgres

NOW = "2026-05-04T02:55:08Z"
FIRST = Migration(1, "first", "CREATE TABLE things (name text); INSERT INTO things VALUES ('a%')")
SECOND = Migration(2, "second", "ALTER TABLE things ADD COLUMN size integer")
BROKEN = Migration(2, "broken", "ALTER TABLE things ADD COLUMN size integer; SELECT 1 / 0")
_numbers = itertools.count(1)


@pytest.fixture
def database(cluster: Postgres) -> str:
    name = f"migrations{next(_numbers)}"
    cluster.run("createdb", name)
    return name


def apply(cluster: Postgres, database: str, *migrations: Migration, **more: object) -> list[int]:
    given: dict[str, object] = {"save": None, "now": NOW, **more}
    done = migrate(cluster.dsn(database), migrations=list(migrations), **given)  # type: ignore[arg-type]
    return [migration.number for migration in done]


def test_the_files_are_numbered_without_a_gap() -> None:
    assert [migration.number for migration in known()] == list(range(1, len(known()) + 1))


def test_each_is_applied_once_in_order_and_recorded(cluster: Postgres, database: str) -> None:
    assert apply(cluster, database, FIRST) == [1]
    assert apply(cluster, database, FIRST, SECOND) == [2]
    assert apply(cluster, database, FIRST, SECOND) == []
    rows = cluster.ask(database, "SELECT number, name, checksum FROM hoody.migrations ORDER BY 1")
    assert rows.splitlines() == [f"1|first|{FIRST.checksum}", f"2|second|{SECOND.checksum}"]
    at = cluster.ask(
        database, "SELECT DISTINCT applied_at AT TIME ZONE 'UTC' FROM hoody.migrations"
    )
    assert at == "2026-05-04 02:55:08"


def test_one_that_fails_leaves_nothing_half_done(cluster: Postgres, database: str) -> None:
    apply(cluster, database, FIRST)
    with pytest.raises(psycopg2.errors.DivisionByZero):
        apply(cluster, database, FIRST, BROKEN)
    assert apply(cluster, database, FIRST, SECOND) == [2]


def test_a_changed_one_is_refused(cluster: Postgres, database: str) -> None:
    apply(cluster, database, FIRST)
    changed = Migration(1, "first", FIRST.sql + ";")
    with pytest.raises(SchemaRefused, match=r"0001_first was applied .* with another text"):
        apply(cluster, database, changed, SECOND)
    assert cluster.ask(database, "SELECT count(*) FROM hoody.migrations") == "1"


def test_an_unknown_newer_one_is_refused(cluster: Postgres, database: str) -> None:
    apply(cluster, database, FIRST, SECOND)
    with pytest.raises(SchemaRefused, match="0002_second, which this version does not know"):
        apply(cluster, database, FIRST)


def test_the_database_is_saved_before_it_changes_and_can_be_brought_back(
    cluster: Postgres, database: str, tmp_path: Path
) -> None:
    save = save_by_pg_dump(
        str(cluster.bin / "pg_dump"), cluster.dsn(database), str(tmp_path / "saved")
    )
    apply(cluster, database, FIRST, save=save)
    assert not (tmp_path / "saved").exists()  # there was nothing to save
    apply(cluster, database, FIRST, SECOND, save=save)
    (dump,) = (tmp_path / "saved").iterdir()
    assert dump.name == "before-0002.dump"
    assert dump.stat().st_mode & 0o777 == 0o600
    cluster.run("createdb", f"{database}_back")
    cluster.run("pg_restore", "-d", f"{database}_back", str(dump))
    columns = cluster.ask(
        f"{database}_back",
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'things'",
    )
    assert columns == "name"
    assert cluster.ask(f"{database}_back", "SELECT name FROM hoody.things") == "a%"


def test_what_cannot_be_saved_is_not_changed(
    cluster: Postgres, database: str, tmp_path: Path
) -> None:
    apply(cluster, database, FIRST)
    for program in ("/nowhere/pg_dump", "false"):
        save = save_by_pg_dump(program, cluster.dsn(database), str(tmp_path / "saved"))
        with pytest.raises(SchemaRefused, match="could not be saved before migration 0002"):
            apply(cluster, database, FIRST, SECOND, save=save)
    assert cluster.ask(database, "SELECT count(*) FROM hoody.migrations") == "1"


def test_many_that_start_at_once_apply_each_once(cluster: Postgres, database: str) -> None:
    applied: list[int] = []

    def start() -> None:
        applied.extend(apply(cluster, database, FIRST, SECOND))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == [1, 2]


def test_a_password_is_not_in_the_process_list(tmp_path: Path) -> None:
    spy = tmp_path / "spy"
    spy.write_text(
        f'#!/bin/sh\necho "$@" >{tmp_path}/arguments\necho "$PGPASSWORD" >{tmp_path}/env\n'
    )
    spy.chmod(0o755)
    save_by_pg_dump(str(spy), "host=h user=u password='se cret' dbname=d", str(tmp_path / "s"))(2)
    assert "se cret" not in (tmp_path / "arguments").read_text()
    assert (tmp_path / "env").read_text() == "se cret\n"
