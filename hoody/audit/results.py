"""What late spectators are told of a transfer is what the audit tells of its end."""

from __future__ import annotations

from hoody.audit.events import Event
from hoody.pipes.results import Result


def result_of(event: Event) -> Result | None:
    """The result that an event tells of; C{None} if it is not a pipe's end."""
    if event.event_type not in ("pipe.completed", "pipe.failed"):
        return None
    ended = round(event.ts.timestamp(), 3)
    return Result(
        path=event.resource_id,
        delivered=event.data["bytes"],
        total=event.data.get("total_bytes"),
        receivers=event.data["receivers"],
        digest=event.data["digest"],
        error=event.data["error"],
        started=round(ended - (event.duration_ms or 0) / 1000, 3),
        ended=ended,
    )
