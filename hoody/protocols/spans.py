"""
Which bytes of a body may go to its receivers as they stand on the wire.

The ordinary way, Twisted's decoders, remains the only parser: what is not plain
to see here is left to it, and so is the end of every body. Both keep one
account, the decoder's own.

Private names of twisted.web used here, as of 26.10: of
C{_IdentityTransferDecoder} C{contentLength}; of C{_ChunkedTransferDecoder}
C{state}, C{length} and C{_buffer}. L{tests.contract.test_twisted_internals}
fails when they change.
"""

from __future__ import annotations

import re
import socket
from typing import Any, Protocol

from attrs import define, field

from hoody.protocols.kernelpipes import KernelPipe

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_LONGEST_LINE = 17  # bytes, of those that we take
_PEEKED = 64  # bytes
_CREDIT = 16  # chunks of no size that a run of large ones pays for
_UNITS_A_TURN = 64


class Span(Protocol):
    """A body on the wire."""

    def ready(self) -> bool:
        """
        Whether what is next may go past the decoder.

        @raise BlockingIOError: if that cannot be said before more has come.
        @raise OSError: the socket's.
        """

    def fill(self, pipe: KernelPipe, descriptor: int, staging: KernelPipe) -> int:
        """
        If L{ready}, have the kernel move what has come into C{pipe}, and such
        framing as its receivers need; as much as has room.

        @param staging: where what came may stay until C{pipe} has room.
        @return: how many bytes of that are of the body itself.
        """

    def leave(self) -> bytes:
        """
        Have the decoder read on.

        @return: the framing that receivers need before.
        """


@define
class CountedSpan:
    """A body with a Content-Length. Its last byte is the decoder's, who has to end it."""

    _decoder: Any

    def ready(self) -> bool:
        return bool(self._decoder.contentLength > 1)

    def fill(self, pipe: KernelPipe, descriptor: int, staging: KernelPipe) -> int:
        left = self._decoder.contentLength - 1
        moved = pipe.fill(descriptor, left)
        self._decoder.contentLength -= moved
        return moved

    def leave(self) -> bytes:
        return b""


@define
class ChunkedSpan:
    """
    A chunked body (RFC 9112 section 7.1), moved in units: the line end of the
    chunk before, a size line and, by the kernel, the chunk's data.

    Framing is passed as the bytes that were checked, not as those on the wire:
    the kernel passes pages by reference, and a sender on this host, or in a
    container of it, may still write to the pages of a file that it sends. It
    could make a second answer of its own for the receiver. So a unit comes into
    another pipe first, where its framing is taken off: to take it off the socket
    would be one more turn through TCP for each chunk, which costs half as much
    again as all the rest.

    A unit that was begun is never handed back to the decoder: receivers have
    been promised its data.

    @ivar least: bytes of a chunk below which the ordinary way is quicker. A few
        such are usual between large ones: curl reads what its pipe has.
    @ivar _framing: what comes before the data of the unit; with small chunks that
        were in sight as a whole.
    @ivar _inner: how many bytes of that are of the body.
    @ivar _skip: how many bytes of framing that has been passed are yet to come.
    @ivar _data: how many bytes of data are to follow.
    @ivar _after: the decoder's state behind the unit.
    @ivar _credit: how many more small chunks may come before a large one.
    @ivar _in_step: whether receivers are sent the sender's own framing.
    """

    _decoder: Any
    _socket: socket.socket
    least: int
    _framing: bytes = field(default=b"", init=False)
    _inner: int = field(default=0, init=False)
    _skip: int = field(default=0, init=False)
    _data: int = field(default=0, init=False)
    _after: str = field(default="CRLF", init=False)
    _credit: int = field(default=_CREDIT, init=False)
    _in_step: bool = field(default=False, init=False)

    def ready(self) -> bool:
        return bool(self._data or self._framing or self._skip) or self._look()

    def fill(self, pipe: KernelPipe, descriptor: int, staging: KernelPipe) -> int:
        body = 0
        if not self._in_step:
            self._in_step = True
            if not self._framing:
                pipe.put(b"%x\r\n" % self._data)
        try:
            for _ in range(_UNITS_A_TURN):
                if not self.ready():
                    break
                if self._framing:
                    pipe.put(self._framing)
                    body += self._inner
                    self._skip, self._framing, self._inner = len(self._framing), b"", 0
                body += self._move(pipe, descriptor, staging)
                if self._data:
                    break
                self._decoder.state = self._after
        except (OSError, EOFError):
            if not pipe.level:
                raise  # else it will show again
        if self._data:
            self._decoder.state, self._decoder.length = "BODY", self._data
        return body

    def _move(self, pipe: KernelPipe, descriptor: int, staging: KernelPipe) -> int:
        """Move what there is of a unit behind its framing. @return: how many bytes."""
        if not (staging.level or self._skip):
            moved = pipe.fill(descriptor, self._data)
        else:
            if not staging.level:
                room = max(pipe.capacity - pipe.level, 1)
                staging.fill(descriptor, self._skip + min(self._data, room))
            self._skip -= len(staging.read(self._skip))
            moved = staging.move_to(pipe) if staging.level else 0
        self._data -= moved
        return moved

    def leave(self) -> bytes:
        due, self._in_step = self._line_end_due, False
        return b"\r\n" if due else b""

    @property
    def _line_end_due(self) -> bool:
        """Whether the line end behind a chunk is neither read nor passed."""
        return self._in_step and self._decoder.state == "CRLF"

    def _look(self) -> bool:
        """Find the next unit."""
        decoder = self._decoder
        if decoder.state == "BODY":
            return self._find(b"", 0, decoder.length)
        if decoder._buffer or decoder.state == "TRAILER":
            return False
        seen = self._socket.recv(_PEEKED, socket.MSG_PEEK)
        due = self._line_end_due
        if decoder.state == "CRLF" and not due:
            # The receivers have had theirs from us.
            if not seen.startswith(b"\r\n"):
                return False
            seen = seen[len(self._socket.recv(2)) :]
            decoder.state = "CHUNK_LENGTH"
        end = body = 0
        while not due or seen.startswith(b"\r\n", end):
            line = _SIZE_LINE.match(seen, end + 2 if due else end)
            size = int(line[1], 16) if line else 0
            if size >= self.least:
                self._credit = _CREDIT
            else:
                self._credit -= 1
            if line is None or not size or self._credit < 0:
                return due and self._find(seen[: end + 2], body, 0, "CHUNK_LENGTH")
            if line.end() + size > len(seen):
                return self._find(seen[: line.end()], body, size)
            body += size
            end, due = line.end() + size, True
        return self._find(seen[:end], body, 0)

    def _find(self, framing: bytes, inner: int, data: int, after: str = "CRLF") -> bool:
        self._framing, self._inner, self._data, self._after = framing, inner, data, after
        return bool(framing or data)
