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
    been seen to be one before it is passed. This runs for every few thousand
    bytes of every large upload; hence its long methods.

    @ivar least: bytes of a chunk below which the ordinary way is quicker. A few
        such are usual between large ones: curl reads what its pipe has.
    @ivar _unit: bytes of the unit that are still to be moved.
    @ivar _body: how many of them are of the body.
    @ivar _data: how many of them are data of the unit's last chunk, at its end.
    @ivar _after: the decoder's state when the unit has been moved.
    @ivar _credit: how many more small chunks may come before a large one.
    @ivar _in_step: whether receivers are sent the sender's own framing.
    """

    _decoder: Any
    _socket: socket.socket
    least: int
    _unit: int = field(default=0, init=False)
    _body: int = field(default=0, init=False)
    _data: int = field(default=0, init=False)
    _after: str = field(default="CRLF", init=False)
    _credit: int = field(default=_CREDIT, init=False)
    _in_step: bool = field(default=False, init=False)

    def ready(self) -> bool:
        return bool(self._unit or self._look())

    def fill(self, pipe: KernelPipe, descriptor: int) -> int:
        if not self._in_step:
            self._in_step = True
            if self._unit == self._data:
                pipe.put(b"%x\r\n" % self._data)
        body = 0
        try:
            for _ in range(_UNITS_A_TURN):
                unit = self._unit or self._look()
                wanted = min(unit, pipe.capacity - pipe.level)
                if not wanted:
                    break
                moved = pipe.fill(descriptor, wanted)
                if moved < unit:
                    return body + self._begin(unit - moved, self._body, self._data)
                body += self._body
                self._unit = 0
                self._decoder.state = self._after
        except (OSError, EOFError):
            if not pipe.level:
                raise  # else it will show again
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
        decoder = self._decoder
        if decoder.state == "BODY":
            return self._find(decoder.length, decoder.length, decoder.length)
        if decoder._buffer or decoder.state == "TRAILER":
            return 0
        seen = self._socket.recv(_PEEKED, socket.MSG_PEEK)
        due = self._line_end_due
        if decoder.state == "CRLF" and not due:
            # The receivers have had theirs from us.
            if not seen.startswith(b"\r\n"):
                return 0
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
                return self._find(end + 2, body, 0, "CHUNK_LENGTH") if due else 0
            body += size
            end, due = line.end() + size, True
            if end > len(seen):
                return self._find(end, body, size)
        return self._find(end, body, 0)

    def _find(self, unit: int, body: int, data: int, after: str = "CRLF") -> int:
        self._unit, self._body, self._data, self._after = unit, body, data, after
        return unit

    def _begin(self, left: int, body: int, data: int) -> int:
        """
        Leave a unit half moved.

        @param left: how many bytes of it are still to come.
        @return: how many bytes of the body were among those moved.
        """
        self._unit = left
        self._data = self._body = min(left, data)
        self._decoder.state, self._decoder.length = "BODY", self._data
        return body - self._body
