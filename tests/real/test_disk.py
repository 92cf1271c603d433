"""What containers may take of the disk, on file systems that count in either way."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hoody.containers import btrfs, logs
from hoody.containers.storage import LOG_ROOM, Storage
from tests.support.containers import House, mounted, run
from tests.support.postgres import Postgres

MEBI = 1 << 20
ONE, OTHER = "1" * 24, "2" * 24
LINE = 64


@contextlib.contextmanager
def _counting(folder: Path, count: Callable[[Path], None]) -> Iterator[Storage]:
    with mounted(folder, 1 << 30, "commit=1") as mount:
        count(mount)
        storage = Storage(folder / "none", folder / "no-image", mount, None)
        storage.prepare("a database", is_new=True)
        assert storage.limits
        assert storage.is_simple == (count is btrfs.count_simply)
        yield storage


@pytest.fixture
def simple(tmp_path: Path) -> Iterator[Storage]:
    with _counting(tmp_path, btrfs.count_simply) as storage:
        yield storage


@pytest.fixture(params=[btrfs.count_simply, btrfs.count], ids=["simply", "each reference"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    with _counting(tmp_path, request.param) as storage:
        yield storage


def _write(path: Path, size: int) -> int:
    """Bytes that found room, of so many at a file's end, which no compression makes fewer."""
    written = 0
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while written < size:
            written += file.write(os.urandom(min(MEBI, size - written)))
        os.fsync(file)
    return written


def _make(storage: Storage, most: int | None, *volumes: str) -> Path:
    storage.make_container(ONE, volumes, most)
    return storage.state_path(ONE)


def test_a_limit_holds_for_root_and_volumes_together(simple: Storage) -> None:
    place = _make(simple, 24 * MEBI, "a", "b")
    places = [place / "root/upper/x", place / "volume-a/x", place / "volume-b/x"]
    assert sum(_write(each, 16 * MEBI) for each in places) <= 24 * MEBI
    simple.make_volume(ONE, "late")
    simple.limit_container(ONE, 24 * MEBI)
    assert _write(place / "volume-late/x", 2 * MEBI) < 2 * MEBI


def test_a_limit_holds(storage: Storage) -> None:
    place = _make(storage, 16 * MEBI)
    assert 12 * MEBI < _write(place / "root/upper/x", 32 * MEBI) <= 16 * MEBI


def test_a_limit_is_changed(storage: Storage) -> None:
    """One below what is there takes nothing away: there has to be less before there is more."""
    place = _make(storage, 32 * MEBI)
    files = [place / "root/upper" / name for name in "ab"]
    assert [_write(each, 12 * MEBI) for each in files] == [12 * MEBI] * 2
    storage.limit_container(ONE, 16 * MEBI)
    assert [each.stat().st_size for each in files] == [12 * MEBI] * 2
    with pytest.raises(OSError, match="quota"):
        (place / "root/upper/c").touch()
    files[0].unlink()
    assert _write(files[1], 2 * MEBI) == 2 * MEBI
    storage.limit_container(ONE, None)
    assert _write(files[1], 64 * MEBI) == 64 * MEBI


def test_what_a_copy_shares_with_another_is_not_its_own(simple: Storage) -> None:
    place = _make(simple, 32 * MEBI, "a")
    assert _write(place / "volume-a/x", 24 * MEBI) == 24 * MEBI
    simple.copy_container(ONE, OTHER, 32 * MEBI)
    copied = simple.state_path(OTHER)
    assert (copied / "volume-a/x").stat().st_size == 24 * MEBI
    assert _write(copied / "root/upper/x", 16 * MEBI) == 16 * MEBI
    assert _write(copied / "volume-a/y", 32 * MEBI) < 16 * MEBI
    simple.remove_container(ONE)
    assert not simple.container_path(ONE).exists()
    assert (copied / "volume-a/x").stat().st_size == 24 * MEBI


def test_a_copy_has_no_log(storage: Storage) -> None:
    _make(storage, None)
    _write(storage.log_file(ONE), MEBI)
    storage.copy_container(ONE, OTHER, None)
    assert not storage.log_file(OTHER).exists()
    assert storage.log_file(ONE).exists()


def test_nothing_is_left_not_even_what_counted(storage: Storage) -> None:
    def counted() -> set[str]:
        return {each.name for each in btrfs.groups(storage.root).glob("[0-9]*_*")}

    before = counted()
    place = _make(storage, 32 * MEBI, "a")
    storage.make_log(ONE)
    _write(place / "root/upper/x", MEBI)
    storage.copy_container(ONE, OTHER, None)
    _write(storage.state_path(OTHER) / "root/upper/y", MEBI)
    assert len(counted()) > len(before)
    storage.remove_container(ONE)
    storage.remove_container(OTHER)
    assert not list(storage.containers.iterdir())
    run("btrfs", "subvolume", "sync", str(storage.root))
    storage.remove_container(ONE)  # as any that is removed later
    assert counted() <= before


def test_figures_are_what_is_counted(storage: Storage) -> None:
    """And not found by a walk, which has to come by each of ever so many files."""
    place = _make(storage, None, "a")
    storage.begin_image("image")
    assert _write(storage.image_path("image") / "x", 5 * MEBI) == 5 * MEBI
    _write(place / "root/upper/x", 2 * MEBI)
    (place / "volume-a/zeros").write_bytes(bytes(64 * MEBI))
    run("sync", "-f", str(storage.root))
    own, image = storage.taken_by(ONE, "image")
    assert 2 * MEBI < own < 5 * MEBI, "zeros take nothing, compressed"
    assert 5 * MEBI < image < 6 * MEBI


