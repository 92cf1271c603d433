"""As whom commands of entries can run, as far as it is known before they do."""

from __future__ import annotations

import pwd

from attrs import define
from twisted.internet.defer import TimeoutError
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from hoody.containers import users
from hoody.containers.container import Container
from hoody.containers.fleet import Fleet
from hoody.interfaces import IUsers
from hoody.later import in_thread

SECONDS = 5.0
"""How long the server's own users are looked up: they may be on a network."""
_ROOT = "root"


@implementer(IUsers)
@define(eq=False)
class Users:
    _fleet: Fleet

    async def knows(self, user: str, container: Container | None) -> bool | None:
        if container is None:
            return await self._server_knows(user)
        if user.isdigit() or user == _ROOT:
            return True
        if container.server_id != self._fleet.server_id or not self._fleet.ready:
            return None
        return await deferToThread(users.knows, self._fleet.storage, container, user)

    async def _server_knows(self, user: str) -> bool | None:
        reactor = self._fleet.reactor
        looking = in_thread(reactor, lambda: _is_here(user))
        looking.addTimeout(SECONDS, reactor)
        try:
            return await looking
        except TimeoutError:
            return None


def _is_here(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
