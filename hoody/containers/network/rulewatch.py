"""
Being told that somebody else has touched our rules: C{nft flush ruleset}, as the restart of
many a machine's own firewall begins with, takes them away with all others.

The kernel tells of each transaction in nf_tables, one message a change and one behind them
all (C{linux/netfilter/nf_tables.h}). It also says which process made it, but by the number
that this has in the first pid namespace, and we may be in another: so ours bear a mark.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from hoody.containers.network import netlink

_NETLINK_NETFILTER = 12
_ADD_MEMBERSHIP = 1
_SOL_NETLINK = 270
_GROUP = 7  # NFNLGRP_NFTABLES
_NF_TABLES = 10 << 8  # NFNL_SUBSYS_NFTABLES
_TABLE_NEW, _TABLE_GONE, _CHAIN_GONE, _RULE_NEW, _RULE_GONE = 0, 2, 5, 6, 8
_ELEMENTS_GONE, _DONE = 14, 15
_TOUCHES = (_TABLE_GONE, _CHAIN_GONE, _RULE_NEW, _RULE_GONE, _ELEMENTS_GONE)
_HEAD_BYTES = 4  # struct nfgenmsg
_NAME_OF_TABLE = 1  # in all of these messages
_COMMENT = 6  # NFTA_TABLE_USERDATA
_READ_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 20


@implementer(IReadDescriptor)
@define(eq=False)
class RuleWatch:
    """
    @ivar mark: in the table's comment, whenever we have made it.
    @ivar touched: called when another has changed C{table}, or may have.
    """

    _reactor: Any
    table: str
    mark: str
    touched: Callable[[], None]
    _socket: socket.socket = field(init=False)
    _seen: bool = field(default=False, init=False)
    _ours: bool = field(default=False, init=False)

    def start(self) -> None:
        """@raise OSError: if the kernel has no nf_tables."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._socket.bind((0, 0))  # one without a number of its own is told nothing
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        self._reactor.addReader(self)

    def stop(self) -> None:
        self._reactor.removeReader(self)
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def doRead(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: there was more than we could hear
            self.touched()
            return
        for kind, _, body in netlink.messages(data):
            self._hear(kind - _NF_TABLES, body[_HEAD_BYTES:])

    def _hear(self, kind: int, attributes: bytes) -> None:
        if kind == _TABLE_NEW:
            comment = netlink.find(_COMMENT, attributes) or b""
            self._ours = self._ours or self.mark.encode() in comment
        elif kind in _TOUCHES:
            name = netlink.find(_NAME_OF_TABLE, attributes) or b""
            self._seen = self._seen or name.rstrip(b"\0").decode("utf-8", "replace") == self.table
        elif kind == _DONE:
            touched = self._seen and not self._ours
            self._seen = self._ours = False
            if touched:
                self.touched()

    def connectionLost(self, reason: object) -> None:
        self._socket.close()

    def logPrefix(self) -> str:
        return "nftables"
