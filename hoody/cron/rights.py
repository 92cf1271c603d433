"""Who asks for what of cron, and whether they may."""

from __future__ import annotations

import re
from datetime import datetime

from attrs import frozen

from hoody.auth.principal import Principal
from hoody.auth.tokens import Scope
from hoody.containers.container import Container
from hoody.containers.elsewhere import Owner
from hoody.cron.entry import RUN_SCOPES, Entry
from hoody.cron.errors import Invalid, NotThere
from hoody.errors import Misdirected, NoSuchThing
from hoody.interfaces import ITransaction

_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MOST_SHOWN = 60


@frozen(kw_only=True)
class Own:
    """The container whose own host was asked, as that says it."""

    project_id: str
    container_id: str


@frozen(kw_only=True)
class Asking:
    """
    @ivar own: if it is not asked of all, but of one container.
    """

    principal: Principal
    request_id: str | None = None
    own: Own | None = None

    @property
    def container_id(self) -> str | None:
        """Of the only one that is spoken of."""
        return None if self.own is None else self.own.container_id

    @property
    def only(self) -> tuple[str, ...] | None:
        """The ids of the containers whose entries they may know of; C{None} for all entries."""
        return self.principal.containers

    def may_see(self, entry: Entry) -> bool:
        if self.own is not None and entry.container_id != self.own.container_id:
            return False
        return self.only is None or entry.container_id in self.only

    @property
    def may_see_variables(self) -> bool:
        return self.principal.may(Scope.CRON) or self.principal.may(Scope.WRITE)


def check_user(user: str) -> None:
    """@raise Invalid: if nobody can be called so."""
    if not _USER.fullmatch(user):
        raise Invalid(
            "user",
            f'user: "{_shown(user)}" will not do; give 1 to 32 letters, digits, _, . and -, with'
            " no - first.",
        )


def check_place(asking: Asking, entry: Entry) -> None:
    """@raise Forbidden: if it runs on the server, which is for few to say."""
    if entry.run_on == "server":
        asking.principal.require(
            Scope.ADMIN, ", as this runs on the server itself; name a container to run it there"
        )
        asking.principal.require_all_containers()


def check_scopes(asking: Asking, entry: Entry) -> None:
    """
    What runs may do, who says what is run could do. What C{cron} itself lets runs do is no
    matter.

    @raise Forbidden: if they may not do that themselves.
    """
    for scope in entry.scopes:
        if scope not in RUN_SCOPES:
            asking.principal.require(scope, ", as runs of this entry have that scope")


async def check_own(transaction: ITransaction, asking: Asking) -> Container | None:
    """
    The container whose own host was asked.

    @raise NoSuchThing: if there is none, or they may not know of it.
    """
    own = asking.own
    if own is None:
        return None
    found = await transaction.containers.find(own.container_id)
    is_hidden = asking.only is not None and own.container_id not in asking.only
    if found is None or found.project_id != own.project_id or is_hidden:
        raise NoSuchThing(
            f"There is no container {own.container_id!r} in a project {own.project_id!r}, as this"
            " host says."
        )
    return found


async def find_entry(
    transaction: ITransaction,
    asking: Asking,
    user: str,
    entry_id: str,
    *,
    for_change: bool = False,
    or_removed: bool = False,
) -> Entry:
    """
    @param or_removed: whether one will do that is not there any more.
    @raise NotThere: if there is none, or none that they may know of.
    """
    check_user(user)
    await check_own(transaction, asking)
    entry_id = entry_id.lower()
    found: Entry | None = None
    if _ID.fullmatch(entry_id):
        found = await transaction.cron.find(entry_id, for_change)
        if found is None and or_removed:
            found = next(iter(await transaction.cron.versions(entry_id)), None)
    if found is None or found.user != user or not asking.may_see(found):
        raise NotThere(
            "ENTRY_NOT_FOUND",
            f'There is no entry "{_shown(entry_id)}" of {user}; GET /users/{user}/entries has'
            " them.",
        )
    return found


async def check_here(transaction: ITransaction, entry: Entry, server_id: str) -> None:
    """@raise Misdirected: if it runs on another server: it alone may say what runs on it."""
    if entry.run_on != "server":
        return
    if entry.container_id is not None:
        container = await transaction.containers.find(entry.container_id)
        if container is not None:
            await check_container_here(transaction, container, server_id)
    elif entry.server_id != server_id:
        name = (await transaction.servers.names({entry.server_id})).get(entry.server_id)
        said = entry.server_id if name is None else f"{name!r} ({entry.server_id})"
        raise Misdirected(f"The entry {entry.title!r} runs on the server {said}; ask that one.")


async def check_container_here(
    transaction: ITransaction, container: Container, server_id: str
) -> None:
    """@raise Misdirected: if it is on another server."""
    if container.server_id != server_id:
        names = await transaction.servers.names({container.server_id})
        raise Owner(
            container=container.name,
            server_id=container.server_id,
            server=names.get(container.server_id),
        ).misdirected


def is_over(entry: Entry, now: datetime) -> bool:
    """Whether its time is."""
    return entry.expired or (entry.expires_at is not None and entry.expires_at <= now)


def _shown(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…"
