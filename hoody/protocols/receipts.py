"""Waiting until a peer's kernel has all that was written."""

from __future__ import annotations

import socket
from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, ITransport

from hoody.errors import PeerError
from hoody.protocols import sockets

_PAUSES = (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)


@define(eq=False)
class Receipt:
    """
    Waits for an acknowledgement, by looking: the kernel tells nobody.

    It keeps a second descriptor of the socket, since a client may well close,
    or reset, right after its last byte, and Twisted closes before it tells us.
    It counts bytes, since TLS has a last word that such a client never reads.

    @ivar settled: whether the transport has told the kernel, or itself, of all that
        was written; TLS gathers small writes until the reactor's next turn.
    @ivar deferred: fires with C{None}, or fails with L{PeerError}.
    """

    _transport: ITransport
    _call_later: Callable[..., IDelayedCall]
    settled: bool
    deferred: Deferred[None] = field(factory=Deferred, init=False)
    _looks: int = field(default=0, init=False)
    _call: IDelayedCall | None = field(default=None, init=False)
    _socket: socket.socket | None = field(default=None, init=False)
    _target: int | None = field(default=None, init=False)

    def wait(self) -> None:
        """Look now, and again: soon at first, then ever more seldom."""
        if self.look():
            return
        self.settled = True
        if self._socket is None:
            sock = sockets.socket_of(self._transport)
            try:
                self._socket = sock.dup() if sock is not None else None
            except OSError:
                self._socket = None  # no descriptor left
        pause = _PAUSES[min(self._looks, len(_PAUSES) - 1)]
        self._looks += 1
        self._call = self._call_later(pause, self.wait)

    def look(self) -> bool:
        """Whether all has been acknowledged; tells, if so."""
        if self.settled and not self.deferred.called and self._arrived():
            self._end(None)
        return self.deferred.called

    def connection_lost(self) -> None:
        """Too late for more; see whether all had arrived."""
        unix = self._socket is not None and self._socket.family == socket.AF_UNIX
        # A unix socket forgets what its peer left unread; it was looked at before.
        if unix or not self.look():
            self._end(PeerError("it left before the last byte had arrived"))

    def _arrived(self) -> bool:
        sock = self._socket or sockets.socket_of(self._transport)
        if sock is None:
            return False
        if self._target is None or sock.family == socket.AF_UNIX:
            if not sockets.unacknowledged(sock) + sockets.unsent(self._transport):
                return True
            self._target = sockets.written(sock) + sockets.unsent(self._transport)
        return sock.family != socket.AF_UNIX and sockets.acknowledged(sock) >= self._target

    def _end(self, error: PeerError | None) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if error is None:
            self.deferred.callback(None)
        else:
            self.deferred.errback(error)
