"""
What is asked of containers that sleep.

The name of each figure ends with its unit; a megabyte has a million bytes.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from bench import python_image
from bench.cold import Bundle, activated, first_byte
from bench.house import House, insist, open_house, run_well
from bench.processes import cpu, own_cpu, resident
from bench.rivals import free_port
from bench.targets import Quantity, Run, Target
from bench.works import Figures

ASLEEP, RUNNING, ACTIVATED, RUNC = "asleep", "left running", "socket activation", "runc run"
RECLAIMED, STOPPED, DEFAULT, DENSE, PROCESSES = (
    *("reclaimed", "stopped", "default", "dense"),
    "plain processes",
)
_PYTHON = ["python3", "-m", "http.server", "8080", "-d", "/"]
_PYTHON_ALONE = ["python3", "-m", "http.server", "PORT", "-d", "/"]
_BUSYBOX = ["httpd", "-f", "-p", "8080", "-h", "/var/www"]
_BUSYBOX_ALONE = ["httpd", "-f", "-p", "127.0.0.1:PORT", "-h", "/var/www"]
# It ends well, and by itself, when it is told to: whom somebody stops stays stopped.
_BUSYBOX_THAT_ENDS = "rm -f /end; mkfifo /end; httpd -p 8080 -h /var/www; read line </end"
_MB = 1e6
_COLD_EVERY = 5
"""So many are woken for one that is started: that takes long, and says soon what it takes."""


@frozen(kw_only=True)
class Scale:
    """
    How much there is to do in one run.

    @ivar wakes: how many first requests.
    @ivar together: containers that sleep for them, and are woken in turn.
    @ivar servers: Python servers whose memory is looked at.
    @ivar containers: that sleep all at once.
    @ivar seconds: for which it is looked what they take then.
    """

    rounds: int = 3
    wakes: int = 200
    together: int = 20
    servers: int = 60
    containers: int = 1000
    seconds: float = 20.0


QUICK = Scale(rounds=1, wakes=4, together=2, servers=3, containers=4, seconds=2.0)

Measured = Iterator[tuple[int, str, Figures]]


@frozen
class Work:
    """
    @ivar doc: what is done, for a reader of the figures.
    @ivar servers: who does it.
    @ivar measure: does it, in rounds: each one's number, who, and the figures.
    """

    doc: str
    servers: Sequence[str]
    measure: Callable[[Scale, Path], Measured]


def _host(name: str) -> str:
    return f"{name}.containers.hoody.localhost"


def _in_ms(times: Sequence[float]) -> Figures:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {"p50_ms": cuts[49] * 1e3, "p99_ms": cuts[98] * 1e3, "most_ms": max(times) * 1e3}


def _python(house: House, folder: Path) -> None:
    archive = folder / "python.tar"
    python_image.make(archive)
    house.upload("python", archive)


def _sleepers(house: House, number: int) -> list[dict[str, Any]]:
    rows = []
    for each in range(number):
        rows.append(
            house.create(
                f"python-{each}",
                container_image="python",
                command=_PYTHON,
                idle_timeout_seconds=1,
            )
        )
        first_byte(house.port, _host(rows[-1]["name"]))  # all that it is and does is in memory
    return rows


def _wake(scale: Scale, folder: Path) -> Measured:
    with ExitStack() as stack:
        house = stack.enter_context(open_house(folder, "--reclaim-after=1h"))
        _python(house, folder)
        bundle = stack.enter_context(
            Bundle.made(folder / "bundle", house.image_path("python"), _PYTHON_ALONE)
        )
        names = [row["name"] for row in _sleepers(house, scale.together)]
        house.create("running", container_image="python", command=_PYTHON, idle_timeout_seconds=0)
        first_byte(house.port, _host("running"))
        for number in range(scale.rounds):
            times: dict[str, list[float]] = {}
            said: list[float] = []
            while len(said) < scale.wakes:
                house.until(names, "paused")
                for name in random.sample(names, len(names)):
                    seconds, head = first_byte(house.port, _host(name))
                    times.setdefault(ASLEEP, []).append(seconds)
                    said.append(_said_wake(head))
                    seconds, _ = first_byte(house.port, _host("running"))
                    times.setdefault(RUNNING, []).append(seconds)
                    if len(said) % _COLD_EVERY == 0 or len(said) < 3:
                        times.setdefault(ACTIVATED, []).append(activated(folder))
                        times.setdefault(RUNC, []).append(bundle.first_byte())
            for server, taken in times.items():
                more = {"wake_p50_ms": statistics.median(said)} if server == ASLEEP else {}
                yield number + 1, server, {**_in_ms(taken), **more}


def _said_wake(head: bytes) -> float:
    """What the server itself says of how long it took, in ms."""
    for line in head.decode("latin-1").splitlines():
        name, _, value = line.partition(": ")
        if name.lower() == "x-hoody-wake":
            return float(value.partition("dur=")[2].partition(";")[0])
    raise OSError("it did not sleep")


@contextmanager
def _zram(size: int) -> Iterator[None]:
    """A swap in compressed memory, for as long as it is measured."""
    control = Path("/sys/class/zram-control")
    number = (control / "hot_add").read_text().strip()
    device = f"/dev/zram{number}"
    try:
        Path(f"/sys/block/zram{number}/disksize").write_text(str(size))
        run_well("mkswap", device)
        run_well("swapon", "-p", "32000", device)
        yield
    finally:
        insist(lambda: _remove_zram(control, number))


def _remove_zram(control: Path, number: str) -> None:
    """@raise OSError: if somebody looks at it just now."""
    if f"/dev/zram{number} " in Path("/proc/swaps").read_text():
        run_well("swapoff", f"/dev/zram{number}")
    Path(f"/sys/block/zram{number}/reset").write_text("1")
    (control / "hot_remove").write_text(number)


def _reclaimed(scale: Scale, folder: Path) -> Measured:
    with _zram(2 << 30), open_house(folder, "--reclaim-after=0s") as house:
        _python(house, folder)
        rows = _sleepers(house, scale.together)
        for number in range(scale.rounds):
            times: list[float] = []
            cold: list[float] = []
            out: list[float] = []
            while len(times) < scale.wakes / 2:
                house.until([row["name"] for row in rows], "paused")
                _until_reclaimed(house, rows)
                for row in random.sample(rows, len(rows)):
                    out.append(house.cgroup(row).memory["swap"] / _MB)
                    times.append(first_byte(house.port, _host(row["name"]))[0])
                    if len(times) % _COLD_EVERY == 0 or len(times) < 3:
                        cold.append(activated(folder))
            yield number + 1, RECLAIMED, {**_in_ms(times), "out_mb": statistics.median(out)}
            yield number + 1, ACTIVATED, _in_ms(cold)


def _until_reclaimed(house: House, rows: Sequence[dict[str, Any]]) -> None:
    late = time.monotonic() + 60
    left = list(rows)
    while left:
        left = [row for row in left if house.cgroup(row).memory["own"] > 1 * _MB]
        if left and time.monotonic() > late:
            memory = house.cgroup(left[0]).memory
            raise OSError(f"memory of {len(left)} is not taken back: {memory}")
        time.sleep(0.1 if left else 0)


def _stopped(scale: Scale, folder: Path) -> Measured:
    with ExitStack() as stack:
        house = stack.enter_context(open_house(folder))
        bundle = stack.enter_context(
            Bundle.made(folder / "bundle", house.image_path("busybox"), _BUSYBOX_ALONE)
        )
        names = [f"box-{number}" for number in range(min(5, scale.together))]
        for name in names:
            house.create(name, command=_BUSYBOX_THAT_ENDS, idle_timeout_seconds=0)
            first_byte(house.port, _host(name))
        for number in range(scale.rounds):
            ours: list[float] = []
            theirs: list[float] = []
            while len(ours) < scale.wakes / 4:
                for name in names:
                    house.run(name, "echo >/end")
                house.until(names, "stopped")
                for name in names:
                    ours.append(first_byte(house.port, _host(name))[0])
                    theirs.append(bundle.first_byte())
            yield number + 1, STOPPED, _in_ms(ours)
            yield number + 1, RUNC, _in_ms(theirs)


def _sixty(scale: Scale, folder: Path) -> Measured:
    with _ksm_as_it_is(), open_house(folder, "--reclaim-after=0s", "--ksm=on") as house:
        _python(house, folder)
        dense = house.ask("POST", "/projects", {"alias": "dense", "dense": True})["id"]
        for number in range(scale.rounds):
            for server, project in ((DEFAULT, "default"), (DENSE, dense)):
                yield number + 1, server, _many(house, scale, project)
            yield number + 1, PROCESSES, _processes(scale, folder)


def _many(house: House, scale: Scale, project: str) -> Figures:
    rows, disk = [], house.disk
    for each in range(scale.servers):
        row = house.create(
            f"server-{each}",
            project,
            container_image="python",
            command=_PYTHON,
            idle_timeout_seconds=1,
        )
        first_byte(house.port, _host(row["name"]))
        rows.append(row)
    try:
        house.until([row["name"] for row in rows], "paused")
        _until_steady(lambda: sum(_usage(house, row) for row in rows), 5 if len(rows) > 9 else 1)
        last = rows[-1]
        return {
            "last_mb": _usage(house, last) / _MB,
            "last_own_mb": house.cgroup(last).memory["own"] / _MB,
            "each_mb": statistics.fmean(_usage(house, row) for row in rows) / _MB,
            "disk_kb": (house.disk - disk) / len(rows) / 1e3,
        }
    finally:
        _delete(house, rows)


def _delete(house: House, rows: Sequence[dict[str, Any]]) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda row: house.ask("DELETE", f"/containers/{row['id']}"), rows))


def _usage(house: House, row: dict[str, Any]) -> int:
    """Bytes that are charged to it, the kernel's own for it, too."""
    group = house.cgroup(row)
    for name in ("memory.current", "memory.usage_in_bytes"):
        path = group._of("memory") / name
        if path.exists():
            return int(path.read_text())
    raise OSError(f"nobody counts {group.path}")


