"""
How one container is put back to what a snapshot has of it.

What is to take the place of its state is made beside it; then its processes stand still, the
two change places in one step (L{hoody.containers.states}), and it is begun anew. Whatever is
cut off before that step leaves it as it was, its processes too; whatever is cut off behind it
is gone on with, by whoever starts next, from the note that came with the exchange.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec
from attrs import asdict, define, evolve
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody.audit.events import Event
from hoody.commands import CommandFailed
from hoody.containers.container import IDLE, Status
from hoody.containers.orders import CouldNot, Order, Outcome
from hoody.containers.runtime import RuntimeFailed
from hoody.errors import HoodyError
from hoody.interfaces import ITransaction
from hoody.snapshots.snapshot import Snapshot, mark_used, undo_name_for
from hoody.units import moment

if TYPE_CHECKING:
    from hoody.containers.keeper import Keeper
    from hoody.containers.states import States

_BAD = (RuntimeFailed, CommandFailed, OSError, TimeoutError, HoodyError)

_log = Logger(namespace="hoody.containers")


class Note(msgspec.Struct, kw_only=True):
    """
    What has to be written down when it has happened, by whoever does so.

    @ivar snapshot: and C{undo}: the fields of L{Snapshot}s.
    @ivar ran: whether it is to run again at once.
    @ivar began: seconds, by the reactor's clock.
    """

    snapshot: dict[str, Any]
    undo: dict[str, Any]
    ran: bool
    actor: str
    request_id: str | None
    key: str
    began: float


@define(eq=False)
class Restoring:
    _keeper: Keeper

    @property
    def _states(self) -> States:
        return self._keeper.around.states

    @property
    def _id(self) -> str:
        return self._keeper.container.id

    async def put_back(self, order: Order) -> Outcome:
        """@raise Exception: if it could not be; see L{has_happened}."""
        wanted, own = order.puts_back, self._keeper.container
        assert wanted is not None
        note = Note(
            snapshot=_plain(wanted.snapshot),
            undo=_plain(wanted.undo),
            ran=own.status is Status.RUNNING,
            actor=order.actor,
            request_id=order.request_id,
            key=order.key,
            began=order.began,
        )
        await deferToThread(
            self._states.prepare,
            *(own.id, wanted.snapshot.id, [each.name for each in own.volumes], own.disk_limit),
            msgspec.json.encode(note),
        )
        run = self._keeper.run if note.ran else None
        if run is not None:
            await run.cgroup.freeze(self._keeper.reactor)
        await deferToThread(self._states.exchange, own.id)
        return await self._finish(note, order)

    async def has_happened(self) -> bool:
        return await deferToThread(self._states.returned, self._id) is not None

    async def forgo(self) -> Outcome:
        """It could not be: all is as it was."""
        await self._drop()
        own, run = self._keeper.container, self._keeper.run
        if own.status is Status.RUNNING and run is not None:
            with contextlib.suppress(OSError):  # it may have ended
                run.cgroup.thaw()
        return Outcome(
            status=own.status,
            reason=own.status_reason,
            event_type=None,
            incarnation=own.incarnation,
            fields={"idle_since": own.idle_since},
        )

    async def _drop(self) -> None:
        try:
            await deferToThread(self._states.drop, self._id)
        except OSError as error:
            # The next restore drops it.
            _log.error("what was prepared stays on the disk: {reason}", reason=error.strerror)

    async def go_on(self, order: Order) -> Outcome:
        """An earlier server has come as far as the exchange."""
        found = await deferToThread(self._states.returned, self._id)
        assert found is not None
        note = msgspec.json.decode(found, type=Note)
        return await self._finish(note, order)

    async def _finish(self, note: Note, order: Order) -> Outcome:
        await self._end_run()
        undo: Snapshot | None = _snapshot(note.undo)
        assert undo is not None
        try:
            await deferToThread(self._states.keep_replaced, self._id, undo.id)
        except OSError as error:
            _log.error("what was replaced is not kept: {reason}", reason=error.strerror)
            undo = None
            await self._drop()
        outcome = await self._begin_anew(note, order)
        seconds = self._keeper.reactor.seconds

        async def write(transaction: ITransaction) -> None:
            now = seconds()
            await self._write(transaction, note, undo, now)

        fields = {**outcome.fields, "last_used_snapshot": note.snapshot["name"]}
        return evolve(outcome, event_type=None, fields=fields, also=write)

    async def _end_run(self) -> None:
        """It is a state of no more use, that is kept as of the exchange."""
        try:
            await self._keeper.end_run(0)
        except (RuntimeFailed, OSError) as error:
            _log.error("container {name}: {error}", name=self._keeper.container.name, error=error)
            run, self._keeper.run = self._keeper.run, None
            if run is not None:
                run.abandon(self._keeper.reactor)

    async def _begin_anew(self, note: Note, order: Order) -> Outcome:
        waits = Outcome(status=Status.STOPPED, reason=IDLE, event_type=None)
        if not note.ran:
            return waits
        try:
            return await self._keeper.start(order)
        except _BAD as error:
            reason = str(getattr(error, "sentence", error)).rstrip(".")
            name = self._keeper.container.name
            said = (
                f"The container {name!r} was put back to {note.snapshot['name']}, and could not"
                f" be started: {reason}. The next request to it tries again."
            )
            return evolve(waits, told=CouldNot(said))

    async def _write(
        self, transaction: ITransaction, note: Note, undo: Snapshot | None, now: float
    ) -> None:
        own = self._keeper.container
        await mark_used(transaction, _snapshot(note.snapshot), moment(now))
        if undo is not None:
            others = await transaction.snapshots.of_container(own.id)
            names = {each.name for each in others if each.id != undo.id}
            undo = evolve(undo, name=undo_name_for(undo.created_at, names))
            await transaction.snapshots.add(undo)
        data = {"name": note.snapshot["name"], "alias": note.snapshot["alias"]}
        transaction.record(
            Event(
                ts=moment(now),
                event_type="container.snapshot.restored",
                actor=note.actor,
                resource_type="snapshot",
                resource_id=note.snapshot["name"],
                container_id=own.id,
                project_id=own.project_id,
                data={**data, "container": own.name, "undo": undo.name if undo else None},
                duration_ms=round((now - note.began) * 1000, 3),
                request_id=note.request_id,
                key=note.key,
            )
        )

    async def written(self) -> None:
        """What has become of it is in the database."""
        try:
            await deferToThread(self._states.settle, self._id)
        except OSError as error:
            _log.error("a note stays on the disk: {reason}", reason=error.strerror)


def _plain(snapshot: Snapshot) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(asdict(snapshot))
    return plain


def _snapshot(plain: dict[str, Any]) -> Snapshot:
    return msgspec.convert(plain, Snapshot)
