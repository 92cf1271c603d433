"""
Whom a container knows, as its files say: it need not run for that.

What is inside may be hostile: no link is followed, nothing but a plain file is read, and of that
no more than a little. Whoever runs something as a user asks the container itself.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from hoody.containers.container import Container
from hoody.containers.storage import ROOT, Storage

MOST = 1 << 20
"""Bytes of a list of users that are read; a longer one says nothing."""
_FOLDER, _FILE = "etc", "passwd"
_OPAQUE = "trusted.overlay.opaque"
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Untold(Exception):
    """The files do not say."""


def knows(storage: Storage, container: Container, user: str) -> bool | None:
    """
    Whether there is a user of this name. To be called from a thread.

    @return: C{None} if that cannot be told.
    """
    if any(_covers(volume.path) for volume in container.volumes):
        return None
    upper = storage.state_path(container.id) / ROOT / "upper"
    try:
        return user in _names(_passwd(upper, storage.image_path(container.image_id)))
    except (OSError, Untold):
        return None


def _covers(path: str) -> bool:
    """Whether what is at this path inside may be in the way of what its root says."""
    return path.rstrip("/") in (f"/{_FOLDER}", f"/{_FOLDER}/{_FILE}")


def _passwd(upper: Path, image: Path) -> bytes:
    """
    As overlayfs merges them (Documentation/filesystems/overlayfs.rst): what is above hides what
    is below, be it there or not.
    """
    top = _open(upper, os.O_DIRECTORY)
    try:
        try:
            folder = _open(_FOLDER, os.O_DIRECTORY, top)
        except FileNotFoundError:
            return _below(image)
    finally:
        os.close(top)
    try:
        return _read(folder)
    except FileNotFoundError:
        if _is_opaque(folder):
            raise Untold from None
        return _below(image)
    finally:
        os.close(folder)


def _below(image: Path) -> bytes:
    top = _open(image, os.O_DIRECTORY)
    try:
        folder = _open(_FOLDER, os.O_DIRECTORY, top)
    finally:
        os.close(top)
    try:
        return _read(folder)
    finally:
        os.close(folder)


def _open(path: Path | str, flags: int, within: int | None = None) -> int:
    return os.open(path, _FLAGS | flags, dir_fd=within)


def _read(folder: int) -> bytes:
    # Of a pipe, or of a device that stands for what was deleted, nobody waits for anything.
    descriptor = _open(_FILE, os.O_NONBLOCK | os.O_NOCTTY, folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST:
            raise Untold
        said = os.read(descriptor, MOST + 1)
    finally:
        os.close(descriptor)
    if len(said) > MOST:
        raise Untold
    return said


def _is_opaque(folder: int) -> bool:
    try:
        return os.getxattr(folder, _OPAQUE) == b"y"
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return False


def _names(passwd: bytes) -> set[str]:
    """passwd(5): the first of seven fields."""
    lines = passwd.decode("utf-8", "replace").splitlines()
    return {line.partition(":")[0] for line in lines if line.count(":") >= 2}
