"""Processes that end with the measurement, and what the kernel knows of them."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

Stream = IO[bytes] | int | None


@contextmanager
def process(
    command: Sequence[str],
    *,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.PIPE,
    stderr: Stream = subprocess.PIPE,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended, hard if need be, if it has not ended by itself."""
    popen = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd)
    try:
        yield popen
    finally:
        _end(popen)


def _end(popen: subprocess.Popen[bytes]) -> None:
    for end in (popen.terminate, popen.kill):
        end()
        try:
            popen.wait(5)
            break
        except subprocess.TimeoutExpired:
            continue
    for stream in (popen.stdin, popen.stdout, popen.stderr):
        if stream is not None:
            stream.close()


def cpu(pid: int) -> float:
    """Seconds of CPU that a process and its living children have used."""
    return own_cpu(pid) + sum(cpu(child) for child in children(pid))


def own_cpu(pid: int) -> float:
    """
    Seconds of CPU that a process has used.

    The same time as utime and stime in C{/proc/PID/stat}, which come in steps of
    10 ms, but from the process's CPU clock, in nanoseconds. How a pid becomes a
    clock's number: CPUCLOCK_SCHED in the kernel's C{include/linux/posix-timers.h}.
    """
    return time.clock_gettime((~pid << 3) | 2)


def children(pid: int) -> Iterator[int]:
    """Those that have ended, and were not waited for, too."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread has ended
            yield from map(int, path.read_text().split())


def descendants(pid: int) -> list[int]:
    """Children, and theirs, the nearest first."""
    found = list(children(pid))
    for child in found:
        found += children(child)
    return found


def resident(pid: int) -> int:
    """Bytes of memory that a process has now: VmRSS."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)
