"""What was uploaded: by what is in it, a root file system, or an image in layers."""

from __future__ import annotations

import os
from collections.abc import Callable

from attrs import define, field

from hoody.containers.images.budget import Budget
from hoody.containers.images.files import Entries, Folder, look, spool
from hoody.containers.images.oci import Layered
from hoody.containers.images.orders import Defaults
from hoody.containers.images.streams import Part, Source, is_compressed, opened
from hoody.containers.images.tree import Tree
from hoody.containers.images.unpacking import Unpacking
from hoody.errors import CallerError, HoodyError


@define
class Upload:
    """@ivar path: of a file, which may be anything."""

    path: str
    budget: Budget
    unpacking: Callable[[Tree], Unpacking]
    _file: int = field(default=-1, init=False)

    def prepare(self) -> None:
        try:
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise HoodyError(f"file: {self.path}: {error.strerror}.") from None
        if not os.fstat(self._file).st_size:
            raise CallerError("The upload is empty; send a root file system as a tar archive.")

    def build(self, tree: Tree) -> Defaults:
        unpacking = self.unpacking(tree)
        entries = self._entries()
        if entries is not None:
            return Layered(entries, unpacking).build()
        unpacking.archive(self._opened(self.budget))
        return Defaults()

    def _entries(self) -> Entries | None:
        """Those of an image in layers. Each look has a budget of its own."""
        found = self._look()
        if found is None or not is_compressed(self._file):
            return found
        self._file = spool(self._opened(self._fresh()), self.budget)
        return self._look()

    def _look(self) -> Entries | None:
        budget = self._fresh()
        return look(self._opened(budget), self._file, budget)

    def _opened(self, budget: Budget) -> Source:
        return opened(Part.whole(self._file), budget)

    def _fresh(self) -> Budget:
        return Budget(self.budget.limits)


@define
class Layout:
    """@ivar path: of an OCI layout's folder, with C{:REF} behind it or without."""

    path: str
    unpacking: Callable[[Tree], Unpacking]
    _folder: int = field(default=-1, init=False)
    _reference: str | None = field(default=None, init=False)

    def prepare(self) -> None:
        path = self.path
        if not os.path.isdir(path) and ":" in os.path.basename(path):
            path, _, self._reference = path.rpartition(":")
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            self._folder = os.open(path, flags)
        except OSError as error:
            raise CallerError(f"layout: {path}: {error.strerror}; give its folder.") from None
        if not os.path.exists(os.path.join(path, "oci-layout")):
            raise CallerError(f"layout: {path} is no OCI layout: it has no oci-layout.")

    def build(self, tree: Tree) -> Defaults:
        return Layered(Folder(self._folder), self.unpacking(tree), self._reference).build()
