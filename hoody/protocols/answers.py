"""
What a server answers, parsed: bytes in, heads and bodies out (RFC 9112).

Stricter than a browser would be. A container is somebody else's program: what it says
goes on to a client that may read it in another way than we do, so what can be read in
two ways is not passed on at all.
"""

from __future__ import annotations

import re
from typing import ClassVar, Protocol

from attrs import define, field, frozen

HEAD_LIMIT = 64 * 1024
"""Bytes of one head, and of one body's trailers."""
LINE_LIMIT = 4096
"""Bytes of a chunk's size line, with extensions."""

Header = tuple[bytes, bytes]

HEAD_END = re.compile(rb"\r?\n\r?\n")
"""
A line may end with a mere LF (RFC 9112 section 2.2): busybox httpd passes on what its CGI
programs say, and these say it so. What we pass on has CR LF throughout.
"""
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class NoAnswer(ValueError):
    """What came is not HTTP/1, or can be read in two ways; the words say how."""


@frozen(kw_only=True)
class AnswerHead:
    """
    @ivar minor: of the version: HTTP/1.0 or HTTP/1.1.
    @ivar headers: in their order, with values stripped.
    """

    minor: int
    status: int
    reason: bytes
    headers: list[Header]

    @property
    def is_interim(self) -> bool:
        """Whether another head follows. After 101 none does, nor a body."""
        return self.status < 200 and self.status != 101

    def values(self, name: bytes) -> list[bytes]:
        """@param name: in lower case."""
        return [value for given, value in self.headers if given.lower() == name]

    def tokens(self, name: bytes) -> set[bytes]:
        """Of a header that is a list of words: those, in lower case."""
        return words(self.values(name))

    @property
    def persists(self) -> bool:
        """Whether the connection is good for another request, as far as the head says."""
        said = self.tokens(b"connection")
        return b"close" not in said and (self.minor == 1 or b"keep-alive" in said)


def words(values: list[bytes]) -> set[bytes]:
    """The items of a list-valued header, in lower case."""
    return {word.strip(b" \t").lower() for value in values for word in value.split(b",")} - {b""}


def read_head(data: bytes) -> AnswerHead:
    """
    @param data: a head, without the empty line at its end.
    @raise NoAnswer: if it is none.
    """
    first, *lines = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    match = _STATUS.fullmatch(first)
    if match is None:
        raise NoAnswer("its first line is no status line of HTTP/1")
    return AnswerHead(
        minor=int(match[1]),
        status=int(match[2]),
        reason=match[3] or b"",
        headers=read_headers(lines),
    )


def read_headers(lines: list[bytes]) -> list[Header]:
    """
    Headers or trailers.

    @raise NoAnswer: also for a line that goes on with the one before it (obs-fold), for
        a bare CR, and for a space before the colon (RFC 9112 sections 2.2, 5.1, 5.2).
    """
    headers = []
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise NoAnswer("a header of it is malformed")
        headers.append((match[1], match[2].rstrip(b" \t")))
    return headers


class Body(Protocol):
    """
    The body of an answer, as its framing has it.

    @cvar ends_with_connection: whether that is how it ends; otherwise it is cut short.
    @ivar ended: whether its end has come.
    @ivar rest: what came behind its end; nothing should.
    @ivar trailers: what came with its end.
    """

    ends_with_connection: ClassVar[bool]
    rest: bytes
    trailers: list[Header]

    @property
    def ended(self) -> bool: ...

    def feed(self, data: bytes) -> bytes:
        """
        @return: what of C{data} is the body's content.
        @raise NoAnswer: if it breaks its framing.
        """


@define
class Counted:
    """@ivar missing: bytes that are still to come."""

    ends_with_connection: ClassVar[bool] = False
    missing: int
    rest: bytes = b""
    trailers: list[Header] = field(factory=list)

    @property
    def ended(self) -> bool:
        return not self.missing

    def feed(self, data: bytes) -> bytes:
        if len(data) > self.missing:
            data, self.rest = data[: self.missing], data[self.missing :]
        self.missing -= len(data)
        return data


