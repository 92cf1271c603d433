"""
What is asked of snapshots.

Each work makes its containers anew in each round, and does one step with each archive in turn,
so that what else the machine does is much the same for all. The name of each figure ends with
its unit; a megabyte has a million bytes.
"""

from __future__ import annotations

import http.client
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from bench.archives import BTRFS, HOODY, RESTIC, SERVERS, Archive, Snapshots, archive
from bench.house import House, run_well
from bench.targets import Quantity, Run, Target
from bench.wire import Wrong
from bench.works import Figures

BUSYBOX, DEBIAN = "busybox", "debian"
IMAGES = (DEBIAN, BUSYBOX)
_STATE = "/var/www/state"
COMMANDS: Mapping[str, list[str]] = {
    BUSYBOX: ["httpd", "-f", "-p", "8080", "-h", "/var/www"],
    # It says what is in one file, whatever it is asked for.
    DEBIAN: [
        *("perl", "-MIO::Socket::INET", "-e"),
        "my $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 9, ReuseAddr => 1);"
        " while (my $c = $s->accept) { while (<$c>) { last if /^\\r?$/ }"
        f" open my $f, '<', '{_STATE}'; my $t = join '', <$f>;"
        " print $c qq(HTTP/1.0 200 OK\\r\\n\\r\\n$t); close $c }",
    ],
}
_MB = 1e6
_LATE = 30.0
_BETWEEN = 0.002
"""Seconds between two questions whether it is as it was."""
_WRITING = "while :; do dd if=/dev/urandom of=/written bs=64k count=256 2>/dev/null; done"


@frozen(kw_only=True)
class Scale:
    """
    How much there is to do in one round.

    @ivar size: bytes that are written anew for a large snapshot, and that lie in the container
        where a small one is taken, or one is put back.
    @ivar large: how many of those; C{small}, C{writing}, C{restores}, C{costs} likewise.
    @ivar hundred: snapshots of one container, whose last tenth is held against the first.
    @ivar rival_restores: a fewer number, for who copies all anew.
    """

    rounds: int = 3
    size: int = 500_000_000
    large: int = 5
    small: int = 20
    writing: int = 10
    restores: int = 30
    rival_restores: int = 2
    hundred: int = 100
    costs: int = 10


QUICK = Scale(
    rounds=1,
    size=10_000_000,
    large=1,
    small=1,
    writing=1,
    restores=2,
    rival_restores=1,
    hundred=1,
    costs=1,
)


@define(eq=False)
class Place:
    """
    Where it is measured.

    @ivar pauses: of all large snapshots so far, in ms.
    """

    house: House
    folder: Path
    image: str
    scale: Scale
    pauses: list[float] = field(factory=list)

    @contextmanager
    def container(self, name: str, *, full: bool = False) -> Iterator[dict[str, Any]]:
        """@param full: with as much in it as a large snapshot has."""
        command = COMMANDS[self.image]
        fields: dict[str, Any] = {"container_image": self.image, "command": command}
        row = self.house.create(name, idle_timeout_seconds=0, **fields)
        try:
            self.house.run_well(name, f"mkdir -p /var/www; echo new >{_STATE}")
            if full:
                self.change(name, self.scale.size, "large")
            yield row
        finally:
            self.house.ask("DELETE", f"/containers/{row['id']}")

    def change(self, name: str, size: int, file: str = "small") -> None:
        """Write a file of noise anew; of all that was written, it alone may be in memory only."""
        run_well("btrfs", "filesystem", "sync", str(self.house.pool))
        block = math.gcd(size, 1_000_000)
        words = f"dd if=/dev/urandom of=/{file} bs={block} count={size // block}"
        self.house.run_well(name, f"rm -f /{file}; {words} 2>/dev/null")

    @contextmanager
    def archives(
        self, name: str, *, full: bool = False, servers: Sequence[str] = SERVERS
    ) -> Iterator[dict[str, Archive]]:
        """By who has them: each of a container of its own, whose name ends with that."""
        with ExitStack() as stack:
            found = {}
            for server in servers:
                row = stack.enter_context(self.container(f"{name}-{server}", full=full))
                kept = archive(server, self.house, row, self.folder)
                found[server] = stack.enter_context(kept)
            yield found


Measured = Iterator[tuple[str, Figures]]


