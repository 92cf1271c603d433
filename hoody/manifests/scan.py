"""
What a snapshot holds, read from its subvolumes: all of it, or what is not as it was in an
earlier one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from hoody.containers import btrfs
from hoody.errors import CallerError, HoodyError
from hoody.manifests import changes
from hoody.manifests.manifest import ROOT, Entry, digest
from hoody.manifests.overlay import merged
from hoody.manifests.record import VERSION, Damaged, Header, Record, State, load, save
from hoody.manifests.survey import Survey, Trouble

Say = Callable[[str, int, "int | None"], None]
"""A sentence, and how many bytes have been read, of how many, where that is known."""


UNASKED = 16 << 30
"""Bytes that are read of any snapshot, however they are held by the disk."""
MOST_TIMES = 64
"""And beyond, so many times what they take there: zstd makes at most a 32nd of something."""


class Unreadable(HoodyError):
    """The disk does not give what is on it."""


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """
    @ivar size: bytes on disk, compressed, of what was written since the base, or since the
        image.
    @ivar bytes_read: of files, holes not counted; those of the image too, the first time.
    """

    record: Record
    size: int
    bytes_read: int


class Reading:
    """How far a scan has come, in bytes."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._what = "reading"
        self.done = 0
        self.total: int | None = 0

    def begin(self, what: str, more: int | None) -> None:
        """@param more: bytes that are to be read now, at most; C{None} if nobody knows."""
        self._what = what
        self.total = None if more is None or self.total is None else self.total + more
        self.add(0)

    def add(self, count: int) -> None:
        self.done += count
        self._say(self._what, self.done, self.total)


def refuse(path: str, error: OSError) -> None:
    raise Unreadable(f"/{path} cannot be read: {error.strerror}.") from None


def scan(trees: Mapping[str, Path], image: Record, base: Record | None, reading: Reading) -> Scan:
    """
    @param trees: read-only subvolumes; that of C{root} has what is above the image in its
        folder C{upper}.
    @param base: of an earlier snapshot of the same container, or of the one that it was
        restored to. Where it turns out not to be one, all is read.
    @raise Unreadable: if something cannot be read; CallerError: if paths are too long.
    """
    found, states, size = {}, {}, 0
    for name in sorted(trees):
        tree = _Tree(name, trees[name], base)
        changed = changes.since(tree.path, tree.since)
        _check_room(tree.path, changed.size)
        reading.begin(f"reading {name}", changed.size)
        entries = Survey(tree.known(changed), reading.add, refuse).entries(tree.top)
        found[name], states[name] = entries, tree.state(len(entries))
        own = {entry.inode for entry in entries}
        extents = [extent for extent in changed.extents if extent.inode in own]
        size += changes.taken(tree.path, extents, tree.since or _older(name, image))
    whole = {**found, ROOT: merged(image.trees[ROOT], found[ROOT])}
    header = Header(version=VERSION, image=image.header.digest, digest=digest(whole), trees=states)
    return Scan(record=Record(header=header, trees=found), size=size, bytes_read=reading.done)


def _check_room(tree: Path, size: int) -> None:
    """
    Files can share blocks with each other, and what is hours to read takes no room then.

    @param size: bytes of files that are to be read.
    @raise CallerError: if that is more than any compression explains.
    """
    if size > UNASKED and size - UNASKED > MOST_TIMES * changes.disk(tree):
        raise CallerError(
            f"There are {size} bytes to be read, which share blocks with each other; no digest is"
            " made of that. Remove some of the copies."
        )


def _older(name: str, image: Record) -> int:
    """The transaction up to which blocks in a tree can be the image's, shared by overlayfs."""
    return image.header.trees[ROOT].changed if name == ROOT else 0


class _Tree:
    """
    One of a snapshot's, beside what is known of it.

    @ivar since: after which transaction it may differ from that; 0 if nothing is known.
    """

    def __init__(self, name: str, path: Path, base: Record | None) -> None:
        self.path = path
        self.top = path / "upper" if name == ROOT else path
        self._subvolume = described(path)
        self.since = 0
        self._entries: list[Entry] = []
        state = base.header.trees.get(name) if base else None
        if base and state and _comes_from(path, self._subvolume, state):
            self.since, self._entries = state.made, base.trees[name]

    def known(self, changed: changes.Changes) -> dict[int, Entry]:
        return {
            entry.inode: entry
            for entry in self._entries
            if entry.inode >= btrfs.FIRST_INODE and entry.inode not in changed.inodes
        }

    def state(self, entries: int) -> State:
        return state_of(self._subvolume, entries)


def described(path: Path) -> btrfs.Subvolume:
    """@raise HoodyError: if it can still change."""
    found = btrfs.describe(path)
    if not found.is_read_only:
        raise HoodyError(f"{path} can still be changed; make a read-only snapshot of it.")
    return found


def state_of(subvolume: btrfs.Subvolume, entries: int) -> State:
    return State(
        entries=entries,
        changed=subvolume.changed,
        made=subvolume.made,
        identity=subvolume.identity.hex(),
        parent=subvolume.parent.hex(),
    )


def _comes_from(path: Path, subvolume: btrfs.Subvolume, base: State) -> bool:
    """
    Whether a state comes after another: both are snapshots of one subvolume, or it is one of
    a copy of the other. Numbers of transactions say nothing of two that have parted.
    """
    if not base.changed <= base.made <= subvolume.made:
        return False
    if subvolume.parent == bytes(16):
        return False
    known = (base.parent, base.identity)
    return subvolume.parent.hex() in known or (
        btrfs.parent(path, subvolume.parent).hex() == base.identity
    )


# Images


def image_record(path: Path, cache: Path, reading: Reading) -> Record:
    """
    Of an image, which never changes: read once, and written down.

    @param path: its subvolume, read-only.
    """
    try:
        known = load(cache)
        if known.header.trees[ROOT].changed == btrfs.describe(path).changed:
            return known
    except Damaged:
        pass
    made = scan_image(path, reading, refuse)
    save(made, cache)
    return made


def scan_image(path: Path, reading: Reading, trouble: Trouble) -> Record:
    state = described(path)
    reading.begin("reading the image", changes.since(path, 0).size)
    entries = Survey({}, reading.add, trouble).entries(path)
    header = Header(
        version=VERSION,
        image="",
        digest=digest({ROOT: entries}),
        trees={ROOT: state_of(state, len(entries))},
    )
    return Record(header=header, trees={ROOT: entries})
