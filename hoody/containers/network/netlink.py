"""
The kernel's network interfaces, addresses and routes: rtnetlink(7), spoken directly.

A container's start waits for this: a handful of messages takes about a millisecond,
where one ip(8) takes several, and its errors are numbers instead of text. All here
blocks for as long as the kernel takes: call it in a thread.

The numbers are of C{linux/netlink.h}, C{linux/rtnetlink.h}, C{linux/if_link.h} and
C{linux/neighbour.h}.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

from attrs import define, frozen

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix, flags, scope, index
_ROUTE = struct.Struct("=8BI")  # struct rtmsg
_NEIGHBOUR = struct.Struct("=B3xiHBB")  # struct ndmsg: family, index, state, flags, type

_ERROR = 2
_NEW_LINK, _DELETE_LINK, _GET_LINK = 16, 17, 18
_NEW_ADDRESS, _NEW_ROUTE, _NEW_NEIGHBOUR = 20, 24, 28
_REQUEST, _ACKNOWLEDGE = 0x1, 0x4
_REPLACE, _EXCLUSIVE, _CREATE = 0x100, 0x200, 0x400
_CAPPED_ANSWERS, _ANSWERS_IN_WORDS = 10, 11  # options NETLINK_CAP_ACK, NETLINK_EXT_ACK
_SOL_NETLINK = 270
_HAS_WORDS = 0x200  # NLM_F_ACK_TLVS

_UP, _NO_ARP = 0x1, 0x80
_SCOPE_LINK = 253
_MAIN_TABLE, _STATIC, _UNICAST, _UNREACHABLE = 254, 4, 1, 7
_PERMANENT = 0x80
_READY = b"\x06"  # IF_OPER_UP, RFC 2863

_ANSWER_BYTES = 1 << 16
_SECONDS = 10
LOOPBACK = 1
"""The index of C{lo}, in every namespace."""


class NetlinkError(OSError):
    """What the kernel refused, and why, in its own words where it has some."""


@frozen
class Request:
    """
    Something to be done.

    @ivar kind: C{RTM_…}.
    """

    kind: int
    flags: int
    body: bytes


@frozen
class Link:
    """
    @ivar index: its number in its namespace.
    @ivar peer: for a veth, that of its other end, in the other's namespace.
    @ivar is_ready: whether it passes packets on. It does not as soon as it is up: the kernel
        comes to that a moment after the other end is up, too, and drops what comes before.
    """

    index: int
    peer: int
    is_ready: bool


def _attribute(kind: int, value: bytes) -> bytes:
    """struct rtattr: length and kind, padded to four bytes."""
    size = len(value) + 4
    return struct.pack("=HH", size, kind) + value + bytes(-size % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _name(value: str) -> bytes:
    return _attribute(3, value.encode() + b"\0")  # IFLA_IFNAME


def veth(name: str, mac: bytes, peer_name: str, peer_mac: bytes, namespace: int) -> Request:
    """
    Make a pair: C{name} here, C{peer_name} in C{namespace} (a descriptor); both are down.
    It is one change: where it fails there is neither.
    """
    peer = (
        _LINK.pack(0, 0, 0, 0, 0)
        + _name(peer_name)
        + _attribute(1, peer_mac)  # IFLA_ADDRESS
        + _number(28, namespace)  # IFLA_NET_NS_FD
    )
    info = _attribute(1, b"veth") + _attribute(2, _attribute(1, peer))  # kind; VETH_INFO_PEER
    body = _LINK.pack(0, 0, 0, 0, 0) + _name(name) + _attribute(1, mac) + _attribute(18, info)
    return Request(_NEW_LINK, _CREATE | _EXCLUSIVE, body)


def up(index: int, *, arp: bool = True) -> Request:
    """Switch it on. Without C{arp} it answers nobody who asks who has an address."""
    flags = _UP if arp else _UP | _NO_ARP
    return Request(_NEW_LINK, 0, _LINK.pack(0, 0, index, flags, _UP | _NO_ARP))


def delete(name: str) -> Request:
    """Remove an interface; of a pair, both ends."""
    return Request(_DELETE_LINK, 0, _LINK.pack(0, 0, 0, 0, 0) + _name(name))


def address(index: int, own: IPv4Address) -> Request:
    """Give it one address, with no net around it."""
    head = _ADDRESS.pack(socket.AF_INET, 32, 0, 0, index)
    body = head + _attribute(2, own.packed) + _attribute(1, own.packed)
    return Request(_NEW_ADDRESS, _CREATE | _EXCLUSIVE, body)


def neighbour(index: int, who: IPv4Address, mac: bytes) -> Request:
    """Say once and for all where C{who} is, so that nobody has to ask or be believed."""
    head = _NEIGHBOUR.pack(socket.AF_INET, index, _PERMANENT, 0, 0)
    body = head + _attribute(1, who.packed) + _attribute(2, mac)
    return Request(_NEW_NEIGHBOUR, _CREATE | _REPLACE, body)


def route(
    network: IPv4Network,
    index: int,
    via: IPv4Address | None = None,
    source: IPv4Address | None = None,
) -> Request:
    """
    @param via: the next hop; without one, all of C{network} is at the other end.
    @param source: the address to speak with.
    """
    body = _number(4, index)  # RTA_OIF
    if via is not None:
        body += _attribute(5, via.packed)
    if source is not None:
        body += _attribute(7, source.packed)
    return _route(network, _UNICAST, _SCOPE_LINK if via is None else 0, body)


def unreachable(network: IPv4Network) -> Request:
    """Whoever tries it is told at once. It may be there already: it hangs on no interface."""
    return _route(network, _UNREACHABLE, 0, b"", _REPLACE)


def _route(
    network: IPv4Network, kind: int, scope: int, more: bytes, flags: int = _EXCLUSIVE
) -> Request:
    size = network.prefixlen
    head = _ROUTE.pack(socket.AF_INET, size, 0, 0, _MAIN_TABLE, _STATIC, scope, kind, 0)
    to = _attribute(1, network.network_address.packed) if size else b""
    return Request(_NEW_ROUTE, _CREATE | flags, head + to + more)


@define(eq=False)
class Netlink:
    """One namespace's rtnetlink: that in which the socket was made."""

    _socket: socket.socket

    @classmethod
    def of_this_thread(cls) -> Netlink:
        """For the namespace that the calling thread is in."""
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        made.settimeout(_SECONDS)
        for option in (_CAPPED_ANSWERS, _ANSWERS_IN_WORDS):
            made.setsockopt(_SOL_NETLINK, option, 1)
        return cls(made)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def do(self, *requests: Request) -> None:
        """
        Do all of them, in this order and in one call.

        @raise NetlinkError: the first refusal; what comes behind it was tried, too.
        """
        for error in self.attempt(requests):
            if error is not None:
                raise error

    def attempt(self, requests: Sequence[Request]) -> list[NetlinkError | None]:
        """Do them; what the kernel said to each."""
        packed = [_pack(request, number, _ACKNOWLEDGE) for number, request in enumerate(requests)]
        self._socket.send(b"".join(packed))
        errors: list[NetlinkError | None] = []
        while len(errors) < len(requests):
            for kind, flags, body in messages(self._socket.recv(_ANSWER_BYTES)):
                if kind == _ERROR:
                    errors.append(_error(flags, body))
        return errors

    def link(self, name: str) -> Link:
        """
        Look for the interface of that name.

        @raise NetlinkError: if there is none.
        """
        body = _LINK.pack(0, 0, 0, 0, 0) + _name(name)
        self._socket.send(_pack(Request(_GET_LINK, 0, body), 0, 0))
        for kind, flags, body in messages(self._socket.recv(_ANSWER_BYTES)):
            if kind == _NEW_LINK:
                peer = find(5, body[_LINK.size :])  # IFLA_LINK
                index = _LINK.unpack_from(body)[2]
                state = find(16, body[_LINK.size :])  # IFLA_OPERSTATE
                return Link(index, int.from_bytes(peer or b"", sys.byteorder), state == _READY)
            error = _error(flags, body)
            if error is not None:
                raise error
        raise NetlinkError(0, "the kernel said nothing about " + name)


