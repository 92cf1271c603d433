"""The SQL of cron: of entries, of what they were before, and of their runs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
from attrs import asdict, define, evolve
from zope.interface import implementer

from hoody.auth.tokens import Scope
from hoody.cron.claims import MOST_RETRY
from hoody.cron.entry import Due, Entry, Run, RunStatus
from hoody.interfaces import ICron
from hoody.store.links import Link
from hoody.store.rows import names_of, without_nul

_NAMES = names_of(Entry)
_VERSION_NAMES = names_of(Entry, "next_fire_at")
_RUN_NAMES = names_of(Run)
_SAID = ("stdout", "stderr")
_CASTS = {"environment_vars": "::jsonb", "scopes": "::text[]"}
_PLACED = "cron_entries e LEFT JOIN containers c ON c.id = e.container_id"
_MINE = "coalesce(c.server_id, e.server_id) = %(server)s"
# The same where the first few of an index are wanted. The planner takes it that hardly a row is
# somebody's; given a join, it may begin at the wrong end.
_PLACE = (
    "coalesce((SELECT c.server_id FROM containers c WHERE c.id = e.container_id), e.server_id)"
)
_FIRES = "e.enabled AND e.next_fire_at IS NOT NULL"
_ENDS = "NOT e.expired AND e.expires_at IS NOT NULL"


def _listed(names: list[str], of: str = "") -> str:
    """Quoted: C{user} is a word of SQL's own."""
    return ", ".join(f'{of}"{name}"' for name in names)


_ENTRY = _listed(_NAMES, "e.")
_VERSION = _listed(_VERSION_NAMES)
_RUN = _listed(_RUN_NAMES, "r.")


