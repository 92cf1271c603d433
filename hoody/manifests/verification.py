"""Whether a snapshot still is what it was when it was taken: all of it is read anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from hoody.manifests.manifest import ROOT, Entry, digest
from hoody.manifests.overlay import merged
from hoody.manifests.record import Damaged, Record, load
from hoody.manifests.scan import Reading, described
from hoody.manifests.survey import Survey

IMAGE = "image"
MOST = 1000
"""So many mismatches are told."""

_PROBLEMS = {
    "kind": "is of another kind",
    "digest": "content differs",
    "size": "content differs",
    "zeros": "content differs",
    "target": "leads elsewhere",
    "device": "device differs",
    "uid": "owner differs",
    "gid": "owner differs",
    "mode": "mode differs",
    "xattrs": "extended attributes differ",
    "first": "hard links differ",
    "mark": "what it hides differs",
}


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Where its parts are: see L{hoody.manifests.scan.scan}."""

    trees: dict[str, Path]
    record: Path
    image_record: Path


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What its scan said of it."""

    digest: str
    record_sha256: str


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """
    @ivar tree: C{root} (what is above the image), C{volume-NAME} or C{image}; empty if it is
        about the snapshot as a whole.
    @ivar path: escaped (L{hoody.manifests.names}).
    @ivar problem: what is wrong with it: a sentence without its subject.
    """

    tree: str
    path: str
    problem: str


class Verification:
    """
    @ivar mismatches: as they were found.
    @ivar digest: of the whole, as it was found.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._unread: set[tuple[str, str]] = set()
        self.mismatches: list[Mismatch] = []
        self.digest = ""
        self.entries = 0

    def run(self, snapshot: Snapshot, image: Path, expected: Expected) -> None:
        own = self._load(snapshot.record, expected.record_sha256)
        below = self._load(snapshot.image_record, "")
        found = {}
        for name, path in sorted(snapshot.trees.items()):
            described(path)
            top = path / "upper" if name == ROOT else path
            found[name] = self._read(name, top, own.trees.get(name) if own else None)
        fresh = self._read(IMAGE, image, below.trees[ROOT] if below else None)
        whole = {**found, ROOT: merged(fresh, found[ROOT])}
        self.entries = sum(len(entries) for entries in whole.values())
        self.digest = digest(whole)
        if self.digest != expected.digest and not self.mismatches:
            self._add("", "", f"its digest is {self.digest}")

    def _load(self, path: Path, checksum: str) -> Record | None:
        try:
            record = load(path)
        except Damaged as error:
            self._add("", path.name, f"is damaged: {error.sentence}")
            return None
        if checksum and record.checksum != checksum:
            self._add("", path.name, "is another than was written")
        return record

    def _read(self, name: str, top: Path, expected: list[Entry] | None) -> list[Entry]:
        room = None if expected is None else sum(entry.size for entry in expected)
        self._reading.begin(f"reading {name}", room)

        def trouble(path: str, error: OSError) -> None:
            self._unread.add((name, path))
            self._add(name, path, f"cannot be read: {error.strerror}")

        found = Survey({}, self._reading.add, trouble).entries(top)
        for path, problem in _problems(expected, found) if expected is not None else ():
            if (name, path) not in self._unread:
                self._add(name, path, problem)
        return found

    def _add(self, tree: str, path: str, problem: str) -> None:
        if len(self.mismatches) < MOST:
            self.mismatches.append(Mismatch(tree=tree, path=path, problem=problem))


def _problems(expected: Iterable[Entry], found: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """Paths, in order, and what is wrong with each."""
    before = {entry.path: entry for entry in expected}
    after = {entry.path: entry for entry in found}
    for path in sorted(before.keys() | after.keys()):
        if path not in after:
            yield path, "is missing"
        elif path not in before:
            yield path, "was not there"
        elif before[path] != after[path]:
            for problem in _between(before[path], after[path]):
                yield path, problem


def _between(before: Entry, after: Entry) -> Iterable[str]:
    found = (
        problem
        for field, problem in _PROBLEMS.items()
        if getattr(before, field) != getattr(after, field)
    )
    return dict.fromkeys(found)
