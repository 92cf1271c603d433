"""
The digest of what is in a file.

The file is cut in parts of 1 MiB, the last may be shorter. Whole parts of nothing but zeros
are left out, and said to be: as the longest runs of them, by offset and length. The digest is
the SHA-256 of the rest, in order. So it follows from the content alone, not from where the file
has holes; for nearly all files it is what C{sha256sum} says; and a hole of exbibytes takes no
time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import NamedTuple

PART = 1 << 20
_ZEROS = bytes(PART)


class Content(NamedTuple):
    """
    @ivar digest: in small hexadecimal digits.
    @ivar zeros: offset and length of each run that it leaves out.
    """

    digest: str
    zeros: tuple[tuple[int, int], ...]


EMPTY = Content(sha256().hexdigest(), ())


def read(descriptor: int, size: int, tell: Callable[[int], None]) -> Content:
    """
    @param tell: is called with each number of bytes that were read.
    @raise OSError: if some of it cannot be read, or it is no longer so long.
    """
    found, whole = sha256(), []
    for offset in _offsets(descriptor, size):
        part = os.pread(descriptor, min(PART, size - offset), offset)
        if len(part) != min(PART, size - offset):
            raise OSError(errno.EIO, "it is shorter than it says")
        tell(len(part))
        if part == _ZEROS:
            continue
        found.update(part)
        if len(part) == PART:
            whole.append(offset)
    return Content(found.hexdigest(), _runs_between(whole, size // PART * PART))


def _offsets(descriptor: int, size: int) -> Iterator[int]:
    """Of the parts that have to be read: all that are not within holes, and a short last one."""
    if size <= PART:
        if size:
            yield 0
        return
    last = (size - 1) // PART * PART
    offset = 0
    while (data := _next_data(descriptor, offset)) is not None and data < size:
        end = os.lseek(descriptor, data, os.SEEK_HOLE)
        offset = max(offset, data // PART * PART)
        while offset < min(end, size):
            yield offset
            offset += PART
    if offset <= last and size % PART:
        yield last


def _next_data(descriptor: int, offset: int) -> int | None:
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def _runs_between(offsets: list[int], end: int) -> tuple[tuple[int, int], ...]:
    """What lies between whole parts at these offsets, up to the end of the last whole one."""
    runs, position = [], 0
    for offset in [*offsets, end]:
        if offset > position:
            runs.append((position, offset - position))
        position = offset + PART
    return tuple(runs)
