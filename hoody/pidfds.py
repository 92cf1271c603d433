"""Processes that end, as their descriptors tell (pidfd_open(2))."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

_GET_INFO = 0xC040FF0B
_INFO_EXIT = 1 << 3


@implementer(IReadDescriptor)
@define(eq=False)
class Ended:
    """Tells when a process ends, whether it is a child of ours or not."""

    _reactor: Any
    _told: Callable[[], None]
    _descriptor: int

    @classmethod
    def watch(cls, reactor: Any, pid: int, told: Callable[[], None]) -> Ended:
        """@raise ProcessLookupError: if it has ended already."""
        watch = cls(reactor, told, os.pidfd_open(pid))
        reactor.addReader(watch)
        return watch

    def cancel(self) -> None:
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> None:
        self.cancel()
        self._told()

    def connectionLost(self, reason: object) -> None:
        self.cancel()

    def logPrefix(self) -> str:
        return "pidfd"


def send(descriptor: int, number: int) -> None:
    """A signal; one that has ended gets none."""
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass


def exit_status(descriptor: int, pid: int) -> int | None:
    """
    How a process ended that has: its status, or minus the signal; of one that is no child
    of ours only where the kernel tells, else C{None}.
    """
    try:
        found, word = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
    else:
        return os.waitstatus_to_exitcode(word) if found else None
    asked = bytearray(struct.pack("Q56x", _INFO_EXIT))
    try:
        fcntl.ioctl(descriptor, _GET_INFO, asked)
    except OSError:
        return None
    if struct.unpack_from("Q", asked)[0] & _INFO_EXIT:
        return os.waitstatus_to_exitcode(struct.unpack_from("i", asked, 60)[0])
    return _of_who_is_not_heard_of(pid)


def _of_who_is_not_heard_of(pid: int) -> int | None:
    """Of a zombie: its parent has not asked yet, and may never (proc(5), stat, 52)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            words = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return os.waitstatus_to_exitcode(int(words[-1])) if words[0] == b"Z" else None
