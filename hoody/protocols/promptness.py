"""
Writing at once.

Twisted keeps what is written for the reactor's next turn, which joins what a
page is made of into one packet. For a stream that is a copy of every byte, two
changes of what the reactor watches and a turn of it for every read; and the
last byte in one packet with the first has the peer's kernel think that more
will come, and put off its acknowledgement by 40 ms.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from attrs import frozen
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import ITransport

from hoody.protocols import sockets


@frozen(eq=False)
class Promptness:
    """Gives the kernel now what it takes; errors are left to the transport to find."""

    _descriptor: FileDescriptor
    _socket: socket.socket

    @classmethod
    def of(cls, transport: ITransport) -> Promptness | None:
        """C{None} where other bytes go over the wire than are written: under TLS."""
        descriptor = sockets.plain_descriptor(transport)
        sock = sockets.socket_of(descriptor)
        return cls(descriptor, sock) if descriptor and sock else None

    def write(self, pieces: Sequence[bytes]) -> Sequence[bytes]:
        """
        Send as much as may be, unless something else is to be sent before.

        @return: the rest, for the transport.
        """
        if sockets.has_unsent(self._descriptor) or not self._descriptor.connected:
            return pieces
        try:
            sent = self._socket.sendmsg(pieces)
        except OSError:
            return pieces
        for place, piece in enumerate(pieces):
            if sent < len(piece):
                return [piece[sent:], *pieces[place + 1 :]]
            sent -= len(piece)
        return ()

    def flush(self) -> None:
        """Send what the transport has kept."""
        if sockets.has_unsent(self._descriptor) and self._descriptor.connected:
            self._descriptor.doWrite()
