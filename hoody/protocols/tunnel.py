"""
What a connection becomes after an upgrade (RFC 9110 section 7.8): bytes that go through
as they are, each side at the pace of the other, for as long as both want.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from attrs import define, field
from twisted.internet.interfaces import IPushProducer
from twisted.web.http_headers import Headers
from zope.interface import implementer

from hoody.protocols.channel import Reading

if TYPE_CHECKING:
    from hoody.protocols.request import Request
    from hoody.protocols.upstream import Upstream


class TunnelEnd(Protocol):
    """Is told what one end of a tunnel does."""

    def came(self, data: bytes) -> None:
        """Some bytes."""

    def ended(self) -> None:
        """No more will come from there; it may still take."""


@define(eq=False)
class Tunnel:
    """
    Between a client and a container.

    @ivar moved: called whenever bytes have passed.
    @ivar holds_back: told whether the client has to wait, as the container does not take what
        there is.
    @ivar over: called when both sides have ended. One that breaks off takes the other with
        it; that is told by the request.
    """

    request: Request
    upstream: Upstream
    moved: Callable[[], None]
    holds_back: Callable[[bool], None]
    over: Callable[[], None]
    _ends: int = field(default=0, init=False)

    def open(self, reason: bytes, headers: Headers) -> None:
        """@param headers: of the answer 101."""
        self.upstream.tunnel = FromContainer(self)
        self.upstream.paced_by(Pace(self, Reading(self.request.channel)))
        self.request.switch_protocols(reason, headers, FromClient(self))

    def end_one(self) -> None:
        """One of the two directions has ended."""
        self._ends += 1
        if self._ends == 2:
            self.upstream.tunnel = None
            self.upstream.close()
            self.over()


@implementer(IPushProducer)
@define(eq=False)
class Pace:
    """What the client sends, as fast as the container takes it."""

    _tunnel: Tunnel
    _reading: Reading

    def pauseProducing(self) -> None:
        self._tunnel.holds_back(True)
        self._reading.pauseProducing()

    def resumeProducing(self) -> None:
        self._tunnel.holds_back(False)
        self._reading.resumeProducing()

    def stopProducing(self) -> None:
        self._reading.stopProducing()


@define(eq=False)
class FromClient:
    """What the client does."""

    _tunnel: Tunnel

    def came(self, data: bytes) -> None:
        self._tunnel.moved()
        self._tunnel.request.received += len(data)
        self._tunnel.upstream.write(data)

    def ended(self) -> None:
        self._tunnel.upstream.half_close()
        self._tunnel.end_one()


@define(eq=False)
class FromContainer:
    """What the container does."""

    _tunnel: Tunnel

    def came(self, data: bytes) -> None:
        self._tunnel.moved()
        request = self._tunnel.request
        if not request.gone:
            request.sentLength += len(data)
            request.channel.write(data)

    def ended(self) -> None:
        if not self._tunnel.request.gone:
            self._tunnel.request.channel.half_close()
        self._tunnel.end_one()

    def lost(self) -> None:
        """It broke off, or closed before it had read what was sent to it."""
        if not self._tunnel.request.gone:
            self._tunnel.request.channel.transport.abortConnection()
