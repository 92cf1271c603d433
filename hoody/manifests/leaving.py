"""A snapshot is read from the disk and written as a stream: in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from hoody.errors import HoodyError
from hoody.manifests.errands import Leaving
from hoody.manifests.folders import Folders
from hoody.manifests.manifest import ROOT, Entry
from hoody.manifests.record import Damaged, Record, load
from hoody.manifests.scan import Reading, image_record
from hoody.manifests.stream import (
    IMAGE,
    Content,
    Header,
    Item,
    TreeHead,
    Writer,
    content_of,
    pieces,
    runs,
)
from hoody.manifests.walk import EMPTY_SUBVOLUME

_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC


def leave(
    errand: Leaving,
    trees: Mapping[str, Path],
    image: Path,
    image_manifest: Path,
    write: Callable[[bytes], object],
    reading: Reading,
) -> int:
    """
    @param trees: read-only subvolumes; that of C{root} has what is above the image in its
        folder C{upper}.
    @return: bytes of content that were written.
    @raise HoodyError: if it is not what it was; what was written is to be thrown away then.
    """
    own, below = _load(errand.record), image_record(image, image_manifest, reading)
    if own.checksum != errand.record_sha256 or own.header.digest != errand.snapshot.digest:
        raise Damaged("What was written down of the snapshot is not what it was.")
    own.whole(below)
    told = {name: own.trees[name] for name in sorted(own.trees)}
    tops = {name: path / "upper" if name == ROOT else path for name, path in trees.items()}
    known: set[str] = set()
    if errand.with_image:
        told = {IMAGE: below.trees[ROOT], **told}
        tops[IMAGE] = image
    else:
        known |= _digests(below.trees[ROOT])
    if errand.base is not None:
        for entries in _load(errand.base).whole(below).values():
            known |= _digests(entries)
    sources = _sources(told, known)
    header = Header(
        container=errand.container,
        image=msgspec.structs.replace(errand.image, digest=below.header.digest),
        snapshot=errand.snapshot,
        base=errand.base_digest,
        trees=tuple(TreeHead(name=name, entries=len(told[name])) for name in told),
        contents=len(sources),
        size=sum(content.length for content in sources),
    )
    reading.begin("sending", header.size)
    writer = Writer(write)
    items = {name: _items(entries, Folders(tops[name])) for name, entries in told.items()}
    writer.head(header, items, sources)
    for content, entry, folders in _by_tree(sources, tops):
        writer.content(content, _content(entry, folders, reading))
    writer.end()
    return header.size


def _load(path: str) -> Record:
    return load(Path(path))


def _digests(entries: Iterable[Entry]) -> set[str]:
    return {entry.digest for entry in entries if entry.kind == "file"}


def _sources(
    told: Mapping[str, Iterable[Entry]], known: set[str]
) -> dict[Content, tuple[str, Entry]]:
    """Where each content that is to be sent is read from: where it comes first."""
    found: dict[Content, tuple[str, Entry]] = {}
    for name, entries in told.items():
        for entry in entries:
            content = content_of(entry)
            if content is not None and content.digest not in known:
                known.add(content.digest)
                found[content] = name, entry
    return found


def _items(entries: Iterable[Entry], folders: Folders) -> Iterator[Item]:
    for entry in entries:
        yield Item(_mtime(entry, folders), msgspec.structs.replace(entry, inode=0))
    folders.close()


def _mtime(entry: Entry, folders: Folders) -> int:
    if entry.inode == EMPTY_SUBVOLUME:
        return 0
    descriptor, name = folders.place(entry.path)
    return os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mtime_ns


def _by_tree(
    sources: Mapping[Content, tuple[str, Entry]], tops: Mapping[str, Path]
) -> Iterator[tuple[Content, Entry, Folders]]:
    last, folders = "", None
    for content, (name, entry) in sources.items():
        if folders is None or name != last:
            last, folders = name, Folders(tops[name])
        yield content, entry, folders


def _content(entry: Entry, folders: Folders, reading: Reading) -> Iterator[bytes]:
    descriptor, name = folders.place(entry.path)
    file = os.open(name, _FILE_FLAGS, dir_fd=descriptor)
    try:
        for run in runs(entry):
            for piece in pieces(run):
                data = os.pread(file, piece.length, piece.offset)
                if len(data) != piece.length:
                    raise Damaged(f"/{entry.path} is shorter than it was.")
                reading.add(len(data))
                yield data
    except OSError as error:
        raise HoodyError(f"/{entry.path} cannot be read: {error.strerror}.") from None
    finally:
        os.close(file)
