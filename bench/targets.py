"""What the figures have to be."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from bench.rivals import HAPROXY, HOODY, PIPING, PORTABLE, SINK
from bench.works import Figures

_FEWEST = 3
_HOLDS = {"<=": operator.le, ">=": operator.ge, "=": operator.eq}


@frozen(kw_only=True)
class Run:
    """
    One server at one work, once.

    @ivar round: runs of one round were made one soon after the other, so what
        else the machine did then was much the same for all.
    @ivar error: why there are no figures.
    """

    round: int
    work: str
    server: str
    figures: Figures
    error: str | None = None


@frozen
class Quantity:
    """A figure of a server at a work."""

    work: str
    server: str
    figure: str

    def by_round(self, runs: Iterable[Run]) -> Mapping[int, float]:
        """What was measured, where something was."""
        return {
            run.round: run.figures[self.figure]
            for run in runs
            if (run.work, run.server) == (self.work, self.server) and self.figure in run.figures
        }


@frozen
class Target:
    """
    @ivar of: what is looked at.
    @ivar against: what it is divided by, of the same round; C{None}: it stands for itself.
    @ivar relation: of the median of these to the bound.
    @ivar bound: C{None}: nothing is wanted of it; it stands beside one of which it is.
    """

    of: Quantity
    against: Quantity | None
    relation: str
    bound: float | None

    @property
    def text(self) -> str:
        """What is asked, for a reader."""
        text = f"{self.of.work}: {self.of.figure} of {self.of.server}"
        if self.against is None:
            return text
        if self.against.server == self.of.server:
            return f"{text} / {self.against.figure}"
        return f"{text} / {self.against.server}"

    @property
    def wanted(self) -> str:
        """What its median has to be, for a reader."""
        return "-" if self.bound is None else f"{self.relation} {self.bound:g}"

    def values(self, runs: Sequence[Run]) -> list[float]:
        """One for each round that has all that it takes."""
        of = self.of.by_round(runs)
        if self.against is None:
            return list(of.values())
        against = self.against.by_round(runs)
        return [of[number] / against[number] for number in of if number in against]

    def met(self, runs: Sequence[Run]) -> bool | None:
        """Whether; C{None} if nothing is wanted, or too few rounds say anything of it."""
        values = self.values(runs)
        if self.bound is None or len(values) < _FEWEST:
            return None
        return bool(_HOLDS[self.relation](statistics.median(values), self.bound))


def _against(
    work: str, figure: str, server: str, rival: str, relation: str, bound: float
) -> Target:
    """One figure of two servers."""
    return Target(Quantity(work, server, figure), Quantity(work, rival, figure), relation, bound)


def _within(
    work: str, server: str, figure: str, than: str | None, relation: str, bound: float
) -> Target:
    """Two figures of one server, or one alone."""
    against = Quantity(work, server, than) if than else None
    return Target(Quantity(work, server, figure), against, relation, bound)


_SPEED, _CPU = "gb_per_s", "cpu_s_per_gib"

TARGETS = (
    _against("stream", _SPEED, HOODY, SINK, ">=", 0.85),
    _against("stream", _CPU, HOODY, PIPING, "<=", 0.40),
    _against("stream", _CPU, HOODY, HAPROXY, "<=", 1.0),
    _against("file", _SPEED, HOODY, SINK, ">=", 0.85),
    _against("file", _CPU, HOODY, PIPING, "<=", 0.35),
    _against("file", _CPU, HOODY, HAPROXY, "<=", 1.0),
    _against("stream", _SPEED, PORTABLE, PIPING, ">=", 1.0),
    _against("file", _SPEED, PORTABLE, PIPING, ">=", 1.0),
    _within("fan", HOODY, f"n16_{_CPU}", f"n1_{_CPU}", "<=", 1.15),
    _within("fan", PORTABLE, f"n16_{_CPU}", f"n1_{_CPU}", "<=", 1.15),
    _within("waiting", HOODY, "each_kib", None, "<=", 25),
    _within("waiting", HOODY, "one_more_status", None, "=", 429),
    # As fast as without them; what two runs of the same thing differ by is not theirs.
    _within("waiting", HOODY, f"beside_{_SPEED}", f"alone_{_SPEED}", ">=", 0.95),
    _against("messages", "messages_per_s", HOODY, PIPING, ">=", 0.6),
    _against("steps", "p99_us", HOODY, PIPING, "<=", 1.5),
)
