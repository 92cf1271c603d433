"""
Snapshots that are cut off as they are taken, put back or deleted: the server is killed, the
runtime hangs, the disk is full, the database goes. Afterwards, at the next start at the latest,
all is either done or as it was, and nothing else is left.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.containers import House, run
from tests.support.moody import Moody
from tests.support.postgres import Postgres, open_folder
from tests.support.postgres import folder as postgres_folder
from tests.support.rollback import (
    ask,
    drop,
    folder,
    is_tidy,
    listed,
    names,
    noise,
    page,
    put_back,
    restore,
    started,
    take,
    undos,
    until,
    verified,
    write,
)

MIB = 1 << 20
DATA = [{"name": "data", "path": "/data"}]
MOMENTS: list[float | None] = [0.02, 0.05, 0.09, 0.14, None]
"""Seconds behind a request; C{None} for when it has just been answered."""
ALL_MOMENTS: list[float | None] = [*(each / 200 for each in range(80)), None]
few_or_many = pytest.mark.parametrize(
    "moments",
    [MOMENTS, pytest.param(ALL_MOMENTS, marks=[pytest.mark.long, pytest.mark.timeout(1800)])],
    ids=["few", "many"],
)


@pytest.fixture(scope="module")
def moody(tmp_path_factory: pytest.TempPathFactory) -> Moody:
    return Moody(tmp_path_factory.mktemp("moody") / "bin")


@pytest.fixture(scope="module")
def made_house(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres, moody: Moody
) -> Iterator[House]:
    house = House(
        tmp_path_factory.mktemp("house") / "data",
        pool,
        cluster,
        *("--runtime-timeout=30", "--sweep=0.5"),
        env={"PATH": f"{moody.folder}:{os.environ['PATH']}"},
    )
    try:
        yield house
    finally:
        house.close()


@pytest.fixture
def house(made_house: House, moody: Moody) -> Iterator[House]:
    yield made_house
    moody.be()
    made_house.nothing_is_left(15)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"c{abs(hash(request.node.name)) % 10**8}"


class Subject:
    """
    A container that has C{new} in its root and its volume, and a snapshot in which both are
    C{old}.

    @ivar old: that snapshot's name.
    """

    def __init__(self, house: House, name: str) -> None:
        self.house, self.name = house, name
        self.id = house.create(name, egress="none", volumes=DATA)["id"]
        self.be("old")
        self.old = take(house, name)["name"]
        self.be("new")

    def be(self, text: str) -> None:
        write(self.house, self.name, text)
        write(self.house, self.name, text, "/data/file")

    @property
    def content(self) -> str:
        """What it has, after all that is being done; of one time, whichever that is."""
        found = page(self.house, self.name)
        assert self.house.run(self.name, "cat /data/file") == (0, found)
        return found

    def is_whole(self) -> str:
        """@return: what it has. Nothing is half-done, and each snapshot can be relied on."""
        settled = ("running", "stopped")
        until(lambda: self.house.row(self.name)["status"] in settled, 30)
        found = self.content
        assert found in ("old", "new")
        is_tidy(self.house, self.name)
        until(lambda: all(each["digest"] for each in listed(self.house, self.name)), 30)
        return found

    def has_been_put_back(self) -> bool:
        """
        Whether it has been: then what it replaced is there, and it is told of, once; else
        there is nothing of either.
        """
        found, undone = self.is_whole(), undos(self.house, self.name)
        assert len(undone) == (found == "old"), (found, undone)
        told = [each for each in self._events if each.endswith("restored")]
        assert len(told) == len(undone)
        return found == "old"

    @property
    def _events(self) -> list[str]:
        path = f"/events?container_id={self.id}&limit=500"
        return [each["event_type"] for each in self.house.api.get(path).data["events"]]


# The server is killed


def kill_behind(house: House, moment: float | None, method: str, path: str) -> None:
    """So long after it was asked for that."""
    asking = started(house, method, path)
    if moment is None:
        asking.wait()
    else:
        time.sleep(moment)
    house.kill()
    asking.wait()
    house.start()


@few_or_many
def test_killed_at_any_moment_of_a_restore_it_is_put_back_or_as_it_was(
    house: House, name: str, moments: list[float | None]
) -> None:
    for turn, moment in enumerate(moments):
        subject = Subject(house, f"{name}-{turn}")
        own = f"/containers/{subject.name}/snapshots/{subject.old}"
        kill_behind(house, moment, "PATCH", own)
        done = subject.has_been_put_back()
        assert done or moment is not None
        if done:
            restore(house, subject.name, undos(house, subject.name)[0])
            assert subject.is_whole() == "new"
        assert verified(house, subject.name, subject.old)["valid"]
        house.delete(subject.name)


@pytest.mark.parametrize("moods", [{"create": "stuck"}, {"start": "stuck"}, {"delete": "stuck"}])
def test_killed_when_it_has_been_exchanged_it_is_put_back_at_the_next_start(
    house: House, name: str, moody: Moody, moods: dict[str, str]
) -> None:
    subject = Subject(house, name)
    moody.be(**moods)
    asking = started(house, "PATCH", f"/containers/{name}/snapshots/{subject.old}")
    until(lambda: moody.hangs)
    assert (folder(house, subject.id) / "state/returned").exists()
    house.kill()
    asking.wait()
    moody.end()
    moody.be()
    house.start()
    assert subject.has_been_put_back()
    assert house.row(name)["last_used_snapshot"] == subject.old
    restore(house, name, undos(house, name)[0])
    assert subject.is_whole() == "new"


def test_killed_once_more_as_it_goes_on_it_is_put_back_once(
    house: House, name: str, moody: Moody
) -> None:
    subject = Subject(house, name)
    moody.be(create="stuck")
    asking = started(house, "PATCH", f"/containers/{name}/snapshots/{subject.old}")
    until(lambda: moody.runs)
    for _ in range(2):
        until(lambda: moody.hangs)
        house.kill()
        asking.wait()
        until(lambda: not moody.runs)
        house.start()
    until(lambda: moody.hangs)
    moody.be()
    house.kill()
    until(lambda: not moody.runs)
    house.start()
    assert subject.has_been_put_back()


@few_or_many
def test_killed_at_any_moment_of_taking_one_it_is_there_whole_or_not_at_all(
    house: House, name: str, moments: list[float | None]
) -> None:
    subject = Subject(house, name)
    noise(house, name, "/data/noise", MIB)
    for moment in moments:
        before = names(house, name)
        kill_behind(house, moment, "POST", f"/containers/{name}/snapshots")
        assert subject.is_whole() == "new"
        now = names(house, name)
        assert now[-len(before) :] == before
        assert len(now) - len(before) in ((1,) if moment is None else (0, 1))
        if len(now) > len(before):
            assert verified(house, name, now[0])["valid"]
    restore(house, name, names(house, name)[0])
    assert subject.is_whole() == "new"


def test_killed_as_one_is_deleted_it_is_there_or_gone(house: House, name: str) -> None:
    subject = Subject(house, name)
    for moment in (0.01, 0.03, None):
        taken = take(house, name)["name"]
        kill_behind(house, moment, "DELETE", f"/containers/{name}/snapshots/{taken}")
        is_tidy(house, name)
        assert moment is not None or taken not in names(house, name)
        if taken in names(house, name):
            assert verified(house, name, taken)["valid"]
    assert subject.is_whole() == "new"


def test_stopped_in_the_midst_of_it_the_server_comes_to_its_end(house: House, name: str) -> None:
    subject = Subject(house, name)
    asking = started(house, "PATCH", f"/containers/{name}/snapshots/{subject.old}")
    time.sleep(0.05)
    house.server.stop()
    asking.wait()
    house.start()
    subject.has_been_put_back()


# The runtime does not do it


@pytest.mark.parametrize(("call", "mood"), [("create", "died"), ("start", "noise")])
def test_what_is_put_back_and_cannot_be_started_says_so_and_starts_on_request(
    house: House, name: str, moody: Moody, call: str, mood: str
) -> None:
    subject = Subject(house, name)
    moody.be(**{call: mood})
    answer = put_back(house, name, subject.old)
    assert answer.status == 503, answer.body
    assert f"was put back to {subject.old}" in answer.error
    row = house.row(name)
    assert (row["status"], row["status_reason"]) == ("stopped", "idle")
    moody.be()
    assert subject.has_been_put_back()


def test_a_runtime_that_does_not_end_it_is_in_nobody_s_way(
    house: House, name: str, moody: Moody
) -> None:
    subject = Subject(house, name)
    moody.be(delete="noise")
    assert put_back(house, name, subject.old).status == 200
    moody.be()
    assert subject.has_been_put_back()


# The disk does not do it


@pytest.fixture
def small(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres
) -> Iterator[House]:
    """With a disk of its own, that is soon full."""
    house = House(tmp_path_factory.mktemp("small") / "data", "256M", cluster, "--sweep=0.5")
    try:
        yield house
    finally:
        run("mount", "-o", "remount,bind,rw", str(house.base))
        house.close()


def fill(house: House) -> Path:
    """To the last block, of data and of what is known of it. @return: what to remove."""
    place = house.base / "full"
    place.mkdir()
    for size in (16 << 20, 1 << 20, 64 << 10):
        with contextlib.suppress(OSError):
            for number in itertools.count():
                with (place / f"{size}-{number}").open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, size)
    data = os.urandom(3900)
    (place / "known").touch()
    with contextlib.suppress(OSError):
        for number in itertools.count():
            os.setxattr(place / "known", f"user.{number}", data)
    return place


def test_on_a_disk_that_is_full_it_is_put_back_or_as_it_was(small: House, name: str) -> None:
    subject = Subject(small, name)
    full = fill(small)
    refused = 0
    for _ in range(4):
        before, content = names(small, name), subject.content
        answer = ask(small, name)
        assert answer.status in (200, 503), answer.body
        if answer.status == 503:
            refused += 1
            assert "full" in answer.error
            assert names(small, name) == before
        done = put_back(small, name, subject.old)
        assert done.status in (200, 503), done.body
        if done.status == 503 and "was put back" not in done.error:
            refused += 1
            assert "full" in done.error
            assert subject.content == content
        is_tidy(small, name)
    small.kill()
    small.start()
    is_tidy(small, name)
    shutil.rmtree(full)
    run("btrfs", "filesystem", "sync", str(small.base))
    restore(small, name, subject.old)
    assert subject.is_whole() == "old"
    assert take(small, name)["digest"]
    small.nothing_is_left(15)


def test_on_a_disk_that_can_only_be_read_it_is_as_it_was(small: House, name: str) -> None:
    subject = Subject(small, name)
    before = names(small, name)
    run("mount", "-o", "remount,bind,ro", str(small.base))
    for answer in (ask(small, name), put_back(small, name, subject.old)):
        assert answer.status == 503, answer.body
        assert "can only be read" in answer.error
    # What cannot be deleted is not, or goes later.
    assert drop(small, name, subject.old).status in (200, 503)
    assert page(small, name) == "new"
    assert small.row(name)["status"] == "running"
    run("mount", "-o", "remount,bind,rw", str(small.base))
    small.kill()
    small.start()
    assert subject.is_whole() == "new"
    if subject.old in names(small, name):
        restore(small, name, subject.old)
        assert subject.is_whole() == "old"
    assert len(before) == 1
    small.nothing_is_left(15)


# The database goes


@pytest.fixture(scope="module")
def apart(pool: Path) -> Iterator[House]:
    """With a database of its own."""
    if postgres_folder() is None:
        pytest.skip("Postgres is not installed (apt-get install postgresql)")
    with open_folder() as made:
        house = House(made / "data", pool, None, "--sweep=0.5")
        try:
            yield house
        finally:
            house.close()


def database(house: House) -> list[int]:
    """The processes of its own."""
    path = house.data_dir / "postgres" / "postmaster.pid"
    first = int(path.read_text().split()[0])
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return [first, *map(int, children)]


def signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def is_up(house: House) -> bool:
    return house.api.get("/containers").status == 200


@pytest.mark.parametrize("how", ["stands still", "is killed"])
def test_while_the_database_is_away_nothing_is_half_done(
    apart: House, name: str, how: str
) -> None:
    kinds = ("restore", "create", "delete")
    for turn, moment in enumerate((0.02, 0.05)):
        subjects = {kind: Subject(apart, f"{name}-{turn}-{kind}") for kind in kinds}
        own = {kind: f"/containers/{each.name}/snapshots" for kind, each in subjects.items()}
        taken = take(apart, subjects["delete"].name)["name"]
        calls: dict[str, tuple[str, str]] = {
            "restore": ("PATCH", f"{own['restore']}/{subjects['restore'].old}"),
            "create": ("POST", own["create"]),
            "delete": ("DELETE", f"{own['delete']}/{taken}"),
        }
        with ThreadPoolExecutor(len(kinds)) as at_once:
            asked = {kind: at_once.submit(apart.api, *call) for kind, call in calls.items()}
            time.sleep(moment)
            pids = database(apart)
            still = how == "stands still"
            try:
                signal_all(pids, signal.SIGSTOP if still else signal.SIGKILL)
                answers = {kind: each.result() for kind, each in asked.items()}
            finally:
                if still:
                    signal_all(pids, signal.SIGCONT)
        until(lambda: is_up(apart), 30)
        for kind, answer in answers.items():
            assert answer.status in (200, 503), (kind, answer.body)
        if moment == 0.05:  # what is not written down yet is by the next server
            apart.kill()
            apart.start()
        done = subjects["restore"].has_been_put_back()
        assert done or answers["restore"].status == 503
        for kind in ("create", "delete"):
            assert subjects[kind].is_whole() == "new"
            there = len(names(apart, subjects[kind].name))
            if answers[kind].status == 200:
                assert there == {"create": 2, "delete": 1}[kind]
            assert there in (1, 2)
        for each in subjects.values():
            apart.delete(each.name)
    apart.nothing_is_left(15)
