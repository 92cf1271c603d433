"""Cron entries and their runs in memory; see L{hoody.store.memory}."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from attrs import define, evolve, field
from zope.interface import implementer

from hoody.containers.container import Container
from hoody.cron.claims import retry_wait
from hoody.cron.entry import Due, Entry, Run, RunStatus
from hoody.interfaces import ICron
from hoody.store.rows import without_nul

Place = tuple[str, str | None]
"""A user, and a container's id."""


@define
class CronRows:
    entries: dict[str, Entry] = field(factory=dict)
    versions: dict[tuple[str, int], Entry] = field(factory=dict)
    layouts: dict[Place, str] = field(factory=dict)
    runs: dict[str, Run] = field(factory=dict)

    def copied(self) -> CronRows:
        return CronRows(
            dict(self.entries), dict(self.versions), dict(self.layouts), dict(self.runs)
        )

    def container_gone(self, container_id: str) -> None:
        """With it goes what is about it; not what was."""
        self.entries = {
            each.id: each for each in self.entries.values() if each.container_id != container_id
        }
        self.layouts = {
            place: layout for place, layout in self.layouts.items() if place[1] != container_id
        }


@implementer(ICron)
@define(eq=False)
class MemoryCron:
    _rows: CronRows
    _containers: dict[str, Container]

    async def add(self, entry: Entry) -> None:
        self._rows.entries[entry.id] = entry
        self._keep_version(entry)

    def _keep_version(self, entry: Entry) -> None:
        version = evolve(entry, next_fire_at=None)
        self._rows.versions.setdefault((entry.id, entry.version), version)

    async def find(self, entry_id: str, for_change: bool = False) -> Entry | None:
        return self._rows.entries.get(entry_id)

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
        def key(each: Entry) -> tuple[bool, Any]:
            value = getattr(each, sort_by)
            return (False, "") if value is None else (True, value)

        found = [
            each
            for each in self._rows.entries.values()
            if user in (None, each.user) and _is_about(each.container_id, container_id, only)
        ]
        found.sort(key=lambda each: each.id)
        found.sort(key=key, reverse=not ascending)
        return found[offset : offset + limit], len(found)

    async def users(
        self,
        offset: int,
        limit: int,
        container_id: str | None = None,
        only: tuple[str, ...] | None = None,
    ) -> tuple[list[str], int]:
        places = {(each.user, each.container_id) for each in self._rows.entries.values()}
        places |= set(self._rows.layouts)
        found = sorted({user for user, about in places if _is_about(about, container_id, only)})
        return found[offset : offset + limit], len(found)

    async def change(self, entry: Entry) -> None:
        if entry.id in self._rows.entries:
            await self.add(entry)

    async def remove(self, entry_id: str) -> None:
        self._rows.entries.pop(entry_id, None)

    async def versions(self, entry_id: str) -> list[Entry]:
        found = [each for each in self._rows.versions.values() if each.id == entry_id]
        return sorted(found, key=lambda each: each.version, reverse=True)

    async def layout(self, user: str, container_id: str | None) -> str | None:
        return self._rows.layouts.get((user, container_id))

    async def lay_out(self, user: str, container_id: str | None, layout: str | None) -> None:
        if layout is None:
            self._rows.layouts.pop((user, container_id), None)
        else:
            self._rows.layouts[user, container_id] = layout

    # What the clock does

    def _of_server(self, server_id: str) -> list[Entry]:
        def place(entry: Entry) -> str:
            container = self._containers.get(entry.container_id or "")
            return entry.server_id if container is None else container.server_id

        return [each for each in self._rows.entries.values() if place(each) == server_id]

    def _firing(self, server_id: str) -> list[tuple[datetime, str, Entry]]:
        return sorted(
            (each.next_fire_at, each.id, each)
            for each in self._of_server(server_id)
            if each.enabled and each.next_fire_at is not None
        )

    def _retrying(self, server_id: str) -> list[tuple[datetime, str, Run]]:
        entries = {each.id for each in self._of_server(server_id)}
        return sorted(
            (each.retry_at, each.id, each)
            for each in self._rows.runs.values()
            if each.retry_at is not None and each.entry_id in entries
        )

    def _ending(self, server_id: str) -> list[tuple[datetime, str, Entry]]:
        return sorted(
            (each.expires_at, each.id, each)
            for each in self._of_server(server_id)
            if each.expires_at is not None and not each.expired
        )

    async def next_due(self, server_id: str) -> datetime | None:
        firing, retrying = self._firing(server_id), self._retrying(server_id)
        found = [*firing, *retrying, *self._ending(server_id)]
        return min((at for at, *_ in found), default=None)

    async def due(self, server_id: str, now: datetime, limit: int) -> list[Due]:
        found = [entry for at, _, entry in self._firing(server_id) if at <= now]
        return [self._seen(entry) for entry in found[:limit]]

    async def retries(self, server_id: str, now: datetime, limit: int) -> list[Due]:
        found = [run for at, _, run in self._retrying(server_id) if at <= now]
        return [
            evolve(self._seen(self._rows.entries[run.entry_id]), failed=run)
            for run in found[:limit]
        ]

    async def ending(self, server_id: str, now: datetime, limit: int) -> list[Due]:
        found = [entry for at, _, entry in self._ending(server_id) if at <= now]
        return [self._seen(entry) for entry in found[:limit]]

    async def seen(self, entry_ids: list[str]) -> list[Due]:
        return [
            self._seen(self._rows.entries[each])
            for each in entry_ids
            if each in self._rows.entries
        ]

    def _seen(self, entry: Entry) -> Due:
        container = self._containers.get(entry.container_id or "")
        return Due(
            entry=entry,
            running=sum(
                each.entry_id == entry.id and each.status == RunStatus.RUNNING
                for each in self._rows.runs.values()
            ),
            project_id=None if container is None else container.project_id,
            container=None if container is None else container.name,
        )

    async def later_than(
        self, server_id: str, now: datetime, after: str, limit: int
    ) -> list[Entry]:
        found = [entry for at, _, entry in self._firing(server_id) if at > now]
        later = [entry for entry in found if entry.id > after]
        return sorted(later, key=lambda entry: entry.id)[:limit]

    async def take_back(self, server_id: str, now: datetime, wait: timedelta) -> None:
        for run in [each for each in self._rows.runs.values() if each.server_id == server_id]:
            if run.scheduled_at > now and run.status in (RunStatus.MISSED, RunStatus.SKIPPED):
                del self._rows.runs[run.id]
            elif run.retry_at is not None:
                latest = now + retry_wait(wait, run.attempt)
                self._rows.runs[run.id] = evolve(run, retry_at=min(run.retry_at, latest))

    async def set_next(self, fires: dict[str, datetime | None]) -> None:
        for entry_id, at in fires.items():
            if entry_id in self._rows.entries:
                self._rows.entries[entry_id] = evolve(
                    self._rows.entries[entry_id], next_fire_at=at
                )

    async def begin(self, runs: list[Run]) -> set[str]:
        there = {_fire(each) for each in self._rows.runs.values()}
        begun = set()
        for run in runs:
            if run.id not in self._rows.runs and _fire(run) not in there:
                self._rows.runs[run.id] = _kept(run)
                there.add(_fire(run))
                begun.add(run.id)
        return begun

    async def run(self, run_id: str) -> Run | None:
        return self._rows.runs.get(run_id)

    async def change_runs(self, runs: list[Run]) -> None:
        for run in runs:
            if run.id in self._rows.runs:
                self._rows.runs[run.id] = _kept(run)

    async def runs(self, entry_id: str, offset: int, limit: int) -> tuple[list[Run], int]:
        found = [each for each in self._rows.runs.values() if each.entry_id == entry_id]
        found.sort(key=lambda each: (each.scheduled_at, each.attempt), reverse=True)
        return found[offset : offset + limit], len(found)

    async def last_runs(self, entry_ids: list[str]) -> dict[str, Run]:
        newest = {each: (await self.runs(each, 0, 1))[0] for each in entry_ids}
        return {
            entry_id: evolve(run, stdout="", stderr="")
            for entry_id, found in newest.items()
            for run in found
        }

    async def unfinished(self, server_id: str, after: str, limit: int) -> list[Run]:
        found = [
            each
            for each in self._rows.runs.values()
            if (each.server_id, each.status) == (server_id, RunStatus.RUNNING) and each.id > after
        ]
        return sorted(found, key=lambda each: each.id)[:limit]

    async def expire(self, before: datetime, limit: int) -> int:
        old = [
            each
            for each in self._rows.runs.values()
            if each.scheduled_at < before and each.status != RunStatus.RUNNING
        ]
        gone = sorted(old, key=lambda each: each.scheduled_at)[:limit]
        for run in gone:
            del self._rows.runs[run.id]
        return len(gone)


def _is_about(about: str | None, container_id: str | None, only: tuple[str, ...] | None) -> bool:
    return container_id in (None, about) and (only is None or about in only)


def _fire(run: Run) -> tuple[str, datetime, int]:
    return run.entry_id, run.scheduled_at, run.attempt


def _kept(run: Run) -> Run:
    return evolve(run, stdout=without_nul(run.stdout), stderr=without_nul(run.stderr))
