"""
What containers say, in files of their own (a process beside each that reads a pipe would
cost megabytes, and end with us).

A file is kept short by giving back the room of its beginning: whoever writes to it goes on
where it was, and no line is lost. What is read begins where there is something.
"""

from __future__ import annotations

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


def first(descriptor: int, position: int = 0) -> int:
    """Where what is kept begins, from a position on."""
    try:
        return os.lseek(descriptor, position, os.SEEK_DATA)
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
        status, begin = os.fstat(descriptor), first(descriptor)
        size = status.st_size
        # Whoever writes can have room set aside (fallocate(2)), which is no data.
        too_much = status.st_blocks * 512 > 2 * most
        if size - begin <= most and not too_much:
            return False
        if too_much:
            begin = 0
            if size <= most:  # it is set aside behind the end, and goes with a new end
                os.ftruncate(descriptor, size + 1)
                os.ftruncate(descriptor, size)
                return True
        end = (size - most // 2) // BLOCK * BLOCK
        _punch(path, descriptor, begin, end)
        return True
    finally:
        os.close(descriptor)


def trim_if_long(path: Path) -> bool:
    """
    As L{trim}, at the price of one look where nothing is to be done.

    @raise OSError: if it is not there, or cannot be.
    """
    status = path.stat()
    return max(status.st_size, status.st_blocks * 512) > MOST and trim(path)


def rewrite(path: Path, most: int = MOST) -> None:
    """
    Forget all but the end of a log, and write that anew, where it was: btrfs gives room back
    in whole extents only (up to 128 MiB), and the end may be a part of a large one.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        start = max(first(descriptor), size - most // 2)
        end = os.pread(descriptor, most // 2, start)
        _punch(path, descriptor, 0, start + len(end))
        os.pwrite(descriptor, end, start)
    finally:
        os.close(descriptor)


def _punch(path: Path, descriptor: int, begin: int, end: int) -> None:
    result = _libc.fallocate(
        descriptor,
        _KEEP_SIZE | _PUNCH_HOLE,
        ctypes.c_long(begin),
        ctypes.c_long(end - begin),
    )
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))


def tail(path: Path, most: int) -> bytes:
    """The last lines of it that are no more than so many bytes together."""
    return tail_and_end(path, most)[0]


def tail_and_end(path: Path, most: int) -> tuple[bytes, int]:
    """As L{tail}, and the position behind it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b"", 0
    try:
        size, begin = os.fstat(descriptor).st_size, first(descriptor)
        start = max(begin, size - most)
        data = os.pread(descriptor, most, start)
    finally:
        os.close(descriptor)
    end = start + len(data)
    data = data.lstrip(b"\x00")
    if start > begin and b"\n" in data:
        data = data.partition(b"\n")[2]
    return data, end


def last_lines(path: Path, lines: int | None, most: int = MOST) -> tuple[bytes, int]:
    """Some lines, C{None} for all that are kept; and the position behind them."""
    data, end = tail_and_end(path, most)
    if lines is None:
        return data, end
    begin = len(data) - data.endswith(b"\n")
    for _ in range(lines):
        begin = data.rfind(b"\n", 0, begin)
        if begin < 0:
            return data, end
    return (data[begin + 1 :] if lines else b""), end


def read_from(path: Path, position: int, most: int = 1 << 18) -> tuple[bytes, int]:
    """What came behind a position. @return: that, and the position behind it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b"", position
    try:
        if position > os.fstat(descriptor).st_size:  # who writes has cut it
            position = 0
        position = first(descriptor, position)
        data = os.pread(descriptor, most, position)
        return data, position + len(data)
    finally:
        os.close(descriptor)
