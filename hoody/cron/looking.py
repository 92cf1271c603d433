"""Entries and their runs, looked at."""

from __future__ import annotations

from datetime import datetime

from attrs import define, evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread

from hoody.cron.entry import Entry, Run
from hoody.cron.output import MASK
from hoody.cron.rights import Asking, check_own, check_user, find_entry
from hoody.cron.schedules import Schedule, zone
from hoody.interfaces import IStore, ITransaction
from hoody.units import moment

LEAST_MASKED = 4
"""Characters of a variable's value that is kept from who may not see it: "1" is no secret."""


@frozen(kw_only=True)
class Shown:
    """
    An entry, as it is looked at.

    @ivar last_run: C{None} if there was none.
    """

    entry: Entry
    last_run: Run | None = None


@define(eq=False)
class Looking:
    _store: IStore
    _clock: IReactorTime

    async def page(
        self,
        asking: Asking,
        user: str,
        offset: int,
        limit: int,
        sort_by: str = "created_at",
        ascending: bool = True,
    ) -> tuple[list[Shown], int]:
        """Some, and how many there are. A user that nobody knows has none."""
        check_user(user)
        async with self._store.transaction() as transaction:
            await check_own(transaction, asking)
            found, total = await transaction.cron.page(
                offset, limit, user, asking.container_id, asking.only, sort_by, ascending
            )
            runs = await transaction.cron.last_runs([entry.id for entry in found])
        return [Shown(entry=each, last_run=runs.get(each.id)) for each in found], total

    async def get(self, asking: Asking, user: str, entry_id: str) -> Shown:
        async with self._store.transaction() as transaction:
            found = await find_entry(transaction, asking, user, entry_id)
            shown = await shown_of(transaction, found)
            values = await _hidden(transaction, asking, found.id)
        if shown.last_run is None:
            return shown
        [run] = await deferToThread(_masked, [shown.last_run], values)
        return evolve(shown, last_run=run)

    async def runs(
        self, asking: Asking, user: str, entry_id: str, offset: int, limit: int
    ) -> tuple[list[Run], int]:
        """Newest first; of one that was deleted, too."""
        async with self._store.transaction() as transaction:
            found = await find_entry(transaction, asking, user, entry_id, or_removed=True)
            some, total = await transaction.cron.runs(found.id, offset, limit)
            values = await _hidden(transaction, asking, found.id)
        return await deferToThread(_masked, some, values), total

    async def versions(self, asking: Asking, user: str, entry_id: str) -> list[Entry]:
        """Newest first; of one that was deleted, too."""
        async with self._store.transaction() as transaction:
            found = await find_entry(transaction, asking, user, entry_id, or_removed=True)
            versions: list[Entry] = await transaction.cron.versions(found.id)
        # It may have been another container's then, whose business is not everybody's.
        return [each for each in versions if asking.may_see(each)]

    async def next(self, asking: Asking, user: str, entry_id: str, count: int) -> list[datetime]:
        """When it is due next; never, while it is disabled."""
        async with self._store.transaction() as transaction:
            entry = await find_entry(transaction, asking, user, entry_id)
        if not entry.enabled:
            return []
        schedule, now = Schedule.read(entry.schedule), moment(self._clock.seconds())
        fires = await deferToThread(schedule.next, now, zone(entry.timezone), count)
        end = entry.expires_at
        return [fire for fire in fires if end is None or fire < end]


async def _hidden(transaction: ITransaction, asking: Asking, entry_id: str) -> list[str]:
    """
    Values of an entry's variables, as they are and were, that they may not see; longest first.
    """
    if asking.may_see_variables:
        return []
    versions = await transaction.cron.versions(entry_id)
    values = {value for each in versions for value in each.environment_vars.values()}
    return sorted((each for each in values if len(each) >= LEAST_MASKED), key=len, reverse=True)


def _masked(runs: list[Run], values: list[str]) -> list[Run]:
    """Without these in what they said."""

    def masked(text: str) -> str:
        for value in values:
            text = text.replace(value, MASK)
        return text

    if not values:
        return runs
    return [evolve(run, stdout=masked(run.stdout), stderr=masked(run.stderr)) for run in runs]


async def shown_of(transaction: ITransaction, entry: Entry) -> Shown:
    """With all that its last run said."""
    runs, _ = await transaction.cron.runs(entry.id, 0, 1)
    return Shown(entry=entry, last_run=runs[0] if runs else None)
