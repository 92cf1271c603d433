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
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from bench import report
from bench.processes import resident
from bench.rivals import hoody_with, versions
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
_LATE = 30.0


def _create(image: str, figure: str, relation: str, bound: float | None) -> Target:
    return Target(Quantity("create", image, figure), None, relation, bound)


TARGETS = (
    _create(BUSYBOX, "answer_ms", "<=", 400),
    _create(DEBIAN, "answer_ms", "<=", 400),
    _create(BUSYBOX, "delete_ms", "<=", None),
)
_PLAN = Plan(who="image", order={"create": IMAGES}, targets=TARGETS)


@frozen
class House:
    """A server with containers."""

    port: int
    pid: int
    token: str
    pool: Path

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """@return: the envelope's data."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1800)
        connection.request(
            method,
            f"/api/v1{path}",
            None if body is None else json.dumps(body),
            {"Authorization": f"Bearer {self.token}"},
        )
        answer = connection.getresponse()
        said = json.loads(answer.read())
        if answer.status >= 300:
            raise OSError(said["message"])
        return said["data"]

    def answers(self, name: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        host = f"{name}.containers.hoody.localhost"
        connection.request("GET", "/", headers={"Host": host})
        return connection.getresponse().status == 200

    @property
    def left(self) -> int:
        """Containers' folders, mounts and control groups."""
        tag = next(self.pool.glob("hoody-*"))
        mounts = Path("/proc/self/mounts").read_text().count(tag.name.removeprefix("hoody-"))
        groups = Path("/sys/fs/cgroup").glob(f"*/hoody/{tag.name.removeprefix('hoody-')}/*/")
        return len(list((tag / "containers").iterdir())) + mounts + len(list(groups))


@contextmanager
def _pool(folder: Path) -> Iterator[Path]:
    image, mount = folder / "pool.img", folder / "pool"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 30)
    _run_well("mkfs.btrfs", "-q", str(image))
    _run_well("mount", "-o", "loop,compress=zstd:1,noatime", str(image), str(mount))
    try:
        yield mount
    finally:
        _run_well("umount", str(mount))


def _run_well(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@contextmanager
def _house(folder: Path) -> Iterator[House]:
    folder.chmod(0o711)  # Postgres is to pass through, as a user of its own
    with _pool(folder) as pool:
        settings = ["--containers=auto", f"--storage={pool}"]
        with hoody_with(settings, folder) as server:
            token = next(folder.glob("data*/root-token")).read_text().strip()
            house = House(server.port, server.pid, token, pool)
            late = time.monotonic() + _LATE
            while not any(each["status"] == "ready" for each in _images(house)):
                if time.monotonic() > late:
                    raise OSError("the server has no busybox")
                time.sleep(0.1)
            try:
                yield house
            finally:
                for each in house.ask("GET", "/containers?limit=100")["containers"]:
                    house.ask("DELETE", f"/containers/{each['id']}")


def _images(house: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = house.ask("GET", "/images")["images"]
    return found


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
    body = {
        "name": name,
        "container_image": image,
        "command": COMMANDS[image],
        "egress": "none",
    }
    began = time.perf_counter()
    house.ask("POST", "/projects/default/containers", body)
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
    with tempfile.TemporaryDirectory() as folder, _house(Path(folder)) as house:
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
