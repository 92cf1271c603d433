"""The containers of this server, as the gateway comes to them."""

from __future__ import annotations

import errno
import os
import socket

from attrs import define, field
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from hoody.containers.container import DOOR_PORT, MANUAL
from hoody.containers.elsewhere import Elsewhere
from hoody.containers.fleet import Fleet
from hoody.containers.keeper import Keeper
from hoody.containers.logs import tail
from hoody.errors import NoSuchThing, Unavailable
from hoody.interfaces import IDestination, IDestinations, IVisit
from hoody.protocols.namespaces import InsideEndpoint

START_SECONDS = 30.0
"""How long after its start a container's main port may refuse, and is asked again."""
WORDS = 4096
"""Bytes of a log that are shown as its end."""


@implementer(IDestinations)
@define(eq=False)
class Destinations:
    """The fleet, as the gateway comes to it."""

    _fleet: Fleet
    _elsewhere: Elsewhere

    def here(self, label: str) -> IDestination | None:
        if not self._fleet.ready:
            raise Unavailable("The containers are still being looked after; try again soon.")
        keeper = self._fleet.destination(label)
        if keeper is not None:
            return Destination(self._fleet, keeper)
        if self._fleet.lacks is not None and self._fleet.may_be(label):
            raise Unavailable("The containers of this server are not there just now.")
        return None

    async def find(self, label: str) -> IDestination | None:
        destination = self.here(label)
        if destination is not None:
            return destination
        owner = await self._elsewhere.owner(label)
        if owner is None:
            return None
        if owner.server_id != self._fleet.server_id:
            raise owner.misdirected
        raise Unavailable("The containers of this server are not there just now.")


@implementer(IDestination)
@define(eq=False)
class Destination:
    _fleet: Fleet
    _keeper: Keeper

    @property
    def container_id(self) -> str:
        return self._keeper.container.id

    @property
    def project_id(self) -> str:
        return self._keeper.container.project_id

    @property
    def name(self) -> str:
        return self._keeper.container.name

    @property
    def access(self) -> str:
        return self._keeper.container.access

    @property
    def port(self) -> int:
        return self._keeper.container.port

    @property
    def ports(self) -> frozenset[int]:
        return self._keeper.container.ports

    @property
    def sleeps(self) -> str | None:
        keeper = self._keeper
        if keeper.is_asleep or keeper.state == "dozing":
            return "paused"
        by_hand = keeper.container.status_reason == MANUAL
        return "stopped" if keeper.state == "stopped" and not by_hand else None

    def visit(self, *, counts: bool = True) -> IVisit:
        return Visit(self._fleet, self._keeper, counts)

    async def last_words(self) -> str:
        path = self._fleet.storage.log_file(self.container_id)
        return (await deferToThread(tail, path, WORDS)).decode("utf-8", "replace")


@implementer(IVisit)
@define(eq=False)
class Visit:
    """
    @ivar counts: whether it keeps the container awake for longer than it lasts.
    @ivar is_waiting: whether the answer has not begun.
    @ivar is_over: whether it counts no more.
    """

    _fleet: Fleet
    _keeper: Keeper
    counts: bool
    patience: float = field(default=0.0, init=False)
    wake: tuple[str, float] | None = field(default=None, init=False)
    is_waiting: bool = field(default=True, init=False)
    is_over: bool = field(default=False, init=False)
    _holds_back: bool = field(default=False, init=False)
    _began: float = field(init=False)
    _found: str | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        keeper = self._keeper
        self._began = self._fleet.reactor.seconds()
        if keeper.is_asleep or keeper.state == "dozing":
            self._found = "paused"
        elif keeper.state in ("stopped", "starting"):
            self._found = "stopped"
        keeper.visits += 1
        self.moved()

    async def endpoint(self, port: int) -> IStreamClientEndpoint:
        keeper, reactor = self._keeper, self._fleet.reactor
        if port == DOOR_PORT:
            raise NoSuchThing(
                f"Port {port} of {keeper.container.name} is its own door to the API."
            )
        run = await self._fleet.serving(keeper)
        until = run.began + START_SECONDS if port == keeper.container.port else 0.0
        self.patience = max(0.0, until - reactor.seconds())

        def make_socket(family: int, kind: int) -> socket.socket:
            made = run.network.socket(family, kind)
            if not self._fleet.has_room(made.fileno()):
                made.close()
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return made

        return InsideEndpoint(reactor, make_socket, port, until)

    def connected(self) -> None:
        if self._found is None:
            return
        took = (self._fleet.reactor.seconds() - self._began) * 1000
        self._fleet.woke(self._found, took / 1000)
        self.wake, self._found = (self._found, took), None
        self._keeper.sleep.has_woken(took)

    def answered(self) -> None:
        if self.is_waiting:
            self.is_waiting = False
            self._keeper.visits -= 1
        self.moved()

    def moved(self) -> None:
        if self.counts:
            self._keeper.touch()

    def holds_back(self, some: bool) -> None:
        # Asleep it would never take them, nor hear of more.
        if some is not self._holds_back and not self.is_over:
            self._holds_back = some
            self._keeper.visits += 1 if some else -1
            self.moved()

    def ended(self) -> None:
        self.holds_back(False)
        self.is_over = True
        if self.is_waiting:
            self.is_waiting = False
            self._keeper.visits -= 1
