"""The runs as medians: a table to read, and JSON to keep."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
from attrs import frozen

from bench.targets import Quantity, Run, Target

_MET = {True: "met", False: "MISSED", None: "not judged"}


@frozen(kw_only=True)
class Plan:
    """
    What was to be measured, in the order in which it is shown.

    @ivar who: what the runs of a round differ in, as a heading.
    @ivar order: the works, and who does each.
    """

    who: str
    order: Mapping[str, Sequence[str]]
    targets: Sequence[Target]


@frozen(kw_only=True)
class Spread:
    """What several runs of one thing gave; C{lower} and C{upper} are the quartiles."""

    median: float
    least: float
    lower: float
    upper: float
    most: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """@param values: one at least."""
        lower, _, upper = (
            statistics.quantiles(values, n=4, method="inclusive")
            if len(values) > 1
            else [values[0]] * 3
        )
        return cls(
            median=statistics.median(values),
            least=min(values),
            lower=lower,
            upper=upper,
            most=max(values),
            runs=len(values),
        )

    @property
    def cells(self) -> list[str]:
        """Median, range and quartiles, as the table has them."""
        return [
            _short(self.median),
            f"{_short(self.least)}..{_short(self.most)}",
            f"{_short(self.lower)}..{_short(self.upper)}",
        ]


def _spreads(plan: Plan, runs: Sequence[Run]) -> list[tuple[Quantity, Spread]]:
    """Of all that was measured."""
    return [
        (quantity, Spread.of(list(quantity.by_round(runs).values())))
        for quantity in _quantities(plan, runs)
    ]


def _quantities(plan: Plan, runs: Sequence[Run]) -> Iterator[Quantity]:
    for work, servers in plan.order.items():
        for server in servers:
            mine = [run.figures for run in runs if (run.work, run.server) == (work, server)]
            for figure in dict.fromkeys(figure for figures in mine for figure in figures):
                yield Quantity(work, server, figure)


def _asked(plan: Plan, runs: Sequence[Run]) -> list[Target]:
    """Of the works that were done."""
    done = {run.work for run in runs}
    return [target for target in plan.targets if target.of.work in done]


def as_text(plan: Plan, runs: Sequence[Run]) -> str:
    """Two tables: all figures, and the targets with the medians of their paired ratios."""
    figures = [["work", plan.who, "figure", "median", "range", "quartiles", "runs"]]
    for quantity, spread in _spreads(plan, runs):
        figures.append([*attrs.astuple(quantity), *spread.cells, str(spread.runs)])
    targets = [["target", "median", "range", "quartiles", "wanted", ""]]
    for target in _asked(plan, runs):
        values = target.values(runs)
        cells = Spread.of(values).cells if values else ["-"] * 3
        targets.append([target.text, *cells, target.wanted, _MET[target.met(runs)]])
    errors = [f"round {run.round}, {run.work}, {run.server}: {run.error}" for run in _failed(runs)]
    return "\n".join([*_aligned(figures), "", *_aligned(targets), *([""] * bool(errors)), *errors])


def as_json(plan: Plan, runs: Sequence[Run]) -> dict[str, Any]:
    """The same, and every run."""
    return {
        "figures": [
            {**attrs.asdict(quantity), **attrs.asdict(spread)}
            for quantity, spread in _spreads(plan, runs)
        ],
        "targets": [
            {
                "target": target.text,
                "wanted": target.wanted,
                "met": target.met(runs),
                "values": target.values(runs),
                **(attrs.asdict(Spread.of(values)) if (values := target.values(runs)) else {}),
            }
            for target in _asked(plan, runs)
        ],
        "errors": len(_failed(runs)),
        "runs": [attrs.asdict(run) for run in runs],
    }


def _failed(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.error is not None]


def _short(number: float) -> str:
    """Three digits, or all that stand before the point."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
