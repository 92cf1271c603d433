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
from typing import Any, ClassVar, Protocol

from attrs import define, field

from hoody.protocols.kernelpipes import KernelPipe

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_WINDOW = 64  # bytes; room for a size line, and a small chunk or two
_CREDIT = 16  # chunks of no size that a run of large ones pays for
_STEPS_A_TURN = 128
_TAKEN = 64 * 1024  # bytes


class Span(Protocol):
    """
    A body on the wire.

    @cvar stages: whether it needs a pipe of its own, in which what came stays until
        it has been looked at, and its receivers have room.
    @ivar staging: that pipe, once there is one.
    @ivar staged: whether some of what was read from the socket is still here:
        nothing in the socket tells of it.
    """

    stages: ClassVar[bool]
    staging: KernelPipe | None

    @property
    def staged(self) -> bool: ...

    def ready(self) -> bool:
        """Whether what is next may be moved past the decoder."""

    def fill(self, pipe: KernelPipe, descriptor: int) -> int:
        """
        If L{ready}, have the kernel move what has come into C{pipe}, and such
        framing as its receivers need; as much as has room.

        @return: how many bytes of that are of the body itself.
        @raise BlockingIOError: if nothing has come.
        @raise EOFError: if nothing will.
        @raise OSError: the socket's.
        """

    def take(self) -> bytes:
        """What is L{staged}, for the decoder; no more at once than it is used to."""

    def take_all(self) -> bytes:
        """All that is L{staged}."""

    def tail(self) -> bytes:
        """All that is L{staged}; it stays."""

    def leave(self) -> bytes:
        """
        Have the decoder read on.

        @return: the framing that receivers need before.
        """


@define
class CountedSpan:
    """A body with a Content-Length. Its last byte is the decoder's, who has to end it."""

    stages: ClassVar[bool] = False
    staged = False
    staging: KernelPipe | None = field(default=None, init=False)
    _decoder: Any

    def ready(self) -> bool:
        return bool(self._decoder.contentLength > 1)

    def fill(self, pipe: KernelPipe, descriptor: int) -> int:
        left = self._decoder.contentLength - 1
        moved = pipe.fill(descriptor, left)
        self._decoder.contentLength -= moved
        return moved

    def take(self) -> bytes:
        return b""

    take_all = tail = take

    def leave(self) -> bytes:
        return b""


