"""
Having equal files share their blocks: what the process does that nobody waits for.

What records say is tried, and the kernel compares before it shares. What a container has now
is its to change at any time, to its advantage: so each of its folders is opened from the one
above, no link is followed, and nothing is opened but files.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from hoody.containers import btrfs
from hoody.containers.btrfs import Differs
from hoody.containers.states import RECORD
from hoody.containers.storage import SNAPSHOTS, STATE
from hoody.manifests.manifest import ROOT, Entry
from hoody.manifests.names import unescape
from hoody.manifests.orders import Saving, Shared
from hoody.manifests.record import Damaged, Record, load
from hoody.manifests.scan import Reading
from hoody.manifests.sharing import Group, Identity, Part, Tree, apart, common, groups, steps

STEP = 16 << 20
"""Bytes that are compared in one call, at most."""
LIVE_STEP = 1 << 20
"""And of what a container has now: whoever writes to that file waits until it is compared."""
_NICE = 9  # with what all of these processes have, the most
_IDLE_CLASS = 3 << 13
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
"""Numbers of ioprio_set(2), which the C library does not have."""
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC


def be_in_nobodys_way() -> None:
    """All others come first, at the processor and at the disk."""
    os.nice(_NICE)
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, 1, 0, _IDLE_CLASS)


class Pace:
    """@ivar rate: bytes a second, at most."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._due = time.monotonic()

    def keep(self, count: int) -> None:
        """So many are about to be read: wait until they may."""
        now = time.monotonic()
        self._due = max(self._due, now)
        time.sleep(self._due - now)
        self._due += count / self._rate


class NotAFile(OSError):
    """Something else is there by now."""


@contextlib.contextmanager
def opened(top: Path, path: str) -> Iterator[int]:
    """
    A file, to be read.

    @param path: escaped (L{hoody.manifests.names}).
    @raise OSError: if it cannot be, or is none.
    """
    *folders, name = [unescape(each) for each in path.split("/")]
    found = _file_in(top, folders, name)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise NotAFile(f"{path} is no file")
        # Of the very same, whatever has its name by now.
        descriptor = os.open(f"/proc/self/fd/{found}", _READ)
    finally:
        os.close(found)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _file_in(top: Path, folders: Iterable[str], name: str) -> int:
    folder = os.open(top, _FOLDER)
    try:
        for each in folders:
            inner = os.open(each, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(name, _LOOK, dir_fd=folder)
    finally:
        os.close(folder)


class Sweep:
    """
    @ivar storage: where the containers, images and records of a server are.
    """

    def __init__(self, storage: Path, reading: Reading, rate: int) -> None:
        self._storage = storage
        self._reading = reading
        self._pace = Pace(rate)
        self._buffer = bytearray(LIVE_STEP)
        self._shared = 0
        self._kept: dict[Identity, int] = {}
        self._now: dict[Identity, int] = {}

    def run(self) -> Shared:
        self._reading.begin("sharing blocks", None)
        for group in groups(lambda: trees(self._storage)):
            with contextlib.suppress(OSError):  # its snapshot is gone by now
                self._share(group)
        kept, now = _by_owner(self._kept), _by_owner(self._now)
        return Shared(
            compared=self._reading.done,
            shared=self._shared,
            savings={owner: Saving(kept=kept[owner], now=now[owner]) for owner in sorted(kept)},
        )

    def _share(self, group: Group) -> None:
        with opened(group.source.tree.top, group.source.path) as source:
            giver = _Giver(source, group.source.identity)
            for place in _places(group):
                # It has changed or gone by now, or the kernel has a reason.
                with contextlib.suppress(OSError), opened(place.top, place.path) as target:
                    self._try(giver, place, target)
            if not group.source.tree.is_image:  # there it is of use to others
                os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)

    def _try(self, giver: _Giver, place: _Place, target: int) -> None:
        identity = (place.owner, place.name, os.fstat(target).st_ino)
        wanted = apart(giver.extents, btrfs.extents(target), giver.end_with(target))
        try:
            for part in wanted:
                for step in steps(part, LIVE_STEP if place.is_live else STEP):
                    self._share_part(giver.descriptor, target, step)
        finally:
            if not place.is_live:
                os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)
            if identity != giver.identity:
                self._count(identity, common(giver.extents, btrfs.extents(target)), place)

    def _count(self, identity: Identity, saved: int, place: _Place) -> None:
        self._kept[identity] = max(saved, self._kept.get(identity, 0))
        if place.is_live:
            self._now[identity] = saved

    def _share_part(self, source: int, target: int, part: Part) -> None:
        self._pace.keep(part.length)
        # Nobody has to wait for the disk while the kernel holds both files.
        self._warm(source, part)
        self._warm(target, part)
        offset, end = part.offset, part.offset + part.length
        while offset < end:
            try:
                count = btrfs.share(source, target, offset, end - offset)
            except Differs:
                break
            if not count:
                break
            offset += count
        self._shared += offset - part.offset
        self._reading.add(part.length)

    def _warm(self, descriptor: int, part: Part) -> None:
        for step in steps(part, len(self._buffer)):
            os.preadv(descriptor, [memoryview(self._buffer)[: step.length]], step.offset)


