"""
What btrfs is asked for, by ioctl (linux/btrfs.h): quicker than its program, and it says
what went wrong by number. All of it may take a while: call it from a thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import stat
import struct
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

MAGIC = 0x9123683E
"""What statfs(2) says of a btrfs (linux/magic.h)."""
FIRST_INODE = 256
"""The inode number of a subvolume's own directory."""

_CREATE = 0x5000940E
_DESTROY = 0x5000940F
_DESTROY_NUMBER = 0x5000943F
_SNAPSHOT = 0x50009417
_SET_FLAGS = 0x4008941A
_QUOTA = 0xC0109428
_LIMIT = 0x8030942B
_START_SYNC = 0x80089418
_WAIT_SYNC = 0x40089416
_ASSIGN = 0x40189429
_GROUP = 0x4010942A
_INFO = 0x8400941F
_LOOKUP = 0xD0009412
_SEARCH = 0xD0009411
_SEARCH_LONG = 0xC0709411
_DESCRIBE = 0x81F8943C
_SHARE = 0xC0189436
_READ_ONLY, _BY_NUMBER = 1 << 1, 1 << 4
_ENABLE, _SIMPLE = 1, 4
_MAX_REFERENCED = 1 << 0
_ROOTS, _ROOT_ITEM, _ROOT_REF = 1, 132, 156
_GROUPS = Path("/sys/fs/btrfs")

INODE_ITEM, EXTENT_DATA = 1, 108
"""Types of what is in a subvolume's tree (linux/btrfs_tree.h)."""
_EXTENTS, _EXTENT_ITEM = 2, 168
_IDENTITIES, _IDENTITY = 9, 251
_TOP = 2**64 - 1
_HEAD, _ROOM, _SMALL_ROOM = 112, 256 * 1024, 64 * 1024
"""Bytes of what is searched for, and of what is found: one item is never larger than a block."""
_FOUND = struct.Struct("<QQQII")
# struct btrfs_file_extent_item: ram_bytes (at 8), type (at 20), disk_bytenr, disk_num_bytes,
# offset, num_bytes; struct file_dedupe_range with one struct file_dedupe_range_info (linux/fs.h).
_EXTENT = struct.Struct("<8xQ4xB4Q")
_RANGE = struct.Struct("<QQHHIqQQiI")
_INLINE, _DIFFERS = 0, 1


