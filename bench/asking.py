"""
A client that asks for small things all the while, in a process of its own: what the measurement
does besides must not be in its figures.

It asks until its stdin ends, then writes on stdout, as JSON, when each question was asked, in
seconds since 1970, and how many seconds its answer took, by what was asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from attrs import define, field, frozen

from bench.processes import process
from bench.wire import Connection, Wrong, request

HEALTH, PROJECTS, PIPE = "health", "projects", "pipe"
_EVERY = 0.02
_ROOT = Path(__file__).parents[1]
_PATH = "/api/v1/pipe/asked"


@frozen
class _There:
    port: int


def _get(asked: Connection, path: str, *headers: str) -> None:
    asked.send(request("GET", path, *headers))
    status, _ = asked.answer()
    if status != 200:
        raise Wrong(f"{path}: {status}")


def _pipe(sender: Connection, receiver: Connection) -> None:
    """Until the receiver has it, and the sender has been told so."""
    receiver.send(request("GET", _PATH))
    sender.send(request("PUT", _PATH, "Content-Length: 5") + b"small")
    if receiver.answer() != (200, b"small") or sender.answer()[0] != 200:
        raise Wrong("the pipe broke")


def _asks(port: int, token: str) -> Mapping[str, Callable[[], None]]:
    one, other, sender, receiver = (Connection(_There(port)) for _ in range(4))
    bearer = f"Authorization: Bearer {token}"
    return {
        HEALTH: partial(_get, one, "/health"),
        PROJECTS: partial(_get, other, "/api/v1/projects", bearer),
        PIPE: partial(_pipe, sender, receiver),
    }


def _go_on(ask: Callable[[], None], over: threading.Event) -> list[tuple[float, float]]:
    answers = []
    while not over.wait(_EVERY):
        asked, began = time.time(), time.perf_counter()
        ask()
        answers.append((asked, time.perf_counter() - began))
    return answers


def main() -> int:
    over = threading.Event()
    asks = _asks(int(sys.argv[1]), sys.argv[2])
    with ThreadPoolExecutor(len(asks)) as pool:
        going = {name: pool.submit(_go_on, ask, over) for name, ask in asks.items()}
        print("begun", flush=True)
        sys.stdin.read()
        over.set()
        json.dump({name: each.result() for name, each in going.items()}, sys.stdout)
    return 0


@define(eq=False)
class Asked:
    """@ivar answers: when it is over, what it has found."""

    answers: dict[str, list[tuple[float, float]]] = field(factory=dict, init=False)

    def between(self, since: float, until: float, what: str | None = None) -> list[float]:
        """Seconds that answers took for which somebody waited in that time."""
        return [
            seconds
            for name, answers in self.answers.items()
            for asked, seconds in answers
            if what in (None, name) and asked + seconds > since and asked < until
        ]


@contextmanager
def asking(port: int, token: str) -> Iterator[Asked]:
    """@raise Wrong: behind it, if an answer was not what it has to be."""
    command = [sys.executable, "-m", "bench.asking", str(port), token]
    with process(command, stdin=subprocess.PIPE, stderr=None, cwd=_ROOT) as client:
        assert client.stdout is not None
        client.stdout.readline()
        asked = Asked()
        yield asked
        said, _ = client.communicate(timeout=60)
        if client.returncode != 0:
            raise Wrong("who asked has had an answer that is none")
        asked.answers |= json.loads(said)


if __name__ == "__main__":
    sys.exit(main())
