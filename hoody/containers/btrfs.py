"""
What btrfs is asked for, by ioctl (linux/btrfs.h): quicker than its program, and it says
what went wrong by number. All of it may take a while: call it from a thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
import uuid
from pathlib import Path

MAGIC = 0x9123683E
"""What statfs(2) says of a btrfs (linux/magic.h)."""
FIRST_INODE = 256
"""The inode number of a subvolume's own directory."""

_CREATE = 0x5000940E
_DESTROY = 0x5000940F
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
_READ_ONLY = 1 << 1
_ENABLE, _SIMPLE = 1, 4
_MAX_REFERENCED = 1 << 0
_ROOTS, _ROOT_ITEM = 1, 132
_GROUPS = Path("/sys/fs/btrfs")


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
    return path.is_dir() and not path.is_symlink() and path.stat().st_ino == FIRST_INODE


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


def seal(path: Path) -> None:
    """Let nobody change it any more."""
    _of(path, _SET_FLAGS, struct.pack("Q", _READ_ONLY))


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
