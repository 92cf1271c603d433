"""
Writing at once.

Twisted keeps what is written for the reactor's next turn, which joins what a
page is made of into one packet. For a stream that is a copy of every byte, two
changes of what the reactor watches and a turn of it for every read; and the
last byte in one packet with the first has the peer's kernel think that more
will come, and put off its acknowledgement by 40 ms.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from twisted.internet.abstract import FileDescriptor

from hoody.protocols import sockets


@frozen(eq=False)
class Promptness:
    """Gives the kernel now what it takes; errors are left to the transport to find."""

    _descriptor: FileDescriptor

    def write(self, pieces: Sequence[bytes]) -> Sequence[bytes]:
        """
        Send as much as may be, unless something else is to be sent before.

        @return: the rest, for the transport.
        """
        sock = sockets.socket_of(self._descriptor)
        if sock is None or sockets.has_unsent(self._descriptor):
            return pieces
        try:
            sent = sock.sendmsg(pieces)
        except OSError:
            return pieces
        for place, piece in enumerate(pieces):
            if sent < len(piece):
                return [piece[sent:], *pieces[place + 1 :]]
            sent -= len(piece)
        return ()
