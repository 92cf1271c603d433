"""The SQL of cron entries, of their versions, and of their runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from attrs import asdict, define, evolve
from zope.interface import implementer

from hoody.auth.tokens import Scope
from hoody.cron.entry import Due, Entry, Run, RunStatus
from hoody.interfaces import ICron
from hoody.store.links import Link
from hoody.store.rows import names_of

_NAMES = names_of(Entry)
_COLUMN = {name: name for name in _NAMES} | {"user": "user_name"}
_COLUMNS = ", ".join(f"e.{_COLUMN[name]}" for name in _NAMES)
_RUN_NAMES = names_of(Run)
_RUN_COLUMNS = ", ".join(f"r.{name}" for name in _RUN_NAMES)
_RUN_TYPES = {
    **dict.fromkeys(("version", "attempt", "exit_code"), "integer"),
    **dict.fromkeys(("start_delay_ms", "duration_ms"), "double precision"),
    **dict.fromkeys(("scheduled_at", "started_at", "finished_at", "retry_at"), "timestamptz"),
}
_RUN_RECORD = ", ".join(f"{name} {_RUN_TYPES.get(name, 'text')}" for name in _RUN_NAMES)
_WITH_CONTAINER = "cron_entries e LEFT JOIN containers c ON c.id = e.container_id"
_OURS = "coalesce(c.server_id, e.server_id) = %(server)s"
_DUE = (
    f"SELECT {_COLUMNS}, (SELECT count(*) FROM cron_runs o WHERE o.entry_id = e.id"
    " AND o.status = 'running'), c.project_id, c.name"
)


@implementer(ICron)
@define(eq=False)
class Cron:
    _link: Link

    async def add(self, entry: Entry) -> None:
        columns = ", ".join(_COLUMN.values())
        places = ", ".join(_place(name) for name in _NAMES)
        await self._link.run(
            f"INSERT INTO cron_entries ({columns}) VALUES ({places})", _row(entry)
        )
        await self._keep(entry)

    async def _keep(self, entry: Entry) -> None:
        kept = msgspec.json.encode(evolve(entry, next_fire_at=None)).decode()
        await self._link.run(
            "INSERT INTO cron_entry_versions VALUES (%s, %s, %s::jsonb) ON CONFLICT DO NOTHING",
            (entry.id, entry.version, kept),
        )

    async def find(self, entry_id: str, for_change: bool = False) -> Entry | None:
        rows = await self._link.run(
            f"SELECT {_COLUMNS} FROM cron_entries e WHERE e.id = %s"
            + (" FOR UPDATE" if for_change else ""),
            (entry_id,),
        )
        return _entry(rows[0]) if rows else None

    async def page(
        self,
        offset: int,
        limit: int,
        user: str | None = None,
        container_id: str | None = None,
        only: tuple[str, ...] | None = None,
    ) -> tuple[list[Entry], int]:
        said, values = _where(user=user, container_id=container_id, only=only)
        rows = await self._link.run(
            f"SELECT {_COLUMNS} FROM cron_entries e WHERE {said}"
            " ORDER BY e.created_at, e.id LIMIT %(limit)s OFFSET %(offset)s",
            {**values, "limit": limit, "offset": offset},
        )
        total = await self._link.run(f"SELECT count(*) FROM cron_entries e WHERE {said}", values)
        return [_entry(row) for row in rows], total[0][0]

    async def users(
        self,
        offset: int,
        limit: int,
        container_id: str | None = None,
        only: tuple[str, ...] | None = None,
    ) -> tuple[list[str], int]:
        said, values = _where(user=None, container_id=container_id, only=only)
        found = (
            f"SELECT e.user_name FROM cron_entries e WHERE {said}"
            f" UNION SELECT e.user_name FROM cron_layouts e WHERE {said}"
        )
        if container_id is None and only is None:
            found += " OR e.container_id = ''"
        rows = await self._link.run(
            f"{found} ORDER BY 1 LIMIT %(limit)s OFFSET %(offset)s",
            {**values, "limit": limit, "offset": offset},
        )
        total = await self._link.run(f"SELECT count(*) FROM ({found}) AS found", values)
        return [row[0] for row in rows], total[0][0]

    async def change(self, entry: Entry) -> None:
        places = ", ".join(f"{_COLUMN[name]} = {_place(name)}" for name in _NAMES)
        await self._link.run(f"UPDATE cron_entries SET {places} WHERE id = %(id)s", _row(entry))
        await self._keep(entry)

    async def remove(self, entry_id: str) -> None:
        await self._link.run("DELETE FROM cron_entries WHERE id = %s", (entry_id,))

    async def versions(self, entry_id: str) -> list[Entry]:
        rows = await self._link.run(
            "SELECT entry::text FROM cron_entry_versions WHERE entry_id = %s"
            " ORDER BY version DESC",
            (entry_id,),
        )
        return [msgspec.json.decode(row[0], type=Entry) for row in rows]

    async def layout(self, user: str, container_id: str | None) -> str | None:
        rows = await self._link.run(
            "SELECT layout FROM cron_layouts WHERE user_name = %s AND container_id = %s",
            (user, container_id or ""),
        )
        return rows[0][0] if rows else None

    async def lay_out(self, user: str, container_id: str | None, layout: str | None) -> None:
        key = (user, container_id or "")
        if layout is None:
            await self._link.run(
                "DELETE FROM cron_layouts WHERE user_name = %s AND container_id = %s", key
            )
        else:
            await self._link.run(
                "INSERT INTO cron_layouts VALUES (%s, %s, %s) ON CONFLICT (user_name,"
                " container_id) DO UPDATE SET layout = excluded.layout",
                (*key, layout),
            )

    # What the clock does

    async def next_due(self, server_id: str) -> datetime | None:
        # Each by its index; joined first, all rows would be read.
        rows = await self._link.run(
            "SELECT least("
            f"(SELECT e.next_fire_at FROM {_WITH_CONTAINER} WHERE e.next_fire_at IS NOT NULL"
            f" AND {_OURS} ORDER BY e.next_fire_at LIMIT 1),"
            "(SELECT r.retry_at FROM cron_runs r WHERE r.retry_at IS NOT NULL"
            " AND r.server_id = %(server)s AND EXISTS (SELECT FROM cron_entries e"
            " WHERE e.id = r.entry_id) ORDER BY r.retry_at LIMIT 1),"
            f"(SELECT e.expires_at FROM {_WITH_CONTAINER} WHERE e.expires_at IS NOT NULL"
            f" AND NOT e.expired AND {_OURS} ORDER BY e.expires_at LIMIT 1))",
            {"server": server_id},
        )
        found: datetime | None = rows[0][0]
        return found

    async def due(self, server_id: str, now: datetime, limit: int) -> list[Due]:
        rows = await self._link.run(
            f"{_DUE} FROM {_WITH_CONTAINER} WHERE e.next_fire_at <= %(now)s AND e.enabled"
            f" AND {_OURS} ORDER BY e.next_fire_at, e.id LIMIT %(limit)s"
            " FOR UPDATE OF e SKIP LOCKED",
            {"server": server_id, "now": now, "limit": limit},
        )
        return [_due(row) for row in rows]

    async def retries(self, server_id: str, now: datetime, limit: int) -> list[Due]:
        rows = await self._link.run(
            f"{_DUE}, {_RUN_COLUMNS} FROM cron_runs r JOIN cron_entries e ON e.id = r.entry_id"
            " LEFT JOIN containers c ON c.id = e.container_id"
            " WHERE r.retry_at <= %(now)s AND r.server_id = %(server)s"
            " ORDER BY r.retry_at, r.id LIMIT %(limit)s FOR UPDATE OF e, r SKIP LOCKED",
            {"server": server_id, "now": now, "limit": limit},
        )
        return [_due(row) for row in rows]

    async def ending(self, server_id: str, now: datetime, limit: int) -> list[Due]:
        rows = await self._link.run(
            f"{_DUE} FROM {_WITH_CONTAINER} WHERE e.expires_at <= %(now)s AND NOT e.expired"
            f" AND {_OURS} ORDER BY e.expires_at, e.id LIMIT %(limit)s"
            " FOR UPDATE OF e SKIP LOCKED",
            {"server": server_id, "now": now, "limit": limit},
        )
        return [_due(row) for row in rows]

    async def later_than(
        self, server_id: str, now: datetime, after: str, limit: int
    ) -> list[Entry]:
        rows = await self._link.run(
            f"SELECT {_COLUMNS} FROM {_WITH_CONTAINER} WHERE e.next_fire_at > %(now)s"
            f" AND {_OURS} AND e.id > %(after)s ORDER BY e.id LIMIT %(limit)s"
            " FOR UPDATE OF e SKIP LOCKED",
            {"server": server_id, "now": now, "after": after, "limit": limit},
        )
        return [_entry(row) for row in rows]

    async def set_next(self, fires: dict[str, datetime | None]) -> None:
        await self._link.run(
            "UPDATE cron_entries e SET next_fire_at = f.next_fire_at"
            " FROM unnest(%s::text[], %s::timestamptz[]) AS f (id, next_fire_at)"
            " WHERE e.id = f.id",
            (list(fires), list(fires.values())),
        )

    async def begin(self, runs: list[Run]) -> set[str]:
        if not runs:
            return set()
        rows = await self._link.run(
            f"INSERT INTO cron_runs ({', '.join(_RUN_NAMES)}) SELECT {', '.join(_RUN_NAMES)}"
            f" FROM jsonb_to_recordset(%s::jsonb) AS r ({_RUN_RECORD})"
            " ON CONFLICT DO NOTHING RETURNING id",
            (msgspec.json.encode([_run_row(run) for run in runs]).decode(),),
        )
        return {row[0] for row in rows}

    async def run(self, run_id: str) -> Run | None:
        rows = await self._link.run(
            f"SELECT {_RUN_COLUMNS} FROM cron_runs r WHERE r.id = %s", (run_id,)
        )
        return _run(rows[0]) if rows else None

    async def change_run(self, run: Run) -> None:
        places = ", ".join(f"{name} = %({name})s" for name in _RUN_NAMES)
        await self._link.run(f"UPDATE cron_runs SET {places} WHERE id = %(id)s", _run_row(run))

    async def runs(self, entry_id: str, offset: int, limit: int) -> tuple[list[Run], int]:
        rows = await self._link.run(
            f"SELECT {_RUN_COLUMNS} FROM cron_runs r WHERE r.entry_id = %s"
            " ORDER BY r.scheduled_at DESC, r.attempt DESC LIMIT %s OFFSET %s",
            (entry_id, limit, offset),
        )
        total = await self._link.run(
            "SELECT count(*) FROM cron_runs WHERE entry_id = %s", (entry_id,)
        )
        return [_run(row) for row in rows], total[0][0]

    async def last_runs(self, entry_ids: list[str]) -> dict[str, Run]:
        columns = _RUN_COLUMNS.replace("r.stdout, r.stderr", "'', ''")
        rows = await self._link.run(
            f"SELECT {columns} FROM unnest(%s::text[]) AS e (id), LATERAL (SELECT * FROM cron_runs"
            " WHERE entry_id = e.id ORDER BY scheduled_at DESC, attempt DESC LIMIT 1) AS r",
            (entry_ids,),
        )
        return {run.entry_id: run for run in map(_run, rows)}

    async def unfinished(self, server_id: str) -> list[Run]:
        rows = await self._link.run(
            f"SELECT {_RUN_COLUMNS} FROM cron_runs r WHERE r.status = 'running'"
            " AND r.server_id = %s ORDER BY r.scheduled_at, r.id",
            (server_id,),
        )
        return [_run(row) for row in rows]

    async def expire(self, before: datetime, limit: int) -> int:
        rows = await self._link.run(
            "WITH gone AS (DELETE FROM cron_runs WHERE id IN (SELECT id FROM cron_runs"
            " WHERE scheduled_at < %s AND status <> 'running' ORDER BY scheduled_at LIMIT %s)"
            " RETURNING 1) SELECT count(*) FROM gone",
            (before, limit),
        )
        return int(rows[0][0])


def _where(
    user: str | None, container_id: str | None, only: tuple[str, ...] | None
) -> tuple[str, dict[str, object]]:
    where, values = ["true"], dict[str, object]()
    if user is not None:
        where.append("e.user_name = %(user)s")
        values["user"] = user
    if container_id is not None:
        where.append("e.container_id = %(container)s")
        values["container"] = container_id
    if only is not None:
        where.append("e.container_id = ANY(%(only)s)")
        values["only"] = list(only)
    return " AND ".join(where), values


def _place(name: str) -> str:
    return f"%({name})s::jsonb" if name == "environment_vars" else f"%({name})s"


def _row(entry: Entry) -> dict[str, object]:
    return {
        **asdict(entry),
        "environment_vars": msgspec.json.encode(entry.environment_vars).decode(),
        "scopes": [str(scope) for scope in entry.scopes],
    }


def _entry(row: tuple[Any, ...]) -> Entry:
    found = dict(zip(_NAMES, row, strict=True))
    found["scopes"] = tuple(Scope(scope) for scope in found["scopes"])
    return Entry(**found)


def _due(row: tuple[Any, ...]) -> Due:
    count = len(_NAMES)
    running, project_id, container, *failed = row[count:]
    return Due(
        entry=_entry(row[:count]),
        running=running,
        project_id=project_id,
        container=container,
        failed=_run(tuple(failed)) if failed else None,
    )


def _run_row(run: Run) -> dict[str, object]:
    """What programs say may have NUL in it, which Postgres' texts may not."""
    said = {name: getattr(run, name).replace("\0", "\ufffd") for name in ("stdout", "stderr")}
    return {**asdict(run), **said, "status": str(run.status)}


def _run(row: tuple[Any, ...]) -> Run:
    found = dict(zip(_RUN_NAMES, row, strict=True))
    found["status"] = RunStatus(found["status"])
    return Run(**found)
