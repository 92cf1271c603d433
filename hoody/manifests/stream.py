"""
A snapshot as one stream of bytes, with which a container moves from one server to another:
docs/snapshot-stream.md says what it looks like, for who would write or read it elsewhere.

Nothing here does I/O, but for the file that it is given: what comes in may be anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple

import msgspec
from msgspec import Meta

from hoody.errors import CallerError
from hoody.manifests.content import PART
from hoody.manifests.manifest import Entry

IMAGE = "image"
"""The name of the tree that is the image, where it comes along."""
MOST_TREES = 200
MEDIA = "application/octet-stream"
_FIRST = b"hoody-snapshot 1\n"
_FAMILY = b"hoody-snapshot "
_MOST_HEADER = 5 << 19
"""Bytes of the head: a container's settings, each of at most a megabyte. It is read at once."""
_MOST_LINE = 64 << 20
"""Bytes of a line: an entry has a number for each hole of its file."""
_SUM = len(b"sum " + b"0" * 64 + b"\n")
_AT_ONCE = 1 << 18

Digest = Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")]
Plain = Annotated[str, Meta(pattern=r"^[^\x00]*$")]
Text = Annotated[str, Meta(max_length=1000, pattern=r"^[^\x00]*$")]
Moment = Annotated[datetime, Meta(tz=True)]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class Damaged(CallerError):
    """What came is no stream, or not the one that was sent."""