def _pack(request: Request, number: int, flags: int) -> bytes:
    size = _HEADER.size + len(request.body)
    flags |= request.flags | _REQUEST
    return _HEADER.pack(size, request.kind, flags, number, 0) + request.body + bytes(-size % 4)


def messages(data: bytes) -> list[tuple[int, int, bytes]]:
    """Kind, flags and body of each that the kernel has sent at once."""
    found = []
    while len(data) >= _HEADER.size:
        size, kind, flags, _, _ = _HEADER.unpack_from(data)
        if size < _HEADER.size:
            break
        found.append((kind, flags, data[_HEADER.size : size]))
        data = data[size + (-size % 4) :]
    return found


def find(wanted: int, data: bytes) -> bytes | None:
    """The value of the first attribute of that kind."""
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        if size < 4:
            break
        if kind & 0x3FFF == wanted:  # NLA_TYPE_MASK
            return data[4:size]
        data = data[size + (-size % 4) :]
    return None


def _error(flags: int, body: bytes) -> NetlinkError | None:
    """struct nlmsgerr: a negative errno, the header that it is about, and maybe words."""
    number = -int(struct.unpack_from("=i", body)[0])
    if not number:
        return None
    words = find(1, body[4 + _HEADER.size :]) if flags & _HAS_WORDS else None
    said = (words or b"").rstrip(b"\0").decode("utf-8", "replace")
    return NetlinkError(number, said or os.strerror(number))
