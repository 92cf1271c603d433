"""A snapshot: what is known of one, and what it may be called."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from attrs import evolve, frozen

if TYPE_CHECKING:
    from hoody.interfaces import ITransaction

PREFIX, UNDO_PREFIX = "snap", "undo"
NOW = "now"
"""What the state is called that a container is in, where a snapshot's name could stand."""
UNDO_HOURS = 24
"""For how long what a restore has replaced is kept."""
MOST_ALIAS = 100
_NAME = re.compile(r"(snap|undo)-\d{4}-\d{2}-\d{2}(-\d{6}(-\d+)?)?")
_BAD = re.compile(r"[\x00-\x1f\x7f/]")

Consistency = Literal["frozen", "stopped"]
"""C{frozen}: all processes were cut at one instant; C{stopped}: there were none."""


@frozen(kw_only=True)
class Snapshot:
    """
    @ivar id: 24 hex digits; what its folder is called.
    @ivar pinned: whether it stays until somebody deletes it.
    @ivar created_by: as the audit names them.
    @ivar size: bytes on the disk, as compressed, that were written since C{parent} was taken,
        or, of the first, above the image; C{None} until it has been read.
    @ivar digest: C{sha256:...}, the address of its content; C{None} until it has been read.
    @ivar record: SHA-256 of the file that says what is in it; C{None} until it has been read.
    @ivar parent: the name of the snapshot that C{size} is counted from.
    @ivar duration_ms: how long whoever asked for it waited for all of it.
    @ivar pause_ms: how long its processes stood still for it.
    @ivar is_undo: whether it is what a restore has replaced.
    """

    id: str
    container_id: str
    name: str
    alias: str | None = None
    pinned: bool = False
    comment: str | None = None
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    consistency: Consistency
    size: int | None = None
    digest: str | None = None
    record: str | None = None
    parent: str | None = None
    duration_ms: float = 0.0
    pause_ms: float = 0.0
    is_undo: bool = False


def is_snapshot_name(name: str) -> bool:
    """Whether one could have got it."""
    if not _NAME.fullmatch(name):
        return False
    _, year, month, day, *rest = name.split("-")
    moment, form = f"{year}{month}{day}", "%Y%m%d"
    if rest:
        moment, form = moment + rest[0], form + "%H%M%S"
    try:
        datetime.strptime(moment, form)  # it is not kept
    except ValueError:
        return False
    return True


def name_for(taken_at: datetime, names: Collection[str]) -> str:
    """
    The name of one that is taken now, in UTC; C{names} are those that there are. While there is
    one of that day, the day's own name is not given again, though its first may have gone: who
    puts that back would not get what they mean.
    """
    day = f"{PREFIX}-{taken_at:%Y-%m-%d}"
    if not any(name.startswith(day) for name in names):
        return day
    return _by_the_second(PREFIX, taken_at, names)


def undo_name_for(taken_at: datetime, names: Collection[str]) -> str:
    """As L{name_for}, of what is about to be replaced."""
    return _by_the_second(UNDO_PREFIX, taken_at, names)


def _by_the_second(prefix: str, taken_at: datetime, names: Collection[str]) -> str:
    name = first = f"{prefix}-{taken_at:%Y-%m-%d-%H%M%S}"
    number = 1
    while name in names:
        number += 1
        name = f"{first}-{number}"
    return name


async def mark_used(transaction: ITransaction, snapshot: Snapshot, now: datetime) -> None:
    """It has been put back, or copied; it may be gone by now."""
    found = await transaction.snapshots.find(snapshot.container_id, snapshot.name)
    if found is not None and found.id == snapshot.id:
        await transaction.snapshots.change(evolve(found, last_used_at=now))


def fault_of_alias(alias: str) -> str | None:
    """What is wrong with one, as the end of a sentence; C{None} if nothing is."""
    if not 1 <= len(alias) <= MOST_ALIAS:
        return f"give 1 to {MOST_ALIAS} characters"
    if _BAD.search(alias) or alias != alias.strip() or not alias.isprintable():
        return "leave out slashes, control characters, and spaces around it"
    if alias in (".", ".."):
        return "it has a meaning of its own in URLs"
    if alias == NOW:
        return "that is the present state; choose another"
    if _NAME.fullmatch(alias):
        return "it could be taken for a snapshot's name; choose another"
    return None
