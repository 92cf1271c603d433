"""Libraries for server-sent events that people have: each reads a pipe's progress to its end."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse

from tests.support.server import Server
from tests.support.wire import Wire

EVENTSOURCE = Path(__file__).parents[2] / ".node" / "node_modules" / "eventsource"
Told = list[tuple[str, dict[str, object]]]
Listen = Callable[[str], Told]


def by_httpx(over: threading.Event, url: str, told: Told) -> None:
    """As its documentation has it: who is cut off comes back with the last id."""
    last, pause = "", 0.1
    while not over.is_set():
        try:
            with (
                httpx.Client(timeout=3) as client,
                connect_sse(client, "GET", url, headers={"Last-Event-ID": last}) as source,
            ):
                for event in source.iter_sse():
                    last, pause = event.id, _pause(event, pause)
                    told.append((event.event, event.json()))
                    if over.is_set():
                        return
        except httpx.TransportError:
            time.sleep(min(pause, 0.2))


def _pause(event: ServerSentEvent, former: float) -> float:
    return former if event.retry is None else event.retry / 1000


@pytest.fixture
def httpx_sse() -> Iterator[Listen]:
    over, threads = threading.Event(), []

    def listen(url: str) -> Told:
        told: Told = []
        threads.append(threading.Thread(target=by_httpx, args=(over, url, told), daemon=True))
        threads[-1].start()
        return told

    yield listen
    over.set()


SCRIPT = """
const { EventSource } = require(process.argv[1]);
const source = new EventSource(process.argv[2]);
for (const name of ["state", "progress", "done"])
    source.addEventListener(name, (event) => console.log(name, event.data));
"""


@pytest.fixture
def node() -> Iterator[Listen]:
    if not EVENTSOURCE.exists():
        pytest.skip("npm's eventsource is missing (script/test installs it)")
    processes = []

    def listen(url: str) -> Told:
        told: Told = []
        process = subprocess.Popen(
            ["node", "-e", SCRIPT, str(EVENTSOURCE), url], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                name, _, data = line.partition(" ")
                told.append((name, json.loads(data)))

        threading.Thread(target=read, daemon=True).start()
        return told

    yield listen
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("client", ["httpx_sse", "node"])
def test_it_comes_back_after_a_restart_and_misses_and_repeats_no_end(
    tmp_path: Path, name: str, client: str, request: pytest.FixtureRequest
) -> None:
    listen: Listen = request.getfixturevalue(client)
    first = Server(tmp_path)
    told = listen(f"{first.pipe}/{name}?progress")
    _until(lambda: bool(told))
    _transfer(first, name, b"1")
    _until(lambda: len(_ends(told)) == 1)
    first.stop()
    before = len(told)
    with Server(tmp_path, listen=f"tcp:{first.port}:interface=127.0.0.1") as second:
        _until(lambda: len(told) > before)
        assert told[before][1]["state"] == "complete"
        _transfer(second, name, b"22")
        _until(lambda: len(_ends(told)) == 2)
        time.sleep(0.3)
    assert _ends(told) == [1, 2]


def _ends(told: Told) -> list[object]:
    return [data["bytes"] for event, data in told if event == "done"]


def _transfer(server: Server, path: str, body: bytes) -> None:
    with Wire(server) as receiver, Wire(server) as sender:
        receiver.get(path)
        sender.put(path, f"Content-Length: {len(body)}").send(body)
        sender.read_line("[INFO] Transfer complete.")


def _until(wanted: Callable[[], bool]) -> None:
    late = time.monotonic() + 20
    while not wanted():
        assert time.monotonic() < late
        time.sleep(0.05)
