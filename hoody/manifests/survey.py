"""The entries of one tree: what has not changed is taken over, all else is looked at."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from hoody.manifests import content
from hoody.manifests.manifest import Entry, Kind, Mark, grouped, replaced
from hoody.manifests.names import escape
from hoody.manifests.walk import EMPTY_SUBVOLUME, Visit, Walk

_OVERLAY = "trusted.overlay."
_TOP_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}

Trouble = Callable[[str, OSError], None]


class Survey:
    """
    @ivar known: entries by inode, of what is sure to be as it was.
    @ivar tell: is called with each number of bytes that were read.
    @ivar trouble: is told of a path that cannot be read; what it does not raise for is left out.
    """

    def __init__(
        self, known: Mapping[int, Entry], tell: Callable[[int], None], trouble: Trouble
    ) -> None:
        self._known = dict(known)
        self._tell = tell
        self._trouble = trouble

    def entries(self, top: Path) -> list[Entry]:
        """In order. @param top: on a subvolume that cannot be changed."""
        found = []
        for visit in Walk(os.open(top, _TOP_FLAGS), self._trouble):
            try:
                found.append(self._entry(visit))
            except OSError as error:
                self._trouble(visit.path, error)
        return grouped(found)

    def _entry(self, visit: Visit) -> Entry:
        known = self._known.get(visit.inode)
        if known is not None:
            return known if known.path == visit.path else replaced(known, path=visit.path)
        looked = self._look(visit)
        if visit.name:  # it may have more than one
            self._known[visit.inode] = looked
        return looked

    def _look(self, visit: Visit) -> Entry:
        status = _status(visit)
        xattrs, mark = ((), "") if visit.inode == EMPTY_SUBVOLUME else _xattrs(visit)
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        digest, zeros = self._content(visit, status) if kind == "file" else ("", ())
        return Entry(
            path=visit.path,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            size=status.st_size if kind == "file" else 0,
            digest=digest,
            zeros=zeros,
            target=_target(visit) if kind == "link" else "",
            device=_device(status) if kind in ("char", "block") else "",
            xattrs=xattrs,
            mark=mark,
            inode=visit.inode,
        )

    def _content(self, visit: Visit, status: os.stat_result) -> content.Content:
        if not status.st_size:
            return content.EMPTY
        descriptor = os.open(visit.name, _FILE_FLAGS, dir_fd=visit.descriptor)
        try:
            return content.read(descriptor, status.st_size, self._tell)
        finally:
            os.close(descriptor)


def _status(visit: Visit) -> os.stat_result:
    if not visit.name:
        return os.fstat(visit.descriptor)
    return os.stat(visit.name, dir_fd=visit.descriptor, follow_symlinks=False)


def _target(visit: Visit) -> str:
    return escape(os.readlink(visit.name, dir_fd=visit.descriptor))


def _device(status: os.stat_result) -> str:
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _xattrs(visit: Visit) -> tuple[tuple[tuple[str, bytes], ...], Mark]:
    """By name, in order; and what those of overlayfs say."""
    # No system call takes a folder and a name for them before Linux 6.13.
    place = f"/proc/self/fd/{visit.descriptor}/{visit.name}"
    names = os.listxattr(place, follow_symlinks=False)
    if not names:
        return (), ""
    all_of_them = {name: os.getxattr(place, name, follow_symlinks=False) for name in names}
    kept = ((escape(name), value) for name, value in all_of_them.items() if not _is_overlay(name))
    return tuple(sorted(kept)), _mark(all_of_them, is_folder=not visit.name)


def _is_overlay(name: str) -> bool:
    return name.startswith(_OVERLAY)


def _mark(xattrs: Mapping[str, bytes], *, is_folder: bool) -> Mark:
    if is_folder:
        return "opaque" if xattrs.get(f"{_OVERLAY}opaque") == b"y" else ""
    return "whiteout" if f"{_OVERLAY}whiteout" in xattrs else ""
