"""
What waits to be written to the database, in files: it outlives this process, but for the
last seconds before a power failure, as it is not forced to the disk.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from attrs import define, field

SUFFIX = ".jsonl"
_NAME = re.compile(r"[0-9]{12}\.jsonl")


@define(eq=False)
class Spool:
    """
    Lines, in segments: one is written to, those before it are being read, and go when
    they have been.

    @ivar folder: made when it is first needed; nobody else's.
    @ivar size: bytes in it.
    @ivar written: bytes in the segment that is being written to.
    """

    folder: str
    size: int = field(default=0, init=False)
    written: int = field(default=0, init=False)
    _number: int = field(default=0, init=False)
    _descriptor: int | None = field(default=None, init=False)

    def left_over(self) -> list[str]:
        """The segments that an earlier process has left, oldest first; to be called once."""
        found = sorted(
            path for path in Path(self.folder).glob(f"*{SUFFIX}") if _NAME.fullmatch(path.name)
        )
        if found:
            self._number = int(found[-1].stem)
        self.size = sum(path.stat().st_size for path in found)
        return [str(path) for path in found]

    def add(self, line: bytes) -> None:
        """
        Keep a line; it is in the kernel's hands when this returns.

        @raise OSError: if it cannot be, such as on a full disk; then nothing of it is.
        """
        if self._descriptor is None:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self._segment(self._number + 1), flags, 0o600)
            self._number += 1
        record = line + b"\n"
        try:
            if os.write(self._descriptor, record) != len(record):
                raise OSError("there is no room for all of it")
        except OSError:
            os.ftruncate(self._descriptor, self.written)
            raise
        self.written += len(record)
        self.size += len(record)

    def seal(self) -> str:
        """Begin a new segment. @return: the path of the former, which L{add} has begun."""
        assert self._descriptor is not None
        os.close(self._descriptor)
        self._descriptor, self.written = None, 0
        return self._segment(self._number)

    def remove(self, segment: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            size = os.path.getsize(segment)
            os.unlink(segment)
            self.size -= size

    def _segment(self, number: int) -> str:
        return os.path.join(self.folder, f"{number:012}{SUFFIX}")


def read(segment: str) -> list[bytes]:
    """
    A segment's lines; it blocks. The last one, if it was cut off, is left out: whoever
    wrote it was told, or was killed before it could say so.
    """
    try:
        return Path(segment).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
