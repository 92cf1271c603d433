"""
Reads tar archives: ustar (POSIX.1-1988), pax (POSIX.1-2001, "pax Interchange Format") and
GNU's (GNU tar manual, "Basic Tar Format" and "Storing Sparse Files").

Not Python's C{tarfile}, which takes a broken or a missing head for the archive's end and
says nothing (a truncated upload would become an image with half its files), reads extended
heads of any length into memory, and recurses over them. Here all is bounded, and what is
not understood is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto

from attrs import Factory, define, field, frozen

from hoody.containers.images.budget import shown
from hoody.containers.images.streams import CUT_OFF, PIECE, Source
from hoody.errors import CallerError

_BLOCK = 512
_EXTENDED = 1024**2
"""Bytes of an extended head: a name has at most 4096, an attribute 64 KiB."""
_EXTENSIONS = 16
"""Extended heads that one entry may have."""
_SPANS = 200_000
"""Pieces of one sparse file."""
_LARGEST = 2**63 - 1
_RECORD = re.compile(rb"([1-9][0-9]{0,7}) ")
_XATTR = b"SCHILY.xattr."
_FOR_ALL = {b"uid", b"gid", b"mtime"}
"""What a global head is heeded for."""


class Kind(Enum):
    FILE = auto()
    LINK = auto()
    SYMLINK = auto()
    DIRECTORY = auto()
    FIFO = auto()
    DEVICE = auto()
    OTHER = auto()


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,  # "contiguous"
    b"S": Kind.FILE,  # sparse
    b"1": Kind.LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.DEVICE,
    b"4": Kind.DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}
_WITH_DATA = {Kind.FILE, Kind.OTHER}


@frozen(kw_only=True)
class Entry:
    """
    @ivar name: as the archive has it: anything.
    @ivar target: of links.
    @ivar size: of a file, with its holes.
    @ivar spans: where the data of a sparse file belongs, as (offset, length); C{None} for
        one without holes.
    @ivar mtime: nanoseconds since the epoch.
    """

    name: bytes
    kind: Kind
    target: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    spans: tuple[tuple[int, int], ...] | None = None
    xattrs: dict[bytes, bytes] = Factory(dict)


@define
class Archive:
    """
    Its entries, one after the other; the data of a file can be read, or not, before the
    next is asked for.

    @ivar position: of the next byte, from the archive's beginning.
    """

    _source: Source
    position: int = field(default=0, init=False)
    _ahead: bytes = field(default=b"", init=False)
    _at: int = field(default=0, init=False)
    """So much of C{_ahead} was taken: to cut it off each time would copy the rest."""
    _left: int = field(default=0, init=False)
    """Bytes of the entry's data that were not read."""
    _padding: int = field(default=0, init=False)
    _global: dict[bytes, bytes] = field(factory=dict, init=False)

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry
        # To the end: only there a compressed stream says whether it is whole.
        while self._take(PIECE):
            pass

    def data(self, entry: Entry) -> Iterator[tuple[int, bytes]]:
        """What is in a file, as (offset, bytes)."""
        for offset, length in ((0, entry.size),) if entry.spans is None else entry.spans:
            end = offset + length
            while offset < end:
                piece = self._piece(min(PIECE, end - offset))
                yield offset, piece
                offset += len(piece)

    def _next(self) -> Entry | None:
        self._skip()
        found: dict[bytes, bytes] = {}
        sparse: list[int] = []
        for _ in range(_EXTENSIONS + 1):
            head = self._exactly(_BLOCK)
            if not head.strip(b"\0"):
                return None
            size = self._checked(head)
            letter = head[156:157]
            if letter in b"gxX":
                records = _records(self._extension(size), sparse)
                if letter == b"g":
                    # Few, or who has many entries behind many of these keeps us for hours.
                    self._global.update((key, records[key]) for key in _FOR_ALL & records.keys())
                else:
                    found.update(records)
            elif letter == b"L":
                found[b"path"] = self._extension(size).rstrip(b"\0")
            elif letter == b"K":
                found[b"linkpath"] = self._extension(size).rstrip(b"\0")
            else:
                return self._entry(head, size, {**self._global, **found}, sparse)
        raise _broken("an entry has too many extended heads")

    def _checked(self, head: bytes) -> int:
        """The size that it says, if it is a head at all."""
        said = _number(head[148:156])
        blank = head[:148] + b" " * 8 + head[156:]
        # Some have summed signed characters.
        if said not in (sum(blank), sum(blank) - 256 * sum(byte > 127 for byte in blank)):
            raise _broken("what should be an entry's head has a wrong checksum")
        size = _number(head[124:136])
        if size < 0:
            raise _broken("an entry has less than no bytes")
        return size

    def _entry(self, head: bytes, size: int, more: dict[bytes, bytes], sparse: list[int]) -> Entry:
        name, letter = _text(head[:100]), head[156:157]
        if head[257:263] == b"ustar\0" and head[345]:
            name = _text(head[345:500]) + b"/" + name
        name = more.get(b"GNU.sparse.name", more.get(b"path", name))
        kind = _KINDS.get(letter, Kind.OTHER)
        if letter == b"M":
            raise _broken(f"{shown(name)} is one of several volumes; give it as one archive")
        stored = _decimal(more[b"size"]) if b"size" in more else size
        self._left = stored if kind in _WITH_DATA else 0
        self._padding = -self._left % _BLOCK
        if letter in b"0\0" and name.endswith(b"/"):
            kind = Kind.DIRECTORY  # as before POSIX; what it has of data is skipped
        real, spans = self._left, None
        if kind is Kind.FILE:
            real, spans = self._sparse(head, more, sparse)
        return Entry(
            name=name,
            kind=kind,
            target=more.get(b"linkpath", _text(head[157:257])),
            mode=_number(head[100:108]) & 0o7777,
            uid=_decimal(more[b"uid"]) if b"uid" in more else _number(head[108:116]),
            gid=_decimal(more[b"gid"]) if b"gid" in more else _number(head[116:124]),
            mtime=_time(more[b"mtime"]) if b"mtime" in more else _number(head[136:148]) * 10**9,
            size=real,
            spans=spans,
            xattrs={
                key.removeprefix(_XATTR): value
                for key, value in more.items()
                if key.startswith(_XATTR)
            },
        )

    def _sparse(
        self, head: bytes, more: dict[bytes, bytes], pairs: list[int]
    ) -> tuple[int, tuple[tuple[int, int], ...] | None]:
        """The size with holes, and where there are none."""
        real = more.get(b"GNU.sparse.realsize", more.get(b"GNU.sparse.size"))
        if head[156:157] == b"S":
            numbers, size = self._old_map(head), max(0, _number(head[483:495]))
        elif real is None:
            return self._left, None
        elif b"GNU.sparse.major" in more:
            numbers, size = self._map_before_data(), _decimal(real)
        elif b"GNU.sparse.map" in more:
            numbers = [_decimal(text) for text in more[b"GNU.sparse.map"].split(b",") if text]
            size = _decimal(real)
        else:
            numbers, size = pairs, _decimal(real)
        return size, self._spans(numbers, size)

    def _spans(self, numbers: list[int], size: int) -> tuple[tuple[int, int], ...]:
        spans = tuple(zip(numbers[::2], numbers[1::2], strict=False))
        end = 0
        for offset, length in spans:
            if offset < end or length < 0:
                raise _broken("the pieces of a sparse file overlap")
            end = offset + length
        whole = len(numbers) % 2 == 0 and len(spans) <= _SPANS
        if not whole or end > size or sum(length for _, length in spans) != self._left:
            raise _broken("the pieces of a sparse file do not fit it")
        return tuple(span for span in spans if span[1])

    def _old_map(self, head: bytes) -> list[int]:
        numbers, block, start, count, flag = [], head, 386, 4, 482
        while True:
            for place in range(start, start + count * 24, 24):
                if block[place]:
                    numbers += [
                        _number(block[place : place + 12]),
                        _number(block[place + 12 : place + 24]),
                    ]
            if not block[flag]:
                return numbers
            if len(numbers) > 2 * _SPANS:
                raise _broken("a sparse file has too many pieces")
            block, start, count, flag = self._exactly(_BLOCK), 0, 21, 504

    def _map_before_data(self) -> list[int]:
        """Version 1.0: lines of decimals, the first says of how many pairs, in whole blocks."""
        text, wanted = b"", None
        while True:
            lines = text.split(b"\n")
            if wanted is None and len(lines) > 1:
                wanted = _decimal(lines[0])
            if wanted is not None and len(lines) > 2 * wanted + 1:
                return [_decimal(line) for line in lines[1 : 2 * wanted + 1]]
            if len(text) > _EXTENDED:
                raise _broken("a sparse file has too many pieces")
            # In larger steps as it grows, or its lines would be counted too often.
            for _ in range(max(1, len(text) // _BLOCK // 4)):
                if self._left < _BLOCK:
                    raise _broken("the pieces of a sparse file do not fit it")
                text += self._exactly(_BLOCK)
                self._left -= _BLOCK

    def _extension(self, size: int) -> bytes:
        if size > _EXTENDED:
            raise _broken("an extended head has more than a MiB")
        return self._exactly(size + -size % _BLOCK)[:size]

    def _piece(self, count: int) -> bytes:
        data = self._take(count)
        if not data:
            raise CallerError(CUT_OFF)
        self._left -= len(data)
        return data

    def _skip(self) -> None:
        rest = self._left + self._padding
        while rest:
            data = self._take(min(PIECE, rest))
            if not data:
                raise CallerError(CUT_OFF)
            rest -= len(data)
        self._left = self._padding = 0

    def _exactly(self, count: int) -> bytes:
        data = self._take(count)
        while len(data) < count:
            more = self._take(count - len(data))
            if not more:
                raise CallerError(CUT_OFF)
            data += more
        return data

    def _take(self, count: int) -> bytes:
        if self._at == len(self._ahead):
            self._ahead, self._at = self._source.read(PIECE), 0
        data = self._ahead[self._at : self._at + count]
        self._at += len(data)
        self.position += len(data)
        return data


def _broken(why: str) -> CallerError:
    return CallerError(
        f"The upload is no tar archive that can be read: {why}. Give a tar, plain or compressed"
        " by gzip, bzip2 or xz."
    )


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _number(field: bytes) -> int:
    """Octal digits; or, with the first bit set, GNU's base 256."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") - (1 << 8 * len(field) - 1)
        if field[0] & 0x40:
            value -= 1 << 8 * len(field) - 1
    else:
        digits = _text(field).strip(b" ")
        if digits.strip(b"01234567"):
            raise _broken("a number in an entry's head is none")
        value = int(digits, 8) if digits else 0
    if not -_LARGEST <= value <= _LARGEST:
        raise _broken("a number in an entry's head is too large")
    return value


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19 or int(text) > _LARGEST:
        raise _broken(f"{shown(text)} is no number that an entry could have")
    return int(text)


def _time(text: bytes) -> int:
    match = re.fullmatch(rb"(-?[0-9]{1,20})(?:\.([0-9]{0,30}))?", text)
    if match is None:
        raise _broken(f"{shown(text)} is no time")
    fraction = (match[2] or b"").ljust(9, b"0")[:9]
    return int(match[1]) * 10**9 + int(fraction)


def _records(data: bytes, sparse: list[int]) -> dict[bytes, bytes]:
    """
    The records of a pax head.

    @param sparse: gets those that come more than once, by which version 0.0 of sparse
        files says where their data belongs.
    """
    found: dict[bytes, bytes] = {}
    place = 0
    while place < len(data):
        match = _RECORD.match(data, place)
        end = place + int(match[1]) if match else 0
        if match is None or end > len(data) or end <= match.end() or data[end - 1] != 0x0A:
            raise _broken("an extended head is malformed")
        key, equals, value = data[match.end() : end - 1].partition(b"=")
        if not equals:
            raise _broken("an extended head is malformed")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(_decimal(value))
        found[key] = value
        place = end
    return found
