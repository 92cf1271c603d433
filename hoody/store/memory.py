"""The store in memory: for tests of what is above it. It keeps the same contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import copy
from datetime import datetime

from attrs import asdict, define, evolve, field
from twisted.internet.defer import DeferredLock
from zope.interface import implementer

from hoody.audit.events import Event, Filter
from hoody.auth.tokens import Token
from hoody.errors import DatabaseAway, Taken
from hoody.interfaces import IEvents, IProjects, IResults, IStore, ITokens, ITransaction
from hoody.pipes.results import Result
from hoody.projects import Project
from hoody.store.memory_containers import (
    ContainerRows,
    MemoryContainers,
    MemoryImages,
    MemoryServers,
    MemorySnapshots,
)
from hoody.store.memory_cron import MemoryCron
from hoody.units import case_folded, moment


@define
class _Rows:
    tokens: dict[str, Token] = field(factory=dict)
    projects: dict[str, Project] = field(factory=dict)
    events: list[Event] = field(factory=list)
    secrets: dict[str, bytes] = field(factory=dict)
    results: dict[str, Result] = field(factory=dict)
    fleet: ContainerRows = field(factory=ContainerRows)
    last_seq: int = 0

    def copied(self) -> _Rows:
        return _Rows(
            copy(self.tokens),
            copy(self.projects),
            copy(self.events),
            copy(self.secrets),
            copy(self.results),
            self.fleet.copied(),
            self.last_seq,
        )


@implementer(ITokens)
@define(eq=False)
class MemoryTokens:
    _rows: _Rows

    async def add(self, token: Token) -> None:
        for other in self._rows.tokens.values():
            same = case_folded(other.alias) == case_folded(token.alias)
            if same or (other.root and token.root):
                raise Taken
        self._rows.tokens[token.id] = token

    async def get(self, token_id: str) -> Token | None:
        return self._rows.tokens.get(token_id)

    async def all(self) -> list[Token]:
        return sorted(self._rows.tokens.values(), key=lambda t: (t.created_at, t.id))

    async def remove(self, token_id: str) -> bool:
        return self._rows.tokens.pop(token_id, None) is not None


@implementer(IProjects)
@define(eq=False)
class MemoryProjects:
    _rows: _Rows

    async def add(self, project: Project) -> None:
        self._check(project)
        self._rows.projects[project.id] = project

    async def idle_timeouts(self) -> dict[str, int]:
        return {each.id: each.idle_timeout_seconds for each in self._rows.projects.values()}

    async def find(self, id_or_alias: str, for_change: bool = False) -> Project | None:
        for project in self._rows.projects.values():
            if id_or_alias == project.id or case_folded(id_or_alias) == case_folded(project.alias):
                return project
        return None

    async def page(
        self, offset: int, limit: int, sort_by: str, ascending: bool
    ) -> tuple[list[Project], int]:
        def key(project: Project) -> tuple[bool, object]:
            value = getattr(project, sort_by)
            return value is not None, value

        rows = sorted(self._rows.projects.values(), key=lambda project: project.id)
        rows.sort(key=key, reverse=not ascending)
        return rows[offset : offset + limit], len(rows)

    async def change(self, project: Project) -> None:
        self._check(project)
        self._rows.projects[project.id] = project

    async def remove(self, project_id: str) -> None:
        self._rows.projects.pop(project_id, None)

    def _check(self, project: Project) -> None:
        for other in self._rows.projects.values():
            same = case_folded(other.alias) == case_folded(project.alias)
            if other.id != project.id and same:
                raise Taken


@implementer(IEvents)
@define(eq=False)
class MemoryEvents:
    _rows: _Rows

    async def page(
        self, wanted: Filter, offset: int, limit: int, ascending: bool
    ) -> tuple[list[Event], int]:
        found = [event for event in self._rows.events if is_wanted(event, wanted)]
        ordered = found if ascending else found[::-1]
        return ordered[offset : offset + limit], len(found)

    async def after(self, seq: int, wanted: Filter, limit: int) -> list[Event]:
        found = [e for e in self._rows.events if e.seq > seq and is_wanted(e, wanted)]
        return found[:limit]

    async def newest(self) -> int:
        return max((event.seq for event in self._rows.events), default=0)

    async def expire(self, before: datetime, limit: int) -> int:
        old = [event for event in self._rows.events if event.ts < before]
        gone = sorted(old, key=lambda event: event.ts)[:limit]
        self._rows.events = [event for event in self._rows.events if event not in gone]
        return len(gone)


@implementer(IResults)
@define(eq=False)
class MemoryResults:
    _rows: _Rows

    async def keep(self, results: list[Result]) -> None:
        for result in results:
            former = self._rows.results.get(result.path)
            if former is None or former.ended <= result.ended:
                self._rows.results[result.path] = result

    async def find(self, path: str) -> Result | None:
        return self._rows.results.get(path)

    async def expire(self, before: datetime, limit: int) -> int:
        old = [r for r in self._rows.results.values() if moment(r.ended) < before][:limit]
        for result in old:
            del self._rows.results[result.path]
        return len(old)


def is_wanted(event: Event, wanted: Filter) -> bool:
    """Whether a filter lets it through."""
    given = {name: value for name, value in asdict(wanted).items() if value is not None}
    tests: dict[str, Callable[[], bool]] = {
        "container_id": lambda: event.container_id == wanted.container_id,
        "project_id": lambda: event.project_id == wanted.project_id,
        "event_types": lambda: event.event_type in given["event_types"],
        "resource_type": lambda: event.resource_type == wanted.resource_type,
        "containers": lambda: event.container_id in given["containers"],
        "since": lambda: event.ts >= given["since"],
        "until": lambda: event.ts < given["until"],
    }
    return all(tests[name]() for name in given)


@implementer(ITransaction)
@define(eq=False)
class MemoryTransaction:
    _rows: _Rows
    tokens: MemoryTokens = field(init=False)
    projects: MemoryProjects = field(init=False)
    events: MemoryEvents = field(init=False)
    results: MemoryResults = field(init=False)
    containers: MemoryContainers = field(init=False)
    images: MemoryImages = field(init=False)
    servers: MemoryServers = field(init=False)
    snapshots: MemorySnapshots = field(init=False)
    cron: MemoryCron = field(init=False)
    recorded: list[Event] = field(factory=list, init=False)
    topics: set[str] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self.tokens = MemoryTokens(self._rows)
        self.projects = MemoryProjects(self._rows)
        self.events = MemoryEvents(self._rows)
        self.results = MemoryResults(self._rows)
        self.containers = MemoryContainers(self._rows.fleet)
        self.images = MemoryImages(self._rows.fleet)
        self.servers = MemoryServers(self._rows.fleet)
        self.snapshots = MemorySnapshots(self._rows.fleet)
        self.cron = MemoryCron(self._rows.fleet.cron, self._rows.fleet.containers)

    async def secret(self, name: str, fresh: bytes) -> bytes:
        return self._rows.secrets.setdefault(name, fresh)

    def record(self, event: Event) -> None:
        self.recorded.append(event)
        self.topics.add("events")

    def announce(self, topic: str) -> None:
        self.topics.add(topic)


@implementer(IStore)
@define(eq=False)
class MemoryStore:
    """@ivar away: why it is as if Postgres were not there; C{None} if it is."""

    away: str | None = None
    _rows: _Rows = field(factory=_Rows, init=False)
    _observers: dict[str, list[Callable[[], None]]] = field(factory=dict, init=False)
    _lock: DeferredLock = field(factory=DeferredLock, init=False)

    def transaction(self, patience: float = 1.5) -> AbstractAsyncContextManager[MemoryTransaction]:
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[MemoryTransaction]:
        self._check()
        await self._lock.acquire()
        try:
            rows = self._rows.copied()
            transaction = MemoryTransaction(rows)
            yield transaction
            self._check()
            keys = {event.key for event in rows.events if event.key}
            for event in transaction.recorded:
                if event.key in keys:
                    continue
                rows.last_seq += 1
                rows.events.append(evolve(event, seq=rows.last_seq))
            self._rows = rows
        finally:
            self._lock.release()
        for topic in sorted(transaction.topics):
            for observer in self._observers.get(topic, []):
                observer()

    def _check(self) -> None:
        if self.away is not None:
            raise DatabaseAway(self.away)

    def observe(self, topic: str, observer: Callable[[], None]) -> None:
        self._observers.setdefault(topic, []).append(observer)