def _until_steady(read: Callable[[], float], seconds: float) -> None:
    """Until nothing more is merged, or given back."""
    late = time.monotonic() + 180
    before, since = read(), time.monotonic()
    while time.monotonic() - since < seconds and time.monotonic() < late:
        time.sleep(0.5)
        now = read()
        if abs(now - before) > 0.01 * before:
            before, since = now, time.monotonic()


@contextmanager
def _ksm_as_it_is() -> Iterator[None]:
    """The server switches it on, and it stays so; not for a measurement."""
    folder = Path("/sys/kernel/mm/ksm")
    names = [name for name in ("pages_to_scan", "advisor_mode", "run") if (folder / name).exists()]
    before = {name: (folder / name).read_text().strip() for name in names}
    try:
        yield
    finally:
        if before.get("run") == "0":
            (folder / "run").write_text("2")
        if "[none]" in before.get("advisor_mode", ""):
            (folder / "advisor_mode").write_text("none")
            (folder / "pages_to_scan").write_text(before["pages_to_scan"])
        for name in names[-1:]:
            (folder / name).write_text(before[name])


def _processes(scale: Scale, folder: Path) -> Figures:
    """The same servers without containers, left running."""
    with ExitStack() as stack:
        for _ in range(scale.servers):
            port = free_port()
            words = [word.replace("PORT", str(port)) for word in _PYTHON_ALONE[1:]]
            popen = subprocess.Popen(
                [python_image.PYTHON, *words],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(popen.wait)
            stack.callback(popen.kill)
            _until_listening(port)
            first_byte(port, "localhost")
        text = Path(f"/proc/{popen.pid}/smaps_rollup").read_text()
    sizes = {line.split()[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    own = sizes["Private_Dirty:"] + sizes["Private_Clean:"]
    return {"last_mb": own * 1024 / _MB, "last_own_mb": sizes["Anonymous:"] * 1024 / _MB}


def _until_listening(port: int) -> None:
    late = time.monotonic() + 20
    while True:
        try:
            first_byte(port, "localhost")
            return
        except ConnectionRefusedError:
            if time.monotonic() > late:
                raise
            time.sleep(0.01)


def _thousand(scale: Scale, folder: Path) -> Measured:
    with open_house(folder, "--reclaim-after=0s") as house:
        memory, available = resident(house.pid), _available()
        began = time.monotonic()

        def create(number: int) -> dict[str, Any]:
            fields: dict[str, Any] = {"command": _BUSYBOX, "idle_timeout_seconds": 1}
            row = house.create(f"box-{number}", **fields)
            if number % 100 == 99:
                print(f"{number + 1} in {time.monotonic() - began:.0f} s", file=sys.stderr)
            return row

        with ThreadPoolExecutor(4) as pool:
            rows = list(pool.map(create, range(scale.containers)))
        took = time.monotonic() - began
        house.until([row["name"] for row in rows], "paused", 120)
        _until_steady(lambda: sum(_usage(house, row) for row in rows), 5)
        common = {
            "create_ms": took / len(rows) * 1e3,
            "each_mb": statistics.fmean(_usage(house, row) for row in rows) / _MB,
            # What everybody does on the machine is in this.
            "machine_each_mb": (available - _available()) / len(rows) / _MB,
            "server_each_kb": (resident(house.pid) - memory) / len(rows) / 1e3,
        }
        for number in range(scale.rounds):
            figures = _what_they_take(house, rows, scale.seconds)
            times: list[float] = []
            while len(times) < scale.wakes:
                some = random.sample(rows, min(len(rows), scale.wakes - len(times)))
                house.until([row["name"] for row in some], "paused", 120)
                times += [first_byte(house.port, _host(row["name"]))[0] for row in some]
            house.until([row["name"] for row in rows], "paused", 120)
            yield number + 1, ASLEEP, {**common, **figures, **_in_ms(times)}
        _delete(house, rows)


def _what_they_take(house: House, rows: Sequence[dict[str, Any]], seconds: float) -> Figures:
    """Of the processors."""
    time.sleep(1)  # what came of their falling asleep has been written down
    theirs = sum(house.cgroup(row).cpu_ns for row in rows)
    alone, all_of_it, began = own_cpu(house.pid), cpu(house.pid), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    return {
        "server_percent": (own_cpu(house.pid) - alone) / passed * 100,
        "with_database_percent": (cpu(house.pid) - all_of_it) / passed * 100,
        "their_cpu_ms": (sum(house.cgroup(row).cpu_ns for row in rows) - theirs) / 1e6,
    }


def _available() -> int:
    text = Path("/proc/meminfo").read_text()
    return 1024 * int(text.partition("MemAvailable:")[2].split()[0])


WORKS: Mapping[str, Work] = {
    "wake": Work(
        "the first byte of a Python server that sleeps, runs, or has to be started",
        (ASLEEP, RUNNING, ACTIVATED, RUNC),
        _wake,
    ),
    "reclaimed": Work(
        "the same after its memory has gone to a swap in compressed memory",
        (RECLAIMED, ACTIVATED),
        _reclaimed,
    ),
    "stopped": Work(
        "the first byte of a busybox httpd whose container has ended", (STOPPED, RUNC), _stopped
    ),
    "sixty": Work(
        "memory and disk of the last of many Python servers that sleep",
        (DEFAULT, DENSE, PROCESSES),
        _sixty,
    ),
    "thousand": Work("many busybox containers that sleep", (ASLEEP,), _thousand),
}


def _of(work: str, server: str, figure: str, bound: float, relation: str = "<=") -> Target:
    return Target(Quantity(work, server, figure), None, relation, bound)


TARGETS = (
    _of("wake", ASLEEP, "p50_ms", 5),
    _of("wake", ASLEEP, "p99_ms", 25),
    _of("reclaimed", RECLAIMED, "p50_ms", 60),
    _of("stopped", STOPPED, "p50_ms", 300),
    _of("sixty", DEFAULT, "last_mb", 12),
    _of("sixty", DENSE, "last_mb", 2),
    _of("sixty", DEFAULT, "disk_kb", 100),
    _of("sixty", DENSE, "disk_kb", 100),
    _of("thousand", ASLEEP, "each_mb", 1),
    _of("thousand", ASLEEP, "their_cpu_ms", 0, "="),
    _of("thousand", ASLEEP, "p99_ms", 30),
    _of("thousand", ASLEEP, "server_percent", 1),
)


def measured(works: Sequence[str], scale: Scale) -> Iterator[Run]:
    """Each run as it is done; a work that breaks ends with a run that says so."""
    for name in works:
        number, server = 0, WORKS[name].servers[0]
        try:
            with tempfile.TemporaryDirectory() as folder:
                for number, server, figures in WORKS[name].measure(scale, Path(folder)):
                    yield Run(round=number, work=name, server=server, figures=figures)
        except Exception as failed:
            error = f"{type(failed).__name__}: {failed}"
            yield Run(round=number, work=name, server=server, figures={}, error=error)
