"""
Measures how soon a container answers that did not exist before, and whether a server that
has made and deleted many of them is as it was.

A round makes one of each image, one after the other, and deletes it; the clock runs from
the request that makes it to the first answer through the gateway. Containers are made in a
file system of their own, which goes with the measurement. Only for root.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bench import report
from bench.house import House, open_house
from bench.processes import resident
from bench.rivals import versions
from bench.table import Plan
from bench.targets import Quantity, Run, Target
from bench.works import Figures
from hoody.containers import machine
from hoody.containers.cgroups import Hierarchies

BUSYBOX, DEBIAN = "busybox", "debian"
IMAGES = (BUSYBOX, DEBIAN)
COMMANDS: Mapping[str, list[str]] = {
    BUSYBOX: ["httpd", "-f", "-p", "8080", "-h", "/var/www"],
    # What a minimal Debian has that can answer: perl, and that is slower to start than most.
    DEBIAN: [
        *("perl", "-MIO::Socket::INET", "-e"),
        "my $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 9, ReuseAddr => 1);"
        ' while (my $c = $s->accept) { print $c "HTTP/1.0 200 OK\\r\\n\\r\\nhi"; close $c }',
    ],
}
ROUNDS = 200
"""After so many the last tenth is held against the first."""


def _create(image: str, figure: str, relation: str, bound: float | None) -> Target:
    return Target(Quantity("create", image, figure), None, relation, bound)


TARGETS = (
    _create(BUSYBOX, "answer_ms", "<=", 400),
    _create(DEBIAN, "answer_ms", "<=", 400),
    _create(BUSYBOX, "delete_ms", "<=", None),
)
_PLAN = Plan(who="image", order={"create": IMAGES}, targets=TARGETS)


def _run(number: int, image: str, house: House) -> Run:
    figures: Figures = {}
    error = None
    try:
        figures = _create_one(number, image, house)
    except (OSError, http.client.HTTPException) as failed:
        error = f"{type(failed).__name__}: {failed}"
    return Run(round=number, work="create", server=image, figures=figures, error=error)


def _create_one(number: int, image: str, house: House) -> Figures:
    name = f"{image}-{number}"
    began = time.perf_counter()
    house.create(name, container_image=image, command=COMMANDS[image])
    made = time.perf_counter()
    if not house.answers(name):
        raise OSError(f"{name} does not answer")
    answered = time.perf_counter()
    house.ask("DELETE", f"/containers/{name}")
    deleted = time.perf_counter()
    return {
        "create_ms": (made - began) * 1000,
        "answer_ms": (answered - began) * 1000,
        "delete_ms": (deleted - answered) * 1000,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/bench containers", description=__doc__)
    parser.add_argument(
        "--pairs", type=int, default=ROUNDS, metavar="N", help=f"rounds (default: {ROUNDS})"
    )
    parser.add_argument("--only", choices=IMAGES, help="one image alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    parser.add_argument("--quick", action="store_true", help="two rounds: does it work?")
    return parser.parse_args()


def _tell_the_ends(runs: list[Run], before: int, house: House) -> None:
    """Whether it slowed down, and what is left."""
    for image in IMAGES:
        took = [run.figures["answer_ms"] for run in runs if run.server == image and not run.error]
        part = len(took) // 10
        if part >= 3:
            first, last = sorted(took[:part])[part // 2], sorted(took[-part:])[part // 2]
            print(
                f"{image}: the first {part} took {first:.0f} ms, the last {part} {last:.0f} ms"
                f" (median), {last / first:.2f} of it"
            )
    grown = (resident(house.pid) - before) / 2**20
    print(f"left of {len(runs)} containers: {house.left} things; memory grew by {grown:.1f} MiB")


def main() -> int:
    """Measure. @return: the exit status: whether every run was one, and nothing is left."""
    given = _arguments()
    lack = machine.lack("auto", True, Hierarchies.read())
    if lack is not None:
        print(f"no containers here: {lack}", file=sys.stderr)
        return 2
    report.prepare()
    images = [given.only] if given.only else list(IMAGES)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder, open_house(Path(folder)) as house:
        if DEBIAN in images:
            house.ask("POST", "/images", {"name": DEBIAN, "source": DEBIAN})
        for image in images:
            _create_one(0, image, house)
        before = resident(house.pid)
        for number in range(1, 1 + (2 if given.quick else given.pairs)):
            for image in images:
                runs.append(_run(number, image, house))
                report.tell(runs[-1])
        _tell_the_ends(runs, before, house)
        left = house.left
    status = report.finish("containers", _PLAN, runs, versions(rivals=False), given.json)
    return status or int(left > 0)


if __name__ == "__main__":
    sys.exit(main())
