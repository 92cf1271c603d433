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

_SIZE_LINE = re.compile(rb"(\r\n)?([0-9A-Fa-f]{1,15})\r\n")
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
    the chunk before it in front, so that each line end has been seen to be one
    before it is passed.

    @ivar least: bytes of a chunk below which the ordinary way is quicker.
    """

    _decoder: Any
    _socket: socket.socket
    least: int
    _unit: int = field(default=0, init=False)
    _line_end_owed: bool = field(default=False, init=False)

    def available(self) -> int:
        if self._unit:
            return self._unit
        decoder = self._decoder
        if decoder.state == "BODY":
            self._unit = decoder.length if decoder.length >= self.least else 0
        elif not decoder._buffer and (decoder.state == "CHUNK_LENGTH" or self._line_end_owed):
            self._unit = self._next_chunk()
        return self._unit

    def _next_chunk(self) -> int:
        found = _SIZE_LINE.match(self._socket.recv(_PEEKED, socket.MSG_PEEK))
        if found is None or (found[1] is not None) is not self._line_end_owed:
            return 0
        size = int(found[2], 16)
        if size < max(self.least, 1):
            return 0
        self._decoder.state, self._decoder.length = "BODY", size
        return found.end() + size

    def enter(self) -> bytes:
        begun, self._line_end_owed = self._line_end_owed, True
        length = self._decoder.length
        return b"" if begun or self._unit > length else b"%x\r\n" % length

    def moved(self, count: int) -> int:
        decoder = self._decoder
        self._unit -= count
        left = min(decoder.length, self._unit)
        body = decoder.length - left
        decoder.length = left
        if not left:
            decoder.state = "CRLF"
        return int(body)

    def leave(self) -> bytes:
        owed, self._line_end_owed = self._line_end_owed, False
        return b"\r\n" if owed else b""
