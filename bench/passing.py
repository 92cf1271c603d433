"""
What is asked for through a gate.

The name of each figure ends with its unit. A run that did not deliver exactly
what it had to raises L{Wrong}, and has no figures.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import frozen

from bench.gates import HAPROXY, HOODY, HOST, Gate
from bench.processes import cpu
from bench.targets import Quantity, Target
from bench.wire import Connection, Wrong, request
from bench.works import GIB, MIB, Figures

_CURL = ("curl", "-q", "-sS", "--noproxy", "*", "-o", "/dev/null", "-H", f"Host: {HOST}")
_SLOWEST = 20e6  # bytes a second, far below what any does


@frozen(kw_only=True)
class Scale:
    """
    How much there is to do in one run.

    @ivar size: bytes of a large answer, or upload.
    @ivar requests: how many small ones, one after the other on one connection.
    """

    size: int = GIB
    requests: int = 2000


QUICK = Scale(size=64 * MIB, requests=200)


@frozen
class Work:
    """
    @ivar doc: what is done, for a reader of the figures.
    @ivar measure: does it once.
    """

    doc: str
    measure: Callable[[Gate, Scale, Path], Figures]


def _small(gate: Gate, scale: Scale, folder: Path) -> Figures:
    head = request("GET", "/small", host=HOST)
    times = []
    before = cpu(gate.pid)
    with Connection(gate) as connection:
        for _ in range(scale.requests):
            began = time.perf_counter()
            connection.send(head)
            if connection.answer() != (200, b"x" * 1024):
                raise Wrong("another answer")
            times.append(time.perf_counter() - began)
    cuts = statistics.quantiles(times, n=100)
    return {
        "p50_ms": cuts[49] * 1e3,
        "p99_ms": cuts[98] * 1e3,
        "cpu_ms_each": (cpu(gate.pid) - before) / scale.requests * 1e3,
    }


def _download(gate: Gate, scale: Scale, folder: Path) -> Figures:
    return _moved(gate, scale.size, f"/{scale.size}", "-w", "%{size_download} %{http_code}")


def _upload(gate: Gate, scale: Scale, folder: Path) -> Figures:
    path = folder / f"{scale.size}"
    if not path.exists():
        path.touch()
        os.truncate(path, scale.size)
    return _moved(gate, scale.size, "/", "-w", "%{size_upload} %{http_code}", "-T", str(path))


def _moved(gate: Gate, size: int, path: str, *options: str) -> Figures:
    before, began = cpu(gate.pid), time.monotonic()
    command = [*_CURL, *options, f"http://127.0.0.1:{gate.port}{path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20 + size / _SLOWEST)
    seconds = time.monotonic() - began
    if done.stdout != f"{size} 200":
        raise Wrong(f"of {size} bytes: {done.stdout!r} {done.stderr!r}")
    return {
        "gb_per_s": size / seconds / 1e9,
        "cpu_s_per_gib": (cpu(gate.pid) - before) / (size / GIB),
    }


WORKS: Mapping[str, Work] = {
    "small": Work("requests of 1 KiB, one after the other on one connection", _small),
    "download": Work("one large answer, to curl", _download),
    "upload": Work("one large upload, by curl", _upload),
}


def _against(work: str, figure: str, relation: str, bound: float | None) -> Target:
    of, against = Quantity(work, HOODY, figure), Quantity(work, HAPROXY, figure)
    return Target(of, against, relation, bound)


TARGETS = (
    Target(Quantity("small", HOODY, "p50_ms"), None, "<=", 1.5),
    _against("download", "gb_per_s", ">=", 0.8),
    _against("download", "cpu_s_per_gib", "<=", 1.0),
    _against("upload", "gb_per_s", ">=", None),
    _against("upload", "cpu_s_per_gib", "<=", None),
)
