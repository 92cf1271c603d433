"""
An HTTP/1 server connection whose request bodies can be held back, streamed
and refused.

Private names of twisted.web used here, as of 26.10: of L{HTTPChannel}
C{_command}, C{_path}, C{_version} (in L{hoody.protocols.request}),
C{_networkProducer}, C{_waitingForTransport}, C{_handlingRequest},
C{_dataBuffer}, C{_optimisticEagerReadSize}, C{_transferDecoder},
C{_savedTimeOut}, C{_respondToBadRequestAndDisconnect}, C{_send100Continue};
of C{LineReceiver} C{_buffer}; of C{_ChunkedTransferDecoder} C{state} and
C{_buffer}, of C{_IdentityTransferDecoder} C{contentLength}.
L{tests.contract.test_twisted_internals} fails when they change.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from zope.interface import implementer

from hoody.errors import (
    CallerError,
    HeadTooLarge,
    HoodyError,
    NotSupported,
    OldVersion,
    PeerError,
    TooLong,
    WaitedTooLong,
)
from hoody.protocols import sockets
from hoody.protocols.receipts import Receipt

if TYPE_CHECKING:
    from hoody.protocols.request import Request
    from hoody.protocols.site import Site

HEAD_LIMIT = 64 * 1024
"""Bytes of one request head, as the contract has it."""
LINGER_SECONDS = 2.0
LINGER_BYTES = 1024 * 1024
"""
How long, and how much of an unwanted body is read before we close. To close
with bytes unread makes the kernel send a reset, which can destroy our answer
before the client has read it (RFC 9112 section 9.6).
"""
# The end of a chunked body: a last chunk, trailers, an empty line (RFC 9112 section 7.1).
_CHUNKED_END = re.compile(rb"(?:^|\r\n)0+(?:[ \t;][^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n\Z")
_OTHER_VERSION = re.compile(rb" HTTP/(?!1\.[01]$)\d(\.\d)?$")
_TRAILER_END = re.compile(rb"(?:^|\r\n)\r\n\Z")


@implementer(IPushProducer)
@define(eq=False)
class Reading:
    """The body that comes in, as a producer: paused is not read."""

    _channel: Channel

    def pauseProducing(self) -> None:
        self._channel.hold()

    def resumeProducing(self) -> None:
        self._channel.release()

    def stopProducing(self) -> None:
        self._channel.hold()


@implementer(IHalfCloseableProtocol)
class Channel(HTTPChannel):
    """
    One connection.

    @ivar site: what made it.
    """

    MAX_LENGTH = HEAD_LIMIT
    totalHeadersSize = HEAD_LIMIT

    transport: ITCPTransport
    site: Site
    requests: list[Request]

    _held = False
    _body_pending = False
    _lingering = False
    _drained = 0
    _read_closed = False
    _hangup: bool | None = None
    _fault: HoodyError | None = None
    _head_call: IDelayedCall | None = None
    _linger_call: IDelayedCall | None = None
    _descriptor: int | None = None
    _receipt: Receipt | None = None

    # Connection

    def connectionMade(self) -> None:
        self.site.connections.add(self)
        sock = sockets.socket_of(self.transport)
        if sock is not None:
            sockets.expect_dead_peers(sock, self.site.peer_timeout)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.connections.discard(self)
        self._forget_party()
        for call in (self._head_call, self._linger_call):
            if call is not None and call.active():
                call.cancel()
        if self._receipt is not None:
            self._receipt.connection_lost()
        super().connectionLost(reason)

    def timeoutConnection(self) -> None:
        """Nothing came for a while between two requests: close without a word."""
        self.transport.loseConnection()

    def close_within(self, seconds: float) -> None:
        """Close when what was written has gone out, but wait no longer than that."""
        self._lingering = True
        self._held = False
        self.setTimeout(None)
        self._linger_call = self.callLater(seconds, self.transport.abortConnection)
        super().loseConnection()

    def loseConnection(self) -> None:
        if self._body_pending:
            self.linger()
        elif not self._lingering:
            super().loseConnection()

    def linger(self) -> None:
        """
        Close once what was written has gone out and the peer has closed too;
        read on until then, within limits, and throw away what comes.
        """
        if self._lingering:
            return
        self._lingering = True
        self._held = False
        self.setTimeout(None)
        self._linger_call = self.callLater(LINGER_SECONDS, self._end_linger)
        if self._read_closed:
            self.transport.loseConnection()
            return
        if not ISSLTransport.providedBy(self.transport):
            half_close = getattr(self.transport, "loseWriteConnection", None)
            if half_close is not None:
                half_close()
        self._networkProducer.resumeProducing()

    def _end_linger(self) -> None:
        if sockets.unsent(self.transport):
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()

    def _discard(self, data: bytes) -> None:
        self._drained += len(data)
        if self._drained > LINGER_BYTES and self._linger_call is not None:
            self._end_linger()

    # Parsing

    def dataReceived(self, data: bytes) -> None:
        if self._lingering:
            self._discard(data)
            return
        if self._in_head and self._head_call is None and data:
            self._head_call = self.callLater(self.site.head_timeout, self._head_is_late)
        super().dataReceived(data)
        if self._in_head and b"\n" in self._buffer:
            self._refuse(
                CallerError(
                    "A line of the request's head ends with a bare line feed;"
                    " end lines with CR LF (RFC 9112 section 2.2)."
                )
            )

    @property
    def _in_head(self) -> bool:
        return bool(self.line_mode) and not self._lingering and self.persistent != 0

    def _head_is_late(self) -> None:
        self._refuse(
            WaitedTooLong(
                f"The request's head was not complete within {self.site.head_timeout:g} s."
            )
        )

    def lineReceived(self, line: bytes) -> None:
        if self._lingering:
            return
        if not self.requests and _OTHER_VERSION.search(line):
            self._refuse(OldVersion("Only HTTP/1.1 and HTTP/1.0 are spoken here."))
        else:
            super().lineReceived(line)

    def rawDataReceived(self, data: bytes) -> None:
        if self._lingering:
            self._discard(data)
            return
        super().rawDataReceived(data)
        decoder = self._transferDecoder
        in_line = getattr(decoder, "state", None) in ("CHUNK_LENGTH", "TRAILER")
        if decoder is not None and in_line and b"\n" in decoder._buffer:
            # A line end that the decoder does not take for one; it would wait for more.
            self._respondToBadRequestAndDisconnect()

    def lineLengthExceeded(self, line: bytes) -> None:
        if self.requests:
            self._refuse(_HEAD_TOO_LARGE)
        else:
            self._refuse(TooLong("The request line is over 64 KiB; ask for less in one URL."))

    def headerReceived(self, line: bytes) -> bool:
        self._fault = self._find_fault(line)
        if self._fault is not None:
            self._respondToBadRequestAndDisconnect()
            return False
        return bool(super().headerReceived(line))

    def _find_fault(self, line: bytes) -> HoodyError | None:
        """
        What is wrong with a header that says where the body ends: two such
        say two things, and a proxy before us may believe the other
        (RFC 9112 sections 6.1 and 6.3).
        """
        if len(line.translate(None, b"\x00\r\n")) != len(line):
            return _MALFORMED  # RFC 9110 section 5.5; Twisted looks for it since 26.10
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t").lower()
        if name == b"content-length":
            if not (value.isdigit() and len(value) < 20):
                return CallerError("Content-Length must be one decimal number of bytes.")
        elif name == b"transfer-encoding":
            if value not in (b"chunked", b"identity"):
                return NotSupported("Transfer-Encoding: only chunked is supported; send that.")
            if self._version == b"HTTP/1.0":
                return CallerError("Transfer-Encoding is not for HTTP/1.0; send HTTP/1.1.")
        else:
            return None
        if self._transferDecoder is not None and value != b"identity":
            return CallerError(
                "The length of the body is given twice; send one Content-Length, or"
                " Transfer-Encoding: chunked, and not both."
            )
        return None

    def _respondToBadRequestAndDisconnect(self) -> None:
        fault, self._fault = self._fault, None
        if fault is None and self._receivedHeaderSize > self.totalHeadersSize:
            fault = _HEAD_TOO_LARGE
        if fault is None and self._receivedHeaderCount > self.maxHeaders:
            fault = HeadTooLarge(f"The request has over {self.maxHeaders} headers; send fewer.")
        self._refuse(fault or _MALFORMED)

    def _refuse(self, error: HoodyError) -> None:
        """Answer what is not a request, or no longer one, and close."""
        if self._lingering:
            return
        request = self.requests[-1] if self.requests else None
        if request is not None and request.intake is not None and self._body_pending:
            self.persistent = False
            request.lose(CallerError("The body is not chunked as RFC 9112 section 7.1 has it."))
        else:
            self._stop_head_clock()
            self.site.refuse(self, error)
        self.linger()

    def _stop_head_clock(self) -> None:
        if self._head_call is not None:
            if self._head_call.active():
                self._head_call.cancel()
            self._head_call = None

    def allHeadersReceived(self) -> None:
        self._stop_head_clock()
        self._body_pending = self.length != 0
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        if self._lingering:
            return
        self._body_pending = False
        self.release()
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        self._forget_party()
        if self._receipt is not None:
            self._receipt = None
        if self.persistent and not self._body_pending and not self._read_closed:
            self._savedTimeOut = self.site.timeOut
        else:
            self.persistent = False
        super().requestDone(request)

    def send_continue(self) -> None:
        """Let a client that asked with C{Expect} begin its body."""
        self._send100Continue()

    # Holding back

    def hold(self) -> None:
        """Read no more of the body. What one read has brought already still comes."""
        if self._body_pending and not self._held:
            self._held = True
            self._networkProducer.pauseProducing()
            if self._hangup is not None:
                self.callLater(0, self._judge_hangup)

    def release(self) -> None:
        """Read on."""
        if self._held:
            self._held = False
            if not self._waitingForTransport:
                self._networkProducer.resumeProducing()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if self._held:
            self._networkProducer.pauseProducing()

    # Peers that leave

    def attend_party(self) -> None:
        """
        From now on until the request is done, notice whatever becomes of the
        peer; it may be silent for as long as it likes.
        """
        self.setTimeout(None)
        sock = sockets.socket_of(self.transport)
        if sock is not None:
            self._descriptor = sock.fileno()
            self.site.hangups.watch(self._descriptor, self._hung_up)
            self.site.parties.add(self)

    def _forget_party(self) -> None:
        self._hangup = None
        if self._descriptor is not None:
            self.site.hangups.unwatch(self._descriptor)
            self.site.parties.discard(self)
            self._descriptor = None

    def drop_dead_peer(self) -> None:
        """The peer has not answered the kernel for too long."""
        self._drop(PeerError(f"it has not answered for {self.site.peer_timeout:g} s"))

    def _hung_up(self, gone: bool) -> None:
        self._hangup = gone
        self._judge_hangup()

    @property
    def _deaf(self) -> bool:
        """Whether we would not notice an end of the stream by reading."""
        return (
            self._held
            or self._waitingForTransport
            or sum(map(len, self._dataBuffer)) > self._optimisticEagerReadSize
        )

    def _judge_hangup(self) -> None:
        """A hang-up was seen; if we do not read, see what it means."""
        if self._hangup is None or not self.requests or not self._deaf or self._lingering:
            return
        intake = self.requests[0].intake
        patient = intake is not None and intake.patient
        if self._body_pending:
            useful = self._body_can_end() and (patient or not self._hangup)
        else:
            useful = patient and not self._hangup
        if not useful:
            self._drop(PeerError("it closed the connection"))

    def _body_can_end(self) -> bool:
        """
        Whether what the kernel still keeps for us brings the body to its end,
        now that no more will come.
        """
        sock = sockets.socket_of(self.transport)
        decoder = self._transferDecoder
        if sock is None or decoder is None:
            return False
        if ISSLTransport.providedBy(self.transport):
            intake = self.requests[0].intake
            return intake is not None and intake.patient
        waiting = sockets.unread(sock)
        missing = getattr(decoder, "contentLength", None)
        if missing is not None:
            return bool(waiting >= missing)
        end = _TRAILER_END if decoder.state == "TRAILER" else _CHUNKED_END
        return end.search(sockets.peek(sock, waiting)[-HEAD_LIMIT:]) is not None

    def _drop(self, error: PeerError) -> None:
        """The peer is of no use any more."""
        if self.requests:
            self.requests[0].lose(error)
        self.transport.abortConnection()

    # IHalfCloseableProtocol

    def readConnectionLost(self) -> None:
        """
        The peer will send no more. It may still be there to read: what ends
        with its last request is answered; what waits has nobody to wait for.
        """
        self._read_closed = True
        if self._receipt is not None:
            self._receipt.look()
        request = self.requests[0] if self.requests else None
        if request is None or self._lingering:
            self.transport.loseConnection()
        elif self._body_pending:
            self.persistent = False
            request.lose(PeerError("its body stopped before its end"))
            self.linger()
        elif not self._handlingRequest:
            self.transport.loseConnection()
        elif request.intake is not None and not request.intake.patient:
            self._drop(PeerError("it closed the connection"))
        else:
            self.persistent = False

    def writeConnectionLost(self) -> None:
        """We closed our half ourselves."""

    # Acknowledgement

    def acknowledged(self) -> Deferred[None]:
        """
        @return: fires when the peer's kernel has acknowledged all that was
            written; fails with L{PeerError} if the connection is lost before.
        """
        self._receipt = Receipt(self.transport, self.callLater)
        self._receipt.wait()
        return self._receipt.deferred


_HEAD_TOO_LARGE = HeadTooLarge("The request's head is over 64 KiB; send fewer or shorter headers.")
_MALFORMED = CallerError("The request is malformed; send HTTP/1.1 as RFC 9112 has it.")
