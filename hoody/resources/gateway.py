"""The containers as HTTP sees them: which request is for whom, and whether it may go there."""

from __future__ import annotations

import re
from functools import partial

from attrs import define, field, frozen
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from hoody.auth.principal import Principal
from hoody.errors import HoodyError, NoSuchThing, NoToken, NotServing, Unavailable
from hoody.interfaces import IDestination, IDestinations, IIntake
from hoody.pipes.rendezvous import DRAINING
from hoody.probes import Probe, is_probe
from hoody.protocols.kept import KeptConnections
from hoody.protocols.relaying import Relaying
from hoody.protocols.request import Request
from hoody.resources import refusals
from hoody.resources.doors import Doors
from hoody.resources.guard import GoTo, go_to
from hoody.resources.passage import Means, Passage

HTTP = "http"
WAIT_SECONDS = 2.0
"""For so long a browser waits for a container that starts; then a page says so."""
LOOK_EVERY = 2.0
"""Seconds between two looks at whether those who are inside still may be."""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_OF_SERVICE = re.compile(r"([0-9a-f]{24})-([0-9a-f]{24})-([a-z]+)-(\d{1,5})")


@frozen(kw_only=True)
class Address:
    """
    What a host name says (the contract's "Hosts").

    @ivar label: a container's name, alias or id.
    @ivar project_id: of its project; C{None} if it is not said.
    @ivar service: what is wanted of it.
    @ivar port: C{None} for the main one.
    """

    label: str
    project_id: str | None = None
    service: str = HTTP
    port: int | None = None


def read_address(name: str) -> Address | None:
    """
    @param name: the host's, less the domain, lower case.
    @return: C{None} if nobody can be called so.
    """
    label, _, server = name.partition(".")
    if not _LABEL.fullmatch(label):
        return None
    if not server:
        return Address(label=label, service="cron" if label == "cron" else HTTP)
    match = _OF_SERVICE.fullmatch(label)
    # All servers of a database know all containers; whose it is, they say themselves.
    if match is None or not _LABEL.fullmatch(server):
        return None
    return Address(project_id=match[1], label=match[2], service=match[3], port=int(match[4]))


