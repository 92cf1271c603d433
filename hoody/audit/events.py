"""What is told of what happened."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import field, frozen

from hoody.units import timed_id

TYPES = (
    "container.created",
    "container.started",
    "container.stopped",
    "container.paused",
    "container.resumed",
    "container.woken",
    "container.deleted",
    "container.failed",
    "container.copied",
    "container.snapshot.created",
    "container.snapshot.restored",
    "container.snapshot.deleted",
    "container.snapshot.expired",
    "container.snapshot.renamed",
    "cron.entry.created",
    "cron.entry.updated",
    "cron.entry.deleted",
    "cron.entry.expired",
    "cron.run.started",
    "cron.run.finished",
    "cron.run.failed",
    "cron.run.skipped",
    "cron.run.missed",
    "pipe.completed",
    "pipe.failed",
    "project.created",
    "project.updated",
    "project.deleted",
    "token.created",
    "token.revoked",
)
"""The contract's, and a project's own."""


@frozen(kw_only=True)
class Event:
    """
    @ivar ts: when, by the server's clock.
    @ivar event_type: one of L{TYPES}.
    @ivar actor: by whom: a token's alias, a cron entry, C{idle timer}, C{request}.
    @ivar data: what else there is to say, for JSON; never a secret.
    @ivar duration_ms: how long it took, where that makes sense.
    @ivar key: of one that may be written again because nobody knows whether it was: there
        is one event of a key.
    @ivar seq: its place in the order in which events became true; 0 until it is kept.
    """

    ts: datetime
    event_type: str
    actor: str
    resource_type: str
    resource_id: str
    container_id: str | None = None
    project_id: str | None = None
    data: dict[str, Any] = field(factory=dict)
    duration_ms: float | None = None
    request_id: str | None = None
    key: str | None = None
    seq: int = 0

    @property
    def id(self) -> str:
        return timed_id(self.ts, self.seq)


def seq_of(event_id: str) -> int:
    """
    An event's place in the order, of its id.

    @raise ValueError: if it is none.
    """
    if len(event_id) != 24 or set(event_id) - set("0123456789abcdef"):
        raise ValueError("give an event's id: 24 hex digits")
    return int(event_id[8:], 16)


@frozen(kw_only=True)
class Filter:
    """
    Which events; C{None} for all.

    @ivar containers: only what is of one of these.
    @ivar since: not before.
    @ivar until: before.
    """

    container_id: str | None = None
    project_id: str | None = None
    event_types: tuple[str, ...] | None = None
    resource_type: str | None = None
    containers: tuple[str, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
