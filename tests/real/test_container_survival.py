"""
What goes wrong around containers: the server dies at work, the runtime hangs or lies. Nothing
is left of it, and what ran goes on.
"""

from __future__ import annotations

import io
import itertools
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import House
from tests.support.moody import Moody
from tests.support.postgres import Postgres
from tests.support.server import Server

SECONDS = 1.5
"""What the runtime may take: long enough for one that works, on a machine that is busy."""


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
        f"--runtime-timeout={SECONDS}",
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
    made_house.nothing_is_left()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"c{abs(hash(request.node.name)) % 10**8}"


def until(true: Any, seconds: float = 15) -> None:
    late = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < late
        time.sleep(0.05)


# The runtime


@pytest.mark.parametrize(
    ("call", "mood", "says"),
    [
        ("create", "hang", "took more than 1.5 s"),
        ("create", "late", "took more than 1.5 s"),
        ("create", "died", "signal 9 ended it"),
        ("create", "half", "signal 9 ended it"),
        ("create", "garbage", "b c"),
        ("create", "noise", "create"),
        ("create", "lie", "it said that it was done, and was not"),
        ("create", "odd", "it said that it was done, and was not"),
        ("create", "own", "it said that it was done, and was not"),
        ("start", "hang", "took more than 1.5 s"),
        ("start", "late", "took more than 1.5 s"),
        ("start", "died", "signal 9 ended it"),
        ("start", "noise", "start"),
    ],
)
def test_a_start_that_fails_says_why_and_leaves_nothing(
    house: House, moody: Moody, name: str, call: str, mood: str, says: str
) -> None:
    row = house.create(name, egress="nat", start=False)
    before = house.server.steady()
    moody.be(**{call: mood})
    answer = house.operate(name, "start")
    assert answer.status == 503
    assert says in answer.error, answer.error
    assert len(answer.error) < 1000
    failed = house.row(name)
    assert failed["status"] == "failed"
    assert says in failed["status_reason"]
    assert not house.pids(row["id"])
    until(lambda: _left_of_runs(house) == {}, 5)
    assert not moody.runs
    house.server.settle(before)
    moody.be()
    assert house.operate(name, "start").status == 200
    assert house.get(name)[0] == 200


def _left_of_runs(house: House) -> dict[str, list[str]]:
    return {what: some for what, some in house.left.items() if some and what != "subvolumes"}


@pytest.mark.parametrize(
    ("operation", "mood"),
    [("stop", "hang"), ("stop", "noise"), ("restart", "died"), ("delete", "hang")],
)
def test_what_runs_is_stopped_whatever_the_runtime_does(
    house: House, moody: Moody, name: str, operation: str, mood: str
) -> None:
    row = house.create(name, egress="nat")
    moody.be(delete=mood)
    if operation == "delete":
        assert house.api("DELETE", f"/containers/{name}").status == 200
        assert house.names == []
        return
    assert house.operate(name, operation).status == 200
    assert bool(house.pids(row["id"])) == (operation == "restart")
    assert house.row(name)["status"] == {"stop": "stopped", "restart": "running"}[operation]


def test_a_paused_container_is_stopped_though_the_runtime_hangs(
    house: House, moody: Moody, name: str
) -> None:
    row = house.create(name, egress="none")
    house.operate(name, "pause")
    moody.be(delete="hang")
    assert house.operate(name, "stop").status == 200
    assert not house.pids(row["id"])


def test_a_runtime_that_hangs_does_not_outlive_a_server_that_is_killed(
    house: House, moody: Moody, name: str
) -> None:
    """It would make a container behind the back of the next one."""
    house.create(name, egress="none", start=False)
    moody.be(create="stuck")
    asking = _ask(house, "POST", f"/containers/{name}/start")
    until(lambda: moody.runs)
    house.kill()
    until(lambda: not moody.runs)
    asking.wait()
    moody.be()
    house.start()
    house.until(name, status="running")


