"""
Measures the gateway beside HAProxy in HTTP mode, before one and the same server.

All run throughout, on loopback. In each round every one does every work once, one soon
after the other and in an order of its own; a target is a ratio, or a difference, of two runs
of one round, and of these the median. C{direct} is the server behind them alone.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from bench import report
from bench.gates import NAMES, Gate, missing, serving, versions
from bench.passing import QUICK, TARGETS, WORKS, Scale, Work
from bench.table import Plan
from bench.targets import Run
from bench.wire import Wrong
from bench.works import GIB, Figures
from hoody.units import size

_PLAN = Plan(who="through", order=dict.fromkeys(WORKS, NAMES), targets=TARGETS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="script/bench gateway",
        description=__doc__,
        epilog="works: "
        + "; ".join(f"{name}: {work.doc}" for name, work in WORKS.items())
        + ". The exit status is 1 if a run was none; whether targets are met is for the reader.",
    )
    parser.add_argument("--pairs", type=int, default=9, metavar="N", help="rounds (default: 9)")
    parser.add_argument(
        "--size", type=size, default=GIB, help="of a large answer or upload (default: 1G)"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=WORKS,
        metavar="WORK",
        help="may be given more than once",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    parser.add_argument("--quick", action="store_true", help="one small round: does it work?")
    return parser.parse_args()


def _measure(works: Mapping[str, Work], rounds: int, scale: Scale) -> Iterator[Run]:
    """Each run as it is done. A first round, a small one, only warms all up."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gates = stack.enter_context(serving(folder))
        for number in range(rounds + 1):
            for name in works:
                for gate in random.sample(gates, len(gates)):
                    run = _run(number, name, gate, scale if number else QUICK, folder)
                    if number:
                        yield run


def _run(number: int, work: str, gate: Gate, scale: Scale, folder: Path) -> Run:
    figures: Figures = {}
    error = None
    try:
        figures = WORKS[work].measure(gate, scale, folder)
    except (Wrong, OSError) as failed:
        error = f"{type(failed).__name__}: {failed}"
    return Run(round=number, work=work, server=gate.name, figures=figures, error=error)


def main() -> int:
    """Measure. @return: the exit status: whether every run was one."""
    given = _arguments()
    if absent := missing():
        print(
            f"{', '.join(absent)}: not here; script/bench gateway installs them", file=sys.stderr
        )
        return 2
    report.prepare()
    works = {name: WORKS[name] for name in given.only or WORKS}
    rounds, scale = (1, QUICK) if given.quick else (given.pairs, Scale(size=given.size))
    runs = []
    for run in _measure(works, rounds, scale):
        report.tell(run)
        runs.append(run)
    return report.finish("gateway", _PLAN, runs, versions(), given.json)


if __name__ == "__main__":
    sys.exit(main())