@define
class UntilClose:
    ends_with_connection: ClassVar[bool] = True
    ended: bool = False
    rest: bytes = b""
    trailers: list[Header] = field(factory=list)

    def feed(self, data: bytes) -> bytes:
        return data


@define
class Chunked:
    """Chunks (RFC 9112 section 7.1); those of one piece of data are joined."""

    ends_with_connection: ClassVar[bool] = False
    ended: bool = field(default=False, init=False)
    rest: bytes = field(default=b"", init=False)
    trailers: list[Header] = field(factory=list, init=False)
    _missing: int = field(default=0, init=False)
    _in_trailers: bool = field(default=False, init=False)
    _line: bytes = field(default=b"", init=False)
    _trailer_bytes: int = field(default=0, init=False)
    _behind_chunk: bool = field(default=False, init=False)

    def feed(self, data: bytes) -> bytes:
        pieces = []
        at = 0
        while at < len(data) and not self.ended:
            if self._missing:
                piece = data[at : at + self._missing]
                pieces.append(piece)
                at += len(piece)
                self._missing -= len(piece)
                self._behind_chunk = not self._missing
            else:
                at = self._take_line(data, at)
        if self.ended:
            self.rest = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take_line(self, data: bytes, at: int) -> int:
        """
        Take in what there is of a line of framing.

        @return: where what follows begins.
        """
        end = data.find(b"\n", at, at + HEAD_LIMIT)
        stop = len(data) if end < 0 else end + 1
        self._line += data[at:stop]
        limit = HEAD_LIMIT if self._in_trailers else LINE_LIMIT
        if len(self._line) > limit:
            raise NoAnswer("a line between its chunks is too long")
        if end >= 0:
            line, self._line = self._line, b""
            if not line.endswith(b"\r\n"):
                raise NoAnswer("a line between its chunks does not end with CR LF")
            self._understand(line[:-2])
        return stop

    def _understand(self, line: bytes) -> None:
        if self._behind_chunk:
            if line:
                raise NoAnswer("a chunk of it is longer than it says")
            self._behind_chunk = False
        elif self._in_trailers:
            self._take_trailer(line)
        else:
            match = _SIZE.fullmatch(line)
            if match is None:
                raise NoAnswer("a chunk of it has no size")
            self._missing = int(match[1], 16)
            self._in_trailers = not self._missing

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            self.ended = True
            return
        self._trailer_bytes += len(line)
        if self._trailer_bytes > HEAD_LIMIT:
            raise NoAnswer("its trailers are over 64 KiB")
        self.trailers += read_headers([line])


def body_of(head: AnswerHead, *, to_head: bool) -> Body:
    """
    How the body of an answer ends (RFC 9112 section 6.3).

    @param to_head: whether HEAD was asked.
    @raise NoAnswer: if it says two things, or one that we do not understand.
    """
    codings, length = head.values(b"transfer-encoding"), read_length(head)
    if codings and (length is not None or head.minor == 0):
        raise NoAnswer("it says in two ways how long it is")
    if to_head or head.status < 200 or head.status in (204, 304):
        return Counted(0)
    if codings:
        if [coding.lower() for coding in codings] != [b"chunked"]:
            raise NoAnswer("its Transfer-Encoding is not chunked")
        return Chunked()
    return UntilClose() if length is None else Counted(length)


def read_length(head: AnswerHead) -> int | None:
    """
    @return: what Content-Length says; said more than once, it has to be the same.
    @raise NoAnswer: if that is no number.
    """
    given = {
        value.strip() for said in head.values(b"content-length") for value in said.split(b",")
    }
    if not given:
        return None
    value = given.pop()
    if given or not (value.isdigit() and len(value) < 20):
        raise NoAnswer("its Content-Length is not one number")
    return int(value)