def test_others_do_not_wait_for_a_runtime_that_hangs(
    house: House, moody: Moody, name: str
) -> None:
    house.create(name, egress="none")
    house.create(f"{name}-b", egress="none", start=False)
    moody.be(create="hang")
    asking = _ask(house, "POST", f"/containers/{name}-b/start")
    until(lambda: house.row(f"{name}-b")["status"] == "stopped" and moody.runs)
    begun = time.monotonic()
    assert house.get(name)[0] == 200
    assert house.operate(f"{name}-b", "stop").status == 409
    assert time.monotonic() - begun < 1
    asking.wait()


# The server


def _ask(house: House, method: str, path: str, *more: str) -> subprocess.Popen[bytes]:
    words = ["-s", "-m", "20", "-X", method, "-H", f"Authorization: Bearer {house.api.token}"]
    url = f"{house.server.url}/api/v1{path}"
    return subprocess.Popen(["curl", *words, *more, url], stdout=subprocess.DEVNULL)


class Load:
    """Clients who ask containers all the time, wherever the server is just now."""

    def __init__(self, house: House, names: list[str]) -> None:
        self._house = house
        self.answers: dict[str, list[int]] = {name: [] for name in names}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._go_on, args=(each,)) for each in names * 2]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self, name: str) -> None:
        while not self._over.is_set():
            try:
                status, _ = self._house.get(name)
            except subprocess.CalledProcessError:
                status = 0  # there was no server
            self.answers[name].append(status)

    def until_answered(self, times: int = 3) -> None:
        """All of them, from now on."""
        seen = {name: len(answers) for name, answers in self.answers.items()}
        for name, answers in self.answers.items():
            until(lambda a=answers, s=seen[name]: a[s:].count(200) >= times)


def test_killed_under_load_the_server_comes_back_to_all_as_it_was(
    house: House, name: str, tmp_path: Path
) -> None:
    names = [f"{name}-{each}" for each in "abc"]
    ids = [house.create(each, egress="nat")["id"] for each in names]
    slow = "trap '' TERM; while :; do sleep 0.1; done"
    stopping = house.create(f"{name}-s", egress="none", command=slow)["id"]
    house.create(f"{name}-d", egress="nat")
    image = tmp_path / "image.tar"
    with tarfile.open(image, "w") as archive:
        entry = tarfile.TarInfo("./big")
        entry.size = 30_000_000
        archive.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    pids = [house.pids(each) for each in ids]
    with Load(house, names) as load:
        load.until_answered()
        for turn in range(2):
            asking = [
                _ask(
                    house, "POST", f"/images?name={name}", "-T", str(image), "--limit-rate", "9M"
                ),
                _ask(house, "POST", f"/containers/{name}-s/stop"),
            ]
            time.sleep(0.5)
            asking += [
                _ask(
                    *(house, "POST", "/projects/default/containers"),
                    *("-d", f'{{"name": "{name}-new{turn}"}}'),
                ),
                _ask(
                    house,
                    "POST",
                    f"/containers/{names[0]}/copy",
                    "-d",
                    f'{{"name": "{name}-c{turn}"}}',
                ),
                _ask(house, "DELETE", f"/containers/{name}-d"),
            ]
            time.sleep(0.04 * (turn + 1))
            house.kill()
            for each in asking:
                each.wait()
            house.start()
            load.until_answered()
    for container_id, before in zip(ids, pids, strict=True):
        assert set(before) <= set(house.pids(container_id))
    assert {status for answers in load.answers.values() for status in answers} <= {0, 200, 503}
    assert house.until(f"{name}-s", status="stopped")["status_reason"] == "manual"
    assert not house.pids(stopping)
    settled = {"running", "stopped", "failed"}
    until(lambda: all(house.row(each)["status"] in settled for each in house.names))
    rows = {house.row(each)["id"] for each in house.names}
    assert {path.name for path in (house.base / "containers").iterdir()} - {".probe"} == rows
    assert not list((house.base / "uploads").iterdir())
    images = [each["id"] for each in house.api.get("/images").data["images"]]
    assert [path.name for path in (house.base / "images").iterdir()] == images


