"""Watching a pipe: what spectators are told, and that nobody else notices them."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import api, database_option, issue
from tests.support.postgres import Postgres, folder, open_folder, postgres
from tests.support.server import Server
from tests.support.spectators import Spectator, Told
from tests.support.wire import Wire, fill

STATE = {"state", "hasSender", "activeReceivers", "receivers", "ts"}
PROGRESS = {
    *("bytes", "bytesTransferred", "totalBytes", "percent", "speed", "mbps", "eta", "etaSec"),
    *("receivers", "elapsedSec", "ts"),
}
DONE = {
    *("state", "bytes", "bytesTransferred", "durationSec", "duration", "avgSpeed", "mbps"),
    *("receivers", "digest", "error", "startedAt", "finishedAt"),
}


def flat(server: Server, path: str, *more: str) -> dict[str, Any]:
    """The present, as JSON."""
    url = f"{server.pipe}/{path}?progress"
    command = ["curl", "-sSf", "-H", "Accept: application/json", *more, url]
    answer: dict[str, Any] = json.loads(
        subprocess.run(command, capture_output=True, check=True).stdout
    )
    assert set(answer) == STATE | PROGRESS | DONE
    return answer


def until(server: Server, path: str, **wanted: object) -> dict[str, Any]:
    """The present, as soon as it is so."""
    late = time.monotonic() + 15
    while any((now := flat(server, path))[name] != value for name, value in wanted.items()):
        assert time.monotonic() < late, now
        time.sleep(0.05)
    return now


def states(told: list[Told]) -> list[tuple[str, bool, int, int]]:
    return [
        (e.data["state"], e.data["hasSender"], e.data["activeReceivers"], e.data["receivers"])
        for e in told
        if e.name == "state"
    ]


def transfer(server: Server, path: str, body: bytes = b"hello", query: str = "") -> None:
    """A whole one."""
    with Wire(server) as receiver, Wire(server) as sender:
        receiver.get(path)
        sender.put(path + query, f"Content-Length: {len(body)}").send(body)
        sender.read_line("[INFO] Transfer complete.")


@contextmanager
def running(
    server: Server, path: str, query: str = "", framing: str = "Transfer-Encoding: chunked"
) -> Iterator[tuple[Wire, Wire]]:
    """One that runs, of which nothing has been sent; and its receiver."""
    with Wire(server) as receiver, Wire(server) as sender:
        receiver.get(path)
        sender.put(path + query, framing)
        sender.read_line("[INFO] Streaming to 1 receiver(s)...")
        yield sender, receiver


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server with options; what holds of these holds on both movers."""
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(Server(tmp_path / "data", *options))


# The story


def test_the_storys_line_prints_what_the_story_shows(server: Server, name: str) -> None:
    line = (
        'curl -N -s -H "Accept: text/event-stream" "$PIPE/api/v1/pipe/NAME?progress"'
        " | grep --line-buffered -E '^event: (progress|state|done)'"
    ).replace("NAME", name)
    watching = subprocess.Popen(
        ["sh", "-c", line],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PIPE": server.url},
    )
    assert watching.stdout is not None
    heard = [watching.stdout.readline()]
    with running(server, name) as (sender, _):
        sender.chunk(b"x" * 1000)
        while heard[-1] != "event: progress\n":
            heard.append(watching.stdout.readline())
        sender.last_chunk()
        while heard[-1] != "event: done\n":
            heard.append(watching.stdout.readline())
    subprocess.run(["pkill", "-P", str(watching.pid)], check=False)
    watching.wait()
    once = [line for place, line in enumerate(heard) if line != heard[place - 1] or not place]
    assert once == [f"event: {one}\n" for one in ("state", "progress", "state", "done")]


