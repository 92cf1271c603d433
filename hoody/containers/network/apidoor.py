"""
A container's own door to the API: a port of its loopback, where the server listens.

It grants nothing by itself: who comes in needs a token, as anywhere. What is inside may be
hostile, so each door has a few connections at a time, and so many requests a second.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocol
from twisted.internet.protocol import Factory
from zope.interface import implementer

from hoody.containers.container import DOOR_PORT
from hoody.containers.network.allowance import Allowance
from hoody.errors import Unavailable
from hoody.interfaces import IDoor
from hoody.protocols import sockets

MakeSocket = Callable[[int, int], socket.socket]
"""Given family and type, a socket inside the container's network namespace."""

ADDRESS = "127.0.0.1"
URL = f"http://{ADDRESS}:{DOOR_PORT}"
"""As C{HOODY_URL} has it."""

_CONNECTIONS = 32
_RATE, _BURST = 200.0, 400.0
_WAITING = 64


@implementer(IDoor)
@define(eq=False)
class ApiDoor:
    """
    One container's. Open it with L{open}, and close it when the container ends.

    @ivar moved: called whenever something is about to go in or out: who sleeps has to wake.
    """

    container_id: str
    _reactor: Any
    _serve: Callable[[IDoor], IProtocol]
    moved: Callable[[], None]
    _allowance: Allowance = field(factory=lambda: Allowance(_RATE, _BURST), init=False)
    _port: IListeningPort = field(init=False)
    _inside: set[Any] = field(factory=set, init=False)
    _gone: int = field(default=0, init=False)
    _later: Any = field(default=None, init=False)
    _closed: bool = field(default=False, init=False)

    @classmethod
    def open(
        cls,
        container_id: str,
        reactor: Any,
        make_socket: MakeSocket,
        serve: Callable[[IDoor], IProtocol],
        moved: Callable[[], None],
    ) -> ApiDoor:
        """
        @param serve: makes what speaks HTTP on one connection.
        @raise Unavailable: if it cannot be; then nothing is open.
        """
        door = cls(container_id, reactor, serve, moved)
        with make_socket(socket.AF_INET, socket.SOCK_STREAM) as made:
            try:
                # Connections of a server before us linger.
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind((ADDRESS, DOOR_PORT))
                made.listen(_WAITING)
                # Twisted has a copy.
                door._port = reactor.adoptStreamPort(
                    made.fileno(), socket.AF_INET, _Entrance(door)
                )
            except OSError as error:
                raise Unavailable(
                    f"The server cannot listen inside the container: {ADDRESS} port {DOOR_PORT}"
                    f" there: {error.strerror}."
                ) from error
        return door

    async def close(self) -> None:
        """Let nobody else in, and who is inside go. It may be called again."""
        if self._closed:
            return
        self._closed = True
        if self._later is not None:
            self._later.cancel()
            self._later = None
        for protocol in tuple(self._inside):
            protocol.transport.abortConnection()
        await maybeDeferred(self._port.stopListening)

    def enter(self) -> IProtocol | None:
        """What serves one more connection; C{None} if it is one too many just now."""
        if self._closed or len(self._inside) >= _CONNECTIONS or not self.may_ask():
            self._regulate()
            return None
        protocol = self._serve(self)
        self._inside.add(protocol)
        self._regulate()
        return protocol

    @property
    def traffic(self) -> int:
        """Bytes that have gone through, this way or that."""
        return self._gone + sum(_traffic(each) for each in self._inside)

    def _regulate(self) -> None:
        """Accept connections where we may; others wait in the container's own kernel queue."""
        if self._closed:
            return
        wait = self._allowance.wait(self._reactor.seconds())
        port: Any = self._port
        if not wait and len(self._inside) < _CONNECTIONS:
            port.startReading()
            return
        port.stopReading()
        if wait and self._later is None:
            self._later = self._reactor.callLater(wait, self._come_back)

    def _come_back(self) -> None:
        self._later = None
        self._regulate()

    # IDoor

    def may_ask(self) -> bool:
        if self._allowance.wait(self._reactor.seconds()):
            return False
        self._allowance.take()
        return True

    def left(self, protocol: IProtocol) -> None:
        self._inside.discard(protocol)
        self._gone += 1  # what has gone through it is not known any more; but something has
        self._regulate()


def _traffic(protocol: Any) -> int:
    sock = sockets.socket_of(protocol.transport)
    return 0 if sock is None else sockets.traffic(sock)


@define(eq=False)
class _Entrance(Factory):
    _door: ApiDoor

    noisy = False

    def buildProtocol(self, addr: object) -> Any:
        return self._door.enter()
