"""One night, five events, and no page: the story, on a clock that is moved."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from hoody.containers import machine
from hoody.containers.cgroups import Hierarchies
from tests.support import night_image
from tests.support.containers import House, mounted
from tests.support.moved_clock import MovedClock, moved_clock
from tests.support.postgres import Postgres, folder
from tests.support.rollback import until

STORY = (
    "cron.run.started",
    "container.snapshot.created",
    "cron.run.finished",
    "cron.run.failed",
    "container.snapshot.restored",
)
LINE = (
    'curl -X POST cron.containers.hoody.localhost:8080/users/root/entries -H "Authorization:'
    ' Bearer $TOKEN" -H "Content-Type: application/json" -d \'{ "container_id": "app",'
    ' "schedule": "55 2 * * *", "command": "curl -X POST $SNAP_URL -d'
    ' \'\\\'\'{\\"alias\\":\\"rollback-point\\",\\"expiry\\":7}\'\\\'\'",'
    ' "comment": "pre-migration snapshot" }\''
)
"""As it is in the README, but for the port."""
PROMISED = 30.0
"""Seconds within which the story has all back."""


@pytest.fixture
def house(tmp_path: Path, cluster: Postgres) -> Iterator[tuple[MovedClock, House]]:
    lack = machine.lack("auto", False, Hierarchies.read())
    if lack is not None:
        pytest.skip(f"containers: {lack}")
    with moved_clock() as (clock, _), mounted(tmp_path, 8 << 30) as pool:
        clock.set("2026-05-04T01:00:00Z")
        found = House(tmp_path / "data", pool, cluster, "--sweep=1s", env=clock.env)
        try:
            yield clock, found
        finally:
            found.close()


def programs() -> Path:
    found = folder()
    assert found is not None
    return found


def has_app(house: House, folder: Path) -> None:
    """A container with a database of 200 MB, and a front that says what is in it."""
    archive = folder / "shop.tar"
    night_image.make(archive, programs())
    answer = house.api(
        *("POST", "/images?name=shop", None, "-T", str(archive)),
        *("-H", "Expect:", "-m", "100"),
    )
    assert answer.status == 201, answer.body
    archive.unlink()
    house.create(
        "app",
        container_image="shop",
        command=night_image.command(programs()),
        volumes=[{"name": "data", "path": "/data"}],
        egress="none",
    )
    ready = [str(programs() / "pg_isready"), "-q", "-h", "/tmp", "-U", "postgres"]
    until(lambda: house.run("app", ready)[0] == 0, 60)
    status, said = house.run("app", night_image.filled(programs()))
    assert status == 0, said
    assert int(said.split()[-1]) >= night_image.MEGABYTES * 10**6
    assert front(house) == night_image.ORDERS


def front(house: House) -> str:
    status, body = house.get("app", "/cgi-bin/orders")
    assert status == 200, body
    return body.decode().strip()


def cron(house: House, method: str, path: str, body: object = None) -> Any:
    url = f"http://cron.containers.hoody.localhost:{house.server.port}{path}"
    command = ["curl", "-sS", "-X", method, "-H", f"Authorization: Bearer {house.api.token}", url]
    if body is not None:
        command += ["-d", json.dumps(body)]
    return json.loads(subprocess.check_output(command))


def has_entry(house: House) -> dict[str, Any]:
    """By the README's line, as it stands."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert LINE in readme
    line = LINE.replace("localhost:8080", f"localhost:{house.server.port}")
    done = subprocess.run(
        ["bash", "-ec", line],
        env={"TOKEN": str(house.api.token), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
    )
    made: dict[str, Any] = json.loads(done.stdout)
    assert made["schedule_human"] == "At 02:55"
    return made


def over(house: House, entry: dict[str, Any]) -> dict[str, Any]:
    """The last run of an entry, once it has ended."""
    found: dict[str, Any] = {}

    def is_over() -> bool:
        runs = cron(house, "GET", f"/users/root/entries/{entry['id']}/runs")["runs"]
        found.clear()
        found.update(runs[0] if runs else {"status": "running"})
        return bool(found["status"] != "running")

    until(is_over, 60)
    return found


def told(house: House, *kinds: str) -> list[dict[str, Any]]:
    """Events of these types, oldest first."""
    events = house.api.get("/events?limit=500").data["events"]
    return [event for event in events[::-1] if event["event_type"] in kinds]


def snapshots(house: House) -> list[dict[str, Any]]:
    found = house.api.get("/containers/app/snapshots").data["snapshots"]
    return [each for each in found if each["name"].startswith("snap-")]


@pytest.mark.timeout(300)
def test_one_night(house: tuple[MovedClock, House], tmp_path: Path) -> None:
    clock, here = house
    has_app(here, tmp_path)
    entry = has_entry(here)
    assert entry["next_run_at"] == "2026-05-04T02:55:00Z"
    migration = cron(
        *(here, "POST", "/users/root/entries"),
        {
            "container_id": "app",
            "schedule": "0 3 * * *",
            "command": f"{programs()}/psql -v ON_ERROR_STOP=1 -h /tmp -U postgres -c 'UPDATE"
            " orders SET amount = amount * 100' -c 'SELECT * FROM customers' postgres",
            "name": "migration",
        },
    )

    clock.set("2026-05-04T02:54:58Z")
    run = over(here, entry)
    assert (run["status"], run["scheduled_at"]) == ("succeeded", "2026-05-04T02:55:00Z"), run
    [snapshot] = snapshots(here)
    assert (snapshot["name"], snapshot["alias"]) == ("snap-2026-05-04", "rollback-point")
    assert snapshot["created_at"].startswith("2026-05-04T02:55:0")
    assert snapshot["expires_at"].startswith("2026-05-11T02:55:0")
    assert front(here) == night_image.ORDERS

    clock.set("2026-05-04T02:59:59Z")
    run = over(here, migration)
    assert (run["status"], run["exit_code"]) == ("failed", 1), run
    assert 'relation "customers" does not exist' in run["stderr"]
    assert front(here) not in ("", night_image.ORDERS)

    began = time.monotonic()
    answer = here.api("PATCH", "/containers/app/snapshots/rollback-point")
    assert answer.status == 200, answer.body
    until(lambda: here.get("app", "/cgi-bin/orders")[1].decode().strip() == night_image.ORDERS)
    took = time.monotonic() - began
    print(f"all was back after {took:.2f} s; the story promises {PROMISED:.0f}")
    assert took < PROMISED

    events = told(here, *STORY)
    # The migration began, too; the story tells that it failed.
    of_migration = [e for e in events if e["data"].get("alias") == "migration"]
    assert [e["event_type"] for e in of_migration] == ["cron.run.started", "cron.run.failed"]
    night = [e for e in events if e is not of_migration[0]]
    assert tuple(event["event_type"] for event in night) == STORY
    for event in night:
        assert event["actor"]
        assert event["container_id"] == here.row("app")["id"]
        assert event["duration_ms"] is not None or event["event_type"] == "cron.run.started"
    assert [event["actor"] for event in night[::2]] == [
        "cron pre-migration snapshot",
        "cron pre-migration snapshot",
        "root",
    ]
    assert night[1]["actor"].startswith("cron pre-migration snapshot")
    assert night[3]["actor"] == "cron migration"

    clock.advance(days=8)
    until(lambda: not snapshots(here), 30)
    expired = told(here, "container.snapshot.expired")
    assert "snap-2026-05-04" in [event["data"]["name"] for event in expired]
    assert told(here, "container.snapshot.created")[0] == night[1], "what is told stays"


@pytest.mark.timeout(300)
def test_the_same_with_a_server_that_is_killed_a_second_before(
    house: tuple[MovedClock, House], tmp_path: Path
) -> None:
    clock, here = house
    has_app(here, tmp_path)
    entry = has_entry(here)
    clock.set("2026-05-04T02:54:59Z")
    here.kill()
    clock.set("2026-05-04T02:55:30Z")
    here.start()
    run = over(here, entry)
    assert (run["status"], run["scheduled_at"]) == ("succeeded", "2026-05-04T02:55:00Z"), run
    assert run["start_delay_ms"] >= 30_000
    runs = cron(here, "GET", f"/users/root/entries/{entry['id']}/runs")
    assert runs["total"] == 1
    [snapshot] = snapshots(here)
    assert (snapshot["name"], snapshot["alias"]) == ("snap-2026-05-04", "rollback-point")
    when = datetime.fromisoformat(snapshot["created_at"])
    assert (when.hour, when.minute) in ((2, 55), (2, 56))
    assert len(told(here, "cron.run.started")) == 1
    assert front(here) == night_image.ORDERS
