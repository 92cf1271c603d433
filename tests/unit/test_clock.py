"""Timers and the clock that is set meanwhile: Twisted's own reactor, whose time is ours."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from hoody.clock import JUMP, LOOK_EVERY, ClockWatch

HOUR = 3600.0
WEEK = 8 * 24 * HOUR
BEGIN = 1_777_862_000.0
JUMPS = [-HOUR, HOUR, -WEEK, WEEK, -JUMP, JUMP, -0.1, 0.1]


class Turning(ReactorBase):
    """It waits for nothing: the test turns it."""

    def installWaker(self) -> None:
        self.waker = None


@define(eq=False)
class Machine:
    """
    @ivar even: CLOCK_MONOTONIC.
    @ivar set_by: how far ahead of the true time the wall clock is.
    """

    even: float = 1000.0
    set_by: float = 0.0
    reactor: ReactorBase = field(factory=Turning, init=False)
    watch: ClockWatch = field(init=False)
    told: list[float] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.reactor.seconds = self.wall
        self.watch = ClockWatch(self.reactor, self.wall, lambda: self.even)
        self.watch.jumped.append(self.told.append)
        self.watch.start()

    def wall(self) -> float:
        return BEGIN + self.even + self.set_by

    def go_on(self, seconds: float) -> None:
        """In steps of which each timer notices."""
        until = self.even + seconds
        while self.even < until - 1e-9:
            self.even = min(until, self.even + 0.01)
            self.reactor.runUntilCurrent()

    def call_later(self, seconds: float) -> list[float]:
        """Has the moment in it, by the even clock, as soon as it has come."""
        called: list[float] = []
        self.reactor.callLater(seconds, lambda: called.append(self.even))
        return called


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.watch.stop()


@pytest.mark.parametrize("jump", JUMPS)
def test_the_reactors_seconds_follow_the_wall_clock(machine: Machine, jump: float) -> None:
    machine.set_by += jump
    machine.go_on(LOOK_EVERY + 0.02)
    assert machine.reactor.seconds() == pytest.approx(machine.wall(), abs=0.002)


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("seconds", [0.0, 0.3, 2.0, HOUR, HOUR + 5])
def test_a_timer_keeps_its_duration(machine: Machine, jump: float, seconds: float) -> None:
    machine.go_on(0.2)
    before, began = machine.call_later(seconds), machine.even
    machine.set_by += jump
    after = machine.call_later(seconds)
    machine.go_on(min(seconds - 0.02, 10))
    assert not before
    assert not after
    if seconds < 10:
        machine.go_on(0.05)
    else:  # nothing happens meanwhile
        machine.even = began + seconds - 0.02
        machine.reactor.runUntilCurrent()
        assert not before
        machine.go_on(0.05)
    assert before == after == [pytest.approx(began + seconds, abs=0.021)]


@pytest.mark.parametrize("jump", JUMPS)
def test_a_timer_that_was_put_off_keeps_its_duration(machine: Machine, jump: float) -> None:
    called: list[float] = []
    began = machine.even
    call = machine.reactor.callLater(1.0, lambda: called.append(machine.even))
    call.reset(3.0)
    machine.set_by += jump
    machine.go_on(1.0)
    call.reset(4.0)
    machine.go_on(5.0)
    assert called == [pytest.approx(began + 5.0, abs=0.021)]


@pytest.mark.parametrize("jump", JUMPS)
def test_those_that_were_cancelled_do_not_hold_up_the_others(
    machine: Machine, jump: float
) -> None:
    calls = [machine.reactor.callLater(1 + number / 10, lambda: None) for number in range(30)]
    kept = [machine.call_later(1 + number / 10) for number in range(30)]
    began = machine.even
    machine.go_on(0.1)
    for call in calls:
        call.cancel()
    machine.set_by += jump
    machine.go_on(5.0)
    for number, called in enumerate(kept):
        assert called == [pytest.approx(began + 1 + number / 10, abs=0.021)]


def test_ten_thousand_timers_are_moved_at_once(machine: Machine) -> None:
    for number in range(10_000):
        machine.reactor.callLater(60 + number / 100, lambda: None)
    machine.reactor.runUntilCurrent()
    machine.set_by -= HOUR
    began = time.perf_counter()
    machine.go_on(1.0)
    assert machine.told
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("interval", [0.05, 0.7, 20.0])
def test_what_is_done_again_and_again_keeps_its_interval(
    machine: Machine, jump: float, interval: float
) -> None:
    called: list[float] = []
    looping = LoopingCall(lambda: called.append(machine.even))
    looping.clock = machine.reactor
    looping.start(interval, now=False)
    began = machine.even
    machine.go_on(2.3 * interval)
    machine.set_by += jump
    machine.go_on(3 * interval)
    looping.stop()
    assert called == [
        pytest.approx(began + number * interval, abs=0.021) for number in range(1, 6)
    ]


@pytest.mark.parametrize("jump", JUMPS)
def test_what_was_at_work_comes_again_within_its_interval(machine: Machine, jump: float) -> None:
    called: list[float] = []
    work: Deferred[None] = Deferred()

    def begin() -> Deferred[None] | None:
        called.append(machine.even)
        return work if len(called) == 1 else None

    looping = LoopingCall(begin)
    looping.clock = machine.reactor
    looping.start(2.0)
    machine.set_by += jump
    machine.go_on(1.0)
    work.callback(None)
    machine.go_on(2.01)
    second = called[1]
    machine.go_on(2.01)
    looping.stop()
    assert called[2] - second == pytest.approx(2.0, abs=0.021)


@pytest.mark.parametrize("jump", [-WEEK, -HOUR, -JUMP, JUMP, HOUR, WEEK])
def test_a_jump_is_told_once(machine: Machine, jump: float) -> None:
    machine.set_by += jump
    machine.go_on(3.0)
    assert machine.told == [pytest.approx(jump, abs=0.002)]


def test_when_it_is_told_everything_has_followed(machine: Machine) -> None:
    seen: list[tuple[float, float]] = []
    call = machine.reactor.callLater(100, lambda: None)
    began = machine.even
    machine.watch.jumped.append(lambda _: seen.append((machine.reactor.seconds(), call.getTime())))
    machine.set_by += HOUR
    machine.go_on(1.0)
    now, due = seen[0]
    assert now == pytest.approx(machine.wall(), abs=1.0)
    assert due == pytest.approx(BEGIN + began + 100 + HOUR, abs=0.002)


def test_a_little_at_a_time_is_followed_and_told_when_it_has_become_much(machine: Machine) -> None:
    called, began = machine.call_later(20.0), machine.even
    for _ in range(13):
        machine.set_by += 0.1
        machine.go_on(1.0)
        assert machine.reactor.seconds() == pytest.approx(machine.wall(), abs=0.002)
    machine.go_on(8.0)
    assert called == [pytest.approx(began + 20, abs=0.021)]
    assert machine.told == [pytest.approx(0.5, abs=0.1), pytest.approx(0.5, abs=0.1)]


def test_forth_and_back_between_two_looks_is_nothing(machine: Machine) -> None:
    machine.set_by += HOUR
    machine.go_on(0.1)
    machine.set_by -= HOUR
    machine.go_on(2.0)
    assert machine.told == []


def test_being_held_between_two_looks_at_clocks_is_no_jump(machine: Machine) -> None:
    held = [3.0, 2.0]

    def even() -> float:
        machine.even += held.pop() if held else 0.0
        return machine.even

    machine.watch._even = even
    machine.go_on(2.0)
    assert machine.told == []
    assert machine.reactor.seconds() == pytest.approx(machine.wall(), abs=0.002)


def test_an_observer_that_fails_keeps_nobody_from_being_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hoody.clock._log.failure", lambda *_, **__: None)
    machine.watch.jumped.insert(0, lambda _: 1 / 0)
    machine.set_by += HOUR
    machine.go_on(1.0)
    assert len(machine.told) == 1


def test_when_it_stops_the_reactor_has_its_own_clock_again(machine: Machine) -> None:
    called, began = machine.call_later(2.0), machine.even
    machine.set_by -= HOUR
    machine.go_on(0.2)
    machine.watch.stop()
    assert machine.reactor.seconds() is not None
    assert "seconds" not in vars(machine.reactor)
    machine.reactor.seconds = machine.wall
    machine.go_on(3.0)
    assert called == [pytest.approx(began + 2.0, abs=0.021)]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.sampled_from([*JUMPS, 3.0, -3.0])),
            st.tuples(st.just("go on"), st.sampled_from([0.01, 0.26, 0.49, 1.0, 2.5])),
            st.tuples(st.just("cancel"), st.just(0.0)),
            st.tuples(st.just("call"), st.sampled_from([0.0, 0.2, 0.5, 1.0, 3.0, 3.5])),
        ),
        max_size=25,
    )
)
def test_whatever_is_set_when_all_timers_keep_their_durations(
    steps: list[tuple[str, float]],
) -> None:
    machine = Machine()
    called: list[tuple[list[float], float]] = []
    for step, seconds in steps:
        if step == "set":
            machine.set_by += seconds
        elif step == "go on":
            machine.go_on(seconds)
        elif step == "cancel":
            machine.reactor.callLater(1.0, machine.told.clear).cancel()
        else:
            called.append((machine.call_later(seconds), machine.even + seconds))
    machine.go_on(4.0)
    for moments, due in called:
        assert moments == [pytest.approx(due, abs=0.021)]
    machine.watch.stop()
