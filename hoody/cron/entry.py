"""A cron entry, and a run of one: what is known of them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from attrs import field, frozen

from hoody.auth.tokens import Scope

TOPIC = "cron"
"""What is announced when it may have changed when something is due next."""
RUN_SCOPES = (Scope.SNAPSHOT, Scope.PIPE)
"""What the token of a run in a container may do, unless its entry says otherwise."""

EntryType = Literal["managed", "raw"]
"""C{managed}: made by the API; C{raw}: a line of a crontab."""
Overlap = Literal["skip", "queue", "allow"]
"""What becomes of one that is due while an earlier run of it is not over."""
Place = Literal["container", "server"]


class RunStatus(StrEnum):
    """
    C{running} is what is claimed and not over, be it that it waits for its turn; C{lost} what
    the server did not live to see the end of; C{missed} and C{skipped} never began.
    """

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"
    MISSED = "missed"
    LOST = "lost"


@frozen(kw_only=True)
class Entry:
    """
    @ivar id: a uuid.
    @ivar user: whose it is, and as whom its command runs.
    @ivar timezone: of its schedule; a name of the IANA database.
    @ivar timeout_seconds: after so many its processes are ended.
    @ivar start_deadline_seconds: so late it may still start.
    @ivar container_id: of the container that it is about; C{None} for the server itself.
    @ivar scopes: of the token that a run of it has.
    @ivar server_id: of the server that made it; it runs there, unless it is a container's: then
        where that is.
    @ivar next_fire_at: when it is due next; C{None} if it is not.
    @ivar expired: whether its time is over, and that has been told.
    @ivar version: from 1; each change makes another.
    @ivar changed_by: who made this version, as the audit names them.
    """

    id: str
    type: EntryType = "managed"
    user: str
    name: str | None = None
    comment: str | None = None
    schedule: str
    command: str
    timezone: str = "UTC"
    enabled: bool = True
    overlap: Overlap = "skip"
    timeout_seconds: int = 3600
    retries: int = 0
    start_deadline_seconds: int = 300
    environment_vars: dict[str, str] = field(factory=dict)
    container_id: str | None = None
    run_on: Place = "server"
    scopes: tuple[Scope, ...] = RUN_SCOPES
    expires_at: datetime | None = None
    server_id: str
    next_fire_at: datetime | None = None
    expired: bool = False
    version: int = 1
    changed_by: str
    created_at: datetime
    updated_at: datetime

    @property
    def title(self) -> str:
        """What it is called in sentences."""
        return self.name or self.comment or self.id


@frozen(kw_only=True)
class Run:
    """
    @ivar id: 24 hex digits.
    @ivar version: that of its entry which it is a run of.
    @ivar scheduled_at: when it was due; of one that was asked for, when that was.
    @ivar started_at: when its command began; C{None} if it has not.
    @ivar stdout: and C{stderr}: what it said, the first and the last of it.
    @ivar attempt: from 1; the same fire again after a failure is another attempt.
    @ivar server_id: which server has it.
    @ivar token_id: of the token that it has; C{None} without one.
    @ivar retry_at: when another attempt is due, after this one has failed; C{None} if none is,
        or it has been made.
    """

    id: str
    entry_id: str
    version: int
    status: RunStatus = RunStatus.RUNNING
    scheduled_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    start_delay_ms: float | None = None
    duration_ms: float | None = None
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    attempt: int = 1
    server_id: str
    token_id: str | None = None
    retry_at: datetime | None = None


@frozen(kw_only=True)
class Due:
    """
    An entry that has to be seen to.

    @ivar running: how many runs of it are not over.
    @ivar project_id: of its container, and C{container}, its name; C{None} without one.
    @ivar failed: the run that is to be tried again, if that is what is due.
    """

    entry: Entry
    running: int = 0
    project_id: str | None = None
    container: str | None = None
    failed: Run | None = None
