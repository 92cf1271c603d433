"""A clock that a test moves: that of the server, and of what it starts on this machine."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

_LIBRARIES = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
LIBRARY = next(iter(_LIBRARIES), None)


class MovedClock:
    """
    Goes on as clocks do from where it is set; what is measured by CLOCK_MONOTONIC knows
    nothing of it.

    @ivar env: for who is to have it.
    """

    def __init__(self, folder: Path, moment: str) -> None:
        if LIBRARY is None:
            pytest.skip("libfaketime is missing; script/test installs it")
        self._file = folder / "clock"
        self.env = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }
        self.off = 0.0
        self.set(moment)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(time.time() + self.off, UTC)

    def set(self, moment: str) -> None:
        """@param moment: as RFC 3339 has it."""
        self._move(datetime.fromisoformat(moment).timestamp() - time.time())

    def advance(self, **much: float) -> None:
        """@param much: as L{timedelta} has it."""
        self._move(self.off + timedelta(**much).total_seconds())

    def _move(self, off: float) -> None:
        self.off = off
        # Whoever reads it gets all of the one or of the other.
        new = self._file.with_suffix(".new")
        new.write_text(f"{off:+.3f}\n")
        os.replace(new, self._file)
