"""
The process that reads what is in snapshots, so that the server need not wait:
C{python -m hoody.manifests}, see L{hoody.manifests.orders}.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from hoody.containers.images import confinement
from hoody.errors import CallerError, HoodyError, Unavailable
from hoody.manifests.arriving import arrive
from hoody.manifests.differences import diff
from hoody.manifests.errands import Arrived, Left
from hoody.manifests.leaving import leave
from hoody.manifests.manifest import ROOT, Entry
from hoody.manifests.orders import (
    Compared,
    Done,
    Line,
    Order,
    Progress,
    Scanned,
    Shared,
    Side,
    Totals,
    Verified,
    read_order,
    write,
)
from hoody.manifests.record import Damaged, Record, link_to, load, save
from hoody.manifests.scan import Reading, image_record, scan
from hoody.manifests.verification import Expected, Snapshot, Verification

_MOST_MEMORY = 3 << 29
"""Bytes: of a million entries, some hundred for each, twice."""
_PAUSE = 0.25
"""Seconds between two lines of progress."""
_MOST_ORDER = 16 * 1024**2
_NICE = 10
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Answer:
    """Lines, on stdout, or where that is something else on another descriptor."""

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._told = time.monotonic()

    def say(self, sentence: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._told >= _PAUSE:
            self._told = now
            self.write(Line(progress=Progress(sentence=sentence, done=done, total=total)))

    def write(self, line: Line) -> None:
        _write(self._descriptor, write(line))


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _scan(order: Order, answer: Answer) -> Scanned:
    reading = Reading(answer.say)
    image = image_record(Path(order.image), Path(order.image_manifest), reading)
    base = _base(order.base)
    found = scan(_trees(order), image, base, reading)
    return Scanned(
        digest=found.record.header.digest,
        record_sha256=_save(found.record, base, order),
        size=found.size,
        entries=sum(len(entries) for entries in found.record.trees.values()),
        bytes_read=found.bytes_read,
    )


def _save(record: Record, base: Record | None, order: Order) -> str:
    """Of what is as it was, the earlier record will do: a second one would only take room."""
    if base is None or order.base is None or not record.says_the_same_as(base):
        return save(record, Path(order.into))
    link_to(Path(order.base), Path(order.into))
    return base.checksum


def _base(path: str | None) -> Record | None:
    """One that is of no use only makes it slower."""
    try:
        return load(Path(path)) if path else None
    except Damaged:
        return None


def _trees(order: Order) -> dict[str, Path]:
    if ROOT not in order.trees:
        raise CallerError(f"trees: {ROOT} is missing.")
    return {name: Path(path) for name, path in order.trees.items()}


def _verify(order: Order, answer: Answer) -> Verified:
    reading = Reading(answer.say)
    found = Verification(reading)
    snapshot = Snapshot(
        trees=_trees(order),
        record=Path(order.record),
        image_record=Path(order.image_manifest),
    )
    expected = Expected(digest=order.digest, record_sha256=order.record_sha256)
    found.run(snapshot, Path(order.image), expected)
    return Verified(
        valid=not found.mismatches,
        digest=found.digest,
        mismatches=tuple(found.mismatches),
        entries=found.entries,
        bytes_read=reading.done,
    )


def _diff(order: Order, answer: Answer) -> Compared:
    images: dict[str, Record] = {}
    reading = Reading(answer.say)

    def whole(side: Side | None) -> dict[str, list[Entry]]:
        if side is None:
            raise CallerError("before and after are needed to compare; give both.")
        place = side.image_manifest
        if place not in images:
            images[place] = image_record(Path(side.image), Path(place), reading)
        return load(Path(side.record)).whole(images[place])

    found = diff(whole(order.before), whole(order.after))
    page = found.page(order.offset, order.limit)
    return Compared(
        added=page.added,
        changed=page.changed,
        removed=page.removed,
        totals=Totals(
            added=len(found.added), changed=len(found.changed), removed=len(found.removed)
        ),
    )


def _share(order: Order, answer: Answer) -> Shared:
    from hoody.manifests import deduping  # brings much along that others do not wait for

    deduping.be_in_nobodys_way()
    return deduping.Sweep(Path(order.storage), Reading(answer.say), order.rate).run()


def _export(order: Order, answer: Answer) -> Left:
    assert order.leaving is not None
    sent = leave(
        order.leaving,
        _trees(order),
        Path(order.image),
        Path(order.image_manifest),
        lambda data: _write(1, data),
        Reading(answer.say),
    )
    return Left(bytes_sent=sent)


def _import(order: Order, answer: Answer) -> Arrived:
    assert order.arriving is not None
    return arrive(order.arriving, Reading(answer.say))


_WAYS: dict[str, Callable[[Order, Answer], Done]] = {
    "scan": _scan,
    "verify": _verify,
    "diff": _diff,
    "share": _share,
    "export": _export,
    "import": _import,
}


def _as_error(error: Exception) -> HoodyError:
    """What went wrong, as a sentence and by whose doing."""
    if isinstance(error, HoodyError):
        return error
    if isinstance(error, MemoryError):
        return CallerError("There is too much in the snapshot to be read in the memory there is.")
    if isinstance(error, OSError) and error.errno in _FULL:
        return Unavailable("The disk is full; delete some snapshots, or give it more room.")
    if isinstance(error, msgspec.MsgspecError):
        return CallerError(f"The order is none: {error}.")
    sys.excepthook(type(error), error, error.__traceback__)
    return HoodyError(f"The snapshot could not be read, by a fault of the server's: {error!r}.")


def _be_bounded() -> None:
    """What is read is a container's own, which may have many files to fill our memory with."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, hard))
    Path("/proc/self/oom_score_adj").write_text("1000")  # proc(5): this goes first


def main() -> int:
    gc.disable()  # it ends soon, and has a million small things that refer to no other
    answer = Answer()
    try:
        order = read_order(sys.stdin.buffer.read(_MOST_ORDER))
        answer = Answer(2 if order.kind == "export" else 1)
        confinement.die_with_parent(order.parent)
        os.nice(_NICE)
        _be_bounded()
        answer.write(Line(done=_WAYS[order.kind](order, answer)))
    except BrokenPipeError:
        return 1  # nobody listens
    except Exception as error:
        found = _as_error(error)
        answer.write(Line(error=found.sentence, status=found.status))
        return 1
    return 0


if __name__ == "__main__":
    os._exit(main())  # all has been said: to tidy up first takes 10 ms, in which somebody waits
