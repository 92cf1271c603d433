"""The whole server, while its clock is set."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.api import Api, api, database_option
from tests.support.moved_clock import MovedClock
from tests.support.postgres import Postgres
from tests.support.server import Server
from tests.support.wire import Wire


@pytest.fixture
def moved(tmp_path: Path, cluster: Postgres) -> Iterator[tuple[MovedClock, Server, Api]]:
    clock = MovedClock(tmp_path, "2026-05-04T02:00:00Z")
    with Server(
        tmp_path / "data",
        database_option(cluster),
        "--containers=off",
        "--pipe-ttl=4s",
        env=clock.env,
    ) as server:
        yield clock, server, api(server)


def newest(root: Api) -> tuple[str, datetime]:
    event = root.get("/events?limit=1").data["events"][0]
    return event["event_type"], datetime.fromisoformat(event["ts"])


def until_told(root: Api, kind: str, since: datetime) -> datetime:
    late = time.monotonic() + 15
    while time.monotonic() < late:
        found, when = newest(root)
        if found == kind and abs((when - since).total_seconds()) < 60:
            return when
        time.sleep(0.1)
    raise AssertionError(f"{kind} was not told: {newest(root)}")


@pytest.mark.parametrize("move", [{"hours": -1}, {"hours": 1}, {"days": 8}])
def test_timers_keep_their_length_and_rows_have_the_new_time(
    moved: tuple[MovedClock, Server, Api], move: dict[str, float]
) -> None:
    clock, server, root = moved
    with Wire(server, timeout=60) as waiting:
        began = time.monotonic()
        waiting.put("waits", "Content-Length: 5")
        clock.advance(**move)
        told = waiting.read_all()
        took = time.monotonic() - began
    assert b"[ERROR]" in told
    assert 3 < took < 12, "neither at once nor in an hour"
    subprocess.run(
        ["sh", "-c", f"curl -sS {server.pipe}/p & echo all | curl -sS -T - {server.pipe}/p; wait"],
        check=True,
        capture_output=True,
    )
    until_told(root, "pipe.completed", clock.now)
    made = root("POST", "/projects", {"alias": "later"}).data
    when = datetime.fromisoformat(made["created_at"])
    assert abs((when - clock.now).total_seconds()) < 5
