"""
What is asked of cron.

The name of each figure ends with its unit. Where Debian's cron does the same, it is given the same
commands. What they write is what is counted: that, and not what a server says, is when
one has run.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from attrs import define, field, frozen

from bench.asking import HEALTH, PIPE, PROJECTS, Asked, asking
from bench.crond import CRON, crond
from bench.entries import Book, Opened
from bench.processes import children
from bench.rivals import HOODY
from bench.targets import Quantity, Run, Target
from bench.works import Figures

EMPTY = "hoody, no entries"
MOST_AT_ONCE = 32
"""As the server has it if nobody says otherwise."""
_LATE = 60.0
_BETWEEN = 0.5
"""Seconds between two that are due alone."""


@frozen(kw_only=True)
class Scale:
    """
    How much there is to do in one round.

    @ivar due: entries that are due at once.
    @ivar crowd: that are, and take a second.
    @ivar alone: that are due one after the other.
    @ivar daemons: for each of which a minute begins meanwhile.
    """

    rounds: int = 3
    entries: int = 10_000
    due: int = 1000
    crowd: int = 100
    alone: int = 120
    daemons: int = 10


QUICK = Scale(rounds=1, entries=400, due=40, crowd=40, alone=8, daemons=1)


@define(eq=False)
class Place:
    """
    @ivar book: with as many entries as it has to be, and C{empty}, without any.
    """

    folder: Path
    scale: Scale
    book: Book
    empty: Book
    _files: int = field(default=0, init=False)

    @classmethod
    def made(cls, folder: Path, scale: Scale) -> Place:
        folder.chmod(0o711)
        book = Book.made(folder / "full", scale.entries)
        return cls(folder, scale, book, Book.made(folder / "empty", 0))

    def new(self, name: str) -> Path:
        """A file, or a folder, that is not there."""
        self._files += 1
        return self.folder / f"{name}{self._files}"


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


def _cut(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _until(is_so: Callable[[], bool], what: str, every: float = 0.002) -> None:
    late = time.monotonic() + _LATE
    while not is_so():
        if time.monotonic() > late:
            raise OSError(f"{what}: it is not so after {_LATE:g} s")
        time.sleep(every)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))


def _apart(moment: int) -> float:
    """That, or a second later: when a minute begins others are due, too."""
    return float(moment + (moment % 60 == 0))


# From nothing


def _start(place: Place) -> Measured:
    began = time.time()
    with place.empty.open():
        yield EMPTY, {"listens_s": time.time() - began}
    yield HOODY, _start_full(place)
    yield CRON, _start_cron(place)


def _start_full(place: Place) -> Figures:
    """One is due when it starts; others are while it has just started."""
    ran = place.new("ran")
    began = _apart(int(time.time()) + 6)
    soon = {number: began + 1.6 + number * _BETWEEN for number in range(2, 8)}
    with place.book.open() as opened:
        opened.have_due({1: began - 1, **soon}, {1: f"echo >>{ran}", **dict.fromkeys(soon, ":")})
    if time.time() > began - 1:
        raise OSError("the server took too long to end")
    _sleep_until(began)
    began_at = time.time()
    with place.book.open() as opened:
        listens = time.time() - began_at
        _until(lambda: _size(ran) > 0, "what was due at the start has run")
        first = time.time() - began_at
        delays = opened.delays(list(soon.values()))
    return {"listens_s": listens, "first_s": first, "soon_most_ms": max(delays)}


def _start_cron(place: Place) -> Figures:
    ran = place.new("ran")
    lines = [f"@reboot root echo >>{ran}", *_of_a_day(place.scale.entries)]
    with crond(place.new("cron"), lines, seconds=50) as cron:
        _until(lambda: _size(ran) > 0, "cron has started")
        return {"first_s": time.time() - cron.began}


def _of_a_day(count: int) -> list[str]:
    """Lines of which none is due now, wherever a clock stands."""
    return [f"{number % 60} {number // 60 % 24} 29 2 * root :" for number in range(count)]


# A thousand at once


@define
class _Watched:
    """
    What is seen of a server, from outside, while many of its commands run.

    @ivar first: when the first has run, and C{last}, when all have.
    @ivar at_once: the most that were there at once.
    """

    pid: int
    ran: Path
    due: int
    at_once: int = field(default=0, init=False)
    first: float = field(default=0.0, init=False)
    last: float = field(default=0.0, init=False)
    _others: set[int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._others = set(children(self.pid))

    def look(self) -> bool:
        """@return: whether all have run."""
        self.at_once = max(self.at_once, len(set(children(self.pid)) - self._others))
        size = _size(self.ran)
        if size and not self.first:
            self.first = time.time()
        if size >= self.due and not self.last:
            self.last = time.time()
        return bool(self.last)

    def figures(self, at: float) -> Figures:
        return {
            "ran_s": self.last - at,
            "spent_s": self.last - self.first,
            "at_once": self.at_once,
        }


def _thousand(place: Place) -> Measured:
    with place.book.open() as opened:
        yield HOODY, _thousand_of_hoody(place, opened)
    yield CRON, _thousand_of_cron(place)


def _thousand_of_hoody(place: Place, opened: Opened) -> Figures:
    due, server = place.scale.due, opened.server
    watched = _Watched(server.pid, place.new("ran"), due)
    time.sleep(5 if due > 100 else 1)  # it has done what a start has it do
    with asking(server.port, opened.token) as asked:
        at = _apart(int(time.time()) + 4)
        opened.have_due(dict.fromkeys(range(11, 11 + due), at), f"echo >>{watched.ran}")
        _sleep_until(at)
        claimed = over = well = 0
        times: dict[str, float] = {}
        while over < due:
            watched.look()
            claimed, over, well = opened.seen(at)
            for name, number in (("claimed_s", claimed), ("over_s", over)):
                if number >= due:
                    times.setdefault(name, time.time() - at)
            if time.time() - at > _LATE:
                raise OSError(f"of {due} {claimed} are claimed, {over} over")
            time.sleep(0.02)
        ended = time.time()
    if (claimed, well) != (due, due) or not watched.look():
        raise OSError(f"of {due} {claimed} were claimed, {well} went well")
    return {**times, **watched.figures(at), **_answers(asked, at, ended)}


def _answers(asked: Asked, at: float, ended: float) -> Figures:
    """How long who asked for something else waited: as long as they ran, and before."""
    before, meanwhile = asked.between(0, at), asked.between(at, ended)
    most = {
        f"{what}_most_ms": max(asked.between(at, ended, what)) * 1e3
        for what in (HEALTH, PROJECTS, PIPE)
    }
    return {
        "before_p99_ms": _cut(before, 99) * 1e3,
        "before_most_ms": max(before) * 1e3,
        "answer_p50_ms": _cut(meanwhile, 50) * 1e3,
        "answer_p99_ms": _cut(meanwhile, 99) * 1e3,
        "answer_most_ms": max(meanwhile) * 1e3,
        **most,
    }


def _thousand_of_cron(place: Place) -> Figures:
    due, ran = place.scale.due, place.new("ran")
    lines = _of_a_day(place.scale.entries - due)
    lines += [f"* * * * * root echo >>{ran}"] * due
    with crond(place.new("cron"), lines, seconds=3) as cron:
        watched = _Watched(cron.pid, ran, due)
        _until(watched.look, "all of cron's have run", 0.02)
        return watched.figures(cron.minute)


def _crowd(place: Place) -> Measured:
    """How many are there at once of more than may be, if each takes a second."""
    crowd, ran = place.scale.crowd, place.new("ran")
    command = f"echo >>{ran}; sleep 1"
    with place.book.open() as opened:
        watched = _Watched(opened.server.pid, ran, crowd)
        at = _apart(int(time.time()) + 3)
        opened.have_due(dict.fromkeys(range(11, 11 + crowd), at), command)
        _until(watched.look, "all have run", 0.01)
        yield HOODY, watched.figures(at)
        _until(lambda: opened.seen(at)[1] == crowd, "all are over", 0.1)
    ran = place.new("ran")
    lines = [f"* * * * * root echo >>{ran}; sleep 1"] * crowd
    with crond(place.new("cron"), lines, seconds=3) as cron:
        watched = _Watched(cron.pid, ran, crowd)
        _until(watched.look, "all of cron's have run", 0.01)
        yield CRON, watched.figures(cron.minute)


# One at a time


def _single(place: Place) -> Measured:
    """They are due at any part of a second, as the server looks now and then."""
    scale, written = place.scale, place.new("times")
    with ExitStack() as stack:
        opened = stack.enter_context(place.book.open())
        time.sleep(5 if scale.alone > 100 else 1)
        begin = int(time.time()) + 2 + scale.daemons * 0.5
        times = {
            number: round(begin + (place_ + random.uniform(0.1, 0.9)) * _BETWEEN, 3)
            for place_, number in enumerate(range(11, 11 + scale.alone))
        }
        step = scale.alone * _BETWEEN / scale.daemons
        minutes = {}
        for number in range(scale.daemons):
            says = f"echo {-1 - number} $(date +\\%s.\\%N) >>{written}"
            lines = [f"* * * * * root {says}"]
            wait = max(1, round(begin - time.time() + number * step) - 1)
            cron = stack.enter_context(crond(place.new("cron"), lines, min(wait, 55)))
            minutes[-1 - number] = cron.minute
        opened.have_due(
            times, {number: f"echo {number} $(date +%s.%N) >>{written}" for number in times}
        )
        _sleep_until(max(times.values()) + 2)
        said = opened.delays(list(times.values()))
        found = _found(written)
    ours = [(found[number] - at) * 1e3 for number, at in times.items()]
    theirs = [(found[number] - at) * 1e3 for number, at in minutes.items()]
    yield HOODY, {**_spread(ours), **_spread(said, "said_")}
    yield CRON, _spread(theirs)


def _found(written: Path) -> dict[int, float]:
    """When each has first run."""
    found: dict[int, float] = {}
    for line in written.read_text().splitlines():
        number, _, moment = line.partition(" ")
        found.setdefault(int(number), float(moment))
    return found


def _spread(times: Sequence[float], prefix: str = "") -> Figures:
    """@param times: in ms."""
    some = times if times[1:] else [*times, *times]
    return {
        f"{prefix}p50_ms": _cut(some, 50),
        f"{prefix}p99_ms": _cut(some, 99),
        f"{prefix}most_ms": max(times),
    }


WORKS: Mapping[str, Work] = {
    "start": Work("started with 10,000 entries; one is due already", (EMPTY, HOODY, CRON), _start),
    "thousand": Work(
        "1,000 of them are due at once, while a client asks for other things",
        (HOODY, CRON),
        _thousand,
    ),
    "crowd": Work("100 are, and take a second each", (HOODY, CRON), _crowd),
    "single": Work("one is due, and half a second later another", (HOODY, CRON), _single),
}


def _of(work: str, figure: str, bound: float | None, against: str | None = None) -> Target:
    than = Quantity(work, against, figure) if against else None
    return Target(Quantity(work, HOODY, figure), than, "<=", bound)


TARGETS = (
    _of("start", "listens_s", 2),
    _of("start", "listens_s", None, EMPTY),
    _of("start", "first_s", None, CRON),
    _of("thousand", "claimed_s", 2),
    _of("thousand", "answer_most_ms", 100),
    _of("thousand", "ran_s", None, CRON),
    _of("crowd", "at_once", MOST_AT_ONCE),
    _of("single", "p99_ms", 250),
    _of("single", "said_p99_ms", 250),
    _of("single", "p50_ms", None, CRON),
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
