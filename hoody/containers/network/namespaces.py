"""
A container's network, as the server enters it: for the one call that makes a socket, which
then belongs there (network_namespaces(7)).
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Callable
from typing import TypeVar

from attrs import define

from hoody.containers.network.within import within

T = TypeVar("T")

_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1


class NotAContainer(Exception):
    """The network that was found is the host's own."""


@define(eq=False)
class NetworkNamespace:
    """
    @ivar inode: its identity, as long as it lives.
    """

    _descriptor: int
    inode: int

    @classmethod
    def of(cls, pid: int, inode: int | None = None) -> NetworkNamespace:
        """
        Of a process.

        @param inode: which it must be: a pid may be another's by now.
        @raise NotAContainer: if it is not that, or the host's, which nobody must come to by
            a container's name.
        """
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        found = os.fstat(descriptor).st_ino
        host = os.stat("/proc/thread-self/ns/net").st_ino
        if found == host or (inode is not None and found != inode):
            os.close(descriptor)
            raise NotAContainer(f"process {pid} has another network than it should")
        return cls(descriptor, found)

    @property
    def descriptor(self) -> int:
        return self._descriptor

    def inside(self, work: Callable[[], T]) -> T:
        """Do this in it. It must not wait: the whole reactor is there for as long."""
        return within(self._descriptor, work)

    def socket(self, family: int, kind: int) -> socket.socket:
        """One that does not block."""
        made = self.inside(lambda: socket.socket(family, kind | socket.SOCK_NONBLOCK))
        made.setblocking(False)
        return made

    def raise_loopback(self) -> None:
        """Have 127.0.0.1 answer there."""
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            asked = struct.pack("16sH22x", b"lo", 0)
            _, flags = struct.unpack("16sH22x", fcntl.ioctl(sock, _GET_FLAGS, asked))
            if not flags & _UP:
                fcntl.ioctl(sock, _SET_FLAGS, struct.pack("16sH22x", b"lo", flags | _UP))

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
