"""What is said of cron entries and their runs, by clients and to them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from hoody.auth.tokens import Scope
from hoody.cron import checks, crontab, crontabs
from hoody.resources.api.container_forms import Word
from hoody.resources.api.reading import given, in_utc

MOST_A_PAGE = 200


def _described(text: str, **schema: object) -> Any:
    # What is wrong with these is said by their own checks, in better words.
    return Meta(description=text, extra_json_schema=schema)


Name = Annotated[
    str, _described("what it is called, in one line", minLength=1, maxLength=checks.MOST_NAME)
]
Comment = Annotated[str, _described("what it is for", maxLength=checks.MOST_COMMENT)]
Schedule = Annotated[
    str,
    _described(
        "minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly,"
        " @monthly, @yearly"
    ),
]
Command = Annotated[
    str,
    _described(
        "one line for /bin/sh -c; % is a plain character",
        minLength=1,
        maxLength=crontab.MOST_COMMAND,
    ),
]
Timezone = Annotated[str, _described("a name of the IANA's list, such as Europe/Berlin")]
ContainerId = Annotated[str, _described("a container's id, name or alias")]
Expiry = Annotated[datetime, _described("when it is due no more; it is kept, and said to be over")]
Timeout = Annotated[int, Meta(ge=1, le=604_800, description="seconds after which a run is ended")]
Retries = Annotated[
    int, Meta(ge=0, le=10, description="how often a run that failed is tried again")
]
Deadline = Annotated[
    int, Meta(ge=0, le=86_400, description="seconds that a run may start late; later it is missed")
]
Scopes = Annotated[
    list[Scope],
    Meta(max_length=len(Scope), description="of the token that its runs have; admin is not one"),
]
Place = Literal["container", "server"]
Overlap = Literal["skip", "queue", "allow"]


class NewEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """
    An entry that is to be. It runs in the container, if there is one, unless `run_on` says
    otherwise; on the server itself only holders of `admin` have commands run.
    """

    schedule: Schedule
    command: Command
    name: Name | None = None
    comment: Comment | None = None
    timezone: Timezone = "UTC"
    enabled: bool = True
    overlap: Overlap = "skip"
    timeout_seconds: Timeout = 3600
    retries: Retries = 0
    start_deadline_seconds: Deadline = 300
    environment_vars: dict[str, Word] = {}
    container_id: ContainerId | None = None
    run_on: Place | None = None
    scopes: Scopes | None = None
    expires_at: Expiry | None = None


class EntryChange(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What can be said of an entry; what is left out stays. `null` takes away what was said."""

    schedule: Schedule | UnsetType = UNSET
    command: Command | UnsetType = UNSET
    name: Name | UnsetType | None = UNSET
    comment: Comment | UnsetType | None = UNSET
    timezone: Timezone | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    overlap: Overlap | UnsetType = UNSET
    timeout_seconds: Timeout | UnsetType = UNSET
    retries: Retries | UnsetType = UNSET
    start_deadline_seconds: Deadline | UnsetType = UNSET
    environment_vars: dict[str, Word] | UnsetType = UNSET
    container_id: ContainerId | UnsetType | None = UNSET
    run_on: Place | UnsetType = UNSET
    scopes: Scopes | UnsetType = UNSET
    expires_at: Expiry | UnsetType | None = UNSET
    clear_expiration: bool = False


class NewCrontab(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """
    A crontab(5). A line with the id of an entry, and its job below, keep that entry; a job
    without one becomes a raw entry; entries that are not in it are deleted.
    """

    crontab: Annotated[str, _described("the text", maxLength=crontabs.MOST_TEXT)]


class CronPaging(msgspec.Struct, kw_only=True):
    """Which part of a list."""

    page: Annotated[int, Meta(ge=1, le=1_000_000, description="from 1")] = 1
    limit: Annotated[int, Meta(ge=1, le=MOST_A_PAGE)] = 20

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.limit


class EntryPaging(CronPaging, kw_only=True):
    sort_by: Literal["created_at", "updated_at", "name", "next_run_at"] = "created_at"
    sort_order: Literal["asc", "desc"] = "asc"


class Count(msgspec.Struct, kw_only=True):
    count: Annotated[int, Meta(ge=1, le=100, description="how many")] = 5


class RunRow(msgspec.Struct, kw_only=True):
    """
    `stdout` and `stderr` are the first and the last 64 KiB of what was said; in a list of entries
    they are empty.
    """

    id: str
    entry_id: str
    version: int
    status: str
    scheduled_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    start_delay_ms: float | None
    duration_ms: float | None
    exit_code: int | None
    stdout: str
    stderr: str
    attempt: int
    server_id: str


class EntryRow(msgspec.Struct, kw_only=True):
    id: str
    type: str
    user: str
    name: str | None
    comment: str | None
    schedule: str
    schedule_human: str
    command: str
    timezone: str
    enabled: bool
    overlap: str
    timeout_seconds: int
    retries: int
    start_deadline_seconds: int
    environment_vars: dict[str, str]
    container_id: str | None
    run_on: str
    scopes: list[Scope]
    expires_at: datetime | None
    expired: bool
    next_run_at: datetime | None
    last_run: RunRow | None
    version: int
    created_at: datetime
    updated_at: datetime


class EntryPage(msgspec.Struct, kw_only=True):
    user: str
    entries: list[EntryRow]
    total: int
    page: int
    limit: int


class RunPage(msgspec.Struct, kw_only=True):
    """Newest first."""

    runs: list[RunRow]
    total: int
    page: int
    limit: int


class EntryDeleted(msgspec.Struct, kw_only=True):
    deleted: bool


class NextFires(msgspec.Struct, kw_only=True):
    next: list[datetime]


class Versions(msgspec.Struct, kw_only=True):
    """Newest first, each as it was: `updated_at` is when it became so."""

    versions: list[EntryRow]


class CrontabRow(msgspec.Struct, kw_only=True):
    user: str
    crontab: str


class CrontabPut(CrontabRow, kw_only=True):
    """`removed_expired`: how many entries went because their time was over."""

    removed_expired: int


class CrontabPage(msgspec.Struct, kw_only=True):
    items: list[CrontabRow]
    total: int
    page: int
    limit: int


def fields_of(form: NewEntry | EntryChange) -> dict[str, Any]:
    """What was given, by the fields of an entry and of their types."""
    fields = given(form)
    fields.pop("clear_expiration", None)
    if isinstance(form, NewEntry):
        for name in ("container_id", "run_on", "scopes"):
            if fields[name] is None:
                del fields[name]
    if "scopes" in fields:
        fields["scopes"] = tuple(fields["scopes"])
    if isinstance(fields.get("expires_at"), datetime):
        fields["expires_at"] = in_utc("expires_at", fields["expires_at"])
    return fields
