"""What is told of paths that are watched, with a clock and parties that the test plays."""

from __future__ import annotations

import itertools
import math

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from hoody.errors import TooMany
from hoody.interfaces import IPipeObserver, ISpectator
from hoody.pipes.heads import Head
from hoody.pipes.meeting import Report, Running
from hoody.pipes.progress import HISTORY, Meter, percent_of
from hoody.pipes.results import Kept, Result
from hoody.pipes.watching import (
    EVERY,
    LINGER,
    Data,
    Letter,
    Source,
    Watch,
    Watches,
    seen_by,
)
from tests.support.parties import FakeReceiver, FakeSender, Meeting

# Figures


def metered(*counts: tuple[float, int], total: int | None = None, started: float = 0) -> Meter:
    meter = Meter(started, total)
    for now, delivered in counts:
        meter.sample(now, delivered)
    return meter


def steadily(rate: float, seconds: float, every: float = 0.25) -> list[tuple[float, int]]:
    return [(n * every, round(rate * n * every)) for n in range(int(seconds / every) + 1)]


def test_the_speed_is_that_of_the_last_seconds() -> None:
    meter = metered(*steadily(1000, 60))
    assert meter.figures().speed == pytest.approx(1000)
    for n in range(1, 21):
        meter.sample(60 + n * 0.25, 60_000 + n * 1000)
    assert meter.figures().speed == pytest.approx(4000)


def test_who_looks_for_the_first_time_is_told_the_average() -> None:
    figures = metered((100, 5000), total=10_000).figures()
    assert (figures.speed, figures.eta, figures.elapsed) == (50, 100, 100)


def test_nothing_is_said_of_what_cannot_be_known() -> None:
    assert metered((0, 0)).figures().eta is None
    assert metered((0, 0), (10, 100)).figures().eta is None
    assert metered((0, 0), (10, 0), total=5).figures().eta is None
    figures = metered(
        *steadily(100, 10), *((10 + n, 1000) for n in range(1, 8)), total=5000
    ).figures()
    assert (figures.speed, figures.eta) == (0, None)


def test_the_time_that_is_left_does_not_jump_about() -> None:
    """Of a transfer that goes in bursts: half of the time twice the speed."""
    meter, delivered, etas = Meter(0, 10**9), 0, []
    for n in range(1, 1201):
        delivered += 50_000 if (n // 8) % 2 else 0
        meter.sample(n * 0.25, delivered)
        if n > 400 and meter.figures().eta is not None:
            etas.append(meter.figures().eta)
    changes = [abs(b - a) / a for a, b in itertools.pairwise(etas)]  # type: ignore[operator]
    assert max(changes) < 0.05
    left = (10**9 - delivered) / (delivered / 300)
    assert etas[-1] == pytest.approx(left, rel=0.3)


def test_a_stall_does_not_make_it_seem_endless() -> None:
    meter = metered(*steadily(100, 60), total=100_000)
    for n in range(1, 1201):
        meter.sample(60 + n * 0.25, 6000)
    for n in range(1, 21):
        meter.sample(360 + n * 0.25, 6000 + 25 * n)
    assert meter.figures().eta == pytest.approx(940, rel=0.3)


def test_nothing_is_foretold_of_another_age() -> None:
    assert metered((0, 0), (1, 1), total=2**62).figures().eta is None


def test_a_steady_transfers_end_is_foretold_from_the_first_seconds_on() -> None:
    meter = Meter(0, 10_000)
    for now, delivered in steadily(100, 90):
        meter.sample(now, delivered)
        if now >= 0.5:
            assert meter.figures().eta == pytest.approx(100 - now, rel=0.05, abs=1)


def test_the_plot_keeps_all_of_the_story_in_few_points() -> None:
    meter = metered(*steadily(500, 3600))
    assert HISTORY / 2 <= len(meter.history) <= HISTORY
    assert len(meter.history) * meter.step == pytest.approx(3600, rel=0.1)
    assert set(meter.history) == {500}


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 10**12)), min_size=1, max_size=50),
    st.one_of(st.none(), st.integers(0, 10**13)),
)
def test_figures_make_sense_whatever_comes(
    steps: list[tuple[float, int]], total: int | None
) -> None:
    meter, now, delivered = Meter(0, total), 0.0, 0
    for seconds, more in steps:
        now, delivered = now + seconds, delivered + more
        meter.sample(now, delivered)
        figures = meter.figures()
        assert figures.speed >= 0
        assert figures.eta is None or (figures.eta >= 0 and math.isfinite(figures.eta))
        assert figures.percent is None or 0 <= figures.percent <= 100
    assert len(meter.history) <= HISTORY


