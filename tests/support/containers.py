"""Containers in tests: one file system for all, and nothing of them left behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hoody.containers import machine
from hoody.containers.cgroups import Hierarchies
from tests.support.api import Answer, Api, api, database_option
from tests.support.postgres import Postgres
from tests.support.server import Server


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A btrfs in a file, mounted for as long as the tests run."""
    lack = machine.lack("auto", False, Hierarchies.read())
    if lack is not None:
        pytest.skip(f"containers: {lack}")
    folder = tmp_path_factory.mktemp("pool")
    image, mount = folder / "image", folder / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(4 << 30)
    run("mkfs.btrfs", "-q", str(image))
    run("mount", "-o", "loop,compress=zstd:1,noatime", str(image), str(mount))
    run("btrfs", "quota", "enable", str(mount))
    try:
        yield mount
    finally:
        run("umount", str(mount))
        image.unlink()


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def _own_block() -> str:
    """
    A part of the usual network that no other tests have just now. What somebody runs on this
    machine has the beginning of it.
    """
    for third in range(16, 256, 16):
        # Open, and so locked, as long as we live.
        lock = os.open(f"/tmp/hoody-test-block-{third}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
        else:
            return f"198.19.{third}.0/20"
    raise AssertionError("too many tests at once")


BLOCK = f"--container-network={_own_block()}"


class House:
    """
    A server that has containers, and may be killed and started again.

    @ivar dsn: of its database.
    """

    def __init__(self, folder: Path, pool: Path, cluster: Postgres, *options: str) -> None:
        self.data_dir = folder
        database = database_option(cluster)
        self.dsn = database.partition("=")[2]
        self.options = (
            f"--storage={pool}",
            "--containers=auto",
            "--stop-grace=1s",
            BLOCK,
            database,
            *options,
        )
        self.pool = pool
        self.server = self.start()

    def start(self, *options: str) -> Server:
        self.server = Server(self.data_dir, *self.options, *options)
        late = time.monotonic() + 30
        try:
            while self.part["status"] == "starting" or not self._has_busybox:
                assert time.monotonic() < late, self.part
                time.sleep(0.05)
        except BaseException:
            self.server.stop()
            raise
        return self.server

    @property
    def part(self) -> dict[str, Any]:
        said = subprocess.run(
            ["curl", "-sS", f"{self.server.url}/health"], capture_output=True, check=True
        ).stdout
        part: dict[str, Any] = json.loads(said)["parts"]["containers"]
        return part

    @property
    def _has_busybox(self) -> bool:
        answer = self.api.get("/images/busybox")
        return answer.status == 200 and answer.data["status"] == "ready"

    @property
    def api(self) -> Api:
        return api(self.server)

    @property
    def server_id(self) -> str:
        return (self.data_dir / "server-id").read_text().strip()

    def kill(self) -> None:
        """As a power failure of this process alone."""
        self.server.process.send_signal(signal.SIGKILL)
        self.server.process.wait()

    def create(self, name: str, **fields: object) -> dict[str, Any]:
        answer = self.api("POST", "/projects/default/containers", {"name": name, **fields})
        assert answer.status == 201, answer.body
        data: dict[str, Any] = answer.data
        return data

    def operate(self, name: str, operation: str) -> Answer:
        return self.api("POST", f"/containers/{name}/{operation}")

    def row(self, name: str) -> dict[str, Any]:
        data: dict[str, Any] = self.api.get(f"/containers/{name}").data
        return data

    def until(self, name: str, **wanted: object) -> dict[str, Any]:
        """The row, as soon as it is so."""
        late = time.monotonic() + 15
        while any((now := self.row(name))[key] != value for key, value in wanted.items()):
            assert time.monotonic() < late, now
            time.sleep(0.05)
        return now

    def run(self, name: str, command: str | list[str], **more: object) -> tuple[int, str]:
        """What a command in it ended with, and said."""
        answer = self.api("POST", f"/containers/{name}/exec", {"command": command, **more})
        assert answer.status == 200, answer.body
        lines = [json.loads(line) for line in answer.body.splitlines()]
        return lines[-1]["exit_code"], "".join(line["data"] for line in lines[:-1])

    def get(self, label: str, path: str = "/", *more: str) -> tuple[int, bytes]:
        """What answers to a container's host name."""
        url = f"http://{label}.containers.hoody.localhost:{self.server.port}{path}"
        done = subprocess.run(
            ["curl", "-sS", "-m", "20", "-w", "%{http_code}", *more, url],
            capture_output=True,
            check=True,
        )
        return int(done.stdout[-3:]), done.stdout[:-3]

    def delete(self, name: str) -> None:
        """As soon as nothing else is being done to it."""
        late = time.monotonic() + 15
        while (answer := self.api("DELETE", f"/containers/{name}")).status == 409:
            assert time.monotonic() < late, answer.body
            time.sleep(0.1)
        assert answer.status == 200, answer.body

    @property
    def names(self) -> list[str]:
        return [each["name"] for each in self.api.get("/containers?limit=100").data["containers"]]

    def pids(self, container_id: str) -> list[int]:
        """Of all that runs in it, as the host sees it."""
        found = []
        root = Path("/sys/fs/cgroup")
        for hierarchy in (root, *root.iterdir()):
            procs = hierarchy / "hoody" / self.server_id / container_id / "cgroup.procs"
            with contextlib.suppress(OSError):  # it may go just now
                found += [int(line) for line in procs.read_text().split()]
        return sorted(set(found))

    @property
    def left(self) -> dict[str, list[str]]:
        """All that there is of containers on this machine that is this server's."""
        tag = self.server_id
        state = Path("/run/hoody") / tag
        return {
            "subvolumes": [
                str(path)
                for path in (self.pool / f"hoody-{tag}" / "containers").glob("*")
                if path.name != ".probe"
            ],
            "bundles": [str(path) for path in (state / "bundles").glob("*")],
            "runtime": [str(path) for path in (state / "runtime").glob("*")],
            "cgroups": [
                str(path)
                for path in Path("/sys/fs/cgroup").glob(f"*/hoody/{tag}")
                if path.is_dir()
            ],
            "mounts": [
                line
                for line in Path("/proc/self/mounts").read_text().splitlines()
                if tag in line or "overlay" in line.split()[0]
            ],
        }

    def close(self) -> None:
        """Leave nothing, whatever the test has left."""
        died = self.server.process.poll()
        with contextlib.suppress(Exception):
            for name in self.names:
                self.api("DELETE", f"/containers/{name}?force=true")
        self.server.stop()
        for path in Path("/sys/fs/cgroup").glob(f"*/hoody/{self.server_id}/*"):
            if path.is_dir():
                for pid in (path / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.1)
        for folder in sorted(Path("/sys/fs/cgroup").glob(f"*/hoody/{self.server_id}/**/"))[::-1]:
            with contextlib.suppress(OSError):
                folder.rmdir()
        base = self.pool / f"hoody-{self.server_id}"
        for subvolume in [*base.glob("containers/*/*/"), *base.glob("images/*/")]:
            subprocess.run(
                ["btrfs", "subvolume", "delete", str(subvolume)], capture_output=True, check=False
            )
        shutil.rmtree(base, ignore_errors=True)
        shutil.rmtree(Path("/run/hoody") / self.server_id, ignore_errors=True)
        assert died is None, (
            f"the server had ended with {died}: {[e['message'] for e in self.server.events[-9:]]}"
        )
