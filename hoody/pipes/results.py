"""How the last transfer of a path ended, for those who come late."""

from __future__ import annotations

from collections import OrderedDict

from attrs import define, field, frozen

from hoody.pipes.progress import Standing, State

MOST = 10_000


@frozen(kw_only=True)
class Result:
    """
    @ivar delivered: bytes that the slowest receiver was given.
    @ivar total: bytes there should have been; C{None} where nobody knew.
    @ivar receivers: how many there were to be.
    @ivar digest: C{"sha256:..."}, where one was asked for and it went well.
    @ivar error: why it failed, or C{None}.
    @ivar started: and C{ended}, seconds since the epoch, to the millisecond.
    """

    path: str
    delivered: int
    total: int | None
    receivers: int
    digest: str | None
    error: str | None
    started: float
    ended: float

    @property
    def identity(self) -> int:
        """Which it is, of all of its path."""
        return round(self.ended * 1000)

    @property
    def standing(self) -> Standing:
        """What it leaves a path in."""
        state = State.COMPLETE if self.error is None else State.FAILED
        return Standing(state, wanted=self.receivers)


@define(eq=False)
class Kept:
    """
    The newest results in memory: for as long as the database is away, too.

    @ivar seconds: how old one may become.
    """

    seconds: float
    _results: OrderedDict[str, Result] = field(factory=OrderedDict, init=False)
    _presumed: dict[str, Result] = field(factory=dict, init=False)

    def add(self, result: Result) -> None:
        self._results.pop(result.path, None)
        self._results[result.path] = result
        if len(self._results) > MOST:
            self._results.popitem(last=False)

    def get(self, path: str, now: float) -> Result | None:
        result = self._results.get(path)
        return result if result is not None and self.is_fresh(result, now) else None

    def is_fresh(self, result: Result, now: float) -> bool:
        return result.ended > now - self.seconds

    def forget(self, path: str) -> None:
        self._results.pop(path, None)
        self._presumed.pop(path, None)

    def presume(self, result: Result) -> None:
        """This is how it ended, unless a later one is known elsewhere."""
        self._presumed[result.path] = result

    def presumed(self, path: str) -> Result | None:
        """What was L{presume}d."""
        return self._presumed.get(path)
