"""
What is written of one container, one thing after the other: each task before it is begun
(C{pending}), and after it is done, with its event.

A server that dies in between leaves the first, and the next one does it again or undoes it
(L{Fleet.start}); a database that is away in between is waited for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import DeferredLock
from twisted.internet.defer import TimeoutError as TooLate
from twisted.logger import Logger

from hoody.audit.events import Event
from hoody.containers.container import Container, Status
from hoody.containers.lifecycle import Task
from hoody.containers.orders import Order, Outcome
from hoody.containers.transitions import Transition
from hoody.errors import Conflict, DatabaseAway, NotWrittenYet
from hoody.interfaces import IStore, ITransaction
from hoody.later import sleep
from hoody.units import moment

_DATABASE_PAUSE = 0.5
WRITES_SECONDS = 1.5
"""How long who asks for something waits until what was done before it is written down."""

_log = Logger(namespace="hoody.containers")


@define(eq=False)
class Record:
    """
    @ivar container: as it is: what the database says, or will when it is back.
    @ivar at_rest: asked whether nothing is being done to it.
    @ivar unwritten: how many things have become of it that are not written down yet.
    @ivar is_dense: whether its project was dense when it was to start last.
    """

    _reactor: Any
    _store: IStore
    container: Container
    at_rest: Callable[[], bool] = field(default=lambda: True, init=False)
    unwritten: int = field(default=0, init=False)
    is_dense: bool = field(default=False, init=False)
    _writes: DeferredLock = field(factory=DeferredLock, init=False)
    _away: DatabaseAway | None = field(default=None, init=False)

    async def written(self) -> None:
        """Wait until all that has come of it is written down."""
        await self._writes.acquire()
        self._writes.release()

    async def begins(self, task: Task, order: Order) -> None:
        acquiring = self._writes.acquire()
        if not order.patient:
            acquiring.addTimeout(WRITES_SECONDS, self._reactor)
        try:
            await acquiring
        except TooLate:
            # What was before this has not been written down.
            raise self._away or DatabaseAway("it takes too long") from None
        try:
            while True:
                try:
                    await self._write_pending(task)
                    return
                except DatabaseAway:
                    if not order.patient:
                        raise
                    await sleep(self._reactor, _DATABASE_PAUSE)
        finally:
            self._writes.release()

    async def _write_pending(self, task: Task) -> None:
        changes: dict[str, Any] = {"pending": str(task)}
        if task is Task.DELETE:
            changes["status"] = Status.DELETING
        async with self._store.transaction() as transaction:
            found = await transaction.containers.find(self.container.id, for_change=True)
            if found is None:
                if task is Task.DELETE:
                    return  # its files may be there
                raise Conflict(f"The container {self.container.name!r} is gone.")
            found = evolve(found, **changes)
            await transaction.containers.change(found)
            if task in (Task.START, Task.RESTART):
                project = await transaction.projects.find(found.project_id)
                self.is_dense = project is not None and project.dense
        self.container = found

    async def begins_not(self) -> None:
        """It may have been written, though the database went before it said so."""
        await self._writes.acquire()
        try:
            await self._insist(self._remove_pending)
        finally:
            self._writes.release()

    async def _remove_pending(self) -> None:
        async with self._store.transaction() as transaction:
            found = await transaction.containers.find(self.container.id, for_change=True)
            # What is begun meanwhile is noted anew, and taken back by what comes of it.
            if found is not None and found.pending is not None and self.at_rest():
                restored = evolve(found, status=self.container.status, pending=None)
                await transaction.containers.change(restored)

    async def becomes(self, outcome: Outcome, order: Order) -> None:
        """Until it is written; who asked is told of a database that is away before that."""
        now = moment(self._reactor.seconds())
        self.unwritten += 1
        await self._writes.acquire()
        try:
            await self._insist(
                lambda: self._write(outcome, order, now), order, f"is {outcome.status}"
            )
        finally:
            self._away = None
            self.unwritten -= 1
            self._writes.release()

    async def _write(self, outcome: Outcome, order: Order, now: datetime) -> None:
        async with self._store.transaction() as transaction:
            found = await transaction.containers.find(self.container.id, for_change=True)
            if found is None:
                return
            changed = evolve(
                found,
                status=outcome.status,
                status_reason=outcome.reason,
                pending=None,
                incarnation=outcome.incarnation,
                updated_at=now,
                **{"idle_since": None, **outcome.fields},
            )
            # It may have been written, though the database went before it said so.
            if changed != found:
                await self._record(transaction, found, changed, outcome, order, now)
        if self.unwritten == 1:
            self.container = changed  # else more has come of it since

    async def _record(
        self,
        transaction: ITransaction,
        found: Container,
        changed: Container,
        outcome: Outcome,
        order: Order,
        now: datetime,
    ) -> None:
        took = round((self._reactor.seconds() - order.began) * 1000, 3)
        await transaction.containers.change(changed)
        await transaction.containers.passed(
            Transition(
                container_id=found.id,
                from_status=found.status,
                to_status=outcome.status,
                transition_time=now,
                duration_ms=took,
                triggered_by=order.actor,
                metadata={"reason": outcome.reason} if outcome.reason else {},
            )
        )
        if outcome.event_type is not None:
            data = dict(outcome.data)
            if outcome.reason:
                data["error" if outcome.status is Status.FAILED else "reason"] = outcome.reason
            transaction.record(self.event(outcome.event_type, order, now, took, data))
        if outcome.also is not None:
            await outcome.also(transaction)

    async def ends(self, task: Task, order: Order) -> None:
        """The row goes, too: it was deleted, or could not be made."""
        now = moment(self._reactor.seconds())
        took = round((self._reactor.seconds() - order.began) * 1000, 3)

        async def remove() -> None:
            async with self._store.transaction() as transaction:
                await transaction.containers.remove(self.container.id)
                if task is Task.DELETE:
                    transaction.record(self.event("container.deleted", order, now, took, {}))

        await self._insist(remove, order, "is deleted")

    async def _insist(
        self, work: Callable[[], Awaitable[None]], order: Order | None = None, what: str = ""
    ) -> None:
        """
        However long the database is away.

        @param order: whose asker is told C{what} it is, and not kept waiting for the database.
        """
        while True:
            try:
                await work()
                return
            except DatabaseAway as away:
                self._away = away
                if order is not None and not order.done.called:
                    done = f"The container {self.container.name!r} {what}"
                    order.done.errback(NotWrittenYet(away.reason, done))
                await sleep(self._reactor, _DATABASE_PAUSE)

    def event(
        self, event_type: str, order: Order, now: datetime, took: float, data: dict[str, object]
    ) -> Event:
        own = self.container
        return Event(
            ts=now,
            event_type=event_type,
            actor=order.actor,
            resource_type="container",
            resource_id=own.id,
            container_id=own.id,
            project_id=own.project_id,
            data={"alias": own.name, **data},
            duration_ms=took,
            request_id=order.request_id,
            key=order.key,
        )
