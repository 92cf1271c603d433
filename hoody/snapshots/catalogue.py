"""The snapshots of this server's containers: taken, put back, told apart, forgotten."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar

from attrs import define, evolve, field
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody.audit.events import Event
from hoody.containers.container import Container
from hoody.containers.fleet import Fleet
from hoody.containers.keeper import Keeper
from hoody.containers.orders import Order, Return
from hoody.containers.states import States
from hoody.errors import CallerError, Conflict, DatabaseAway, NoSuchThing
from hoody.interfaces import IStore, ITransaction
from hoody.later import sleep
from hoody.snapshots.reading import Tell
from hoody.snapshots.snapshot import (
    UNDO_HOURS,
    Consistency,
    Snapshot,
    fault_of_alias,
    undo_name_for,
)
from hoody.units import moment, new_id

DATABASE_PAUSE = 0.5
EXPIRY = "expiry"
"""Who deletes those whose time is over, as the audit names it."""

_log = Logger(namespace="hoody.snapshots")

T = TypeVar("T")


def check_alias(alias: str | None) -> None:
    """@raise CallerError: if a snapshot cannot be called so."""
    fault = None if alias is None else fault_of_alias(alias)
    if fault is not None:
        raise CallerError(f'alias: "{alias}" will not do; {fault}.')


@define(eq=False)
class Catalogue:
    """
    @ivar _uses: how often each snapshot is being read or copied just now, by id.
    @ivar _leaving: the ids of those that are being deleted: nobody begins to use them.
    """

    _reactor: Any
    _store: IStore
    fleet: Fleet
    _uses: Counter[str] = field(factory=Counter, init=False)
    _leaving: set[str] = field(factory=set, init=False)

    @property
    def _states(self) -> States:
        return self.fleet.states

    @property
    def now(self) -> datetime:
        return moment(self._reactor.seconds())

    @contextlib.contextmanager
    def using(self, *snapshots: Snapshot) -> Iterator[None]:
        """
        None of them is deleted for as long as this lasts: to be begun in the transaction that
        has found them.

        @raise NoSuchThing: if one is being deleted already.
        """
        for each in snapshots:
            if each.id in self._leaving:
                raise NoSuchThing(f"The snapshot {each.name!r} has just been deleted.")
        with contextlib.ExitStack() as uses:
            for each in snapshots:
                uses.enter_context(self.using_id(each.id))
            yield

    @contextlib.asynccontextmanager
    async def using_those(self, keeper: Keeper, *names: str) -> AsyncIterator[list[Snapshot]]:
        """As L{using}, of those of a container that are called so."""
        found = []
        with contextlib.ExitStack() as uses:
            async with self._store.transaction() as transaction:
                for name in names:
                    each = await find_snapshot(transaction, keeper.container, name)
                    uses.enter_context(self.using(each))
                    found.append(each)
            yield found

    @contextlib.contextmanager
    def using_id(self, snapshot_id: str) -> Iterator[None]:
        """As L{using}, of one that is just being made."""
        self._uses[snapshot_id] += 1
        try:
            yield
        finally:
            self._uses -= Counter([snapshot_id])  # one that is not used any more is not in it

    def is_used(self, snapshot: Snapshot) -> bool:
        return self._uses[snapshot.id] > 0

    def since(self, order: Order) -> float:
        return float(round((self._reactor.seconds() - order.began) * 1000, 3))

    # What nobody can say

    def see_to(self, container_id: str, snapshot_id: str) -> None:
        """Nobody can say whether what was written is true, until the database is back."""
        work = self._reconcile(container_id, snapshot_id)
        ensureDeferred(work).addErrback(_report, snapshot_id)

    async def _reconcile(self, container_id: str, snapshot_id: str) -> None:
        """Files without a row are nobody's."""

        async def is_known() -> bool:
            async with self._store.transaction() as transaction:
                # Whoever is changing it is waited for.
                await transaction.containers.find(container_id, for_change=True)
                rows = await transaction.snapshots.of_container(container_id)
            return snapshot_id in {each.id for each in rows}

        if not await self._insist(is_known):
            await self.forget_files(container_id, snapshot_id)
        self._leaving.discard(snapshot_id)

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """However long the database is away."""
        while True:
            try:
                return await work()
            except DatabaseAway:
                await sleep(self._reactor, DATABASE_PAUSE)

    # Putting back

    async def put_back(self, keeper: Keeper, name: str, order: Order, tell: Tell) -> Snapshot:
        """
        Have a container be as it was then. What it has now is kept for a day.

        @raise HoodyError: if it could not be; all is as it was then.
        """
        tell("putting it back")
        async with self.using_those(keeper, name) as [snapshot]:
            await keeper.settled()
            undo = self._undo(keeper, order)
            wanted = evolve(order, puts_back=Return(snapshot=snapshot, undo=undo))
            await self.fleet.operate(keeper, "restore", wanted)
        return evolve(snapshot, last_used_at=self.now)

    def _undo(self, keeper: Keeper, order: Order) -> Snapshot:
        """Where there is one of its name, it gets another when it is written down."""
        now = self.now
        consistency: Consistency = "frozen" if keeper.run is not None else "stopped"
        return Snapshot(
            id=new_id(now),
            container_id=keeper.container.id,
            name=undo_name_for(now, ()),
            created_at=now,
            created_by=order.actor,
            expires_at=now + timedelta(hours=UNDO_HOURS),
            consistency=consistency,
            is_undo=True,
        )

    # Names

    async def rename(self, keeper: Keeper, name: str, alias: str | None, order: Order) -> Snapshot:
        """Give one another alias, or none; one that had it has none then."""
        check_alias(alias)
        async with self._store.transaction() as transaction:
            found = await self._own(transaction, keeper)
            snapshot = await find_snapshot(transaction, found, name)
            if snapshot.alias == alias:
                return snapshot
            renamed = evolve(snapshot, alias=alias)
            await take_alias(transaction, renamed)
            await transaction.snapshots.change(renamed)
            event = self.event("renamed", found, renamed, order)
            transaction.record(evolve(event, data={**event.data, "was": snapshot.alias}))
        return renamed

    async def _own(self, transaction: ITransaction, keeper: Keeper) -> Container:
        found = await transaction.containers.find(keeper.container.id, for_change=True)
        if found is None:
            raise NoSuchThing(f"The container {keeper.container.name!r} is gone.")
        return found

    # Forgetting

    async def delete(self, keeper: Keeper, name: str, order: Order) -> Snapshot:
        """@raise Conflict: if it is being read, copied or put back."""
        async with self.forgetting() as gone, self._store.transaction() as transaction:
            found = await self._own(transaction, keeper)
            snapshot = await find_snapshot(transaction, found, name)
            if self.is_used(snapshot):
                raise Conflict(
                    f"The snapshot {snapshot.name!r} is being used just now; delete it when that"
                    " is over."
                )
            await self.remove(transaction, found, snapshot, order, gone)
        return snapshot

    async def expire(self) -> None:
        """Delete those whose time is over, but what is being used."""
        async with self._store.transaction() as transaction:
            expired = await transaction.snapshots.expired(self.fleet.server_id, self.now)
        for snapshot in expired:
            keeper = self.fleet.keepers.get(snapshot.container_id)
            if keeper is None or self.is_used(snapshot):
                continue
            async with self.forgetting() as gone, self._store.transaction() as transaction:
                found = await transaction.containers.find(snapshot.container_id, for_change=True)
                if found is None or self.is_used(snapshot):
                    continue
                order = self.fleet.order(EXPIRY, by_hand=False)
                await self.remove(transaction, found, snapshot, order, gone, "expired")

    async def remove(
        self,
        transaction: ITransaction,
        container: Container,
        snapshot: Snapshot,
        order: Order,
        gone: list[Snapshot],
        how: str = "deleted",
    ) -> None:
        """@param gone: see L{forgetting}."""
        self._leaving.add(snapshot.id)
        gone.append(snapshot)
        await transaction.snapshots.remove(snapshot.id)
        event = self.event(how, container, snapshot, order)
        transaction.record(evolve(event, key=None))

    @contextlib.asynccontextmanager
    async def forgetting(self) -> AsyncIterator[list[Snapshot]]:
        """Those that are put in the list, as their rows are removed, go when those have gone."""
        gone: list[Snapshot] = []
        try:
            yield gone
        except DatabaseAway:
            for each in gone:
                self.see_to(each.container_id, each.id)
            raise
        except BaseException:
            self._leaving -= {each.id for each in gone}
            raise
        for each in gone:
            await self.forget_files(each.container_id, each.id)
            self._leaving.discard(each.id)

    async def forget_files(self, container_id: str, snapshot_id: str) -> None:
        """Nobody knows of them any more, so the next start would remove what cannot be now."""
        try:
            await deferToThread(self._states.forget, container_id, snapshot_id)
        except OSError as error:
            _log.error(
                "the files of snapshot {id} stay on the disk: {reason}",
                id=snapshot_id,
                reason=error.strerror,
            )

    def event(self, what: str, container: Container, snapshot: Snapshot, order: Order) -> Event:
        return Event(
            ts=self.now,
            event_type=f"container.snapshot.{what}",
            actor=order.actor,
            resource_type="snapshot",
            resource_id=snapshot.name,
            container_id=container.id,
            project_id=container.project_id,
            data={
                "name": snapshot.name,
                "alias": snapshot.alias,
                "container": container.name,
            },
            duration_ms=self.since(order),
            request_id=order.request_id,
            key=order.key,
        )


async def find_snapshot(transaction: ITransaction, container: Container, name: str) -> Snapshot:
    """
    By name or alias.

    @raise NoSuchThing: if there is none.
    """
    found = await transaction.snapshots.find(container.id, name)
    if found is None:
        raise NoSuchThing(
            f"The container {container.name!r} has no snapshot {name!r};"
            f" GET /api/v1/containers/{container.name}/snapshots has them."
        )
    return found


async def take_alias(transaction: ITransaction, snapshot: Snapshot) -> None:
    """One that had it has none from now on."""
    if snapshot.alias is None:
        return
    for other in await transaction.snapshots.of_container(snapshot.container_id):
        if other.alias == snapshot.alias and other.id != snapshot.id:
            await transaction.snapshots.change(evolve(other, alias=None))


def _report(failure: Any, snapshot_id: str) -> None:
    _log.failure("snapshot {id} could not be seen to", failure=failure, id=snapshot_id)
