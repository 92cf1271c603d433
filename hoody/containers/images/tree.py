"""
The root file system that is being made. All paths are absolute, and absolute is within it:
L{hoody.containers.images.confinement} has made it C{/}.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Set
from typing import TypeVar

from attrs import define, field

from hoody.containers.images.budget import Notes, shown
from hoody.errors import CallerError

T = TypeVar("T")

MOST_NAME = 3583
"""
Bytes of a path with its first slash. PATH_MAX is 4096 with the end; the server sees the same
files behind names of folders of its own.
"""
MOST_COMPONENT = 255
_NOBODY = 65534
_MOST_ID = 65535
"""A container has so many ids (0 to that) of its own."""
_LATEST = 2**33 * 10**9
_OTHERS_OVERLAY = b"user.overlay."

MOUNT_POINTS = (b"/proc", b"/sys", b"/dev", b"/run", b"/tmp", b"/etc")
MOUNTED_FILES = (b"/etc/hosts", b"/etc/hostname", b"/etc/resolv.conf")


def parts_of(name: bytes) -> list[bytes]:
    """
    A name in an archive as a path within the root; the root itself has no parts.

    @raise CallerError: for what no honest archive has.
    """
    if b"\0" in name:
        raise CallerError(f"{shown(name)}: the name of an entry has a NUL in it; leave it out.")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise CallerError(
            f"{shown(name)}: the name of an entry leads out of the archive by '..'; make the"
            " archive from within the folder that is to be the root: tar -C FOLDER -cf - ."
        )
    if len(b"/".join(parts)) >= MOST_NAME:
        raise _too_long(name)
    if any(len(part) > MOST_COMPONENT for part in parts):
        raise CallerError(
            f"{shown(name)}: a name may have {MOST_COMPONENT} bytes at most between two slashes."
        )
    return parts


@define(kw_only=True)
class Attributes:
    """
    How an entry is to be. Owners that no container can have become nobody's.

    Set-user-id and set-group-id bits are taken from files, and so are file capabilities:
    no container may gain rights by them (C{noNewPrivileges}), and to the machine itself,
    which sees the same files with the same owners, they would give root. On a folder
    setgid means but that what is made in it belongs to its group, and stays.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    xattrs: dict[bytes, bytes] = field(factory=dict)

    def harmless(self, name: bytes, folder: bool, notes: Notes) -> Attributes:
        kept = 0o3777 if folder else 0o777
        if self.mode & ~kept & (stat.S_ISUID | stat.S_ISGID):
            notes.add("its setuid or setgid bit was taken away", name)
        ids = [self.uid, self.gid]
        if not all(0 <= number <= _MOST_ID for number in ids):
            notes.add(f"its owner, over {_MOST_ID}, became nobody ({_NOBODY})", name)
            ids = [number if 0 <= number <= _MOST_ID else _NOBODY for number in ids]
        xattrs = {}
        for key, value in self.xattrs.items():
            if key.startswith(b"user.") and not key.startswith(_OTHERS_OVERLAY):
                xattrs[key] = value
            else:
                notes.add(f"its attribute {shown(key)[:40]} was left out", name)
        return Attributes(
            mode=self.mode & kept,
            uid=ids[0],
            gid=ids[1],
            mtime=min(max(self.mtime, 0), _LATEST),
            xattrs=xattrs,
        )


