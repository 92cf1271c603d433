"""Crontabs: a user's entries as text, and entries made of one."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, evolve, field, frozen
from twisted.internet.threads import deferToThread

from hoody.auth.tokens import Scope
from hoody.containers.container import Container
from hoody.cron import crontab, layout
from hoody.cron.checks import check_whole
from hoody.cron.crontab import InvalidCrontab, Job, Remark
from hoody.cron.entries import MOST_ENTRIES, Entries
from hoody.cron.entry import Entry
from hoody.cron.errors import Invalid, NotThere, PayloadTooLarge
from hoody.cron.layout import Of, Ref
from hoody.cron.rights import (
    Asking,
    check_own,
    check_place,
    check_scopes,
    check_user,
    is_over,
)
from hoody.errors import Conflict, Forbidden
from hoody.interfaces import ITransaction

MOST_TEXT = 256 << 10
"""Bytes of a crontab that is put."""
MOST_VARIABLES = 1 << 20
"""Characters of all variables of all its jobs, each of which has a copy."""
MASK = "***"
PATIENCE = 10.0
"""Seconds that reading and writing a large one may take in the database."""


@define
class _Plan:
    """
    What a text makes of the entries that there are.

    @ivar places: what stands where.
    @ivar entries: that there will be.
    @ivar changed: before and after.
    @ivar expired: those that go because their time is over.
    """

    places: list[Remark | Ref] = field(factory=list)
    entries: list[Entry] = field(factory=list)
    added: list[Entry] = field(factory=list)
    changed: list[tuple[Entry, Entry]] = field(factory=list)
    removed: list[Entry] = field(factory=list)
    expired: list[Entry] = field(factory=list)


@frozen
class _Line:
    """@ivar number: that of its job's own line, from 1."""

    number: int
    item: Remark | Job


