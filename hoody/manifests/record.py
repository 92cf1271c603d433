"""
What is written down of a snapshot, beside it: lines of JSON.

The first is a L{Header}; then come the entries, tree by tree in the order that the header has,
each sorted by path; the last is the SHA-256 of all that, in hexadecimal digits. Of the root
there is what is above the image, with its whiteouts: the image has a record of its own.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import msgspec

from hoody.errors import HoodyError
from hoody.manifests.manifest import ROOT, Entry
from hoody.manifests.overlay import merged

VERSION = 1


class State(msgspec.Struct, frozen=True, kw_only=True):
    """
    Of the subvolume that a tree is in.

    @ivar changed: the transaction that last changed what is in it.
    @ivar made: the one that made it. If it was changed later, this says nothing of others.
    @ivar identity: of the subvolume, in hexadecimal digits, as C{parent}: of the one that it is
        a snapshot of.
    """

    entries: int
    changed: int
    made: int
    identity: str
    parent: str


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """
    @ivar image: the digest of its image by itself; empty of an image.
    @ivar digest: of the whole, or of an image by itself.
    """

    version: int
    image: str
    digest: str
    trees: dict[str, State]


class Damaged(HoodyError):
    """A record is not what was written, or is none."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """
    @ivar trees: entries by the tree's name, in order.
    @ivar checksum: in hexadecimal digits; empty if it was not written yet.
    """

    header: Header
    trees: dict[str, list[Entry]]
    checksum: str = ""

    def says_the_same_as(self, other: Record) -> bool:
        """Of all but when its subvolumes were made."""
        heads = (self.header.image, self.header.digest), (other.header.image, other.header.digest)
        return heads[0] == heads[1] and self.trees == other.trees

    def whole(self, image: Record) -> dict[str, list[Entry]]:
        """As the container sees it. @raise Damaged: if that is not its image."""
        if image.header.digest != self.header.image:
            raise Damaged("The image is not the one that the snapshot was taken above.")
        return {**self.trees, ROOT: merged(image.trees[ROOT], self.trees[ROOT])}


_encoder = msgspec.json.Encoder()
_headers = msgspec.json.Decoder(Header)
_entries = msgspec.json.Decoder(Entry)


def encode(record: Record) -> bytes:
    """With its checksum, whatever C{record} has for one."""
    lines = [_encoder.encode(record.header) + b"\n"]
    lines += [_encoder.encode_lines(record.trees[name]) for name in record.header.trees]
    found = sha256()
    for part in lines:
        found.update(part)
    return b"".join([*lines, found.hexdigest().encode(), b"\n"])


def decode(raw: bytes) -> Record:
    """@raise Damaged: if one bit of it is not as it was."""
    body, checksum = raw[:-65], raw[-65:-1].decode("ascii", "replace")
    if sha256(body).hexdigest() != checksum or raw[-1:] != b"\n":
        raise Damaged("It is not what was written: its checksum is another.")
    try:
        head, _, rest = body.partition(b"\n")
        header = _headers.decode(head)
        entries = _entries.decode_lines(rest)
    except msgspec.MsgspecError as error:
        raise Damaged(f"It is no record of this version: {error}.") from None
    return Record(header=header, trees=_parted(header, entries), checksum=checksum)


def _parted(header: Header, entries: list[Entry]) -> dict[str, list[Entry]]:
    trees, start = {}, 0
    for name, state in header.trees.items():
        trees[name] = entries[start : start + state.entries]
        start += state.entries
    if header.version != VERSION or start != len(entries):
        raise Damaged(f"It is no record of version {VERSION}.")
    return trees


def load(path: Path) -> Record:
    """@raise Damaged: if it cannot be read, too."""
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise Damaged(f"It cannot be read: {error.strerror}.") from None


def save(record: Record, path: Path) -> str:
    """
    Whole or not at all, as seen by others; after a power failure it may be damaged, which
    L{load} finds. @return: its checksum.
    """
    raw = encode(record)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(raw)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return raw[-65:-1].decode()


def link_to(record: Path, path: Path) -> None:
    """As L{save}, of one that is written down already."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        os.link(record, fresh)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
