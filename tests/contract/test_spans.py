"""What the kernel may move of a body, beside Twisted's own decoders."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.web.http import (
    _ChunkedTransferDecoder,
    _IdentityTransferDecoder,
    _MalformedChunkedDataError,
)

from hoody.protocols.kernelpipes import KernelPipe
from hoody.protocols.spans import ChunkedSpan, CountedSpan, Span

Decoder = _ChunkedTransferDecoder | _IdentityTransferDecoder


class Peer:
    """
    A body that comes through a socket, as the mover reads it.

    @ivar raw: what receivers would be sent, framing included.
    @ivar moved: how many bytes of that went without the decoder.
    @ivar rest: what came behind the body.
    """

    def __init__(self, make: Callable[[Peer, socket.socket], tuple[Decoder, Span]]) -> None:
        self.theirs, self.ours = socket.socketpair()
        self.pipe, self.staging = KernelPipe.open(4096), KernelPipe.open(4096)
        self.ours.setblocking(False)
        self.raw = b""
        self.moved = self.counted = 0
        self.rest: bytes | None = None
        self.decoder, self.span = make(self, self.ours)
        if self.span.stages:
            self.span.staging = self.staging
        self.chunked = isinstance(self.decoder, _ChunkedTransferDecoder)

    def write(self, data: bytes) -> None:
        self.raw += b"%x\r\n%s\r\n" % (len(data), data) if self.chunked else data

    def end(self, rest: bytes) -> None:
        self.rest = rest

    def read(self, most: int) -> None:
        """Read what is there as the mover does, with a pipe of C{most} bytes."""
        while self.rest is None:
            try:
                if self.span.ready():
                    self.pipe.capacity = most
                    self.counted += self.span.fill(self.pipe, self.ours.fileno())
                    self.moved += self.pipe.level
                    self.raw += self.pipe.read()
                    continue
                self.raw += self.span.leave()
                data = self.span.take() or self.ours.recv(65536)
            except (BlockingIOError, EOFError):
                return
            if not data:
                return
            self.decoder.dataReceived(data)


def chunked(least: int) -> Callable[[Peer, socket.socket], tuple[Decoder, Span]]:
    def make(peer: Peer, sock: socket.socket) -> tuple[Decoder, Span]:
        decoder = _ChunkedTransferDecoder(peer.write, peer.end)
        return decoder, ChunkedSpan(decoder, least)

    return make


def counted(length: int) -> Callable[[Peer, socket.socket], tuple[Decoder, Span]]:
    def make(peer: Peer, sock: socket.socket) -> tuple[Decoder, Span]:
        decoder = _IdentityTransferDecoder(length, peer.write, peer.end)
        return decoder, CountedSpan(decoder)

    return make


@contextlib.contextmanager
def peer(make: Callable[[Peer, socket.socket], tuple[Decoder, Span]]) -> Iterator[Peer]:
    made = Peer(make)
    try:
        yield made
    finally:
        made.theirs.close()
        made.ours.close()
        made.pipe.close()
        made.staging.close()


def decode(raw: bytes) -> bytes:
    """The body, by the decoder alone."""
    body: list[bytes] = []
    decoder = _ChunkedTransferDecoder(body.append, lambda rest: None)
    decoder.dataReceived(raw)
    return b"".join(body)


CHUNKS = st.lists(
    st.tuples(
        st.integers(1, 60), st.sampled_from([b"%x", b"%X", b"00%x", b"%x;a=b", b'%x;c="d"'])
    ),
    max_size=12,
)


@given(
    chunks=CHUNKS,
    end=st.sampled_from([b"0\r\n\r\n", b"000;e\r\n\r\n", b"0\r\nX: 1\r\nY: 2\r\n\r\n"]),
    cuts=st.lists(st.integers(1, 30), min_size=1, max_size=30),
    most=st.integers(20, 100),
    least=st.sampled_from([0, 1, 10, 40]),
    cut=st.one_of(st.none(), st.integers(0, 300)),
)
def test_whatever_is_moved_past_the_decoder_the_body_is_the_same(
    chunks: list[tuple[int, bytes]],
    end: bytes,
    cuts: list[int],
    most: int,
    least: int,
    cut: int | None,
) -> None:
    pattern = (
        b"\r\n5\r\n0\r\n\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\nABCDEFGHIJKLMNOPQRSTUVWXYZ"
    )
    framed = [line % size + b"\r\n" + pattern[:size] + b"\r\n" for size, line in chunks]
    sent = b"".join(framed) + end
    whole = cut is None or cut >= len(sent)
    with peer(chunked(least)) as came:
        left = sent[:cut]
        for step in [*cuts, len(sent)]:
            came.theirs.send(left[:step])
            left = left[step:]
            came.read(most)
        assert (came.rest is not None) is whole
        last = b"0\r\n\r\n" if whole else b""
        assert decode(came.raw + last) == decode(sent[:cut])
        assert b";" not in came.raw.replace(pattern, b"")
        assert came.counted <= came.moved


def test_curl_s_small_chunks_between_large_ones_do_not_stop_the_kernel() -> None:
    with peer(chunked(1000)) as came:
        for size in (2000, 2000, 12, 2000, 12, 2000):
            came.theirs.send(b"%x\r\n%s\r\n" % (size, b"x" * size))
        came.read(65536)
        assert came.counted == 8024


def test_small_chunks_without_large_ones_are_left_to_the_decoder() -> None:
    with peer(chunked(1000)) as came:
        for _ in range(10):
            came.theirs.send(b"c\r\nabcdefghijkl\r\n" * 20)
            came.read(65536)
        assert 0 < came.counted < 20 * 12
        assert decode(came.raw) == b"abcdefghijkl" * 200


@pytest.mark.parametrize(
    "line",
    [
        b"5;a\r\n",
        b"+5\r\n",
        b"0x5\r\n",
        b" 5\r\n",
        b"5 \r\n",
        b"5\n",
        b"0\r\n",
        b"\r\n",
        b"5",
        b"-1\r\n",
        b"1" * 16 + b"\r\n",
    ],
)
def test_what_is_not_plain_to_see_is_the_decoder_s(line: bytes) -> None:
    with peer(chunked(0)) as came:
        came.theirs.send(line + b"vwxyz\r\n")
        with contextlib.suppress(_MalformedChunkedDataError):
            came.read(65536)
        assert came.moved == 0


def test_a_line_end_that_is_none_is_not_passed() -> None:
    with peer(chunked(0)) as came:
        came.theirs.send(b"5\r\nabcdeXY5\r\nabcde\r\n")
        with pytest.raises(_MalformedChunkedDataError):
            came.read(65536)
        assert came.raw == b"5\r\nabcde\r\n"


@given(length=st.integers(1, 200), most=st.integers(1, 50), more=st.sampled_from([b"", b"GET /"]))
def test_the_last_byte_of_a_counted_body_is_the_decoder_s(
    length: int, most: int, more: bytes
) -> None:
    sent = bytes(range(200))[:length]
    with peer(counted(length)) as came:
        came.theirs.send(sent + more)
        came.read(most)
        assert came.raw == sent
        assert came.counted == came.moved == length - 1
        assert came.rest == more
