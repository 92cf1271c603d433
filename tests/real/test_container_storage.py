"""A file system of the containers' own: over reboots, full, and where it can only be read."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hoody.containers import machine
from hoody.containers.cgroups import Hierarchies
from tests.support.api import Answer
from tests.support.containers import House, run
from tests.support.postgres import Postgres
from tests.support.server import Server


@pytest.fixture(scope="module")
def made_house(tmp_path_factory: pytest.TempPathFactory, cluster: Postgres) -> Iterator[House]:
    lack = machine.lack("auto", False, Hierarchies.read())
    if lack is not None:
        pytest.skip(f"containers: {lack}")
    house = House(tmp_path_factory.mktemp("house") / "data", "256M", cluster)
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


# Over reboots


def test_files_and_variables_come_back_from_an_image_file_and_limits_hold(
    house: House, name: str
) -> None:
    house.create(
        name,
        egress="nat",
        environment_vars={"A": "b"},
        volumes=[{"name": "data", "path": "/data"}],
        disk_limit=32 << 20,
    )
    house.create(f"{name}-not", egress="none", autostart=False)
    house.run(name, "echo one > /root/file; echo two > /data/file")
    house.reboot()
    house.start()
    assert len(house.loop_devices) == 1
    house.until(name, status="running")
    assert house.run(name, "cat /root/file /data/file; echo $A")[1] == "one\ntwo\nb\n"
    for place in ("/root", "/data"):
        _, said = house.run(name, f"dd if=/dev/urandom of={place}/big bs=1M count=64; sync")
        assert "quota exceeded" in said
    row = house.row(f"{name}-not")
    assert (row["status"], row["status_reason"]) == ("stopped", "the machine was restarted")
    assert house.get(f"{name}-not")[0] == 200, "on request"


def test_one_that_has_all_that_it_may_still_starts(house: House, name: str) -> None:
    house.create(name, egress="none", disk_limit=16 << 20)
    house.run(name, "dd if=/dev/urandom of=/root/big bs=1M count=32; sync")
    assert house.operate(name, "restart").status == 200
    assert house.get(name)[0] == 200


def test_what_is_mounted_is_not_mounted_again(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    pids = house.pids(row["id"])
    for end in (house.kill, lambda: house.server.stop()):
        end()
        assert os.path.ismount(house.base)
        house.start()
        assert len(house.loop_devices) == 1
        assert _mounts(house) == 1
        house.still_runs(row["id"], pids)


def _mounts(house: House) -> int:
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return sum(line.split()[1] == str(house.base) for line in mounts)


def test_an_image_file_that_is_missing_is_asked_for(house: House, name: str) -> None:
    house.create(name, egress="none")
    house.run(name, "echo one > /root/file")
    house.reboot()
    image = house.data_dir / "storage.btrfs"
    image.rename(image.with_suffix(".away"))
    try:
        with Server(house.data_dir, *house.options, env=house.env) as server:
            house.server = server
            until(lambda: house.part["status"] == "off")
            assert str(image) in house.part["problem"]
            assert not image.exists()
            assert house.get(name)[0] == 503
            assert house.get("nobody")[0] == 404
            assert house.api("DELETE", f"/containers/{name}").status == 503
            answer = house.api("POST", "/projects/default/containers", {"name": f"{name}-b"})
            assert answer.status == 503
            assert "put it back" in answer.error
    finally:
        image.with_suffix(".away").rename(image)
    house.start()
    house.until(name, status="running")
    assert house.run(name, "cat /root/file")[1] == "one\n"


# When nothing can be written


@pytest.fixture
def full(house: House) -> Iterator[None]:
    """To the last block, of data and of what is known of it."""
    folder = house.base / "full"
    try:
        folder.mkdir()
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        run("btrfs", "filesystem", "sync", str(house.base))


def fill(house: House) -> None:
    folder = house.base / "full"
    for size in (16 << 20, 1 << 20, 64 << 10):
        with contextlib.suppress(OSError):
            while True:
                with (folder / f"{time.monotonic_ns()}").open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, size)
    data = os.urandom(3900)
    (folder / "known").touch()
    with pytest.raises(OSError) as caught:
        for number in range(10**6):  # these are among what is known of files
            os.setxattr(folder / "known", f"user.{number}", data)
    assert caught.value.errno == errno.ENOSPC


def _image(folder: Path) -> Path:
    path = folder / "image.tar"
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("./big")
        entry.size = 5_000_000
        archive.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    return path


def _upload(house: House, name: str, file: Path) -> Answer:
    return house.api("POST", f"/images?name={name}", None, "-T", str(file), "-H", "Expect:")


def _is_whole(house: House) -> None:
    """Nothing is half-made."""
    rows = {each["id"]: each for each in house.api.get("/containers?limit=100").data["containers"]}
    assert {path.name for path in (house.base / "containers").iterdir()} - {".probe"} == set(rows)
    assert {row["status"] for row in rows.values()} <= {"running", "stopped", "failed"}
    for container_id, row in rows.items():
        assert bool(house.pids(container_id)) == (row["status"] == "running")
    images = [each["id"] for each in house.api.get("/images").data["images"]]
    assert [path.name for path in (house.base / "images").iterdir()] == images
    assert not list((house.base / "uploads").iterdir())


def test_on_a_disk_that_is_full_what_runs_goes_on_and_nothing_is_half_made(
    house: House, name: str, full: None, tmp_path: Path
) -> None:
    image = _image(tmp_path)
    house.create(name, egress="nat")
    house.create(f"{name}-s", egress="none", start=False)
    house.create(f"{name}-d", egress="none")
    fill(house)
    assert house.get(name)[0] == 200
    refused = [
        house.api("POST", "/projects/default/containers", {"name": f"{name}-{each}"})
        for each in range(4)
    ]
    refused.append(house.api("POST", f"/containers/{name}/copy", {"name": f"{name}-copy"}))
    refused.append(_upload(house, name, image))
    for answer in refused:
        # Of a container btrfs may find room for the last time.
        assert answer.status in (503, 201), answer.body
        assert answer.status == 201 or "full" in answer.error
    assert 503 in [answer.status for answer in refused]
    assert refused[-1].status == 503
    started = house.operate(f"{name}-s", "start")
    assert started.status in (200, 503)
    assert started.status == 200 or house.row(f"{name}-s")["status"] == "failed"
    _is_whole(house)
    house.server.stop()
    house.start()
    assert house.get(name)[0] == 200
    house.delete(f"{name}-d")
    _is_whole(house)
    shutil.rmtree(house.base / "full")
    run("btrfs", "filesystem", "sync", str(house.base))
    assert house.operate(f"{name}-s", "restart").status == 200
    house.create(f"{name}-n", egress="none", disk_limit=32 << 20)
    assert house.get(f"{name}-n")[0] == 200
    assert _upload(house, name, image).status == 201
    assert house.api("DELETE", f"/images/{name}").status == 200
    _is_whole(house)


@pytest.fixture
def read_only(house: House) -> Iterator[None]:
    yield
    run("mount", "-o", "remount,bind,rw", str(house.base))


def test_on_a_disk_that_can_only_be_read_what_runs_goes_on_and_nothing_is_half_made(
    house: House, name: str, read_only: None, tmp_path: Path
) -> None:
    image = _image(tmp_path)
    house.create(name, egress="nat")
    house.create(f"{name}-s", egress="none", start=False)
    house.create(f"{name}-d", egress="none")
    run("mount", "-o", "remount,bind,ro", str(house.base))
    assert house.get(name)[0] == 200
    for answer in (
        house.api("POST", "/projects/default/containers", {"name": f"{name}-n"}),
        house.api("POST", f"/containers/{name}/copy", {"name": f"{name}-copy"}),
        house.api(
            *("PATCH", f"/containers/{name}", {"volumes": [{"name": "more", "path": "/more"}]})
        ),
        house.api("POST", "/images", {"name": name, "source": "busybox"}),
        _upload(house, name, image),
        house.api("DELETE", f"/containers/{name}-d"),
    ):
        assert answer.status == 503, answer.body
        assert "can only be read" in answer.error
    assert house.operate(f"{name}-s", "start").status == 503
    assert "Read-only" in house.row(f"{name}-s")["status_reason"]
    assert house.row(f"{name}-d")["status"] == "failed"
    _is_whole(house)
    house.server.stop()
    with Server(house.data_dir, *house.options, env=house.env) as server:
        house.server = server
        until(lambda: house.part["status"] != "starting")
        assert house.get(name)[0] == 200
    run("mount", "-o", "remount,bind,rw", str(house.base))
    house.start()
    house.delete(f"{name}-d")
    assert house.operate(f"{name}-s", "start").status == 200
    house.create(f"{name}-n", egress="none")
    _is_whole(house)
