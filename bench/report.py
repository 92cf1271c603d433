"""What all measurements say of themselves, and how they end."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import table
from bench.targets import Run
from bench.works import GIB
from hoody.units import rfc3339

# For 1,000 connections; the soft limit is 1,024 as Debian has it.
_DESCRIPTORS = 4096


def prepare() -> None:
    """Make this process fit to measure: it has room, and what it started ends with it."""
    # As Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _DESCRIPTORS), hard))


def tell(run: Run) -> None:
    """One that was done just now, to who waits."""
    figures = "  ".join(f"{name} {figure:.4g}" for name, figure in run.figures.items())
    said = run.error or figures
    print(f"{run.round:3}  {run.work:8}  {run.server:14}  {said}", file=sys.stderr, flush=True)


def finish(
    name: str,
    plan: table.Plan,
    runs: Sequence[Run],
    versions: Mapping[str, str],
    path: Path | None,
) -> int:
    """
    Print the tables, and write all figures where they are wanted, too.

    @param name: what C{script/bench} was asked for.
    @return: the exit status: whether every run was one.
    """
    report: dict[str, Any] = {
        "date": rfc3339(time.time()),
        "command": shlex.join(["script/bench", name, *sys.argv[1:]]),
        "machine": _machine(),
        "versions": versions,
    }
    for key, about in report.items():
        if isinstance(about, Mapping):
            about = ", ".join(f"{part} {value}" for part, value in about.items())
        print(f"{key}: {about}")
    print("", table.as_text(plan, runs), sep="\n")
    report |= table.as_json(plan, runs)
    if path:
        path.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if report["errors"] else 0


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB, 1),
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        # More than the works themselves make: somebody else was busy, too.
        "load": os.getloadavg()[1],
    }


def _cpu_model() -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"model name\s*: (.*)", text)
    return found[1] if found else platform.machine()
