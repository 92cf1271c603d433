"""
Noticing that a peer has gone while we do not read from it.

Twisted's reactor has no interest in a paused transport, so a hang-up would
show only when reading goes on. One epoll of our own, itself polled by the
reactor, has no interest but hang-ups (epoll(7): an epoll may watch another).
"""

from __future__ import annotations

import select
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

Callback = Callable[[bool], None]


@implementer(IReadDescriptor)
@define(eq=False)
class Hangups:
    """
    Calls back for each watched socket whose peer hangs up: with C{False} once
    it has said that it will send no more, with C{True} once the connection is
    gone (reset, or shut down both ways).
    """

    _reactor: IReactorFDSet
    _epoll: select.epoll | None = field(default=None, init=False)
    _watched: dict[int, Callback] = field(factory=dict, init=False)

    def start(self) -> None:
        self._epoll = select.epoll()
        self._reactor.addReader(self)

    def stop(self) -> None:
        if self._epoll is not None:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None
            self._watched.clear()

    def watch(self, descriptor: int, callback: Callback) -> None:
        """Watch a socket, until it is closed or L{unwatch}ed."""
        if self._epoll is not None:
            self._watched[descriptor] = callback
            interest = select.EPOLLRDHUP | select.EPOLLONESHOT
            try:
                self._epoll.register(descriptor, interest)
            except FileExistsError:
                self._epoll.modify(descriptor, interest)

    def unwatch(self, descriptor: int) -> None:
        """Forget it. One that was closed the kernel has forgotten itself."""
        if self._watched.pop(descriptor, None) is not None and self._epoll is not None:
            try:
                self._epoll.unregister(descriptor)
            except OSError:
                pass

    @property
    def watched(self) -> int:
        """How many sockets are watched."""
        return len(self._watched)

    # IReadDescriptor

    def fileno(self) -> int:
        return self._epoll.fileno() if self._epoll is not None else -1

    def doRead(self) -> None:
        assert self._epoll is not None
        for descriptor, events in self._epoll.poll(0):
            callback = self._watched.get(descriptor)
            gone = bool(events & (select.EPOLLHUP | select.EPOLLERR))
            if callback is not None and not gone:
                # What comes after "no more from me" is a reset; that is always told.
                self._epoll.modify(descriptor, select.EPOLLONESHOT)
            if callback is not None:
                callback(gone)

    def connectionLost(self, reason: Failure) -> None:
        """Nothing to lose."""

    def logPrefix(self) -> str:
        return "hangups"
