"""
What has changed in a subvolume since a transaction, by the numbers that btrfs keeps itself:
nobody inside can set them, as they can a file's times.

Each change to a file, be it of its content, its mode or its number of names, writes its inode
anew, with the number of the transaction (C{transid}); each part that is written bears that of
its own (C{generation}). A snapshot and its copies have the same numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hoody.containers import btrfs

_TOP = 2**64 - 1
# struct btrfs_inode_item: generation, transid, size, nbytes; struct btrfs_file_extent_item:
# generation, type (at 20), disk_bytenr and disk_num_bytes behind it.
_INODE = struct.Struct("<8xQ8xQ")
_EXTENT = struct.Struct("<Q12xBQQ")
_INLINE = 0
_INLINE_HEAD = 21


class Extent(NamedTuple):
    """
    @ivar place: its address, C{disk_bytenr}; of what is kept within the tree itself, 0.
    @ivar size: bytes on disk, compressed.
    """

    inode: int
    place: int
    size: int


class Changes(NamedTuple):
    """
    @ivar inodes: that are new, or not as they were.
    @ivar extents: that were written.
    @ivar size: bytes of all files that are among the inodes, without holes.
    """

    inodes: set[int]
    extents: list[Extent]
    size: int


def since(path: Path, generation: int) -> Changes:
    """@param generation: the transaction after which; 0 for all."""
    inodes, extents, size = set(), [], 0
    first, last = (btrfs.FIRST_INODE, 0, 0), (_TOP, 255, _TOP)
    for subject, kind, _, data in btrfs.search(path, 0, first, last, generation + 1):
        if kind == btrfs.INODE_ITEM:
            written, room = _INODE.unpack_from(data)
            if written > generation:
                inodes.add(subject)
                size += room
        elif kind == btrfs.EXTENT_DATA and (found := _extent(subject, data, generation)):
            inodes.add(subject)
            extents.append(found)
    return Changes(inodes, extents, size)


def _extent(inode: int, data: memoryview, generation: int) -> Extent | None:
    """If it was written, or made a hole, after that."""
    if struct.unpack_from("<Q", data)[0] <= generation:
        return None
    if data[20] == _INLINE:
        return Extent(inode, 0, len(data) - _INLINE_HEAD)
    _, _, place, size = _EXTENT.unpack_from(data)
    return Extent(inode, place, size if place else 0)


def disk(path: Path) -> int:
    """Bytes on disk of all that is in a subvolume, each counted once."""
    sizes = {each.place: each.size for each in since(path, 0).extents if each.place}
    return sum(sizes.values())


def taken(path: Path, extents: Iterable[Extent], generation: int) -> int:
    """
    Bytes on disk of these, each counted once, without those that were there already: what is
    copied by sharing (FICLONE), as overlayfs does with the image's files, is written anew in
    the copy's tree, but not on disk.
    """
    total, sizes = 0, {}
    for extent in extents:
        if extent.place:
            sizes[extent.place] = extent.size
        else:
            total += extent.size
    births = btrfs.births(path, sorted(sizes))
    return total + sum(sizes[place] for place, born in births if born > generation)
