"""A container's snapshots: asked for by curl, and looked for on the disk."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.support.api import Answer
from tests.support.containers import House

PAGE = "/var/www/index.html"
"""What a container of busybox answers with."""


def until(true: Callable[[], object], seconds: float = 20) -> None:
    """Return when it is so."""
    late = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < late
        time.sleep(0.05)


def ask(house: House, name: str, **fields: object) -> Answer:
    """Have a snapshot taken, or not."""
    return house.api("POST", f"/containers/{name}/snapshots", fields or None)


def take(house: House, name: str, **fields: object) -> dict[str, Any]:
    """One that can be: its row."""
    answer = ask(house, name, **fields)
    assert answer.status == 200, answer.body
    row: dict[str, Any] = answer.data["snapshot"]
    return row


def put_back(house: House, name: str, snapshot: str, method: str = "PATCH") -> Answer:
    return house.api(method, f"/containers/{name}/snapshots/{snapshot}")


def restore(house: House, name: str, snapshot: str) -> dict[str, Any]:
    """One that can be. @return: the row of what was restored."""
    answer = put_back(house, name, snapshot)
    assert answer.status == 200, answer.body
    assert answer.data["success"] is True
    row: dict[str, Any] = answer.data["snapshot"]
    return row


def drop(house: House, name: str, snapshot: str) -> Answer:
    return house.api("DELETE", f"/containers/{name}/snapshots/{snapshot}")


def listed(house: House, name: str) -> list[dict[str, Any]]:
    """Newest first."""
    rows: list[dict[str, Any]] = house.api.get(f"/containers/{name}/snapshots").data["snapshots"]
    return rows


def names(house: House, name: str) -> list[str]:
    """Newest first."""
    return [each["name"] for each in listed(house, name)]


def undos(house: House, name: str) -> list[str]:
    """Newest first."""
    return [each for each in names(house, name) if each.startswith("undo-")]


def verified(house: House, name: str, snapshot: str) -> dict[str, Any]:
    """What comes of reading all of it anew, as soon as it has been read once."""
    path = f"/containers/{name}/snapshots/{snapshot}/verify"
    late = time.monotonic() + 20
    while (answer := house.api.get(path)).status == 409 and "no digest yet" in answer.error:
        assert time.monotonic() < late, answer.body
        time.sleep(0.1)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.data
    return found


def compared(house: House, name: str, before: str, after: str, query: str = "") -> dict[str, Any]:
    answer = house.api.get(f"/containers/{name}/snapshots/{before}/diff/{after}{query}")
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.data
    return found


def write(house: House, name: str, text: str, file: str = PAGE) -> None:
    code, said = house.run(name, f"printf %s '{text}' > {file}")
    assert code == 0, said


def noise(house: House, name: str, file: str, size: int) -> None:
    """So many bytes that no two places have in common."""
    code, said = house.run(name, f"head -c {size} /dev/urandom > {file}")
    assert code == 0, said


def page(house: House, name: str) -> str:
    """What it answers; a request that starts it is as good as any."""
    status, said = house.get(name)
    assert status == 200, said
    return said.decode()


def folder(house: House, container_id: str) -> Path:
    return house.base / "containers" / container_id


def kept(house: House, container_id: str) -> list[Path]:
    """The folders of all snapshots of which something is on the disk."""
    return sorted((folder(house, container_id) / "snapshots").glob("*"))


def strays(house: House, name: str) -> list[str]:
    """What is on the disk and should not be: of what was begun, and of what nobody knows."""
    place = folder(house, house.row(name)["id"])
    found = [str(path) for path in (place / "next", place / "state/returned") if path.exists()]
    there, rows = len(kept(house, place.name)), len(listed(house, name))
    return found if there == rows else [*found, f"{there} snapshots on the disk, and {rows} rows"]


def is_tidy(house: House, name: str) -> None:
    """Soon all that is on the disk is known, and nothing else is."""
    late = time.monotonic() + 15
    while found := strays(house, name):
        assert time.monotonic() < late, found
        time.sleep(0.1)


def events(house: House, container_id: str) -> list[dict[str, Any]]:
    """Of its snapshots, oldest first."""
    path = f"/events?container_id={container_id}&resource_type=snapshot&sort_order=asc&limit=500"
    found: list[dict[str, Any]] = house.api.get(path).data["events"]
    return found


def started(house: House, method: str, path: str, *more: str) -> subprocess.Popen[bytes]:
    """Something that is asked for while other things are done."""
    words = ["-s", "-m", "60", "-X", method, "-H", f"Authorization: Bearer {house.api.token}"]
    url = f"{house.server.url}/api/v1{path}"
    return subprocess.Popen(
        ["curl", *words, *more, url], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


class Visitors:
    """
    Some who ask a container for its page all the time.

    @ivar answers: the status and the body of each, in the order in which they came.
    """

    def __init__(self, house: House, name: str, count: int = 4) -> None:
        self._url = f"http://{name}.containers.hoody.localhost:{house.server.port}/"
        self.answers: list[tuple[int, str]] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._go_on) for _ in range(count)]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._threads:
            each.join()

    def _go_on(self) -> None:
        words = ["curl", "-s", "-m", "60", "-w", "%{http_code}", self._url]
        while not self._over.is_set():
            said = subprocess.run(words, capture_output=True, check=False).stdout
            self.answers.append((int(said[-3:] or 0), said[:-3].decode("utf-8", "replace")))

    def until_more(self, count: int = 8) -> None:
        wanted = len(self.answers) + count
        until(lambda: len(self.answers) >= wanted, 60)


class Readers:
    """
    Those processes that read what is in the snapshots of one container stand still for as long
    as this lasts. What the server reads on its own behalf of others, and the sweep, go on.

    @ivar held: their pids.
    """

    def __init__(self, house: House, container_id: str) -> None:
        self._container_id = container_id
        self._tasks = Path(f"/proc/{house.server.process.pid}/task")
        self.held: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for pid in self.held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @property
    def alive(self) -> list[int]:
        """Of those that are held."""
        return [pid for pid in self.held if self._is_one(pid)]

    def _is_one(self, pid: int) -> bool:
        words = _words(pid)
        return "hoody.manifests" in words and self._container_id in words

    def _look(self) -> None:
        # One takes tens of milliseconds until it has begun to read.
        while not self._over.wait(0.002):
            for pid in self._children:
                if pid not in self.held and self._is_one(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGSTOP)
                        self.held.append(pid)

    @property
    def _children(self) -> list[int]:
        found = []
        for path in self._tasks.glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(word) for word in path.read_text().split()]
        return found


def _words(pid: int) -> list[str]:
    """Of its command line; none of one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def told(house: House, method: str, path: str, *more: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of an answer that is told as it goes."""
    answer = house.api(method, path, None, "-H", "Accept: text/event-stream", "-m", "60", *more)
    assert answer.status == 200, answer.body
    assert "text/event-stream" in answer.headers
    found = []
    for block in answer.body.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found