def test_figures_where_nothing_counts(tmp_path: Path) -> None:
    with mounted(tmp_path, 1 << 28) as mount:
        storage = Storage(tmp_path / "none", tmp_path / "no-image", mount, None)
        storage.prepare("a database", is_new=True)
        assert not storage.limits
        place = _make(storage, None)
        storage.begin_image("image")
        _write(place / "root/upper/x", MEBI)
        assert storage.taken_by(ONE, "image")[0] == MEBI


# Logs


def test_a_log_is_bounded_between_two_looks_and_goes_on_after_each(storage: Storage) -> None:
    _make(storage, None)
    storage.make_log(ONE)
    log = storage.log_file(ONE)
    for _ in range(3):
        written = _write(log, 4 * LOG_ROOM)
        assert LOG_ROOM // 2 < written <= LOG_ROOM
        end = log.read_bytes()[-LINE:]
        assert storage.trim_logs([ONE])
        assert log.read_bytes()[-LINE:] == end
        run("sync", "-f", str(storage.root))
        assert _on_disk(storage, log) <= logs.MOST
        assert not storage.trim_logs([ONE])


def _on_disk(storage: Storage, log: Path) -> int:
    own = btrfs.groups(storage.root) / f"0_{btrfs.identity(log.parent)}/referenced"
    return int(own.read_text())


def test_a_log_of_normal_speed_loses_no_line(storage: Storage) -> None:
    """32 MB/s, looked at each second, and whoever follows reads each line."""
    _make(storage, None)
    storage.make_log(ONE)
    log = storage.log_file(ONE)
    part = 4 * MEBI
    position, read = 0, 0
    noise = os.urandom(600).hex().encode()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for number in range(24):
            said = b"".join(
                b"%08d %s\n" % (number * part // LINE + each, noise[each % 997 : each % 997 + 54])
                for each in range(part // LINE)
            )
            assert os.write(descriptor, said) == part
            if number % 8 == 7:
                storage.trim_logs([ONE])
            while True:
                text, position = logs.read_from(log, position)
                if not text:
                    break
                for line in text.splitlines():
                    if len(line) == LINE - 1:
                        assert int(line[:8]) >= read
                read = position // LINE
    finally:
        os.close(descriptor)
    assert read == 24 * part // LINE
    last = logs.tail(log, 1000).splitlines()
    assert [int(line[:8]) for line in last] == list(range(read - len(last), read))


# A disk that is full


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, cluster: Postgres) -> Iterator[House]:
    with mounted(tmp_path_factory.mktemp("small"), 400 * MEBI) as mount:
        btrfs.count_simply(mount)
        house = House(tmp_path_factory.mktemp("house") / "data", mount, cluster)
        try:
            yield house
        finally:
            house.close()


def _upload(house: House, *words: str, given: int) -> tuple[int, str]:
    done = subprocess.run(
        ["curl", "-sS", "-m", "20", "-X", "POST", "-T", "-", "-w", "\n%{http_code}", *words]
        + ["-H", f"Authorization: Bearer {house.api.token}"]
        + [f"{house.server.url}/api/v1/images?name=large"],
        input=os.urandom(MEBI) * (given // MEBI),
        capture_output=True,
        check=False,
    )
    body, _, status = done.stdout.decode().rpartition("\n")
    return int(status), body


def test_an_upload_leaves_room_for_all_others(small: House) -> None:
    """Whether it says how much is to come, or does not."""
    uploads = small.pool / f"hoody-{small.server_id}" / "uploads"
    status, body = _upload(
        small, *("-H", "Transfer-Encoding:", "-H", f"Content-Length: {1 << 40}"), given=0
    )
    assert (status, "room" in body) == (503, True)
    status, body = _upload(small, given=450 * MEBI)
    assert (status, "room" in body) == (503, True)
    late = time.monotonic() + 10
    while list(uploads.iterdir()):
        assert time.monotonic() < late
        time.sleep(0.05)


def test_a_limit_is_changed_on_a_full_disk_or_it_is_said_why_not(small: House) -> None:
    row = small.create("full", egress="none", start=False, disk_limit=64 * MEBI)
    filler = small.pool / "filler"
    try:
        _write(filler, 1 << 30)
        for number in range(20_000):  # and what is left for small files
            try:
                (small.pool / f"filler-{number}").write_bytes(bytes(3000))
            except OSError:
                break
        volumes = [{"name": f"v{number}", "path": f"/v{number}"} for number in range(20)]
        for change in ({"disk_limit": 32 * MEBI}, {"volumes": volumes}, {"disk_limit": None}):
            answer = small.api("PATCH", f"/containers/{row['id']}", change)
            assert answer.status in (200, 503), answer.body
            if answer.status == 503:
                assert "room" in answer.error
    finally:
        for each in small.pool.glob("filler*"):
            each.unlink()
    answer = small.api("PATCH", f"/containers/{row['id']}", {"disk_limit": 48 * MEBI})
    assert answer.data["disk_limit"] == 48 * MEBI
    small.delete("full")