@define
class Tree:
    """
    What is made in it, one entry after the other.

    A link in the last place of a name is never followed: the entry takes its place. One
    before that is, as containerd and Docker do it (GNU tar does too, if it does not lead
    out of the folder that it unpacks to): an image whose lower layer has C{/lib ->
    usr/lib} may bring C{lib/libc.so} in an upper one. With nothing outside the root, it
    can lead to no other place than the entry could have named itself; but it is noted.

    The time of a folder changes with what is made in it, and is put back when the next
    entry is for another folder; so no list of folders is needed, which could be endless.
    """

    notes: Notes
    _known: tuple[list[bytes], bytes] | None = field(default=None, init=False)
    """The last folder that was looked for, and where it really is."""
    _entered: tuple[bytes, int] | None = field(default=None, init=False)
    """The folder that is being changed, and the time to put back."""

    def folder(self, parts: list[bytes], attributes: Attributes) -> bytes:
        """Where it really is, as of all of these."""
        if not parts:
            self.leave()
            self._dress(b"/", attributes, folder=True)
            return b"/"

        def make(path: bytes) -> None:
            os.mkdir(path, 0o700)

        path = self._place(parts)
        if not _is_folder(path):
            self._instead(path, make)
        self._dress(path, attributes, folder=True)
        return path

    def file(
        self,
        parts: list[bytes],
        attributes: Attributes,
        size: int = 0,
        data: Iterable[tuple[int, bytes]] = (),
    ) -> bytes:
        """@param data: (offset, bytes), ascending; what is left out, or all zeros, are holes."""
        path = self._place(parts)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = self._instead(path, lambda path: os.open(path, flags, 0o600))
        try:
            for offset, piece in data:
                if piece.count(0) != len(piece):
                    _write(descriptor, piece, offset)
            os.ftruncate(descriptor, size)
            self._dress(descriptor, attributes, name=path)
        finally:
            os.close(descriptor)
        return path

    def symlink(self, parts: list[bytes], target: bytes, attributes: Attributes) -> bytes:
        name = b"/".join(parts)
        if not target or b"\0" in target or len(target) > MOST_NAME:
            raise CallerError(f"{shown(name)}: it is a link to no name that a file could have.")
        path = self._place(parts)
        self._instead(path, lambda path: os.symlink(target, path))
        kept = attributes.harmless(path, False, self.notes)
        os.chown(path, kept.uid, kept.gid, follow_symlinks=False)
        os.utime(path, ns=(kept.mtime, kept.mtime), follow_symlinks=False)
        return path

    def fifo(self, parts: list[bytes], attributes: Attributes) -> bytes:
        path = self._place(parts)
        self._instead(path, lambda path: os.mkfifo(path, 0o600))
        self._dress(path, attributes)
        return path

    def link(self, parts: list[bytes], to: list[bytes]) -> bytes:
        """One more name of a file that is there already; of a link, it is one of the link."""
        name = b"/".join(parts)
        source = self._place(to) if to else b"/"
        path = self._place(parts)
        if path != source:
            try:
                self._instead(path, lambda path: os.link(source, path, follow_symlinks=False))
            except OSError:
                if os.path.isfile(source):
                    raise
                raise CallerError(
                    f"{shown(name)}: it is a hard link to {shown(b'/'.join(to))}, which is no"
                    " file that came before it; make the archive anew, of the whole folder."
                ) from None
        return path

    def hide(self, parts: list[bytes], keep: Set[bytes]) -> None:
        """
        Remove what is there, if it is there, and all below.

        @param keep: where that stays which has just been made.
        """
        if os.path.lexists(b"/" + b"/".join(parts)):
            self._remove(self._place(parts), keep)

    def empty(self, parts: list[bytes], keep: Set[bytes]) -> None:
        """Remove what is in a folder, but not what is in C{keep}."""
        if os.path.isdir(b"/" + b"/".join(parts)):
            folder = self._find(parts)
            for name in os.listdir(folder):
                self._remove(_joined(folder, name), keep)

    def furnish(self) -> None:
        """Have true folders and files where the runtime mounts something."""
        for path in MOUNT_POINTS:
            if not _is_folder(path):
                mode = 0o1777 if path == b"/tmp" else 0o755
                if os.path.lexists(path):
                    self.notes.add("it became a folder, as something is mounted there", path)
                self.folder([path[1:]], Attributes(mode=mode))
        for path in MOUNTED_FILES:
            if not (os.path.isfile(path) and not os.path.islink(path)):
                if os.path.lexists(path):
                    self.notes.add("it became an empty file, as one is mounted there", path)
                self.file(parts_of(path), Attributes(mode=0o644))
        self.leave()

    def leave(self) -> None:
        """Put back the time of the folder that was changed last."""
        if self._entered is not None:
            path, mtime = self._entered
            os.utime(path, ns=(mtime, mtime))
            self._entered = None

    def _enter(self, folder: bytes) -> None:
        if self._entered is None or self._entered[0] != folder:
            self.leave()
            self._entered = (folder, os.stat(folder).st_mtime_ns)

    def _place(self, parts: list[bytes]) -> bytes:
        folder = self._find(parts[:-1])
        self._enter(folder)
        path = _joined(folder, parts[-1])
        if len(path) > MOST_NAME:  # by way of links
            raise _too_long(path)
        return path

    def _find(self, parts: list[bytes]) -> bytes:
        if self._known is not None and self._known[0] == parts:
            return self._known[1]
        path = b"/"
        for part in parts:
            path = self._step(path, part)
        self._known = (parts, path)
        return path

    def _step(self, folder: bytes, part: bytes) -> bytes:
        path = _joined(folder, part)
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            self._enter(folder)
            os.mkdir(path, 0o755)
            os.chown(path, 0, 0)
            os.utime(path, ns=(0, 0))
            return path
        if stat.S_ISDIR(mode):
            return path
        if not stat.S_ISLNK(mode):
            raise CallerError(f"{shown(path)}: it is no folder, and yet there are entries in it.")
        self.notes.add("it is a link, and what came below it is where it leads to", path)
        real = b"/"
        for step in os.path.realpath(path).split(b"/"):
            if step:
                if os.path.islink(_joined(real, step)):
                    raise CallerError(f"{shown(path)}: it is a link that leads in a circle.")
                real = self._step(real, step)
        return real

    def _instead(self, path: bytes, make: Callable[[bytes], T]) -> T:
        try:
            return make(path)
        except FileExistsError:
            self._remove(path)
            return make(path)

    def _remove(self, path: bytes, keep: Set[bytes] = frozenset()) -> None:
        self._known = None
        self._enter(os.path.dirname(path))
        remove(path, keep)

    def _dress(
        self,
        what: bytes | int,
        attributes: Attributes,
        *,
        name: bytes | None = None,
        folder: bool = False,
    ) -> None:
        name = name if isinstance(what, int) else what
        assert name is not None
        kept = attributes.harmless(name, folder, self.notes)
        os.chown(what, kept.uid, kept.gid)
        os.chmod(what, kept.mode)
        for key, value in kept.xattrs.items():
            try:
                os.setxattr(what, key, value)
            except OSError as error:
                self.notes.add(f"an attribute of it was left out ({error.strerror})", name)
        os.utime(what, ns=(kept.mtime, kept.mtime))


def remove(path: bytes, keep: Set[bytes] = frozenset()) -> None:
    """
    Remove what is there, with all below, however deep.

    @param keep: what stays, with the folders above it.
    """
    waiting = [(path, False)]
    while waiting:
        path, emptied = waiting.pop()
        if emptied:
            if path not in keep:
                try:
                    os.rmdir(path)
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY:
                        raise
        elif _is_folder(path):
            waiting.append((path, True))
            waiting += [(_joined(path, name), False) for name in os.listdir(path)]
        elif path not in keep:
            os.unlink(path)


def _too_long(name: bytes) -> CallerError:
    return CallerError(f"{shown(name)}: names of entries may have {MOST_NAME - 1} bytes at most.")


def _joined(folder: bytes, name: bytes) -> bytes:
    return folder.rstrip(b"/") + b"/" + name


def _is_folder(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _write(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
