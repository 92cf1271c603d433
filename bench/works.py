"""
What the servers are given to do.

The name of each figure ends with its unit. A run that did not deliver exactly
what it had to raises L{Wrong}, and has no figures.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import frozen

from bench.curl import transfer
from bench.processes import cpu, resident
from bench.rivals import HAPROXY, HOODY, PIPING, PORTABLE, SINK, Server, serving
from bench.wire import Connection, Wrong, request

GIB = 1 << 30
MIB = 1 << 20

_FAN = 16
_MESSAGE = b"x" * 1024
# Seconds. Who needs more than that for its messages is slow enough to be told so.
_LONGEST_EXCHANGE = 5

Figures = dict[str, float]

_numbers = itertools.count(1)


@frozen(kw_only=True)
class Scale:
    """
    How much there is to do in one run.

    @ivar size: bytes of a large stream. Of a quarter of it where a run has two, or
        many receivers.
    @ivar messages: how many of 1 KiB; a tenth more to warm up, and of the bytes too.
    @ivar steps: how many single bytes.
    @ivar waiting: how many receivers: as many as hoody admits by default.
    """

    size: int = 4 * GIB
    messages: int = 2000
    steps: int = 5000
    waiting: int = 1000


# To see that all works, and to warm it up.
QUICK = Scale(size=64 * MIB, messages=50, steps=500)


@frozen(kw_only=True)
class Work:
    """
    @ivar doc: what is done, for a reader of the figures.
    @ivar servers: who does it, by name.
    @ivar measure: does it once. It is given a folder that stays from run to run.
    """

    doc: str
    servers: tuple[str, ...]
    measure: Callable[[Server, Scale, Path], Figures]


def fresh() -> str:
    """
    A pipe's name that nobody has used: on one path, the next transfer would
    also wait until the server has noticed the end of the former, and
    piping-server refuses who comes too early.
    """
    return f"bench-{next(_numbers)}"


def _stream(server: Server, scale: Scale, folder: Path) -> Figures:
    return transferred(server, scale.size)


def _file(server: Server, scale: Scale, folder: Path) -> Figures:
    return transferred(server, scale.size, file=_sparse(folder / f"{scale.size}", scale.size))


def _sparse(path: Path, size: int) -> Path:
    """A file of zeros that takes no room on the disk, and is in memory already."""
    if not path.exists():
        path.touch()
        os.truncate(path, size)
        with path.open("rb", buffering=0) as file:
            while file.read(MIB):
                pass
    return path


def _fan(server: Server, scale: Scale, folder: Path) -> Figures:
    single = transferred(server, scale.size // 4)
    fan = transferred(server, scale.size // 4, receivers=_FAN)
    return {
        "n16_gb_per_s": fan["gb_per_s"],
        "n16_cpu_s_per_gib": fan["cpu_s_per_gib"],
        "n1_cpu_s_per_gib": single["cpu_s_per_gib"],
    }


def transferred(
    server: Server,
    size: int,
    *,
    receivers: int = 1,
    file: Path | None = None,
    pipe: str | None = None,
) -> Figures:
    """By the bytes delivered, to all receivers together, on a pipe of its own if none is given."""
    pipe = pipe or fresh()
    before = cpu(server.pid)
    seconds = transfer(server, pipe, size, receivers=receivers, file=file)
    used = cpu(server.pid) - before
    if server.log is not None:
        _check_mover(server, server.log, pipe, size)
    delivered = size * receivers
    return {"gb_per_s": delivered / seconds / 1e9, "cpu_s_per_gib": used / (delivered / GIB)}


def _check_mover(server: Server, log: Path, pipe: str, size: int) -> None:
    """@raise Wrong: if the bytes did not go the way that the figures will be taken for."""
    deadline = time.monotonic() + 5
    while (line := re.search(rf"pipe '{pipe}' moved {size} bytes .*", log.read_text())) is None:
        if time.monotonic() > deadline:
            raise Wrong(f"the log says nothing of {pipe}")
        time.sleep(0.01)
    if ("spliced" in line[0]) is not (server.name == HOODY):
        raise Wrong(f"another mover than {server.name}'s: {line[0]}")


def _waiting(server: Server, scale: Scale, folder: Path) -> Figures:
    """On a server of its own: memory that was used once would not show again."""
    with serving(server.name, folder) as fresh:
        earlier = transferred(fresh, scale.size // 4)
        before = resident(fresh.pid)
        with _crowd(fresh, scale.waiting) as crowd:
            each = (resident(fresh.pid) - before) / scale.waiting
            status = _status_of_one_more(fresh)
            # Its receiver takes this one's place.
            crowd.pop().close()
            _wait_for(fresh, scale.waiting - 1)
            beside = transferred(fresh, scale.size // 4)
        _wait_for(fresh, 0)
        after = transferred(fresh, scale.size // 4)
    return {
        "each_kib": each / 1024,
        "one_more_status": status,
        "beside_gb_per_s": beside["gb_per_s"],
        # Before and after, so that a machine that grows slower is slower for both.
        "alone_gb_per_s": (earlier["gb_per_s"] + after["gb_per_s"]) / 2,
    }


@contextmanager
def _crowd(server: Server, number: int) -> Iterator[list[Connection]]:
    """Receivers that wait, each on its path."""
    with ExitStack() as stack:
        crowd = [stack.enter_context(Connection(server)) for _ in range(number)]
        for connection in crowd:
            connection.send(request("GET", server.path(fresh())))
        _wait_for(server, number)
        yield crowd


def _wait_for(server: Server, number: int) -> None:
    """Return when so many wait, by the server's own count."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with Connection(server) as connection:
            connection.send(request("GET", "/health"))
            health = json.loads(connection.answer()[1])
        if health["parts"]["pipes"]["waiting"] == number:
            return
        time.sleep(0.02)
    raise Wrong(f"there are not {number} waiting, but {health['parts']['pipes']}")


