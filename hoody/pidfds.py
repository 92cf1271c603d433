"""Processes that end, or are ended, as their descriptors tell (pidfd_open(2))."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

REAP_SECONDS = 0.01
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


def end_tree(reactor: Any, pid: int) -> None:
    """
    Kill a child of ours, and all that descends of it. What that orphans comes to us, if we are
    its subreaper, and is heard of here; of the child itself its watcher hears.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)  # it begins no more, and its children stay its own
        for child in children(pid):
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(child)
                end_tree(reactor, child)
                reap(reactor, descriptor)
        os.kill(pid, signal.SIGKILL)


def children(pid: int) -> set[int]:
    """Of all its threads. Their numbers are nobody else's while it does not ask for them."""
    found: set[int] = set()
    for each in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(int(word) for word in each.read_text().split())
    return found


def kill(reactor: Any, pid: int) -> None:
    """One that nobody watches; should it come to us, it is reaped."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        send(descriptor, signal.SIGKILL)
        reap(reactor, descriptor)


def reap(reactor: Any, descriptor: int, pause: float = REAP_SECONDS) -> None:
    """
    Hear of its end, that nobody else waits for, whenever that is: it may become a child of ours
    only when its parent has ended.
    """
    try:
        over = os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        over = not _is_there(descriptor)
    if over:
        os.close(descriptor)
    else:
        reactor.callLater(pause, reap, reactor, descriptor, min(2 * pause, 1.0))


def _is_there(descriptor: int) -> bool:
    try:
        signal.pidfd_send_signal(descriptor, 0)
    except ProcessLookupError:
        return False
    return True


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
