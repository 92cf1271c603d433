"""
Measures containers that sleep: how soon one answers again, and what it takes until then.

Beside them, in the same rounds, what is done otherwise: a server that is left running, one that is
started by socket activation, one by C{runc run}. Containers are made in a file system of their
own, swap is a zram of its own; both go with the measurement, and KSM is as it was. Only for root.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import report
from bench.house import run_well
from bench.rivals import versions
from bench.sleepers import QUICK, TARGETS, WORKS, Scale, measured
from bench.table import Plan
from hoody.containers import machine
from hoody.containers.cgroups import Hierarchies

_PLAN = Plan(who="of", order={name: work.servers for name, work in WORKS.items()}, targets=TARGETS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="script/bench idle",
        description=__doc__,
        epilog="works: " + "; ".join(f"{name}: {work.doc}" for name, work in WORKS.items()),
    )
    usual = Scale()
    for name, letter, text in (
        ("rounds", "N", "rounds"),
        ("wakes", "N", "first requests in a round"),
        ("containers", "N", "that sleep all at once"),
    ):
        default = getattr(usual, name)
        parser.add_argument(
            f"--{name}",
            type=int,
            default=default,
            metavar=letter,
            help=f"{text} (default: {default})",
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


def main() -> int:
    """Measure. @return: the exit status: whether every run was one."""
    given = _arguments()
    lack = machine.lack("auto", True, Hierarchies.read())
    if lack is not None:
        print(f"no containers here: {lack}", file=sys.stderr)
        return 2
    report.prepare()
    scale = QUICK
    if not given.quick:
        scale = Scale(rounds=given.rounds, wakes=given.wakes, containers=given.containers)
    runs = []
    for run in measured(given.only or list(WORKS), scale):
        report.tell(run)
        runs.append(run)
    found = {**versions(rivals=False), "runc": run_well("runc", "--version").split()[2]}
    return report.finish("idle", _PLAN, runs, found, given.json)


if __name__ == "__main__":
    sys.exit(main())