@implementer(ICron)
@define(eq=False)
class Cron:
    _link: Link

    async def add(self, entry: Entry) -> None:
        places = ", ".join(map(_place, _NAMES))
        await self._link.run(
            f"WITH made AS (INSERT INTO cron_entries ({_listed(_NAMES)}) VALUES ({places})"
            f" RETURNING *) INSERT INTO cron_entry_versions ({_VERSION})"
            f" SELECT {_VERSION} FROM made",
            _row(entry),
        )

    async def find(self, entry_id: str, for_change: bool = False) -> Entry | None:
        rows = await self._link.run(
            f"SELECT {_ENTRY} FROM cron_entries e WHERE e.id = %s"
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
        sort_by: str = "created_at",
        ascending: bool = True,
    ) -> tuple[list[Entry], int]:
        assert sort_by in _NAMES
        order = "ASC NULLS FIRST" if ascending else "DESC NULLS LAST"
        collation = ' COLLATE "C"' if sort_by == "name" else ""
        where, values = _wanted(user, container_id, only)
        rows = await self._link.run(
            f"SELECT {_ENTRY} FROM cron_entries e WHERE {where}"
            f" ORDER BY e.{sort_by}{collation} {order}, e.id"
            " LIMIT %(limit)s OFFSET %(offset)s",
            {**values, "limit": limit, "offset": offset},
        )
        total = await self._link.run(f"SELECT count(*) FROM cron_entries e WHERE {where}", values)
        return [_entry(row) for row in rows], total[0][0]

    async def users(
        self,
        offset: int,
        limit: int,
        container_id: str | None = None,
        only: tuple[str, ...] | None = None,
    ) -> tuple[list[str], int]:
        where, values = _wanted(None, container_id, only)
        whose = (
            f'(SELECT e."user" FROM cron_entries e WHERE {where}'
            f' UNION SELECT e."user" FROM cron_layouts e WHERE {where}) AS whose'
        )
        rows = await self._link.run(
            f'SELECT "user" FROM {whose} ORDER BY "user" COLLATE "C"'
            " LIMIT %(limit)s OFFSET %(offset)s",
            {**values, "limit": limit, "offset": offset},
        )
        total = await self._link.run(f"SELECT count(*) FROM {whose}", values)
        return [row[0] for row in rows], total[0][0]

    async def change(self, entry: Entry) -> None:
        changes = ", ".join(f'"{name}" = {_place(name)}' for name in _NAMES)
        await self._link.run(
            f"WITH changed AS (UPDATE cron_entries SET {changes} WHERE id = %(id)s RETURNING *)"
            f" INSERT INTO cron_entry_versions ({_VERSION}) SELECT {_VERSION} FROM changed"
            " ON CONFLICT (id, version) DO NOTHING",
            _row(entry),
        )

    async def remove(self, entry_id: str) -> None:
        await self._link.run("DELETE FROM cron_entries WHERE id = %s", (entry_id,))

    async def versions(self, entry_id: str) -> list[Entry]:
        rows = await self._link.run(
            f"SELECT {_ENTRY} FROM cron_entry_versions e WHERE e.id = %s ORDER BY e.version DESC",
            (entry_id,),
        )
        return [_entry(row) for row in rows]

    async def layout(self, user: str, container_id: str | None) -> str | None:
        rows = await self._link.run(
            "SELECT layout FROM cron_layouts"
            " WHERE \"user\" = %s AND coalesce(container_id, '') = %s",
            (user, container_id or ""),
        )
        return rows[0][0] if rows else None

    async def lay_out(self, user: str, container_id: str | None, layout: str | None) -> None:
        if layout is None:
            await self._link.run(
                "DELETE FROM cron_layouts WHERE \"user\" = %s AND coalesce(container_id, '') = %s",
                (user, container_id or ""),
            )
            return
        await self._link.run(
            'INSERT INTO cron_layouts ("user", container_id, layout) VALUES (%s, %s, %s)'
            " ON CONFLICT (\"user\", coalesce(container_id, ''))"
            " DO UPDATE SET layout = excluded.layout",
            (user, container_id, layout),
        )

    # What the clock does

    async def next_due(self, server_id: str) -> datetime | None:
        # Indexes, each read from its beginning to the first that is ours. What fires, which is
        # the most, is asked for in two parts: else a server that has little would read all that
        # others have.
        rows = await self._link.run(
            f"SELECT least((SELECT e.next_fire_at FROM cron_entries e WHERE {_FIRES}"
            " AND e.container_id IS NULL AND e.server_id = %(server)s"
            " ORDER BY e.next_fire_at LIMIT 1),"
            " (SELECT e.next_fire_at FROM cron_entries e"
            f" JOIN containers c ON c.id = e.container_id WHERE {_FIRES}"
            " AND c.server_id = %(server)s ORDER BY e.next_fire_at, e.id LIMIT 1),"
            " (SELECT r.retry_at FROM cron_runs r WHERE r.retry_at IS NOT NULL"
            f" AND (SELECT {_PLACE} FROM cron_entries e WHERE e.id = r.entry_id) = %(server)s"
            " ORDER BY r.retry_at, r.id LIMIT 1),"
            f" (SELECT e.expires_at FROM cron_entries e WHERE {_ENDS}"
            f" AND {_PLACE} = %(server)s ORDER BY e.expires_at, e.id LIMIT 1))",
            {"server": server_id},
        )
        return rows[0][0]  # type: ignore[no-any-return]

    async def due(self, server_id: str, now: datetime, limit: int) -> list[Due]:
        rows = await self._link.run(
            f"SELECT e.id FROM {_PLACED} WHERE {_FIRES} AND e.next_fire_at <= %(now)s"
            f" AND {_MINE} ORDER BY e.next_fire_at, e.id LIMIT %(limit)s"
            " FOR UPDATE OF e SKIP LOCKED",
            {"server": server_id, "now": now, "limit": limit},
        )
        return await self.seen([row[0] for row in rows])

    async def retries(self, server_id: str, now: datetime, limit: int) -> list[Due]:
        rows = await self._link.run(
            f"SELECT {_RUN} FROM cron_runs r JOIN cron_entries e ON e.id = r.entry_id"
            f" WHERE r.retry_at <= %(now)s AND {_PLACE} = %(server)s"
            " ORDER BY r.retry_at, r.id LIMIT %(limit)s FOR UPDATE OF e, r SKIP LOCKED",
            {"server": server_id, "now": now, "limit": limit},
        )
        failed = [_run(row) for row in rows]
        entries = {due.entry.id: due for due in await self.seen([one.entry_id for one in failed])}
        return [evolve(entries[run.entry_id], failed=run) for run in failed]

    async def ending(self, server_id: str, now: datetime, limit: int) -> list[Due]:
        rows = await self._link.run(
            f"SELECT e.id FROM {_PLACED} WHERE {_ENDS} AND e.expires_at <= %(now)s"
            f" AND {_MINE} ORDER BY e.expires_at, e.id LIMIT %(limit)s"
            " FOR UPDATE OF e SKIP LOCKED",
            {"server": server_id, "now": now, "limit": limit},
        )
        return await self.seen([row[0] for row in rows])

    async def seen(self, entry_ids: list[str]) -> list[Due]:
        # A question of its own: that which locks them sees runs as they were when it was asked,
        # and who had an entry until then may have begun another.
        if not entry_ids:
            return []
        rows = await self._link.run(
            "SELECT (SELECT count(*) FROM cron_runs r WHERE r.entry_id = e.id"
            f" AND r.status = 'running'), c.project_id, c.name, {_ENTRY} FROM {_PLACED}"
            " JOIN unnest(%s) WITH ORDINALITY AS wanted (id, place) ON wanted.id = e.id"
            " ORDER BY wanted.place",
            (entry_ids,),
        )
        return [
            Due(entry=_entry(row), running=running, project_id=project_id, container=container)
            for running, project_id, container, *row in rows
        ]

    async def later_than(
        self, server_id: str, now: datetime, after: str, limit: int
    ) -> list[Entry]:
        rows = await self._link.run(
            f"SELECT {_ENTRY} FROM {_PLACED} WHERE {_FIRES} AND {_MINE}"
            " AND e.next_fire_at > %(now)s AND e.id > %(after)s ORDER BY e.id LIMIT %(limit)s"
            " FOR UPDATE OF e SKIP LOCKED",
            {"server": server_id, "now": now, "after": after, "limit": limit},
        )
        return [_entry(row) for row in rows]

    async def take_back(self, server_id: str, now: datetime, wait: timedelta) -> None:
        given = {"server": server_id, "now": now, "wait": wait, "most": MOST_RETRY}
        await self._link.run(
            "DELETE FROM cron_runs WHERE server_id = %(server)s AND scheduled_at > %(now)s"
            " AND status IN ('missed', 'skipped')",
            given,
        )
        # Of two to the power of more than some, the greatest wait is less.
        longest = "least(%(wait)s * 2 ^ least(attempt - 1, 30), %(most)s)"
        await self._link.run(
            f"UPDATE cron_runs SET retry_at = %(now)s + {longest} WHERE server_id = %(server)s"
            f" AND retry_at > %(now)s + {longest}",
            given,
        )

    async def set_next(self, fires: dict[str, datetime | None]) -> None:
        await self._link.run(
            "UPDATE cron_entries e SET next_fire_at = fires.at"
            " FROM unnest(%s::text[], %s::timestamptz[]) AS fires (id, at) WHERE e.id = fires.id",
            (list(fires), list(fires.values())),
        )

    async def begin(self, runs: list[Run]) -> set[str]:
        # Two who begin the same ones wait for each other in one order, and so not for ever.
        ordered = sorted(runs, key=lambda run: (run.entry_id, run.scheduled_at, run.attempt))
        rows = await self._link.run(
            f"INSERT INTO cron_runs ({_listed(_RUN_NAMES)}) SELECT {_RUN}"
            " FROM jsonb_populate_recordset(NULL::cron_runs, %s::jsonb) AS r"
            " ON CONFLICT DO NOTHING RETURNING id",
            (_json([_run_row(run) for run in ordered]),),
        )
        return {row[0] for row in rows}

    async def run(self, run_id: str) -> Run | None:
        rows = await self._link.run(f"SELECT {_RUN} FROM cron_runs r WHERE r.id = %s", (run_id,))
        return _run(rows[0]) if rows else None

    async def change_runs(self, runs: list[Run]) -> None:
        changes = ", ".join(f'"{name}" = r."{name}"' for name in _RUN_NAMES)
        await self._link.run(
            f"UPDATE cron_runs changed SET {changes}"
            " FROM jsonb_populate_recordset(NULL::cron_runs, %s::jsonb) AS r"
            " WHERE changed.id = r.id",
            (_json([_run_row(run) for run in runs]),),
        )

    async def runs(self, entry_id: str, offset: int, limit: int) -> tuple[list[Run], int]:
        rows = await self._link.run(
            f"SELECT {_RUN} FROM cron_runs r WHERE r.entry_id = %s"
            " ORDER BY r.scheduled_at DESC, r.attempt DESC LIMIT %s OFFSET %s",
            (entry_id, limit, offset),
        )
        total = await self._link.run(
            "SELECT count(*) FROM cron_runs WHERE entry_id = %s", (entry_id,)
        )
        return [_run(row) for row in rows], total[0][0]

    async def last_runs(self, entry_ids: list[str]) -> dict[str, Run]:
        names = ", ".join("''" if name in _SAID else f'r."{name}"' for name in _RUN_NAMES)
        rows = await self._link.run(
            "SELECT last.* FROM unnest(%s::text[]) AS wanted (id) CROSS JOIN LATERAL"
            f" (SELECT {names} FROM cron_runs r WHERE r.entry_id = wanted.id"
            " ORDER BY r.scheduled_at DESC, r.attempt DESC LIMIT 1) AS last",
            (entry_ids,),
        )
        return {run.entry_id: run for run in map(_run, rows)}

    async def unfinished(self, server_id: str, after: str, limit: int) -> list[Run]:
        rows = await self._link.run(
            f"SELECT {_RUN} FROM cron_runs r WHERE r.server_id = %s AND r.status = 'running'"
            " AND r.id > %s ORDER BY r.id LIMIT %s",
            (server_id, after, limit),
        )
        return [_run(row) for row in rows]

    async def expire(self, before: datetime, limit: int) -> int:
        rows = await self._link.run(
            "WITH gone AS (DELETE FROM cron_runs WHERE id = ANY(ARRAY(SELECT id FROM cron_runs"
            " WHERE scheduled_at < %s AND status <> 'running' ORDER BY scheduled_at LIMIT %s))"
            " RETURNING 1) SELECT count(*) FROM gone",
            (before, limit),
        )
        return int(rows[0][0])


