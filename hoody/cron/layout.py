"""
How a crontab looks: which remarks stand where among which entries. Pure.

What is kept of one is its remarks as they stand, and the ids of its entries: what these are now is
known elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec
from attrs import frozen

from hoody.cron import crontab
from hoody.cron.crontab import Job, Remark
from hoody.cron.entry import Entry

_PROBE = "* * * * * true"
"""A job that says what the variables before it say."""
# As crontab.read has them, but for the one that is no secret.
_VALUE = re.compile(r"^([ \t]*(?!CRON_TZ[ \t]*=)[^\s=0-9*@#][^\s=]*[ \t]*=).*$", re.MULTILINE)


@frozen
class Ref:
    """An entry's place."""

    id: str


@frozen(kw_only=True)
class Of:
    """
    Whose crontab it is.

    @ivar container_id: of the one that it is of; C{None} for all that the user has.
    @ivar server_id: of the server that is asked.
    """

    user: str
    container_id: str | None = None
    server_id: str

    def has_bare(self, entry: Entry) -> bool:
        """Whether a bare line of it, without an id, can be this entry."""
        if entry.type != "raw" or entry.container_id != self.container_id:
            return False
        return entry.container_id is not None or entry.server_id == self.server_id


def kept(items: Iterable[Remark | Ref]) -> str | None:
    """As a text; C{None} of nothing."""
    said = [item.text if isinstance(item, Remark) else {"id": item.id} for item in items]
    return msgspec.json.encode(said).decode() if said else None


def of_text(text: str | None) -> list[Remark | Ref]:
    said = msgspec.json.decode(text, type=list[str | dict[str, str]]) if text else []
    return [Remark(item) if isinstance(item, str) else Ref(item["id"]) for item in said]


def rendered(of: Of, entries: Iterable[Entry], layout: str | None) -> str:
    """
    The crontab with its entries as they are now: those whose place is not known come last.

    @param layout: as L{kept} makes it.
    """
    left = {entry.id: entry for entry in entries}
    places: list[Remark | Entry] = []
    for item in of_text(layout):
        if isinstance(item, Remark):
            places.append(item)
        elif (entry := left.pop(item.id, None)) is not None:
            places.append(entry)
    places += left.values()
    items = [_item(of, place, probe) for place, probe in zip(places, _probes(places), strict=True)]
    titles = {
        each.id: each.name or each.comment or "" for each in places if isinstance(each, Entry)
    }
    return crontab.write(items, titles)


def _probes(places: Sequence[Remark | Entry]) -> list[Remark | Job]:
    """What a bare line at each place would be."""
    lines = [place.text if isinstance(place, Remark) else _PROBE for place in places]
    return crontab.read("".join(f"{line}\n" for line in lines), len(lines))


def _item(of: Of, place: Remark | Entry, probe: Remark | Job) -> Remark | Job:
    if isinstance(place, Remark):
        return place
    assert isinstance(probe, Job)
    bare = Job(
        schedule=place.schedule,
        command=place.command,
        environment=place.environment_vars,
        timezone=None if place.timezone == "UTC" and probe.timezone is None else place.timezone,
    )
    is_so = (bare.environment, bare.timezone) == (probe.environment, probe.timezone)
    if of.has_bare(place) and place.enabled and is_so:
        return bare
    return Job(
        schedule=place.schedule,
        command=place.command,
        id=place.id,
        is_enabled=place.enabled,
    )


def masked(text: str, mask: str) -> str:
    """A crontab without what its variables say."""
    return _VALUE.sub(rf"\1{mask}", text)
