"""The factory of connections, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.web import server

from hoody.errors import HoodyError, TooMany, Unavailable
from hoody.interfaces import IDoor, IIntake, IRequestClaimer
from hoody.protocols import sockets
from hoody.protocols.channel import Channel
from hoody.protocols.hangups import Hangups
from hoody.protocols.request import Request


class Site(server.Site):
    """
    Makes L{Channel}s.

    @ivar claimer: looks at every request first.
    @ivar refuse: answers, on the channel given, what never became a request.
    @ivar access: is told of every request that is over.
    @ivar connections: those that are open.
    @ivar parties: of these, those whose peer may be silent for long.
    @ivar stream_timeout: seconds that a reader of events may take none of them.
    @ivar has_room: whether there may be a connection with a descriptor of this number; who
        comes in though there is none is told so.
    """

    noisy = False
    requestFactory: type[Request] = Request
    reactor: IReactorTime

    def __init__(
        self,
        claimer: IRequestClaimer,
        *,
        reactor: IReactorTime,
        hangups: Hangups,
        refuse: Callable[[Channel, HoodyError], None],
        access: Callable[[Request], None],
        has_room: Callable[[int], bool] = lambda _: True,
        server_name: bytes,
        head_timeout: float,
        idle_timeout: float,
        peer_timeout: float,
        stream_timeout: float,
    ) -> None:
        super().__init__(claimer, reactor=reactor, timeout=idle_timeout)
        self.claimer = claimer
        self.hangups = hangups
        self.refuse = refuse
        self.access = access
        self.has_room = has_room
        self.server_name = server_name
        self.head_timeout = head_timeout
        self.peer_timeout = peer_timeout
        self.stream_timeout = stream_timeout
        self.connections: set[Channel] = set()
        self.parties: set[Channel] = set()
        self._suspects: set[Channel] = set()
        self._pulse = LoopingCall(self._feel_pulses)
        self._pulse.clock = reactor

    def buildProtocol(self, addr: IAddress | None) -> Channel:  # type: ignore[override]
        channel: Any = Channel()
        channel.factory = self
        channel.site = self
        channel.requestFactory = self.requestFactory
        channel.callLater = self.reactor.callLater
        channel.timeOut = self.timeOut
        return cast(Channel, channel)

    def serve_door(self, door: IDoor) -> Channel:
        """What serves a connection that comes by a container's own door."""
        channel = self.buildProtocol(None)
        channel.door = door
        return channel

    def startFactory(self) -> None:
        """Begin to look for dead peers. Called for each port; there is one round of looks."""
        if not self._pulse.running:
            self.hangups.start()
            self._pulse.start(self.peer_timeout / 8, now=False)

    def stopFactory(self) -> None:
        if self._pulse.running:
            self._pulse.stop()
            self.hangups.stop()

    def claim(self, request: Request) -> IIntake | None:
        """Who takes this request, if anybody does at header time."""
        if request.channel.is_too_many and request.path != b"/health":
            request.close_after()
            self.claimer.refuse(
                request, Unavailable("All connections are taken; try again in a moment.")
            )
            return None
        if request.door is not None and not request.door.may_ask():
            request.close_after()
            self.claimer.refuse(
                request, TooMany("This container asks too often; ask less, or wait a little.")
            )
            return None
        return self.claimer.claim(request)

    def acceptableProtocols(self) -> list[bytes]:  # IProtocolNegotiationFactory
        """What TLS may agree upon (ALPN); HTTP/2 would need another channel."""
        return [b"http/1.1", b"http/1.0"]

    def log(self, request: Request) -> None:  # type: ignore[override]
        """Instead of twisted.web's access log line."""
        self.access(request)

    def _feel_pulses(self) -> None:
        """
        Drop the peers that owe the kernel an answer for too long. Two looks
        in a row must say so: the first may fall between a probe and its answer.
        """
        suspects = set()
        for channel in tuple(self.parties):
            sock = sockets.socket_of(channel.transport)
            felt = sockets.pulse(sock) if sock is not None else None
            if felt is not None and felt.is_lost(self.peer_timeout * 3 / 4):
                suspects.add(channel)
        for channel in suspects & self._suspects:
            channel.drop_dead_peer()
        self._suspects = suspects
