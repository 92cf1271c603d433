"""
Connecting into a container's network.

Private names of Twisted used here, as of 26.10: C{Connector._makeTransport},
C{Client.createInternetSocket} (both of L{twisted.internet.tcp}) and
C{twisted.internet.endpoints._WrappingFactory}.
L{tests.contract.test_twisted_internals} fails when they change.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.internet import tcp
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import _WrappingFactory
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from hoody.later import sleep

MakeSocket = Callable[[int, int], socket.socket]
"""Given a family and a kind, makes one that does not block."""


class _Client(tcp.Client):
    def createInternetSocket(self) -> socket.socket:
        make: MakeSocket = self.connector.make_socket
        return make(self.addressFamily, self.socketType)


class _Connector(tcp.Connector):
    make_socket: MakeSocket

    def _makeTransport(self) -> _Client:
        return _Client(self.host, self.port, self.bindAddress, self, self.reactor)


@implementer(IStreamClientEndpoint)
@define(eq=False)
class InsideEndpoint:
    """
    A port of a container's loopback.

    @ivar patience: until when, by the reactor's clock, one that is refused tries again:
        who has just been started is not listening yet.
    """

    _reactor: Any
    _make_socket: MakeSocket
    _port: int
    patience: float = 0.0
    _seconds: float = 10.0

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return ensureDeferred(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        pause = 0.004
        while True:
            try:
                return await self._connect_once(factory)
            except ConnectionRefusedError:
                if self._reactor.seconds() >= self.patience:
                    raise
            await sleep(self._reactor, pause)
            pause = min(2 * pause, 0.1)

    def _connect_once(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        factory = _WrappingFactory(protocolFactory)
        connector = _Connector(
            "127.0.0.1", self._port, factory, self._seconds, None, self._reactor
        )
        connector.make_socket = self._make_socket
        connector.connect()
        return factory._onConnection
