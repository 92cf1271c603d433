"""A container moves between two servers as one stream, by curl and a pipe."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Answer
from tests.support.containers import House, pool
from tests.support.postgres import Postgres

__all__ = ["pool"]

_names = itertools.count()

# What overlayfs has a way of its own for, and what else a disk can have
BUSY = r"""
set -e
rm /etc/shells; rm -r /var/www; mkdir /var/www; echo mine > /var/www/other
mkdir -p /srv/deep/deeper; echo one > /srv/deep/deeper/file; ln -s nowhere /srv/link
echo odd > "$(printf '/srv/a\nb\377\\')"; mkfifo /srv/fifo
echo linked > /srv/first; ln /srv/first /srv/second; chown 5:6 /srv/first; chmod 4711 /srv/first
truncate -s 1000000000000 /srv/sparse; echo y | dd of=/srv/sparse bs=1M seek=5000 conv=notrunc 2>/dev/null
dd if=/dev/urandom of=/srv/large bs=1M count=3 2>/dev/null; cp /srv/large /srv/copy
mkdir /srv/empty; chmod 1777 /srv/empty; touch -h -d '2001-01-01 00:00:00' /srv/first /srv/link
"""
TREE = "cd / && find bin srv var data -exec stat -c '%n %F %a %u %g %s %Y' {} + | sort"


@pytest.fixture(scope="module")
def houses(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres
) -> Iterator[tuple[House, House]]:
    folder = tmp_path_factory.mktemp("transfer")
    one = House(folder / "one", pool, cluster)
    try:
        other = House(folder / "other", pool, cluster)
        try:
            yield one, other
        finally:
            other.close()
    finally:
        one.close()


@pytest.fixture
def one(houses: tuple[House, House]) -> Iterator[House]:
    yield houses[0]
    houses[0].nothing_is_left()


@pytest.fixture
def other(houses: tuple[House, House]) -> Iterator[House]:
    yield houses[1]
    houses[1].nothing_is_left()


def snapshot(house: House, name: str) -> dict[str, Any]:
    answer = house.api("POST", f"/containers/{name}/snapshots", {})
    assert answer.status == 200, answer.body
    taken: dict[str, Any] = answer.data["snapshot"]
    return taken


def export(house: House, container: str, name: str, query: str = "") -> bytes:
    done = subprocess.run(
        [
            *("curl", "-sS", "-m", "60", "-H", f"Authorization: Bearer {house.api.token}"),
            f"{house.api.base}/containers/{container}/snapshots/{name}/export{query}",
        ],
        capture_output=True,
        check=True,
    )
    return done.stdout


def bring(house: House, data: bytes, query: str = "", *more: str) -> Answer:
    """As C{curl -T -} does."""
    done = subprocess.run(
        [
            *("curl", "-sS", "-m", "60", "-T", "-", "-D", "-", "-H", "Expect:", *more),
            *("-H", f"Authorization: Bearer {house.api.token}"),
            f"{house.api.base}/projects/default/containers/import{query}",
        ],
        input=data,
        capture_output=True,
        check=True,
    )
    head, _, body = done.stdout.decode().replace("\r", "").partition("\n\n")
    return Answer(int(head.split()[1]), head, body)


def busy(house: House, name: str, **fields: object) -> dict[str, Any]:
    house.create(name, volumes=[{"name": "data", "path": "/data"}], **fields)
    assert house.run(name, f"{BUSY}\necho kept > /data/file; mkdir /data/sub") == (0, "")
    return snapshot(house, name)


def images(house: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = house.api.get("/images?limit=100").data["images"]
    return found


def test_a_container_moves_by_a_pipe_with_all_that_it_has(one: House, other: House) -> None:
    fields: dict[str, object] = {
        "command": ["sleep", "1000"],
        "environment_vars": {"SECRET": "s"},
        "comment": "mine",
        "exposed_ports": [9000],
        "memory_limit": 64 << 20,
        "egress": "none",
    }
    taken = busy(one, "app", **fields)
    _, before = one.run("app", TREE)
    pipe = f"{one.server.url}/api/v1/pipe/move"
    script = (
        f"curl -sS {one.api.base}/containers/app/snapshots/{taken['name']}/export"
        f" -H 'Authorization: Bearer {one.api.token}' | curl -sS -T - {pipe} &\n"
        f"curl -sS {pipe} | curl -sS -T - -X POST"
        f" '{other.api.base}/projects/default/containers/import?name=moved'"
        f" -H 'Authorization: Bearer {other.api.token}'; wait"
    )
    said = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True)
    line = next(each for each in said.stdout.splitlines() if each.startswith("{"))
    row = json.loads(line)["data"]
    assert row["status"] == "running"
    assert row["snapshot_count"] == 1
    for name, value in fields.items():
        assert row[name] == value
    assert other.run("moved", TREE) == (0, before)
    assert other.run("moved", "cat /data/file /srv/second") == (0, "kept\nlinked\n")
    found = other.api.get("/containers/moved/snapshots").data["snapshots"]
    assert [(each["name"], each["digest"]) for each in found] == [(taken["name"], taken["digest"])]
    verified = other.api.get(f"/containers/moved/snapshots/{taken['name']}/verify").data
    assert verified["valid"]
    events = other.api.get(f"/events?container_id={row['id']}").data["events"]
    created = next(each for each in events if each["event_type"] == "container.created")
    assert created["data"]["digest"] == taken["digest"]
    assert created["data"]["imported"] == "app"