@pytest.mark.parametrize(
    ("delivered", "total", "percent"),
    [(0, 10, 0), (1, 3, 33.3), (9999, 10_000, 99.9), (5, 5, 100), (7, 5, 100), (0, 0, 100)],
)
def test_a_hundred_percent_is_said_of_what_is_whole(
    delivered: int, total: int, percent: float
) -> None:
    assert percent_of(delivered, total) == percent


# What is told


@implementer(ISpectator)
@define(eq=False)
class FakeSpectator:
    told: list[tuple[str, Data]] = field(factory=list)
    ids: list[str] = field(factory=list)
    seen: int = 0

    def tell(self, letter: Letter) -> None:
        if letter.is_news(self.seen):
            event = letter.event(self.seen)
            self.ids.append(event.decode().partition(" ")[2])
            self.told.append(_events[event])
            self.seen = letter.done or self.seen

    def look(self, now: float) -> None:
        """It is never behind."""

    @property
    def names(self) -> list[str]:
        return [str(data["state"]) if name == "state" else name for name, data in self.told]


_events: dict[bytes, tuple[str, Data]] = {}


def encode(event_id: str, name: str, data: Data) -> bytes:
    event = f"{len(_events)} {event_id}".encode()
    _events[event] = name, data
    return event


@implementer(IPipeObserver)
class Ends:
    """Tells the watches, and makes sure that what they are told makes sense."""

    def __init__(self, watches: Watches) -> None:
        self.watches = watches

    def changed(self, path: str, source: Source) -> None:
        self.watches.changed(path, source)

    def started(self, path: str, running: Running) -> None:
        self.watches.started(path, running)

    def ended(self, report: Report, running: Running) -> None:
        self.watches.ended(report, running)


class Theatre:
    """A meeting that is watched."""

    def __init__(self, at_once: int = 200) -> None:
        self.meeting = Meeting()
        self.clock: Clock = self.meeting.clock
        self.clock.advance(1_800_000_000)
        self.watches = Watches(
            clock=self.clock,
            encode=encode,
            on_path=lambda path: self.meeting.rendezvous.on_path(path),
            kept=Kept(7 * 86400),
            max_spectators=50,
            max_paths=500,
            at_once=at_once,
        )
        self.meeting.rendezvous.observer = Ends(self.watches)
        self.watches.start()

    def watch(self, path: str = "a") -> FakeSpectator:
        spectator = FakeSpectator()
        watch = self.watches.open(path, None)
        self.watches.join(watch, spectator)
        events, spectator.seen = watch.present(0)
        spectator.told += [_events[event] for event in events]
        return spectator

    def begin(self, path: str = "a", head: Head | None = None) -> tuple[FakeSender, FakeReceiver]:
        sender, receiver = FakeSender(head=head or Head()), FakeReceiver()
        self.meeting.rendezvous.receive(path, receiver)
        self.meeting.rendezvous.send(path, sender)
        return sender, receiver


@pytest.fixture
def theatre() -> Theatre:
    return Theatre()


def test_the_fakes_keep_to_the_interfaces(theatre: Theatre) -> None:
    verifyObject(ISpectator, FakeSpectator())
    verifyObject(IPipeObserver, theatre.meeting.rendezvous.observer)


def test_one_transfer_from_beginning_to_end(theatre: Theatre) -> None:
    spectator = theatre.watch()
    sender, receiver = theatre.begin(head=Head(length=10))
    sender.send(b"12345")
    theatre.clock.advance(0.25)
    sender.send(b"67890")
    sender.end()
    theatre.clock.advance(0.25)
    receiver.acknowledge()
    assert spectator.names == [
        *("idle", "waiting", "waiting", "streaming"),
        *("progress", "progress", "progress", "complete", "done"),
    ]
    assert [d["bytes"] for name, d in spectator.told if name == "progress"] == [5, 10, 10]
    assert spectator.told[-1][1]["durationSec"] == 0.5


