"""
Reading what is in snapshots: by processes of their own (C{python -m hoody.manifests}), a few at
a time, as it may be terabytes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from attrs import define, field
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredSemaphore,
    ensureDeferred,
)
from twisted.internet.threads import deferToThread

from hoody import commands
from hoody.commands import CommandFailed
from hoody.containers.container import Container
from hoody.containers.states import RECORD, States
from hoody.containers.storage import subvolumes
from hoody.errors import CallerError, HoodyError, Unavailable
from hoody.manifests.manifest import ROOT, VOLUME
from hoody.manifests.orders import (
    Compared,
    Line,
    Order,
    Progress,
    Scanned,
    Shared,
    Side,
    Verified,
    read_line,
    write,
)
from hoody.snapshots.snapshot import Snapshot
from hoody.units import size_in_words

SECONDS = 7 * 86400.0
"""How long one may take: as long as it reads, it gets on."""
AT_ONCE = 4
OF_ONE = 2
"""So many of one container, so that none keeps all others waiting."""
COMMAND = [sys.executable, "-m", "hoody.manifests"]

_DELETING = "The snapshot was not read: its container is being deleted."

Tell = Callable[[str], None]
"""Given sentences, as it goes."""

T = TypeVar("T")


class NotRead(Unavailable):
    """What is in a snapshot could not be found out."""


@define(eq=False)
class Reading:
    """@ivar _is_deleting: whether a container is being deleted just now."""

    _reactor: Any
    _states: States
    _is_deleting: Callable[[str], bool]
    _places: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(AT_ONCE), init=False)
    _turns: dict[str, DeferredSemaphore] = field(factory=dict, init=False)
    _under_way: dict[str, set[Deferred[Line]]] = field(factory=dict, init=False)

    async def scan(self, container: Container, snapshot_id: str, tell: Tell) -> Scanned:
        """
        Find out what is in one; what that is lies beside it from then on (L{RECORD}).

        @raise NotRead: if it cannot be.
        """
        folder = self._states.storage.snapshot_path(container.id, snapshot_id)

        def order() -> Order:
            base = self._states.base_of(folder)
            return Order(
                kind="scan",
                parent=os.getpid(),
                trees=trees_of(folder),
                base=None if base is None else str(base),
                into=str(folder / RECORD),
                **self.image_of(container),
            )

        return await self._ask(container.id, await _looked_up(order), Scanned, tell)

    async def verify(self, container: Container, snapshot: Snapshot, tell: Tell) -> Verified:
        """Read all of one anew."""
        assert snapshot.digest is not None
        assert snapshot.record is not None
        folder = self._states.storage.snapshot_path(container.id, snapshot.id)
        order = Order(
            kind="verify",
            parent=os.getpid(),
            trees=await _looked_up(lambda: trees_of(folder)),
            record=str(folder / RECORD),
            digest=snapshot.digest,
            record_sha256=snapshot.record,
            **self.image_of(container),
        )
        return await self._ask(container.id, order, Verified, tell)

    async def diff(
        self, container: Container, before: Path, after: Path, offset: int, limit: int
    ) -> Compared:
        """@param before: and C{after}: records."""
        image = self.image_of(container)
        order = Order(
            kind="diff",
            parent=os.getpid(),
            before=Side(record=str(before), **image),
            after=Side(record=str(after), **image),
            offset=offset,
            limit=limit,
        )
        return await self._ask(container.id, order, Compared, tell_nobody)

    async def share(self) -> Shared:
        """Have equal files share their blocks; nobody waits for a place because of that."""
        root = self._states.storage.root
        order = Order(kind="share", parent=os.getpid(), storage=str(root))
        return await self._ask_at_once("", order, Shared, tell_nobody)

    def image_of(self, container: Container) -> dict[str, Any]:
        """As an order has it."""
        storage = self._states.storage
        return {
            "image": str(storage.image_path(container.image_id)),
            "image_manifest": str(storage.image_manifest(container.image_id)),
        }

    def end(self, container_id: str) -> None:
        """
        It is being deleted: nobody needs to know what is in it. What would begin from now on,
        since it has waited for a place or is asked for only now, does not.
        """
        for each in tuple(self._under_way.get(container_id, ())):
            each.cancel()

    async def _ask(self, container_id: str, order: Order, answer: type[T], tell: Tell) -> T:
        turn = self._turns.setdefault(container_id, DeferredSemaphore(OF_ONE))
        await turn.acquire()
        try:
            found: T = await self._places.run(
                lambda: ensureDeferred(self._ask_at_once(container_id, order, answer, tell))
            )
        finally:
            turn.release()
            if turn.tokens == OF_ONE:
                self._turns.pop(container_id, None)
        return found

    async def _ask_at_once(
        self, container_id: str, order: Order, answer: type[T], tell: Tell
    ) -> T:
        if self._is_deleting(container_id):
            raise NotRead(_DELETING)
        conversation: Deferred[Line] = ensureDeferred(
            converse(self._reactor, container_id, order, tell)
        )
        together = self._under_way.setdefault(container_id, set())
        together.add(conversation)
        try:
            last = await conversation
        except CancelledError:
            raise NotRead(_DELETING) from None
        finally:
            together.discard(conversation)
            if not together:
                self._under_way.pop(container_id, None)
        if not isinstance(last.done, answer):
            kind: type[HoodyError] = CallerError if last.status == CallerError.status else NotRead
            raise kind(f"The snapshot could not be read: {last.error}")
        return last.done


async def _looked_up(look: Callable[[], T]) -> T:
    """
    What is done in a thread.

    @raise NotRead: if it is not there, as it may have been deleted meanwhile.
    """
    try:
        return await deferToThread(look)
    except OSError as error:
        raise NotRead(f"The snapshot could not be read: {error.strerror}.") from error


async def converse(reactor: Any, container_id: str, order: Order, tell: Tell) -> Line:
    """
    Have a process do it.

    @param container_id: whose snapshots it is about; empty for those of all.
    @return: its last line; one that has not C{done} has C{error}.
    @raise NotRead: if there could be none.
    """
    last = Line()

    def hear(raw: bytes) -> None:
        nonlocal last
        last = read_line(raw)
        if last.progress is not None:
            tell(in_words(last.progress))

    try:
        output = await commands.run(
            reactor,
            command(order, container_id),
            given=write(order),
            seconds=SECONDS,
            each_line=hear,
            well=False,
            environment=environment(),
        )
    except (CommandFailed, msgspec.MsgspecError) as error:
        raise NotRead(f"The snapshot could not be read: {error}.") from error
    if last.done is None and last.error is None:
        return Line(error=commands.last_line(output.err) or "it broke off")
    return last


def command(order: Order, container_id: str) -> list[str]:
    """Of the process; it says what it does, and to whose snapshots, to who looks at what runs."""
    return [*COMMAND, order.kind, *([container_id] if container_id else [])]


def environment() -> dict[str, str]:
    """Of the process, so that it finds what we have found."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def tell_nobody(_: str) -> None:
    pass


def in_words(progress: Progress) -> str:
    """As it is told."""
    of = "" if progress.total is None else f" of {size_in_words(progress.total)}"
    return f"{progress.sentence}: {size_in_words(progress.done)}{of}"


def trees_of(folder: Path) -> dict[str, str]:
    return {each.name: str(each) for each in subvolumes(folder)}


def place_in(container: Container, tree: str, path: str) -> str:
    """
    Where inside a container something is: below its root, or where its volume is now; of what
    is in neither, C{TREE:/PATH}.
    """
    if tree == ROOT:
        return f"/{path}"
    places = {f"{VOLUME}{each.name}": each.path for each in container.volumes}
    return f"{places[tree]}/{path}".rstrip("/") if tree in places else f"{tree}:/{path}"
