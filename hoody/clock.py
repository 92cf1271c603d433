"""
The reactor's clock: it shows what the clock on the wall shows, and timers keep their length when
that is set.

Twisted measures timers by the time of day. Set forward by an hour (by hand, by NTP at boot, or
as a laptop wakes), all would be due at once, and whoever waits for a pipe be sent away; set
back, none for an hour. Here time goes on as CLOCK_MONOTONIC does, and when the time of day
turns out to be another, the clock is put right together with all that waits by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

LOOK_SECONDS = 0.2
"""Between two looks at the time of day: for so long after it was set, it is not known."""
PRECISE = 0.02
"""Seconds that it may be off: clocks are also put right slowly, by slewing."""
JUMP_SECONDS = 0.5
"""From how many on it is told that the clock was set."""

_log = Logger(namespace="hoody")


@define(eq=False)
class WallClock:
    """
    @ivar jumped: each is told how many seconds the clock was set forward, or, less than none,
        back.
    """

    _reactor: Any
    jumped: list[Callable[[float], None]] = field(factory=list, init=False)
    _ahead: float = field(init=False)
    _looks: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ahead = time.time() - time.monotonic()
        self._looks = LoopingCall(self._look)
        self._looks.clock = self._reactor

    def seconds(self) -> float:
        """Since the epoch."""
        return time.monotonic() + self._ahead

    def start(self) -> None:
        """Be the reactor's."""
        self._put_right()
        self._reactor.seconds = self.seconds
        self._looks.start(LOOK_SECONDS, now=False)

    def stop(self) -> None:
        if self._looks.running:
            self._looks.stop()
        self._put_right()
        del self._reactor.seconds

    def _look(self) -> None:
        if abs(self._off) > PRECISE:
            # Not now: the reactor is going through its timers, by what the time was before.
            self._reactor.callFromThread(self._put_right)

    @property
    def _off(self) -> float:
        return time.time() - self.seconds()

    def _put_right(self) -> None:
        jump = self._off
        self._ahead += jump
        for call in self._reactor.getDelayedCalls():
            call.delay(jump)
        if abs(jump) < JUMP_SECONDS:
            return
        _log.warn("the clock was set by {jump:+.1f} s", jump=jump)
        for tell in tuple(self.jumped):
            tell(jump)
