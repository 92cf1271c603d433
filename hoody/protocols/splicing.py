"""
The kernel's mover: between plain HTTP/1.1 connections it has the kernel pass
the bytes of a body, which then never come up into this process.

It stands in for C{doRead} of the sender's transport and C{doWrite} of the
receivers' (L{IReadDescriptor}, L{IWriteDescriptor}), as Twisted itself does to
abort a connection. So everything else remains as it is: who reads and writes
when, who notices what, how it ends. Each read is decided anew: what is plain
bulk the kernel moves, all else goes the ordinary way, by L{Fanout}.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from attrs import define, field
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from zope.interface import implementer

from hoody.interfaces import IMover, IReceiver, ISender
from hoody.pipes.fanout import Fanout
from hoody.pipes.heads import Head
from hoody.pipes.pauses import Pause
from hoody.protocols import sockets
from hoody.protocols.channel import LARGE_CHUNK, nothing_ahead
from hoody.protocols.coalescing import Coalescing
from hoody.protocols.kernelpipes import KernelPipe, KernelPipes
from hoody.protocols.request import Request
from hoody.protocols.spans import Span


@define(eq=False)
class Splicing:
    """
    Makes the mover of each transfer: the kernel's where it can be.

    @ivar threshold: bytes of a body from which on the kernel moves it.
    """

    pipes: KernelPipes
    threshold: int

    def between(
        self, sender: ISender, receivers: list[IReceiver], ended: Callable[[], None]
    ) -> IMover:
        """A L{hoody.pipes.meeting.MoverFactory}."""
        taps = self._taps(sender, receivers) if self._may_splice(sender.head) else []
        span = taps[0].wire.channel.span(min(self.threshold, LARGE_CHUNK)) if taps else None
        if span is None:
            return Fanout.between(sender, receivers, ended)
        source, sinks = taps[0], dict(zip(receivers, map(Sink, taps[1:]), strict=True))
        portable = Fanout.between(sender, receivers, lambda: mover.end(ended))
        coalescing = Coalescing(source.socket, source.wire.channel.callLater)
        mover = SplicingMover(portable, source, span, sinks, self, coalescing)
        return mover

    def _may_splice(self, head: Head | None) -> bool:
        """Whether nobody has to see the bytes, and they may be enough."""
        if head is None or head.digest:
            return False
        return head.length is None or head.length > self.threshold

    def _taps(self, sender: ISender, receivers: list[IReceiver]) -> list[Tap]:
        """One for each party, or none at all."""
        taps = [Tap.of(party.wire) for party in (sender, *receivers)]
        found = [tap for tap in taps if tap is not None]
        return found if len(found) == len(taps) else []


@define(eq=False)
class Tap:
    """
    Where the very bytes of a body pass: a request's transport, whose C{doRead}
    or C{doWrite} something may stand in for.
    """

    wire: Request
    descriptor: FileDescriptor
    socket: socket.socket
    _name: str = field(default="", init=False)
    _instead: Callable[[], object] | None = field(default=None, init=False)

    @classmethod
    def of(cls, wire: Request | None) -> Tap | None:
        """C{None} where other bytes pass, or there is more to do than to pass them."""
        if wire is None or wire.clientproto != b"HTTP/1.1":
            return None
        descriptor = wire.channel.plain
        sock = sockets.socket_of(descriptor)
        return cls(wire, descriptor, sock) if descriptor and sock else None

    def divert(self, name: str, instead: Callable[[], object]) -> None:
        """Have the reactor call C{instead} of the method C{name}."""
        self._name, self._instead = name, instead
        setattr(self.descriptor, name, instead)

    def ordinary(self) -> object:
        """Do what would be done without us."""
        return getattr(type(self.descriptor), self._name)(self.descriptor)

    def restore(self) -> None:
        """Let be."""
        # Twisted may have put something else there: it does, to abort a connection.
        if self._instead and self.descriptor.__dict__.get(self._name) is self._instead:
            delattr(self.descriptor, self._name)


@define(eq=False)
class Sink:
    """One receiver's end of the kernel's way."""

    _tap: Tap
    _drained: Callable[[], None] | None = field(default=None, init=False)
    _pipe: KernelPipe | None = field(default=None, init=False)
    _stir: Callable[[], None] = field(init=False)

    def begin(self, drained: Callable[[], None]) -> None:
        """
        @param drained: called whenever what was offered and could not be sent
            at once has been sent.
        """
        self._drained = drained
        self._stir = self._tap.wire.channel.stir
        self._tap.divert("doWrite", self._do_write)

    @property
    def owes(self) -> bool:
        """Whether some of what was offered has not been sent yet."""
        return self._pipe is not None

    @property
    def level(self) -> int:
        """Bytes, framing included, that wait for the socket to have room."""
        return self._pipe.level if self._pipe is not None else 0

    def offer(self, pipe: KernelPipe, body: int) -> None:
        """
        Send what is in C{pipe}, behind all that was written: now as much as
        the socket takes, the rest when it has room.

        @param body: how many bytes in it are of the body itself.
        """
        self._stir()
        self._tap.wire.sentLength += body
        self._pipe = pipe
        if sockets.has_unsent(self._tap.descriptor) or self._send() or self._pipe:
            self._tap.descriptor.startWriting()  # an error will show again there

    def write(self, data: bytes) -> None:
        """Write framing, where what the ordinary way writes next will be behind it."""
        self._tap.descriptor.write(data)

    def end(self) -> None:
        """Let be; what could not be sent yet is left to the transport."""
        self._tap.restore()
        if self._pipe is not None:
            rest, self._pipe = self._pipe.read(), None
            self._tap.descriptor.write(rest)

    def _do_write(self) -> object:
        descriptor = self._tap.descriptor
        if self._pipe is None or sockets.has_unsent(descriptor):
            error = self._tap.ordinary()
            if error is not None or self._pipe is None or sockets.has_unsent(descriptor):
                return error
            descriptor.startWriting()
        error = self._send()
        if error is None and self._pipe is None:
            descriptor.stopWriting()
            assert self._drained is not None
            self._drained()
        return error

    def _send(self) -> object:
        """@return: what C{doWrite} is to return."""
        assert self._pipe is not None
        try:
            self._pipe.drain(self._tap.descriptor.fileno())
        except BlockingIOError:
            pass
        except OSError:
            return CONNECTION_LOST
        if not self._pipe.level:
            self._pipe = None
        return None


@implementer(IMover)
@define(eq=False)
class SplicingMover:
    """
    One batch at a time: what one read brings is copied to all receivers, and
    the next is read when all have sent theirs.
    """

    digest = None

    _portable: Fanout
    _source: Tap
    _span: Span
    _sinks: dict[IReceiver, Sink]
    _splicing: Splicing
    _coalescing: Coalescing
    spliced: int = field(default=0, init=False)
    _dropped_at: dict[IReceiver, int] = field(factory=dict, init=False)
    _pipes: list[KernelPipe] = field(factory=list, init=False)
    _full: Pause | None = field(default=None, init=False)
    _again: IDelayedCall | None = field(default=None, init=False)

    def start(self) -> None:
        self._source.divert("doRead", self._do_read)
        channel = self._source.wire.channel
        channel.read_ahead, channel.reads_on = self._span.tail, self._go_on
        for sink in self._sinks.values():
            sink.begin(self._read_on)
        self._portable.start()

    def drop(self, receiver: IReceiver) -> None:
        sink = self._sinks.pop(receiver, None)
        if sink is not None:
            self._dropped_at[receiver] = self.spliced
            sink.end()
            if not self._sinks:
                self._release()
            self._read_on()
        self._portable.drop(receiver)

    def delivered(self, receiver: IReceiver) -> int:
        spliced = self._dropped_at.get(receiver, self.spliced)
        return self._portable.delivered(receiver) + spliced

    def waiting(self, receiver: IReceiver) -> int:
        sink = self._sinks.get(receiver)
        return sink.level if sink is not None else 0

    def end(self, ended: Callable[[], None]) -> None:
        """The body has ended, which the ordinary way has seen."""
        for sink in self._sinks.values():
            sink.end()
        if self._pipes and self._span.staged:
            self._source.wire.channel.came_behind(self._span.take_all())
        self._release()
        ended()

    def _release(self) -> None:
        self._source.restore()
        channel = self._source.wire.channel
        channel.read_ahead, channel.reads_on = bytes, nothing_ahead
        self._coalescing.end()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        staging, self._span.staging = self._span.staging, None
        self._splicing.pipes.give_back([*self._pipes, *([staging] if staging else [])])
        self._pipes = []

    def _do_read(self) -> object:
        if self._full is not None:
            return None  # the reactor knew of the data before it knew of the pause
        if self._source.wire.received >= self._splicing.threshold:
            try:
                if self._has_pipes() and self._span.ready():
                    self._splice()
                    return None
            except BlockingIOError:
                return None
            except EOFError:
                return CONNECTION_DONE
            except OSError:
                return CONNECTION_LOST
            self._hand_back()
            if self._span.staged:
                self._source.wire.channel.rawDataReceived(self._span.take())
                self._go_on()
                return None
        return self._source.ordinary()

    def _has_pipes(self) -> bool:
        if not self._pipes:
            self._pipes = self._splicing.pipes.take(len(self._sinks) + self._span.stages)
            if self._pipes and self._span.stages:
                self._span.staging = self._pipes.pop()
        return bool(self._pipes)

    def _hand_back(self) -> None:
        """What comes next is no bulk: let it go the ordinary way."""
        framing = self._span.leave()
        if framing:
            for sink in self._sinks.values():
                sink.write(framing)

    def _splice(self) -> None:
        """Move one batch."""
        self._source.wire.channel.stir()
        sinks = list(self._sinks.values())
        pipe, *copies = self._pipes[: len(sinks)]
        body = self._span.fill(pipe, self._source.descriptor.fileno())
        self._coalescing.passed(body)
        for copy in copies:
            pipe.copy_to(copy)
        self.spliced += body
        self._source.wire.received += body
        for sink, filled in zip(sinks, [*copies, pipe], strict=True):
            sink.offer(filled, body)
        if any(sink.owes for sink in sinks):
            self._full = self._portable.hold()
        self._go_on()

    def _read_on(self) -> None:
        """Somebody has sent the batch, or left; if it was the last, come to the next."""
        if self._full is not None and not any(sink.owes for sink in self._sinks.values()):
            full, self._full = self._full, None
            full.release()
            self._go_on()

    def _go_on(self) -> None:
        """What has been read from the socket, but had no room, the reactor does not tell of."""
        if not (self._pipes and self._span.staged) or self._again is not None:
            return  # the last of these bytes may have been the end of it all
        channel = self._source.wire.channel
        if channel.may_read:
            self._again = channel.callLater(0, self._read_again)

    def _read_again(self) -> None:
        self._again = None
        if self._source.wire.channel.may_read:
            self._do_read()