@frozen
class Work:
    """
    @ivar doc: what is done, for a reader of the figures.
    @ivar servers: who does it.
    @ivar measure: does it, one round: who, and the figures.
    """

    doc: str
    servers: Sequence[str]
    measure: Callable[[Place], Measured]


def _spread(times: Sequence[float], unit: str = "ms", prefix: str = "") -> Figures:
    """@param times: in that unit."""
    cuts = statistics.quantiles(times, n=100, method="inclusive") if times[1:] else [times[0]] * 99
    return {
        f"{prefix}p50_{unit}": cuts[49],
        f"{prefix}p99_{unit}": cuts[98],
        f"{prefix}most_{unit}": max(times),
    }


@define
class _Kept:
    """Figures of several snapshots, by who took them."""

    seconds: dict[str, list[float]] = field(factory=lambda: defaultdict(list))
    pauses: list[float] = field(factory=list)

    def keep(self, server: str, one: Archive) -> None:
        began = time.perf_counter()
        said = one.keep()
        self.seconds[server].append(time.perf_counter() - began)
        if "pause_ms" in said:
            self.pauses.append(said["pause_ms"])

    def ms(self, server: str) -> list[float]:
        return [seconds * 1e3 for seconds in self.seconds[server]]

    def pause(self, server: str) -> Figures:
        return _spread(self.pauses, prefix="pause_") if server == HOODY else {}


def _large(place: Place) -> Measured:
    kept = _Kept()
    with place.archives("large", full=True) as archives:
        for _ in range(place.scale.large):
            for server, one in archives.items():
                place.change(f"large-{server}", place.scale.size, "large")
                kept.keep(server, one)
    place.pauses += kept.pauses
    for server, seconds in kept.seconds.items():
        yield server, {**_spread(seconds, "s"), **kept.pause(server)}


def _small(place: Place) -> Measured:
    kept = _Kept()
    with place.archives("small", full=True) as archives:
        for _ in range(place.scale.small):
            for server, one in archives.items():
                place.change(f"small-{server}", 100_000)
                kept.keep(server, one)
    for server in kept.seconds:
        yield server, {**_spread(kept.ms(server)), **kept.pause(server)}


def _writing(place: Place) -> Measured:
    """What has been written since what was in memory was written out is waited for, too."""
    kept = _Kept()
    with place.archives("writing", servers=(HOODY,)) as archives:
        place.house.run_well("writing-hoody", f"({_WRITING}) >/dev/null 2>&1 &")
        for _ in range(place.scale.writing):
            time.sleep(0.5)
            kept.keep(HOODY, archives[HOODY])
    yield HOODY, {**_spread(kept.ms(HOODY)), **kept.pause(HOODY)}


def _restore(place: Place) -> Measured:
    theirs: dict[str, list[float]] = defaultdict(list)
    with place.archives("restore", full=True) as archives:
        ours = archives[HOODY]
        assert isinstance(ours, Snapshots)
        states = _States.made(place.house, ours)
        for number in range(place.scale.restores):
            states.put_back()
            if number < place.scale.rival_restores:
                for server in (BTRFS, RESTIC):
                    theirs[server].append(archives[server].put_back() * 1e3)
        place.change("restore-hoody", 100_000)
        following = _Kept()
        following.keep(HOODY, ours)
    asked = _spread(states.asked, prefix="asked_")
    rest = {"broken": states.broken, "next_ms": following.ms(HOODY)[0]}
    yield HOODY, {**_spread(states.answered), **asked, **rest}
    for server, times in theirs.items():
        yield server, _spread(times)