def _status_of_one_more(server: Server) -> int:
    with Connection(server) as connection:
        connection.send(request("GET", server.path(fresh())))
        return connection.status()


def _messages(server: Server, scale: Scale, folder: Path) -> Figures:
    """On two connections that are kept, and from a single process, so all take turns."""
    with Connection(server) as receiver, Connection(server) as sender:
        _exchange(server, receiver, sender, scale.messages // 10)
        start = time.perf_counter()
        count = _exchange(server, receiver, sender, scale.messages)
        seconds = time.perf_counter() - start
    return {"messages_per_s": count / seconds}


def _exchange(server: Server, receiver: Connection, sender: Connection, most: int) -> int:
    """@return: how many messages went, C{most} if they were quick enough."""
    length = f"Content-Length: {len(_MESSAGE)}"
    deadline = time.monotonic() + _LONGEST_EXCHANGE
    for number in range(most):
        if time.monotonic() > deadline:
            return number
        path = server.path(fresh())
        receiver.send(request("GET", path))
        sender.send(request("PUT", path, length) + _MESSAGE)
        received, told = receiver.answer(), sender.answer()
        if received != (200, _MESSAGE) or told[0] != 200:
            raise Wrong(f"a message was answered with {received} and {told}")
    return most


def _steps(server: Server, scale: Scale, folder: Path) -> Figures:
    """Each byte is sent when the former has arrived."""
    path = server.path(fresh())
    with Connection(server) as receiver, Connection(server) as sender:
        receiver.send(request("GET", path))
        sender.send(request("PUT", path, "Transfer-Encoding: chunked"))
        sender.send(b"1\r\nx\r\n")
        # The head comes with the first byte, or before it.
        if receiver.status() != 200 or receiver.piece() != b"x":
            raise Wrong("the stream did not start")
        for _ in range(scale.steps // 10):
            _step(sender, receiver)
        took = [_step(sender, receiver) for _ in range(scale.steps)]
        sender.send(b"0\r\n\r\n")
        rest, status = receiver.piece(), sender.answer()[0]
        if rest or status != 200:
            raise Wrong(f"the stream ended with {rest!r}, and {status}")
    percentiles = statistics.quantiles(took, n=100, method="inclusive")
    return {"p50_us": percentiles[49] * 1e6, "p99_us": percentiles[98] * 1e6}


def _step(sender: Connection, receiver: Connection) -> float:
    """Seconds of one byte's way."""
    start = time.perf_counter()
    sender.send(b"1\r\nx\r\n")
    data = receiver.piece()
    seconds = time.perf_counter() - start
    if data != b"x":
        raise Wrong(f"a byte became {data!r}")
    return seconds


_EVERYBODY = (HOODY, PORTABLE, PIPING, HAPROXY, SINK)
_PIPES = (HOODY, PORTABLE, PIPING)

WORKS = {
    "stream": Work(
        doc="head -c SIZE /dev/zero | curl -T -, to one curl",
        servers=_EVERYBODY,
        measure=_stream,
    ),
    "file": Work(
        doc="a file of SIZE, so with a length, to one curl", servers=_EVERYBODY, measure=_file
    ),
    "fan": Work(
        doc="a stream of SIZE / 4 to 16 receivers, and to one",
        servers=(HOODY, PORTABLE),
        measure=_fan,
    ),
    "waiting": Work(
        doc="1,000 receivers wait; a stream of SIZE / 4 beside them, and alone",
        servers=(HOODY,),
        measure=_waiting,
    ),
    "messages": Work(
        doc="1 KiB from a PUT to a GET, one after another", servers=_PIPES, measure=_messages
    ),
    "steps": Work(doc="a stream byte by byte", servers=_PIPES, measure=_steps),
}
