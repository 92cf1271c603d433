"""
A container moves to another server: a snapshot of it goes out as a stream, and what comes in
as one becomes a container, with that snapshot as its first.

What comes in is made on the disk where nobody knows of it, held against its digest, and only
then known, in one transaction: whatever is cut off before that is swept away by the next start.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.defer import DeferredSemaphore, ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody.audit.events import Event
from hoody.containers.container import Container, Status, label
from hoody.containers.fleet import Fleet
from hoody.containers.image import Image, ImageStatus, is_name
from hoody.containers.keeper import Keeper
from hoody.containers.orders import Order as Asked
from hoody.containers.states import RECORD
from hoody.containers.storage import trouble
from hoody.containers.transitions import Transition
from hoody.errors import (
    CallerError,
    Conflict,
    DatabaseAway,
    HoodyError,
    Taken,
    TooMany,
    Unavailable,
)
from hoody.interfaces import IStore, ITransaction
from hoody.later import sleep
from hoody.manifests.errands import Arrived, Arriving, Below, Beside, Leaving
from hoody.manifests.manifest import VOLUME
from hoody.manifests.orders import Order, Scanned
from hoody.manifests.stream import Config, Header, ImageHead, Reader, SnapshotHead
from hoody.projects import Project
from hoody.snapshots.catalogue import DATABASE_PAUSE, Catalogue, find_snapshot
from hoody.snapshots.reading import Reading, Tell, converse, trees_of
from hoody.snapshots.snapshot import Snapshot, is_snapshot_name
from hoody.units import new_id

LEAVING_AT_ONCE = 8
"""So many streams go out at once; each takes a process, for as long as its reader takes."""
ARRIVING_AT_ONCE = 2
SOURCE = "import"
"""Of an image that came with a container."""
_EARLIEST, _LATEST = datetime(1971, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)
_NO_DIGEST = "sha256:" + "0" * 64
_KINDS: dict[int, type[HoodyError]] = {400: CallerError, 409: Conflict, 503: Unavailable}

_log = Logger(namespace="hoody.snapshots")


@frozen(kw_only=True)
class Wish:
    """
    What somebody wants of a container that comes in.

    @ivar room_in: finds the project, and whether there is room in it.
    @ivar fields: makes, of the settings that came, fields of a L{Container}.
    """

    room_in: Callable[[ITransaction], Awaitable[Project]]
    fields: Callable[[dict[str, Any]], Mapping[str, Any]]


@define(eq=False)
class Moving:
    _reactor: Any
    _store: IStore
    _catalogue: Catalogue
    _reading: Reading
    _leaving: int = field(default=0, init=False)
    _places: DeferredSemaphore = field(
        factory=lambda: DeferredSemaphore(ARRIVING_AT_ONCE), init=False
    )

    @property
    def _fleet(self) -> Fleet:
        return self._catalogue.fleet

    # Going out

    async def leave(
        self,
        keeper: Keeper,
        name: str,
        base_name: str | None,
        with_image: bool,
        send: Callable[[Order, Snapshot], Awaitable[None]],
    ) -> None:
        """
        @param base_name: of the snapshot that the receiver has.
        @param send: has the process run that is given this order, whose output is the stream.
        @raise Conflict: if it has never been read.
        """
        if self._leaving >= LEAVING_AT_ONCE:
            raise TooMany(
                f"{LEAVING_AT_ONCE} snapshots are being exported already; wait until one is done."
            )
        self._leaving += 1
        try:
            with contextlib.ExitStack() as uses:
                async with self._store.transaction() as transaction:
                    own = keeper.container
                    snapshot = await find_snapshot(transaction, own, name)
                    base = await find_snapshot(transaction, own, base_name) if base_name else None
                    uses.enter_context(self._catalogue.using(snapshot, *([base] if base else [])))
                    image = await self._image(transaction, own)
                order = await deferToThread(self._order, own, snapshot, base, image, with_image)
                await send(order, snapshot)
        finally:
            self._leaving -= 1

    async def _image(self, transaction: ITransaction, container: Container) -> Image:
        images = await transaction.images.of_server(self._fleet.server_id)
        for image in images:
            if image.id == container.image_id:
                return image
        raise Conflict(f"The image of {container.name!r} has just been deleted; try again.")

    def _order(
        self,
        container: Container,
        snapshot: Snapshot,
        base: Snapshot | None,
        image: Image,
        with_image: bool,
    ) -> Order:
        storage = self._fleet.storage
        folder = storage.snapshot_path(container.id, snapshot.id)
        digest, checksum = _read_as(snapshot)
        return Order(
            kind="export",
            parent=os.getpid(),
            trees=trees_of(folder),
            leaving=Leaving(
                container=settings_of(container),
                image=ImageHead(
                    name=image.name,
                    digest=_NO_DIGEST,
                    size=image.size,
                    config=_config(container.image_config),
                ),
                snapshot=SnapshotHead(
                    name=snapshot.name,
                    digest=digest,
                    created_at=snapshot.created_at,
                    consistency=snapshot.consistency,
                    comment=snapshot.comment,
                ),
                record=str(self._record(snapshot)),
                record_sha256=checksum,
                base=None if base is None else str(self._record(base)),
                base_digest=None if base is None else _read_as(base)[0],
                with_image=with_image,
            ),
            **self._reading.image_of(container),
        )

    def _record(self, snapshot: Snapshot) -> Path:
        storage = self._fleet.storage
        return storage.snapshot_path(snapshot.container_id, snapshot.id) / RECORD

    # Coming in

    async def arrive(self, file: Path, wish: Wish, asked: Asked, tell: Tell) -> Keeper:
        """
        @param file: the stream.
        @raise CallerError: if it is not what it says; nothing is left of it then.
        """
        header = await deferToThread(_header, file)
        # In a thread: settings may be large, and those of a stranger.
        fields = await deferToThread(wish.fields, header.container)
        now = self._catalogue.now
        arrival = _Arrival(
            file=file,
            header=header,
            container=Container(
                id=new_id(now),
                project_id="",
                server_id=self._fleet.server_id,
                container_image=header.image.name,
                image_id=new_id(now),
                image_config=_builtins(header.image.config),
                status=Status.STOPPED,
                number=0,
                created_at=now,
                updated_at=now,
                **fields,
            ),
            snapshot_id=new_id(now),
        )
        async with self._store.transaction() as transaction:
            await wish.room_in(transaction)
            await check_name(transaction, arrival.container.name)
        keeper: Keeper = await self._places.run(
            lambda: ensureDeferred(self._arrive(arrival, wish, asked, tell))
        )
        return keeper

    async def _arrive(self, arrival: _Arrival, wish: Wish, asked: Asked, tell: Tell) -> Keeper:
        try:
            made = await self._make(arrival, tell)
            return await self._admit(arrival, made, wish, asked)
        except DatabaseAway:
            # Nobody can say whether it is true.
            ensureDeferred(self._reconcile(arrival)).addErrback(_report, arrival.container.name)
            raise
        except BaseException as error:
            await self._forget(arrival)
            raise trouble(error) if isinstance(error, OSError) else error from None

    async def _make(self, arrival: _Arrival, tell: Tell) -> _Made:
        """What is on the disk, as a container that nobody knows of."""
        storage, header, own = self._fleet.storage, arrival.header, arrival.container
        volumes = [
            tree.name.removeprefix(VOLUME) for tree in header.trees if tree.name.startswith(VOLUME)
        ]
        with contextlib.ExitStack() as uses:
            async with self._store.transaction() as transaction:
                images = await transaction.images.of_server(self._fleet.server_id)
                base = await self._base(transaction, header.base)
                uses.enter_context(self._catalogue.using(*([base[0]] if base else [])))
            await deferToThread(storage.make_container, own.id, volumes, None)
            order = await deferToThread(self._errand, arrival, images, base)
            last = await converse(self._reactor, own.id, order, tell)
        if not isinstance(last.done, Arrived):
            kind = _KINDS.get(last.status or 503, HoodyError)
            raise kind(f"The container was not imported: {last.error}")
        own = evolve(own, image_id=last.done.image)
        return _Made(container=own, scanned=await self._keep(arrival, own, tell))

    def _errand(
        self, arrival: _Arrival, images: list[Image], base: tuple[Snapshot, Container] | None
    ) -> Order:
        own = arrival.container
        ready = [each.id for each in images if each.status is ImageStatus.READY]
        errand = Arriving(
            file=str(arrival.file),
            into=str(self._fleet.storage.state_path(own.id)),
            images=tuple(self._below(each) for each in ready),
            fresh=self._below(own.image_id),
            base=None if base is None else self._beside(*base),
        )
        return Order(kind="import", parent=os.getpid(), arriving=errand)

    def _below(self, image_id: str) -> Below:
        storage = self._fleet.storage
        return Below(
            id=image_id,
            image=str(storage.image_path(image_id)),
            image_manifest=str(storage.image_manifest(image_id)),
        )

    async def _base(
        self, transaction: ITransaction, digest: str | None
    ) -> tuple[Snapshot, Container] | None:
        """@raise Conflict: if there is none."""
        if digest is None:
            return None
        for snapshot in await transaction.snapshots.of_server(self._fleet.server_id):
            if snapshot.digest == digest:
                container = await transaction.containers.find(snapshot.container_id)
                if container is not None:
                    return snapshot, container
        raise Conflict(
            f"The stream goes on from the snapshot {digest}, and no container here has"
            " that; import that one first, or export this one without ?base=."
        )

    def _beside(self, snapshot: Snapshot, container: Container) -> Beside:
        folder = self._fleet.storage.snapshot_path(container.id, snapshot.id)
        below = self._below(container.image_id)
        return Beside(trees=trees_of(folder), record=str(folder / RECORD), below=below)

    async def _keep(self, arrival: _Arrival, own: Container, tell: Tell) -> Scanned:
        """Have the snapshot. @raise CallerError: if it is not the one that was sent."""
        states, storage = self._fleet.states, self._fleet.storage
        state = await deferToThread(states.keep, own.id, arrival.snapshot_id)
        found = await self._reading.scan(own, arrival.snapshot_id, tell)
        wanted = arrival.header.snapshot.digest
        if found.digest != wanted:
            raise CallerError(
                f"The container was not imported: what came is {found.digest}, and not {wanted},"
                " as it says; export the snapshot again."
            )
        await deferToThread(states.goes_on_from, own.id, arrival.snapshot_id, state)
        volumes = [each.name for each in own.volumes]
        await deferToThread(storage.reshape, own.id, volumes, own.disk_limit, limit=True)
        return found

    # Being known

    async def _admit(self, arrival: _Arrival, made: _Made, wish: Wish, asked: Asked) -> Keeper:
        header, fresh = arrival.header, arrival.container.image_id

        async def write(transaction: ITransaction) -> Container:
            project = await wish.room_in(transaction)
            own = evolve(made.container, project_id=project.id)
            if own.image_id == fresh:
                image = await self._add_image(transaction, own, header.image)
            else:
                image = await self._image(transaction, own)
                await transaction.images.find(self._fleet.server_id, image.name)  # it stays
            number = await transaction.containers.free_number(self._fleet.server_id)
            own = evolve(own, container_image=image.name, number=number)
            await check_name(transaction, own.name)
            await transaction.containers.add(own)
            snapshot = self._snapshot(arrival, made, project, asked)
            await transaction.snapshots.add(snapshot)
            await transaction.containers.passed(self._transition(own, asked))
            transaction.record(self._event(own, header, asked))
            return own

        try:
            return await self._fleet.admit(write)
        except Taken:
            raise _taken(made.container.name) from None

    async def _add_image(
        self, transaction: ITransaction, own: Container, head: ImageHead
    ) -> Image:
        images = await transaction.images.of_server(self._fleet.server_id)
        image = Image(
            id=own.image_id,
            server_id=self._fleet.server_id,
            name=_free_name(head.name, {each.name for each in images}),
            source=SOURCE,
            status=ImageStatus.READY,
            config=own.image_config,
            size=head.size,
            created_at=own.created_at,
        )
        await transaction.images.add(image)
        return image

    def _snapshot(
        self, arrival: _Arrival, made: _Made, project: Project, asked: Asked
    ) -> Snapshot:
        head, now = arrival.header.snapshot, self._catalogue.now
        days = project.snapshot_retention_days
        return Snapshot(
            id=arrival.snapshot_id,
            container_id=made.container.id,
            name=head.name,
            comment=head.comment,
            created_at=min(head.created_at, now),
            created_by=asked.actor,
            expires_at=None if days is None else now + timedelta(days=days),
            consistency=head.consistency,
            size=made.scanned.size,
            digest=made.scanned.digest,
            record=made.scanned.record_sha256,
            duration_ms=self._since(asked),
        )

    def _since(self, asked: Asked) -> float:
        return float(round((self._reactor.seconds() - asked.began) * 1000, 3))

    def _transition(self, own: Container, asked: Asked) -> Transition:
        return Transition(
            container_id=own.id,
            from_status=Status.CREATING,
            to_status=Status.STOPPED,
            transition_time=self._catalogue.now,
            duration_ms=self._since(asked),
            triggered_by=asked.actor,
            metadata={},
        )

    def _event(self, own: Container, header: Header, asked: Asked) -> Event:
        return Event(
            ts=self._catalogue.now,
            event_type="container.created",
            actor=asked.actor,
            resource_type="container",
            resource_id=own.id,
            container_id=own.id,
            project_id=own.project_id,
            data={
                "alias": own.name,
                "image": own.container_image,
                "imported": header.container.get("name"),
                "snapshot": header.snapshot.name,
                "digest": header.snapshot.digest,
            },
            duration_ms=self._since(asked),
            request_id=asked.request_id,
            key=asked.key,
        )

    # Not being

    async def _reconcile(self, arrival: _Arrival) -> None:
        own = arrival.container
        while True:
            try:
                async with self._store.transaction() as transaction:
                    # Whoever is changing it is waited for.
                    known = await transaction.containers.find(own.id, for_change=True)
                break
            except DatabaseAway:
                await sleep(self._reactor, DATABASE_PAUSE)
        if known is None:
            await self._forget(arrival)
        else:
            self._fleet.look_again(own.id)

    async def _forget(self, arrival: _Arrival) -> None:
        """What cannot be removed now is removed by the next start."""
        storage, own = self._fleet.storage, arrival.container
        for remove, what in (
            (storage.remove_container, own.id),
            (storage.remove_image, own.image_id),
        ):
            try:
                await deferToThread(remove, what)
            except OSError as error:
                _log.error("{what} stays on the disk: {why}", what=what, why=error.strerror)


@frozen(kw_only=True)
class _Arrival:
    """@ivar container: as it is to be; C{image_id}: of its image, if that has to be made."""

    file: Path
    header: Header
    container: Container
    snapshot_id: str


@frozen(kw_only=True)
class _Made:
    container: Container
    scanned: Scanned


_SETTINGS = (
    *("name", "color", "comment", "command", "port", "exposed_ports", "environment_vars"),
    *("ssh_public_key", "autostart", "idle_timeout_seconds", "access", "egress"),
    *("memory_limit", "disk_limit", "cpu_limit"),
)


def settings_of(container: Container) -> dict[str, Any]:
    """What it is set to, as the API takes it when one is made."""
    volumes = [{"name": each.name, "path": each.path} for each in container.volumes]
    return {**{name: getattr(container, name) for name in _SETTINGS}, "volumes": volumes}


def _config(config: Mapping[str, Any]) -> Config:
    command = config.get("command")
    return Config(
        command=tuple(command) if command else None,
        port=config.get("port"),
        environment_vars=config.get("environment_vars"),
        working_dir=config.get("working_dir"),
        user=config.get("user"),
    )


def _builtins(config: Config) -> dict[str, Any]:
    command = config.command
    return {
        "command": list(command) if command else None,
        "port": config.port,
        "environment_vars": config.environment_vars,
        "working_dir": config.working_dir,
        "user": config.user,
    }


def _read_as(snapshot: Snapshot) -> tuple[str, str]:
    """Its digest, and its record's checksum. @raise Conflict: if it has not been read."""
    if snapshot.digest is None or snapshot.record is None:
        raise Conflict(
            f"The snapshot {snapshot.name!r} has no digest yet, as it has not been read; that is"
            " done soon."
        )
    return snapshot.digest, snapshot.record


def _header(file: Path) -> Header:
    """@raise CallerError: if it says of the snapshot what none can be."""
    with file.open("rb") as stream:
        header = Reader(stream).header
    snapshot = header.snapshot
    if not _EARLIEST <= snapshot.created_at < _LATEST:
        raise CallerError("The stream has a snapshot that was taken at no time; export it again.")
    if not is_snapshot_name(snapshot.name):
        raise CallerError(
            f"The stream has a snapshot {snapshot.name!r}, which none is called; export it again."
        )
    return header


async def check_name(transaction: ITransaction, name: str) -> None:
    """@raise Conflict: if another container answers to it."""
    if await transaction.containers.find(label(name)) is not None:
        raise _taken(name)


def _taken(name: str) -> Conflict:
    return Conflict(
        f"name: another container answers to {name!r} already; choose another by ?name=."
    )


def _free_name(wanted: str, names: set[str]) -> str:
    """What an image is called that came along: as it was, with a number if need be."""
    base = wanted if is_name(wanted) else SOURCE
    name, number = base, 1
    while name in names:
        number += 1
        name = f"{base[:56]}-{number}"
    return name


def _report(failure: Any, name: str) -> None:
    _log.failure("what came of {name} could not be seen to", failure=failure, name=name)
