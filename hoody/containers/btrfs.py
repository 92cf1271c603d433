"""
What btrfs is asked for, by ioctl (linux/btrfs.h): quicker than its program, and it says
what went wrong by number. All of it may take a while: call it from a thread.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
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
_LOOKUP = 0xD0009412
_READ_ONLY = 1 << 1
_ENABLE, _SIMPLE = 1, 4
_MAX_REFERENCED = 1 << 0


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


def limit(path: Path, most: int | None) -> None:
    """
    Let a subvolume hold no more than this many bytes.

    @raise OSError: if nothing counts them.
    """
    value = 2**64 - 1 if most is None else most
    _of(path, _LIMIT, struct.pack("QQQQQQ", 0, _MAX_REFERENCED, value, 0, 0, 0))


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