class Config(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    How an image wants to be run; C{None} where it says nothing.

    @ivar user: C{UID:GID}.
    """

    command: tuple[Plain, ...] | None = None
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    environment_vars: dict[Plain, Plain] | None = None
    working_dir: Plain | None = None
    user: Annotated[str, Meta(pattern="^[0-9]{1,5}:[0-9]{1,5}$")] | None = None


class ImageHead(msgspec.Struct, frozen=True, kw_only=True):
    """@ivar digest: of all that is in it, as if it were the one tree of a snapshot."""

    name: Text
    digest: Digest
    size: Count
    config: Config


class SnapshotHead(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, Meta(pattern=r"^(snap|undo)-\d{4}-\d{2}-\d{2}(-\d{6}(-\d{1,9})?)?$")]
    digest: Digest
    created_at: Moment
    consistency: Literal["frozen", "stopped"]
    comment: Annotated[str, Meta(max_length=500, pattern=r"^[^\x00]*$")] | None = None


class TreeHead(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, Meta(pattern="^(image|root|volume-[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)$")]
    entries: Annotated[int, Meta(ge=1, le=2**40)]


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a stream says of itself before anything else.

    @ivar container: what the container was set to, as the API takes it when one is made.
    @ivar base: the digest of the snapshot of which the receiver needs the content, too.
    @ivar trees: in the order in which they come.
    @ivar contents: how many come; C{size}: their bytes together.
    """

    container: dict[str, Any]
    image: ImageHead
    snapshot: SnapshotHead
    base: Digest | None = None
    trees: Annotated[tuple[TreeHead, ...], Meta(max_length=MOST_TREES)]
    contents: Count
    size: Count

    @property
    def has_image(self) -> bool:
        return any(tree.name == IMAGE for tree in self.trees)


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """
    One name in a tree.

    @ivar mtime: in nanoseconds since 1970, which no digest knows of.
    """

    mtime: int
    entry: Entry


class Content(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """
    What is in one file or more, without the runs of zeros that the manifest tells of.

    @ivar digest: in small hexadecimal digits, as C{Entry.digest}.
    """

    digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    length: Annotated[int, Meta(ge=1, le=2**63 - 1)]


class Run(NamedTuple):
    offset: int
    length: int


def runs(entry: Entry) -> Iterator[Run]:
    """What of a file is in its content, in order."""
    position = 0
    for offset, length in (*entry.zeros, (entry.size, 0)):
        if offset > position:
            yield Run(position, offset - position)
        position = offset + length


def content_of(entry: Entry) -> Content | None:
    """C{None} of what has none, or whose other name has."""
    if entry.kind != "file" or entry.first:
        return None
    length = entry.size - sum(length for _, length in entry.zeros)
    return Content(entry.digest, length) if length else None


_encoder = msgspec.json.Encoder()
_headers = msgspec.json.Decoder(Header)
_items = msgspec.json.Decoder(Item)
_contents = msgspec.json.Decoder(Content)


class Writer:
    """First L{head}, then each content as the head lists them, last L{end}."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._seal = sha256()

    def head(
        self, header: Header, trees: Mapping[str, Iterable[Item]], contents: Iterable[Content]
    ) -> None:
        found = sha256()
        parts = [_FIRST, _encoder.encode(header), b"\n"]
        parts += [_encoder.encode_lines(trees[tree.name]) for tree in header.trees]
        parts.append(_encoder.encode_lines(contents))
        for part in parts:
            found.update(part)
            self._write(part)
        self._write(_sum_line(b"sum", found.digest()))
        self._seal.update(found.digest())

    def content(self, content: Content, parts: Iterable[bytes]) -> None:
        """@raise Damaged: if these are not what it says; it must go no further then."""
        found, length = sha256(), 0
        for part in parts:
            found.update(part)
            length += len(part)
            self._write(part)
        if (found.hexdigest(), length) != (content.digest, content.length):
            raise Damaged("A file's content is not what its digest says.")
        self._seal.update(found.digest())

    def end(self) -> None:
        self._write(_sum_line(b"end", self._seal.digest()))


def _sum_line(word: bytes, digest: bytes) -> bytes:
    return word + b" " + digest.hex().encode() + b"\n"


class Reader:
    """
    The same from the other side: L{head}, then each of C{contents} by L{content}, then L{end}.
    Whatever of it raises, the stream is not what was sent.

    @ivar header: as soon as there is a reader.
    @ivar trees: by name, and C{contents}: when L{head} has been read.
    """

    def __init__(self, file: BinaryIO) -> None:
        """@raise Damaged: if this is none."""
        self._file = file
        self._found, self._seal = sha256(), sha256()
        self.trees: dict[str, list[Item]] = {}
        self.contents: list[Content] = []
        first = file.readline(len(_FIRST) + 1)
        if first != _FIRST:
            raise Damaged(_what_it_is(first))
        self._found.update(first)
        self.header: Header = self._line(_headers, _MOST_HEADER)

    def head(self) -> None:
        """@raise Damaged: if it is not what was sent."""
        self.trees = {
            tree.name: [self._line(_items) for _ in range(tree.entries)]
            for tree in self.header.trees
        }
        self.contents = [self._line(_contents) for _ in range(self.header.contents)]
        found = self._found.digest()
        if self._file.read(_SUM) != _sum_line(b"sum", found):
            raise _not_as_sent()
        self._seal.update(found)
        if len(self.trees) != len(self.header.trees):
            raise Damaged("The stream has two trees of one name.")
        if sum(content.length for content in self.contents) != self.header.size:
            raise Damaged("The stream says two things of its size.")

    def _line(self, decoder: msgspec.json.Decoder[Any], most: int = _MOST_LINE) -> Any:
        raw = self._file.readline(most + 1)
        if not raw.endswith(b"\n"):
            raise Damaged("A line of the stream is too long.") if len(raw) > most else _cut()
        self._found.update(raw)
        try:
            return decoder.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Damaged(
                f"The stream is not what was sent, or was made by a newer server: {error}."
            ) from None

    def content(self, content: Content) -> Iterator[bytes]:
        """To be read to its end. @raise Damaged: there, if it is not what was sent."""
        found, left = sha256(), content.length
        while left:
            part = self._file.read(min(left, _AT_ONCE))
            if not part:
                raise _cut()
            found.update(part)
            left -= len(part)
            yield part
        if found.hexdigest() != content.digest:
            raise _not_as_sent()
        self._seal.update(found.digest())

    def end(self) -> None:
        """@raise Damaged: if it is cut, or goes on."""
        mark = self._file.read(_SUM)
        if len(mark) < _SUM:
            raise _cut()
        if mark != _sum_line(b"end", self._seal.digest()) or self._file.read(1):
            raise _not_as_sent()


def _what_it_is(first: bytes) -> str:
    if first.startswith(_FAMILY) and len(first) >= len(_FIRST):
        return "The stream was made by a newer server; bring this one up to date."
    if _FIRST.startswith(first):
        return _CUT
    return "This is no snapshot; send what GET /api/v1/containers/C/snapshots/S/export gives."


_CUT = "The stream is cut: its end is missing; send it again, all of it."


def _cut() -> Damaged:
    return Damaged(_CUT)


def _not_as_sent() -> Damaged:
    return Damaged("The stream is not what was sent: its checksum is another; send it again.")


def pieces(run: Run) -> Iterator[Run]:
    """The same in parts that may be had at once."""
    for offset in range(run.offset, run.offset + run.length, PART):
        yield Run(offset, min(PART, run.offset + run.length - offset))
