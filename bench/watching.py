"""
What hoody is given to do while it is watched.

As in L{bench.works}: the name of each figure ends with its unit, and a run that did not
deliver exactly what it had to, to the spectators too, has no figures.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import field, frozen

from bench.processes import own_cpu, process, resident
from bench.rivals import Server, hoody_with
from bench.targets import Quantity, Target
from bench.wire import Connection, Wrong, request
from bench.works import GIB, MIB, Figures, fresh, transferred

SETTINGS = ("--max-spectators=2000",)

# Nobody twice: what two runs of the same thing differ by is not the spectators'.
NONE, AGAIN, SOME, MUTE, MANY = "none", "none again", "some", "mute", "many"

_STEP = b"x" * 65536
_STEPS_A_SECOND = 10


@frozen(kw_only=True)
class Audience:
    """
    @ivar reading: how many spectators take what they are sent.
    @ivar mute: how many never do.
    """

    reading: int = 0
    mute: int = 0

    @property
    def text(self) -> str:
        """Who that is, for a reader."""
        return f"{self.reading} who read, {self.mute} who never do"


_FULL = {
    NONE: Audience(),
    AGAIN: Audience(),
    SOME: Audience(reading=50),
    MUTE: Audience(mute=50),
    MANY: Audience(reading=950, mute=50),
}
_SMALL = {
    NONE: Audience(),
    AGAIN: Audience(),
    SOME: Audience(reading=5),
    MUTE: Audience(mute=5),
    MANY: Audience(reading=15, mute=5),
}


@frozen(kw_only=True)
class Scale:
    """
    How much there is to do in one run.

    @ivar size: bytes of a large stream.
    @ivar seconds: of a paced one.
    @ivar deafening: how many small transfers the mute spectators are told of before,
        so that nothing more goes into their kernels.
    """

    size: int = 4 * GIB
    seconds: float = 20
    deafening: int = 100
    audiences: Mapping[str, Audience] = field(factory=_FULL.copy)


# To see that all works, and to warm it up.
QUICK = Scale(size=64 * MIB, seconds=1, deafening=5, audiences=_SMALL)


@frozen
class Crowd:
    """Spectators that are there."""

    _process: subprocess.Popen[bytes]
    _audience: Audience

    def ask(self, word: str) -> dict[str, Any]:
        """@raise Wrong: with what it says, if it could not do it."""
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin
        assert stdout
        assert stderr
        try:
            # Not by its buffer: that would be tried again when it is closed.
            os.write(stdin.fileno(), word.encode())
        except BrokenPipeError:
            pass
        if not (line := stdout.readline()):
            raise Wrong(f"the spectators: {stderr.read().decode().strip().splitlines()[-1:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def told(self, size: int) -> dict[str, Any]:
        """
        What those that read were told since the mark.

        @raise Wrong: if it was not the truth, or not the same for all.
        """
        told = self.ask("tell")
        done = told["names"].get("done", 0)
        if self._audience.reading and (done != self._audience.reading or told["totals"] != [size]):
            raise Wrong(f"of {size} bytes spectators were told {told}")
        return told


@contextmanager
def _watched(server: Server, pipe: str, audience: Audience, scale: Scale) -> Iterator[Crowd]:
    """A pipe with its spectators; what they are told from then on is counted."""
    path = server.path(pipe)
    script = str(Path(__file__).with_name("spectators.py"))
    numbers = (str(audience.reading), str(audience.mute))
    command = [sys.executable, script, str(server.port), path, *numbers]
    with process(command, stdin=subprocess.PIPE) as popen:
        crowd = Crowd(popen, audience)
        crowd.ask("mute")
        # With those that read beside them, this would take a minute.
        if audience.mute:
            _deafen(server, path, scale.deafening)
        crowd.ask("open")
        crowd.ask("mark")
        yield crowd


def _deafen(server: Server, path: str, times: int) -> None:
    with Connection(server) as receiver, Connection(server) as sender:
        for _ in range(times):
            receiver.send(request("GET", path))
            sender.send(request("PUT", path, "Content-Length: 1") + b"x")
            if (told := (receiver.answer(), sender.answer()[0])) != ((200, b"x"), 200):
                raise Wrong(f"a small transfer was answered {told}")


def _paced(server: Server, pipe: str, seconds: float) -> int:
    """64 KiB each tenth of a second. @return: how many bytes that were."""
    path = server.path(pipe)
    steps = int(seconds * _STEPS_A_SECOND)
    with Connection(server) as receiver, Connection(server) as sender:
        receiver.send(request("GET", path))
        sender.send(request("PUT", path, "Transfer-Encoding: chunked"))
        start = time.monotonic()
        for number in range(steps):
            sender.send(b"%x\r\n%s\r\n" % (len(_STEP), _STEP))
            if not number and (status := receiver.status()) != 200:
                raise Wrong(f"a receiver was answered {status}")
            _take(receiver, len(_STEP))
            time.sleep(max(0, start + (number + 1) / _STEPS_A_SECOND - time.monotonic()))
        sender.send(b"0\r\n\r\n")
        rest, status = receiver.piece(), sender.answer()[0]
    if rest or status != 200:
        raise Wrong(f"the stream ended with {rest!r}, and {status}")
    return steps * len(_STEP)


def _take(receiver: Connection, count: int) -> None:
    while count:
        data = receiver.piece()
        if not data or len(data) > count:
            raise Wrong(f"{len(data)} bytes where {count} were to come")
        count -= len(data)


def _stream(server: Server, audience: Audience, scale: Scale) -> Figures:
    pipe = fresh()
    with _watched(server, pipe, audience, scale) as crowd:
        figures = transferred(server, scale.size, pipe=pipe)
        told = crowd.told(scale.size)
    return {**figures, **_of_crowd(told)}


def _paced_stream(server: Server, audience: Audience, scale: Scale) -> Figures:
    """
    Unwatched too, before or behind: what the difference is, is the spectators'.

    Without Postgres, which has no part in it, and some of whose children end between.
    """
    last = random.random() < 0.5
    alone = 0.0 if last else _paced_cpu(server, scale)
    pipe = fresh()
    with _watched(server, pipe, audience, scale) as crowd:
        before = own_cpu(server.pid)
        size = _paced(server, pipe, scale.seconds)
        watched = own_cpu(server.pid) - before
        told = crowd.told(size)
    alone = _paced_cpu(server, scale) if last else alone
    return {
        "us_per_event": (watched - alone) / told["events"] * 1e6,
        "alone_cpu_s": alone,
        "watched_cpu_s": watched,
        **_of_crowd(told),
    }


def _paced_cpu(server: Server, scale: Scale) -> float:
    """Seconds of CPU that a paced stream takes without anybody watching."""
    before = own_cpu(server.pid)
    _paced(server, fresh(), scale.seconds)
    return own_cpu(server.pid) - before


def _of_crowd(told: Mapping[str, Any]) -> Figures:
    """Of those that read; C{fewest}: events of the one who had the fewest."""
    if not told["events"]:
        return {}
    late = {name: told[name] for name in ("p50_ms", "p99_ms")}
    return {
        **late,
        "events": told["events"],
        "fewest_events": told["fewest"],
        "readers_cpu_s": told["cpu_s"],
    }


def _memory(server: Server, audience: Audience, scale: Scale) -> Figures:
    """After a first transfer that was watched: what is made once is not for each."""
    first = fresh()
    with _watched(server, first, Audience(reading=1), scale):
        _paced(server, first, 1)
    before = resident(server.pid)
    pipe = fresh()
    with _watched(server, pipe, audience, scale) as crowd:
        connected = resident(server.pid)
        size = _paced(server, pipe, scale.seconds / 5)
        crowd.told(size)
        after = resident(server.pid)
    number = (audience.reading + audience.mute) * 1024
    return {
        "each_kib": (after - before) / number,
        "each_connected_kib": (connected - before) / number,
    }


@frozen(kw_only=True)
class Work:
    """
    @ivar doc: what is done, for a reader of the figures.
    @ivar audiences: who watches, by name.
    @ivar own: whether each run needs a server of its own: memory that was used once
        would not show again.
    @ivar measure: does it once.
    """

    doc: str
    audiences: tuple[str, ...]
    own: bool = False
    measure: Callable[[Server, Audience, Scale], Figures]

    def done(self, server: Server, name: str, scale: Scale, folder: Path) -> Figures:
        """
        Do it once.

        @param server: one that runs throughout, with L{SETTINGS}.
        @param name: the audience's.
        """
        if not self.own:
            return self.measure(server, scale.audiences[name], scale)
        with hoody_with(SETTINGS, folder) as its_own:
            return self.measure(its_own, scale.audiences[name], scale)


WORKS = {
    "stream": Work(
        doc="head -c SIZE /dev/zero | curl -T -, to one curl, watched",
        audiences=(NONE, AGAIN, SOME, MUTE, MANY),
        measure=_stream,
    ),
    "paced": Work(
        doc="64 KiB each 0.1 s for 20 s, watched and not",
        audiences=(SOME, MANY),
        measure=_paced_stream,
    ),
    "memory": Work(
        doc="spectators come, and see 4 s of that", audiences=(MANY,), own=True, measure=_memory
    ),
}


def _of(work: str, audience: str, figure: str, bound: float | None) -> Target:
    return Target(Quantity(work, audience, figure), None, "<=", bound)


def _of_unwatched(audience: str, bound: float | None) -> Target:
    speed = "gb_per_s"
    of, against = (Quantity("stream", name, speed) for name in (audience, NONE))
    return Target(of, against, ">=", bound)


TARGETS = (
    _of_unwatched(SOME, 0.97),
    _of_unwatched(MUTE, None),
    _of_unwatched(MANY, 0.85),
    _of_unwatched(AGAIN, None),
    # At full speed is when the reactor has least time for them.
    _of("stream", SOME, "p99_ms", 50),
    _of("paced", SOME, "p99_ms", None),
    _of("paced", MANY, "us_per_event", 60),
    _of("memory", MANY, "each_kib", 30),
)
