"""
A stream becomes a container's disk, and perhaps an image: in a process of its own, as what
comes in may be anything.

Nothing is made that L{hoody.manifests.soundness} has not found to be what a container could
have; each name is made in the folder that it is in, by that folder's descriptor, in a
subvolume that nobody else changes. What has come of it is held against the digest by whoever
scans it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from hoody.containers import btrfs
from hoody.errors import CallerError, Conflict
from hoody.manifests import soundness
from hoody.manifests.errands import Arrived, Arriving, Below, Beside
from hoody.manifests.folders import Folders
from hoody.manifests.manifest import ROOT, Entry
from hoody.manifests.names import unescape
from hoody.manifests.overlay import is_whiteout
from hoody.manifests.record import load
from hoody.manifests.scan import Reading, image_record
from hoody.manifests.stream import IMAGE, Item, Reader, content_of, pieces, runs

_BUFFER = 1 << 20
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FICLONE = 0x40049409
_OPAQUE = "trusted.overlay.opaque"
_LATEST = 2**33 * 10**9
_CANNOT = (errno.EFBIG, errno.EPERM, errno.EINVAL, errno.E2BIG, errno.EOPNOTSUPP, errno.EMLINK)


class File(NamedTuple):
    """One that has a content, or is to have it."""

    folders: Folders
    entry: Entry

    def open(self, flags: int) -> int:
        descriptor, name = self.folders.place(self.entry.path)
        return os.open(name, flags, dir_fd=descriptor)


def arrive(errand: Arriving, reading: Reading) -> Arrived:
    """@raise CallerError: if the stream cannot be made anything of."""
    with open(errand.file, "rb", buffering=_BUFFER) as file:
        reader = Reader(file)
        reading.begin("reading what is in it", 0)
        reader.head()
        for name, items in reader.trees.items():
            soundness.check(name, (item.entry for item in items))
        if ROOT not in reader.trees:
            raise CallerError("The stream has no root; export the snapshot again.")
        return _Arrival(errand, reader, reading).run()


class _Arrival:
    def __init__(self, errand: Arriving, reader: Reader, reading: Reading) -> None:
        self._errand, self._reader, self._reading = errand, reader, reading
        self._known: dict[str, File] = {}
        self._wanted: dict[str, list[File]] = {}

    def run(self) -> Arrived:
        below = self._image()
        if self._errand.base is not None:
            self._know_base(self._errand.base)
        made = list(self._trees(below))
        for tree in made:
            tree.make()
            self._want(tree)
        self._fill()
        for tree in made:
            tree.dress()
        if below is None:
            below = self._errand.fresh
            self._seal(below)
        return Arrived(image=below.id)

    def _trees(self, below: Below | None) -> Iterator[Making]:
        """Those that are to be made: an image that is there already is none."""
        into = Path(self._errand.into)
        for name, items in self._reader.trees.items():
            if name != IMAGE:
                yield Making(into / ROOT / "upper" if name == ROOT else into / name, items)
            elif below is None:
                top = Path(self._errand.fresh.image)
                btrfs.create(top)
                yield Making(top, items)

    # What is here already

    def _image(self) -> Below | None:
        """The one that it is above; C{None} if it is to be made."""
        head = self._reader.header.image
        for below in self._errand.images:
            record = image_record(Path(below.image), Path(below.image_manifest), self._reading)
            if record.header.digest == head.digest:
                self._know(Path(below.image), record.trees[ROOT])
                return below
        if IMAGE not in self._reader.trees:
            raise Conflict(
                f"The container is above the image {head.name!r} ({head.digest}), which is not"
                " here and did not come along; export the snapshot again with ?image=true."
            )
        return None

    def _know_base(self, base: Beside) -> None:
        below = base.below
        image = image_record(Path(below.image), Path(below.image_manifest), self._reading)
        own = load(Path(base.record))
        own.whole(image)
        self._know(Path(below.image), image.trees[ROOT])
        for name, entries in own.trees.items():
            path = Path(base.trees[name])
            self._know(path / "upper" if name == ROOT else path, entries)

    def _know(self, top: Path, entries: Iterable[Entry]) -> None:
        folders = Folders(top)
        for entry in entries:
            content = content_of(entry)
            if content is not None:
                self._known.setdefault(content.digest, File(folders, entry))

    # What is made

    def _want(self, tree: Making) -> None:
        for item in tree.items:
            content = content_of(item.entry)
            if content is not None:
                file = File(tree.folders, item.entry)
                self._wanted.setdefault(content.digest, []).append(file)

    def _fill(self) -> None:
        reader = self._reader
        self._reading.begin("receiving", reader.header.size)
        for content in reader.contents:
            files = self._wanted.pop(content.digest, [])
            data = self._counted(reader.content(content))
            if files:
                _check_length(files[0], content.length)
                _write(files[0], data)
                _copy(files[0], files[1:])
            else:
                for _ in data:
                    pass
        reader.end()
        for digest, files in self._wanted.items():
            if digest not in self._known:
                raise CallerError(
                    f"/{files[0].entry.path} has a content that did not come along; export the"
                    " snapshot again, without ?base= and with ?image=true."
                )
            _copy(self._known[digest], files)

    def _counted(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        for part in parts:
            self._reading.add(len(part))
            yield part

    def _seal(self, below: Below) -> None:
        btrfs.commit(Path(below.image))  # from then on its numbers hold
        btrfs.seal(Path(below.image))
        record = image_record(Path(below.image), Path(below.image_manifest), self._reading)
        expected = self._reader.header.image.digest
        if record.header.digest != expected:
            raise CallerError(
                f"The image is not what it is said to be: it is {record.header.digest}, and not"
                f" {expected}; export the snapshot again."
            )


class Making:
    """One tree, from nothing: first its names, then (by others) its content, last all else."""

    def __init__(self, top: Path, items: list[Item]) -> None:
        self.items = items
        self.folders = Folders(top)
        self._others = Folders(top)

    def make(self) -> None:
        for item in self.items:
            entry = item.entry
            if entry.path:
                try:
                    self._make(entry)
                except OSError as error:
                    raise _refused(entry, error) from None

    def _make(self, entry: Entry) -> None:
        descriptor, name = self.folders.place(entry.path)
        if entry.first:
            source, old = self._others.place(entry.first)
            os.link(old, name, src_dir_fd=source, dst_dir_fd=descriptor, follow_symlinks=False)
        elif is_whiteout(entry):
            os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(0, 0), dir_fd=descriptor)
        elif entry.kind == "folder":
            os.mkdir(name, 0o700, dir_fd=descriptor)
        elif entry.kind == "link":
            os.symlink(unescape(entry.target), name, dir_fd=descriptor)
        elif entry.kind == "file":
            file = os.open(name, _CREATE, 0o600, dir_fd=descriptor)
            try:
                os.ftruncate(file, entry.size)
            finally:
                os.close(file)
        else:
            kind = stat.S_IFIFO if entry.kind == "fifo" else stat.S_IFSOCK
            os.mknod(name, kind | 0o600, dir_fd=descriptor)

    def dress(self) -> None:
        """Owners, modes, attributes and times; of a folder when all in it has them."""
        for item in reversed(self.items):
            if not item.entry.first:
                try:
                    self._dress(item)
                except OSError as error:
                    raise _refused(item.entry, error) from None
        self.folders.close()
        self._others.close()

    def _dress(self, item: Item) -> None:
        entry = item.entry
        descriptor, name = self.folders.place(entry.path)
        # With the owner the kernel takes away what comes after it here.
        os.chown(name, entry.uid, entry.gid, dir_fd=descriptor, follow_symlinks=False)
        if entry.kind != "link":
            os.chmod(name, entry.mode, dir_fd=descriptor)
        # No system call takes a folder and a name for them before Linux 6.13.
        place = f"/proc/self/fd/{descriptor}/{name}"
        for key, value in entry.xattrs:
            os.setxattr(place, unescape(key), value, follow_symlinks=False)
        if entry.mark == "opaque":
            os.setxattr(place, _OPAQUE, b"y", follow_symlinks=False)
        time = max(-_LATEST, min(item.mtime, _LATEST))
        os.utime(name, ns=(time, time), dir_fd=descriptor, follow_symlinks=False)


def _refused(entry: Entry, error: OSError) -> Exception:
    """What the kernel does not take is wrong by whoever sent it; a full disk is not."""
    if error.errno not in _CANNOT:
        return error
    return CallerError(f"/{entry.path[:200]} cannot be made here: {error.strerror}.")


def _check_length(file: File, length: int) -> None:
    content = content_of(file.entry)
    if content is None or content.length != length:
        raise CallerError(f"/{file.entry.path} has another size than its content.")


def _write(file: File, parts: Iterator[bytes]) -> None:
    """Zeros become holes, wherever they are."""
    descriptor = file.open(_WRITE)
    try:
        rest = b""
        for run in runs(file.entry):
            offset, end = run.offset, run.offset + run.length
            while offset < end:
                rest = rest or next(parts, b"")
                if not rest:
                    raise CallerError(f"/{file.entry.path} is longer than its content.")
                data, rest = rest[: end - offset], rest[end - offset :]
                if data.count(0) != len(data):
                    _write_all(descriptor, data, offset)
                offset += len(data)
        for _ in parts:  # it is checked at its end
            pass
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def _copy(source: File, targets: Iterable[File]) -> None:
    """The same content: shared, where the file system does that."""
    for target in targets:
        content = content_of(source.entry)
        _check_length(target, content.length if content else 0)
        if not _share(source, target):
            _write(target, _content(source))


def _share(source: File, target: File) -> bool:
    one, other = source.entry, target.entry
    if (one.size, one.zeros) != (other.size, other.zeros):
        return False
    here = source.open(_READ)
    try:
        there = target.open(_WRITE)
        try:
            fcntl.ioctl(there, _FICLONE, here)
        finally:
            os.close(there)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False
    finally:
        os.close(here)
    return True


def _content(file: File) -> Iterator[bytes]:
    descriptor = file.open(_READ)
    try:
        for run in runs(file.entry):
            for piece in pieces(run):
                yield os.pread(descriptor, piece.length, piece.offset)
    finally:
        os.close(descriptor)
