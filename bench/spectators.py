"""
Many spectators in one process. Run as C{spectators.py PORT PATH READING MUTE}.

What they cost must not be taken for the server's: so one process is all of them, and
while it counts does nothing but read(2) and look at the clock. What came is made sense
of when somebody asks.

The mute ones take a little into their kernel and never read it. That they were
answered is seen by MSG_PEEK, which leaves the answer where it is.

It is led by words on its standard input, and answers each by a line of JSON:
C{mute} and C{open} connect those that never read, and those that do; C{mark}: what
comes from now on counts; C{tell}: what came, once all know of the transfer's end.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import select
import socket
import statistics
import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

# How many may be on their way at once: Twisted's listeners have a backlog of 50.
_BATCH = 25
_LONGEST_WAIT = 20
# The kernel makes of these the least that it has. With small segments the other side's
# kernel keeps less for us, too, so that the server soon sees that we do not read.
_SMALL_BUFFER = 1
_SMALL_SEGMENT = 88
# In how many of its last pieces an event is looked for.
_LAST = 8

# What one read gave, and the time then.
Piece = tuple[float, bytes]


class Spectators:
    """Those of one path."""

    def __init__(self, port: int, path: str) -> None:
        self._address = ("127.0.0.1", port)
        self._request = (
            f"GET {path}?progress HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
        ).encode()
        self._sockets: list[socket.socket] = []
        self._mute: list[socket.socket] = []
        self._pieces: dict[int, list[Piece]] = {}
        self._epoll = select.epoll()
        self._epoll.register(0, select.EPOLLIN)
        self._cpu = 0.0

    def mute(self, number: int) -> dict[str, Any]:
        """Connect those that never read."""
        for _ in range(number):
            connection = self._connect(mute=True)
            self._mute.append(connection)
            if (head := connection.recv(12, socket.MSG_PEEK)) != b"HTTP/1.1 200":
                raise RuntimeError(f"a mute spectator was answered {head!r}")
        return {}

    def open(self, number: int) -> dict[str, Any]:
        """Connect those that read; each has had its first event when this returns."""
        for start in range(0, number, _BATCH):
            batch = [self._connect() for _ in range(min(_BATCH, number - start))]
            for connection in batch:
                self._pieces[connection.fileno()] = []
                self._epoll.register(connection, select.EPOLLIN)
            self._wait_for(b"event: ", (connection.fileno() for connection in batch))
        for pieces in self._pieces.values():
            _check_head(pieces)
        return {}

    def mark(self) -> dict[str, Any]:
        """What came so far is forgotten."""
        for pieces in self._pieces.values():
            pieces.clear()
        self._cpu = time.process_time()
        return {}

    def tell(self) -> dict[str, Any]:
        """What came since, and the CPU that it took to read it."""
        used = time.process_time() - self._cpu
        self._wait_for(b"event: done\n", self._pieces)
        if any(mute.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for mute in self._mute):
            raise RuntimeError("the server let a mute spectator go")
        each = [list(_events(pieces)) for pieces in self._pieces.values()]
        events = [event for mine in each for event in mine]
        return {
            "cpu_s": used,
            "events": len(events),
            "fewest": min(map(len, each), default=0),
            "names": Counter(name for _, name, _ in events),
            "totals": sorted({data["bytes"] for _, name, data in events if name == "done"}),
            **_percentiles([_late(when, data["ts"]) for when, _, data in events if "ts" in data]),
        }

    def word(self) -> str:
        """Read until the next word comes; an empty one when no more will."""
        while 0 not in self._read(_LONGEST_WAIT):
            pass
        return os.read(0, 100).decode().strip()

    def _connect(self, *, mute: bool = False) -> socket.socket:
        connection = socket.socket()
        if mute:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SMALL_SEGMENT)
        connection.settimeout(_LONGEST_WAIT)
        connection.connect(self._address)
        connection.sendall(self._request)
        self._sockets.append(connection)
        return connection

    def _read(self, timeout: float) -> list[int]:
        """@return: the descriptors that had something; 0 is left to be read."""
        ready = [descriptor for descriptor, _ in self._epoll.poll(timeout)]
        for descriptor in ready:
            if descriptor:
                data = os.read(descriptor, 65536)
                if not data:
                    raise RuntimeError("the server let a spectator go")
                self._pieces[descriptor].append((time.time(), data))
        return ready

    def _wait_for(self, text: bytes, descriptors: Iterable[int]) -> None:
        """Read until the last that each of them had has C{text}."""
        left = {descriptor for descriptor in descriptors if not self._has(descriptor, text)}
        deadline = time.monotonic() + _LONGEST_WAIT
        while left:
            ready = self._read(1)
            left -= {descriptor for descriptor in left & {*ready} if self._has(descriptor, text)}
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(left)} spectators have had no {text.decode()!r}")

    def _has(self, descriptor: int, text: bytes) -> bool:
        return text in b"".join(data for _, data in self._pieces[descriptor][-_LAST:])


def _check_head(pieces: Sequence[Piece]) -> None:
    head = b"".join(data for _, data in pieces).partition(b"\r\n\r\n")[0].lower()
    if not head.startswith(b"http/1.1 200") or b"\r\ntransfer-encoding: chunked" not in head:
        raise RuntimeError(f"a spectator was answered {head!r}")


def _events(pieces: Sequence[Piece]) -> Iterator[tuple[float, str, dict[str, Any]]]:
    """When each had come whole, its name and its data."""
    buffer = b""
    for when, data in _chunks(pieces):
        *blocks, buffer = (buffer + data).split(b"\n\n")
        for block in blocks:
            fields = dict(
                line.split(": ", 1) for line in block.decode().split("\n") if ": " in line
            )
            if "event" in fields:
                yield when, fields["event"], json.loads(fields["data"])


def _chunks(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """The bodies of chunks, with the time when the last byte of each had come."""
    raw = b"".join(data for _, data in pieces)
    reads = list(itertools.accumulate(len(data) for _, data in pieces))
    at = 0
    while (line := raw.find(b"\r\n", at)) >= 0:
        end = line + 2 + int(raw[at:line], 16)
        if end > len(raw):
            break
        yield pieces[bisect_right(reads, end - 1)][0], raw[line + 2 : end]
        at = end + 2


def _late(when: float, stamp: str) -> float:
    """Milliseconds; both clocks are this machine's."""
    return (when - datetime.fromisoformat(stamp).timestamp()) * 1000


def _percentiles(late: Sequence[float]) -> dict[str, float]:
    if len(late) < 2:
        return {}
    percentiles = statistics.quantiles(late, n=100, method="inclusive")
    return {"p50_ms": percentiles[49], "p99_ms": percentiles[98]}


def main() -> None:
    """Do what we are told, until nobody tells us any more."""
    port, path, reading, mute = sys.argv[1:]
    gc.disable()  # its pauses would be counted as the server's
    spectators = Spectators(int(port), path)
    does = {
        "mute": lambda: spectators.mute(int(mute)),
        "open": lambda: spectators.open(int(reading)),
        "mark": spectators.mark,
        "tell": spectators.tell,
    }
    while word := spectators.word():
        print(json.dumps(does[word]()), flush=True)


if __name__ == "__main__":
    main()
