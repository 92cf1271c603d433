"""How a transfer goes: who is there, how much has been given, how fast, how long still."""

from __future__ import annotations

import math
from collections import deque
from enum import StrEnum

from attrs import define, field, frozen

WINDOW = 5.0
"""Seconds over which the speed is taken."""
LONGEST = 400 * 86400.0
"""Seconds over which nothing is foretold."""
HISTORY = 120
"""How many speeds are kept for a plot, at most."""
_STEADY_LEAST, _STEADY_MOST = 2.0, 30.0
"""Seconds over which the speed is smoothed from which the rest is reckoned."""


class State(StrEnum):
    """Of a path, in the order in which they come."""

    IDLE = "idle"
    WAITING = "waiting"
    STREAMING = "streaming"
    COMPLETE = "complete"
    FAILED = "failed"


@frozen
class Standing:
    """
    Who is on a path.

    @ivar active: receivers that are there.
    @ivar wanted: receivers that there are to be; 0 while nobody has said.
    """

    state: State
    has_sender: bool = False
    active: int = 0
    wanted: int = 0


@frozen(kw_only=True)
class Figures:
    """
    How far a transfer has come.

    @ivar delivered: bytes that the slowest receiver was given.
    @ivar total: bytes in all; C{None} where nobody knows.
    @ivar speed: bytes a second, over the last few seconds.
    @ivar eta: seconds that are left; C{None} where that cannot be said.
    @ivar elapsed: seconds since the start.
    """

    delivered: int
    total: int | None
    speed: float
    eta: float | None
    elapsed: float

    @property
    def percent(self) -> float | None:
        return None if self.total is None else percent_of(self.delivered, self.total)


def percent_of(delivered: int, total: int) -> float:
    """Rounded down to a tenth: 100 is said of what is whole."""
    return math.floor(min(delivered / total, 1) * 1000) / 10 if total else 100.0


@define(eq=False)
class Meter:
    """
    Makes speeds of counts.

    The speed shown follows the last seconds; the time that is left is reckoned
    from one that is smoothed over longer, so that it does not jump about.

    @ivar started: when the transfer began, in seconds of any clock.
    @ivar total: bytes in all, or C{None}.
    @ivar history: speeds, C{step} seconds apart, oldest first.
    """

    started: float
    total: int | None
    history: list[int] = field(factory=list, init=False)
    step: float = field(default=1.0, init=False)
    _samples: deque[tuple[float, int]] = field(factory=deque, init=False)
    _steady: float = field(default=0.0, init=False)
    _noted: tuple[float, int] | None = field(default=None, init=False)

    def sample(self, now: float, delivered: int) -> None:
        """Take a count; one that is smaller than the last stands for the same."""
        samples = self._samples
        delivered = max(delivered, samples[-1][1]) if samples else delivered
        previous = samples[-1][0] if samples else now
        samples.append((now, delivered))
        while samples[0][0] < now - WINDOW and samples[1][0] <= now - WINDOW:
            samples.popleft()
        self._smooth(now, previous)
        self._note(now, delivered)

    def _smooth(self, now: float, previous: float) -> None:
        speed = self._speed(now)
        if not speed:
            return  # how long it stands still says nothing of how it goes on
        if not self._steady:
            self._steady = speed  # nothing was known of it before
        seconds = min(max((now - self.started) / 4, _STEADY_LEAST), _STEADY_MOST)
        self._steady += (speed - self._steady) * -math.expm1((previous - now) / seconds)

    def _note(self, now: float, delivered: int) -> None:
        """For the plot: when there are too many, two become one."""
        if self._noted is None:
            self._noted = now, delivered
            return
        then, before = self._noted
        if now - then < self.step:
            return
        self.history.append(round((delivered - before) / (now - then)))
        self._noted = now, delivered
        if len(self.history) > HISTORY:
            pairs = zip(self.history[::2], self.history[1::2], strict=False)
            self.history = [(one + other) // 2 for one, other in pairs]
            self.step *= 2

    def _speed(self, now: float) -> float:
        """Over the window; of what was before the first look, only the average is known."""
        (then, before), (_, delivered) = self._samples[0], self._samples[-1]
        if now <= then:
            then, before = self.started, 0
        return (delivered - before) / (now - then) if now > then else 0.0

    def figures(self) -> Figures:
        """As of the last sample."""
        now, delivered = self._samples[-1]
        speed = self._speed(now)
        eta = None
        if self.total is not None and speed > 0:
            eta = max(self.total - delivered, 0) / self._steady
            eta = eta if eta < LONGEST else None
        return Figures(
            delivered=delivered,
            total=self.total,
            speed=speed,
            eta=eta,
            elapsed=max(now - self.started, 0.0),
        )
