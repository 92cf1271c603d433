"""What was uploaded: by what is in it, a root file system, or an image in layers."""

from __future__ import annotations

import os
from collections.abc import Callable

from attrs import define, field

from hoody.containers.images.budget import Budget
from hoody.containers.images.orders import Defaults
from hoody.containers.images.streams import Part, opened
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
        source = opened(Part.whole(self._file), self.budget)
        self.unpacking(tree).archive(source)
        return Defaults()
