"""What containers take, what they share, and what they would take if nothing were shared."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from attrs import frozen

from hoody.containers.container import Container, Status
from hoody.containers.keeper import Keeper
from hoody.containers.storage import Storage

_PAGE = resource.getpagesize()


@frozen(kw_only=True)
class Entry:
    """
    One container's.

    @ivar is_asleep: whether it stands still until somebody comes.
    @ivar idle_since: when somebody came last to one that sleeps; C{None} for those that do not.
    @ivar idle_seconds: since somebody came last; C{None} for one that does not run.
    @ivar memory_own: bytes that nobody else has.
    @ivar memory_shared: bytes of files that are kept in memory, and of pages that were merged
        with equal ones of others (KSM).
    @ivar memory_merged: of these, the latter.
    @ivar disk_own: bytes that its files take.
    @ivar disk_shared: bytes of its image, which is there once for all.
    @ivar disk_saved: bytes that its files do not take, as they have the blocks of equal ones.
    """

    id: str
    name: str
    image_id: str
    status: Status
    is_asleep: bool
    idle_since: datetime | None
    idle_seconds: float | None
    memory_own: int
    memory_shared: int
    memory_merged: int
    disk_own: int
    disk_shared: int
    disk_saved: int = 0


@frozen
class Sums:
    """@ivar memory: and C{disk}: in bytes."""

    memory: int
    disk: int


def taken(entries: Iterable[Entry]) -> Sums:
    """What all of them take: an image once, and a merged page where it is counted, once."""
    entries = list(entries)
    images = {each.image_id: each.disk_shared for each in entries}
    return Sums(
        memory=sum(each.memory_own + each.memory_shared - each.memory_merged for each in entries),
        disk=sum(each.disk_own for each in entries) + sum(images.values()),
    )


def unshared(entries: Iterable[Entry]) -> Sums:
    """What they would take if each had all for itself."""
    entries = list(entries)
    return Sums(
        memory=sum(each.memory_own + each.memory_shared for each in entries),
        disk=sum(each.disk_own + each.disk_shared + each.disk_saved for each in entries),
    )


def saved(entries: Iterable[Entry]) -> int:
    """Bytes on the disk that equal files would take more if each had its own blocks."""
    return sum(each.disk_saved for each in entries)


@frozen
class Look:
    """
    Of one container, as it was when the reactor looked: the rest is read in a thread.

    @ivar saved: see L{Entry.disk_saved}.
    """

    keeper: Keeper
    container: Container
    is_asleep: bool
    idle_since: datetime | None
    idle_seconds: float | None
    saved: int

    @classmethod
    def at(cls, keeper: Keeper, now: datetime, seconds: float, saved: int = 0) -> Look:
        own = keeper.container
        idle_since = own.idle_since if keeper.is_asleep else None
        idle_seconds = None
        if idle_since is not None:
            idle_seconds = (now - idle_since).total_seconds()
        elif keeper.run is not None:
            idle_seconds = seconds - keeper.moved_at
        return cls(keeper, own, keeper.is_asleep, idle_since, idle_seconds, saved)


def read(looks: list[Look], storage: Storage) -> list[Entry]:
    """To be called from a thread. Who is gone by now is left out."""
    found = []
    for look in looks:
        with contextlib.suppress(OSError):
            found.append(_read(look, storage))
    return found


def _read(look: Look, storage: Storage) -> Entry:
    own, run = look.container, look.keeper.run
    memory = {"own": 0, "shared": 0}
    merged = 0
    if run is not None:
        with contextlib.suppress(OSError):  # it has just ended
            memory = run.cgroup.memory
        merged = sum(merged_pages(pid) for pid in run.cgroup.pids) * _PAGE
    disk_own, disk_shared = storage.taken_by(own.id, own.image_id)
    if not storage.is_simple:  # what several have counts for each of them there
        disk_own = max(0, disk_own - look.saved)
    return Entry(
        id=own.id,
        name=own.name,
        image_id=own.image_id,
        status=own.status,
        is_asleep=look.is_asleep,
        idle_since=look.idle_since,
        idle_seconds=None if look.idle_seconds is None else round(max(0.0, look.idle_seconds), 3),
        memory_own=memory["own"],
        memory_shared=memory["shared"] + merged,
        memory_merged=merged,
        disk_own=disk_own,
        disk_shared=disk_shared,
        disk_saved=look.saved,
    )


def merged_pages(pid: int) -> int:
    """Pages of a process that it has with others (proc(5), ksm_merging_pages; Linux 5.19)."""
    try:
        return int(Path(f"/proc/{pid}/ksm_merging_pages").read_text())
    except (OSError, ValueError):  # it has ended, or this kernel does not tell
        return 0