@define(eq=False, kw_only=True)
class GatewayFace:
    """
    @ivar suffix: what stands behind the names of containers, with its first dot.
    @ivar connect_timeout: seconds that a container may take to accept a connection.
    @ivar keep: seconds for which a connection to one is kept for the next request.
    @ivar relaying: has the kernel move large answers; C{None} where it cannot.
    @ivar probes: which requests are no reason to wake anybody.
    """

    destinations: IDestinations
    doors: Doors
    clock: IReactorTime
    suffix: bytes
    connect_timeout: float = 10.0
    keep: float = 4.0
    relaying: Relaying | None = None
    probes: tuple[Probe, ...] = ()
    _means: Means = field(init=False)
    _passages: set[Passage] = field(factory=set, init=False)
    _closing: bool = field(default=False, init=False)
    _inside: dict[Passage, Principal] = field(factory=dict, init=False)
    _looks: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._means = Means(
            clock=self.clock,
            kept=KeptConnections(self.clock, self.keep),
            connect_timeout=self.connect_timeout,
            relaying=self.relaying,
        )
        self._looks = LoopingCall(self._look)
        self._looks.clock = self.clock

    def claim(self, request: Request) -> IIntake:
        """Take a request to its container; whatever comes of it is answered."""
        passage = Passage(request, self._means, refuse=refusals.refuse, left=self._left)
        self._passages.add(passage)
        passage.begin()
        if self._closing:
            request.close_after()
            passage.give_up(Unavailable(DRAINING))
            return passage
        ensureDeferred(self._lead(passage)).addErrback(passage.fail)
        return passage

    def here(self, request: Request, address: Address) -> IDestination:
        """
        The container of a host whose service is not its own.

        @raise NoSuchThing: if there is none on this server.
        """
        destination = self.destinations.here(address.label)
        if destination is None or address.project_id != destination.project_id:
            raise _unknown(request)
        return destination

    # The end of the server

    def drain(self) -> int:
        """
        Take no more, and end what has no end of its own.

        @return: how many are left, to be called for until there are none.
        """
        self._closing = True
        for passage in tuple(self._passages):
            if passage.is_endless:
                passage.give_up(Unavailable(DRAINING))
        return len(self._passages)

    def cut(self) -> None:
        """Take no more, and end what is there."""
        self._closing = True
        for passage in tuple(self._passages):
            passage.give_up(Unavailable(DRAINING))

    def close(self) -> None:
        """Let go of what is kept."""
        self._means.kept.close()

    async def _lead(self, passage: Passage) -> None:
        request = passage.request
        address = self._address(request)
        destination = _checked(await self.destinations.find(address.label), address, request)
        try:
            principal = await self.doors.admit(request, destination)
            if passage.is_over:
                return
            if principal is not None:
                self._comes_in(passage, principal)
            await self._go(passage, destination, address.port or destination.port)
        except GoTo as elsewhere:
            passage.answer(partial(_send_elsewhere, request, elsewhere))
        except NotServing as error:
            last_words = await self._last_words(request, destination, error)
            passage.answer(partial(refusals.refuse, request, error, last_words))

    async def _go(self, passage: Passage, destination: IDestination, port: int) -> None:
        request = passage.request
        probes = is_probe(self.probes, request)
        if probes and destination.sleeps is not None:
            passage.answer(partial(refusals.say_asleep, request, destination.sleeps))
            return
        late = None
        if refusals.is_browsing(request):
            late = self.clock.callLater(
                WAIT_SECONDS,
                passage.answer,
                partial(refusals.have_wait, request, destination.name),
            )
        try:
            await passage.to(destination, port, counts=not probes)
        finally:
            if late is not None and late.active():
                late.cancel()

    def _address(self, request: Request) -> Address:
        """@raise NoSuchThing: if nobody can be called so."""
        name = request.host_name.removesuffix(self.suffix).decode("ascii")
        address = read_address(name)
        if address is None:
            raise _unknown(request)
        return address

    async def _last_words(
        self, request: Request, destination: IDestination, error: NotServing
    ) -> str:
        """Of a container that failed, for those who may read its log."""
        if error.why != "failed":
            return ""
        try:
            await self.doors.recognise(request, destination)
        except HoodyError:
            return ""
        return await destination.last_words()

    # Those who are inside by the grace of a token

    def _comes_in(self, passage: Passage, principal: Principal) -> None:
        self._inside[passage] = principal
        if not self._looks.running:
            self._looks.start(LOOK_EVERY, now=False)

    def _left(self, passage: Passage) -> None:
        self._passages.discard(passage)
        self._inside.pop(passage, None)
        if not self._inside and self._looks.running:
            self._looks.stop()

    def _look(self) -> None:
        for passage, principal in tuple(self._inside.items()):
            if not self.doors.guard.still_admits(principal):
                passage.give_up(NoToken("The token by which this was asked for is not valid now."))


def _checked(destination: IDestination | None, address: Address, request: Request) -> IDestination:
    """@raise NoSuchThing: if there is none, or nobody may come to it this way."""
    if destination is None or address.project_id not in (None, destination.project_id):
        raise _unknown(request)
    if address.service != HTTP:
        raise NoSuchThing(
            f"There is no service called {address.service!r}; there are http, cron and pipe."
        )
    if address.port not in (None, destination.port, *destination.ports):
        raise NoSuchThing(
            f"Port {address.port} of {destination.name} is not reachable from outside; name it in"
            " the container's exposed_ports."
        )
    return destination


def _unknown(request: Request) -> NoSuchThing:
    name = request.host_name.decode("ascii", "replace")
    return NoSuchThing(f"There is no container called {name!r} here.")


def _send_elsewhere(request: Request, elsewhere: GoTo) -> None:
    request.write(go_to(request, elsewhere))
    request.finish()