@define
class ChunkedSpan:
    """
    A chunked body (RFC 9112 section 7.1).

    What comes is moved into a pipe of its own, and from there a chunk's data into
    that of the receivers. A size line, with the line end of the chunk before, is
    read out in between, checked, and put before the data: so framing is passed as
    the bytes that were checked. The kernel passes pages by reference, and a sender
    on this host, or in a container of it, may still write to the pages of a file
    that it sends; it could make a second answer of its own for the receiver.

    What is not plain to see is taken out for the decoder, with what comes behind it.

    @ivar least: bytes of a chunk below which the ordinary way is quicker. A few
        such are usual between large ones: curl reads what its pipe has.
    @ivar _seen: what was read out of the staging pipe, and has not been passed.
    @ivar _data: how many bytes of the chunk's data are yet to be moved.
    @ivar _due: whether a line end has to come behind that.
    @ivar _had: whether the receivers have had that line end already.
    @ivar _credit: how many more small chunks may come before a large one.
    @ivar _in_step: whether receivers are sent the sender's own framing.
    @ivar _stopped: whether the decoder has to go on.
    """

    stages: ClassVar[bool] = True
    _decoder: Any
    least: int
    staging: KernelPipe | None = field(default=None, init=False)
    staged: bool = field(default=False, init=False)
    _seen: bytes = field(default=b"", init=False)
    _data: int = field(default=0, init=False)
    _due: bool = field(default=False, init=False)
    _had: bool = field(default=False, init=False)
    _credit: int = field(default=_CREDIT, init=False)
    _in_step: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)

    def ready(self) -> bool:
        if self._in_step:
            return not self._stopped
        decoder = self._decoder
        if decoder.state == "BODY":
            if decoder.length >= self.least:
                self._credit = _CREDIT
        elif decoder.state == "TRAILER" or decoder._buffer:
            return False
        return self._credit >= 0

    def fill(self, pipe: KernelPipe, descriptor: int) -> int:
        staging = self.staging
        assert staging is not None
        if not (staging.level or self._seen):
            staging.fill(descriptor, staging.capacity)
        body = 0
        try:
            if not self._in_step:
                self._enter(pipe)
            for _ in range(_STEPS_A_TURN):
                if self._data and staging.level:
                    moved = staging.move_to(pipe, self._data)
                    self._data -= moved
                    body += moved
                elif (self._seen or staging.level) and not self._stopped:
                    body += self._pass_framing(pipe, staging)
                else:
                    break
        except BlockingIOError:
            pass  # the receivers' pipe is full
        self._tell_decoder()
        self.staged = bool(staging.level or self._seen)
        return body

    def take(self) -> bytes:
        return self._take(_TAKEN)

    def take_all(self) -> bytes:
        return self._take(None)

    def _take(self, most: int | None) -> bytes:
        assert self.staging is not None
        data = self._seen + self.staging.read(most)
        self._seen, self.staged = b"", bool(self.staging.level)
        return data

    def tail(self) -> bytes:
        return self._seen + self.staging.peek() if self.staged and self.staging else b""

    def leave(self) -> bytes:
        owed = self._in_step and self._due and not self._had
        self._in_step = self._stopped = False
        return b"\r\n" if owed else b""

    def _enter(self, pipe: KernelPipe) -> None:
        """Go on where the decoder is."""
        decoder = self._decoder
        self._in_step = True
        self._data = decoder.length if decoder.state == "BODY" else 0
        # The receivers have had that line end from us.
        self._due = self._had = decoder.state == "CRLF"
        if self._data:
            pipe.put(b"%x\r\n" % self._data)
            self._due = True

    def _pass_framing(self, pipe: KernelPipe, staging: KernelPipe) -> int:
        """
        Pass what stands between the data of two large chunks, with small chunks
        and the first bytes of the second where they are read with it.

        @return: how many bytes of that are of the body.
        """
        seen = self._seen or staging.read(_WINDOW)
        end, body, data, due, plain = self._check(seen)
        if end > 2 * self._had:
            try:
                pipe.put(seen[2 * self._had : end])
            except BlockingIOError:
                self._seen = seen
                raise
        self._data, self._due, self._seen = data, due, b""
        if end:
            self._had = False
        rest = seen[end:]
        if not plain and end and staging.level:
            self._seen = rest + staging.read(_WINDOW)  # more may be plain in one piece
        elif not plain and (rest or staging.level):
            self._stopped, self._seen = True, rest
        return body

    def _check(self, seen: bytes) -> tuple[int, int, int, bool, bool]:
        """
        @return: how much of C{seen} may be passed, how many bytes of that are of the
            body, how many are to follow of the last chunk's data, whether a line
            end is due then, and whether all of it was plain to see.
        """
        end = body = 0
        due = self._due
        least, match = self.least, _SIZE_LINE.match
        while True:
            line = match(seen, end + 2 if due else end)
            if due and seen[end : end + 2] != b"\r\n":
                return end, body, 0, True, False
            size = int(line[1], 16) if line else 0
            if size:
                self._credit = _CREDIT if size >= least else self._credit - 1
            if line is None or not size or self._credit < 0:
                return (end + 2 if due else end), body, 0, False, False
            begin = line.end()
            left = begin + size - len(seen)
            if left >= 0:
                return len(seen), body + size - left, left, True, True
            end, body, due = begin + size, body + size, True

    def _tell_decoder(self) -> None:
        decoder = self._decoder
        if self._data:
            decoder.state, decoder.length = "BODY", self._data
        else:
            decoder.state = "CRLF" if self._due else "CHUNK_LENGTH"
