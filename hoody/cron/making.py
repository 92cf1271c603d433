"""Entries as they are to be, and what is told of that. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from attrs import evolve

from hoody.audit.events import Event
from hoody.containers.container import Container
from hoody.cron.checks import check_whole
from hoody.cron.claims import next_fire
from hoody.cron.entry import Entry, EntryType
from hoody.cron.rights import Asking, check_place, check_scopes

_OF_THE_CLOCK = {"schedule", "timezone", "enabled", "expires_at"}
"""Fields that say when it is due."""
_SAID = (
    *("name", "comment", "schedule", "command", "timezone", "enabled", "overlap"),
    *("timeout_seconds", "retries", "start_deadline_seconds", "environment_vars"),
    *("container_id", "run_on", "scopes", "expires_at"),
)
"""Fields that a client says."""


def made(
    asking: Asking,
    user: str,
    wanted: Mapping[str, Any],
    container: Container | None,
    now: datetime,
    server_id: str,
) -> Entry:
    """@param wanted: by the fields of L{Entry}, checked; its container aside."""
    entry = Entry(
        id=str(uuid4()),
        user=user,
        server_id=server_id,
        changed_by=asking.principal.actor,
        created_at=now,
        updated_at=now,
        **{
            "run_on": "server" if container is None else "container",
            **wanted,
            "container_id": None if container is None else container.id,
        },
    )
    return evolve(entry, next_fire_at=next_fire(entry, now))


def evolved(
    asking: Asking, entry: Entry, now: datetime, *, type: EntryType = "managed", **fields: Any
) -> Entry:
    """
    Its next version, or itself if that is the same.

    @param type: that it has from then on: a line of a crontab alone does not say all that may
        be changed through the API.
    """
    changes = {name: value for name, value in fields.items() if getattr(entry, name) != value}
    if not changes:
        return entry
    changed = evolve(
        entry,
        **changes,
        type=type,
        version=entry.version + 1,
        changed_by=asking.principal.actor,
        updated_at=now,
    )
    if not is_of_the_clock(entry, changed):
        return changed
    over = changed.expires_at is not None and changed.expires_at <= now
    return evolve(changed, expired=entry.expired and over, next_fire_at=next_fire(changed, now))


def is_of_the_clock(before: Entry, after: Entry) -> bool:
    """Whether what has changed says when it is due."""
    return any(getattr(before, name) != getattr(after, name) for name in _OF_THE_CLOCK)


def check(asking: Asking, entry: Entry) -> None:
    """@raise HoodyError: if there is to be no such entry, or they may not have one."""
    check_whole(entry)
    check_place(asking, entry)
    check_scopes(asking, entry)


def changes_of(before: Entry, after: Entry) -> list[str]:
    """The names of what is another."""
    return [name for name in _SAID if getattr(before, name) != getattr(after, name)]


def told_of_entry(
    asking: Asking,
    what: str,
    entry: Entry,
    container: Container | None,
    now: datetime,
    **more: object,
) -> Event:
    data: dict[str, object] = {
        "alias": entry.title,
        "user": entry.user,
        "schedule": entry.schedule,
        **more,
    }
    if container is not None:
        data["container"] = container.name
    return Event(
        ts=now,
        event_type=f"cron.entry.{what}",
        actor=asking.principal.actor,
        resource_type="cron_entry",
        resource_id=entry.id,
        container_id=entry.container_id,
        project_id=None if container is None else container.project_id,
        data=data,
        request_id=asking.request_id,
    )
