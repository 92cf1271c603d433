"""The SQL of snapshots."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import asdict, define
from zope.interface import implementer

from hoody.interfaces import ISnapshots
from hoody.snapshots.snapshot import Snapshot
from hoody.store.links import Link
from hoody.store.rows import names_of, unique

_NAMES = names_of(Snapshot)
_COLUMNS = ", ".join(f"s.{name}" for name in _NAMES)
_OF_SERVER = f"SELECT {_COLUMNS} FROM snapshots s JOIN containers c ON c.id = s.container_id"


@implementer(ISnapshots)
@define(eq=False)
class Snapshots:
    _link: Link

    async def add(self, snapshot: Snapshot) -> None:
        places = ", ".join(f"%({name})s" for name in _NAMES)
        await unique(
            self._link.run(
                f"INSERT INTO snapshots ({', '.join(_NAMES)}) VALUES ({places})"
                " ON CONFLICT (id) DO NOTHING",
                asdict(snapshot),
            )
        )

    async def find(self, container_id: str, name: str) -> Snapshot | None:
        rows = await self._link.run(
            f"SELECT {_COLUMNS} FROM snapshots s WHERE s.container_id = %s"
            " AND (s.name = %s OR s.alias = %s) ORDER BY s.name = %s DESC LIMIT 1",
            (container_id, name, name, name),
        )
        return _snapshot(rows[0]) if rows else None

    async def of_container(self, container_id: str) -> list[Snapshot]:
        rows = await self._link.run(
            f"SELECT {_COLUMNS} FROM snapshots s WHERE s.container_id = %s"
            " ORDER BY s.created_at DESC, s.id DESC",
            (container_id,),
        )
        return [_snapshot(row) for row in rows]

    async def of_server(self, server_id: str) -> list[Snapshot]:
        rows = await self._link.run(
            f"{_OF_SERVER} WHERE c.server_id = %s ORDER BY s.created_at, s.id", (server_id,)
        )
        return [_snapshot(row) for row in rows]

    async def ids(self, server_id: str) -> set[str]:
        rows = await self._link.run(
            "SELECT s.id FROM snapshots s JOIN containers c ON c.id = s.container_id"
            " WHERE c.server_id = %s",
            (server_id,),
        )
        return {row[0] for row in rows}

    async def unread(self, server_id: str) -> list[Snapshot]:
        rows = await self._link.run(
            f"{_OF_SERVER} WHERE c.server_id = %s AND s.digest IS NULL"
            " ORDER BY s.created_at, s.id",
            (server_id,),
        )
        return [_snapshot(row) for row in rows]

    async def expired(self, server_id: str, now: datetime) -> list[Snapshot]:
        rows = await self._link.run(
            f"{_OF_SERVER} WHERE c.server_id = %s AND s.expires_at <= %s AND NOT s.pinned"
            " ORDER BY s.expires_at, s.id",
            (server_id, now),
        )
        return [_snapshot(row) for row in rows]

    async def counts(self, container_ids: list[str]) -> dict[str, int]:
        return dict(
            await self._link.run(
                "SELECT container_id, count(*) FROM snapshots"
                " WHERE container_id = ANY(%s) AND NOT is_undo GROUP BY container_id",
                (container_ids,),
            )
        )

    async def change(self, snapshot: Snapshot) -> None:
        places = ", ".join(f"{name} = %({name})s" for name in _NAMES)
        await unique(
            self._link.run(f"UPDATE snapshots SET {places} WHERE id = %(id)s", asdict(snapshot))
        )

    async def remove(self, snapshot_id: str) -> None:
        await self._link.run("DELETE FROM snapshots WHERE id = %s", (snapshot_id,))


def _snapshot(row: tuple[Any, ...]) -> Snapshot:
    return Snapshot(**dict(zip(_NAMES, row, strict=True)))
