"""Snapshots are taken, and what is in them is read: at once, or when that can be."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody.containers.container import Container
from hoody.containers.fleet import Fleet
from hoody.containers.keeper import Keeper
from hoody.containers.orders import CouldNot, Order
from hoody.containers.storage import trouble
from hoody.errors import CallerError, Conflict, DatabaseAway, HoodyError, NoSuchThing
from hoody.interfaces import IStore, ITransaction
from hoody.manifests.orders import Scanned
from hoody.snapshots.catalogue import Catalogue, check_alias, take_alias
from hoody.snapshots.reading import Reading, Tell, tell_nobody
from hoody.snapshots.snapshot import Consistency, Snapshot, name_for
from hoody.units import moment, new_id

FIRST_PAUSE, LAST_PAUSE = 1.0, 86400.0
"""Seconds until one that could not be read is tried again."""

_log = Logger(namespace="hoody.snapshots")


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


@frozen(kw_only=True)
class Taken:
    """
    What is on the disk, and not yet written down.

    @ivar state: see L{States.keep}.
    """

    id: str
    state: int
    at: datetime
    consistency: Consistency
    pause_ms: float


@define(eq=False)
class Taking:
    _reactor: Any
    _store: IStore
    _catalogue: Catalogue
    _reading: Reading
    _unreadable: PutOff = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._unreadable = PutOff(self._reactor)

    @property
    def _fleet(self) -> Fleet:
        return self._catalogue.fleet

    async def take(self, keeper: Keeper, wish: Wish, order: Order, tell: Tell) -> Snapshot:
        """
        Take one of what a container has now. It is one from when its row is written; then what
        is in it is read.

        @raise HoodyError: if it could not be taken; nothing is left of it then.
        """
        wish.check()
        await self._check_room(keeper.container, wish)
        snapshot_id = new_id(self._catalogue.now)
        tell("writing out what is in memory")
        await self.flush()
        tell("taking it")
        taken = await self.keep(keeper, snapshot_id)
        with self._catalogue.using_id(snapshot_id):
            async with self._catalogue.forgetting() as gone:
                written = await self._write_down(keeper, wish, taken, order, gone)
            read = await self._read(keeper, written, taken, order, tell)
        if keeper.state in ("deleting", "gone"):
            raise NoSuchThing(f"The container {keeper.container.name!r} has just been deleted.")
        return read

    async def flush(self) -> None:
        try:
            await deferToThread(self._fleet.storage.flush)
        except OSError as error:
            raise trouble(error) from error

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
        gone = [each for each in replaced if not (each.pinned or self._catalogue.is_used(each))]
        there = sum(not each.is_undo for each in rows) - len(gone)
        if most is not None and there >= most:
            raise Conflict(
                f"The container {container.name!r} has {there} snapshots, as many as it may"
                " (max_snapshots of its project); delete one, or raise that."
            )
        return gone

    async def keep(self, keeper: Keeper, snapshot_id: str) -> Taken:
        """The one moment for which it must stand still."""
        container_id = keeper.container.id
        await keeper.hold()
        try:
            if keeper.state == "gone":
                raise NoSuchThing(f"The container {keeper.container.name!r} is gone.")
            runs = keeper.run is not None
            begun = self._reactor.seconds()
            async with keeper.standing_still() as paused:
                state = await deferToThread(self._fleet.states.keep, container_id, snapshot_id)
            pause = (self._reactor.seconds() - begun) * 1000 if paused is not None else 0.0
        except TimeoutError as error:
            raise CouldNot(f"The snapshot was not taken: {error}; try again.") from error
        except OSError as error:
            raise trouble(error) from error
        finally:
            keeper.release()
        return Taken(
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
        taken: Taken,
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
                    if self._catalogue.is_used(each):
                        continue  # by now
                    await self._catalogue.remove(transaction, found, each, order, gone)
                await take_alias(transaction, snapshot)
                await transaction.snapshots.add(snapshot)
                transaction.record(self._catalogue.event("created", found, snapshot, order))
        except DatabaseAway:
            self._catalogue.see_to(container_id, taken.id)
            raise
        except BaseException:
            await self._catalogue.forget_files(container_id, taken.id)
            raise
        return snapshot

    async def _row(
        self,
        transaction: ITransaction,
        container: Container,
        wish: Wish,
        taken: Taken,
        order: Order,
    ) -> Snapshot:
        others = await transaction.snapshots.of_container(container.id)
        project = await transaction.projects.find(container.project_id)
        days = wish.days
        if days is None and project is not None:
            days = project.snapshot_retention_days
        path = self._fleet.storage.snapshot_path(container.id, taken.id)
        base = await deferToThread(self._fleet.states.base_id, path)
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
            duration_ms=self._catalogue.since(order),
            pause_ms=taken.pause_ms,
        )

    async def _read(
        self,
        keeper: Keeper,
        snapshot: Snapshot,
        taken: Taken,
        order: Order,
        tell: Tell,
    ) -> Snapshot:
        """What cannot be read now is, later (L{read_rest}): it is a snapshot all the same."""
        tell("reading what is in it")
        try:
            found = await self._reading.scan(keeper.container, snapshot.id, tell)
            await self._go_on(keeper, snapshot, taken)
        except (HoodyError, OSError) as error:
            said = getattr(error, "sentence", str(error))
            _log.error("{name} is read later: {reason}", name=snapshot.name, reason=said)
            return snapshot
        try:
            return await self._has_been_read(snapshot, found, self._catalogue.since(order))
        except DatabaseAway:
            return snapshot  # it is there, and is read again

    async def _go_on(self, keeper: Keeper, snapshot: Snapshot, taken: Taken) -> None:
        """While nobody copies what is changed by that."""
        goes_on = self._fleet.states.goes_on_from
        await keeper.hold()
        try:
            await deferToThread(goes_on, keeper.container.id, snapshot.id, taken.state)
        finally:
            keeper.release()

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
            unread = await transaction.snapshots.unread(self._fleet.server_id)
        for snapshot in unread:
            keeper = self._fleet.keepers.get(snapshot.container_id)
            if keeper is None or self._unreadable.is_put_off(snapshot):
                continue
            if self._catalogue.is_used(snapshot) or not await self._is_unread(snapshot):
                continue
            try:
                # Whoever deletes it need not wait for this.
                found = await self._reading.scan(keeper.container, snapshot.id, tell_nobody)
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
