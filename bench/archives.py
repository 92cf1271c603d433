"""Who keeps what a container has: hoody's snapshots, and what people use otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from attrs import define, field

from bench.house import House, run_well
from bench.wire import Wrong

HOODY, BTRFS, RESTIC = "hoody", "btrfs", "restic"
SERVERS = (HOODY, BTRFS, RESTIC)


class Archive(Protocol):
    """Of one container."""

    @property
    def disk(self) -> int:
        """Bytes that are taken where it keeps things; of a file system, by all that is in it."""
        ...

    def keep(self) -> dict[str, Any]:
        """Keep what the container has now. @return: what there is to say of it."""
        ...

    def put_back(self) -> float:
        """Have what was kept last, as far as it goes. @return: how many seconds that took."""
        ...

    def forget(self) -> None:
        """All that was kept, at the end."""
        ...


@define(eq=False)
class Snapshots:
    """By the API, with what that promises: one instant, a digest, a row, an event."""

    house: House
    row: dict[str, Any]

    @property
    def _path(self) -> str:
        return f"/containers/{self.row['id']}/snapshots"

    @property
    def disk(self) -> int:
        return self.house.disk

    def keep(self) -> dict[str, Any]:
        snapshot: dict[str, Any] = self.house.ask("POST", self._path, {})["snapshot"]
        if snapshot["digest"] is None:
            raise Wrong(f"{snapshot['name']} has no digest")
        return snapshot

    def put_back(self) -> float:
        name = self.house.ask("GET", f"{self._path}?limit=1")["snapshots"][0]["name"]
        began = time.perf_counter()
        self.restore(name)
        return time.perf_counter() - began

    def restore(self, name: str) -> None:
        self.house.ask("PATCH", f"{self._path}/{name}")

    def forget(self) -> None:
        """They go with the container."""


@define(eq=False)
class Subvolumes:
    """By C{btrfs} alone: what is in memory is written, then each subvolume is kept."""

    house: House
    row: dict[str, Any]
    folder: Path
    _number: int = field(default=0, init=False)

    @property
    def disk(self) -> int:
        return self.house.disk

    def keep(self) -> dict[str, Any]:
        run_well("btrfs", "filesystem", "sync", str(self.house.pool))
        self._number += 1
        into = self.folder / str(self._number)
        into.mkdir()
        for each in sorted(self.house.state(self.row).glob("[rv]o*")):
            run_well("btrfs", "subvolume", "snapshot", "-r", str(each), str(into / each.name))
        return {}

    def put_back(self) -> float:
        into = self.folder / "back"
        into.mkdir()
        began = time.perf_counter()
        for each in sorted((self.folder / str(self._number)).iterdir()):
            run_well("btrfs", "subvolume", "snapshot", str(each), str(into / each.name))
        seconds = time.perf_counter() - began
        self._remove(into)
        return seconds

    def forget(self) -> None:
        for each in self.folder.iterdir():
            self._remove(each)

    def _remove(self, folder: Path) -> None:
        for each in folder.iterdir():
            run_well("btrfs", "subvolume", "delete", str(each))
        folder.rmdir()


@define(eq=False)
class Backups:
    """By C{restic}, into a repository on the same disk, in another file system."""

    house: House
    row: dict[str, Any]
    folder: Path

    def __attrs_post_init__(self) -> None:
        empty = self.folder.with_name("restic-empty")
        if not empty.exists():
            self._restic("init")
            self._repository.rename(empty)  # it takes two seconds
        shutil.copytree(empty, self._repository)

    @property
    def _repository(self) -> Path:
        return self.folder / "repository"

    @property
    def disk(self) -> int:
        os.sync()
        files = [path.stat() for path in self._repository.rglob("*")]
        return sum(file.st_blocks * 512 for file in files)

    def keep(self) -> dict[str, Any]:
        self._restic("backup", str(self.house.state(self.row)))
        return {}

    def put_back(self) -> float:
        into = self.house.pool / "back"
        began = time.perf_counter()
        self._restic("restore", "latest", "--target", str(into))
        run_well("btrfs", "filesystem", "sync", str(self.house.pool))
        seconds = time.perf_counter() - began
        shutil.rmtree(into)
        return seconds

    def forget(self) -> None:
        shutil.rmtree(self.folder)

    def _restic(self, *words: str) -> None:
        known = {"RESTIC_PASSWORD": "none", "RESTIC_REPOSITORY": str(self._repository)}
        subprocess.run(
            ["restic", "--quiet", "--cache-dir", str(self.folder / "cache"), *words],
            env={**os.environ, **known},
            check=True,
            capture_output=True,
        )


@contextmanager
def archive(server: str, house: House, row: dict[str, Any], folder: Path) -> Iterator[Archive]:
    """One that has kept the container as it is now, and of which nothing is left."""
    makers: dict[str, Callable[[], Archive]] = {
        HOODY: lambda: Snapshots(house, row),
        BTRFS: lambda: Subvolumes(house, row, _made(house.pool / f"kept-{row['id']}")),
        RESTIC: lambda: Backups(house, row, _made(folder / f"restic-{row['id']}")),
    }
    made = makers[server]()
    try:
        made.keep()
        yield made
    finally:
        made.forget()
        shutil.rmtree(house.pool / f"kept-{row['id']}", ignore_errors=True)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
