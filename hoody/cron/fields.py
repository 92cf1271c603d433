"""
The five fields of a schedule, as crontab(5) of Debian has them, and what is wrong with others.

C{L}, C{W}, C{#} and C{?} of other crons would mean something else, or nothing, on the next
machine. Debian takes no step without a range (C{5/10}) either. Two things that it takes are
refused here, as they do not do what they say: steps beyond their field's size (C{*/90}), and
lists with C{*} in them.
"""

from __future__ import annotations

import re
from datetime import datetime

from cronsim import CronSim, CronSimError

MOST_TEXT = 500
"""Characters of a schedule: one that names every minute, hour, day and month has fewer."""
SOME_DAY = datetime(2026, 1, 1)
"""For where cronsim wants a time, and none is asked for."""
ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = (
    ("minute", 0, 59, ""),
    ("hour", 0, 23, ""),
    ("day of month", 1, 31, ""),
    ("month", 1, 12, " or jan to dec"),
    ("day of week", 0, 7, " (0 and 7 are Sunday) or sun to sat"),
)
_WANTED = "minute, hour, day of month, month and day of week"
_ITEM = re.compile(r"(?:(\*)|([0-9]+|[A-Za-z]{3})(-(?:[0-9]+|[A-Za-z]{3}))?)(?:/([0-9]+))?")
_OF_OTHERS = re.compile(r"[#?]|\b[0-9]*(L|W|LW)\b", re.IGNORECASE)
_BAD = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


class InvalidSchedule(ValueError):
    """A sentence for who wrote it: what is wrong, why, and the cure."""


def normalised(text: str) -> str:
    """
    Each blank once, C{@} words in lower case.

    @raise InvalidSchedule: if it is too long, or more than a line.
    """
    if len(text) > MOST_TEXT:
        raise InvalidSchedule(
            f"The schedule has {len(text)} characters, and {MOST_TEXT} is the most: "
            "write ranges and steps (*/5) in place of lists."
        )
    if _BAD.search(text):
        raise InvalidSchedule(
            "The schedule has a line break or a control character in it: give one line."
        )
    text = re.sub(r"[ \t]+", " ", text).strip(" ")
    return text.lower() if text.startswith("@") else text


def fields_of(text: str) -> str:
    """
    The five of a normalised schedule, without zeros in front.

    @raise InvalidSchedule: if it is none, or would never fire.
    """
    if text.startswith("@"):
        return _of_word(text)
    fields = text.split(" ") if text else []
    if len(fields) != len(_FIELDS):
        raise InvalidSchedule(_fault_of_count(text, len(fields)))
    for number, field in enumerate(fields):
        if fault := _fault_of_form(number, field):
            raise InvalidSchedule(fault)
    if not _is_known(fields):
        raise InvalidSchedule(_fault_of_values(text, fields))
    return re.sub(r"\b0+(?=[0-9])", "", text)


def _of_word(word: str) -> str:
    if word == "@reboot":
        raise InvalidSchedule(
            "@reboot is not there: that this server comes back is no reason to run something. "
            "Let a container's autostart begin what runs whenever the container does, or give "
            "times, such as @daily."
        )
    if word not in ALIASES:
        raise InvalidSchedule(
            f'There is no schedule "{_shown(word)}": give {", ".join(ALIASES)}, or five fields '
            'such as "55 2 * * *".'
        )
    return ALIASES[word]


def _fault_of_count(text: str, count: int) -> str:
    if count < len(_FIELDS):
        return (
            f'The schedule "{_shown(text)}" has {count} of five fields: give {_WANTED}, such as '
            '"55 2 * * *".'
        )
    return (
        f'The schedule "{_shown(text)}" has {count} fields, and five are read: {_WANTED}. '
        "There are no seconds and no years; a user's name or a command does not belong to it."
    )


def _fault_of_form(number: int, field: str) -> str | None:
    name, least, most, _ = _FIELDS[number]
    for item in field.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            return _fault_of_field(number, field)
        star, start, end, step = match.groups()
        if step is None:
            if star and field != "*":
                return (
                    f'"{_shown(field)}" cannot be the {name}: a list with * in it is all of '
                    "them. Write * alone, or leave it out of the list."
                )
            continue
        if not star and not end:
            return (
                f'"{_shown(item)}" cannot be the {name}: a step needs a range to go through. '
                f"Write {start}-{most}/{step}."
            )
        if not 1 <= int(step) <= most - least + 1:
            return (
                f'"{_shown(item)}" cannot be the {name}: steps begin anew with each range, so one '
                f"of {_shown(step)} does not come round. Give a step of 1 to {most - least + 1}."
            )
    return None


def _fault_of_field(number: int, field: str) -> str:
    name, least, most, names = _FIELDS[number]
    reason = ""
    if _OF_OTHERS.search(field):
        reason = "L, W, # and ? are not read, as Debian's cron does not know them either; "
    return (
        f'"{_shown(field)}" cannot be the {name}: {reason}give {least} to {most}{names}, * for '
        "all of them, a range from low to high (1-5), a range with a step (*/2), or a list of "
        "those."
    )


def _fault_of_values(text: str, fields: list[str]) -> str:
    for number, field in enumerate(fields):
        alone = ["*"] * len(_FIELDS)
        alone[number] = field
        if not _is_known(alone):
            return _fault_of_field(number, field)
    return (
        f'The schedule "{_shown(text)}" never comes: the months that it names do not have that '
        "day. Choose an earlier day, or other months."
    )


def _is_known(fields: list[str]) -> bool:
    try:
        CronSim(" ".join(fields), SOME_DAY)
    except CronSimError:
        return False
    return True


def _shown(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
