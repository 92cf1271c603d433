"""
What containers say, in files of their own (a process beside each that reads a pipe would
cost megabytes, and end with us).

A file is kept short by giving back the room of its beginning: whoever writes to it goes on
where it was, and no line is lost. What is read begins where there is something.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from pathlib import Path

MOST = 8 << 20
"""Bytes of a log that are kept, about."""
BLOCK = 128 * 1024
"""Rooms are given back in these: btrfs compresses so much at once."""
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
_libc = ctypes.CDLL(None, use_errno=True)


def first(descriptor: int) -> int:
    """Where what is kept begins."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing at all
            return os.fstat(descriptor).st_size
        raise


def trim(path: Path, most: int = MOST) -> bool:
    """
    Forget the beginning of a log that is too long.

    @return: whether it was.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size, begin = os.fstat(descriptor).st_size, first(descriptor)
        if size - begin <= most:
            return False
        end = (size - most // 2) // BLOCK * BLOCK
        result = _libc.fallocate(
            descriptor,
            _KEEP_SIZE | _PUNCH_HOLE,
            ctypes.c_long(begin),
            ctypes.c_long(end - begin),
        )
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
        return True
    finally:
        os.close(descriptor)


def trim_all(paths: list[Path]) -> None:
    """Those of them that take too much room on the disk."""
    for path in paths:
        with contextlib.suppress(OSError):
            if path.stat().st_size > MOST:
                trim(path)


def tail(path: Path, most: int) -> bytes:
    """The last lines of it that are no more than so many bytes together."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        size, begin = os.fstat(descriptor).st_size, first(descriptor)
        start = max(begin, size - most)
        data = os.pread(descriptor, most, start)
    finally:
        os.close(descriptor)
    data = data.lstrip(b"\x00")
    return data.partition(b"\n")[2] if start > begin and b"\n" in data else data


def last_lines(path: Path, lines: int, most: int = MOST) -> bytes:
    """Some lines."""
    data = tail(path, most)
    return b"".join(data.splitlines(keepends=True)[-lines:]) if lines else b""


def read_from(path: Path, position: int, most: int = 1 << 18) -> tuple[bytes, int]:
    """What came behind a position. @return: that, and the position behind it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b"", position
    try:
        position = max(position, first(descriptor))
        data = os.pread(descriptor, most, position)
        return data, position + len(data)
    finally:
        os.close(descriptor)
