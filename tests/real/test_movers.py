"""
Two movers, no visible difference: both are fed the same bytes, in any chunking,
divided and cut anywhere, with receivers that stall or go.
"""

from __future__ import annotations

import itertools
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from attrs import frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.server import Server
from tests.support.wire import Wire

SIZES = st.one_of(
    st.integers(1, 40), st.integers(15_000, 70_000), st.sampled_from([65_524, 65_536, 400_000])
)


@pytest.fixture(scope="module")
def movers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """The portable mover, the kernel's from the first byte on, and from its usual place on."""
    folder = tmp_path_factory.mktemp("movers")
    options = ["--splice=off", "--splice=0", "--splice=100KB"]
    servers = [Server(folder / option, option) for option in options]
    try:
        yield servers
    finally:
        for server in servers:
            server.stop()


@frozen
class Chunk:
    """
    @ivar line: its size line, with C{%} where the size goes; not used in a body with a length.
    """

    size: int
    line: bytes


@frozen
class Upload:
    """
    @ivar end: the last chunk and trailers, or empty for a body with a length.
    @ivar steps: how many bytes are sent at once; the last goes on to the end.
    @ivar cut: which part of the whole is sent; C{None} for all of it.
    """

    chunks: tuple[Chunk, ...]
    end: bytes
    steps: tuple[int, ...]
    cut: float | None

    @property
    def head(self) -> str:
        if self.end:
            return "Transfer-Encoding: chunked"
        return f"Content-Length: {sum(chunk.size for chunk in self.chunks)}"

    @property
    def raw(self) -> bytes:
        """What goes over the wire."""
        whole = b"".join(self._framed(place, chunk) for place, chunk in enumerate(self.chunks))
        whole += self.end
        return whole if self.cut is None else whole[: int(len(whole) * self.cut)]

    def _framed(self, place: int, chunk: Chunk) -> bytes:
        # Bytes that show when they are moved, and look like framing now and then.
        pattern = b"".join(b"\r\n%x\r\n0\r\n\r\n%d" % (place + k, k) for k in range(50))
        data = (pattern * (chunk.size // len(pattern) + 1))[: chunk.size]
        return chunk.line % chunk.size + b"\r\n" + data + b"\r\n" if self.end else data

    @property
    def meant(self) -> tuple[bytes, bool]:
        """What any receiver must be given of it, and whether that is all."""
        raw, whole = self.raw, self.cut is None
        if not self.end:
            return raw, whole
        data = b""
        while (line := re.match(rb"([0-9A-Fa-f]+)[^\r\n]*\r\n", raw)) and int(line[1], 16):
            size = int(line[1], 16)
            data += raw[line.end() :][:size]
            raw = raw[line.end() + size + 2 :]
        return data, whole


LINES = st.sampled_from([b"%x", b"%x", b"%X", b"000%x", b"%x;a=b", b'%x;c="d"'])
ENDS = st.sampled_from([b"", b"0\r\n\r\n", b"000;e\r\n\r\n", b"0\r\nX-T: 1\r\n\r\n"])
STEPS = st.tuples(st.one_of(st.integers(1, 9), SIZES), SIZES, st.sampled_from([20_000, 10**9]))
UPLOADS = st.builds(
    Upload,
    chunks=st.lists(st.builds(Chunk, SIZES, LINES), min_size=1, max_size=8).map(tuple),
    end=ENDS,
    steps=STEPS,
    cut=st.one_of(st.none(), st.floats(0, 0.999)),
)
BEHAVIOURS = st.lists(
    st.sampled_from(["reads", "reads", "stalls", "goes"]), min_size=1, max_size=3
).filter(lambda behaviours: set(behaviours) != {"goes"})


@frozen
class Outcome:
    """
    What shows of a transfer.

    @ivar sender: what it was told, without numbers, and whether its answer was whole.
    @ivar receivers: of each that stayed, its body and whether it was whole.
    """

    sender: tuple[list[bytes], bool]
    receivers: list[tuple[bytes, bool]]


def play(server: Server, path: str, upload: Upload, behaviours: list[str]) -> Outcome:
    path = f"{path}?n={len(behaviours)}"
    with ThreadPoolExecutor(len(behaviours) + 1) as pool:
        sent = pool.submit(send, server, path, upload)
        came = [pool.submit(receive, server, path, behaviour) for behaviour in behaviours]
        got = [future.result() for future in came]
        told = sent.result()
    if "goes" in behaviours:
        told = ([], False)  # whether it went before the end or after is a matter of time
    return Outcome(told, [one for one in got if one is not None])


def send(server: Server, path: str, upload: Upload) -> tuple[list[bytes], bool]:
    with Wire(server, timeout=30) as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.put(path, upload.head, "Connection: close")
        wire.read_until(b"[INFO] Streaming to")
        raw, steps = upload.raw, list(upload.steps)
        try:
            while raw:
                step = steps.pop(0) if len(steps) > 1 else steps[0]
                wire.send(raw[:step])
                raw = raw[step:]
                if step < 1000:
                    time.sleep(0.001)
            if upload.cut is not None:
                wire.half_close()
        except OSError:
            pass  # refused: the answer says why
        answer = wire.read_all()
    lines = re.findall(rb"\[(?:INFO|ERROR)\] [^\n]*", answer)
    return [re.sub(rb"\d+", b"#", line) for line in lines], answer.endswith(b"0\r\n\r\n")


def receive(server: Server, path: str, behaviour: str) -> tuple[bytes, bool] | None:
    with Wire(server, timeout=30) as wire:
        if behaviour == "stalls":
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        wire.get(path, "Connection: close")
        if behaviour == "goes":
            wire.read_until(b"\r\n\r\n")
            return None
        if behaviour == "stalls":
            time.sleep(0.1)

        answer = wire.answer()
        return answer.body, answer.whole


numbers = itertools.count()


@given(upload=UPLOADS, behaviours=BEHAVIOURS)
@settings(
    max_examples=settings().max_examples // 2,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_they_cannot_be_told_apart(
    movers: list[Server], upload: Upload, behaviours: list[str]
) -> None:
    portable, *others = (
        play(server, f"differ-{next(numbers)}", upload, behaviours) for server in movers
    )
    for outcome in (portable, *others):
        check(outcome, upload)
        if upload.cut is None or len(upload.raw) < HELD:
            assert outcome.sender == portable.sender


HELD = 60_000
"""Bytes that nobody ever pauses for. Over that, when a cut is noticed is a matter of time."""


def check(outcome: Outcome, upload: Upload) -> None:
    """What every receiver must have, however it was moved."""
    meant, wholly = upload.meant
    for got, whole in outcome.receivers:
        assert whole is wholly
        # Not compared in the assertions: those would show megabytes.
        same = got == meant
        start = meant.startswith(got)
        assert same or (start and not wholly and len(meant) > HELD), (len(got), len(meant))
