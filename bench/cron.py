"""
Measures cron: how soon a server with 10,000 entries is there, what becomes of 1,000 that are due
at once, and of those who ask for something else then, and how late one alone begins.

Beside it, in the same rounds, Debian's own cron does the same, in a mount namespace with nothing
of the machine's crontabs in it. Only for root.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from bench import crond, report
from bench.firing import QUICK, TARGETS, WORKS, Place, Scale, measured
from bench.rivals import versions
from bench.table import Plan
from bench.targets import Run

_PLAN = Plan(who="of", order={name: work.servers for name, work in WORKS.items()}, targets=TARGETS)


def missing() -> list[str]:
    """Programs that a run needs and that are not here; C{script/bench} installs them."""
    return [name for name in (crond.CRON, "unshare") if shutil.which(name) is None]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="script/bench cron",
        description=__doc__,
        epilog="works: " + "; ".join(f"{name}: {work.doc}" for name, work in WORKS.items()),
    )
    usual = Scale()
    for name, text in (
        ("rounds", "rounds"),
        ("entries", "entries that the server has"),
        ("due", "of them that are due at once"),
        ("alone", "that are due one after the other"),
    ):
        default = getattr(usual, name)
        parser.add_argument(
            f"--{name}",
            type=int,
            default=default,
            metavar="N",
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
    if os.geteuid() != 0:
        print("only root may start cron", file=sys.stderr)
        return 2
    if absent := missing():
        print(f"missing: {', '.join(absent)}", file=sys.stderr)
        return 2
    report.prepare()
    scale = QUICK
    if not given.quick:
        scale = Scale(rounds=given.rounds, entries=given.entries, due=given.due, alone=given.alone)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        for run in measured(given.only or list(WORKS), Place.made(Path(folder), scale)):
            report.tell(run)
            runs.append(run)
    found = {**versions(rivals=False), "cron": crond.version()}
    return report.finish("cron", _PLAN, runs, found, given.json)


if __name__ == "__main__":
    sys.exit(main())
