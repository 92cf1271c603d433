"""
What the kernel knows of a TCP connection, and what we ask of it.

Private names of Twisted used here, as of 26.10: C{FileDescriptor.dataBuffer},
C{.offset}, C{._tempDataBuffer}. L{tests.contract.test_twisted_internals} fails
when they change.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
import termios
from collections.abc import Iterator

from attrs import frozen
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import ISSLTransport, ITransport

TCP_RTO_MAX_MS = 44
"""
C{linux/tcp.h}, since Linux 6.15: the longest pause between two probes of a
closed window, in milliseconds. Without it that grows to two minutes.
"""
_MAX_KEEPALIVE = 32767  # seconds; tcp(7), MAX_TCP_KEEPIDLE in the kernel
_TCP_INFO = struct.Struct("8B24I4Q")  # struct tcp_info of linux/tcp.h, up to bytes_received


def socket_of(transport: object) -> socket.socket | None:
    """The socket under C{transport}, or C{None} if it has none, or no longer."""
    handle = getattr(transport, "getHandle", None)
    try:
        found = handle() if handle else None
    except AttributeError:  # Twisted deletes the socket when the connection is lost
        return None
    if found is not None and not isinstance(found, socket.socket):
        # A TLS transport answers with OpenSSL's connection; the socket is further down.
        return socket_of(getattr(transport, "transport", None))
    return found


def expect_dead_peers(sock: socket.socket, seconds: float) -> None:
    """
    Find a peer that vanished within C{seconds} while nothing is to be sent,
    and probe one that does not read at least as often. See L{Pulse} for the
    rest.

    TCP_USER_TIMEOUT would seem to be the means for both. It is not: it also
    ends a connection whose peer lives, but has not read for that long (the
    probes it answers count for nothing), and a psql that builds an index does
    just that.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    quarter = min(max(1, round(seconds / 4)), _MAX_KEEPALIVE)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, quarter)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, quarter)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, min(quarter, 120) * 1000)
    except OSError:
        pass  # an older kernel: such a peer is then found within two minutes


@frozen
class Pulse:
    """
    What tells a dead peer from a quiet one.

    @ivar probes: how many probes of a closed window have had no answer.
    @ivar unacknowledged: how many segments are in flight.
    @ivar silent: seconds since the peer's last acknowledgement.
    """

    probes: int
    unacknowledged: int
    silent: float

    def is_lost(self, seconds: float) -> bool:
        """
        Whether the peer owes us an answer for longer than C{seconds}: to data,
        or to more than one probe, as one may get lost. A living peer answers
        within a round trip: ask twice, with more than that between.
        """
        return bool(self.probes > 1 or self.unacknowledged) and self.silent >= seconds


def pulse(sock: socket.socket) -> Pulse | None:
    """Look, without waiting. C{None} where there is nothing to be known."""
    info = _tcp_info(sock)
    if info is None:
        return None
    return Pulse(probes=info[3], unacknowledged=info[12], silent=info[20] / 1000)


def acknowledged(sock: socket.socket) -> int:
    """
    Bytes that the peer's kernel has acknowledged since the connection began.
    It is told after the connection's end, too, as long as a descriptor is open.
    """
    info = _tcp_info(sock)
    return 0 if info is None else info[34]


def traffic(sock: socket.socket) -> int:
    """Bytes that have gone either way since the connection began, by whoever's doing."""
    info = _tcp_info(sock)
    return 0 if info is None else info[34] + info[35]


def written(sock: socket.socket) -> int:
    """Bytes that the kernel was given since the connection began, acknowledged or not."""
    while True:
        # Acknowledgements come in while we look: only two equal answers frame a third.
        before = acknowledged(sock)
        outstanding = unacknowledged(sock)
        if acknowledged(sock) == before:
            return before + outstanding


def _tcp_info(sock: socket.socket) -> tuple[int, ...] | None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:
        return None
    return _TCP_INFO.unpack(raw) if len(raw) == _TCP_INFO.size else None


def unread(sock: socket.socket) -> int:
    """Bytes that have arrived and were not read (SIOCINQ, tcp(7))."""
    return _query(sock, termios.FIONREAD)


def unacknowledged(sock: socket.socket) -> int:
    """
    Bytes that the peer's kernel has not acknowledged (SIOCOUTQ, tcp(7)); of a
    unix socket, those that the peer has not read.
    """
    return _query(sock, termios.TIOCOUTQ)


def unsent(transport: ITransport | None) -> int:
    """Bytes written to C{transport} that the kernel has not been given yet."""
    total = 0
    for layer in _layers(transport):
        if isinstance(layer, FileDescriptor):
            total += len(layer.dataBuffer) - layer.offset
            total += sum(map(len, layer._tempDataBuffer))
    return total


def plain_descriptor(transport: ITransport | None) -> FileDescriptor | None:
    """
    What reads and writes the socket under C{transport}, if the bytes there are
    the very bytes that are given to C{transport}: not so under TLS.
    """
    found = None
    for layer in _layers(transport):
        if ISSLTransport.providedBy(layer):
            return None
        if isinstance(layer, FileDescriptor):
            found = layer
    return found


def has_unsent(descriptor: FileDescriptor) -> bool:
    """Whether anything that was written has not been given to the kernel."""
    return bool(descriptor.dataBuffer or descriptor._tempDataBuffer)


def _layers(transport: ITransport | None) -> Iterator[ITransport]:
    """C{transport}, what it wraps, and so on down to the socket's."""
    while transport is not None:
        yield transport
        transport = getattr(transport, "transport", None) or getattr(
            transport, "wrappedTransport", None
        )


def peek(sock: socket.socket, count: int) -> bytes:
    """The next C{count} bytes, left where they are; fewer where there are fewer."""
    try:
        return sock.recv(count, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return b""


def _query(sock: socket.socket, request: int) -> int:
    answer = array.array("i", [0])
    try:
        fcntl.ioctl(sock.fileno(), request, answer)
    except OSError:
        return 0
    return answer[0]