def is_btrfs(path: Path) -> bool:
    """Whether a path is on one."""
    words = (ctypes.c_long * 64)()
    library = ctypes.CDLL(None, use_errno=True)
    if library.statfs(os.fsencode(path), ctypes.byref(words)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return int(words[0]) == MAGIC


def is_subvolume(path: Path) -> bool:
    """Whether this directory is one, of a btrfs."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False  # it may be being deleted
    return stat.S_ISDIR(found.st_mode) and found.st_ino == FIRST_INODE


def create(path: Path) -> None:
    """An empty subvolume."""
    _name_in(path, _CREATE, struct.pack("q4088s", 0, path.name.encode()))


def snapshot(source: Path, path: Path, *, read_only: bool) -> None:
    """Another subvolume that shares all that is in C{source}."""
    descriptor = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = _READ_ONLY if read_only else 0
        words = struct.pack("qQQ32s4040s", descriptor, 0, flags, b"", path.name.encode())
        _name_in(path, _SNAPSHOT, words)
    finally:
        os.close(descriptor)


def delete(path: Path) -> None:
    """What it shared with others stays theirs; there may be no subvolume within."""
    _name_in(path, _DESTROY, struct.pack("q4088s", 0, path.name.encode()))


def delete_within(path: Path) -> None:
    """Delete all subvolumes that somebody on the server has made in one, sealed or not."""
    unseal(path)
    own = identity(path)
    # Those that are made now are nobody's: whoever could make them does not run.
    found = search(path, _ROOTS, (own, _ROOT_REF, 0), (own, _ROOT_REF, _TOP))
    for number, folder, name in [(item.offset, *_reference(item.data)) for item in found]:
        above = _of(path, _LOOKUP, struct.pack("QQ4080s", own, folder, b""))[16:]
        delete_within(path / os.fsdecode(above.partition(b"\0")[0]) / name)
        _of(path, _DESTROY_NUMBER, struct.pack("qQQ32sQ4032x", 0, 0, _BY_NUMBER, b"", number))


def seal(path: Path) -> None:
    """Let nobody change it any more."""
    _of(path, _SET_FLAGS, struct.pack("Q", _READ_ONLY))


def unseal(path: Path) -> None:
    """The reverse of L{seal}."""
    _of(path, _SET_FLAGS, struct.pack("Q", 0))


def identity(path: Path) -> int:
    """The number of its subvolume, which is that of its quota group."""
    answer = _of(path, _LOOKUP, struct.pack("QQ4080s", 0, FIRST_INODE, b""))
    return int(struct.unpack_from("Q", answer)[0])


def count_simply(path: Path) -> None:
    """
    Have this file system count what each subvolume takes, by who wrote it first (simple
    quotas, Linux 6.7). An older kernel does not mount it then.

    @raise OSError: if the kernel cannot.
    """
    _of(path, _QUOTA, struct.pack("QQ", _SIMPLE, 0))


def count(path: Path) -> None:
    """As L{count_simply}, on older kernels, at a price for each snapshot."""
    _of(path, _QUOTA, struct.pack("QQ", _ENABLE, 0))


def limit(path: Path, most: int | None, group: int = 0) -> None:
    """
    Let a subvolume, or all of a quota group of this file system, hold no more than this many
    bytes.

    @raise OSError: if nothing counts them.
    """
    value = 2**64 - 1 if most is None else most
    _of(path, _LIMIT, struct.pack("QQQQQQ", group, _MAX_REFERENCED, value, 0, 0, 0))


def commit(path: Path) -> None:
    """Have what was given back so far be free, and no longer count."""
    _of(path, _WAIT_SYNC, _of(path, _START_SYNC, bytes(8)))


def flush(path: Path) -> None:
    """Have what was written to files so far be on the disk (syncfs(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if library.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


# What is in trees


class Subvolume(NamedTuple):
    """
    @ivar changed: the number of the transaction that last changed what is in it: which to be
        copied, or moved on the disk, does not.
    @ivar made: that of the transaction that made it; of a snapshot, all before is in it.
    @ivar identity: 16 bytes, as C{parent}: of the one that this is a snapshot of; or zeros.
    """

    changed: int
    made: int
    is_read_only: bool
    identity: bytes
    parent: bytes


def describe(path: Path) -> Subvolume:
    """The subvolume that a directory is in (C{BTRFS_IOC_GET_SUBVOL_INFO})."""
    answer = _of(path, _DESCRIBE, bytes(504))
    flags, identity, parent = struct.unpack_from("<Q16s16s", answer, 288)
    changed, made = struct.unpack_from("<QQ", answer, 344)
    # In a tree's item, this is another bit than in the flags of an ioctl.
    return Subvolume(changed, made, bool(flags & 1), identity, parent)


Key = tuple[int, int, int]
"""Of an item: whose it is, its type, and an offset, or what else tells it from others."""


class Item(NamedTuple):
    """@ivar data: as it is on disk, until the next one is asked for."""

    subject: int
    kind: int
    offset: int
    data: memoryview


def search(path: Path, tree: int, first: Key, last: Key, since: int = 0) -> Iterator[Item]:
    """
    What a tree has, in order, from one key to another (C{BTRFS_IOC_TREE_SEARCH_V2}): of those
    blocks alone that were written in a transaction C{since} or later.

    @param tree: 0 for that of the subvolume.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from _searched(descriptor, tree, first, last, since)
    finally:
        os.close(descriptor)


def _searched(descriptor: int, tree: int, first: Key, last: Key, since: int) -> Iterator[Item]:
    buffer = bytearray(_HEAD + _ROOM)
    while first <= last:
        count = _search_once(descriptor, buffer, tree, first, last, since)
        if not count:
            return
        for item in _items(buffer, count):
            yield item
        first = _next(item)


def _next(item: Item) -> Key:
    """The least key behind."""
    if item.offset < _TOP:
        return item.subject, item.kind, item.offset + 1
    return item.subject, item.kind + 1, 0


def births(path: Path, places: Iterable[int]) -> Iterator[tuple[int, int]]:
    """
    Addresses of extents (C{disk_bytenr}) of this file system, each with the transaction in which
    it was first written, whoever shares it now. Of what is none it says nothing.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    buffer = bytearray(_HEAD + _SMALL_ROOM)
    try:
        for place in places:
            first, last = (place, _EXTENT_ITEM, 0), (place, _EXTENT_ITEM, _TOP)
            if _search_once(descriptor, buffer, _EXTENTS, first, last, 0):
                yield place, struct.unpack_from("<Q", buffer, _HEAD + _FOUND.size + 8)[0]
    finally:
        os.close(descriptor)


def parent(path: Path, identity: bytes) -> bytes:
    """
    Which subvolume another of this file system was made from, both as in L{describe}; of one
    that is no more it is not known: zeros.
    """
    halves = struct.unpack("<QQ", identity)
    key = (halves[0], _IDENTITY, halves[1])
    for named in search(path, _IDENTITIES, key, key):
        number = struct.unpack_from("<Q", named.data)[0]
        for item in search(path, _ROOTS, (number, _ROOT_ITEM, 0), (number, _ROOT_ITEM, _TOP)):
            return bytes(item.data[263:279])
    return bytes(16)


def _search_once(
    descriptor: int, buffer: bytearray, tree: int, first: Key, last: Key, since: int
) -> int:
    """@return: how many items there are in the buffer now."""
    owners = (first[0], last[0], first[2], last[2])
    key = (tree, *owners, since, _TOP, first[1], last[1], 2**32 - 1, 0)
    struct.pack_into("<7Q4I32xQ", buffer, 0, *key, len(buffer) - _HEAD)
    fcntl.ioctl(descriptor, _SEARCH_LONG, buffer)
    return int(struct.unpack_from("<I", buffer, 64)[0])


def _items(buffer: bytearray, count: int) -> Iterator[Item]:
    view, position = memoryview(buffer), _HEAD
    for _ in range(count):
        _, subject, offset, kind, length = _FOUND.unpack_from(buffer, position)
        position += _FOUND.size
        yield Item(subject, kind, offset, view[position : position + length])
        position += length


# What files share


class Extent(NamedTuple):
    """
    Where a part of a file is on the disk.

    @ivar place: of the whole extent, C{disk_bytenr}; 0 of a hole.
    @ivar origin: the offset in the file at which that extent would begin: parts of two files
        that are at one offset, and have the same place and origin, are the same blocks.
    @ivar taken: bytes on the disk that this part takes of it, compressed, as its share.
    """

    offset: int
    length: int
    place: int
    origin: int
    taken: int


def extents(descriptor: int) -> list[Extent]:
    """
    Of a file that is open, in order, as far as they have been written to the disk; none of one
    that is so small that it is in the tree itself.
    """
    inode, found = os.fstat(descriptor).st_ino, []
    first, last = (inode, EXTENT_DATA, 0), (inode, EXTENT_DATA, _TOP)
    for item in _searched(descriptor, 0, first, last, 0):
        if item.data[20] != _INLINE:
            whole, _, place, size, inner, length = _EXTENT.unpack_from(item.data)
            taken = size * length // whole if place and whole else 0
            found.append(Extent(item.offset, length, place, item.offset - inner, taken))
    return found


class Differs(Exception):
    """Two parts of files are not equal."""


def share(source: int, target: int, offset: int, length: int) -> int:
    """
    Have a file that is open have the blocks of another in a part that is equal in both, which
    the kernel sees to, in one step (ioctl_fideduperange(2)). It may be in a subvolume that can
    only be read; no time of it changes.

    @param length: at most 16 MiB; a multiple of the file system's block, or up to the end of
        both.
    @return: how many bytes have been shared: fewer than C{length}, maybe.
    @raise Differs: if it is not equal.
    """
    buffer = bytearray(_RANGE.pack(offset, length, 1, 0, 0, target, offset, 0, 0, 0))
    fcntl.ioctl(source, _SHARE, buffer)
    *_, shared, status, _ = _RANGE.unpack(buffer)
    if status == _DIFFERS:
        raise Differs
    if status < 0:
        raise OSError(-status, os.strerror(-status))
    return int(shared)


# Quota groups


def group_above(subvolume: int) -> int:
    """The number of a quota group of several subvolumes, named after one of them: 1/ID."""
    return (1 << 48) | subvolume


def make_group(path: Path, group: int) -> None:
    """There may be one already."""
    with contextlib.suppress(FileExistsError):
        _of(path, _GROUP, struct.pack("QQ", 1, group))


def remove_group(path: Path, group: int) -> None:
    """
    @raise OSError: if something is in it. That there is none is no matter.
    """
    with contextlib.suppress(FileNotFoundError):
        _of(path, _GROUP, struct.pack("QQ", 0, group))


def join(path: Path, group: int) -> None:
    """Have a subvolume count in a group, in which it may be already."""
    # Asked of what is above: one that is full takes no change (EDQUOT).
    with contextlib.suppress(FileExistsError):
        _of(path.parent, _ASSIGN, struct.pack("QQQ", 1, identity(path), group))


def leave(path: Path, group: int) -> None:
    """The reverse of L{join}; it need not have been in it."""
    with contextlib.suppress(FileNotFoundError):
        _of(path.parent, _ASSIGN, struct.pack("QQQ", 0, identity(path), group))


def groups(path: Path) -> Path:
    """
    Where the kernel shows what is counted: C{mode} (C{squota}: simply; Linux 6.7),
    C{inconsistent}, and a folder for each group, C{LEVEL_ID}.
    """
    answer = _of(path, _INFO, bytes(1024))
    return _GROUPS / str(uuid.UUID(bytes=answer[16:32])) / "qgroups"


def remove_stale_groups(path: Path, *, above: bool) -> None:
    """
    Of subvolumes that are no more. The kernel forgets such a group by itself, unless blocks
    were counted there that another subvolume went on to use.

    @param above: whether those of L{group_above}, too: where all of them are ours.
    """
    for folder in groups(path).glob("[01]_*" if above else "0_*"):
        level, subvolume = (int(word) for word in folder.name.split("_"))
        with contextlib.suppress(OSError):  # it goes just now, or has to stay
            if int((folder / "referenced").read_text()) == 0 and not _exists(path, subvolume):
                remove_group(path, level << 48 | subvolume)


def _exists(path: Path, subvolume: int) -> bool:
    top = 2**64 - 1
    key = struct.pack(
        "QQQQQQQIIII32s",
        *(_ROOTS, subvolume, subvolume, 0, top, 0, top),
        *(_ROOT_ITEM, _ROOT_ITEM, 1, 0, b""),
    )
    answer = _of(path, _SEARCH, key.ljust(4096, b"\0"))
    return bool(struct.unpack_from("I", answer, 64)[0])


def _reference(data: memoryview) -> tuple[int, str]:
    """The folder that a subvolume is in, and its name there (C{struct btrfs_root_ref})."""
    folder, length = struct.unpack_from("<Q8xH", data)
    return folder, os.fsdecode(bytes(data[18 : 18 + length]))


def _name_in(path: Path, request: int, words: bytes) -> None:
    _of(path.parent, request, words)


def _of(path: Path, request: int, words: bytes) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        buffer = bytearray(words)
        fcntl.ioctl(descriptor, request, buffer)
        return bytes(buffer)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)