def test_the_next_transfer_gathers_while_the_last_is_still_acknowledged(theatre: Theatre) -> None:
    spectator = theatre.watch()
    first, slow = theatre.begin()
    first.end()
    second, receiver = theatre.begin()
    assert spectator.names[-1] == "streaming"
    slow.acknowledge()
    assert spectator.names[4:] == ["progress", "complete", "done", "streaming"]
    second.end()
    receiver.acknowledge()
    assert spectator.names[8:] == ["progress", "complete", "done"]


def test_the_next_transfer_may_end_before_the_last_is_acknowledged(theatre: Theatre) -> None:
    spectator = theatre.watch()
    first, slow = theatre.begin()
    first.send(b"123")
    first.end()
    second, receiver = theatre.begin()
    second.end()
    receiver.acknowledge()
    assert spectator.names[4:] == ["complete", "done", "streaming"]
    slow.acknowledge()
    assert spectator.names[7:] == ["progress", "complete", "done"]
    assert spectator.told[-1][1]["bytes"] == 3


def test_who_comes_while_two_are_on_a_path_is_told_of_the_elder(theatre: Theatre) -> None:
    first, slow = theatre.begin()
    first.send(b"123")
    first.end()
    waiting = FakeReceiver()
    theatre.meeting.rendezvous.receive("a", waiting)
    spectator = theatre.watch()
    assert spectator.names == ["streaming", "progress"]
    slow.acknowledge()
    assert spectator.names[2:] == ["progress", "complete", "done", "waiting"]


def test_a_third_gathers_while_two_are_not_over_yet(theatre: Theatre) -> None:
    spectator = theatre.watch()
    first, slow = theatre.begin()
    first.end()
    second, slower = theatre.begin()
    second.end()
    theatre.meeting.rendezvous.receive("a", FakeReceiver())
    slower.acknowledge()
    assert spectator.names[4:] == ["complete", "done", "streaming"]
    slow.acknowledge()
    assert spectator.names[7:] == ["progress", "complete", "done", "waiting"]


def test_many_are_told_in_turn_and_each_in_order() -> None:
    theatre = Theatre(at_once=3)
    spectators = [theatre.watch() for _ in range(10)]
    sender, receiver = theatre.begin()
    sender.end()
    receiver.acknowledge()
    assert sum(len(one.told) for one in spectators) == 10 + 3
    assert sum(len(one.ids) for one in spectators) == 3
    late = theatre.watch()
    theatre.clock.pump([0] * 40)
    for one in spectators:
        assert one.names == [
            *("idle", "waiting", "waiting", "streaming", "progress", "complete", "done")
        ]
    assert late.names == ["complete", "done"]


def test_so_many_are_told_in_a_turn_whatever_the_paths() -> None:
    theatre = Theatre(at_once=30)
    for number in range(20):
        theatre.begin(str(number))
    spectators = [theatre.watch(str(number)) for number in range(20) for _ in range(5)]
    before = sum(len(one.told) for one in spectators)
    theatre.watches._tick()  # a clock that is advanced would have all the turns as well
    assert sum(len(one.told) for one in spectators) == before + 30
    theatre.clock.pump([0] * 4)
    assert sum(len(one.told) for one in spectators) == before + 100


def test_an_id_says_what_this_very_spectator_has_been_told(theatre: Theatre) -> None:
    theatre.watches.open("a", result())
    knows = theatre.watch()
    waiting = FakeReceiver()
    theatre.meeting.rendezvous.receive("a", waiting)
    new = theatre.watch()
    sender = FakeSender()
    theatre.meeting.rendezvous.send("a", sender)
    assert knows.seen == seen_by(knows.ids[-1]) == result().identity
    assert new.seen == seen_by(new.ids[-1]) == 0


