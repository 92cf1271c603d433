"""Timers of the real reactor, while somebody sets the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import LoopingCall

from hoody import clock
from hoody.later import sleep


class Wall:
    """The clock on the wall, which can be set."""

    def __init__(self) -> None:
        self.off = 0.0
        self.monotonic = time.monotonic

    def time(self) -> float:
        return time.time() + self.off


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Wall, clock.WallClock]]:
    wall = Wall()
    monkeypatch.setattr(clock, "time", wall)
    made = clock.WallClock(reactor)
    made.start()
    yield wall, made
    wall.off = 0.0
    made.stop()


def awaits(test: Callable[..., Any]) -> Any:
    return pytest_twisted.ensureDeferred(test)


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 8 * 86400.0, -8 * 86400.0, 0.3])
@awaits
async def test_timers_keep_their_length(
    wall: tuple[Wall, clock.WallClock], seconds: float
) -> None:
    on_the_wall, watch = wall
    core: Any = reactor
    jumps: list[float] = []
    watch.jumped.append(jumps.append)
    began, fired = time.monotonic(), dict[str, float]()
    for name, length in (("soon", 0.8), ("later", 1.3), ("much later", 300.0)):
        core.callLater(length, lambda name=name: fired.setdefault(name, time.monotonic() - began))
    ticks: list[float] = []
    call = LoopingCall(lambda: ticks.append(time.monotonic()))
    call.start(0.25, now=False)
    late = core.callLater(600.0, fired.setdefault, "late", 0.0)
    on_the_wall.off = seconds
    await sleep(core, 0.6)
    assert core.seconds() == pytest.approx(time.time() + seconds, abs=0.1)
    assert late.getTime() - core.seconds() == pytest.approx(600 - 0.6, abs=0.3)
    await sleep(core, 1.0)
    call.stop()
    assert fired == {"soon": pytest.approx(0.8, abs=0.4), "later": pytest.approx(1.3, abs=0.4)}
    assert 3 <= len(ticks) <= 8
    assert max(b - a for a, b in pairwise(ticks)) < 1.2
    expected = [pytest.approx(seconds, abs=0.1)] if abs(seconds) > 0.5 else []
    assert jumps == expected
    for pending in core.getDelayedCalls():
        if pending.getTime() - core.seconds() > 200:
            pending.cancel()


@awaits
async def test_a_clock_that_is_slewed_is_followed(wall: tuple[Wall, clock.WallClock]) -> None:
    on_the_wall, watch = wall
    core: Any = reactor
    jumps: list[float] = []
    watch.jumped.append(jumps.append)
    for step in range(20):
        on_the_wall.off = step * 0.05
        await sleep(core, 0.05)
    await sleep(core, 0.4)
    assert core.seconds() == pytest.approx(time.time() + 0.95, abs=0.05)
    assert jumps == []