def test_who_is_asked_for_while_being_made_is_made(house: House, name: str) -> None:
    """A request starts it before its maker does: neither minds the other."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            house.get(name)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for each in asking:
        each.start()
    try:
        for _ in range(4):
            row = house.create(name, egress="none")
            assert row["status"] == "running"
            house.delete(name)
    finally:
        stop.set()
        for each in asking:
            each.join()


def test_that_it_ended_while_nobody_looked_is_told(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    house.kill()
    house.end_processes()
    house.start()
    assert house.until(name, status="stopped")["status_reason"] == "it ended while nobody looked"
    events = house.api.get(f"/events?container_id={row['id']}").data["events"]
    assert events[0]["event_type"] == "container.stopped"
    assert events[0]["data"]["reason"] == "it ended while nobody looked"
    assert events[0]["actor"] == "server"


def test_what_runs_is_reached_where_containers_cannot_be(house: House, name: str) -> None:
    row = house.create(name, egress="nat")
    house.create(f"{name}-s", egress="none", start=False)
    house.server.stop()
    pids = house.pids(row["id"])
    (house.base / "database").rename(house.base / "mark")
    try:
        with Server(house.data_dir, *house.options, env=house.env) as server:
            house.server = server
            until(lambda: house.part["status"] == "off")
            assert "not where the containers are" in house.part["problem"]
            assert house.get(name)[0] == 200
            assert house.get(f"{name}-s")[0] == 503
            assert house.get("nobody")[0] == 404
            assert house.operate(name, "stop").status == 503
            assert house.row(name)["status"] == "running"
        with Server(house.data_dir, *house.options, "--containers=off", env=house.env) as server:
            house.server = server
            until(lambda: house.part["status"] == "off")
            until(lambda: house.get(name)[0] == 200)
    finally:
        (house.base / "mark").rename(house.base / "database")
    house.start()
    house.still_runs(row["id"], pids)
    assert house.row(name)["status"] == "running"


def test_a_start_that_breaks_says_so(house: House, name: str) -> None:
    """Not that it goes on for ever."""
    row = house.create(name, egress="none")
    house.server.stop()
    runtime = Path("/run/hoody") / house.server_id / "runtime"
    runtime.rename(runtime.with_suffix(".away"))
    images = house.base / "images"
    images.rename(images.with_suffix(".away"))
    images.write_text("no folder")
    try:
        with Server(house.data_dir, *house.options, env=house.env) as server:
            house.server = server
            until(lambda: house.part["status"] == "off")
            assert house.get(name)[0] == 200
    finally:
        images.unlink()
        images.with_suffix(".away").rename(images)
        shutil.rmtree(runtime, ignore_errors=True)
        runtime.with_suffix(".away").rename(runtime)
    house.start()
    assert house.pids(row["id"])


# Two of them


def test_two_servers_of_one_machine_leave_each_other_alone(
    house: House, name: str, pool: Path, cluster: Postgres, tmp_path: Path
) -> None:
    mine = house.create(name, egress="nat")
    pids = house.pids(mine["id"])
    other = House(tmp_path / "data", pool, cluster, "--container-network=198.19.208.0/20")
    try:
        theirs = other.create(name, egress="nat")
        for a, b in itertools.permutations((house, other)):
            a.kill()
            a.start()
            assert b.get(name)[0] == 200
        house.still_runs(mine["id"], pids)
        assert other.pids(theirs["id"])
        for each in (house, other):
            assert each.row(name)["status"] == "running"
            assert _has_rules(each)
            assert each.left["links"]
        other.nothing_is_left()
        other.server.stop()
        assert not _has_rules(other)
        assert _has_rules(house)
        assert house.left["links"]
        assert house.run(name, "ip route get 1.1.1.1")[0] == 0
        other.start()
    finally:
        other.close()
    assert house.get(name)[0] == 200
    house.still_runs(mine["id"], pids)


def _has_rules(house: House) -> bool:
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    return f"hoody_{house.server_id[-8:]}" in listed.stdout


def test_a_second_server_of_the_same_folder_is_refused(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    with pytest.raises(AssertionError, match="Another hoody"):
        Server(house.data_dir, *house.options, env=house.env)
    assert house.get(name)[0] == 200
    assert house.pids(row["id"])