def test_a_transfer_is_told_of_from_before_its_beginning_to_its_end(
    server: Server, name: str
) -> None:
    with Spectator(server, name) as spectator:
        told = [spectator.next()]
        with running(server, name, "?size=4000") as (sender, _):
            sender.chunk(b"x" * 1000)
            told += spectator.until("progress", bytes=1000)
            time.sleep(0.3)
            sender.chunk(b"x" * 3000).last_chunk()
            sender.read_line("[INFO] Transfer complete.")
        told += spectator.until("done")
    assert states(told) == [
        ("idle", False, 0, 0),
        ("waiting", False, 1, 1),
        ("waiting", True, 1, 1),
        ("streaming", True, 1, 1),
        ("complete", False, 0, 1),
    ]
    assert [one.name for one in told][-3:] == ["progress", "state", "done"]
    for one in told:
        assert set(one.data) == {"state": STATE, "progress": PROGRESS, "done": DONE}[one.name]
    progress = [one.data for one in told if one.name == "progress"]
    assert progress[-1]["bytes"] == progress[-1]["bytesTransferred"] == 4000
    assert next(one["percent"] for one in progress if one["bytes"] == 1000) == 25.0
    assert progress[-1]["percent"] == 100.0
    assert {one["totalBytes"] for one in progress} == {4000}
    assert all(one["eta"] == one["etaSec"] for one in progress)
    assert all(one["mbps"] == round(one["speed"] / 1e6, 1) for one in progress)
    done = told[-1].data
    assert done["bytes"] == done["bytesTransferred"] == 4000
    assert done["state"] == "complete"
    assert done["error"] is done["digest"] is None
    assert done["duration"] == pytest.approx(done["durationSec"] * 1000, abs=1)
    assert done["startedAt"].endswith("Z")
    assert done["startedAt"] < done["finishedAt"]
    ids = [one.id for one in told]
    assert len(set(ids)) == len(ids)


def test_progress_comes_four_times_a_second(server: Server, name: str) -> None:
    with running(server, name) as (sender, _), Spectator(server, name) as spectator:
        spectator.until("progress")
        begun = time.monotonic()
        for _ in range(8):
            assert spectator.next().name == "progress"
        assert 1.5 < time.monotonic() - begun < 4
        sender.last_chunk()


def test_who_joins_midway_or_late_is_told_at_once_how_it_is(server: Server, name: str) -> None:
    with running(server, name, framing="Content-Length: 3000") as (sender, _):
        sender.send(b"x" * 1500)
        until(server, name, bytes=1500)
        with Spectator(server, name) as midway:
            first, second = midway.next(), midway.next()
            assert states([first]) == [("streaming", True, 1, 1)]
            assert (second.name, second.data["bytes"], second.data["percent"]) == (
                "progress",
                1500,
                50.0,
            )
            now = flat(server, name)
            assert (now["state"], now["totalBytes"], now["avgSpeed"]) == ("streaming", 3000, None)
            sender.send(b"x" * 1500)
            midway.until("done")
    with Spectator(server, name) as late:
        assert states([late.next()]) == [("complete", False, 0, 1)]
        assert late.next().data["bytes"] == 3000
    now = flat(server, name)
    assert (now["state"], now["bytes"], now["percent"]) == ("complete", 3000, 100.0)


def test_the_next_transfer_is_seen_in_the_same_stream(server: Server, name: str) -> None:
    with Spectator(server, name) as spectator:
        for size in (1, 22, 333):
            transfer(server, name, b"x" * size)
            told = spectator.until("done")
            assert told[-1].data["bytes"] == size
            assert [state for state, *_ in states(told)][-2:] == ["streaming", "complete"]


def test_fifty_transfers_of_a_loop_are_told_of_each_to_its_end(server: Server, name: str) -> None:
    with Spectator(server, name) as spectator:
        loop = (
            'for i in $(seq 50); do curl -s "$URL" >/dev/null &'
            ' echo $i | curl -s -T - "$URL" >/dev/null; wait; done'
        )
        url = f"{server.pipe}/{name}"
        looping = subprocess.Popen(["bash", "-c", loop], env={**os.environ, "URL": url})
        told = [event for _ in range(50) for event in spectator.until("done")]
        assert looping.wait(60) == 0
    for place, one in enumerate(told):
        if one.name == "done":
            assert told[place - 1].data["state"] == "complete"


