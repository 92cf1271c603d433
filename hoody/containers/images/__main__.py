"""
The process that makes the root file system of an image, so that the server need not wait,
and need not trust it: C{python -m hoody.containers.images}, see
L{hoody.containers.images.orders}.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import traceback
from typing import Protocol

import msgspec
from attrs import define, field

from hoody.containers.images import confinement
from hoody.containers.images.archives import Layout, Upload
from hoody.containers.images.budget import Budget, Notes
from hoody.containers.images.busybox import Busybox
from hoody.containers.images.orders import Defaults, Image, Line, Order, read_order, write
from hoody.containers.images.survey import survey
from hoody.containers.images.tree import Attributes, Tree
from hoody.containers.images.unpacking import Unpacking
from hoody.errors import CallerError, HoodyError, Unavailable

_PAUSE = 0.25
"""Seconds between two sentences of progress."""
_MOST_ORDER = 1024**2
_FULL = (errno.ENOSPC, errno.EDQUOT)
_THEIRS = {
    errno.ENAMETOOLONG: "a name in the archive leads to too long a path",
    errno.ELOOP: "links in the archive lead in circles",
    errno.ENOTDIR: "a file in the archive is used as a folder",
    errno.EMLINK: "a file in the archive has too many names",
    errno.EFBIG: "a file in the archive is larger than files can be",
    errno.EINVAL: "something in the archive cannot be on this file system",
}


class IMaker(Protocol):
    """
    One way to come to a root file system. C{prepare} may use this machine and the network;
    C{build} has nothing but the tree, and what it has opened before.
    """

    def prepare(self) -> None: ...
    def build(self, tree: Tree) -> Defaults: ...


@define
class Answer:
    """Lines on stdout."""

    _told: float = field(default=0.0, init=False)

    def say(self, sentence: str) -> None:
        now = time.monotonic()
        if now - self._told >= _PAUSE:
            self._told = now
            self.write(Line(progress=sentence))

    def write(self, line: Line) -> None:
        data = write(line)
        while data:
            data = data[os.write(1, data) :]


def make(order: Order, answer: Answer) -> Image:
    confinement.require_root()
    into = _open_empty(order.into)
    notes = Notes()
    maker = _maker(order, notes, answer)
    maker.prepare()
    confinement.enter(into)
    tree = Tree(notes)
    tree.folder([], Attributes(mode=0o755))
    _end_after(order.seconds)
    defaults = maker.build(tree)
    tree.furnish()
    answer.say("looking at what was made")
    found = survey(notes)
    return Image(
        **msgspec.structs.asdict(defaults),
        size=found.size,
        entries=found.entries,
        skipped=notes.told(),
    )


def _end_after(seconds: float) -> None:
    """An archive can be slow to unpack by intent."""

    def late(number: int, frame: object) -> None:
        raise Unavailable(
            f"The image took longer than {seconds:.0f} s to be unpacked; make it smaller."
        )

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _maker(order: Order, notes: Notes, answer: Answer) -> IMaker:
    budget = Budget(order.limits)
    if order.kind == "busybox":
        return Busybox()

    def unpacking(tree: Tree) -> Unpacking:
        return Unpacking(tree, budget, notes, answer.say)

    if order.kind == "archive":
        return Upload(_needed(order.file, "file"), budget, unpacking)
    if order.kind == "layout":
        return Layout(_needed(order.layout, "layout"), unpacking)
    # What these two need takes as long to import as all the rest.
    if order.kind == "registry":
        from hoody.containers.images.registry import Registry

        return Registry(order, unpacking, answer.say)
    from hoody.containers.images.debian import Debian

    return Debian(order, answer.say)


def _needed(value: str | None, name: str) -> str:
    if not value:
        raise CallerError(f"{name}: it is needed for an image of this kind; give it.")
    return value


def _open_empty(path: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise HoodyError(f"into: {path} is no folder ({error.strerror}); make it.") from None
    if os.listdir(descriptor):
        raise HoodyError(f"into: {path} is not empty; give an empty folder.")
    return descriptor


def _as_error(error: BaseException) -> HoodyError:
    """What went wrong, as a sentence and by whose doing."""
    if isinstance(error, HoodyError):
        return error
    if isinstance(error, MemoryError | RecursionError):
        return CallerError("The archive takes too much memory to be read; make it simpler.")
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL:
        return Unavailable("The disk for images is full; delete some, or give it more room.")
    if number in _THEIRS:
        return CallerError(f"The image cannot be made: {_THEIRS[number]}; make it anew without.")
    if isinstance(error, msgspec.MsgspecError):
        return CallerError(f"The order is none: {error}.")
    traceback.print_exception(error)
    return HoodyError(f"The image could not be made, by a fault of the server's: {error!r}.")


def main() -> int:
    answer = Answer()
    try:
        order = read_order(sys.stdin.buffer.read(_MOST_ORDER))
        confinement.die_with_parent(order.parent)
        answer.write(Line(done=make(order, answer)))
    except BrokenPipeError:
        return 1  # nobody listens
    except Exception as error:
        found = _as_error(error)
        answer.write(Line(error=found.sentence, status=found.status))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
