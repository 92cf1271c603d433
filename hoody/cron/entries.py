"""Entries: made, changed, deleted, and run by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from attrs import define
from twisted.internet.interfaces import IReactorTime

from hoody.containers.container import Container, label
from hoody.cron.checks import checked
from hoody.cron.entry import TOPIC, Entry, Run
from hoody.cron.errors import Invalid, NotThere
from hoody.cron.looking import Shown, shown_of
from hoody.cron.making import changes_of, check, evolved, made, told_of_entry
from hoody.cron.rights import (
    Asking,
    check_container_here,
    check_here,
    check_own,
    check_place,
    check_user,
    find_entry,
)
from hoody.errors import Conflict
from hoody.interfaces import IRunner, IStore, ITransaction, IUsers
from hoody.units import moment

MOST_ENTRIES = 20_000
"""That a user may have, whose crontab is still made in a second."""


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

    # Making

    async def create(self, asking: Asking, user: str, given: Mapping[str, Any]) -> Shown:
        """@param given: by the fields of L{Entry}; C{container_id} may be a name, too."""
        check_user(user)
        wanted = checked(given, self.now)
        async with self.store.transaction() as transaction:
            container = await self._container(transaction, asking, wanted)
            entry = made(asking, user, wanted, container, self.now, self.server_id())
            check(asking, entry)
            await self._check_server(transaction, entry, container)
        await self.check_known(user, container if entry.run_on == "container" else None)
        async with self.store.transaction() as transaction:
            await self.check_room(transaction, user, 1)
            await self._check_still_there(transaction, container)
            await transaction.cron.add(entry)
            transaction.record(told_of_entry(asking, "created", entry, container, self.now))
            transaction.announce(TOPIC)
        return Shown(entry=entry)

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
            changed, _ = await self._changed(transaction, asking, found, wanted)
            await self.write(transaction, asking, found, changed)
            return await shown_of(transaction, changed)

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
        changed = evolved(asking, entry, self.now, **fields)
        check(asking, changed)
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

    async def write(
        self,
        transaction: ITransaction,
        asking: Asking,
        before: Entry,
        after: Entry,
    ) -> None:
        if after is before:
            return
        await transaction.cron.change(after)
        container = await self._container_of(transaction, after)
        changed = changes_of(before, after)
        transaction.record(
            told_of_entry(asking, "updated", after, container, self.now, changed=changed)
        )
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
        transaction.record(told_of_entry(asking, "deleted", entry, container, self.now))
        transaction.announce(TOPIC)

    # Running

    async def run(self, asking: Asking, user: str, entry_id: str) -> Run:
        """Now, whether or not it is enabled. @raise Misdirected: if it runs elsewhere."""
        async with self.store.transaction() as transaction:
            found = await find_entry(transaction, asking, user, entry_id)
            check_place(asking, found)
            container = await self._container_of(transaction, found)
            if container is not None:
                await check_container_here(transaction, container, self.server_id())
            await check_here(transaction, found, self.server_id())
        run: Run = await self._runner.run_now(found, asking.principal.actor, asking.request_id)
        return run


def _another(own: Container) -> Invalid:
    return Invalid(
        "container_id",
        f"container_id: this host is that of {own.name!r}; leave it out, or ask at"
        " cron.containers and your domain.",
    )
