"""What the audit says of runs."""

from __future__ import annotations

from datetime import datetime

from hoody.audit.events import Event
from hoody.cron.entry import Due, Entry, Run, RunStatus

_TYPES = {
    RunStatus.RUNNING: "cron.run.started",
    RunStatus.SUCCEEDED: "cron.run.finished",
    RunStatus.FAILED: "cron.run.failed",
    RunStatus.TIMED_OUT: "cron.run.failed",
    RunStatus.LOST: "cron.run.failed",
    RunStatus.SKIPPED: "cron.run.skipped",
    RunStatus.MISSED: "cron.run.missed",
}


def actor_of(entry: Entry) -> str:
    """The clock itself, as the audit names it: by the entry that it runs."""
    return f"cron {entry.title}"


def told_of_run(
    due: Due,
    run: Run,
    now: datetime,
    *,
    actor: str | None = None,
    request_id: str | None = None,
    **more: object,
) -> Event:
    """
    @param due: its entry; it may be as it was before.
    @param actor: who has asked for it, if somebody has.
    """
    entry = due.entry
    data = {
        "alias": entry.title,
        "entry_id": entry.id,
        "user": entry.user,
        "version": run.version,
        "status": str(run.status),
        "scheduled_at": run.scheduled_at.isoformat().replace("+00:00", "Z"),
        "attempt": run.attempt,
        "start_delay_ms": run.start_delay_ms,
        "exit_code": run.exit_code,
        "container": due.container,
        **more,
    }
    return Event(
        ts=now,
        event_type=_TYPES[run.status],
        actor=actor or actor_of(entry),
        resource_type="cron_run",
        resource_id=run.id,
        container_id=entry.container_id,
        project_id=due.project_id,
        data={name: value for name, value in data.items() if value is not None},
        duration_ms=run.duration_ms,
        request_id=request_id,
        # What nobody knows whether it was written is written again.
        key=f"{run.id} {run.status}",
    )


def told_of_expiry(due: Due, now: datetime) -> Event:
    entry = due.entry
    return Event(
        ts=now,
        event_type="cron.entry.expired",
        actor=actor_of(entry),
        resource_type="cron_entry",
        resource_id=entry.id,
        container_id=entry.container_id,
        project_id=due.project_id,
        data={"alias": entry.title, "user": entry.user}
        | ({} if due.container is None else {"container": due.container}),
        key=f"{entry.id} {entry.version} expired",
    )
