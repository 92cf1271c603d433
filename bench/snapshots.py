"""
Measures snapshots: how long one takes, and stops the container for; how soon one is put back;
what it takes on disk.

Beside it, in the same rounds and after the same changes, what is used otherwise: btrfs alone,
which keeps files and knows nothing of processes, digests or names, and restic, which copies.
Containers are made in a file system of their own, which goes with the measurement. Only for
root.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from bench import report
from bench.archives import RESTIC
from bench.house import House, open_house, run_well
from bench.keeping import (
    BUSYBOX,
    DEBIAN,
    IMAGES,
    QUICK,
    TARGETS,
    WORKS,
    Place,
    Scale,
    measured,
    tell_pauses,
)
from bench.rivals import versions
from bench.table import Plan
from bench.targets import Run
from hoody.containers import machine
from hoody.containers.cgroups import Hierarchies

_PLAN = Plan(who="of", order={name: work.servers for name, work in WORKS.items()}, targets=TARGETS)


def missing() -> list[str]:
    """Programs that a run needs and that are not here; C{script/bench} installs them."""
    return [program for program in (RESTIC,) if shutil.which(program) is None]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="script/bench snapshots",
        description=__doc__,
        epilog="works: " + "; ".join(f"{name}: {work.doc}" for name, work in WORKS.items()),
    )
    usual = Scale()
    for name, text in (
        ("rounds", "rounds"),
        ("large", "large snapshots in a round"),
        ("restores", "times that one is put back in a round"),
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
        "--image", choices=IMAGES, help=f"of the containers (default: {DEBIAN}; quick: {BUSYBOX})"
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


def _versions() -> dict[str, str]:
    return {
        **versions(rivals=False),
        "runc": run_well("runc", "--version").split()[2],
        "btrfs": run_well("btrfs", "--version").split()[1].lstrip("v"),
        "restic": run_well("restic", "version").split()[1],
    }


def _prepare(house: House, image: str) -> None:
    if image == DEBIAN:
        print("making the image", file=sys.stderr)
        house.ask("POST", "/images", {"name": DEBIAN, "source": DEBIAN})


def main() -> int:
    """Measure. @return: the exit status: whether every run was one, and nothing is left."""
    given = _arguments()
    lack = machine.lack("auto", True, Hierarchies.read())
    if lack is not None:
        print(f"no containers here: {lack}", file=sys.stderr)
        return 2
    if absent := missing():
        print(f"missing: {', '.join(absent)}", file=sys.stderr)
        return 2
    report.prepare()
    scale, image = QUICK, given.image or BUSYBOX
    if not given.quick:
        scale = Scale(rounds=given.rounds, large=given.large, restores=given.restores)
        image = given.image or DEBIAN
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder, open_house(Path(folder)) as house:
        _prepare(house, image)
        place = Place(house, Path(folder), image, scale)
        for run in measured(given.only or list(WORKS), place):
            report.tell(run)
            runs.append(run)
        left = house.left
    tell_pauses(place)
    status = report.finish("snapshots", _PLAN, runs, _versions(), given.json)
    print(f"left: {left} things")
    return status or int(left > 0)


if __name__ == "__main__":
    sys.exit(main())