@define(eq=False)
class Crontabs:
    _entries: Entries

    # Out

    async def get(self, asking: Asking, user: str) -> str:
        """Empty, if there is nothing in it."""
        check_user(user)
        async with self._entries.store.transaction(PATIENCE) as transaction:
            await check_own(transaction, asking)
            entries, said = await self._read(transaction, asking, user)
        return await self._text(asking, user, entries, said)

    async def page(
        self, asking: Asking, offset: int, limit: int
    ) -> tuple[list[tuple[str, str]], int]:
        """Of some users, by name, and how many have one."""
        async with self._entries.store.transaction(PATIENCE) as transaction:
            await check_own(transaction, asking)
            users, total = await transaction.cron.users(
                offset, limit, asking.container_id, asking.only
            )
            found = [(user, *await self._read(transaction, asking, user)) for user in users]
        texts = [
            (user, await self._text(asking, user, entries, said)) for user, entries, said in found
        ]
        return texts, total

    async def _read(
        self, transaction: ITransaction, asking: Asking, user: str
    ) -> tuple[list[Entry], str | None]:
        own = asking.container_id
        entries, _ = await transaction.cron.page(0, MOST_ENTRIES, user, own, asking.only)
        if own is None and asking.only is not None:
            return entries, None  # what stands between those of all is not for everybody
        return entries, await transaction.cron.layout(user, own)

    async def _text(
        self, asking: Asking, user: str, entries: list[Entry], said: str | None
    ) -> str:
        text = await deferToThread(layout.rendered, self._of(asking, user), entries, said)
        return text if asking.may_see_variables else layout.masked(text, MASK)

    def _of(self, asking: Asking, user: str) -> Of:
        return Of(user=user, container_id=asking.container_id, server_id=self._entries.server_id())

    # In

    async def put(self, asking: Asking, user: str, text: str) -> tuple[str, int]:
        """
        Have the entries be what a text says, all or none of it.

        @return: the text as it is from now on, and how many entries went because their time was
            over.
        """
        check_user(user)
        lines = await _lines(text)
        if asking.own is None and asking.only is not None:
            raise Forbidden(
                f"The token {asking.principal.token.alias!r} is tied to containers; put a crontab"
                " at the cron host of one of them."
            )
        if any(isinstance(line.item, Job) and line.item.id is None for line in lines):
            async with self._entries.store.transaction() as transaction:
                container = await check_own(transaction, asking)
            await self._entries.check_known(user, container)
        async with self._entries.store.transaction(PATIENCE) as transaction:
            plan = await self._carry_out(transaction, asking, user, lines)
        said = layout.kept(plan.places)
        shown = await self._text(asking, user, plan.entries, said)
        return shown, len(plan.expired)

    async def _carry_out(
        self, transaction: ITransaction, asking: Asking, user: str, lines: list[_Line]
    ) -> _Plan:
        container = await check_own(transaction, asking)
        own, cron = asking.container_id, transaction.cron
        # Whoever puts it at the same time waits for us here, and finds what we have made of it.
        await cron.lay_out(user, own, layout.kept([Remark("")]))
        before, _ = await cron.page(0, MOST_ENTRIES, user, own)
        plan = await deferToThread(self._plan, asking, user, container, before, lines)
        await self._entries.check_room(transaction, user, len(plan.added))
        gone = [*plan.removed, *plan.expired]
        for each in (*(entry for entry, _ in plan.changed), *gone):
            await self._entries.check_change(transaction, asking, each)
        touched = {entry.id: entry for entry in (*(each for each, _ in plan.changed), *gone)}
        for entry_id in sorted(touched):  # in one order, so that nobody waits for each other
            now = await cron.find(entry_id, for_change=True)
            if now is None or now.version != touched[entry_id].version:
                raise Conflict(
                    f"The entry {touched[entry_id].title!r} has just been changed by somebody"
                    " else; get the crontab once more."
                )
            touched[entry_id] = now
        await self._write(transaction, asking, container, plan, touched)
        await cron.lay_out(user, own, layout.kept(plan.places))
        return plan

    async def _write(
        self,
        transaction: ITransaction,
        asking: Asking,
        container: Container | None,
        plan: _Plan,
        now: dict[str, Entry],
    ) -> None:
        entries = self._entries
        for each in (*plan.removed, *plan.expired):
            await entries.remove(transaction, asking, each)
        for before, after in plan.changed:
            if (after.schedule, after.enabled, after.timezone) == (
                *(before.schedule, before.enabled, before.timezone),
            ):
                # It may have fired meanwhile.
                after = evolve(after, next_fire_at=now[before.id].next_fire_at)
            of = container
            if after.container_id is not None and container is None:
                of = await transaction.containers.find(after.container_id)
            await entries.write(transaction, asking, before, after, of)
        for added in plan.added:
            await transaction.cron.add(added)
            transaction.record(entries.told(asking, "created", added, container))

    def _plan(
        self,
        asking: Asking,
        user: str,
        container: Container | None,
        before: list[Entry],
        lines: list[_Line],
    ) -> _Plan:
        plan = _Plan()
        named = {line.item.id for line in lines if isinstance(line.item, Job)}
        known = {entry.id: entry for entry in before}
        of = self._of(asking, user)
        bare = [each for each in before if of.has_bare(each) and each.id not in named]
        equal = _matched(bare, [line.item for line in lines if isinstance(line.item, Job)])
        for line in lines:
            item = line.item
            if isinstance(item, Remark):
                plan.places.append(item)
                continue
            entry = equal.get(id(item)) if item.id is None else known.get(item.id)
            if entry is None and item.id is not None:
                raise NotThere(
                    "ENTRY_NOT_FOUND",
                    f"Line {line.number - 1}: there is no entry {item.id} in the crontab of"
                    f" {user}. Take this line out, and the next becomes a job of its own.",
                    line=line.number - 1,
                )
            self._place(plan, asking, user, container, line, entry)
        kept = {entry.id for entry in plan.entries}
        kept |= {entry.id for entry in plan.expired}
        for entry in before:
            if entry.id in kept:
                continue
            (plan.expired if self._goes(asking, entry) else plan.removed).append(entry)
        return plan

    def _place(
        self,
        plan: _Plan,
        asking: Asking,
        user: str,
        container: Container | None,
        line: _Line,
        entry: Entry | None,
    ) -> None:
        item = line.item
        assert isinstance(item, Job)
        if entry is not None and self._goes(asking, entry):
            plan.expired.append(entry)
            return
        if entry is None:
            after = self._made(asking, user, container, item)
            plan.added.append(after)
        else:
            after = self._changed(asking, entry, item)
            if after is not entry:
                plan.changed.append((entry, after))
        if after is not entry:
            _check_line(asking, after, line.number)
        plan.entries.append(after)
        plan.places.append(Ref(after.id))

    def _goes(self, asking: Asking, entry: Entry) -> bool:
        """Whether it goes by itself, as its time is over and it is theirs to delete."""
        if entry.type != "managed" or not is_over(entry, self._entries.now):
            return False
        if entry.run_on == "container":
            return True
        is_here = entry.container_id is None and entry.server_id == self._entries.server_id()
        return is_here and asking.principal.may(Scope.ADMIN) and asking.only is None

    def _made(self, asking: Asking, user: str, container: Container | None, job: Job) -> Entry:
        return self._entries.made(
            asking,
            user,
            {
                "type": "raw",
                "schedule": job.schedule,
                "command": job.command,
                "environment_vars": job.environment,
                "timezone": job.timezone or "UTC",
            },
            container,
        )

    def _changed(self, asking: Asking, entry: Entry, job: Job) -> Entry:
        fields: dict[str, object] = {"schedule": job.schedule, "command": job.command}
        if job.id is None:
            fields |= {
                "environment_vars": job.environment,
                "timezone": job.timezone or "UTC",
            }
            return self._entries.evolved(asking, entry, type="raw", **fields)
        kind = entry.type if job.is_enabled == entry.enabled else "managed"
        return self._entries.evolved(asking, entry, type=kind, enabled=job.is_enabled, **fields)