def _wanted(
    user: str | None, container_id: str | None, only: tuple[str, ...] | None
) -> tuple[str, dict[str, object]]:
    clauses = {
        "user": 'e."user" = %(user)s',
        "container_id": "e.container_id = %(container_id)s",
        "only": "e.container_id = ANY(%(only)s::text[])",
    }
    given = {"user": user, "container_id": container_id, "only": only}
    values: dict[str, object] = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value is not None
    }
    return " AND ".join(clauses[name] for name in values) or "true", values


def _place(name: str) -> str:
    return f"%({name})s{_CASTS.get(name, '')}"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _row(entry: Entry) -> dict[str, object]:
    scopes, variables = list(entry.scopes), _json(entry.environment_vars)
    return {**asdict(entry), "scopes": scopes, "environment_vars": variables}


def _entry(row: Any) -> Entry:
    found = dict(zip(_NAMES, row, strict=True))
    found["scopes"] = tuple(Scope(scope) for scope in found["scopes"])
    return Entry(**found)


def _run_row(run: Run) -> dict[str, object]:
    return {**asdict(run), **{name: without_nul(getattr(run, name)) for name in _SAID}}


def _run(row: Any) -> Run:
    found = dict(zip(_RUN_NAMES, row, strict=True))
    found["status"] = RunStatus(found["status"])
    return Run(**found)
