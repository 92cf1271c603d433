"""Equal files of different containers, which are made to share their blocks."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hoody.containers import btrfs
from hoody.manifests.orders import Order, read_line, write
from tests.support.api import Api
from tests.support.containers import House, run
from tests.support.postgres import Postgres
from tests.support.snapshots import PROGRAM, ask

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
    # What is shared was not written: a snapshot behind it has nothing new.
    was = newest(house, "two")
    snapshot(house, "two")
    row = newest(house, "two")
    assert (row["digest"], row["size"] < MEBI) == (was["digest"], True)
    # Each is its own all the same.
    assert house.run("two", "echo changed | dd of=/data/large conv=notrunc; sync")[0] == 0
    assert files[0].read_bytes() == files[2].read_bytes() == content
    assert files[1].read_bytes() == b"changed\n" + content[8:]
    for name in NAMES:
        verified = house.api.get(
            f"/containers/{name}/snapshots/{newest(house, name)['name']}/verify"
        )
        assert verified.data["valid"], verified.body


def newest(house: House, name: str) -> dict[str, Any]:
    found: dict[str, Any] = house.api.get(f"/containers/{name}/snapshots").data["snapshots"][0]
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
        page = house.api.get("/ledger", "-H", "Accept: text/html").body
        assert "equal files share blocks" in page
        # It is known at the next start, too.
        house.kill()
        house.start()
        until(lambda: metric(house) > 23 * MEBI)


def test_in_an_image_file_too(tmp_path: Path, pool: Path, cluster: Postgres) -> None:
    with _house(tmp_path, "1G", cluster) as house:
        check_shared(house, 8 * MEBI)


@pytest.mark.long
def test_a_hundred_megabytes_three_times_cost_a_hundred(
    tmp_path: Path, pool: Path, cluster: Postgres
) -> None:
    with _house(tmp_path, pool, cluster) as house:
        check_shared(house, 100_000_000)


# The process alone, on what lies as the server's containers do


class Shelf:
    """
    Containers' files, and snapshots that have been read.

    @ivar image: an image's subvolume; sealed with the first snapshot.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in (root, root / "images", root / "manifests", root / "containers"):
            folder.mkdir()
        self.image = root / "images/i"
        btrfs.create(self.image)

    def container(self, name: str) -> Path:
        """@return: where its volume is."""
        state = self.root / "containers" / name / "state"
        state.mkdir(parents=True)
        btrfs.create(state / "root")
        (state / "root/upper").mkdir()
        btrfs.create(state / "volume-data")
        return state / "volume-data"

    def snapshot(self, name: str, snapshot: str = "s") -> Path:
        """@return: where its volume is."""
        place = self.root / "containers" / name / "snapshots" / snapshot
        place.mkdir(parents=True)
        btrfs.seal(self.image)
        for each in ("root", "volume-data"):
            source = self.root / "containers" / name / "state" / each
            btrfs.snapshot(source, place / each, read_only=True)
        ask(
            {
                "kind": "scan",
                "image": str(self.image),
                "image_manifest": str(self.root / "manifests/i"),
                "trees": {each: str(place / each) for each in ("root", "volume-data")},
                "into": str(place / "record"),
            }
        )
        return place / "volume-data"

    def share(self) -> dict[str, Any]:
        return ask({"kind": "share", "storage": str(self.root), "rate": 1 << 40})

    def begin(self, rate: int) -> subprocess.Popen[bytes]:
        """One that has done something, and has more to do."""
        order = Order(kind="share", parent=os.getpid(), storage=str(self.root), rate=rate)
        process = subprocess.Popen(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(write(order))
        process.stdin.close()
        process.stdin = None
        for raw in process.stdout:
            line = read_line(raw)
            assert line.progress is not None, line
            if line.progress.done:
                return process
        raise AssertionError("it ended before")

    def remove(self) -> None:
        for path in (*self.root.glob("containers/*/*/*"), *self.root.glob("containers/*/*/*/*")):
            if btrfs.is_subvolume(path):
                btrfs.delete(path)
        btrfs.delete(self.image)
        shutil.rmtree(self.root)


@pytest.fixture
def shelf(pool: Path) -> Iterator[Shelf]:
    shelf = Shelf(pool / "shelf")
    try:
        yield shelf
    finally:
        shelf.remove()


TEXT = b"".join(b"line %d of a file that can be compressed\n" % number for number in range(30_001))
NOISE = random.Random(1).randbytes(3 * MEBI + 5)
HOLED = NOISE[:MEBI] + bytes(3 * MEBI) + NOISE[MEBI : 2 * MEBI] + b"end"


def test_a_second_sweep_has_nothing_to_do(shelf: Shelf) -> None:
    for name in "ab":
        place = shelf.container(name)
        for file, content in {"text": TEXT, "noise": NOISE, "holed": HOLED}.items():
            (place / file).write_bytes(content)
        if name == "a":  # the same, but for how the disk holds it
            run("fallocate", "--dig-holes", str(place / "holed"))
        shelf.snapshot(name)
    first = shelf.share()
    assert first["compared"] == first["shared"] > 2 * len(NOISE)
    second = shelf.share()
    assert (second["compared"], second["savings"]) == (0, first["savings"])
    assert list(first["savings"]) == ["b"]
    saving = first["savings"]["b"]
    assert len(NOISE) + 2 * MEBI < saving["kept"] == saving["now"] < len(NOISE) + 3 * MEBI
    for file, content in {"text": TEXT, "noise": NOISE, "holed": HOLED}.items():
        for place in shelf.root.glob("containers/*/**/volume-data"):
            assert (place / file).read_bytes() == content
        both = [shelf.root / f"containers/{name}/state/volume-data" / file for name in "ab"]
        assert places(both[0]) == places(both[1])


def test_what_is_equal_in_an_image_or_twice_in_a_container_is_there_once(shelf: Shelf) -> None:
    (shelf.image / "lib").write_bytes(NOISE)
    place = shelf.container("a")
    odd = "a name\\with\n\udcff"
    (place / odd).mkdir()
    for path in (place / odd / "copy", place.parent / "root/upper/lib", place / "third"):
        path.write_bytes(NOISE)
    shelf.snapshot("a")
    saving = shelf.share()["savings"]["a"]
    assert saving["kept"] == saving["now"] >= 3 * len(NOISE)
    for path in (place / odd / "copy", place.parent / "root/upper/lib", place / "third"):
        assert places(path) == places(shelf.image / "lib")
        assert path.read_bytes() == NOISE


def test_what_has_changed_since_the_snapshot_stays_as_it_is(shelf: Shelf) -> None:
    for name in "ab":
        (shelf.container(name) / "x").write_bytes(NOISE)
    kept = [shelf.snapshot(name) / "x" for name in "ab"]
    now = shelf.root / "containers/b/state/volume-data/x"
    changed = bytearray(NOISE + b"more")
    changed[MEBI + 5] ^= 1
    now.write_bytes(changed)
    saving = shelf.share()["savings"]["b"]
    assert saving["kept"] > len(NOISE) > saving["now"] > 0
    assert places(kept[0]) == places(kept[1])
    assert now.read_bytes() == changed
    assert kept[1].read_bytes() == NOISE


def plant_link(place: Path, secret: Path) -> None:
    (place / "deep/x").symlink_to(secret)


def plant_hidden_folder(place: Path, secret: Path) -> None:
    (place / "deep").rmdir()
    (place / "deep").symlink_to(secret.parent)


def plant_fifo(place: Path, secret: Path) -> None:
    os.mkfifo(place / "deep/x")


def plant_device(place: Path, secret: Path) -> None:
    os.mknod(place / "deep/x", 0o20666, os.makedev(10, 130))  # a watchdog: to open it starts it


def plant_socket(place: Path, secret: Path) -> None:
    with contextlib.chdir(place / "deep"), socket.socket(socket.AF_UNIX) as found:
        found.bind("x")


def plant_folder(place: Path, secret: Path) -> None:
    (place / "deep/x").mkdir()


@pytest.mark.parametrize(
    "plant",
    [plant_link, plant_hidden_folder, plant_fifo, plant_device, plant_socket, plant_folder],
)
def test_what_lies_where_a_file_was_is_neither_followed_nor_opened(
    shelf: Shelf, plant: Callable[[Path, Path], None]
) -> None:
    secret = shelf.root / "x"
    secret.write_bytes(NOISE)
    before = places(secret)
    for name in "ab":
        place = shelf.container(name)
        (place / "deep").mkdir()
        (place / "deep/x").write_bytes(NOISE)
        shelf.snapshot(name)
        (place / "deep/x").unlink()
        plant(place, secret)
    saving = shelf.share()["savings"]["b"]
    assert saving["kept"] > 0
    assert saving["now"] == 0
    assert places(secret) == before


def test_one_that_changes_its_file_all_the_time_sees_what_it_wrote(shelf: Shelf) -> None:
    for name in "ab":
        (shelf.container(name) / "x").write_bytes(NOISE)
        shelf.snapshot(name)
    now = shelf.root / "containers/b/state/volume-data/x"
    over = threading.Event()
    wrong: list[int] = []
    content = bytearray(NOISE)

    def change() -> None:
        chance = random.Random(2)
        descriptor = os.open(now, os.O_RDWR)
        while not over.is_set():
            at, size = chance.randrange(len(NOISE) - 9000), chance.randrange(1, 9000)
            # Often what was there at first, so that it is equal again and shared again.
            new = NOISE[at : at + size] if chance.random() < 0.9 else chance.randbytes(size)
            os.pwrite(descriptor, new, at)
            content[at : at + size] = new
            around = max(0, at - 5000)
            seen = os.pread(descriptor, size + 10_000, around)
            if seen != content[around : around + size + 10_000]:
                wrong.append(at)
        os.close(descriptor)

    writer = threading.Thread(target=change)
    writer.start()
    try:
        shared = [shelf.share()["shared"] for _ in range(8)]
    finally:
        over.set()
        writer.join()
    assert sum(shared) > len(NOISE)
    assert not wrong
    assert now.read_bytes() == content
    assert (shelf.root / "containers/b/snapshots/s/volume-data/x").read_bytes() == NOISE


def test_killed_in_the_middle_it_has_harmed_nothing_and_the_next_goes_on(shelf: Shelf) -> None:
    content = os.urandom(40 * MEBI + 77)
    for name in "abc":
        (shelf.container(name) / "x").write_bytes(content)
        shelf.snapshot(name)
    process = shelf.begin(32 * MEBI)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    files = sorted(shelf.root.glob("containers/*/**/x"))
    assert len(files) == 6
    assert all(each.read_bytes() == content for each in files)
    rest = shelf.share()
    assert 0 < rest["shared"] == rest["compared"] < 4 * len(content)
    assert all(each.read_bytes() == content for each in files)
    assert len({frozenset(places(each)) for each in files}) == 1


def test_what_is_deleted_meanwhile_is_left_out(shelf: Shelf) -> None:
    content = os.urandom(20 * MEBI)
    for name in "abc":
        (shelf.container(name) / "x").write_bytes(content)
        shelf.snapshot(name)
    process = shelf.begin(32 * MEBI)
    for name in "bc":
        for each in sorted(shelf.root.glob(f"containers/{name}/snapshots/s/*")):
            if each.is_dir():
                btrfs.delete(each)
        shutil.rmtree(shelf.root / f"containers/{name}/snapshots/s")
    out, _ = process.communicate()
    assert read_line(out.splitlines()[-1]).done is not None


def test_it_reads_no_faster_than_it_may(shelf: Shelf) -> None:
    for name in "ab":
        (shelf.container(name) / "x").write_bytes(NOISE)
        shelf.snapshot(name)
    began = time.monotonic()
    ask({"kind": "share", "storage": str(shelf.root), "rate": 3 * MEBI})
    assert time.monotonic() - began > 1  # the snapshot's in one piece, then the other's
