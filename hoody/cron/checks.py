"""What may be said of an entry, field by field."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from hoody.auth.tokens import Scope
from hoody.cron import crontab
from hoody.cron.entry import Entry
from hoody.cron.errors import Invalid
from hoody.cron.schedules import InvalidSchedule, InvalidTimezone, Schedule, zone

MOST_NAME = 120
MOST_COMMENT = 500
_OF_CONTAINERS = re.compile(r"\$\{?(SNAP_URL|CONTAINER_ID)\b")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def checked(given: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """
    What was given, as it is kept.

    @param given: by the fields of L{Entry}, of their types.
    @raise Invalid: with the first that will not do.
    """
    return {
        name: _CHECKS[name](value, now) if name in _CHECKS and value is not None else value
        for name, value in given.items()
    }


def check_whole(entry: Entry) -> None:
    """What no field says alone. @raise Invalid: if it will not do."""
    if entry.run_on == "container" and entry.container_id is None:
        raise Invalid(
            "run_on", 'run_on: "container" needs one; give container_id, or run_on "server".'
        )
    if entry.container_id is None:
        for name in _OF_CONTAINERS.findall(entry.command):
            if name not in entry.environment_vars:
                raise Invalid(
                    "command",
                    f"command: ${name} is there for entries with a container only; give"
                    " container_id, the id or name of one.",
                )


def _name(value: str, now: datetime) -> str:
    if not value or len(value) > MOST_NAME or _CONTROL.search(value):
        raise Invalid(
            "name",
            f"name: this will not do; give 1 to {MOST_NAME} characters in one line, without"
            " control characters, or null for none.",
        )
    return value


def _comment(value: str, now: datetime) -> str:
    if len(value) > MOST_COMMENT or _CONTROL_BUT_LINES.search(value):
        raise Invalid(
            "comment",
            f"comment: this will not do; give at most {MOST_COMMENT} characters, without control"
            " characters but line ends.",
        )
    return value


def _command(value: str, now: datetime) -> str:
    fault = crontab.fault_of_command(value)
    if fault is not None:
        raise Invalid("command", f"command: this will not do; {fault}.")
    return value


def _schedule(value: str, now: datetime) -> str:
    try:
        return Schedule.read(value).text
    except InvalidSchedule as error:
        raise Invalid("schedule", str(error)) from None


def _timezone(value: str, now: datetime) -> str:
    try:
        return zone(value).key
    except InvalidTimezone as error:
        raise Invalid("timezone", str(error)) from None


def _expires_at(value: datetime, now: datetime) -> datetime:
    if value <= now:
        raise Invalid(
            "expires_at",
            f'expires_at: "{value:%Y-%m-%dT%H:%M:%SZ}" is past; give a later time.',
            code="EXPIRES_IN_PAST",
        )
    return value


def _environment_vars(value: dict[str, str], now: datetime) -> dict[str, str]:
    if crontab.size_of_variables(value) > crontab.MOST_ENVIRONMENT:
        raise Invalid(
            "environment_vars",
            f"environment_vars: together they are over {crontab.MOST_ENVIRONMENT >> 10} KiB;"
            " have fewer.",
        )
    return value


def _scopes(value: tuple[Scope, ...], now: datetime) -> tuple[Scope, ...]:
    if Scope.ADMIN in value:
        raise Invalid(
            "scopes", 'scopes: "admin" will not do; the token of a run may have any other.'
        )
    return tuple(dict.fromkeys(value))


_CHECKS: dict[str, Callable[[Any, datetime], Any]] = {
    "name": _name,
    "comment": _comment,
    "command": _command,
    "schedule": _schedule,
    "timezone": _timezone,
    "expires_at": _expires_at,
    "environment_vars": _environment_vars,
    "scopes": _scopes,
}
