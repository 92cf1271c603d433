"""Entries: made, changed, looked at, deleted, and run by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from attrs import define, evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread

from hoody.audit.events import Event
from hoody.containers.container import Container, label
from hoody.cron.checks import check_whole, checked
from hoody.cron.claims import next_fire
from hoody.cron.entry import TOPIC, Entry, EntryType, Run
from hoody.cron.errors import Invalid, NotThere
from hoody.cron.rights import (
    Asking,
    check_container_here,
    check_here,
    check_own,
    check_place,
    check_scopes,
    check_user,
    find_entry,
)
from hoody.cron.schedules import Schedule, zone
from hoody.errors import Conflict
from hoody.interfaces import IRunner, IStore, ITransaction, IUsers
from hoody.units import moment

MOST_ENTRIES = 20_000
"""That a user may have, whose crontab is still made in a second."""
_OF_THE_CLOCK = {"schedule", "timezone", "enabled", "expires_at"}
"""Fields that say when it is due."""


@frozen(kw_only=True)
class Shown:
    """
    An entry, as it is looked at.

    @ivar last_run: C{None} if there was none.
    """

    entry: Entry
    last_run: Run | None = None


@define(eq=False)
class Entries:
    """
    @ivar server_id: which server this is, once that is known.
    """

    store: IStore
    _clock: IReactorTime
    _users: IUsers
    _runner: IRunner
    server_id: Callable[[], str]

    @property
    def now(self) -> datetime:
        return moment(self._clock.seconds())

    # Looking

    async def page(
        self, asking: Asking, user: str, offset: int, limit: int
    ) -> tuple[list[Shown], int]:
        """Some, oldest first, and how many there are. A user that nobody knows has none."""
        check_user(user)
        async with self.store.transaction() as transaction:
            await check_own(transaction, asking)
            found, total = await transaction.cron.page(
                offset, limit, user, asking.container_id, asking.only
            )
            runs = await transaction.cron.last_runs([entry.id for entry in found])
        return [Shown(entry=each, last_run=runs.get(each.id)) for each in found], total

    async def get(self, asking: Asking, user: str, entry_id: str) -> Shown:
        async with self.store.transaction() as transaction:
            found = await find_entry(transaction, asking, user, entry_id)
            return await self._shown(transaction, found)

    async def _shown(self, transaction: ITransaction, entry: Entry) -> Shown:
        runs, _ = await transaction.cron.runs(entry.id, 0, 1)
        return Shown(entry=entry, last_run=runs[0] if runs else None)

    async def runs(
        self, asking: Asking, user: str, entry_id: str, offset: int, limit: int
    ) -> tuple[list[Run], int]:
        """Newest first; of one that was deleted, too."""
        async with self.store.transaction() as transaction:
            found = await find_entry(transaction, asking, user, entry_id, or_removed=True)
            some: tuple[list[Run], int] = await transaction.cron.runs(found.id, offset, limit)
            return some

    async def versions(self, asking: Asking, user: str, entry_id: str) -> list[Entry]:
        """Newest first; of one that was deleted, too."""
        async with self.store.transaction() as transaction:
            found = await find_entry(transaction, asking, user, entry_id, or_removed=True)
            versions: list[Entry] = await transaction.cron.versions(found.id)
        # It may have been another container's then, whose business is not everybody's.
        return [each for each in versions if asking.may_see(each)]

    async def next(self, asking: Asking, user: str, entry_id: str, count: int) -> list[datetime]:
        """When it is due next; never, while it is disabled."""
        async with self.store.transaction() as transaction:
            entry = await find_entry(transaction, asking, user, entry_id)
        if not entry.enabled:
            return []
        schedule = Schedule.read(entry.schedule)
        fires = await deferToThread(schedule.next, self.now, zone(entry.timezone), count)
        end = entry.expires_at
        return [fire for fire in fires if end is None or fire < end]

    # Making

    async def create(self, asking: Asking, user: str, given: Mapping[str, Any]) -> Shown:
        """@param given: by the fields of L{Entry}; C{container_id} may be a name, too."""
        check_user(user)
        wanted = checked(given, self.now)
        async with self.store.transaction() as transaction:
            container = await self._container(transaction, asking, wanted)
            entry = self.made(asking, user, wanted, container)
            self._check(asking, entry)
            await self._check_server(transaction, entry, container)
        await self.check_known(user, container if entry.run_on == "container" else None)
        async with self.store.transaction() as transaction:
            await self.check_room(transaction, user, 1)
            await self._check_still_there(transaction, container)
            await transaction.cron.add(entry)
            transaction.record(self.told(asking, "created", entry, container))
            transaction.announce(TOPIC)
        return Shown(entry=entry)

    def made(
        self, asking: Asking, user: str, wanted: Mapping[str, Any], container: Container | None
    ) -> Entry:
        now = self.now
        place = "server" if container is None else "container"
        entry = Entry(
            id=str(uuid4()),
            user=user,
            server_id=self.server_id(),
            changed_by=asking.principal.actor,
            created_at=now,
            updated_at=now,
            **{
                "run_on": place,
                **wanted,
                "container_id": None if container is None else container.id,
            },
        )
        return evolve(entry, next_fire_at=next_fire(entry, now))

    async def check_room(self, transaction: ITransaction, user: str, more: int) -> None:
        """@raise Conflict: if the user has so many that there is no room for these."""
        _, total = await transaction.cron.page(0, 1, user)
        if total + more > MOST_ENTRIES:
            raise Conflict(
                f"{user} has {total} entries, and {MOST_ENTRIES} is the most; delete some, or"
                " have them be another user's."
            )

    async def check_known(self, user: str, container: Container | None) -> None:
        """
        @param container: where; C{None} for the server itself.
        @raise NotThere: if it is known that there is no such user.
        """
        if await self._users.knows(user, container) is not False:
            return
        said = f"There is no user {user} on this server; give one of its system's users."
        if container is not None:
            said = (
                f"The container {container.name!r} knows no user {user}; give one of its"
                " /etc/passwd, such as root, or a UID."
            )
        raise NotThere("USER_NOT_FOUND", said, field="user")

    async def _container(
        self, transaction: ITransaction, asking: Asking, wanted: Mapping[str, Any]
    ) -> Container | None:
        """The one that is meant. @raise Invalid: if there is none, or it cannot be that one."""
        own = await check_own(transaction, asking)
        name = wanted.get("container_id")
        if name is None:
            if own is not None and "container_id" in wanted:
                raise _another(own)
            return own
        found: Container | None = await transaction.containers.find(label(name))
        if found is None or (asking.only is not None and found.id not in asking.only):
            raise Invalid(
                "container_id",
                f"container_id: there is no container {name!r}; GET /api/v1/containers has them.",
            )
        if own is not None and found.id != own.id:
            raise _another(own)
        return found

    async def _check_server(
        self, transaction: ITransaction, entry: Entry, container: Container | None
    ) -> None:
        if entry.run_on == "server" and container is not None:
            await check_container_here(transaction, container, self.server_id())

    async def _check_still_there(
        self, transaction: ITransaction, container: Container | None
    ) -> None:
        if container is not None and await transaction.containers.find(container.id) is None:
            raise Invalid("container_id", f"container_id: {container.name!r} has been deleted.")

    def _check(self, asking: Asking, entry: Entry) -> None:
        check_whole(entry)
        check_place(asking, entry)
        check_scopes(asking, entry)

    # Changing

    async def change(
        self, asking: Asking, user: str, entry_id: str, given: Mapping[str, Any]
    ) -> Shown:
        """What is given, and nothing else; what changes nothing makes no version."""
        wanted = checked(given, self.now)
        if {"container_id", "run_on"} & wanted.keys():
            async with self.store.transaction() as transaction:
                found = await find_entry(transaction, asking, user, entry_id)
                moved, container = await self._changed(transaction, asking, found, wanted)
            if (moved.container_id, moved.run_on) != (found.container_id, found.run_on):
                where = container if moved.run_on == "container" else None
                await self.check_known(user, where)
        async with self.store.transaction() as transaction:
            found = await find_entry(transaction, asking, user, entry_id, for_change=True)
            changed, container = await self._changed(transaction, asking, found, wanted)
            await self.write(transaction, asking, found, changed, container)
            return await self._shown(transaction, changed)

    async def _changed(
        self, transaction: ITransaction, asking: Asking, entry: Entry, wanted: Mapping[str, Any]
    ) -> tuple[Entry, Container | None]:
        """As it is to be, and whose; with all that it may be."""
        await self.check_change(transaction, asking, entry)
        fields = dict(wanted)
        if "container_id" in fields:
            container = await self._container(transaction, asking, fields)
            fields["container_id"] = None if container is None else container.id
            if container is not None and entry.container_id is None:
                fields.setdefault("run_on", "container")
        else:
            container = await self._container_of(transaction, entry)
        changed = self.evolved(asking, entry, **fields)
        self._check(asking, changed)
        await self._check_server(transaction, changed, container)
        return changed, container

    async def _container_of(self, transaction: ITransaction, entry: Entry) -> Container | None:
        if entry.container_id is None:
            return None
        found: Container | None = await transaction.containers.find(entry.container_id)
        return found

    async def check_change(self, transaction: ITransaction, asking: Asking, entry: Entry) -> None:
        """@raise HoodyError: if they may not change it, or not here."""
        check_place(asking, entry)
        await check_here(transaction, entry, self.server_id())

    def evolved(
        self, asking: Asking, entry: Entry, *, type: EntryType = "managed", **fields: Any
    ) -> Entry:
        """
        Its next version, or itself if that is the same.

        @param type: that it has from then on: a line of a crontab alone does not say all that
            may be changed through the API.
        """
        changes = {name: value for name, value in fields.items() if getattr(entry, name) != value}
        if not changes:
            return entry
        now = self.now
        changed = evolve(
            entry,
            **changes,
            type=type,
            version=entry.version + 1,
            changed_by=asking.principal.actor,
            updated_at=now,
        )
        if changes.keys() & _OF_THE_CLOCK:
            over = changed.expires_at is not None and changed.expires_at <= now
            changed = evolve(
                changed, expired=entry.expired and over, next_fire_at=next_fire(changed, now)
            )
        return changed

    async def write(
        self,
        transaction: ITransaction,
        asking: Asking,
        before: Entry,
        after: Entry,
        container: Container | None,
    ) -> None:
        if after is before:
            return
        await transaction.cron.change(after)
        names = [name for name in _TOLD if getattr(before, name) != getattr(after, name)]
        transaction.record(self.told(asking, "updated", after, container, changed=names))
        transaction.announce(TOPIC)

    # Deleting

    async def delete(self, asking: Asking, user: str, entry_id: str) -> None:
        """A run that goes on goes on to its end."""
        async with self.store.transaction() as transaction:
            found = await find_entry(transaction, asking, user, entry_id, for_change=True)
            await self.check_change(transaction, asking, found)
            await self.remove(transaction, asking, found)

    async def remove(self, transaction: ITransaction, asking: Asking, entry: Entry) -> None:
        await transaction.cron.remove(entry.id)
        container = await self._container_of(transaction, entry)
        transaction.record(self.told(asking, "deleted", entry, container))
        transaction.announce(TOPIC)

    # Running

    async def run(self, asking: Asking, user: str, entry_id: str) -> Run:
        """Now, whether or not it is enabled. @raise Misdirected: if it runs elsewhere."""
        async with self.store.transaction() as transaction:
            found = await find_entry(transaction, asking, user, entry_id)
        check_place(asking, found)
        run: Run = await self._runner.run_now(found, asking.principal.actor, asking.request_id)
        return run

    # Telling

    def told(
        self,
        asking: Asking,
        what: str,
        entry: Entry,
        container: Container | None,
        **more: object,
    ) -> Event:
        data: dict[str, object] = {
            "alias": entry.title,
            "user": entry.user,
            "schedule": entry.schedule,
            **more,
        }
        if container is not None:
            data["container"] = container.name
        return Event(
            ts=self.now,
            event_type=f"cron.entry.{what}",
            actor=asking.principal.actor,
            resource_type="cron_entry",
            resource_id=entry.id,
            container_id=entry.container_id,
            project_id=None if container is None else container.project_id,
            data=data,
            request_id=asking.request_id,
        )


_TOLD = (
    *("name", "comment", "schedule", "command", "timezone", "enabled", "overlap"),
    *("timeout_seconds", "retries", "start_deadline_seconds", "environment_vars"),
    *("container_id", "run_on", "scopes", "expires_at"),
)
"""What a change may be of, as the audit names it."""


def _another(own: Container) -> Invalid:
    return Invalid(
        "container_id",
        f"container_id: this host is that of {own.name!r}; leave it out, or ask at"
        " cron.containers and your domain.",
    )