class _Giver:
    """A file whose blocks others are to have."""

    def __init__(self, descriptor: int, identity: Identity) -> None:
        self.descriptor = descriptor
        self.identity = identity
        os.fsync(descriptor)  # of an image, some may be in memory only
        self.extents = btrfs.extents(descriptor)
        self._size = os.fstat(descriptor).st_size
        self._block = os.fstatvfs(descriptor).f_bsize

    def end_with(self, target: int) -> int:
        """Up to where another can have them: a part of a block only if it is the last of both."""
        size = os.fstat(target).st_size
        return size if size == self._size else min(size, self._size) // self._block * self._block


class _Place(NamedTuple):
    """Where an equal file may be."""

    owner: str
    name: str
    top: Path
    path: str
    is_live: bool


def _places(group: Group) -> Iterator[_Place]:
    """Each once: in snapshots, and in what there is now."""
    live: set[tuple[Path, str]] = set()
    for file in (group.source, *group.targets):
        tree = file.tree
        if file != group.source:
            yield _Place(tree.owner, tree.name, tree.top, file.path, False)
        if tree.now is not None and (tree.now, file.path) not in live:
            live.add((tree.now, file.path))
            yield _Place(tree.owner, tree.name, tree.now, file.path, True)


def _by_owner(saved: dict[Identity, int]) -> Counter[str]:
    found: Counter[str] = Counter()
    for (owner, _, _), count in saved.items():
        found[owner] += count
    return found


# What there is


def trees(storage: Path) -> Iterator[tuple[Tree, list[Entry]]]:
    """All that there are records of, one record after another."""
    for path in _listed(storage / "manifests"):
        if (record := _record(path)) is not None:
            top = storage / "images" / path.name
            yield _tree(record, "", ROOT, top, None), record.trees[ROOT]
    for container in _listed(storage / "containers"):
        for snapshot in _listed(container / SNAPSHOTS):
            if (record := _record(snapshot / RECORD)) is not None:
                for name, entries in record.trees.items():
                    top, now = (_top(each, name) for each in (snapshot, container / STATE))
                    yield _tree(record, container.name, name, top, now), entries


def _tree(record: Record, owner: str, name: str, top: Path, now: Path | None) -> Tree:
    made = record.header.trees[name].made
    return Tree(owner=owner, name=name, top=top, now=now, made=made)


def _top(state: Path, name: str) -> Path:
    return state / name / "upper" if name == ROOT else state / name


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _record(path: Path) -> Record | None:
    """C{None} if it was not written yet, or is no more."""
    try:
        return load(path)
    except Damaged:
        return None
