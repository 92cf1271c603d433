"""Crontabs: a user's entries as text, and entries made of one."""

from __future__ import annotations

from attrs import define, evolve
from twisted.internet.threads import deferToThread

from hoody.containers.container import Container
from hoody.cron import crontab, layout
from hoody.cron.crontab import InvalidCrontab, Job, Remark
from hoody.cron.entries import Entries
from hoody.cron.entry import TOPIC, Entry
from hoody.cron.errors import Invalid, PayloadTooLarge
from hoody.cron.layout import Of
from hoody.cron.making import is_of_the_clock, told_of_entry
from hoody.cron.output import MASK
from hoody.cron.planning import Line, Plan, numbered
from hoody.cron.rights import Asking, check_own, check_user
from hoody.errors import Conflict, Forbidden
from hoody.interfaces import ITransaction

MOST_TEXT = 256 << 10
"""Bytes of a crontab that is put."""
MOST_VARIABLES = 1 << 20
"""Characters of all variables of all its jobs, each of which has a copy."""
BATCH = 500
"""Entries that are read at once: it is a while in the reactor for each."""
PATIENCE = 10.0
"""Seconds that reading and writing a large one may take in the database."""


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
        entries = await _all_entries(transaction, user, own, asking.only)
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
        self, transaction: ITransaction, asking: Asking, user: str, lines: list[Line]
    ) -> Plan:
        container = await check_own(transaction, asking)
        own, cron = asking.container_id, transaction.cron
        # Whoever puts it at the same time waits for us here, and finds what we have made of it.
        await cron.lay_out(user, own, layout.kept([Remark("")]))
        before = await _all_entries(transaction, user, own, None)
        plan = Plan(asking, self._of(asking, user), container, self._entries.now)
        await deferToThread(plan.read, before, lines)
        await self._entries.check_room(transaction, user, len(plan.added))
        await self._change(transaction, asking, container, plan)
        for added in plan.added:
            await cron.add(added)
            now = self._entries.now
            transaction.record(told_of_entry(asking, "created", added, container, now))
        await cron.lay_out(user, own, layout.kept(plan.places))
        transaction.announce(TOPIC)
        return plan

    async def _change(
        self,
        transaction: ITransaction,
        asking: Asking,
        container: Container | None,
        plan: Plan,
    ) -> None:
        """Those that there are."""
        after = {change.before.id: change.after for change in plan.changed}
        touched = [change.before for change in plan.changed] + plan.removed + plan.expired
        # In one order, so that of two nobody waits for the other.
        for before in sorted(touched, key=lambda entry: entry.id):
            await self._entries.check_change(transaction, asking, before)
            now = await transaction.cron.find(before.id, for_change=True)
            if now is None or now.version != before.version:
                raise Conflict(
                    f"The entry {before.title!r} has just been changed by somebody else; get the"
                    " crontab once more."
                )
            if before.id not in after:
                await self._entries.remove(transaction, asking, now)
                continue
            changed = after[before.id]
            if not is_of_the_clock(before, changed):
                # It may have been due meanwhile.
                changed = evolve(changed, next_fire_at=now.next_fire_at, expired=now.expired)
            await self._entries.write(transaction, asking, now, changed)


async def _all_entries(
    transaction: ITransaction, user: str, container_id: str | None, only: tuple[str, ...] | None
) -> list[Entry]:
    found: list[Entry] = []
    while True:
        some, total = await transaction.cron.page(len(found), BATCH, user, container_id, only)
        found += some
        if len(found) == total:
            return found
        if not some or len(found) > total:  # somebody has deleted some meanwhile
            found = []


async def _lines(text: str) -> list[Line]:
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
    return numbered(items)
