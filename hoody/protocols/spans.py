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

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_CREDIT = 16  # chunks of no size that a run of large ones pays for
_PEEKED = 32  # bytes; no size line that we take is longer


class Span(Protocol):
    """A body on the wire."""

    def available(self) -> int:
        """
        How many bytes, framing included, may be moved as they stand.

        @return: 0 if the ordinary way must read on.
        @raise BlockingIOError: if that cannot be said before more has come.
        @raise OSError: the socket's.
        """

    def enter(self) -> bytes:
        """The framing that receivers need before the byte that is moved next."""

    def moved(self, count: int) -> int:
        """
        So many bytes, of those available, have been moved.

        @return: how many of them are of the body itself.
        """

    def leave(self) -> bytes:
        """The framing that receivers need before the ordinary way goes on."""


@define
class CountedSpan:
    """A body with a Content-Length. Its last byte is the decoder's, who has to end it."""

    _decoder: Any

    def available(self) -> int:
        left: int = self._decoder.contentLength
        return max(0, left - 1)

    def enter(self) -> bytes:
        return b""

    def moved(self, count: int) -> int:
        self._decoder.contentLength -= count
        return count

    def leave(self) -> bytes:
        return b""


@define
class ChunkedSpan:
    """
    A chunked body (RFC 9112 section 7.1).

    What is moved at once is a chunk's size line and data, with the line end of
    the chunk before it in front if that is still due: so each line end has been
    seen to be one before it is passed.

    @ivar least: bytes of a chunk, on the average, below which the ordinary way is
        quicker. A small one now and then is usual: curl reads what its pipe has.
    """

    _decoder: Any
    _socket: socket.socket
    least: int
    _unit: int = field(default=0, init=False)
    _credit: int = field(default=0, init=False)
    _in_step: bool = field(default=False, init=False)

    def available(self) -> int:
        decoder = self._decoder
        if not self._unit:
            if decoder.state == "BODY":
                self._unit = decoder.length if decoder.length >= self.least else 0
            elif decoder.state == "CHUNK_LENGTH" or self._line_end_due:
                self._unit = 0 if decoder._buffer else self._look()
        return self._unit

    @property
    def _line_end_due(self) -> bool:
        """Whether the line end behind a chunk is neither read nor passed."""
        return self._in_step and self._decoder.state == "CRLF"

    def _look(self) -> int:
        """Find what comes next."""
        seen = self._socket.recv(_PEEKED, socket.MSG_PEEK)
        due = b"\r\n" if self._line_end_due else b""
        if not seen.startswith(due):
            return 0
        line = _SIZE_LINE.match(seen, len(due))
        size = int(line[1], 16) if line else 0
        credit = self._credit + size - self.least
        if line and size and credit >= 0:
            self._credit = min(credit, _CREDIT * self.least)
            self._decoder.state, self._decoder.length = "BODY", size
            return line.end() + size
        return len(due)

    def enter(self) -> bytes:
        begun, self._in_step = self._in_step, True
        length = self._decoder.length if self._decoder.state == "BODY" else 0
        return b"" if begun or self._unit > length else b"%x\r\n" % length

    def moved(self, count: int) -> int:
        decoder = self._decoder
        self._unit -= count
        if decoder.state == "CRLF":
            if not self._unit:
                decoder.state = "CHUNK_LENGTH"
            return 0
        left = min(decoder.length, self._unit)
        body = decoder.length - left
        decoder.length = left
        if not left:
            decoder.state = "CRLF"
        return int(body)

    def leave(self) -> bytes:
        due, self._in_step = self._line_end_due, False
        return b"\r\n" if due else b""
