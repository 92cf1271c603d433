"""
Measures what it costs to be watched.

One hoody runs throughout. In each round every work is done once for every audience, one
soon after the other and in an order of its own; where a target is a ratio, then of two
runs of one round, and of these the median. So what else the machine does falls on all
alike. The spectators are one process, whose CPU is told, too: it shares the cores.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from bench import report
from bench.rivals import Server, hoody_with, missing, versions
from bench.table import Plan
from bench.targets import Run
from bench.watching import QUICK, SETTINGS, TARGETS, WORKS, Scale, Work
from bench.wire import Wrong
from bench.works import GIB, Figures
from hoody.units import size

_PLAN = Plan(
    who="watched by",
    order={name: work.audiences for name, work in WORKS.items()},
    targets=TARGETS,
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="script/bench progress",
        description=__doc__,
        epilog="works: "
        + "; ".join(f"{name}: {work.doc}" for name, work in WORKS.items())
        + ". The exit status is 1 if a run was none; whether targets are met is for the reader.",
    )
    parser.add_argument("--pairs", type=int, default=9, metavar="N", help="rounds (default: 9)")
    parser.add_argument(
        "--size", type=size, default=4 * GIB, help="of a large stream (default: 4G)"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=WORKS,
        metavar="WORK",
        help="may be given more than once",
    )
    parser.add_argument(
        "--watched-by",
        action="append",
        choices=sorted({name for work in WORKS.values() for name in work.audiences}),
        metavar="AUDIENCE",
        help="leave the other audiences out; may be given more than once",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    parser.add_argument(
        "--quick", action="store_true", help="one small round, few spectators: does it work?"
    )
    return parser.parse_args()


def _measure(
    works: Mapping[str, Work], audiences: Collection[str], rounds: int, scale: Scale
) -> Iterator[Run]:
    """Each run as it is done. A first round, a small one, only warms all up."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)  # the Postgres of each hoody is run by another user
        server = stack.enter_context(hoody_with(SETTINGS, folder))
        for number in range(rounds + 1):
            for name, work in works.items():
                wanted = [name for name in work.audiences if name in audiences]
                for audience in random.sample(wanted, len(wanted)):
                    run = _run(number, name, audience, server, scale if number else QUICK, folder)
                    if number:
                        yield run


def _run(number: int, work: str, audience: str, server: Server, scale: Scale, folder: Path) -> Run:
    figures: Figures = {}
    error = None
    try:
        figures = WORKS[work].done(server, audience, scale, folder)
    except (Wrong, OSError) as failed:
        error = f"{type(failed).__name__}: {failed}"
    return Run(round=number, work=work, server=audience, figures=figures, error=error)


def main() -> int:
    """Measure. @return: the exit status: whether every run was one."""
    given = _arguments()
    if absent := missing(rivals=False):
        print(f"{', '.join(absent)}: not here; script/bench installs them", file=sys.stderr)
        return 2
    report.prepare()
    works = {name: WORKS[name] for name in given.only or WORKS}
    rounds, scale = (1, QUICK) if given.quick else (given.pairs, Scale(size=given.size))
    for name, audience in scale.audiences.items():
        print(f"{name}: {audience.text}")
    runs = []
    for run in _measure(works, given.watched_by or scale.audiences, rounds, scale):
        report.tell(run)
        runs.append(run)
    return report.finish("progress", _PLAN, runs, versions(rivals=False), given.json)


if __name__ == "__main__":
    sys.exit(main())
