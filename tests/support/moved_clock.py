"""
A server whose clock the test sets: C{time.time} is moved, CLOCK_MONOTONIC is not.

A library that is preloaded adds what stands in a file of eight bytes. libfaketime would do it
from Debian's packages, but turns every sleep of Python into an error (its clock_nanosleep takes
a moment of CLOCK_MONOTONIC for one of the clock that it moves), and reads its file for each
look at the clock. The embedded Postgres, a child of the server, has the same clock, as on a
machine; programs that are given an environment of their own, runc among them, and containers
have not.
"""

from __future__ import annotations

import mmap
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from tests.support.postgres import open_folder
from tests.support.server import Server

_FILE = "HOODY_TEST_MOVED_CLOCK"
_SOURCE = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const long long none;
static const volatile long long *nanoseconds = &none;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("HOODY_TEST_MOVED_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *found = file < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED)
        nanoseconds = found;
    if (file >= 0)
        close(file);
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, id, now);
    if (!result && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        long long all = now->tv_sec * 1000000000LL + now->tv_nsec + *nanoseconds;
        now->tv_sec = all / 1000000000LL;
        now->tv_nsec = all % 1000000000LL;
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec moved;
    clock_gettime(CLOCK_REALTIME, &moved);
    now->tv_sec = moved.tv_sec;
    now->tv_usec = moved.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec moved;
    clock_gettime(CLOCK_REALTIME, &moved);
    if (result)
        *result = moved.tv_sec;
    return moved.tv_sec;
}
"""


@define(eq=False)
class MovedClock:
    """
    The clock of the processes that have L{env}; it goes on as the true one does.

    @ivar env: for what L{tests.support.server.Server} and C{House} are given.
    """

    env: dict[str, str]
    _nanoseconds: mmap.mmap
    _by: int = field(default=0, init=False)
    _set_at: float = field(default=0.0, init=False)

    @classmethod
    def make(cls, folder: Path) -> MovedClock:
        """@param folder: one that every user can get to."""
        source, library, file = folder / "clock.c", folder / "clock.so", folder / "clock"
        source.write_text(_SOURCE)
        try:
            done = subprocess.run(
                ["gcc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source)],
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            pytest.skip("gcc is not installed (apt-get install gcc libc6-dev)")
        if done.returncode != 0:
            pytest.skip(f"gcc makes no library: {done.stderr.strip()[-200:]}")
        file.write_bytes(bytes(8))
        file.chmod(0o644)
        with file.open("r+b") as opened:
            shared = mmap.mmap(opened.fileno(), 8)
        return cls({"LD_PRELOAD": str(library), _FILE: str(file)}, shared)

    @property
    def seconds(self) -> float:
        """What it says, since the epoch."""
        return time.time() + self._by / 1e9

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def set(self, moment: str | datetime) -> None:
        """@param moment: as in C{"2026-05-04T02:54:50Z"}; from then on it goes on."""
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment)
        self._move(round((moment.timestamp() - time.time()) * 1e9))

    def advance(self, **much: float) -> None:
        """@param much: as L{timedelta} has it, C{hours=1}; negative to set it back."""
        self._move(self._by + round(timedelta(**much).total_seconds() * 1e9))

    def _move(self, by: int) -> None:
        self._by = by
        self._set_at = self.seconds
        # Eight bytes that are aligned are written at once.
        self._nanoseconds[:] = struct.pack("q", by)

    def is_followed_by(self, server: Server, seconds: float = 5) -> None:
        """Return when the server has noticed how this was set last, by more than half a second."""
        server.wait_for(self._tells_of_it, seconds)

    def _tells_of_it(self, event: dict[str, Any]) -> bool:
        if event.get("name") != "hoody.clock":
            return False
        since = datetime.fromisoformat(event["time"]).timestamp() - self._set_at
        return -0.1 < since < 5


@contextmanager
def moved_clock() -> Iterator[tuple[MovedClock, Path]]:
    """And a folder for data directories that an embedded Postgres can get to."""
    with open_folder() as folder:
        yield MovedClock.make(folder), folder
