"""
Where names are asked for inside a container: C{127.0.0.1:53}, answered by the server.

What is inside may be hostile. It is read no faster than we want to answer; what comes above
that stays in its own kernel's queue, and costs us nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, IReadDescriptor
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from zope.interface import implementer

from hoody.containers.network.allowance import Allowance
from hoody.containers.network.questions import NotAQuestion, Question
from hoody.containers.network.resolvers import Resolvers, framed, unframed
from hoody.errors import Unavailable

MakeSocket = Callable[[int, int], socket.socket]
"""Given family and type, a socket inside the container's network namespace."""

ADDRESS = "127.0.0.1"
PORT = 53
_OPEN = 64
_STREAMS = 16
_RATE, _BURST = 100.0, 200.0
_STREAM_SECONDS = 30
_LARGEST_QUESTION = 4096
_AT_A_TURN = 16
_WAITING_BYTES = 32768  # some eighty questions, as the kernel counts them

_log = Logger(namespace="hoody.dns")


@define(eq=False)
class DnsDoor:
    """One container's. Open it with L{open}, and close it when the container ends."""

    _reactor: Any
    _resolvers: Resolvers
    _allowance: Allowance
    _datagrams: Datagrams = field(init=False)
    _streams: Any = field(init=False)
    _connected: set[Stream] = field(factory=set, init=False)
    _asked: set[Deferred[None]] = field(factory=set, init=False)
    _later: Any = field(default=None, init=False)
    _closed: bool = field(default=False, init=False)

    @classmethod
    async def open(
        cls,
        reactor: Any,
        make_socket: MakeSocket,
        resolvers: Resolvers,
        *,
        rate: float = _RATE,
        burst: float = _BURST,
    ) -> DnsDoor:
        """
        @param resolvers: one for all doors.
        @param rate: how many questions a second are read.
        @raise Unavailable: if it cannot be; then nothing is open.
        """
        door = cls(reactor, resolvers, Allowance(rate, burst))
        made: list[socket.socket] = []
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                made.append(make_socket(socket.AF_INET, kind))
                made[-1].setblocking(False)
                if kind == socket.SOCK_DGRAM:  # what waits there is answered late
                    made[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WAITING_BYTES)
                else:  # those of a server before us linger
                    made[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made[-1].bind((ADDRESS, PORT))
            made[1].listen(_STREAMS)
            door._take(*made)
        except OSError as error:
            for one in made:
                one.close()
            raise Unavailable(
                f"The server cannot answer for names inside the container: {ADDRESS} port"
                f" {PORT} there: {error.strerror}."
            ) from error
        return door

    def _take(self, datagrams: socket.socket, streams: socket.socket) -> None:
        self._streams = self._reactor.adoptStreamPort(
            streams.fileno(), socket.AF_INET, _Streams(self)
        )
        streams.close()  # Twisted has a copy
        self._datagrams = Datagrams(datagrams, self._datagram, self._may_go_on)
        self._reactor.addReader(self._datagrams)

    async def close(self) -> None:
        """Questions that are open are dropped. It may be called again."""
        if self._closed:
            return
        self._closed = True
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._reactor.removeReader(self._datagrams)
        self._datagrams.close()
        for stream in tuple(self._connected):
            stream.abort()
        for asked in tuple(self._asked):
            asked.cancel()
        await self._streams.stopListening()

    def _may_go_on(self) -> bool:
        return len(self._asked) < _OPEN and not self._allowance.wait(self._reactor.seconds())

    def _regulate(self) -> None:
        """Read where we may, and come back when we may."""
        if self._closed or self._datagrams.fileno() < 0:  # the reactor may have closed it: it ends
            return
        wait = self._allowance.wait(self._reactor.seconds())
        may = not wait
        if may and len(self._asked) < _OPEN:
            self._reactor.addReader(self._datagrams)
        else:
            self._reactor.removeReader(self._datagrams)
        if may and len(self._connected) < _STREAMS:
            self._streams.startReading()
        else:
            self._streams.stopReading()
        if wait and self._later is None:
            self._later = self._reactor.callLater(wait, self._come_back)

    def _come_back(self) -> None:
        self._later = None
        self._regulate()
        for stream in tuple(self._connected):
            stream.go_on()

    def _datagram(self, message: bytes, answer: Callable[[bytes], None]) -> None:
        self.ask(message, answer, tcp=False)

    def ask(
        self, message: bytes, answer: Callable[[bytes], None], *, tcp: bool
    ) -> Deferred[None] | None:
        """
        Have it answered, sooner or later.

        @return: what ends after the answer; C{None} if there will be none.
        """
        self._allowance.take()
        try:
            question = Question.read(message)
        except NotAQuestion:
            self._regulate()
            return None
        asked = Deferred.fromCoroutine(self._answer(question, answer, tcp))
        self._asked.add(asked)
        self._regulate()
        return asked.addBoth(self._answered, asked)

    async def _answer(
        self, question: Question, answer: Callable[[bytes], None], tcp: bool
    ) -> None:
        if question.refusal is not None:
            answer(question.failure(question.refusal))
            return
        answer(await self._resolvers.ask(question, tcp=tcp))

    def _answered(self, result: Any, asked: Deferred[None]) -> None:
        self._asked.discard(asked)
        if result is not None and not result.check(CancelledError):
            _log.failure("a question about a name was not answered", result)
        self._regulate()
        if self._connected and self._later is None and not self._closed:
            # In another turn: answers that are there at once would nest ever deeper.
            self._later = self._reactor.callLater(0, self._come_back)

    def may_ask(self) -> bool:
        """Whether a stream may go on with its next question now; else it is told when."""
        if self._closed:
            return False
        may = self._may_go_on()
        self._regulate()
        return may

    def enter(self) -> Stream | None:
        """A new one, if there is room for it."""
        self._allowance.take()
        if self._closed or len(self._connected) >= _STREAMS:
            self._regulate()
            return None
        stream = Stream(self, self._reactor)
        self._connected.add(stream)
        self._regulate()
        return stream

    def left(self, stream: Stream) -> None:
        self._connected.discard(stream)
        self._regulate()


@implementer(IReadDescriptor)
@define(eq=False)
class Datagrams:
    """
    Reads a few datagrams at each of the reactor's turns. Twisted's own counts bytes: a
    flood of empty ones would hold it for good.
    """

    _socket: socket.socket
    _received: Callable[[bytes, Callable[[bytes], None]], None]
    _may_go_on: Callable[[], bool]

    def fileno(self) -> int:
        return self._socket.fileno()

    def doRead(self) -> None:
        for _ in range(_AT_A_TURN):
            if self._socket.fileno() < 0 or not self._may_go_on():
                return
            try:
                message, sender = self._socket.recvfrom(_LARGEST_QUESTION)
            except OSError:
                return
            self._received(message, lambda answer, to=sender: self._send(answer, to))  # type: ignore[misc]

    def _send(self, answer: bytes, to: Any) -> None:
        with suppress(OSError):  # who asked has gone, or does not read
            self._socket.sendto(answer, to)

    def close(self) -> None:
        self._socket.close()

    def connectionLost(self, reason: object) -> None:
        self.close()

    def logPrefix(self) -> str:
        return "dns"


@implementer(IPushProducer)
@define(eq=False)
class Stream(Protocol):
    """
    One connection: its questions are answered one after the other, while its answers are
    read; for half a minute at most.
    """

    _door: DnsDoor
    _reactor: Any
    transport: Any = field(default=None, init=False)
    _read: bytearray = field(factory=bytearray, init=False)
    _asked: Deferred[None] | None = field(default=None, init=False)
    _full: bool = field(default=False, init=False)
    _end: Any = field(default=None, init=False)

    def connectionMade(self) -> None:
        self._end = self._reactor.callLater(_STREAM_SECONDS, self.abort)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        self._read += data
        if len(self._read) > 2 * _LARGEST_QUESTION:
            self.abort()  # nobody has so much to ask before there is an answer
        self.go_on()

    def go_on(self) -> None:
        """Ask the next, if there is one, and it may be."""
        if self._asked is not None or self._full or len(self._read) < 2:
            return
        if int.from_bytes(self._read[:2], "big") > _LARGEST_QUESTION:
            self.abort()
            return
        if len(self._read) < 2 + int.from_bytes(self._read[:2], "big"):
            return
        if not self._door.may_ask():
            return
        message = unframed(self._read)
        assert message is not None
        asked = self._door.ask(message, self._answer, tcp=True)
        if asked is None:
            self.abort()
            return
        self._asked = asked
        asked.addBoth(self._answered)

    def _answer(self, message: bytes) -> None:
        self.transport.write(framed(message))

    def _answered(self, result: object) -> None:
        self._asked = None

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        self.go_on()

    def stopProducing(self) -> None:
        self._full = True

    def abort(self) -> None:
        self._read.clear()
        self.transport.abortConnection()

    def connectionLost(self, reason: object = None) -> None:
        self._full = True
        if self._end is not None and self._end.active():
            self._end.cancel()
        if self._asked is not None:
            self._asked.cancel()
        self._door.left(self)


@define(eq=False)
class _Streams(Factory):
    _door: DnsDoor

    noisy = False

    def buildProtocol(self, addr: object) -> Protocol | None:
        return self._door.enter()
