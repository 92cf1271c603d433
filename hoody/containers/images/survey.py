"""The last look at a root file system: what is in it, and that nothing of it does harm."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from attrs import frozen

from hoody.containers.images.budget import Notes


@frozen
class Survey:
    """
    @ivar size: bytes of all files, each counted once, holes as if they were filled.
    @ivar entries: the root too.
    """

    size: int
    entries: int


def survey(notes: Notes, root: bytes = b"/") -> Survey:
    """
    Look at all, and make harmless what has come past the other checks, or by other ways:
    Debian's own packages bring devices, setuid programs and file capabilities.
    """
    size, entries, linked = 0, 0, set()
    for path, status in _walk(root):
        mode = status.st_mode
        if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode):
            os.unlink(path)
            notes.add("a device or socket was left out; every container has the usual ones", path)
            continue
        entries += 1
        if stat.S_ISREG(mode):
            _disarm(path, status, notes)
            if status.st_ino not in linked:
                size += status.st_size
            if status.st_nlink > 1:
                linked.add(status.st_ino)
    return Survey(size, entries)


def _disarm(path: bytes, status: os.stat_result, notes: Notes) -> None:
    armed = status.st_mode & (stat.S_ISUID | stat.S_ISGID)
    if armed or b"security.capability" in _attributes(path):
        # With the owner, the kernel takes away the bits and the file capabilities
        # (chown(2), capabilities(7)); for the latter there is no other way without
        # the right to give them.
        os.chown(path, status.st_uid, status.st_gid)
        os.chmod(path, stat.S_IMODE(status.st_mode) & 0o777)
        notes.add("its setuid or setgid bit, or file capability, was taken away", path)


def _attributes(path: bytes) -> list[bytes]:
    return [os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False)]


def _walk(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    waiting = [root]
    while waiting:
        path = waiting.pop()
        status = os.lstat(path)
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            folder = path.rstrip(b"/") + b"/"
            waiting += [folder + name for name in os.listdir(path)]
