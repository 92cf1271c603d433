"""Equal files of different containers, which are made to share their blocks."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hoody.containers import btrfs
from tests.support.api import Api
from tests.support.containers import House
from tests.support.postgres import Postgres

MEBI = 1 << 20
RECORDS = 4 * MEBI
"""Bytes that all those take that are written, with what the file system needs for itself."""
NAMES = ("one", "two", "three")


def until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    late = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < late
        time.sleep(0.05)


# Through the server


@contextlib.contextmanager
def _house(folder: Path, pool: Path | str, cluster: Postgres) -> Iterator[House]:
    house = House(folder / "data", pool, cluster, "--sweep=500ms")
    try:
        for name in NAMES:
            house.create(name, egress="none", command="sleep 100000", volumes=VOLUMES)
        yield house
    finally:
        house.close()


VOLUMES = [{"name": "data", "path": "/data"}]


def live(house: House, name: str, path: str) -> Path:
    return house.base / "containers" / str(house.row(name)["id"]) / "state" / path


def write_each(house: House, path: str, content: bytes) -> None:
    """Each writes its own, from what comes to it by itself."""
    for name in NAMES:
        given = live(house, name, "root/upper/given")
        given.write_bytes(content)
        code, said = house.run(name, f"cat /given >{path}; sync; rm /given")
        assert code == 0, said


def snapshot(house: House, name: str) -> dict[str, Any]:
    answer = house.api("POST", f"/containers/{name}/snapshots", {})
    assert answer.status == 200, answer.body
    row: dict[str, Any] = answer.data
    return row


def places(path: Path) -> set[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        return {extent.place for extent in btrfs.extents(descriptor)}
    finally:
        os.close(descriptor)


def used(place: Path) -> int:
    """Bytes of the file system, when what was given back is free."""
    btrfs.commit(place)
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def check_shared(house: House, size: int) -> None:
    """Three containers have equal files and snapshots of them; then they share."""
    content = os.urandom(size)
    write_each(house, "/data/large", content)
    full, alone = used(house.base), house.api.get("/ledger").data["totals"]
    assert alone["disk"] >= 3 * size
    for name in NAMES:
        snapshot(house, name)
    until(lambda: metric(house) >= 2 * size, 60 + size / MEBI)
    files = [live(house, name, "volume-data/large") for name in NAMES]
    assert len({frozenset(places(each)) for each in files}) == 1
    until(lambda: used(house.base) < full - 2 * size + RECORDS)
    ledger = house.api.get("/ledger").data
    assert ledger["totals"]["disk"] < alone["disk"] - 2 * size + RECORDS
    assert 2 * size <= ledger["totals"]["disk_saved"] == metric(house) < 2.01 * size
    saved = sorted(each["disk_saved"] for each in ledger["containers"])
    assert saved[0] == 0
    assert saved[1] == saved[2] >= size
    assert ledger["totals_unshared"]["disk"] >= ledger["totals"]["disk"] + 2 * size
    # Each is its own all the same.
    assert house.run("two", "echo changed | dd of=/data/large conv=notrunc; sync")[0] == 0
    assert files[0].read_bytes() == files[2].read_bytes() == content
    assert files[1].read_bytes() == b"changed\n" + content[8:]
    for name in NAMES:
        verified = house.api.get(f"/containers/{name}/snapshots/{newest(house, name)}/verify")
        assert verified.data["valid"], verified.body


def newest(house: House, name: str) -> str:
    found: str = house.api.get(f"/containers/{name}/snapshots").data["snapshots"][0]["name"]
    return found


def metric(house: House) -> int:
    page = Api(house.server.url, None).get("/metrics").body
    line = next(each for each in page.splitlines() if each.startswith("hoody_disk_shared_bytes"))
    return int(float(line.split()[1]))


def test_what_three_containers_write_is_there_once(
    tmp_path: Path, pool: Path, cluster: Postgres
) -> None:
    with _house(tmp_path, pool, cluster) as house:
        check_shared(house, 12 * MEBI)


def test_in_an_image_file_too(tmp_path: Path, pool: Path, cluster: Postgres) -> None:
    with _house(tmp_path, "1G", cluster) as house:
        check_shared(house, 8 * MEBI)


@pytest.mark.long
def test_a_hundred_megabytes_three_times_cost_a_hundred(
    tmp_path: Path, pool: Path, cluster: Postgres
) -> None:
    with _house(tmp_path, pool, cluster) as house:
        check_shared(house, 100_000_000)
