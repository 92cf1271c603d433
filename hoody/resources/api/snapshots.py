"""Snapshots as HTTP sees them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from attrs import define
from msgspec import Meta

from hoody.auth.tokens import Scope
from hoody.containers.keeper import Keeper
from hoody.containers.orders import Order
from hoody.interfaces import IStore
from hoody.later import to_its_end
from hoody.manifests import differences
from hoody.resources.accept import SSE
from hoody.resources.api.containers import ONE, ContainersFace, find_container
from hoody.resources.api.operations import Call, Operation, Pagination, pagination
from hoody.resources.api.reading import whole
from hoody.resources.api.telling import told
from hoody.snapshots.catalogue import Catalogue
from hoody.snapshots.looking import Looking
from hoody.snapshots.reading import Tell, place_in
from hoody.snapshots.snapshot import NOW, Snapshot
from hoody.snapshots.taking import Taking, Wish

ALL = ONE + "/snapshots"
SNAPSHOT = ALL + "/{snapshot}"

_Alias = Annotated[
    str,
    Meta(
        description="1 to 100 characters without slashes and control characters, not of the form"
        " of a snapshot's name; of a container's snapshots one has it, the last that was given it"
    ),
]
_Days = Annotated[int, Meta(ge=1, le=3650, description="whole days, 1 to 3650")]
_Comment = Annotated[
    str, Meta(max_length=500, pattern=whole(r"[^\x00]*"), description="a text without NUL")
]


class NewSnapshot(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """
    A snapshot that is to be taken. Without `expiry` the project's `snapshot_retention_days`
    count; `replace` deletes the one that has had the alias, unless it is pinned.
    """

    alias: _Alias | None = None
    expiry: _Days | None = None
    replace: bool = False
    pinned: bool = False
    comment: _Comment | None = None


class Nothing(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """No field: what is to be done is in the URL."""


class NewAlias(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    alias: _Alias | None


class SnapshotRow(msgspec.Struct, kw_only=True):
    """
    `size` is bytes on the disk, as compressed, that were written since `parent` was taken, or,
    without one, above the image. `size` and `digest` are null until it has been read.
    """

    name: str
    alias: str | None
    pinned: bool
    comment: str | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    stateful: bool
    consistency: str
    size: int | None
    digest: str | None
    parent: str | None
    duration_ms: float
    pause_ms: float


class OfSnapshot(msgspec.Struct, kw_only=True):
    container_id: str
    project_id: str
    snapshot: SnapshotRow


class SnapshotList(msgspec.Struct, kw_only=True):
    """Newest first. `undo-…`, what restores have replaced, do not count."""

    container_id: str
    project_id: str
    snapshot_count: int
    max_snapshots: int | None
    snapshots: list[SnapshotRow]


class Restored(msgspec.Struct, kw_only=True):
    success: bool
    message: str
    snapshot: SnapshotRow


class Deleted(msgspec.Struct, kw_only=True):
    container_id: str
    project_id: str
    snapshot_name: str


class Renamed(msgspec.Struct, kw_only=True):
    snapshot: SnapshotRow


class Difference(msgspec.Struct, kw_only=True):
    path: str
    size: int


class Differences(msgspec.Struct, kw_only=True):
    """Together they are a page of all that differs, by path."""

    added: list[Difference]
    changed: list[Difference]
    removed: list[Difference]
    pagination: Pagination


class DifferencePaging(msgspec.Struct, kw_only=True):
    page: Annotated[int, Meta(ge=1, le=1_000_000, description="from 1")] = 1
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.limit


class Mismatch(msgspec.Struct, kw_only=True):
    path: str
    problem: str


class Verified(msgspec.Struct, kw_only=True):
    valid: bool
    digest: str
    mismatches: list[Mismatch]


@define(eq=False)
class SnapshotsFace:
    _store: IStore
    _catalogue: Catalogue
    _taking: Taking
    _looking: Looking
    _containers: ContainersFace

    def operations(self) -> list[Operation]:
        restore: dict[str, Any] = {
            "path": SNAPSHOT,
            "summary": "Have the container be as it was then, and keep what it has now for a day",
            "answer": self.restore_snapshot,
            "scope": Scope.SNAPSHOT,
            "body": Nothing,
            "returns": Restored,
            "says": "The container was put back.",
            "tied": True,
            "media": (SSE,),
            "errors": (404, 409, 421, 503),
        }
        rename: dict[str, Any] = {
            "path": SNAPSHOT + "/alias",
            "summary": "Give it another alias, or none",
            "answer": self.rename_snapshot,
            "scope": Scope.SNAPSHOT,
            "body": NewAlias,
            "returns": Renamed,
            "tied": True,
            "errors": (404, 421),
        }
        return [
            Operation(
                method="POST",
                path=ALL,
                summary="Take a snapshot of its root and all its volumes, of one instant",
                answer=self.create_snapshot,
                scope=Scope.SNAPSHOT,
                body=NewSnapshot,
                returns=OfSnapshot,
                says="The snapshot was taken.",
                tied=True,
                media=(SSE,),
                errors=(404, 409, 421, 503),
            ),
            Operation(
                method="GET",
                path=ALL,
                summary="Its snapshots, newest first",
                answer=self.list_snapshots,
                scope=Scope.READ,
                returns=SnapshotList,
                tied=True,
                errors=(404,),
            ),
            Operation(method="PATCH", **restore),
            Operation(method="PUT", **restore),
            Operation(
                method="DELETE",
                path=SNAPSHOT,
                summary="Delete it; the others stay what they are",
                answer=self.delete_snapshot,
                scope=Scope.SNAPSHOT,
                returns=Deleted,
                says="The snapshot was deleted.",
                tied=True,
                errors=(404, 409, 421),
            ),
            Operation(method="PATCH", **rename),
            Operation(method="PUT", **rename),
            Operation(
                method="GET",
                path=SNAPSHOT + "/diff/{other}",
                summary="What another, or `now`, has that it has not, and the other way round",
                answer=self.diff_snapshots,
                scope=Scope.READ,
                query=DifferencePaging,
                returns=Differences,
                tied=True,
                errors=(404, 421, 503),
            ),
            Operation(
                method="GET",
                path=SNAPSHOT + "/verify",
                summary="Read all of it anew, and hold it against its digest",
                answer=self.verify_snapshot,
                scope=Scope.READ,
                returns=Verified,
                tied=True,
                media=(SSE,),
                errors=(404, 409, 421, 503),
            ),
        ]

    async def _keeper(self, call: Call, container: str) -> Keeper:
        async with self._store.transaction() as transaction:
            found = await find_container(transaction, call.principal, container)
            await self._containers.check_ours(transaction, found)
        return self._catalogue.fleet.find(found)

    def _order(self, call: Call) -> Order:
        return self._catalogue.fleet.order(
            call.principal.actor, request_id=call.request.request_id.decode("ascii")
        )

    async def create_snapshot(self, call: Call, container: str) -> OfSnapshot | None:
        body: NewSnapshot = call.body
        wish = Wish(
            alias=body.alias,
            days=body.expiry,
            replaces=body.replace,
            pinned=body.pinned,
            comment=body.comment,
        )
        wish.check()
        keeper = await self._keeper(call, container)
        order = self._order(call)

        async def take(tell: Tell) -> OfSnapshot:
            taken = await to_its_end(self._taking.take(keeper, wish, order, tell))
            own = keeper.container
            return OfSnapshot(
                container_id=own.id, project_id=own.project_id, snapshot=row_of(taken)
            )

        return await told(call, take)

    async def list_snapshots(self, call: Call, container: str) -> SnapshotList:
        async with self._store.transaction() as transaction:
            own = await find_container(transaction, call.principal, container)
            project = await transaction.projects.find(own.project_id)
            found = await transaction.snapshots.of_container(own.id)
        return SnapshotList(
            container_id=own.id,
            project_id=own.project_id,
            snapshot_count=sum(not each.is_undo for each in found),
            max_snapshots=None if project is None else project.max_snapshots,
            snapshots=[row_of(each) for each in found],
        )

    async def restore_snapshot(self, call: Call, container: str, snapshot: str) -> Restored | None:
        keeper = await self._keeper(call, container)
        order = self._order(call)

        async def put_back(tell: Tell) -> Restored:
            restored = await to_its_end(self._catalogue.put_back(keeper, snapshot, order, tell))
            return Restored(
                success=True,
                message=f"The container {keeper.container.name!r} is as it was at"
                f" {restored.created_at:%Y-%m-%dT%H:%M:%SZ}.",
                snapshot=row_of(restored),
            )

        return await told(call, put_back)

    async def delete_snapshot(self, call: Call, container: str, snapshot: str) -> Deleted:
        keeper = await self._keeper(call, container)
        gone = await to_its_end(self._catalogue.delete(keeper, snapshot, self._order(call)))
        own = keeper.container
        return Deleted(container_id=own.id, project_id=own.project_id, snapshot_name=gone.name)

    async def rename_snapshot(self, call: Call, container: str, snapshot: str) -> Renamed:
        keeper = await self._keeper(call, container)
        renamed = await self._catalogue.rename(
            keeper, snapshot, call.body.alias, self._order(call)
        )
        return Renamed(snapshot=row_of(renamed))

    async def diff_snapshots(
        self, call: Call, container: str, snapshot: str, other: str
    ) -> Differences:
        if other == NOW:
            call.principal.require(Scope.SNAPSHOT, ", as its container has to stand still for it")
        keeper = await self._keeper(call, container)
        query: DifferencePaging = call.query
        found = await to_its_end(
            self._looking.diff(keeper, snapshot, other, query.offset, query.limit)
        )

        def rows(some: tuple[differences.Difference, ...]) -> list[Difference]:
            own = keeper.container
            return [
                Difference(path=place_in(own, each.tree, each.path), size=each.size)
                for each in some
            ]

        totals = found.totals
        return Differences(
            added=rows(found.added),
            changed=rows(found.changed),
            removed=rows(found.removed),
            pagination=pagination(query, totals.added + totals.changed + totals.removed),
        )

    async def verify_snapshot(self, call: Call, container: str, snapshot: str) -> Verified | None:
        keeper = await self._keeper(call, container)

        async def verify(tell: Tell) -> Verified:
            found = await self._looking.verify(keeper, snapshot, tell)
            own = keeper.container
            return Verified(
                valid=found.valid,
                digest=found.digest,
                mismatches=[
                    Mismatch(path=place_in(own, each.tree, each.path), problem=each.problem)
                    for each in found.mismatches
                ],
            )

        return await told(call, verify)


def row_of(snapshot: Snapshot) -> SnapshotRow:
    return SnapshotRow(
        name=snapshot.name,
        alias=snapshot.alias,
        pinned=snapshot.pinned,
        comment=snapshot.comment,
        created_at=snapshot.created_at,
        created_by=snapshot.created_by,
        expires_at=snapshot.expires_at,
        last_used_at=snapshot.last_used_at,
        stateful=False,
        consistency=snapshot.consistency,
        size=snapshot.size,
        digest=snapshot.digest,
        parent=snapshot.parent,
        duration_ms=snapshot.duration_ms,
        pause_ms=snapshot.pause_ms,
    )
