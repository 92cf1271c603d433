"""What the lines of a crontab make of the entries that there are. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from attrs import define, field, frozen

from hoody.auth.tokens import Scope
from hoody.containers.container import Container
from hoody.cron.crontab import Job, Remark
from hoody.cron.entry import Entry
from hoody.cron.errors import Invalid, NotThere
from hoody.cron.layout import Of, Ref
from hoody.cron.making import check, evolved, made
from hoody.cron.rights import Asking, is_over


@frozen
class Line:
    """@ivar number: that of a job's own line, from 1."""

    number: int
    item: Remark | Job


def numbered(items: Iterable[Remark | Job]) -> list[Line]:
    lines, number = [], 0
    for item in items:
        number += 2 if isinstance(item, Job) and item.id is not None else 1
        lines.append(Line(number, item))
    return lines


@frozen(kw_only=True)
class Change:
    before: Entry
    after: Entry


@define(eq=False)
class Plan:
    """
    @ivar container: whose crontab it is, C{None} for that of all.
    @ivar places: what stands where.
    @ivar entries: that there will be.
    @ivar expired: those that go because their time is over.
    """

    _asking: Asking
    _of: Of
    _container: Container | None
    _now: datetime
    places: list[Remark | Ref] = field(factory=list, init=False)
    entries: list[Entry] = field(factory=list, init=False)
    added: list[Entry] = field(factory=list, init=False)
    changed: list[Change] = field(factory=list, init=False)
    removed: list[Entry] = field(factory=list, init=False)
    expired: list[Entry] = field(factory=list, init=False)

    def read(self, before: list[Entry], lines: list[Line]) -> None:
        """
        @param before: all entries of this crontab.
        @raise HoodyError: if a line cannot be, or they may not have it.
        """
        jobs = [line.item for line in lines if isinstance(line.item, Job)]
        named = {job.id for job in jobs}
        known = {entry.id: entry for entry in before}
        bare = [each for each in before if self._of.has_bare(each) and each.id not in named]
        same = matched(bare, [job for job in jobs if job.id is None])
        for line in lines:
            item = line.item
            if isinstance(item, Remark):
                self.places.append(item)
            elif item.id is None:
                self._place(line.number, item, same.get(id(item)))
            elif item.id in known:
                self._place(line.number, item, known[item.id])
            else:
                raise NotThere(
                    "ENTRY_NOT_FOUND",
                    f"Line {line.number - 1}: there is no entry {item.id} in this crontab of"
                    f" {self._of.user}. Take this line out, and the next becomes a raw job.",
                    line=line.number - 1,
                )
        kept = {entry.id for entry in (*self.entries, *self.expired)}
        for entry in before:
            if entry.id not in kept:
                (self.expired if self._goes(entry) else self.removed).append(entry)

    def _place(self, number: int, job: Job, entry: Entry | None) -> None:
        if entry is not None and self._goes(entry):
            self.expired.append(entry)
            return
        after = self._made(job) if entry is None else self._changed(entry, job)
        if after is not entry:
            _check_line(self._asking, after, number)
        if entry is None:
            self.added.append(after)
        elif after is not entry:
            self.changed.append(Change(before=entry, after=after))
        self.entries.append(after)
        self.places.append(Ref(after.id))

    def _goes(self, entry: Entry) -> bool:
        """Whether it goes by itself, as its time is over and it is theirs to delete."""
        if entry.type != "managed" or not is_over(entry, self._now):
            return False
        if entry.run_on == "container":
            return True
        is_here = entry.container_id is None and entry.server_id == self._of.server_id
        return is_here and self._asking.principal.may(Scope.ADMIN) and self._asking.only is None

    def _made(self, job: Job) -> Entry:
        wanted = {
            "type": "raw",
            "schedule": job.schedule,
            "command": job.command,
            "environment_vars": job.environment,
            "timezone": job.timezone or "UTC",
        }
        of = self._of
        return made(self._asking, of.user, wanted, self._container, self._now, of.server_id)

    def _changed(self, entry: Entry, job: Job) -> Entry:
        fields: dict[str, object] = {"schedule": job.schedule, "command": job.command}
        if job.id is None:
            fields["environment_vars"] = job.environment
            fields["timezone"] = job.timezone or "UTC"
        else:
            fields["enabled"] = job.is_enabled
        # A line that is commented out could not be told from any comment without its id.
        kind = entry.type if job.is_enabled else "managed"
        return evolved(self._asking, entry, self._now, type=kind, **fields)


def matched(bare: list[Entry], jobs: list[Job]) -> dict[int, Entry]:
    """
    Which job is which of the entries that are lines without an id: one that is the same, else
    one of which the variables alone are others.

    @return: by the job's identity.
    """
    found: dict[int, Entry] = {}
    left = bare
    for with_variables in (True, False):
        by_key: dict[object, list[Entry]] = {}
        for entry in left:
            key = _key(
                *(entry.schedule, entry.command, entry.timezone, entry.environment_vars),
                with_variables,
            )
            by_key.setdefault(key, []).append(entry)
        for job in jobs:
            zone = job.timezone or "UTC"
            key = _key(job.schedule, job.command, zone, job.environment, with_variables)
            if id(job) not in found and by_key.get(key):
                found[id(job)] = by_key[key].pop(0)
        left = [entry for entries in by_key.values() for entry in entries]
    return found


def _key(
    schedule: str,
    command: str,
    timezone: str,
    variables: dict[str, str],
    with_variables: bool,
) -> object:
    variable = (timezone, *sorted(variables.items())) if with_variables else ()
    return (schedule, command, variable)


def _check_line(asking: Asking, entry: Entry, number: int) -> None:
    """What the text alone does not say."""
    try:
        check(asking, entry)
    except Invalid as error:
        raise Invalid("command", f"Line {number}: {error.sentence}", line=number) from None