def test_what_goes_wrong_with_one_path_is_not_the_others_affair(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    spectator = theatre.watch("good")
    bad = theatre.watches.open("bad", None)
    monkeypatch.setattr(bad, "touched", None)
    theatre.begin("good")
    theatre.clock.advance(EVERY)
    theatre.clock.advance(EVERY)
    assert spectator.names.count("progress") == 2


def test_the_clock_of_events_goes_only_while_bytes_flow(theatre: Theatre) -> None:
    spectator = theatre.watch()
    theatre.clock.pump([0.25] * 20)
    assert spectator.names == ["idle"]


def test_who_left_is_told_nothing(theatre: Theatre) -> None:
    spectator, other = theatre.watch(), theatre.watch()
    watch = theatre.watches.find("a")
    assert isinstance(watch, Watch)
    for _ in range(2):
        theatre.watches.leave(watch, spectator)
    theatre.begin()
    assert spectator.names == ["idle"]
    assert len(other.names) > 1
    assert (theatre.watches.spectators, theatre.watches.watched) == (1, 1)


def test_a_path_is_measured_on_for_a_while_and_then_forgotten(theatre: Theatre) -> None:
    theatre.begin()
    watch = theatre.watches.open("a", None)
    theatre.clock.pump([0.25] * 40)
    assert theatre.watches.find("a") is watch
    theatre.clock.advance(LINGER + 1)
    assert theatre.watches.find("a") is None


def test_those_whom_nobody_watches_give_way(theatre: Theatre) -> None:
    theatre.watches.max_paths = 3
    spectator = theatre.watch("watched")
    for number in range(20):
        theatre.clock.advance(0.01)
        theatre.watches.open(str(number), None)
    assert theatre.watches.find("0") is None
    assert theatre.watches.find("19") is not None
    theatre.begin("watched")
    assert spectator.names[-1] == "streaming"


def test_places_are_counted(theatre: Theatre) -> None:
    theatre.watches.max_spectators, theatre.watches.max_paths = 2, 2
    theatre.watch("a")
    theatre.watch("a")
    with pytest.raises(TooMany, match="2 watch this path"):
        theatre.watch("a")
    theatre.watch("b")
    with pytest.raises(TooMany, match="2 paths"):
        theatre.watch("c")


def result(path: str = "a", ended: float = 1_800_000_000.5) -> Result:
    return Result(
        path=path,
        delivered=5,
        total=10,
        receivers=1,
        digest=None,
        error="gone",
        started=ended - 2,
        ended=ended,
    )


def test_a_result_that_comes_late_to_light_is_told(theatre: Theatre) -> None:
    spectator = theatre.watch()
    theatre.watches.open("a", result())
    assert spectator.names == ["idle", "failed", "done"]


def test_a_result_becomes_too_old(theatre: Theatre) -> None:
    theatre.watches.open("a", result())
    spectator = theatre.watch()
    assert spectator.names == ["failed", "done"]
    theatre.clock.pump([3600.0] * (24 * 7 + 1))
    theatre.watches.find("a")
    assert spectator.names == ["failed", "done", "idle"]


def test_a_result_that_becomes_too_old_does_not_hide_who_waits(theatre: Theatre) -> None:
    theatre.watches.open("a", result())
    theatre.meeting.patience(10 * 86400)
    theatre.meeting.rendezvous.receive("a", FakeReceiver())
    spectator = theatre.watch()
    theatre.clock.pump([3600.0] * (24 * 7 + 1))
    theatre.watches.find("a")
    assert spectator.names == ["waiting"]


def test_the_oldest_results_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoody.pipes.results.MOST", 2)
    kept = Kept(60)
    for path in ("a", "b", "a", "c"):
        kept.add(result(path))
    now = 1_800_000_001.0
    assert [path for path in "abc" if kept.get(path, now)] == ["a", "c"]
    assert kept.get("a", now + 60) is None


@pytest.mark.parametrize(
    ("given", "seen"), [("12-34", 34), ("12-0", 0), ("", 0), ("x", 0), ("1-2-3", 0), ("٣-٣", 0)]
)
def test_what_was_seen_is_in_the_id(given: str, seen: int) -> None:
    assert seen_by(given) == seen
