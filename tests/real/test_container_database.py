"""Containers whose database goes while something is done to them, and comes back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Answer
from tests.support.containers import House
from tests.support.postgres import folder, open_folder


@pytest.fixture(scope="module")
def made_house(pool: Path) -> Iterator[House]:
    if folder() is None:
        pytest.skip("Postgres is not installed (apt-get install postgresql)")
    with open_folder() as made:
        house = House(made / "data", pool, None)
        try:
            yield house
        finally:
            house.close()


@pytest.fixture
def house(made_house: House) -> Iterator[House]:
    yield made_house
    made_house.nothing_is_left()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"c{abs(hash(request.node.name)) % 10**8}"


def until(true: Any, seconds: float = 15) -> None:
    late = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < late
        time.sleep(0.05)


def postmaster(house: House) -> int:
    path = house.data_dir / "postgres" / "postmaster.pid"
    return int(path.read_text().split()[0])


def processes(house: House) -> list[int]:
    """Of its Postgres."""
    first = postmaster(house)
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return [first, *map(int, children)]


def signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def is_up(house: House) -> bool:
    return house.api.get("/containers").status == 200


def check(house: House) -> dict[str, str]:
    """All agree, soon, and nothing is half-made. @return: statuses by name."""
    until(lambda: is_up(house))
    late = time.monotonic() + 15
    while (found := _faults(house)) and time.monotonic() < late:
        time.sleep(0.1)
    assert not found
    return {each["name"]: each["status"] for each in _rows(house)}


def _rows(house: House) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = house.api.get("/containers?limit=100").data["containers"]
    return rows


def _faults(house: House) -> list[str]:
    rows = {each["id"]: each for each in _rows(house)}
    files = {path.name for path in (house.base / "containers").iterdir()} - {".probe"}
    found = [] if files == set(rows) else [f"{files} and {set(rows)}"]
    for container_id, row in rows.items():
        if row["status"] not in ("running", "paused", "stopped", "failed"):
            found.append(f"{row['name']} is {row['status']}")
        elif bool(house.pids(container_id)) != (row["status"] in ("running", "paused")):
            found.append(f"{row['name']} is said to be {row['status']}")
    return found


ASKED = ("create", "copy", "start", "stop", "restart", "pause", "delete", "change")


def _ask(house: House, name: str, what: str) -> Answer:
    if what == "create":
        return house.api("POST", "/projects/default/containers", {"name": f"{name}-create"})
    own = f"/containers/{name}-{what}"
    if what == "copy":
        return house.api("POST", f"{own}-source/copy", {"name": f"{name}-copy"})
    if what == "delete":
        return house.api("DELETE", own)
    if what == "change":
        return house.api("PATCH", own, {"alias": f"{name}-alias"})
    return house.api("POST", f"{own}/{what}")


@pytest.mark.parametrize("how", ["stands still", "is killed"])
def test_while_the_database_is_away_nothing_is_half_done(
    house: House, name: str, how: str
) -> None:
    for delay in (0.0, 0.03, 0.08) if how == "stands still" else (0.01, 0.04):
        for what in ASKED[2:]:
            house.create(f"{name}-{what}", egress="none", start=what != "start")
        running = house.create(f"{name}-copy-source", egress="none")
        pids = house.pids(running["id"])
        with ThreadPoolExecutor(len(ASKED)) as all_at_once:
            asked: dict[str, Future[Answer]] = {
                what: all_at_once.submit(_ask, house, name, what) for what in ASKED
            }
            time.sleep(delay)
            stopped = processes(house)
            number = signal.SIGSTOP if how == "stands still" else signal.SIGKILL
            try:
                signal_all(stopped, number)
                assert house.get(f"{name}-copy-source")[0] == 200
                answers = {what: future.result() for what, future in asked.items()}
            finally:
                if how == "stands still":
                    signal_all(stopped, signal.SIGCONT)
        states = check(house)
        told = {what: answer.status for what, answer in answers.items()}
        assert set(told.values()) <= {200, 201, 503}, answers
        for what, status in told.items():
            now = states.get(f"{name}-{what}")
            if what in ("create", "copy"):
                assert now == "running" if status == 201 else now in (None, "stopped", "running")
            elif what == "delete":
                assert status != 200 or now is None
            elif status == 200 and what != "change":
                ends = {"stop": "stopped", "pause": "paused"}
                assert now == ends.get(what, "running")
        assert house.pids(running["id"])[:1] == pids[:1]
        alias = house.row(f"{name}-change")["alias"]
        assert house.get(f"{name}-alias")[0] == (200 if alias else 404)
        for each in house.names:
            house.delete(each)


def test_a_server_that_starts_without_a_database_waits_for_it(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    pids = house.pids(row["id"])
    house.kill()
    stopped = processes(house)
    signal_all(stopped, signal.SIGKILL)
    house.start()
    house.still_runs(row["id"], pids)
    assert house.get(name)[0] == 200


def test_who_sleeps_wakes_while_the_database_is_away(house: House, name: str) -> None:
    for each in (name, f"{name}-too"):
        house.create(each, egress="none", idle_timeout_seconds=1)
    house.until(name, status_reason="idle")
    stopped = processes(house)
    try:
        signal_all(stopped, signal.SIGSTOP)
        # Awake, asleep again, and awake once more: the rows know nothing of it.
        for _ in range(2):
            began = time.monotonic()
            assert house.get(name)[0] == 200
            assert time.monotonic() - began < 1
            time.sleep(2)
        refused = house.operate(name, "pause")
        assert refused.status == 503, refused.body
    finally:
        signal_all(stopped, signal.SIGCONT)
    check(house)
    house.until(name, status_reason="idle")
    logs = house.api.get(f"/containers/{name}/status-logs?sort_order=asc&limit=100").data["logs"]
    told = [each["to_status"] for each in logs][2:]
    # In the order in which it was, without a gap.
    assert told == ["paused", "running"] * (len(told) // 2) + ["paused"]
    assert house.row(name)["wake_count"] == len(told) // 2
    for each in (name, f"{name}-too"):
        house.delete(each)


def test_one_that_ends_while_the_database_is_away_is_seen_to(house: House, name: str) -> None:
    row = house.create(
        name, egress="none", command="while [ ! -e /end ]; do sleep 0.1; done; exit 3"
    )
    with subprocess.Popen(
        ["curl", "-s", "-m", "20", "-H", f"Authorization: Bearer {house.api.token}"]
        + ["-d", json.dumps({"command": "sleep 0.5; touch /end"})]
        + [f"{house.server.url}/api/v1/containers/{name}/exec"],
        stdout=subprocess.PIPE,
    ) as asking:
        time.sleep(0.3)
        stopped = processes(house)
        try:
            signal_all(stopped, signal.SIGSTOP)
            until(lambda: not house.pids(row["id"]))
            with ThreadPoolExecutor(1) as thread:
                held = thread.submit(house.get, name)
                signal_all(stopped, signal.SIGCONT)
                assert held.result()[0] == 503
        finally:
            signal_all(stopped, signal.SIGCONT)
        asking.wait()
    until(lambda: is_up(house))
    assert "status 3" in house.until(name, status="failed")["status_reason"]
    assert check(house) == {name: "failed"}
