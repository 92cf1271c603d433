"""Senders and receivers as HTTP requests."""

from __future__ import annotations

import base64

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProducer
from zope.interface import implementer

from hoody.errors import HoodyError, PeerError
from hoody.interfaces import IIntake, IReceiver, ISender
from hoody.pipes.heads import Head
from hoody.pipes.pauses import Pause, Pauses
from hoody.pipes.queries import ReceiveQuery
from hoody.pipes.transfer import Transfer
from hoody.protocols.channel import Reading
from hoody.protocols.request import Request
from hoody.resources import failures

_MAX_LINES = 1000
_MAX_UNSENT = 64 * 1024


@implementer(ISender, IIntake)
class Sender:
    """
    A C{PUT} or C{POST}: its body is the stream, its answer the story of it.

    @ivar transfer: what it is part of.
    """

    transfer: Transfer

    def __init__(self, request: Request, wanted: int, head: Head | None) -> None:
        self.request = request
        self.wire: Request | None = request
        self.wanted = wanted
        self.head = head
        self.address = request.peer_address
        self._said: list[bytes] = []
        self._early: list[bytes] = []
        self._consumer: IConsumer | None = None
        self._pauses = Pauses(Reading(request.channel))
        self._unwanted: Pause | None = None
        self._full: Pause | None = None
        self._body_ended = False
        self._finishing = False

    def hold_back(self) -> None:
        """Leave the body where it is until it is wanted."""
        if self._consumer is None:
            self._unwanted = self._pauses.hold()

    # ISender

    def accept(self) -> None:
        request = self.request
        request.send_continue()
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        request.setHeader(b"x-content-type-options", b"nosniff")
        request.setHeader(b"cache-control", b"no-store")
        # Proxies that gather answers would keep the lines back.
        request.setHeader(b"x-accel-buffering", b"no")

    def tell(self, line: str) -> None:
        self._say(f"[INFO] {line}\n".encode())

    def _say(self, line: bytes) -> None:
        """Lines are dropped, rather than kept without end, for one who does not read them."""
        if not self._answers_at_once:
            if len(self._said) < _MAX_LINES:
                self._said.append(line)
        elif not self.request.gone and self.request.unsent < _MAX_UNSENT:
            self.request.write(line)

    @property
    def _answers_at_once(self) -> bool:
        """HTTP/1.0 has no chunks: its answer has a length, and so waits for its end."""
        return self.request.clientproto != b"HTTP/1.0"

    def produceInto(self, consumer: IConsumer) -> None:
        self._consumer = consumer
        early, self._early = self._early, []
        for data in early:
            consumer.write(data)
        if self._body_ended:
            self._end_production()
        elif self._unwanted is not None:
            self._unwanted.release()

    def finish(self) -> None:
        # A form may go on behind its file; its sender is heard to the end.
        self._finishing = True
        if self.request.body_done:
            self._finish()

    def _finish(self) -> None:
        if self.request.gone:
            return
        if not self._answers_at_once:
            self._answer_whole(b"")
        self.request.finish_promptly()

    def _answer_whole(self, last: bytes) -> None:
        content = b"".join(self._said) + last
        self.request.setHeader(b"content-length", b"%d" % len(content))
        self.request.write(content)

    def fail(self, error: HoodyError) -> None:
        if self.request.gone:
            return
        content_type, line = failures.as_line(error)
        if self.request.startedWriting:
            self.request.write(line)
            self.request.break_off_upload()
        else:
            failures.answer(self.request, error, (content_type, b"".join(self._said) + line))

    # IPushProducer, of the body

    def pauseProducing(self) -> None:
        if self._full is None:
            self._full = self._pauses.hold()

    def resumeProducing(self) -> None:
        if self._full is not None:
            full, self._full = self._full, None
            full.release()

    def stopProducing(self) -> None:
        self.pauseProducing()

    # IIntake

    @property
    def patient(self) -> bool:
        return self._consumer is not None

    def halfClosed(self) -> bool:
        if self._consumer is None and self._answers_at_once:
            # If it has closed, not half closed, this draws a reset.
            self.tell("Still waiting...")
        return self._consumer is not None or self._answers_at_once

    def dataReceived(self, data: bytes) -> None:
        self._produce(data)

    def bodyComplete(self) -> None:
        self._end_body()
        if self._finishing:
            self._finish()

    def connectionLost(self, error: BaseException) -> None:
        self.transfer.leaves(self, error)
        # Who sent what is no body may still be there to read why.
        self.fail(error if isinstance(error, HoodyError) else PeerError(str(error)))

    def _produce(self, data: bytes) -> None:
        if self._consumer is None:
            self._early.append(data)
        else:
            self._consumer.write(data)

    def _end_body(self) -> None:
        if not self._body_ended:
            self._body_ended = True
            if self._consumer is not None:
                self._end_production()

    def _end_production(self) -> None:
        consumer = self._consumer
        assert consumer is not None
        consumer.unregisterProducer()


@implementer(IReceiver, IIntake)
class Receiver:
    """A C{GET}: its answer is the stream."""

    transfer: Transfer

    def __init__(self, request: Request, query: ReceiveQuery) -> None:
        self.request = self.wire = request
        self.query = query
        self.wanted = query.wanted
        self.address = request.peer_address
        self._completing = False

    # IReceiver

    @property
    def outstanding(self) -> int:
        return 0 if self.request.gone else self.request.channel.outstanding

    def begin(self, head: Head) -> None:
        request = self.request
        for name, value in head.headers_for(self.query):
            request.responseHeaders.addRawHeader(name, value)
        chunked = request.clientproto == b"HTTP/1.1" and (head.length is None or head.digest)
        if head.length is not None and not chunked:
            request.setHeader(b"content-length", b"%d" % head.length)
        if head.digest and chunked:
            request.setHeader(b"trailer", b"Repr-Digest")
        if request.clientproto == b"HTTP/1.0":
            request.setHeader(b"connection", b"close")
        request.send_head()

    def complete(self, digest: bytes | None) -> Deferred[None]:
        request = self.request
        self._completing = True
        trailers = b""
        if digest is not None:
            trailers = b"Repr-Digest: sha-256=:%s:\r\n" % base64.b64encode(digest)
        request.end_body(trailers)
        return request.channel.acknowledged().addCallback(lambda _: request.finish())

    def fail(self, error: HoodyError) -> None:
        if self.request.startedWriting:
            self.request.break_off()
        else:
            failures.answer(self.request, error, failures.as_line(error))

    # IConsumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self.request.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        if not self.request.gone:
            self.request.unregisterProducer()

    def write(self, data: bytes) -> None:
        if not self.request.gone:
            self.request.write(data)

    # IIntake

    @property
    def patient(self) -> bool:
        return False

    def halfClosed(self) -> bool:
        return self._completing

    def dataReceived(self, data: bytes) -> None:
        """A GET's body has no meaning (RFC 9110 section 9.3.1)."""

    def bodyComplete(self) -> None:
        """Nor has its end."""

    def connectionLost(self, error: BaseException) -> None:
        self.transfer.leaves(self, error)
