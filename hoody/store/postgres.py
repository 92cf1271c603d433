"""All of the SQL."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg2.errors
from attrs import asdict, define, field
from zope.interface import implementer

from hoody.audit.events import Event, Filter
from hoody.auth.tokens import Scope, Token
from hoody.errors import InUse
from hoody.interfaces import IEvents, IProjects, IResults, ITokens, ITransaction
from hoody.pipes.results import Result
from hoody.projects import Project
from hoody.store.containers import Containers, Images, Servers
from hoody.store.cron import Cron
from hoody.store.links import Link
from hoody.store.rows import names_of, unique
from hoody.store.snapshots import Snapshots
from hoody.units import case_folded

CHANNEL = "hoody"
EVENTS = "events"
_EVENTS_LOCK = 0x6576656E7473  # "events"
_TOKEN = ", ".join(names_of(Token))
_PROJECT_NAMES = names_of(Project)
_PROJECT = ", ".join(_PROJECT_NAMES)
_EVENT_NAMES = names_of(Event, "seq")
_EVENT = ", ".join([*_EVENT_NAMES, "seq"])
_EVENT_TYPES = (
    "ts timestamptz, event_type text, actor text, resource_type text, resource_id text,"
    " container_id text, project_id text, data jsonb, duration_ms float8, request_id text,"
    " key text"
)
_RESULT_NAMES = names_of(Result)
_RESULT_TYPES = (
    "path text, delivered bigint, total bigint, receivers integer, digest text, error text,"
    " started timestamptz, ended timestamptz"
)


@implementer(ITokens)
@define(eq=False)
class Tokens:
    _link: Link

    async def add(self, token: Token) -> None:
        row = {**asdict(token), "alias_key": case_folded(token.alias)}
        row["scopes"] = list(token.scopes)
        row["containers"] = None if token.containers is None else list(token.containers)
        await unique(
            self._link.run(
                f"INSERT INTO tokens ({_TOKEN}, alias_key) VALUES (%(id)s, %(alias)s,"
                " %(scopes)s::text[], %(containers)s::text[], %(digest)s, %(root)s,"
                " %(created_at)s, %(expires_at)s, %(alias_key)s)",
                row,
            )
        )

    async def get(self, token_id: str) -> Token | None:
        rows = await self._link.run(f"SELECT {_TOKEN} FROM tokens WHERE id = %s", (token_id,))
        return _token(rows[0]) if rows else None

    async def all(self) -> list[Token]:
        rows = await self._link.run(f"SELECT {_TOKEN} FROM tokens ORDER BY created_at, id")
        return [_token(row) for row in rows]

    async def remove(self, token_id: str) -> bool:
        return bool(
            await self._link.run("DELETE FROM tokens WHERE id = %s RETURNING id", (token_id,))
        )


def _token(row: tuple[Any, ...]) -> Token:
    identity, alias, scopes, containers, digest, root, created_at, expires_at = row
    return Token(
        id=identity,
        alias=alias,
        scopes=tuple(Scope(scope) for scope in scopes),
        containers=None if containers is None else tuple(containers),
        digest=bytes(digest),
        root=root,
        created_at=created_at,
        expires_at=expires_at,
    )


@implementer(IProjects)
@define(eq=False)
class Projects:
    _link: Link

    async def add(self, project: Project) -> None:
        places = ", ".join(f"%({name})s" for name in _PROJECT_NAMES)
        await unique(
            self._link.run(
                f"INSERT INTO projects ({_PROJECT}, alias_key) VALUES ({places}, %(alias_key)s)",
                _row(project),
            )
        )

    async def idle_timeouts(self) -> dict[str, int]:
        rows = await self._link.run("SELECT id, idle_timeout_seconds FROM projects")
        return dict(rows)

    async def find(self, id_or_alias: str, for_change: bool = False) -> Project | None:
        rows = await self._link.run(
            f"SELECT {_PROJECT} FROM projects WHERE id = %s OR alias_key = %s"
            + (" FOR UPDATE" if for_change else ""),
            (id_or_alias, case_folded(id_or_alias)),
        )
        return _project(rows[0]) if rows else None

    async def page(
        self, offset: int, limit: int, sort_by: str, ascending: bool
    ) -> tuple[list[Project], int]:
        assert sort_by in _PROJECT_NAMES
        order = "ASC NULLS FIRST" if ascending else "DESC NULLS LAST"
        rows = await self._link.run(
            f"SELECT {_PROJECT} FROM projects ORDER BY {sort_by} {order}, id LIMIT %s OFFSET %s",
            (limit, offset),
        )
        total = await self._link.run("SELECT count(*) FROM projects")
        return [_project(row) for row in rows], total[0][0]

    async def change(self, project: Project) -> None:
        places = ", ".join(f"{name} = %({name})s" for name in [*_PROJECT_NAMES, "alias_key"])
        await unique(
            self._link.run(f"UPDATE projects SET {places} WHERE id = %(id)s", _row(project))
        )

    async def remove(self, project_id: str) -> None:
        try:
            await self._link.run("DELETE FROM projects WHERE id = %s", (project_id,))
        except psycopg2.errors.ForeignKeyViolation as error:
            raise InUse from error


def _row(project: Project) -> dict[str, object]:
    return {**asdict(project), "alias_key": case_folded(project.alias)}


def _project(row: tuple[Any, ...]) -> Project:
    return Project(**dict(zip(_PROJECT_NAMES, row, strict=True)))


@implementer(IEvents)
@define(eq=False)
class Events:
    _link: Link

    async def page(
        self, wanted: Filter, offset: int, limit: int, ascending: bool
    ) -> tuple[list[Event], int]:
        where, values = where_of(wanted)
        rows = await self._link.run(
            f"SELECT {_EVENT} FROM events WHERE {where} ORDER BY seq"
            f" {'ASC' if ascending else 'DESC'} LIMIT %(limit)s OFFSET %(offset)s",
            {**values, "limit": limit, "offset": offset},
        )
        total = await self._link.run(f"SELECT count(*) FROM events WHERE {where}", values)
        return [_event(row) for row in rows], total[0][0]

    async def after(self, seq: int, wanted: Filter, limit: int) -> list[Event]:
        where, values = where_of(wanted)
        rows = await self._link.run(
            f"SELECT {_EVENT} FROM events WHERE seq > %(seq)s AND {where}"
            " ORDER BY seq LIMIT %(limit)s",
            {**values, "seq": seq, "limit": limit},
        )
        return [_event(row) for row in rows]

    async def newest(self) -> int:
        rows = await self._link.run("SELECT coalesce(max(seq), 0) FROM events")
        return int(rows[0][0])

    async def expire(self, before: datetime, limit: int) -> int:
        await self._link.run(
            "SELECT set_config('hoody.expire_before', %s, true)", (before.isoformat(),)
        )
        rows = await self._link.run(
            "WITH gone AS (DELETE FROM events WHERE seq IN (SELECT seq FROM events"
            " WHERE ts < %s ORDER BY ts LIMIT %s) RETURNING 1) SELECT count(*) FROM gone",
            (before, limit),
        )
        return int(rows[0][0])


def where_of(wanted: Filter) -> tuple[str, dict[str, object]]:
    """A filter as SQL, for what is there to be filtered by; and its values."""
    clauses = {
        "container_id": "container_id = %(container_id)s",
        "project_id": "project_id = %(project_id)s",
        "event_types": "event_type = ANY(%(event_types)s)",
        "resource_type": "resource_type = %(resource_type)s",
        "containers": "container_id = ANY(%(containers)s)",
        "since": "ts >= %(since)s",
        "until": "ts < %(until)s",
    }
    values = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(wanted).items()
        if value is not None
    }
    return " AND ".join(clauses[name] for name in values) or "true", values


def _event(row: tuple[Any, ...]) -> Event:
    return Event(**dict(zip([*_EVENT_NAMES, "seq"], row, strict=True)))


@implementer(IResults)
@define(eq=False)
class Results:
    _link: Link

    async def keep(self, results: list[Result]) -> None:
        newest = {result.path: result for result in sorted(results, key=lambda r: r.ended)}
        rows = [
            {
                **asdict(result),
                "path_digest": _path_digest(result.path).hex(),
                "started": datetime.fromtimestamp(result.started, UTC),
                "ended": datetime.fromtimestamp(result.ended, UTC),
            }
            for result in newest.values()
        ]
        names = ", ".join(_RESULT_NAMES)
        changes = ", ".join(f"{name} = excluded.{name}" for name in _RESULT_NAMES)
        await self._link.run(
            f"INSERT INTO pipe_results (path_digest, {names})"
            f" SELECT decode(path_digest, 'hex'), {names}"
            f" FROM jsonb_to_recordset(%s::jsonb) AS r (path_digest text, {_RESULT_TYPES})"
            f" ON CONFLICT (path_digest) DO UPDATE SET {changes}"
            " WHERE pipe_results.ended <= excluded.ended",
            (msgspec.json.encode(rows).decode(),),
        )

    async def find(self, path: str) -> Result | None:
        rows = await self._link.run(
            f"SELECT {', '.join(_RESULT_NAMES)} FROM pipe_results WHERE path_digest = %s",
            (_path_digest(path),),
        )
        if not rows:
            return None
        found = dict(zip(_RESULT_NAMES, rows[0], strict=True))
        for name in ("started", "ended"):
            found[name] = found[name].timestamp()
        return Result(**found)

    async def expire(self, before: datetime, limit: int) -> int:
        rows = await self._link.run(
            "WITH gone AS (DELETE FROM pipe_results WHERE path_digest IN (SELECT path_digest"
            " FROM pipe_results WHERE ended < %s LIMIT %s) RETURNING 1)"
            " SELECT count(*) FROM gone",
            (before, limit),
        )
        return int(rows[0][0])


def _path_digest(path: str) -> bytes:
    return hashlib.sha256(path.encode()).digest()


@implementer(ITransaction)
@define(eq=False)
class Transaction:
    _link: Link
    tokens: Tokens = field(init=False)
    projects: Projects = field(init=False)
    events: Events = field(init=False)
    results: Results = field(init=False)
    containers: Containers = field(init=False)
    images: Images = field(init=False)
    servers: Servers = field(init=False)
    snapshots: Snapshots = field(init=False)
    cron: Cron = field(init=False)
    _recorded: list[Event] = field(factory=list, init=False)
    _topics: set[str] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self.tokens, self.projects = Tokens(self._link), Projects(self._link)
        self.events, self.results = Events(self._link), Results(self._link)
        self.containers, self.images = Containers(self._link), Images(self._link)
        self.servers, self.snapshots = Servers(self._link), Snapshots(self._link)
        self.cron = Cron(self._link)

    async def secret(self, name: str, fresh: bytes) -> bytes:
        await self._link.run(
            "INSERT INTO secrets VALUES (%s, %s) ON CONFLICT DO NOTHING", (name, fresh)
        )
        rows = await self._link.run("SELECT value FROM secrets WHERE name = %s", (name,))
        return bytes(rows[0][0])

    def record(self, event: Event) -> None:
        self._recorded.append(event)
        self._topics.add(EVENTS)

    def announce(self, topic: str) -> None:
        self._topics.add(topic)

    async def commit(self, within: float) -> None:
        """
        @param within: seconds since the transaction began, by the database's clock, after
            which it shall not become true, as whoever asked has been told that it did not.

        Events are written last, one transaction after the other: so their order is
        that in which they become true, and who follows them misses none.
        """
        statements: list[str] = []
        values: dict[str, object] = {"within": within}
        if self._recorded:
            rows = [{name: getattr(e, name) for name in _EVENT_NAMES} for e in self._recorded]
            statements.append(
                "SELECT pg_advisory_xact_lock(%(lock)s); "
                f"INSERT INTO events ({', '.join(_EVENT_NAMES)}) SELECT * FROM"
                f" jsonb_to_recordset(%(rows)s::jsonb) AS e ({_EVENT_TYPES})"
                " ON CONFLICT (key) WHERE key IS NOT NULL DO NOTHING"
            )
            values |= {"lock": _EVENTS_LOCK, "rows": msgspec.json.encode(rows).decode()}
        statements += [f"NOTIFY {CHANNEL}, '{topic}'" for topic in sorted(self._topics)]
        statements += ["SELECT must_be_within(%(within)s)", "COMMIT"]
        await self._link.run("; ".join(statements), values)
