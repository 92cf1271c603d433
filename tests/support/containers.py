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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hoody.containers import btrfs, machine
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
    with mounted(tmp_path_factory.mktemp("pool"), 4 << 30) as mount:
        btrfs.count_simply(mount)
        yield mount


@contextlib.contextmanager
def mounted(folder: Path, size: int, options: str = "noatime") -> Iterator[Path]:
    """A new btrfs of so many bytes, in a file."""
    image, mount = folder / "image", folder / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    run("mkfs.btrfs", "-q", str(image))
    run("mount", "-o", f"loop,compress=zstd:1,{options}", str(image), str(mount))
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


def another_block() -> str:
    """For a server that has containers beside those of another."""
    return f"--container-network={_own_block()}"


BLOCK = another_block()


OTHER_BOOT = (
    "UPDATE hoody.containers SET incarnation ="
    " jsonb_set(incarnation, '{{boot}}', '\"an earlier one\"')"
    " WHERE incarnation IS NOT NULL AND server_id = '{}'"
)
"""As if the rows had been written before the machine was started again."""


_PLACES = ("images/*", *(f"containers/*/{place}" for place in ("*", "state/*", "next/*")))


def _subvolumes(base: Path) -> list[Path]:
    """Of images, and of all that containers have, are about to have, and have had."""
    places = (*_PLACES, "containers/*/snapshots/*/*")
    return [path for place in places for path in base.glob(place) if btrfs.is_subvolume(path)]


class House:
    """
    A server that has containers, and may be killed and started again.

    @ivar pool: a btrfs; or, as a text, the size of one of its own.
    @ivar dsn: of its database; empty for one of its own.
    """

    def __init__(
        self,
        folder: Path,
        pool: Path | str,
        cluster: Postgres | None,
        *options: str,
        env: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.data_dir = folder
        self.env = {"HOODY_DATABASE": "", **(env or {})}
        database = "--database=" if cluster is None else database_option(cluster)
        self.dsn = database.partition("=")[2]
        self.options = (
            f"--storage={pool}",
            "--containers=auto",
            "--stop-grace=1s",
            BLOCK,
            database,
            *options,
        )
        self.prefix = prefix
        self.given = pool
        self.server = self.start()

    @property
    def pool(self) -> Path:
        assert isinstance(self.given, Path)
        return self.given

    @property
    def base(self) -> Path:
        """Where its containers and images are."""
        if isinstance(self.given, Path):
            return self.given / f"hoody-{self.server_id}"
        return self.data_dir / "storage"

    def start(self, *options: str) -> Server:
        self.server = Server(
            self.data_dir, *self.options, *options, env=self.env, prefix=self.prefix
        )
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
            place = hierarchy / "hoody" / self.server_id / container_id
            with contextlib.suppress(OSError):  # it may go just now
                for procs in place.glob("**/cgroup.procs"):
                    with contextlib.suppress(OSError):
                        found += [int(line) for line in procs.read_text().split()]
        return sorted(set(found))

    def still_runs(self, container_id: str, pids: list[int]) -> None:
        """Just these are in it, but for what ends just now, as a child does that has answered."""
        late = time.monotonic() + 5
        while (now := self.pids(container_id)) != pids:
            assert time.monotonic() < late, (now, pids)
            time.sleep(0.02)

    @property
    def left(self) -> dict[str, list[str]]:
        """All that there is of containers on this machine that is this server's."""
        tag = self.server_id
        state = Path("/run/hoody") / tag
        return {
            "subvolumes": [
                str(path) for path in (self.base / "containers").glob("*") if path.name != ".probe"
            ]
            + [str(path) for path in _subvolumes(self.base) if path.parent.name != "images"],
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
            "links": [
                path.name
                for path in Path("/sys/class/net").iterdir()
                if path.name.startswith(f"hy{tag[-8:]}-")
            ],
            "loops": [] if os.path.ismount(self.base) else self.loop_devices,
            "held": self._held,
            "children": self._children,
        }

    @property
    def _held(self) -> list[str]:
        """Namespaces and processes that the server has open."""
        found = []
        for path in Path(f"/proc/{self.server.process.pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                leads_to = os.readlink(path)
                if leads_to.startswith("net:[") or leads_to == "anon_inode:[pidfd]":
                    found.append(f"{leads_to} {path.name}")
        if not self.dsn:
            found.remove(next(each for each in found if "pidfd" in each))  # its database's
        return found

    @property
    def _children(self) -> list[str]:
        """Of the server, zombies too: its database is none."""
        found = []
        for path in Path(f"/proc/{self.server.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for pid in path.read_text().split():
                    found.append(Path(f"/proc/{pid}/stat").read_text()[:60])
        return [each for each in found if "(postgres)" not in each]

    def nothing_is_left(self, seconds: float = 5) -> None:
        """Delete all containers; then there is nothing any more, nor is there soon."""
        for name in self.names:
            self.delete(name)
        late = time.monotonic() + seconds
        while any((left := self.left).values()) and time.monotonic() < late:
            time.sleep(0.05)
        assert not any(left.values()), left

    def end_processes(self) -> None:
        """Of all its containers, with their control groups: as a reboot does."""
        for folder in sorted(Path("/sys/fs/cgroup").glob(f"*/hoody/{self.server_id}/**/"))[::-1]:
            late = time.monotonic() + 10
            while folder.exists() and time.monotonic() < late:
                with contextlib.suppress(OSError):
                    for pid in (folder / "cgroup.procs").read_text().split():
                        os.kill(int(pid), signal.SIGKILL)
                for state in folder.glob("freezer.state"):
                    with contextlib.suppress(OSError):
                        state.write_text("THAWED")
                with contextlib.suppress(OSError):
                    folder.rmdir()
                time.sleep(0.01)

    @property
    def loop_devices(self) -> list[str]:
        """Of its own storage."""
        image = self.data_dir / "storage.btrfs"
        return run("losetup", "-n", "-O", "NAME", "-j", str(image)).split()

    def reboot(self) -> None:
        """All that one takes: processes, control groups, what is in /run, and its own storage."""
        self.kill()
        self.end_processes()
        for path in Path("/sys/class/net").glob(f"hy{self.server_id[-8:]}-*"):
            run("ip", "link", "delete", path.name)
        (Path("/run/hoody") / self.server_id / "boot").write_text("another")
        run("psql", self.dsn, "-qc", OTHER_BOOT.format(self.server_id))
        if isinstance(self.given, str):
            self.take_storage()

    def take_storage(self) -> None:
        """Its own, as a reboot does."""
        if os.path.ismount(self.base):
            run("umount", str(self.base))
        for device in self.loop_devices:
            run("losetup", "-d", device)

    def close(self) -> None:
        """Leave nothing, whatever the test has left."""
        died = self.server.process.poll()
        with contextlib.suppress(Exception):
            for name in self.names:
                self.api("DELETE", f"/containers/{name}?force=true")
        self.server.stop()
        self.end_processes()
        base = self.base
        for subvolume in _subvolumes(base):
            with contextlib.suppress(OSError):
                btrfs.delete(subvolume)
        shutil.rmtree(base, ignore_errors=True)
        if isinstance(self.given, str):
            self.take_storage()
        shutil.rmtree(Path("/run/hoody") / self.server_id, ignore_errors=True)
        assert died is None, (
            f"the server had ended with {died}: {[e['message'] for e in self.server.events[-9:]]}"
        )