def test_figures_are_what_the_slowest_receiver_was_given(server: Server, name: str) -> None:
    with Wire(server) as fast, Wire(server) as slow, Wire(server) as sender:
        for receiver in (fast, slow):
            receiver.get(f"{name}?n=2")
        over = threading.Event()
        reading = threading.Thread(target=_read_on, args=(fast, over))
        reading.start()
        sender.put(f"{name}?n=2", "Transfer-Encoding: chunked")
        sender.read_line("[INFO] Streaming to 2 receiver(s)...")
        sent = fill(sender)
        now = flat(server, name)
        assert 0 < now["bytes"] <= sent
        assert (now["receivers"], now["activeReceivers"]) == (2, 2)
        until(server, name, speed=0)
        assert flat(server, name)["eta"] is None
        slow.reset()
        assert until(server, name, activeReceivers=1)["receivers"] == 2
        over.set()
        fast.reset()
        reading.join()
        sender.read_all()
    assert until(server, name, state="failed")["error"]


def test_bytes_that_wait_for_a_slow_receiver_do_not_count(server: Server, name: str) -> None:
    with Wire(server) as slow, Wire(server) as sender:
        slow.get(name)
        sender.put(name, "Transfer-Encoding: chunked")
        sender.read_line("[INFO] Streaming to 1 receiver(s)...")
        sent = fill(sender)
        given = until(server, name, speed=0)["bytes"]
        arrived = fcntl.ioctl(slow.socket, termios.FIONREAD, bytes(4))
        assert 0 < given <= struct.unpack("i", arrived)[0] < sent - 500_000


def _read_on(wire: Wire, over: threading.Event) -> None:
    wire.socket.settimeout(0.1)
    while not over.is_set():
        try:
            wire.more()
        except (TimeoutError, OSError):
            continue


def test_a_failed_one_says_why_and_how_far_it_got(server: Server, name: str) -> None:
    with Spectator(server, name) as spectator:
        with running(server, name, framing="Content-Length: 5000") as (sender, receiver):
            sender.send(b"x" * 2000)
            spectator.until("progress", bytes=2000)
            sender.reset()
            receiver.answer()
        told = spectator.until("done")
    assert [state for state, *_ in states(told)][-1] == "failed"
    done = told[-1].data
    assert done["state"] == "failed"
    assert done["error"].startswith("The sender broke off")
    assert done["bytes"] == 2000
    now = flat(server, name)
    assert (now["state"], now["totalBytes"], now["percent"]) == ("failed", 5000, 40.0)


def test_what_is_complete_is_whole_whatever_was_announced(server: Server, name: str) -> None:
    with running(server, name, "?size=16M") as (sender, _):
        sender.chunk(b"x" * 5).last_chunk()
        sender.read_line("[INFO] Transfer complete.")
    now = until(server, name, state="complete")
    assert (now["bytes"], now["totalBytes"], now["percent"]) == (5, 5, 100.0)


