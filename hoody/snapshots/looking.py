"""What is in snapshots: compared, and checked."""

from __future__ import annotations

from pathlib import Path

from attrs import define
from twisted.internet.threads import deferToThread

from hoody.containers.fleet import Fleet
from hoody.containers.keeper import Keeper
from hoody.containers.states import RECORD
from hoody.errors import Conflict
from hoody.manifests.orders import Compared, Verified
from hoody.snapshots.catalogue import Catalogue
from hoody.snapshots.reading import Reading, Tell, tell_nobody
from hoody.snapshots.snapshot import NOW, Snapshot
from hoody.snapshots.taking import Taking
from hoody.units import new_id


@define(eq=False)
class Looking:
    _catalogue: Catalogue
    _taking: Taking
    _reading: Reading

    @property
    def _fleet(self) -> Fleet:
        return self._catalogue.fleet

    async def diff(
        self, keeper: Keeper, before: str, after: str, offset: int, limit: int
    ) -> Compared:
        """
        What one has that the other has not.

        @param after: another, or L{NOW}.
        """
        both = (before,) if after == NOW else (before, after)
        async with self._catalogue.using_those(keeper, *both) as [one, *other]:
            if not other:
                return await self._diff_to_now(keeper, one, offset, limit)
            older = await self._record(keeper, one)
            newer = await self._record(keeper, *other)
            return await self._reading.diff(keeper.container, older, newer, offset, limit)

    async def _record(self, keeper: Keeper, snapshot: Snapshot) -> Path:
        """What is in it, read now if it has not been."""
        path = self._fleet.storage.snapshot_path(keeper.container.id, snapshot.id) / RECORD
        if snapshot.digest is None or not await deferToThread(path.exists):
            await self._reading.scan(keeper.container, snapshot.id, tell_nobody)
        return path

    async def _diff_to_now(
        self, keeper: Keeper, one: Snapshot, offset: int, limit: int
    ) -> Compared:
        present = new_id(self._catalogue.now)
        container_id = keeper.container.id
        await self._taking.flush()
        await self._taking.keep(keeper, present)
        try:
            kept = self._fleet.storage.snapshot_path(container_id, present)
            record = await self._record(keeper, one)
            await self._reading.scan(keeper.container, present, tell_nobody)
            return await self._reading.diff(keeper.container, record, kept / RECORD, offset, limit)
        finally:
            await self._catalogue.forget_files(container_id, present)

    async def verify(self, keeper: Keeper, name: str, tell: Tell) -> Verified:
        """
        Read all of one anew.

        @raise Conflict: if it has never been read.
        """
        async with self._catalogue.using_those(keeper, name) as [snapshot]:
            if snapshot.digest is None or snapshot.record is None:
                raise Conflict(
                    f"The snapshot {snapshot.name!r} has no digest yet, as it has not been read;"
                    " that is done soon."
                )
            return await self._reading.verify(keeper.container, snapshot, tell)
