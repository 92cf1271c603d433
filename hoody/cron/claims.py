"""What becomes of an entry that is due: pure, so that any clock and any outage can be tried."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from attrs import frozen

from hoody.cron.entry import Due, Entry, Run, RunStatus
from hoody.cron.schedules import Schedule, zone
from hoody.units import new_id

PUNCTUAL = timedelta(seconds=1)
"""Later than that is late; it is what a deadline of none leaves."""
CLOSEST = timedelta(minutes=1)
"""Two fires of one entry are not nearer to each other."""
MOST_QUEUED = 10
"""Runs of one entry that may wait for their turn; what is due then is skipped."""
MOST_RETRY = timedelta(hours=1)


@frozen(kw_only=True)
class Claim:
    """
    @ivar next_fire_at: when the entry is due after this; C{None} if it is not.
    @ivar run: what this fire has become: one that runs, is skipped, or was missed.
    @ivar passed: the first of the fires before that one which nobody saw to, as missed; C{None}
        if there were none.
    @ivar count: how many those were, up to a hundred.
    @ivar why: it was missed, if that is not because nobody saw to it.
    """

    next_fire_at: datetime | None
    run: Run
    passed: Run | None = None
    count: int = 0
    why: str | None = None


def next_fire(entry: Entry, now: datetime) -> datetime | None:
    """When it is due after C{now}; C{None} if it will not be, as it stands."""
    if not entry.enabled:
        return None
    found = Schedule.read(entry.schedule).after(now, zone(entry.timezone))
    if found is None or (entry.expires_at is not None and found >= entry.expires_at):
        return None
    return found


def claim(due: Due, now: datetime, server_id: str) -> Claim:
    """
    Of several fires that nobody saw to, the latest alone may still start, and that within the
    deadline.
    """
    entry = due.entry
    first = entry.next_fire_at
    assert first is not None
    until = now if entry.expires_at is None else min(now, entry.expires_at - timedelta(seconds=1))
    latest, later = None, 0
    if until - first >= CLOSEST:
        latest, later = Schedule.read(entry.schedule).latest(first, until, zone(entry.timezone))
    fire = latest or first
    passed = None
    if later:
        passed = _run(entry, first, server_id, now, RunStatus.MISSED)
    status = RunStatus.RUNNING
    if now - fire > max(PUNCTUAL, timedelta(seconds=entry.start_deadline_seconds)):
        status = RunStatus.MISSED
    elif is_in_the_way(due):
        status = RunStatus.SKIPPED
    return Claim(
        next_fire_at=next_fire(entry, now),
        run=_run(entry, fire, server_id, now, status),
        passed=passed,
        count=later,
    )


def untold(due: Due, now: datetime, server_id: str, why: str) -> Claim:
    """
    What becomes of one whose schedule or time zone was good once, and is not known any more, as
    when the machine's zones have changed: it is not due until it is changed.
    """
    first = due.entry.next_fire_at
    assert first is not None
    run = _run(due.entry, first, server_id, now, RunStatus.MISSED)
    return Claim(next_fire_at=None, run=run, why=why)


def is_in_the_way(due: Due) -> bool:
    """Whether an earlier run keeps another from being begun, or from waiting."""
    if due.entry.overlap == "skip":
        return due.running > 0
    return due.entry.overlap == "queue" and due.running > MOST_QUEUED


def again(due: Due, now: datetime, server_id: str) -> Run:
    """Another attempt of a run that has failed."""
    failed, entry = due.failed, due.entry
    assert failed is not None
    status = RunStatus.SKIPPED if is_in_the_way(due) else RunStatus.RUNNING
    return _run(entry, failed.scheduled_at, server_id, now, status, failed.attempt + 1)


def by_hand(due: Due, now: datetime, server_id: str) -> Run:
    """One that somebody has asked for: at no time at which it could be due."""
    status = RunStatus.SKIPPED if is_in_the_way(due) else RunStatus.RUNNING
    instant = timedelta(microseconds=1 + secrets.randbelow(998))
    return _run(due.entry, now + instant, server_id, now, status)


def retry_at(entry: Entry, run: Run, now: datetime, seconds: float) -> datetime | None:
    """
    When a run that has failed is tried again.

    @param seconds: after the first failure; twice that after the second, and so on.
    """
    if run.attempt > entry.retries:
        return None
    return now + retry_wait(timedelta(seconds=seconds), run.attempt)


def retry_wait(wait: timedelta, attempt: int) -> timedelta:
    """Of the first attempt C{wait}, of each further one twice as long, up to an hour."""
    return min(wait * (1 << min(attempt - 1, 30)), MOST_RETRY)


def _run(
    entry: Entry,
    scheduled_at: datetime,
    server_id: str,
    now: datetime,
    status: RunStatus,
    attempt: int = 1,
) -> Run:
    return Run(
        id=new_id(now),
        entry_id=entry.id,
        version=entry.version,
        status=status,
        scheduled_at=scheduled_at,
        finished_at=None if status is RunStatus.RUNNING else now,
        attempt=attempt,
        server_id=server_id,
    )