def test_a_digest_is_told_at_the_end(server: Server, name: str) -> None:
    transfer(server, name, b"hello", "?digest=sha256")
    assert until(server, name, state="complete")["digest"] == (
        "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    )


def test_who_waits_in_vain_does_not_make_the_last_result_forgotten(
    server: Server, name: str
) -> None:
    transfer(server, name)
    until(server, name, state="complete")
    with Spectator(server, name) as spectator:
        spectator.until("done")
        with Wire(server) as curious:
            curious.get(name)
            assert states([spectator.next()]) == [("waiting", False, 1, 1)]
            assert flat(server, name)["finishedAt"] is None
        assert states([spectator.next()]) == [("complete", False, 0, 1)]
    with Spectator(server, name) as late:
        late.until("done")


# The answer


ACCEPTS = {
    None: "text/event-stream",
    "*/*": "text/event-stream",
    "text/event-stream": "text/event-stream",
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": "text/html",
    "application/json": "application/json",
    "application/json;q=0.5, text/html;q=0.4": "application/json",
    "text/html;q=0.3, application/json;q=0.3": "text/html",
    "text/event-stream;q=0.3, application/json;q=0.3": "text/event-stream",
    "application/json, text/plain, */*": "application/json",
    "image/png": "text/event-stream",
    "application/json; charset=utf-8": "application/json",
    'text/html;level="1, 2";q=0.4, application/json; q=0.3': "text/html",
}


@pytest.mark.parametrize("accept", ACCEPTS, ids=str)
def test_the_form_is_by_accept(server: Server, name: str, accept: str | None) -> None:
    with Wire(server) as wire:
        wire.get(f"{name}?progress", *([f"Accept: {accept}"] if accept else []))
        head = wire.head()
    assert head.status == 200
    assert head.headers["content-type"].startswith(ACCEPTS[accept])
    assert "Accept" in head.headers["vary"]
    assert head.headers["access-control-allow-origin"] == "*"
    assert "no-store" in head.headers["cache-control"]
    if ACCEPTS[accept] == "text/event-stream":
        assert head.headers["cache-control"] == "no-store, no-transform"
        assert head.headers["x-accel-buffering"] == "no"


def test_a_stream_begins_with_how_soon_to_come_back(server: Server, name: str) -> None:
    with Wire(server) as wire:
        wire.get(f"{name}?progress")
        assert b"retry: 2000\n" in wire.read_until(b"event: state")


@pytest.mark.parametrize("no", ["0", "false", "no"])
def test_progress_that_is_declined_is_a_plain_receiver(server: Server, name: str, no: str) -> None:
    with Wire(server) as wire:
        wire.get(f"{name}?progress={no}")
        server.waiting(1)


def test_what_cannot_be_asked_is_refused(server: Server, name: str) -> None:
    with Wire(server) as wire:
        wire.get(f"{name}?progress=perhaps")
        answer = wire.answer()
        assert (answer.status, "progress" in answer.text) == (400, True)
        wire.put(f"{name}?progress", method="HEAD")
        assert wire.answer(bodiless=True).status == 405


def test_a_path_may_have_any_name(server: Server, name: str) -> None:
    for rest in ("/progress", "//b/../c", "%C3%A4%20%22%3Cb%3E", "%2Fb", "x" * 1000):
        path = name + rest
        with Spectator(server, path) as spectator:
            assert states([spectator.next()]) == [("idle", False, 0, 0)]
            transfer(server, path)
            assert spectator.until("done")[-1].data["bytes"] == 5


def test_spectators_take_no_receivers_slot(server: Server, name: str) -> None:
    with ExitStack() as stack:
        spectators = [stack.enter_context(Spectator(server, name)) for _ in range(5)]
        assert server.counts().waiting == 0
        transfer(server, name, b"for one")
        for spectator in spectators:
            assert spectator.until("done")[-1].data["bytes"] == 7


def test_with_tokens_for_pipes_spectators_need_one_too(
    serve: Callable[..., Server], cluster: Postgres, name: str
) -> None:
    server = serve("--pipe-auth=token", database_option(cluster))
    root = api(server)
    url = f"{server.pipe}/{name}?progress"
    get = ["curl", "-s", "-H", "Accept: application/json", "-o", "/dev/null"]
    said = [*get, "-w", "%{http_code}"]
    holder, other = issue(root, "pipe"), issue(root, "read")

    def status(*more: str) -> str:
        return subprocess.run([*said, *more], capture_output=True, text=True, check=True).stdout

    assert status(url) == "401"
    assert status(url, "-H", f"Authorization: Bearer {other.token}") == "403"
    assert status(url, "-H", f"Authorization: Bearer {holder.token}") == "200"
    assert status(f"{url}&token={holder.token}") == "303"


def test_a_stream_ends_with_the_token_that_opened_it(
    serve: Callable[..., Server], cluster: Postgres, name: str
) -> None:
    server = serve("--pipe-auth=token", database_option(cluster))
    root = api(server)
    made = root("POST", "/auth/tokens", {"alias": "eye", "scopes": ["pipe"]}).data
    bearer = f"Authorization: Bearer {made['token']}"
    with Spectator(server, name, bearer) as spectator:
        spectator.next()
        assert root("DELETE", f"/auth/tokens/{made['id']}").status == 200
        assert spectator.rest() == []


def test_what_nobody_could_count_is_refused(server: Server, name: str) -> None:
    for query, header in (("?size=9E", "Content-Length: 1"), ("", f"Content-Length: {2**63}")):
        with Wire(server) as sender:
            sender.put(name + query, header)
            answer = sender.answer()
            assert answer.status == 400
            assert "8E" in answer.text or "8 EiB" in answer.text


# Limits


def test_so_many_may_watch_a_path_and_no_more(serve: Callable[..., Server], name: str) -> None:
    server = serve("--max-spectators=3", "--max-watched-paths=2")
    with ExitStack() as stack:
        spectators = [stack.enter_context(Spectator(server, name)) for _ in range(3)]
        with Spectator(server, name) as fourth:
            assert fourth.head.status == 429
            assert fourth.head.headers["retry-after"]
            assert b"3 watch this path" in fourth.wire.read_until(b"\n")
        assert flat(server, name)["state"] == "idle"
        stack.enter_context(Spectator(server, f"{name}-2"))
        with Spectator(server, f"{name}-3") as third_path:
            assert third_path.head.status == 429
            assert b"2 paths" in third_path.wire.read_until(b"\n")
        for number in range(10):
            assert flat(server, f"{name}-{number + 3}")["state"] == "idle"
        transfer(server, f"{name}-3")
        assert flat(server, f"{name}-3")["state"] == "complete"
        spectators[0].wire.close()
        assert _joins(server, name)


def _joins(server: Server, path: str) -> bool:
    late = time.monotonic() + 5
    while time.monotonic() < late:
        with Spectator(server, path) as spectator:
            if spectator.head.status == 200:
                return True
        time.sleep(0.05)
    return False


def test_where_nothing_happens_spectators_are_let_go(
    serve: Callable[..., Server], name: str
) -> None:
    server = serve("--watch-window=1s", "--pipe-ttl=4s")
    transfer(server, f"{name}-over")
    for path, first in ((name, 1), (f"{name}-over", 2)):
        with Spectator(server, path) as spectator:
            assert len(spectator.rest()) == first
    with Wire(server) as sender, Spectator(server, f"{name}-waits") as spectator:
        sender.put(f"{name}-waits", "Content-Length: 1")
        spectator.until("state", state="waiting")
        time.sleep(2)
        sender.close()
        assert states(spectator.rest()) == [("idle", False, 0, 0)]


def test_a_silent_stream_has_heartbeats(serve: Callable[..., Server], name: str) -> None:
    server = serve("--stream-timeout=1s")
    with Wire(server) as sender, Spectator(server, name) as spectator:
        spectator.next()
        spectator.wire.read_until(b"\r\n:\n")
        sender.put(name, "Content-Length: 1")
        spectator.wire.read_until(b"event: state")


def test_who_does_not_read_is_skipped_and_then_dropped(
    serve: Callable[..., Server], name: str
) -> None:
    server = serve("--stream-timeout=6s")
    with (
        Spectator(server, name) as reads,
        Spectator(server, name, buffer=2048) as sleeps,
        Spectator(server, name, buffer=2048) as never,
    ):
        for size in range(1, 301):
            transfer(server, name, b"x" * size)
            reads.until("done", bytes=size)
        # Who wakes up is given what was on the way, and then what is newest.
        late = sleeps.until("done", bytes=300)
        assert len([one for one in late if one.name == "done"]) < 200
        server.wait_until(lambda counts: counts.connections == 3, 15)
        never.rest()
        assert never.wire.ended == "reset"
        transfer(server, name)
        for spectator in (reads, sleeps):
            assert spectator.until("done")[-1].data["bytes"] == 5


def test_spectators_that_vanish_leave_nothing(server: Server, name: str) -> None:
    with running(server, name) as (sender, _):
        for _ in range(20):
            with Spectator(server, name) as spectator:
                spectator.next()
                spectator.wire.reset()
        sender.last_chunk()


# What outlives what


def test_who_comes_back_is_told_what_is_and_no_end_twice(server: Server, name: str) -> None:
    with Spectator(server, name) as spectator:
        transfer(server, name)
        last = spectator.until("done")[-1]
    with Spectator(server, name, f"Last-Event-ID: {last.id}") as again:
        assert states([again.next()]) == [("complete", False, 0, 1)]
        transfer(server, name, b"more")
        told = again.until("done")
        assert told[-1].data["bytes"] == 4
    with Spectator(server, name, f"Last-Event-ID: {last.id}") as behind:
        assert behind.until("done")[-1].data["bytes"] == 4
    with Spectator(server, name, f"Last-Event-ID: {told[-2].id}") as cut_before_the_end:
        assert cut_before_the_end.until("done")[-1].data["bytes"] == 4
    with Spectator(server, name, "Last-Event-ID: somebody-elses") as stranger:
        stranger.until("done")


def test_the_end_is_told_over_restarts_until_it_is_too_old(tmp_path: Path, name: str) -> None:
    with Server(tmp_path) as server:
        with Spectator(server, name) as spectator:
            transfer(server, name, b"hello", "?digest=sha256")
            last = spectator.until("done")[-1]
        before = flat(server, name)
    with Server(tmp_path) as server:
        assert {**flat(server, name), "ts": before["ts"]} == before
        with Spectator(server, name, f"Last-Event-ID: {last.id}") as again:
            assert states([again.next()]) == [("complete", False, 0, 1)]
            transfer(server, name, b"a new one")
            assert again.until("done")[-1].data["bytes"] == 9
    with Server(tmp_path, "--result-retention=1s", "--sweep=0.2s") as server:
        time.sleep(1)
        assert flat(server, name)["state"] == "idle"


def told(server: Server) -> list[str]:
    """The pipes whose ends are in the audit, when all that waited has been written."""
    late = time.monotonic() + 10
    while list((server.data_dir / "journal").glob("*")):
        assert time.monotonic() < late
        time.sleep(0.05)
    events = api(server).get("/events?resource_type=pipe&limit=500").data["events"]
    return [one["resource_id"] for one in events]


def test_of_a_server_that_was_killed_the_next_one_tells(
    tmp_path: Path, cluster: Postgres, name: str
) -> None:
    option = database_option(cluster)
    server = Server(tmp_path, option)
    with running(server, name, "?size=10000") as (sender, _):
        sender.chunk(b"x" * 4000)
        until(server, name, bytes=4000)
        time.sleep(7)  # what runs is put down every five seconds
        transfer(server, f"{name}-short")
        server.process.kill()
        server.process.wait()
    with Server(tmp_path, option) as server:
        now = flat(server, name)
        assert now["state"] == "failed"
        assert (now["bytes"], now["totalBytes"], now["percent"]) == (4000, 10000, 40.0)
        assert "killed" in now["error"]
        until(server, f"{name}-short", state="complete")
        assert told(server).count(name) == 1


def test_one_that_ended_just_before_the_kill_is_not_told_twice(
    tmp_path: Path, cluster: Postgres, name: str
) -> None:
    option = database_option(cluster)
    server = Server(tmp_path, option)
    with running(server, name) as (sender, _):
        sender.chunk(b"x" * 1000)
        while not (tmp_path / "running.json").exists():
            time.sleep(0.05)
        sender.last_chunk()
        sender.read_line("[INFO] Transfer complete.")
        server.process.kill()
        server.process.wait()
    assert (tmp_path / "running.json").exists()
    with Server(tmp_path, option) as server:
        assert until(server, name, state="complete")["bytes"] == 1000
        assert told(server).count(name) == 1


@pytest.fixture
def fragile() -> Iterator[tuple[Postgres, int]]:
    if folder() is None:
        pytest.skip("Postgres is not installed (apt-get install postgresql)")
    with open_folder() as made, postgres(made / "postgres") as own:
        own.run("createdb", "hoody")
        yield own, int((made / "postgres" / "data" / "postmaster.pid").read_text().split()[0])


def test_while_postgres_is_away_the_end_is_told_from_memory_and_written_later(
    tmp_path: Path, name: str, fragile: tuple[Postgres, int]
) -> None:
    own, pid = fragile
    option = f"--database={own.dsn('hoody')}"
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    with Server(tmp_path, option) as server:
        hanging = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        assert len(hanging) > len(children)
        for each in hanging:
            os.kill(each, signal.SIGSTOP)
        try:
            with Spectator(server, name) as spectator:
                transfer(server, name)
                spectator.until("done")
            assert flat(server, name)["state"] == "complete"
        finally:
            for each in hanging:
                os.kill(each, signal.SIGCONT)
        late = time.monotonic() + 15
        while not own.ask("hoody", f"SELECT 1 FROM hoody.pipe_results WHERE path = '{name}'"):
            assert time.monotonic() < late
            time.sleep(0.1)
    with Server(tmp_path, option) as server:
        assert flat(server, name)["state"] == "complete"
