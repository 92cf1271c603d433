"""
Coming to the folders of a tree, one after the other, by the paths of its manifest.

Each is opened from the one beside it, by one name or by C{..}: so no link is followed, no path
is too long for the kernel, and nothing outside of the tree is come to, as long as nobody else
changes it.
"""

from __future__ import annotations

import os
from pathlib import Path

from hoody.manifests.names import unescape

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC


def parted(path: str) -> tuple[str, str]:
    """The folder that something is in, and its own name, unescaped; C{.} is the top's."""
    folder, _, name = path.rpartition("/")
    return folder, unescape(name) or "."


class Folders:
    """Those of one tree."""

    def __init__(self, top: Path) -> None:
        self._descriptor = os.open(top, _FLAGS)
        self._here: list[str] = []
        self._reached = ""

    def at(self, path: str) -> int:
        """Its descriptor, until the next one is asked for. @param path: escaped."""
        if path != self._reached:
            names = path.split("/") if path else []
            shared = _shared(self._here, names)
            while len(self._here) > shared:
                self._open("..")
                self._here.pop()
            for name in names[shared:]:
                self._open(unescape(name))
                self._here.append(name)
            self._reached = path
        return self._descriptor

    def place(self, path: str) -> tuple[int, str]:
        """The descriptor of the folder that something is in, and its name there."""
        folder, name = parted(path)
        return self.at(folder), name

    def close(self) -> None:
        os.close(self._descriptor)

    def _open(self, name: str) -> None:
        self._reached = "/"  # no folder, if this raises
        descriptor = os.open(name, _FLAGS, dir_fd=self._descriptor)
        os.close(self._descriptor)
        self._descriptor = descriptor


def _shared(one: list[str], other: list[str]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
