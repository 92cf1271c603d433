"""The snapshots of this server's containers: taken, put back, told apart, forgotten."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, evolve, field, frozen
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody.audit.events import Event
from hoody.containers.container import Container
from hoody.containers.fleet import Fleet
from hoody.containers.keeper import Keeper
from hoody.containers.orders import CouldNot, Order, Return
from hoody.containers.states import RECORD, States
from hoody.containers.storage import trouble
from hoody.errors import CallerError, Conflict, DatabaseAway, HoodyError, NoSuchThing
from hoody.interfaces import IStore, ITransaction
from hoody.later import sleep
from hoody.manifests.orders import Compared, Scanned, Verified
from hoody.snapshots.reading import Reading, Tell
from hoody.snapshots.snapshot import (
    NOW,
    UNDO_HOURS,
    Consistency,
    Snapshot,
    fault_of_alias,
    name_for,
    undo_name_for,
)
from hoody.units import moment, new_id

DATABASE_PAUSE = 0.5
FIRST_PAUSE, LAST_PAUSE = 1.0, 86400.0
"""Seconds until one that could not be read is tried again."""
EXPIRY = "expiry"
"""Who deletes those whose time is over, as the audit names it."""

_log = Logger(namespace="hoody.snapshots")

T = TypeVar("T")


@frozen(kw_only=True)
class Wish:
    """
    What somebody wants of a snapshot that is to be taken.

    @ivar days: after how many it goes; C{None} for the project's policy.
    @ivar replaces: whether the one that had the alias goes.
    """

    alias: str | None = None
    days: int | None = None
    replaces: bool = False
    pinned: bool = False
    comment: str | None = None

    def check(self) -> None:
        """@raise CallerError: if it contradicts itself."""
        check_alias(self.alias)
        if self.pinned and self.days is not None:
            raise CallerError(
                "expiry: a pinned snapshot stays until it is deleted; leave out one of the two."
            )
        if self.replaces and self.alias is None:
            raise CallerError("replace: it is the one with the alias that goes; give the alias.")


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
    reading: Reading
    _uses: Counter[str] = field(factory=Counter, init=False)
    _leaving: set[str] = field(factory=set, init=False)
    _unreadable: PutOff = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._unreadable = PutOff(self._reactor)

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
        for each in snapshots:
            self._uses[each.id] += 1
        try:
            yield
        finally:
            for each in snapshots:
                self._uses[each.id] -= 1

    @contextlib.asynccontextmanager
    async def _using_those(self, keeper: Keeper, *names: str) -> AsyncIterator[list[Snapshot]]:
        """As L{using}, of those of a container that are called so."""
        found = []
        with contextlib.ExitStack() as uses:
            async with self._store.transaction() as transaction:
                for name in names:
                    each = await find_snapshot(transaction, keeper.container, name)
                    uses.enter_context(self.using(each))
                    found.append(each)
            yield found

    def is_used(self, snapshot: Snapshot) -> bool:
        return self._uses[snapshot.id] > 0

    # Taking

    async def take(self, keeper: Keeper, wish: Wish, order: Order, tell: Tell) -> Snapshot:
        """
        Take one of what a container has now. It is one from when its row is written; then what
        is in it is read.

        @raise HoodyError: if it could not be taken; nothing is left of it then.
        """
        wish.check()
        await self._check_room(keeper.container, wish)
        snapshot_id = new_id(self.now)
        tell("writing out what is in memory")
        await self._flush()
        tell("taking it")
        taken = await self._keep(keeper, snapshot_id, order)
        with self._reading_of(snapshot_id):
            async with self._forgetting() as gone:
                written = await self._write_down(keeper, wish, taken, order, gone)
            return await self._read(keeper.container, written, taken, order, tell)

    async def _flush(self) -> None:
        try:
            await deferToThread(self.fleet.storage.flush)
        except OSError as error:
            raise trouble(error) from error

    @contextlib.contextmanager
    def _reading_of(self, snapshot_id: str) -> Iterator[None]:
        self._uses[snapshot_id] += 1
        try:
            yield
        finally:
            self._uses[snapshot_id] -= 1

    async def _check_room(self, container: Container, wish: Wish) -> None:
        async with self._store.transaction() as transaction:
            await self._check_count(transaction, container, wish)

    async def _check_count(
        self, transaction: ITransaction, container: Container, wish: Wish
    ) -> list[Snapshot]:
        """
        @return: those whose place one that is taken now takes.
        @raise Conflict: if there are as many as there may be.
        """
        project = await transaction.projects.find(container.project_id)
        most = None if project is None else project.max_snapshots
        rows = await transaction.snapshots.of_container(container.id)
        replaced = [each for each in rows if wish.replaces and each.alias == wish.alias]
        gone = [each for each in replaced if not (each.pinned or self.is_used(each))]
        there = sum(not each.is_undo for each in rows) - len(gone)
        if most is not None and there >= most:
            raise Conflict(
                f"The container {container.name!r} has {there} snapshots, as many as it may"
                " (max_snapshots of its project); delete one, or raise that."
            )
        return gone

    async def _keep(self, keeper: Keeper, snapshot_id: str, order: Order) -> _Taken:
        """The one moment for which it must stand still."""
        container_id = keeper.container.id
        await keeper.hold()
        try:
            if keeper.state == "gone":
                raise NoSuchThing(f"The container {keeper.container.name!r} is gone.")
            runs = keeper.run is not None
            begun = self._reactor.seconds()
            async with keeper.standing_still() as paused:
                state = await deferToThread(self._states.keep, container_id, snapshot_id)
            pause = (self._reactor.seconds() - begun) * 1000 if paused is not None else 0.0
        except TimeoutError as error:
            raise CouldNot(f"The snapshot was not taken: {error}; try again.") from error
        except OSError as error:
            raise trouble(error) from error
        finally:
            keeper.release()
        return _Taken(
            id=snapshot_id,
            state=state,
            at=moment(begun),
            consistency="frozen" if runs else "stopped",
            pause_ms=round(pause, 3),
        )

    async def _write_down(
        self,
        keeper: Keeper,
        wish: Wish,
        taken: _Taken,
        order: Order,
        gone: list[Snapshot],
    ) -> Snapshot:
        """@param gone: gets those whose place it takes."""
        container_id = keeper.container.id
        try:
            async with self._store.transaction() as transaction:
                found = await transaction.containers.find(container_id, for_change=True)
                if found is None:
                    raise NoSuchThing(f"The container {keeper.container.name!r} is gone.")
                replaced = await self._check_count(transaction, found, wish)
                snapshot = await self._row(transaction, found, wish, taken, order)
                for each in replaced:
                    await self._remove(transaction, found, each, order, gone)
                await _take_alias(transaction, snapshot)
                await transaction.snapshots.add(snapshot)
                transaction.record(self._event("created", found, snapshot, order))
        except DatabaseAway:
            self._see_to(container_id, taken.id)
            raise
        except BaseException:
            await self._forget_files(container_id, taken.id)
            raise
        return snapshot

    async def _row(
        self,
        transaction: ITransaction,
        container: Container,
        wish: Wish,
        taken: _Taken,
        order: Order,
    ) -> Snapshot:
        others = await transaction.snapshots.of_container(container.id)
        project = await transaction.projects.find(container.project_id)
        days = wish.days
        if days is None and project is not None:
            days = project.snapshot_retention_days
        path = self.fleet.storage.snapshot_path(container.id, taken.id)
        base = await deferToThread(self._states.base_id, path)
        expires = None if wish.pinned or days is None else taken.at + timedelta(days=days)
        return Snapshot(
            id=taken.id,
            container_id=container.id,
            name=name_for(taken.at, {each.name for each in others}),
            alias=wish.alias,
            pinned=wish.pinned,
            comment=wish.comment,
            created_at=taken.at,
            created_by=order.actor,
            expires_at=expires,
            consistency=taken.consistency,
            parent=next((each.name for each in others if each.id == base), None),
            duration_ms=self._since(order),
            pause_ms=taken.pause_ms,
        )

    def _since(self, order: Order) -> float:
        return float(round((self._reactor.seconds() - order.began) * 1000, 3))

    async def _read(
        self,
        container: Container,
        snapshot: Snapshot,
        taken: _Taken,
        order: Order,
        tell: Tell,
    ) -> Snapshot:
        """What cannot be read now is, later (L{read_rest}): it is a snapshot all the same."""
        tell("reading what is in it")
        try:
            found = await self.reading.scan(container, snapshot.id, tell)
            await deferToThread(self._states.goes_on_from, container.id, snapshot.id, taken.state)
        except (HoodyError, OSError) as error:
            said = getattr(error, "sentence", str(error))
            _log.error("{name} is read later: {reason}", name=snapshot.name, reason=said)
            return snapshot
        try:
            return await self._has_been_read(snapshot, found, self._since(order))
        except DatabaseAway:
            return snapshot  # it is there, and is read again

    async def _has_been_read(
        self, snapshot: Snapshot, found: Scanned, duration_ms: float
    ) -> Snapshot:
        changes: dict[str, Any] = {
            "digest": found.digest,
            "record": found.record_sha256,
            "size": found.size,
            "duration_ms": duration_ms,
        }

        async with self._store.transaction() as transaction:
            # Whoever gives it another alias just now is waited for.
            await transaction.containers.find(snapshot.container_id, for_change=True)
            now = await transaction.snapshots.find(snapshot.container_id, snapshot.name)
            read = evolve(now or snapshot, **changes)
            if now is not None and now.id == snapshot.id:
                await transaction.snapshots.change(read)
            return read

    async def read_rest(self) -> None:
        """What was not read when it was taken, and what restores have replaced."""
        async with self._store.transaction() as transaction:
            unread = await transaction.snapshots.unread(self.fleet.server_id)
        for snapshot in unread:
            keeper = self.fleet.keepers.get(snapshot.container_id)
            if keeper is None or self._unreadable.is_put_off(snapshot):
                continue
            if self.is_used(snapshot) or not await self._is_unread(snapshot):
                continue
            try:
                # Whoever deletes it need not wait for this.
                found = await self.reading.scan(keeper.container, snapshot.id, _tell_nobody)
            except (HoodyError, OSError) as error:
                self._unreadable.put_off(snapshot)
                said = getattr(error, "sentence", str(error))
                _log.warn("{name} is read later: {reason}", name=snapshot.name, reason=said)
            else:
                await self._has_been_read(snapshot, found, snapshot.duration_ms)

    async def _is_unread(self, snapshot: Snapshot) -> bool:
        """Still."""
        async with self._store.transaction() as transaction:
            found = await transaction.snapshots.find(snapshot.container_id, snapshot.name)
        return found is not None and found.id == snapshot.id and found.digest is None

    def _see_to(self, container_id: str, snapshot_id: str) -> None:
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
            await self._forget_files(container_id, snapshot_id)
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
        async with self._using_those(keeper, name) as [snapshot]:
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
            await _take_alias(transaction, renamed)
            await transaction.snapshots.change(renamed)
            event = self._event("renamed", found, renamed, order)
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
        async with self._forgetting() as gone, self._store.transaction() as transaction:
            found = await self._own(transaction, keeper)
            snapshot = await find_snapshot(transaction, found, name)
            if self.is_used(snapshot):
                raise Conflict(
                    f"The snapshot {snapshot.name!r} is being used just now; delete it when that"
                    " is over."
                )
            await self._remove(transaction, found, snapshot, order, gone)
        return snapshot

    async def expire(self) -> None:
        """Delete those whose time is over, but what is being used."""
        async with self._store.transaction() as transaction:
            expired = await transaction.snapshots.expired(self.fleet.server_id, self.now)
        for snapshot in expired:
            keeper = self.fleet.keepers.get(snapshot.container_id)
            if keeper is None or self.is_used(snapshot):
                continue
            async with self._forgetting() as gone, self._store.transaction() as transaction:
                found = await transaction.containers.find(snapshot.container_id, for_change=True)
                if found is None or self.is_used(snapshot):
                    continue
                order = self.fleet.order(EXPIRY, by_hand=False)
                await self._remove(transaction, found, snapshot, order, gone, "expired")

    async def _remove(
        self,
        transaction: ITransaction,
        container: Container,
        snapshot: Snapshot,
        order: Order,
        gone: list[Snapshot],
        how: str = "deleted",
    ) -> None:
        """@param gone: see L{_forgetting}."""
        self._leaving.add(snapshot.id)
        gone.append(snapshot)
        await transaction.snapshots.remove(snapshot.id)
        event = self._event(how, container, snapshot, order)
        transaction.record(evolve(event, key=None))

    @contextlib.asynccontextmanager
    async def _forgetting(self) -> AsyncIterator[list[Snapshot]]:
        """Those that are put in the list, as their rows are removed, go when those have gone."""
        gone: list[Snapshot] = []
        try:
            yield gone
        except DatabaseAway:
            for each in gone:
                self._see_to(each.container_id, each.id)
            raise
        except BaseException:
            self._leaving -= {each.id for each in gone}
            raise
        for each in gone:
            await self._forget_files(each.container_id, each.id)
            self._leaving.discard(each.id)

    async def _forget_files(self, container_id: str, snapshot_id: str) -> None:
        """Nobody knows of them any more, so the next start would remove what cannot be now."""
        try:
            await deferToThread(self._states.forget, container_id, snapshot_id)
        except OSError as error:
            _log.error(
                "the files of snapshot {id} stay on the disk: {reason}",
                id=snapshot_id,
                reason=error.strerror,
            )

    # Looking

    async def diff(
        self, keeper: Keeper, before: str, after: str, offset: int, limit: int
    ) -> Compared:
        """
        What one has that the other has not.

        @param after: another, or L{NOW}.
        """
        both = (before,) if after == NOW else (before, after)
        async with self._using_those(keeper, *both) as [one, *other]:
            if not other:
                return await self._diff_to_now(keeper, one, offset, limit)
            older = await self._record(keeper, one)
            newer = await self._record(keeper, *other)
            return await self.reading.diff(keeper.container, older, newer, offset, limit)

    async def _record(self, keeper: Keeper, snapshot: Snapshot) -> Path:
        """What is in it, read now if it has not been."""
        path = self.fleet.storage.snapshot_path(keeper.container.id, snapshot.id) / RECORD
        if snapshot.digest is None or not await deferToThread(path.exists):
            await self.reading.scan(keeper.container, snapshot.id, _tell_nobody)
        return path

    async def _diff_to_now(
        self, keeper: Keeper, one: Snapshot, offset: int, limit: int
    ) -> Compared:
        present = new_id(self.now)
        container_id = keeper.container.id
        await self._flush()
        await self._keep(keeper, present, self.fleet.order(NOW))
        try:
            kept = self.fleet.storage.snapshot_path(container_id, present)
            record = await self._record(keeper, one)
            await self.reading.scan(keeper.container, present, _tell_nobody)
            return await self.reading.diff(keeper.container, record, kept / RECORD, offset, limit)
        finally:
            await self._forget_files(container_id, present)

    async def verify(self, keeper: Keeper, name: str, tell: Tell) -> Verified:
        """
        Read all of one anew.

        @raise Conflict: if it has never been read.
        """
        async with self._using_those(keeper, name) as [snapshot]:
            if snapshot.digest is None or snapshot.record is None:
                raise Conflict(
                    f"The snapshot {snapshot.name!r} has no digest yet, as it has not been read;"
                    " that is done soon."
                )
            return await self.reading.verify(keeper.container, snapshot, tell)

    def _event(self, what: str, container: Container, snapshot: Snapshot, order: Order) -> Event:
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
            duration_ms=self._since(order),
            request_id=order.request_id,
            key=order.key,
        )


@define(eq=False)
class PutOff:
    """Snapshots that could not be read: tried again ever more rarely, once a day at least."""

    _reactor: Any
    _pauses: dict[str, float] = field(factory=dict, init=False)
    _due: dict[str, float] = field(factory=dict, init=False)

    def put_off(self, snapshot: Snapshot) -> None:
        pause = self._pauses.get(snapshot.id, FIRST_PAUSE)
        self._pauses[snapshot.id] = min(2 * pause, LAST_PAUSE)
        self._due[snapshot.id] = self._reactor.seconds() + pause

    def is_put_off(self, snapshot: Snapshot) -> bool:
        return bool(self._reactor.seconds() < self._due.get(snapshot.id, 0.0))


@frozen(kw_only=True)
class _Taken:
    """
    What is on the disk, and not yet written down.

    @ivar state: see L{States.keep}.
    """

    id: str
    state: int
    at: datetime
    consistency: Consistency
    pause_ms: float


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


async def _take_alias(transaction: ITransaction, snapshot: Snapshot) -> None:
    """One that had it has none from now on."""
    if snapshot.alias is None:
        return
    for other in await transaction.snapshots.of_container(snapshot.container_id):
        if other.alias == snapshot.alias and other.id != snapshot.id:
            await transaction.snapshots.change(evolve(other, alias=None))


def _tell_nobody(_: str) -> None:
    pass


def _report(failure: Any, snapshot_id: str) -> None:
    _log.failure("snapshot {id} could not be seen to", failure=failure, id=snapshot_id)