async def _lines(text: str) -> list[_Line]:
    if len(text.encode()) > MOST_TEXT:
        raise PayloadTooLarge(
            f"crontab: it is over {MOST_TEXT >> 10} KiB; put long commands into scripts."
        )
    try:
        items = await deferToThread(crontab.read, text)
    except InvalidCrontab as error:
        raise Invalid(error.field, str(error), line=error.line) from None
    variables = sum(
        len(name) + len(value) + 2
        for item in items
        if isinstance(item, Job)
        for name, value in item.environment.items()
    )
    if variables > MOST_VARIABLES:
        raise Invalid(
            "crontab",
            "crontab: each job has the variables of all lines before it, and together these are"
            f" over {MOST_VARIABLES >> 20} MiB; have fewer, or put them below.",
        )
    return list(_numbered(items))


def _numbered(items: Iterable[Remark | Job]) -> Iterable[_Line]:
    number = 0
    for item in items:
        number += 2 if isinstance(item, Job) and item.id is not None else 1
        yield _Line(number, item)


def _matched(bare: list[Entry], jobs: list[Job]) -> dict[int, Entry]:
    """
    Which bare line is which entry that there is: one that is the same, else one whose variables
    alone are others.

    @return: by the identity of the line's job.
    """
    found: dict[int, Entry] = {}
    for has_same_variables in (True, False):
        left: dict[object, list[Entry]] = {}
        taken = {entry.id for entry in found.values()}
        for entry in bare:
            if entry.id not in taken:
                left.setdefault(_key_of_entry(entry, has_same_variables), []).append(entry)
        for job in jobs:
            if job.id is None and id(job) not in found:
                same = left.get(_key_of_job(job, has_same_variables))
                if same:
                    found[id(job)] = same.pop(0)
    return found


def _key_of_entry(entry: Entry, with_variables: bool) -> object:
    key = (entry.schedule, entry.command)
    return (
        (*key, entry.timezone, *sorted(entry.environment_vars.items())) if with_variables else key
    )


def _key_of_job(job: Job, with_variables: bool) -> object:
    key = (job.schedule, job.command)
    timezone = job.timezone or "UTC"
    return (*key, timezone, *sorted(job.environment.items())) if with_variables else key


def _check_line(asking: Asking, entry: Entry, number: int) -> None:
    """What the text alone does not say."""
    try:
        check_whole(entry)
    except Invalid as error:
        said = f"Line {number}: {error.sentence}"
        raise Invalid("command", said, line=number) from None
    check_place(asking, entry)
    check_scopes(asking, entry)
