"""
Which files are to share their blocks, as far as records know. Nothing here does I/O.

Files are equal that have equal digests, sizes and runs of zeros. Of those that are, one gives
its blocks to all others: that of an image, which stays as it is, or else of the snapshot that
was taken first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from hoody.containers.btrfs import Extent
from hoody.manifests.manifest import Entry

LEAST = 128 * 1024
"""Bytes of content that are worth the trouble: a compressed extent has no more (btrfs(5))."""


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """
    A read-only subvolume that there is a record of.

    @ivar owner: the container's id; empty of an image.
    @ivar name: C{root} or C{volume-NAME}.
    @ivar top: the folder from which paths count.
    @ivar now: the same of what the container has now.
    @ivar made: the number of the transaction that made it.
    """

    owner: str
    name: str
    top: Path
    now: Path | None = None
    made: int

    @property
    def is_image(self) -> bool:
        return not self.owner


class File(NamedTuple):
    """@ivar path: escaped (L{hoody.manifests.names})."""

    tree: Tree
    path: str
    inode: int

    @property
    def identity(self) -> Identity:
        """What is one file of one container in several snapshots has the same in all of them."""
        return self.tree.owner or str(self.tree.top), self.tree.name, self.inode


Identity = tuple[str, str, int]
Content = tuple[str, int, tuple[tuple[int, int], ...]]
Trees = Callable[[], Iterable[tuple[Tree, Iterable[Entry]]]]
"""All records, as often as it is called: they need not be in memory all at once."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """
    Files that are equal.

    @ivar size: bytes of each.
    @ivar content: of these, those that are not in long runs of zeros.
    @ivar targets: of one container after another; none of an image.
    """

    size: int
    content: int
    source: File
    targets: list[File]


def groups(trees: Trees) -> list[Group]:
    """Those that save most come first."""
    wanted = _repeated(trees)
    found: dict[Content, list[File]] = {}
    for tree, entries in trees():
        for entry in entries:
            if is_worth_it(entry) and _content(entry) in wanted:
                file = File(tree, entry.path, entry.inode)
                found.setdefault(_content(entry), []).append(file)
    made = (_group(content, files) for content, files in found.items())
    return sorted(
        (group for group in made if group.targets),
        key=lambda group: -group.content * len(group.targets),
    )


def _repeated(trees: Trees) -> set[Content]:
    """What more than one file has: as many names as it may have, and snapshots it may be in."""
    first: dict[Content, Identity] = {}
    repeated = set()
    for tree, entries in trees():
        for entry in entries:
            if is_worth_it(entry):
                content = _content(entry)
                identity = File(tree, entry.path, entry.inode).identity
                if first.setdefault(content, identity) != identity:
                    repeated.add(content)
    return repeated


def is_worth_it(entry: Entry) -> bool:
    """A name of it is enough."""
    return entry.kind == "file" and not entry.first and _bytes(entry) >= LEAST


def _bytes(entry: Entry) -> int:
    return entry.size - sum(length for _, length in entry.zeros)


def _content(entry: Entry) -> Content:
    return entry.digest, entry.size, entry.zeros


def _group(content: Content, files: list[File]) -> Group:
    _, size, zeros = content
    source = min(files, key=_age)
    targets = [file for file in files if file != source and not file.tree.is_image]
    return Group(
        size=size,
        content=size - sum(length for _, length in zeros),
        source=source,
        targets=sorted(targets, key=lambda file: (*file.identity, file.path, _age(file))),
    )


def _age(file: File) -> tuple[bool, int, str, str]:
    tree = file.tree
    return not tree.is_image, tree.made, str(tree.top), file.path


# Blocks


class Part(NamedTuple):
    """Of a file."""

    offset: int
    length: int


def apart(source: Iterable[Extent], target: Iterable[Extent], end: int) -> list[Part]:
    """
    The parts of a file that take blocks and could have those of another, up to C{end}: as few
    as can be, in order.
    """
    found: list[Part] = []
    for offset, length in _unshared(source, target):
        length = min(length, end - offset)
        if length <= 0:
            continue
        if found and sum(found[-1]) == offset:
            found[-1] = Part(found[-1].offset, found[-1].length + length)
        else:
            found.append(Part(offset, length))
    return found


def _unshared(source: Iterable[Extent], target: Iterable[Extent]) -> Iterator[Part]:
    index = _by_blocks(source)
    for extent in target:
        if not extent.place:
            continue
        position, end = extent.offset, extent.offset + extent.length
        for begin, stop in _within(index, extent):
            if begin > position:
                yield Part(position, begin - position)
            position = stop
        if position < end:
            yield Part(position, end - position)


def common(source: Iterable[Extent], target: Iterable[Extent]) -> int:
    """Bytes on the disk that one file would take more if it had not those of the other."""
    index = _by_blocks(source)
    total = 0
    for extent in target:
        if extent.place:
            shared = sum(stop - begin for begin, stop in _within(index, extent))
            total += extent.taken * shared // extent.length
    return total


_Index = dict[tuple[int, int], list[tuple[int, int]]]


def _by_blocks(extents: Iterable[Extent]) -> _Index:
    index: _Index = {}
    for extent in extents:
        if extent.place:
            key = (extent.place, extent.origin)
            index.setdefault(key, []).append((extent.offset, extent.offset + extent.length))
    return index


def _within(index: _Index, extent: Extent) -> Iterator[tuple[int, int]]:
    """Beginnings and ends of what is the same blocks, in order."""
    first, last = extent.offset, extent.offset + extent.length
    for begin, stop in index.get((extent.place, extent.origin), ()):
        if begin < last and stop > first:
            yield max(begin, first), min(stop, last)


def steps(part: Part, most: int) -> Iterator[Part]:
    """A part, cut."""
    for offset in range(part.offset, part.offset + part.length, most):
        yield Part(offset, min(most, part.offset + part.length - offset))
