"""
Measures hoody's pipes beside others that do the like.

All servers run throughout. In each round every server does every work once, one
soon after the other and in an order of its own; a target is a ratio of two runs
of one round, and of these the median. So what else the machine does, and how
warm it is, falls on all alike.
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
from bench.rivals import Server, missing, serving, versions
from bench.table import Plan
from bench.targets import TARGETS, Run
from bench.wire import Wrong
from bench.works import GIB, QUICK, WORKS, Figures, Scale, Work
from hoody.units import size

_PLAN = Plan(
    who="server",
    order={name: work.servers for name, work in WORKS.items()},
    targets=TARGETS,
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="script/bench pipe",
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    parser.add_argument("--quick", action="store_true", help="one small round: does it work?")
    return parser.parse_args()


def _measure(works: Mapping[str, Work], rounds: int, scale: Scale) -> Iterator[Run]:
    """Each run as it is done. A first round, a small one, only warms all up."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)  # the Postgres of each hoody is run by another user
        names = dict.fromkeys(name for work in works.values() for name in work.servers)
        servers = {name: stack.enter_context(serving(name, folder)) for name in names}
        for number in range(rounds + 1):
            for name, work in works.items():
                for server in random.sample(work.servers, len(work.servers)):
                    run = _run(number, name, servers[server], scale if number else QUICK, folder)
                    if number:
                        yield run


def _run(number: int, work: str, server: Server, scale: Scale, folder: Path) -> Run:
    figures: Figures = {}
    error = None
    try:
        figures = WORKS[work].measure(server, scale, folder)
    except (Wrong, OSError) as failed:
        error = f"{type(failed).__name__}: {failed}"
    return Run(round=number, work=work, server=server.name, figures=figures, error=error)


def main() -> int:
    """Measure. @return: the exit status: whether every run was one."""
    given = _arguments()
    if absent := missing():
        print(f"{', '.join(absent)}: not here; script/bench pipe installs them", file=sys.stderr)
        return 2
    report.prepare()
    works = {name: WORKS[name] for name in given.only or WORKS}
    runs = []
    for run in _measure(
        works, 1 if given.quick else given.pairs, QUICK if given.quick else Scale(size=given.size)
    ):
        report.tell(run)
        runs.append(run)
    return report.finish("pipe", _PLAN, runs, versions(), given.json)


if __name__ == "__main__":
    sys.exit(main())
