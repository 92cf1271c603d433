"""The machine's clock is set while the server runs: what takes a while takes as long."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Api, api, name
from tests.support.containers import House
from tests.support.moved_clock import MovedClock, moved_clock
from tests.support.postgres import folder as programs
from tests.support.server import Server
from tests.support.wire import Wire

JUMPS = [
    pytest.param({"hours": -1}, id="an hour back"),
    pytest.param({"hours": 1}, id="an hour forward"),
    pytest.param({"days": 8}, id="eight days forward"),
    pytest.param({"days": -8}, id="eight days back"),
]
TTL = 4.0
HEARTBEAT = 0.5
BEGIN = "2026-05-04T02:54:50Z"


@pytest.fixture(scope="module")
def clock_and_folder() -> Iterator[tuple[MovedClock, Path]]:
    if programs() is None:
        pytest.skip("Postgres is not installed (apt-get install postgresql)")
    with moved_clock() as made:
        yield made


@pytest.fixture(scope="module")
def clock(clock_and_folder: tuple[MovedClock, Path]) -> MovedClock:
    return clock_and_folder[0]


@pytest.fixture(scope="module")
def shared(clock_and_folder: tuple[MovedClock, Path]) -> Iterator[Server]:
    """With a database of its own, whose clock is the same."""
    clock, folder = clock_and_folder
    clock.set(BEGIN)
    options = (f"--pipe-ttl={TTL}", f"--stream-timeout={4 * HEARTBEAT}", "--database=")
    env = {**clock.env, "HOODY_DATABASE": ""}
    with Server(folder / "data", *options, env=env) as server:
        yield server


@pytest.fixture
def root(shared: Server) -> Api:
    return api(shared)


def transfer(server: Server) -> str:
    """A pipe from one end to the other; its name."""
    pipe = name()
    with Wire(server) as receiver, Wire(server) as sender:
        receiver.get(pipe)
        sender.put(pipe, "Content-Length: 5").send(b"hello")
        assert receiver.answer().body == b"hello"
        assert sender.answer().status == 200
    return pipe


def event_of(root: Api, pipe: str, seconds: float = 3) -> dict[str, Any]:
    late = time.monotonic() + seconds
    while True:
        events = root.get("/events?event_type=pipe.completed&limit=100").data["events"]
        for event in events:
            if pipe in str(event):
                return dict(event)
        assert time.monotonic() < late, events
        time.sleep(0.05)


def is_now(clock: MovedClock, moment: str, within: float = 3) -> bool:
    return abs(datetime.fromisoformat(moment) - clock.now) < timedelta(seconds=within)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize("jump", [{}, *JUMPS])
def test_the_server_says_what_time_it_is(
    clock: MovedClock, shared: Server, root: Api, jump: dict[str, float]
) -> None:
    clock.advance(**jump)
    if jump:
        clock.is_followed_by(shared)
    made = root("POST", "/projects", {"alias": name()}).data
    assert is_now(clock, made["created_at"])
    assert is_now(clock, event_of(root, transfer(shared))["ts"])


def test_health_tells_when_the_server_was_started(clock: MovedClock, shared: Server) -> None:
    started = datetime.fromisoformat(shared.health()["started"])
    assert timedelta() <= started - datetime.fromisoformat(BEGIN) < timedelta(seconds=20)


@pytest.mark.parametrize("jump", JUMPS)
def test_who_waits_for_a_pipe_waits_as_long(
    clock: MovedClock, shared: Server, jump: dict[str, float]
) -> None:
    with Wire(shared) as before, Wire(shared) as after:
        began = time.monotonic()
        before.get(name())
        shared.waiting(1)
        time.sleep(0.5)
        clock.advance(**jump)
        after.get(name())
        began_after = time.monotonic()
        assert before.answer().status == 408
        assert time.monotonic() - began == pytest.approx(TTL, abs=0.5)
        assert after.answer().status == 408
        assert time.monotonic() - began_after == pytest.approx(TTL, abs=0.5)


@pytest.mark.parametrize("jump", JUMPS)
def test_who_is_met_in_time_gets_what_was_sent(
    clock: MovedClock, shared: Server, root: Api, jump: dict[str, float]
) -> None:
    pipe = name()
    with Wire(shared) as receiver, Wire(shared) as sender:
        receiver.get(pipe)
        shared.waiting(1)
        clock.advance(**jump)
        clock.is_followed_by(shared)
        sender.put(pipe, "Content-Length: 5").send(b"hello")
        assert receiver.answer().body == b"hello"
    event_of(root, pipe)


@pytest.mark.parametrize("jump", JUMPS)
def test_who_follows_hears_a_heartbeat_as_often(
    clock: MovedClock, shared: Server, root: Api, jump: dict[str, float]
) -> None:
    assert root.token is not None
    with Wire(shared) as follower:
        follower.send(
            b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
            b"Authorization: Bearer %s\r\n\r\n" % root.token.encode()
        )
        assert follower.head().status == 200
        for _ in range(2):
            follower.read_until(b":")
        clock.advance(**jump)
        for _ in range(6):
            began = time.monotonic()
            follower.read_until(b":")
            assert time.monotonic() - began < HEARTBEAT + 0.4


@pytest.mark.parametrize("jump", JUMPS)
def test_it_is_not_busy_with_that(
    clock: MovedClock, shared: Server, jump: dict[str, float]
) -> None:
    pid = shared.process.pid
    clock.advance(**jump)
    clock.is_followed_by(shared)
    before = cpu_seconds(pid)
    time.sleep(2)
    assert cpu_seconds(pid) - before < 0.5
    health = shared.health()
    assert health["status"] == "ok", health


def test_figures_of_the_reactor_know_nothing_of_it(
    clock: MovedClock, shared: Server, root: Api
) -> None:
    clock.advance(days=8)
    clock.is_followed_by(shared)
    time.sleep(1)
    page = Api(shared.url, root.token).get("/metrics").body
    found = re.search(r"^hoody_reactor_latency_seconds_sum (\S+)", page, re.MULTILINE)
    assert found is not None, page
    assert float(found[1]) < 60


def test_the_database_stays(clock: MovedClock, shared: Server) -> None:
    events = [event for event in shared.events if event.get("name") == "hoody.database"]
    for jump in ({"days": 30}, {"days": -30}):
        clock.advance(**jump)
        clock.is_followed_by(shared)
        time.sleep(3)  # for several signs of life
    after = [event for event in shared.events if event.get("name") == "hoody.database"]
    assert events == after


def test_it_stops_while_the_clock_is_not_what_it_was(
    clock_and_folder: tuple[MovedClock, Path],
) -> None:
    clock, folder = clock_and_folder
    options = ("--database=",)
    with Server(folder / "other", *options, env={**clock.env, "HOODY_DATABASE": ""}) as server:
        transfer(server)
        clock.advance(hours=-1)
        server.signal()
        began = time.monotonic()
        assert server.process.wait(10) == -signal.SIGTERM
        assert time.monotonic() - began < 5
    assert not (folder / "other" / "postgres" / "postmaster.pid").exists()


def test_containers_have_nothing_of_it_and_are_no_longer_idle(
    clock_and_folder: tuple[MovedClock, Path], pool: Path
) -> None:
    clock, folder = clock_and_folder
    clock.set(BEGIN)
    house = House(folder / "house", pool, None, env=clock.env)
    try:
        row = house.create("web", idle_timeout_seconds=3600)
        assert is_now(clock, row["created_at"], 10)
        house.until("web", status="running")
        for command in ("env", "cat /proc/1/environ /proc/1/maps /proc/self/maps"):
            code, said = house.run("web", command)
            assert code == 0
            assert "clock.so" not in said
            assert "PRELOAD" not in said
        clock.advance(days=8)
        clock.is_followed_by(house.server)
        time.sleep(2)  # in which who has been idle for too long is put to sleep
        stats = house.api.get("/containers/web/stats").data
        assert stats["idle_seconds"] < 60
        assert house.row("web")["status"] == "running"
        clock.advance(hours=-2)
        clock.is_followed_by(house.server)
        assert house.operate("web", "stop").status == 200
        house.until("web", status="stopped")
        assert house.operate("web", "start").status == 200
        house.until("web", status="running")
        house.nothing_is_left()
    finally:
        house.close()