@define(eq=False)
class _States:
    """
    Two that a container is put back to in turn.

    @ivar answered: ms until a client had an answer of the state that was wanted.
    @ivar asked: ms until it was said to be done.
    @ivar broken: how many requests meanwhile had no good answer.
    """

    _house: House
    _snapshots: Snapshots
    _names: dict[str, str] = field(factory=dict)
    answered: list[float] = field(factory=list)
    asked: list[float] = field(factory=list)
    broken: int = 0

    @classmethod
    def made(cls, house: House, snapshots: Snapshots) -> _States:
        found = cls(house, snapshots)
        for state in ("one", "other"):
            house.run_well(snapshots.row["name"], f"echo {state} >{_STATE}")
            found._names[state] = snapshots.keep()["name"]
        return found

    def put_back(self) -> None:
        """To the one in which it is not."""
        wanted = ("one", "other")[len(self.answered) % 2]
        late = time.monotonic() + _LATE
        with ThreadPoolExecutor(1) as pool:
            began = time.perf_counter()
            done: Future[None] = pool.submit(self._snapshots.restore, self._names[wanted])
            done.add_done_callback(
                lambda _: self.asked.append((time.perf_counter() - began) * 1e3)
            )
            while self._seen() != wanted:
                if time.monotonic() > late:
                    raise Wrong(f"it is not {wanted}")
                time.sleep(_BETWEEN)
            self.answered.append((time.perf_counter() - began) * 1e3)
            done.result()

    def _seen(self) -> str | None:
        """What it says of itself."""
        connection = http.client.HTTPConnection("127.0.0.1", self._house.port, timeout=_LATE)
        host = f"{self._snapshots.row['name']}.containers.hoody.localhost"
        try:
            connection.request("GET", "/state", headers={"Host": host})
            answer = connection.getresponse()
            said = answer.read().decode().strip()
        except (OSError, http.client.HTTPException):
            self.broken += 1
            return None
        finally:
            connection.close()
        if answer.status != 200:
            self.broken += 1
            return None
        return said


def _hundred(place: Place) -> Measured:
    kept = _Kept()
    with place.archives("hundred") as archives:
        for _ in range(place.scale.hundred):
            for server, one in archives.items():
                place.change(f"hundred-{server}", 100_000)
                kept.keep(server, one)
    part = max(1, place.scale.hundred // 10)
    for server in kept.seconds:
        times = kept.ms(server)
        first, last = statistics.median(times[:part]), statistics.median(times[-part:])
        yield server, {"first_ms": first, "last_ms": last, **kept.pause(server)}


def _cost(place: Place) -> Measured:
    with place.archives("cost") as archives:
        for server, one in archives.items():
            costs = []
            for _ in range(place.scale.costs):
                before = one.disk
                place.change(f"cost-{server}", 1_000_000)
                one.keep()
                costs.append((one.disk - before) / _MB)
            yield server, _spread(costs, "mb")


WORKS: Mapping[str, Work] = {
    "large": Work("500 MB of noise are written anew, then a snapshot is taken", SERVERS, _large),
    "small": Work("100 KB are, in a container with 500 MB", SERVERS, _small),
    "writing": Work("a process writes noise all the while", (HOODY,), _writing),
    "restore": Work(
        "a container with 500 MB is put back, and asked all the while", SERVERS, _restore
    ),
    "hundred": Work(
        "100 snapshots, 100 KB written for each: the first ten and the last", SERVERS, _hundred
    ),
    "cost": Work("1 MB is written anew: what one snapshot more takes on disk", SERVERS, _cost),
}


def _of(work: str, figure: str, bound: float | None, against: str | None = None) -> Target:
    than = Quantity(work, HOODY, against) if against else None
    return Target(Quantity(work, HOODY, figure), than, "<=", bound)


TARGETS = (
    _of("large", "p50_s", 8),
    _of("large", "pause_p99_ms", 100),
    _of("small", "p50_ms", 400),
    _of("writing", "pause_p99_ms", None),
    _of("restore", "p50_ms", 500),
    _of("restore", "p99_ms", 2000),
    _of("hundred", "last_ms", 1.25, "first_ms"),
    _of("cost", "p50_mb", 3),
)


def measured(works: Sequence[str], place: Place) -> Iterator[Run]:
    """Each run as it is done; a work that breaks ends with a run that says so."""
    for number in range(1, place.scale.rounds + 1):
        for name in works:
            server = HOODY
            try:
                for server, figures in WORKS[name].measure(place):
                    yield Run(round=number, work=name, server=server, figures=figures)
            except Exception as failed:
                error = f"{type(failed).__name__}: {failed}"
                yield Run(round=number, work=name, server=server, figures={}, error=error)


def tell_pauses(place: Place) -> None:
    """Of all rounds together."""
    if place.pauses:
        found = _spread(place.pauses)
        print(
            f"{len(place.pauses)} large snapshots: its processes stood still for"
            f" {found['p50_ms']:.1f} ms (median), {found['p99_ms']:.1f} (99 of 100),"
            f" {found['most_ms']:.1f} (most)",
            file=sys.stderr,
        )
