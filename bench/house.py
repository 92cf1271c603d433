"""A server with containers, in a file system of its own, of which nothing is left afterwards."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define

from bench.rivals import hoody_with
from hoody.containers.cgroups import Cgroup, Hierarchies
from hoody.containers.storage import STATE

_LATE = 30.0
_CGROUPS = Path("/sys/fs/cgroup")


@define(eq=False)
class House:
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

    def upload(self, name: str, archive: Path) -> None:
        """Make an image of a tarball."""
        url = f"http://127.0.0.1:{self.port}/api/v1/images?name={name}"
        run_well(
            *("curl", "-sS", "--fail-with-body", "-X", "POST", "-T", str(archive), url),
            *("-H", f"Authorization: Bearer {self.token}"),
        )

    def create(self, name: str, project: str = "default", **fields: object) -> dict[str, Any]:
        body = {"name": name, "egress": "none", **fields}
        made: dict[str, Any] = self.ask("POST", f"/projects/{project}/containers", body)
        return made

    def run(self, name: str, command: str) -> int:
        """
        A command inside, through the shell; what it says is not looked at.

        @return: its exit status.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(
            "POST",
            f"/api/v1/containers/{name}/exec",
            json.dumps({"command": command}),
            {"Authorization": f"Bearer {self.token}"},
        )
        last = connection.getresponse().read().splitlines()[-1]
        return int(json.loads(last).get("exit_code", -1))

    def run_well(self, name: str, command: str) -> None:
        """@raise OSError: if it fails."""
        if self.run(name, command) != 0:
            raise OSError(f"in {name} this failed: {command}")

    def row(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/containers/{name}")
        return found

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Of all containers."""
        found: list[dict[str, Any]] = []
        while True:
            page = f"/containers?limit=100&page={1 + len(found) // 100}"
            some = self.ask("GET", page)["containers"]
            found += some
            if len(some) < 100:
                return found

    def until(self, names: Sequence[str], status: str, seconds: float = _LATE) -> None:
        """Return when all of these are so."""
        late = time.monotonic() + seconds
        left = set(names)
        while left:
            left -= {row["name"] for row in self.rows if row["status"] == status}
            if left and time.monotonic() > late:
                raise OSError(f"{len(left)} are not {status}, {min(left)} for one")
            time.sleep(0.1 if left else 0)

    def answers(self, name: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        host = f"{name}.containers.hoody.localhost"
        connection.request("GET", "/", headers={"Host": host})
        return connection.getresponse().status == 200

    def image_path(self, name: str) -> Path:
        """Its root file system."""
        image = self.ask("GET", f"/images/{name}")["id"]
        return next(self.pool.glob(f"hoody-*/images/{image}"))

    def state(self, row: dict[str, Any]) -> Path:
        """Where the subvolumes are that a container writes to."""
        folder = self.pool / f"hoody-{self.server_id}" / "containers" / str(row["id"])
        return folder / STATE

    @property
    def server_id(self) -> str:
        return next(self.pool.glob("hoody-*")).name.removeprefix("hoody-")

    @property
    def disk(self) -> int:
        """Bytes that are taken of it, with all that the file system needs for them."""
        run_well("btrfs", "filesystem", "sync", str(self.pool))
        found = os.statvfs(self.pool)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def cgroup(self, row: dict[str, Any]) -> Cgroup:
        return Cgroup(Hierarchies.read(), f"/hoody/{self.server_id}/{row['id']}")

    @property
    def left(self) -> int:
        """Containers' folders, mounts and control groups."""
        tag = self.server_id
        mounts = Path("/proc/self/mounts").read_text().count(tag)
        groups = _CGROUPS.glob(f"*/hoody/{tag}/*/")
        folders = (self.pool / f"hoody-{tag}" / "containers").iterdir()
        return len(list(folders)) + mounts + len(list(groups))


@contextmanager
def open_house(folder: Path, *settings: str) -> Iterator[House]:
    """@param settings: of the server, as its command line has them."""
    folder.chmod(0o711)  # Postgres is to pass through, as a user of its own
    with _pool(folder) as pool:
        given = ["--containers=auto", f"--storage={pool}", "--database=", *settings]
        try:
            with hoody_with(given, folder) as server:
                token = next(folder.glob("data*/root-token")).read_text().strip()
                found = House(server.port, server.pid, token, pool)
                _has_busybox(found)
                try:
                    yield found
                finally:
                    for each in found.rows:
                        found.ask("DELETE", f"/containers/{each['id']}")
        finally:
            for tag in pool.glob("hoody-*"):
                _end(tag.name.removeprefix("hoody-"))


def _has_busybox(found: House) -> None:
    late = time.monotonic() + _LATE
    while not any(each["status"] == "ready" for each in found.ask("GET", "/images")["images"]):
        if time.monotonic() > late:
            raise OSError("the server has no busybox")
        time.sleep(0.1)


@contextmanager
def _pool(folder: Path) -> Iterator[Path]:
    image, mount = folder / "pool.img", folder / "pool"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 30)
    run_well("mkfs.btrfs", "-q", str(image))
    run_well("mount", "-o", "loop,compress=zstd:1,noatime", str(image), str(mount))
    try:
        yield mount
    finally:
        insist(lambda: run_well("umount", str(mount)))
        image.unlink()


def _end(tag: str) -> None:
    """What a server has left that did not come to deleting it: its containers would go on."""
    late = time.monotonic() + _LATE
    while groups := [path for path in _CGROUPS.glob(f"*/hoody/{tag}/**/") if path.is_dir()]:
        if time.monotonic() > late:
            raise OSError(f"{groups[0]} stays")
        for path in reversed(groups):
            with contextlib.suppress(OSError):
                for pid in (path / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            with contextlib.suppress(OSError):
                (path / "freezer.state").write_text("THAWED")
            with contextlib.suppress(OSError):
                path.rmdir()
        time.sleep(0.02)


def insist(work: Callable[[], object]) -> None:
    """Do what must be done, though it may have to be tried again."""
    late = time.monotonic() + _LATE
    while True:
        try:
            work()
            return
        except (OSError, subprocess.CalledProcessError):
            if time.monotonic() > late:
                raise
            time.sleep(0.1)


def run_well(*words: str) -> str:
    """What it says."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
