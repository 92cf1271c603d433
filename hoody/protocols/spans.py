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

    def fill(self, pipe: KernelPipe, descriptor: int) -> int:
        """
        If L{ready}, have the kernel move what has come into C{pipe}, and such
        framing as its receivers need; as much as has room.

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

    def fill(self, pipe: KernelPipe, descriptor: int) -> int:
        left = self._decoder.contentLength - 1
        moved = pipe.fill(descriptor, min(left, pipe.capacity))
        self._decoder.contentLength -= moved
        return moved

    def leave(self) -> bytes:
        return b""


@define
class ChunkedSpan:
    """
    A chunked body (RFC 9112 section 7.1).

    What is moved at once, a unit, begins with the line end of the chunk before
    it, if that is still due, and ends with a chunk's data: so each line end has
    been seen to be one before it is passed.

    @ivar least: bytes of a chunk, on the average, below which the ordinary way is
        quicker. A small one now and then is usual: curl reads what its pipe has.
    @ivar _unit: bytes of the unit that are still to be moved.
    @ivar _before: how many of them come before the data of its last chunk.
    @ivar _inner: how many of those are data of smaller chunks.
    @ivar _after: the decoder's state when the unit has been moved.
    @ivar _in_step: whether receivers are sent the sender's own framing.
    """

    _decoder: Any
    _socket: socket.socket
    least: int
    _unit: int = field(default=0, init=False)
    _before: int = field(default=0, init=False)
    _inner: int = field(default=0, init=False)
    _after: str = field(default="CRLF", init=False)
    _credit: int = field(default=0, init=False)
    _in_step: bool = field(default=False, init=False)

    def ready(self) -> bool:
        return bool(self._unit or self._look())

    def fill(self, pipe: KernelPipe, descriptor: int) -> int:
        body = 0
        if not self._in_step:
            self._in_step = True
            if not self._before:
                pipe.put(b"%x\r\n" % self._unit)
        for _ in range(_UNITS_A_TURN):
            try:
                wanted = min(self._unit or self._look(), pipe.capacity - pipe.level)
                if not wanted:
                    break
                moved = pipe.fill(descriptor, wanted)
            except (OSError, EOFError):
                if pipe.level:
                    break  # it will show again
                raise
            body += self._account(moved)
            if moved < wanted:
                break
        return body

    def leave(self) -> bytes:
        due, self._in_step = self._line_end_due, False
        return b"\r\n" if due else b""

    @property
    def _line_end_due(self) -> bool:
        """Whether the line end behind a chunk is neither read nor passed."""
        return self._in_step and self._decoder.state == "CRLF"

    def _look(self) -> int:
        """Find the next unit."""
        decoder, due = self._decoder, self._line_end_due
        if decoder.state == "BODY":
            if decoder.length >= self.least:
                self._begin(decoder.length, 0, 0)
        elif not decoder._buffer and (due or decoder.state == "CHUNK_LENGTH"):
            self._look_at(self._socket.recv(_PEEKED, socket.MSG_PEEK), due)
        return self._unit

    def _look_at(self, seen: bytes, due: bool) -> None:
        """
        A unit as long as what is C{seen} tells: chunks that end within it are
        followed by the next.

        @param due: whether the line end of a chunk has to come first.
        """
        end = inner = 0
        while not due or seen.startswith(b"\r\n", end):
            line = _SIZE_LINE.match(seen, end + 2 if due else end)
            size = int(line[1], 16) if line else 0
            credit = self._credit + size - self.least
            if line is None or not size or credit < 0:
                if due:
                    self._begin(0, end + 2, inner, "CHUNK_LENGTH")
                return
            self._credit = min(credit, _CREDIT * self.least)
            if line.end() + size > len(seen):
                self._begin(size, line.end(), inner)
                return
            end, due = line.end() + size, True
            inner += size
        self._begin(0, end, inner)

    def _begin(self, length: int, before: int, inner: int, after: str = "CRLF") -> None:
        self._unit, self._before, self._inner, self._after = before + length, before, inner, after
        if self._unit:
            self._decoder.state, self._decoder.length = "BODY", length

    def _account(self, moved: int) -> int:
        """@return: how many bytes of those C{moved} are of the body."""
        body = 0
        self._unit -= moved
        if self._before:
            before = min(self._before, moved)
            self._before -= before
            moved -= before
            if not self._before:
                body = self._inner
        self._decoder.length -= moved
        if not self._unit:
            self._decoder.state = self._after
        return body + moved
