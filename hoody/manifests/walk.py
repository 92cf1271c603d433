"""
All that is in a folder of a file system that cannot change: names of any bytes, ever so deep.

Each folder is opened from the one above, and left by C{..}: so no path is too long for the
kernel, no link is followed, and only one is open at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from hoody.errors import CallerError
from hoody.manifests.names import escape

MOST_PATH = 64 * 1024
"""Characters of a path, escaped."""
MOST_PATHS = 128 << 20
"""Characters of all paths of a tree: files in a deep folder could fill any memory with them."""
EMPTY_SUBVOLUME = 2
"""The inode number that stands in a snapshot where another subvolume was (linux/btrfs_tree.h)."""

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC


class Visit(NamedTuple):
    """
    @ivar path: escaped, from the top.
    @ivar descriptor: until the next visit: of the folder that it is in, or, of a folder, its
        own.
    @ivar name: in that folder; empty of a folder.
    """

    path: str
    descriptor: int
    name: str
    inode: int


class Walk:
    """@ivar trouble: is told of folders that cannot be read: the walk goes past them."""

    def __init__(self, top: int, trouble: Callable[[str, OSError], None]) -> None:
        self._descriptor = top
        self._trouble = trouble
        self._paths: list[str] = []
        self._below: list[list[str]] = []
        self._characters = 0

    def __iter__(self) -> Iterator[Visit]:
        """The top, and each folder before what is in it. Closes the top."""
        try:
            yield from self._folder("")
            while self._below:
                if not self._below[-1]:
                    self._leave()
                elif (path := self._enter(self._below[-1].pop())) is not None:
                    yield from self._folder(path)
        finally:
            os.close(self._descriptor)

    def _folder(self, path: str) -> Iterator[Visit]:
        inode = os.fstat(self._descriptor).st_ino
        self._paths.append(path)
        self._below.append([])
        yield Visit(path, self._descriptor, "", inode)
        if inode != EMPTY_SUBVOLUME:
            yield from self._names(path)

    def _names(self, path: str) -> Iterator[Visit]:
        try:
            with os.scandir(self._descriptor) as names:
                for each in names:
                    if each.is_dir(follow_symlinks=False):
                        self._below[-1].append(each.name)
                    else:
                        inner = self._joined(path, each.name)
                        yield Visit(inner, self._descriptor, each.name, each.inode())
        except OSError as error:
            self._trouble(path, error)

    def _joined(self, path: str, name: str) -> str:
        inner = f"{path}/{escape(name)}" if path else escape(name)
        self._characters += len(inner)
        if len(inner) > MOST_PATH or self._characters > MOST_PATHS:
            raise CallerError(
                "There are folders so deep in each other that no digest is made: paths may have"
                f" {MOST_PATH} characters, and all together {MOST_PATHS}; move them up."
            )
        return inner

    def _enter(self, name: str) -> str | None:
        path = self._joined(self._paths[-1], name)
        try:
            self._open(name)
        except OSError as error:
            self._trouble(path, error)
            return None
        return path

    def _leave(self) -> None:
        self._paths.pop()
        self._below.pop()
        if self._below:
            self._open("..")

    def _open(self, name: str) -> None:
        descriptor = os.open(name, _FLAGS, dir_fd=self._descriptor)
        os.close(self._descriptor)
        self._descriptor = descriptor
