"""Cron entries and their runs in memory."""

from __future__ import annotations

from copy import copy
from datetime import datetime

from attrs import define, evolve, field
from zope.interface import implementer

from hoody.cron.entry import Due, Entry, Run, RunStatus
from hoody.interfaces import ICron
from hoody.store.memory_containers import ContainerRows


@define
class CronRows:
    entries: dict[str, Entry] = field(factory=dict)
    versions: dict[tuple[str, int], Entry] = field(factory=dict)
    layouts: dict[tuple[str, str], str] = field(factory=dict)
    runs: dict[str, Run] = field(factory=dict)

    def copied(self) -> CronRows:
        return CronRows(
            copy(self.entries), copy(self.versions), copy(self.layouts), copy(self.runs)
        )


@implementer(ICron)
@define(eq=False)
class MemoryCron:
    _rows: CronRows
    _fleet: ContainerRows

    async def add(self, entry: Entry) -> None:
        self._rows.entries[entry.id] = entry
        self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        key = (entry.id, entry.version)
        self._rows.versions.setdefault(key, evolve(entry, next_fire_at=None))

    @property
    def _entries(self) -> list[Entry]:
        """They go with their containers."""
        rows, containers = self._rows.entries, self._fleet.containers
        return [
            each
            for each in sorted(rows.values(), key=lambda entry: (entry.created_at, entry.id))
            if each.container_id is None or each.container_id in containers
        ]

    async def find(self, entry_id: str, for_change: bool = False) -> Entry | None:
        return next((each for each in self._entries if each.id == entry_id), None)

    async def page(
        self,
        offset: int,
        limit: int,
        user: str | None = None,
        container_id: str | None = None,
        only: tuple[str, ...] | None = None,
    ) -> tuple[list[Entry], int]:
        found = [
            each
            for each in self._entries
            if user in (None, each.user)
            and container_id in (None, each.container_id)
            and (only is None or each.container_id in only)
        ]
        return found[offset : offset + limit], len(found)

    async def users(
        self,
        offset: int,
        limit: int,
        container_id: str | None = None,
        only: tuple[str, ...] | None = None,
    ) -> tuple[list[str], int]:
        entries, _ = await self.page(0, 10**9, None, container_id, only)
        found = {each.user for each in entries}
        for user, container in self._rows.layouts:
            if container_id in (None, container) and (only is None or container in only):
                found.add(user)
        return sorted(found)[offset : offset + limit], len(found)

    async def change(self, entry: Entry) -> None:
        if entry.id in self._rows.entries:
            self._rows.entries[entry.id] = entry
            self._keep(entry)

    async def remove(self, entry_id: str) -> None:
        self._rows.entries.pop(entry_id, None)

    async def versions(self, entry_id: str) -> list[Entry]:
        found = [each for key, each in self._rows.versions.items() if key[0] == entry_id]
        return sorted(found, key=lambda entry: -entry.version)

    async def layout(self, user: str, container_id: str | None) -> str | None:
        return self._rows.layouts.get((user, container_id or ""))

    async def lay_out(self, user: str, container_id: str | None, layout: str | None) -> None:
        key = (user, container_id or "")
        self._rows.layouts.pop(key, None)
        if layout is not None:
            self._rows.layouts[key] = layout

    # What the clock does

    def _ours(self, server_id: str) -> list[Entry]:
        found = self._fleet.containers
        return [
            each
            for each in self._entries
            if server_id
            == (found[each.container_id].server_id if each.container_id else each.server_id)
        ]

    def _due(self, entry: Entry, failed: Run | None = None) -> Due:
        container = self._fleet.containers.get(entry.container_id or "")
        runs = [run for run in self._rows.runs.values() if run.entry_id == entry.id]
        return Due(
            entry=entry,
            running=sum(run.status is RunStatus.RUNNING for run in runs),
            project_id=container.project_id if container else None,
            container=container.name if container else None,
            failed=failed,
        )

    async def next_due(self, server_id: str) -> datetime | None:
        times = [run.retry_at for run, _ in self._waiting(server_id)]
        for each in self._ours(server_id):
            times += [each.next_fire_at, None if each.expired else each.expires_at]
        return min((time for time in times if time is not None), default=None)

    def _waiting(self, server_id: str) -> list[tuple[Run, Entry]]:
        entries = {each.id: each for each in self._entries}
        return [
            (run, entries[run.entry_id])
            for run in self._rows.runs.values()
            if run.retry_at and run.server_id == server_id and run.entry_id in entries
        ]

    async def due(self, server_id: str, now: datetime, limit: int) -> list[Due]:
        found = [
            (each.next_fire_at, each.id, each)
            for each in self._ours(server_id)
            if each.enabled and each.next_fire_at is not None and each.next_fire_at <= now
        ]
        return [self._due(each) for _, _, each in sorted(found, key=lambda f: f[:2])[:limit]]

    async def retries(self, server_id: str, now: datetime, limit: int) -> list[Due]:
        found = [
            (run.retry_at, run.id, self._due(entry, run))
            for run, entry in self._waiting(server_id)
            if run.retry_at is not None and run.retry_at <= now
        ]
        return [due for _, _, due in sorted(found, key=lambda f: f[:2])[:limit]]

    async def ending(self, server_id: str, now: datetime, limit: int) -> list[Due]:
        found = [
            (each.expires_at, each.id, each)
            for each in self._ours(server_id)
            if not each.expired and each.expires_at is not None and each.expires_at <= now
        ]
        return [self._due(each) for _, _, each in sorted(found, key=lambda f: f[:2])[:limit]]

    async def later_than(
        self, server_id: str, now: datetime, after: str, limit: int
    ) -> list[Entry]:
        found = [
            each
            for each in self._ours(server_id)
            if each.id > after and each.next_fire_at is not None and each.next_fire_at > now
        ]
        return sorted(found, key=lambda entry: entry.id)[:limit]

    async def set_next(self, fires: dict[str, datetime | None]) -> None:
        for entry_id, fire in fires.items():
            if entry_id in self._rows.entries:
                found = self._rows.entries[entry_id]
                self._rows.entries[entry_id] = evolve(found, next_fire_at=fire)

    async def begin(self, runs: list[Run]) -> set[str]:
        there = {_fire(run) for run in self._rows.runs.values()}
        new = set()
        for run in runs:
            if _fire(run) not in there and run.id not in self._rows.runs:
                self._rows.runs[run.id] = run
                there.add(_fire(run))
                new.add(run.id)
        return new

    async def run(self, run_id: str) -> Run | None:
        return self._rows.runs.get(run_id)

    async def change_run(self, run: Run) -> None:
        if run.id in self._rows.runs:
            self._rows.runs[run.id] = run

    async def runs(self, entry_id: str, offset: int, limit: int) -> tuple[list[Run], int]:
        found = [run for run in self._rows.runs.values() if run.entry_id == entry_id]
        found.sort(key=lambda run: (run.scheduled_at, run.attempt), reverse=True)
        return found[offset : offset + limit], len(found)

    async def last_runs(self, entry_ids: list[str]) -> dict[str, Run]:
        found = {}
        for entry_id in entry_ids:
            runs, _ = await self.runs(entry_id, 0, 1)
            if runs:
                found[entry_id] = evolve(runs[0], stdout="", stderr="")
        return found

    async def unfinished(self, server_id: str) -> list[Run]:
        found = [
            run
            for run in self._rows.runs.values()
            if run.status is RunStatus.RUNNING and run.server_id == server_id
        ]
        return sorted(found, key=lambda run: (run.scheduled_at, run.id))

    async def expire(self, before: datetime, limit: int) -> int:
        old = [
            run
            for run in self._rows.runs.values()
            if run.scheduled_at < before and run.status is not RunStatus.RUNNING
        ]
        old = sorted(old, key=lambda run: run.scheduled_at)[:limit]
        for run in old:
            del self._rows.runs[run.id]
        return len(old)


def _fire(run: Run) -> tuple[str, datetime, int]:
    return run.entry_id, run.scheduled_at, run.attempt
