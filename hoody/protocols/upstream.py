"""
The client half of the gateway: a connection to a container, and one request on it at a time.

What is written goes out at once. What comes is read as it is wanted: whoever is given the
answer pauses this as any producer.

Names of twisted.internet used here that are not promised, as of 26.10: that the reactor
calls what stands in for C{doWrite} of a transport, and C{FileDescriptor.bufferSize}.
L{tests.contract.test_twisted_internals} fails when they change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast
from typing import Protocol as Shape

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IPushProducer,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from hoody.protocols import sockets
from hoody.protocols.answers import (
    HEAD_END,
    HEAD_LIMIT,
    AnswerHead,
    Body,
    NoAnswer,
    body_of,
    read_head,
)
from hoody.protocols.promptness import Promptness

if TYPE_CHECKING:
    from hoody.protocols.tunnel import FromContainer

READ_LIMIT = 256 * 1024
"""Bytes that are read at once of an answer that comes quickly."""


class Asker(Shape):
    """Who is told what is answered. After C{complete}, C{switched} or C{failed} nothing is."""

    def interim(self, head: AnswerHead) -> None:
        """A head before the real one, as 100 and 103."""

    def begun(self, head: AnswerHead, body: Body) -> None:
        """The answer's head, and how its body will end."""

    def came(self, content: bytes) -> None:
        """Some of its body, and never none."""

    def complete(self) -> None:
        """It has ended as its framing says."""

    def switched(self, head: AnswerHead) -> None:
        """101: from now on all that comes goes to L{Upstream.tunnel}."""

    def failed(self, why: str) -> None:
        """It will not come to its end: the connection is lost, or what came was no answer."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class Upstream(Protocol):
    """
    One connection.

    @ivar used: whether an answer has come on it before this request.
    @ivar silent: whether nothing has come of this answer yet.
    @ivar on_loss: called when it is lost while nobody has asked it for anything.
    @ivar plain: what reads and writes its socket.
    @ivar tunnel: is told what the container does, after an upgrade.
    """

    transport: Connection
    plain: FileDescriptor | None = None
    used = False
    silent = True
    on_loss: Callable[[], None] | None = None
    tunnel: FromContainer | None = None
    _asker: Asker | None = None
    _body: Body | None = None
    _buffer = b""
    _to_head = False
    _may_switch = False
    _asked_all = False
    _persists = False
    _promptness: Promptness | None = None

    # Asking

    def ask(self, asker: Asker, head: bytes, *, method: bytes, may_switch: bool) -> None:
        """
        Send a request's head.

        @param head: with the empty line behind it.
        @param may_switch: whether it asks for another protocol.
        """
        self._asker, self._body, self._buffer = asker, None, b""
        self._to_head, self._may_switch = method == b"HEAD", may_switch
        self._asked_all, self._persists, self.silent = False, False, True
        self.write(head)

    def asked_all(self) -> None:
        """The request, with its body, has been written."""
        self._asked_all = True
        self.transport.unregisterProducer()

    def write(self, *pieces: bytes) -> None:
        rest = self._promptness.write(pieces) if self._promptness is not None else pieces
        if rest:
            self.transport.writeSequence(list(rest))

    def paced_by(self, producer: IPushProducer) -> None:
        """Have C{producer}, of what is written, pause while the container takes no more."""
        self.transport.registerProducer(producer, True)

    def half_close(self) -> None:
        """Say that no more will come."""
        self.transport.unregisterProducer()
        self.transport.loseWriteConnection()

    def close(self) -> None:
        """Close: with good manners, unless it has not taken all that it was asked."""
        if self._asked_all:
            self.transport.unregisterProducer()
            self.transport.loseConnection()
        else:
            self.abort()

    def abort(self) -> None:
        """Let go of it now, whatever is on its way."""
        self._asker = self.tunnel = None
        self.transport.abortConnection()

    @property
    def is_good(self) -> bool:
        """Whether, after an answer, it can be asked again."""
        return self._persists and self._asked_all and not self._buffer

    # IPushProducer, of the answer

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Whoever is lost says so itself."""

    # IProtocol

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.plain = sockets.plain_descriptor(self.transport)
        if self.plain is not None:
            self._promptness = Promptness(self.plain)
            setattr(self.plain, "doWrite", self._do_write)  # noqa: B010  a method, to mypy

    def _do_write(self) -> object:
        """
        As the transport does. But who refuses a body may close on it: what was said before
        is still to be read, so that the connection is lost only when that has been.
        """
        plain = self.plain
        assert plain is not None
        error = type(plain).doWrite(plain)
        if error is None or self._asker is None:
            return error
        plain.stopWriting()
        return None

    def dataReceived(self, data: bytes) -> None:
        if self.tunnel is not None:
            self.tunnel.came(data)
        elif self._asker is None:
            self.abort()  # it speaks unasked
        else:
            self.silent = False
            self._read_more_at_once(len(data))
            try:
                if self._body is None:
                    self._take_head(data)
                else:
                    self._take_body(data)
            except NoAnswer as fault:
                self._fail(f"what it answers is not HTTP: {fault}")
                self.abort()

    def _read_more_at_once(self, count: int) -> None:
        if self.plain is not None and count == self.plain.bufferSize:
            self.plain.bufferSize = min(2 * count, READ_LIMIT)

    def _take_head(self, data: bytes) -> None:
        searched = max(0, len(self._buffer) - 3)
        self._buffer += data
        while self._asker is not None and self._body is None:
            end = HEAD_END.search(self._buffer, searched)
            if (end.start() if end else len(self._buffer)) > HEAD_LIMIT:
                raise NoAnswer("its head is over 64 KiB")
            if end is None:
                return
            head, self._buffer = read_head(self._buffer[: end.start()]), self._buffer[end.end() :]
            searched = 0
            self._understand(head)

    def _understand(self, head: AnswerHead) -> None:
        asker = self._asker
        assert asker is not None
        if head.is_interim:
            asker.interim(head)
        elif head.status == 101:
            if not (self._may_switch and head.values(b"upgrade")):
                raise NoAnswer("it switches to a protocol that nobody asked for")
            self._switch(asker, head)
        else:
            body = self._body = body_of(head, to_head=self._to_head)
            self._persists = head.persists and not body.ends_with_connection
            asker.begun(head, body)
            data, self._buffer = self._buffer, b""
            self._take_body(data)

    def _switch(self, asker: Asker, head: AnswerHead) -> None:
        self._asker = None
        asker.switched(head)
        data, self._buffer = self._buffer, b""
        if data and self.tunnel is not None:
            self.tunnel.came(data)

    def _take_body(self, data: bytes) -> None:
        """Also called with nothing, for a body that has ended before it began."""
        asker, body = self._asker, self._body
        if asker is None or body is None:
            return  # the asker has left meanwhile
        content = body.feed(data) if data else b""
        if content:
            asker.came(content)
        if body.ended:
            self.end_body()

    def end_body(self) -> None:
        """The body has come to its end, however its bytes went."""
        asker, self._asker = self._asker, None
        if asker is not None and self._body is not None:
            self._buffer = self._body.rest
            self.used = True
            if self.plain is not None:
                self.plain.bufferSize = FileDescriptor.bufferSize
            self.resumeProducing()  # whoever took the answer may have been slow
            asker.complete()

    def _fail(self, why: str) -> None:
        asker, self._asker = self._asker, None
        if asker is not None:
            asker.failed(why)

    # IHalfCloseableProtocol

    def readConnectionLost(self) -> None:
        if self.tunnel is not None:
            self.tunnel.ended()
            return
        if self._asker is not None and self._body is not None and self._body.ends_with_connection:
            self.end_body()
        self._fail("it closed the connection")
        self.close()

    def writeConnectionLost(self) -> None:
        """We closed our half ourselves."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        tunnel, self.tunnel = self.tunnel, None
        if tunnel is not None:
            tunnel.lost()
        self._fail("it closed the connection" if reason.check(ConnectionDone) else "it broke off")
        if self.on_loss is not None:
            self.on_loss()


class _Upstreams(Factory):
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Upstream:
        return Upstream()


def connect(endpoint: IStreamClientEndpoint) -> Deferred[Upstream]:
    """
    A new connection.

    @return: fails as the endpoint does; may be cancelled.
    """
    return cast("Deferred[Upstream]", endpoint.connect(_Upstreams()))
