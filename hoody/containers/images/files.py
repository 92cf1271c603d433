"""Files of an image in layers: in a folder, or as entries of an archive."""

from __future__ import annotations

import os
import re
import stat
from typing import Protocol

from attrs import define, field

from hoody.containers.images.budget import Budget
from hoody.containers.images.streams import PIECE, Part, Source
from hoody.containers.images.tar import Archive, Kind
from hoody.containers.images.tree import parts_of
from hoody.errors import CallerError

_TOPS = re.compile(
    rb"blobs|oci-layout|index\.json|manifest\.json|repositories|[0-9a-f]{64}(\.json|\.tar)?"
)
_MOST_LINKS = 8
_SPOOL = "/.upload"


class Files(Protocol):
    def find(self, name: str) -> Part | None:
        """The content of a file, by its path, if it is there."""


@define
class Folder:
    """
    @ivar descriptor: of the folder. No link in it is followed. What is opened stays open:
        that is one file a layer, and the process does not live long.
    """

    descriptor: int

    def find(self, name: str) -> Part | None:
        *folders, last = name.split("/")
        above = self.descriptor
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            for folder in folders:
                below = os.open(folder, flags | os.O_DIRECTORY, dir_fd=above)
                if above != self.descriptor:
                    os.close(above)
                above = below
            file = os.open(last, flags, dir_fd=above)
        except OSError:
            return None
        finally:
            if above != self.descriptor:
                os.close(above)
        return Part.whole(file) if stat.S_ISREG(os.fstat(file).st_mode) else None


@define
class Entries:
    """
    @ivar descriptor: of an archive that is not compressed.
    @ivar places: offset and length of each file in it.
    @ivar links: to what the others lead: C{docker save} had a layer once that several
        images share.
    """

    descriptor: int
    places: dict[bytes, tuple[int, int]] = field(factory=dict)
    links: dict[bytes, bytes] = field(factory=dict)

    def find(self, name: str) -> Part | None:
        key = name.encode()
        for _ in range(_MOST_LINKS):
            if key in self.places:
                return Part(self.descriptor, *self.places[key])
            if key not in self.links:
                return None
            key = self.links[key]
        return None


def look(source: Source, descriptor: int, budget: Budget) -> Entries | None:
    """
    The files of an image in layers, if the archive is one: all that is in it is what
    such have at their top. A root file system has something else, and soon.
    """
    archive, found = Archive(source), Entries(descriptor)
    for entry in archive:
        budget.take_entry()
        parts = parts_of(entry.name)
        if parts and not _TOPS.fullmatch(parts[0]):
            return None
        name = b"/".join(parts)
        if entry.kind is Kind.FILE and entry.spans is None:
            found.places[name] = (archive.position, entry.size)
        elif entry.kind is Kind.SYMLINK:
            found.links[name] = os.path.normpath(os.path.join(b"/".join(parts[:-1]), entry.target))
        elif entry.kind is Kind.LINK:
            found.links[name] = b"/".join(parts_of(entry.target))
        elif entry.kind is not Kind.DIRECTORY:
            return None
    complete = b"manifest.json" in found.places or {b"oci-layout", b"index.json"} <= set(
        found.places
    )
    return found if complete else None


def spool(source: Source, budget: Budget) -> int:
    """
    What an archive is, decompressed, as a file without a name: in an image in layers one
    has to go to and fro. It takes room where the image will, and is gone with us.
    """
    descriptor = os.open(_SPOOL, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(_SPOOL)
    os.utime("/", ns=(0, 0))
    count = 0
    while data := source.read(PIECE):
        count += len(data)
        if count > budget.limits.bytes:
            raise CallerError("The archive comes to more bytes unpacked than an image may have.")
        while data:
            data = data[os.write(descriptor, data) :]
    return descriptor
