"""Time zones by their names."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from zoneinfo import ZoneInfo

_NAME = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
# Files beside the zones: whatever this machine's is, nothing, and clocks that count leap seconds.
_NO_ZONES = re.compile(r"localtime|posixrules|Factory|(posix|right)/.*")
_MOST_SHOWN = 60


class InvalidTimezone(ValueError):
    """A sentence for who wrote it: what is wrong, why, and the cure."""


@lru_cache
def zone(name: str) -> ZoneInfo:
    """
    A time zone by its name in the IANA's list, as the machine has it, or the package tzdata.

    @raise InvalidTimezone: if there is none.
    """
    try:
        if _NAME.fullmatch(name) and not _NO_ZONES.fullmatch(name):
            return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # also a folder, or a file of another kind
        pass
    raise InvalidTimezone(
        f'There is no time zone "{name[:_MOST_SHOWN]}": give a name from the IANA\'s list, such '
        f"as {_nearest(name)}."
    )


def _nearest(name: str) -> str:
    """One of that name in another case, or of that place; else an example."""
    sought = name.casefold().replace(" ", "_")
    for known in (files("tzdata") / "zones").read_text().split():
        if known.casefold() == sought or known.casefold().endswith(f"/{sought}"):
            return known
    return "Europe/Berlin or UTC"
