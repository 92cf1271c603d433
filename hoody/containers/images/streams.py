"""
Bytes from files: a part of one, checked against a digest, decompressed. All of it in
bounded memory, whatever the file says.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import os
import zlib
from typing import Protocol

from attrs import define, field

from hoody.containers.images.budget import Budget
from hoody.errors import CallerError

PIECE = 256 * 1024
_XZ_MEMORY = 256 * 1024**2
"""C{xz -9} needs 65 MiB to be read; who asks for gigabytes is no friend."""
CUT_OFF = "The archive ends in the middle: it was cut off on its way; upload it again."


class Source(Protocol):
    def read(self, count: int) -> bytes:
        """At least one byte and at most C{count}; none at the end."""


@define
class Part:
    """Some bytes of a file that is open; several may be read in turns."""

    descriptor: int
    offset: int
    length: int

    @classmethod
    def whole(cls, descriptor: int) -> Part:
        return cls(descriptor, 0, os.fstat(descriptor).st_size)

    def read(self, count: int) -> bytes:
        data = os.pread(self.descriptor, min(count, self.length), self.offset)
        if not data and self.length and count:
            raise CallerError(CUT_OFF)
        self.offset += len(data)
        self.length -= len(data)
        return data


@define
class Checked:
    """
    A blob, which has to be what its descriptor says (image-spec, descriptor.md). That is
    known at its end: what was made of it before is thrown away with all the rest.
    """

    _part: Part
    _digest: str
    _hash: hashlib._Hash = field(factory=hashlib.sha256, init=False)

    def read(self, count: int) -> bytes:
        data = self._part.read(count)
        self._hash.update(data)
        return data

    def finish(self) -> None:
        """@raise CallerError: if it is another."""
        while self.read(PIECE):
            pass
        if self._hash.hexdigest() != self._digest:
            raise CallerError(
                f"The blob sha256:{self._digest} has another content than its digest says; the"
                " image was changed or damaged: make it anew."
            )


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


@define
class _Gzip:
    """zlib's, with the manners of the others."""

    _inner: zlib._Decompress = field(factory=lambda: zlib.decompressobj(wbits=31), init=False)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY)


_KINDS: list[tuple[bytes, str, type[_Decompressor]]] = [
    (b"\x1f\x8b", "gzip", _Gzip),
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", "xz", _xz),  # type: ignore[list-item]
]
_ZSTD = (b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18")
_BROKEN = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)


@define
class Decompressed:
    """One or more gzip, bzip2 or xz streams behind each other, as their tools read them."""

    _source: Source
    _budget: Budget
    _name: str
    _fresh: type[_Decompressor]
    _head: bytes
    _inner: _Decompressor | None = field(default=None, init=False)

    def read(self, count: int) -> bytes:
        while True:
            if self._inner is None and not self._next_stream():
                return b""
            assert self._inner is not None
            data = self._piece(self._inner, count)
            if self._inner.eof:
                self._head, self._inner = self._inner.unused_data, None
            if data:
                self._budget.take_stream(len(data))
                return data

    def _piece(self, inner: _Decompressor, count: int) -> bytes:
        given, self._head = self._head, b""
        if not given and inner.needs_input:
            given = self._source.read(PIECE)
            if not given:
                raise CallerError(CUT_OFF)
        try:
            return inner.decompress(given, count)
        except _BROKEN as error:
            raise CallerError(
                f"The archive is damaged: its {self._name} stream cannot be read ({error});"
                " make it anew, or upload it again."
            ) from None

    def _next_stream(self) -> bool:
        """Begin it, if there is one; zeros behind the last are padding."""
        while not self._head.strip(b"\0"):
            self._head = self._source.read(PIECE)
            if not self._head:
                return False
        self._inner = self._fresh()
        return True


@define
class _Rest:
    """A source of which some was read already."""

    _head: bytes
    _source: Source

    def read(self, count: int) -> bytes:
        if self._head:
            data, self._head = self._head[:count], self._head[count:]
            return data
        return self._source.read(count)


def opened(source: Source, budget: Budget) -> Source:
    """
    What is in it, decompressed if it is compressed, by its first bytes: names and media
    types may say what they like.
    """
    head = source.read(PIECE)
    for magic, name, fresh in _KINDS:
        if head.startswith(magic):
            return Decompressed(source, budget, name, fresh, head)
    if head[:4] == _ZSTD[0] or head[1:4] == _ZSTD[1][1:]:
        raise CallerError(
            "The archive is compressed by zstd, which is not read here; give it as gzip or xz:"
            " zstd -dc ARCHIVE | gzip, or skopeo copy --dest-compress-format gzip."
        )
    return _Rest(head, source)


def is_compressed(descriptor: int) -> bool:
    head = os.pread(descriptor, 8, 0)
    return any(head.startswith(magic) for magic, _, _ in _KINDS)
