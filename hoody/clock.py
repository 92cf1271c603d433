"""
The machine's clock, which may be set, and timers that do not mind.

Twisted's timers are moments of C{reactor.seconds()}, which is the wall clock: were it set
back by an hour, all of them would stand still for an hour; were it set forward, all would
be due at once. Here the reactor's clock goes on evenly (CLOCK_MONOTONIC, which does not
count while the machine is suspended: clock_gettime(2)), and follows the wall clock in
steps, between two turns of the reactor, each of which takes all timers along.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import define, field
from twisted.internet.base import ReactorBase
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hoody.protocols import timers

LOOK_EVERY = 0.5
"""Seconds between two looks at the wall clock: the reactor's is behind it for no longer."""
JUMP = 0.5
"""Seconds by which it must have been set, at once or little by little, to be told of."""
_LEAST = 0.001
"""Less is what passes between two looks at clocks."""
_TRIES = 10

_log = Logger(namespace="hoody.clock")


@define(eq=False)
class ClockWatch:
    """
    Has the reactor's timers keep their durations, and its seconds the wall clock's.

    Who keeps a moment in order to measure from it asks to be told of jumps, and moves it
    by as much.

    @ivar jumped: called in the reactor's thread with the seconds that the wall clock was set
        forward, or back if negative, after C{reactor.seconds()} and the timers have followed.
    """

    _reactor: ReactorBase
    _wall: Callable[[], float] = time.time
    _even: Callable[[], float] = time.monotonic
    jumped: list[Callable[[float], object]] = field(factory=list, init=False)
    _ahead: float = field(default=0.0, init=False)
    _untold: float = field(default=0.0, init=False)
    _call: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._call = LoopingCall(self._look)
        self._call.clock = self._reactor

    def start(self) -> None:
        """Be the reactor's clock."""
        self._ahead = self._wall() - self._even()
        self._reactor.seconds = self.seconds
        self._call.start(LOOK_EVERY, now=False)

    def stop(self) -> None:
        """Let it have its own again."""
        if self._call.running:
            self._call.stop()
            self._follow()
            del self._reactor.seconds

    def seconds(self) -> float:
        """Since the epoch."""
        return self._even() + self._ahead

    def _look(self) -> None:
        if abs(self._behind()) >= _LEAST:
            # Not here: the reactor goes through what is due at a moment that it has already
            # taken, and would come upon timers that were moved before it.
            self._reactor.callFromThread(self._follow)

    def _behind(self) -> float:
        """By how much the wall clock is ahead of ours; 0 where that cannot be said just now."""
        for _ in range(_TRIES):
            before = self._even()
            wall = self._wall()
            after = self._even()
            if after - before < _LEAST:  # else we were held between the two
                return wall - before - self._ahead
        return 0.0

    def _follow(self) -> None:
        jump = self._behind()
        self._ahead += jump
        timers.move(self._reactor, jump)
        self._untold += jump
        if abs(self._untold) >= JUMP:
            told, self._untold = self._untold, 0.0
            _log.warn("the clock was set by {seconds:+.1f} s", seconds=told)
            for observer in tuple(self.jumped):
                self._tell(observer, told)

    def _tell(self, observer: Callable[[float], object], seconds: float) -> None:
        try:
            observer(seconds)
        except Exception:
            _log.failure("what the clock's jump means to {observer!r}", observer=observer)
