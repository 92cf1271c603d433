"""Snapshots of what containers write, through overlay mounts as theirs are, without them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hoody.containers import btrfs

PROGRAM = [sys.executable, "-m", "hoody.manifests"]

# As L{hoody.containers.launcher} does, in a mount namespace that goes with the command.
_INSIDE = """
import ctypes, os, sys
from hoody.containers import launcher
base, bundle, image, own, script = sys.argv[1:]
launcher._checked(launcher._libc.unshare(launcher.CLONE_NEWNS), "unshare")
launcher.mount("none", "/", "none", launcher.MS_REC | launcher.MS_PRIVATE)
launcher.mount("none", bundle, "tmpfs", 0)
namespace = launcher.user_namespace(int(base), 65536)
for name, source in (("lower", image), ("own", own)):
    os.mkdir(f"{bundle}/{name}")
    launcher.mount_mapped(source, f"{bundle}/{name}", namespace, read_only=name == "lower")
os.mkdir(f"{bundle}/rootfs")
launcher.mount_overlay(f"{bundle}/lower", f"{bundle}/own", f"{bundle}/rootfs", int(base))
os.chdir(f"{bundle}/rootfs")
launcher._checked(launcher._libc.setns(namespace, launcher.CLONE_NEWUSER), "setns")
os.setgroups([])
os.setresgid(0, 0, 0)
os.setresuid(0, 0, 0)
os.execvp("/bin/bash", ["bash", "-euc", script])
"""


class Disk:
    """
    A container's subvolumes, and snapshots of them, on a btrfs.

    @ivar base: the first of its range of ids on this machine.
    """

    def __init__(self, place: Path, base: int = 1_000_000) -> None:
        self.place = place
        self.base = base
        self.live = place / "live"
        for folder in (place, self.live, place / "bundle"):
            folder.mkdir()
        self.image = place / "image"
        self.cache = place / "image-manifest"
        btrfs.create(self.image)
        btrfs.create(self.live / "root")
        (self.live / "root/upper").mkdir(mode=0o755)
        (self.live / "root/work").mkdir(mode=0o700)
        btrfs.create(self.live / "volume-data")

    @property
    def data(self) -> Path:
        return self.live / "volume-data"

    def furnish(self, fill: Callable[[Path], None]) -> None:
        """Make the image."""
        fill(self.image)
        btrfs.seal(self.image)

    def run(self, script: str) -> None:
        """In the container's root, as its root."""
        words = [str(self.base), str(self.place / "bundle"), str(self.image)]
        done = subprocess.run(
            [sys.executable, "-c", _INSIDE, *words, str(self.live / "root"), script],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def snapshot(self, name: str) -> Path:
        place = self.place / name
        place.mkdir()
        for subvolume in sorted(self.live.iterdir()):
            btrfs.snapshot(subvolume, place / subvolume.name, read_only=True)
        return place

    def restore(self, name: str) -> None:
        for subvolume in sorted(self.live.iterdir()):
            btrfs.delete(subvolume)
        for subvolume in sorted((self.place / name).iterdir()):
            if subvolume.is_dir():
                btrfs.snapshot(subvolume, self.live / subvolume.name, read_only=False)

    def order(self, name: str, **more: object) -> dict[str, object]:
        place = self.place / name
        trees = {each.name: str(each) for each in place.iterdir() if each.is_dir()}
        image = {"image": str(self.image), "image_manifest": str(self.cache)}
        return {**image, "trees": trees, **more}

    def scan(self, name: str, base: str | None = None, into: str = "manifest") -> dict[str, Any]:
        known = None if base is None else str(self.place / base / "manifest")
        record = str(self.place / name / into)
        return ask(self.order(name, kind="scan", base=known, into=record))

    def verify(self, name: str, said: dict[str, Any]) -> dict[str, Any]:
        expected = {key: said[key] for key in ("digest", "record_sha256")}
        record = str(self.place / name / "manifest")
        return ask(self.order(name, kind="verify", record=record, **expected))

    def diff(self, before: str, after: str, **more: object) -> dict[str, Any]:
        return ask(
            {"kind": "diff", "before": self._side(before), "after": self._side(after), **more}
        )

    def _side(self, name: str) -> dict[str, str]:
        record = str(self.place / name / "manifest")
        return {"record": record, "image": str(self.image), "image_manifest": str(self.cache)}

    def remove(self) -> None:
        """All of it."""
        for path in [self.image, *self.place.glob("*/*")]:
            if btrfs.is_subvolume(path):
                for inner in filter(btrfs.is_subvolume, path.glob("inner")):
                    btrfs.delete(inner)
                btrfs.delete(path)
        shutil.rmtree(self.place)


def ask(order: dict[str, object]) -> dict[str, Any]:
    """What the process says at its end."""
    lines = said(order)
    assert "done" in lines[-1], lines[-1]
    done: dict[str, Any] = lines[-1]["done"]
    return done


def said(order: dict[str, object]) -> list[dict[str, Any]]:
    raw = json.dumps({**order, "parent": os.getpid()}).encode()
    done = subprocess.run(PROGRAM, input=raw, capture_output=True, check=False)
    assert not done.stderr, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]
