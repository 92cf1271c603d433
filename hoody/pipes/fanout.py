"""
The portable mover: bytes go from one producer to n consumers, and whoever
reads slowest sets the pace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from zope.interface import implementer

from hoody.interfaces import IMover, IReceiver, ISender
from hoody.pipes.pauses import Pause, Pauses


@implementer(IMover, IConsumer)
@define(eq=False)
class Fanout:
    """
    Every chunk goes to all receivers before the next is asked for. A receiver
    that has enough is one reason to pause the sender; no receiver has more
    than one.
    """

    _sender: ISender
    _branches: dict[IReceiver, _Branch]
    _ended: Callable[[], None]
    _hash: hashlib._Hash | None = None
    spliced: int = field(default=0, init=False)
    _delivered: dict[IReceiver, int] = field(factory=dict, init=False)
    _pauses: Pauses | None = field(default=None, init=False)

    @classmethod
    def between(
        cls, sender: ISender, receivers: list[IReceiver], ended: Callable[[], None]
    ) -> Fanout:
        """
        A mover for one transfer; it hashes what passes if the sender's head
        says so, and calls C{ended} when the body is through.
        """
        digest = hashlib.sha256() if sender.head and sender.head.digest else None
        fanout = cls(sender, {}, ended, digest)
        fanout._branches = {receiver: _Branch(fanout, receiver) for receiver in receivers}
        return fanout

    @property
    def digest(self) -> bytes | None:
        return self._hash.digest() if self._hash else None

    def start(self) -> None:
        self._pauses = Pauses(self._sender)
        for receiver, branch in tuple(self._branches.items()):
            receiver.registerProducer(branch, True)
        self._sender.produceInto(self)

    def drop(self, receiver: IReceiver) -> None:
        branch = self._branches.pop(receiver, None)
        if branch is not None:
            self._delivered[receiver] = branch.delivered
            receiver.unregisterProducer()
            branch.resumeProducing()

    def delivered(self, receiver: IReceiver) -> int:
        branch = self._branches.get(receiver)
        return self._delivered.get(receiver, 0) if branch is None else branch.delivered

    def waiting(self, receiver: IReceiver) -> int:
        return 0

    # IConsumer, for the sender

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """The sender introduces itself; it is known already."""

    def unregisterProducer(self) -> None:
        """The body has ended: no receiver can pause anybody any more."""
        for receiver in tuple(self._branches):
            self.drop(receiver)
        self._ended()

    def write(self, data: bytes) -> None:
        if self._hash:
            self._hash.update(data)
        for branch in tuple(self._branches.values()):
            branch.write(data)

    def hold(self) -> Pause:
        """One more reason to pause the sender."""
        assert self._pauses is not None, "a receiver paused before the start"
        return self._pauses.hold()


@implementer(IPushProducer)
@define(eq=False)
class _Branch:
    """What one receiver takes for its producer."""

    _fanout: Fanout
    _receiver: IReceiver
    delivered: int = field(default=0, init=False)
    _full: Pause | None = field(default=None, init=False)

    def write(self, data: bytes) -> None:
        self.delivered += len(data)
        self._receiver.write(data)

    def pauseProducing(self) -> None:
        if self._full is None:
            self._full = self._fanout.hold()

    def resumeProducing(self) -> None:
        if self._full is not None:
            full, self._full = self._full, None
            full.release()

    def stopProducing(self) -> None:
        """The receiver's transport is gone; its own connectionLost says so too."""
