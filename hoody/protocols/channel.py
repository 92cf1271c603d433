"""
An HTTP/1 server connection whose request bodies can be held back, streamed
and refused.

Private names of twisted.web used here, as of 26.10: of L{HTTPChannel}
C{_command}, C{_path}, C{_version} (in L{hoody.protocols.request}),
C{_networkProducer}, C{_waitingForTransport}, C{_handlingRequest},
C{_dataBuffer}, C{_optimisticEagerReadSize}, C{_transferDecoder},
C{_savedTimeOut}, C{_respondToBadRequestAndDisconnect}, C{_send100Continue};
of C{LineReceiver} C{_buffer}; of C{_ChunkedTransferDecoder} C{state},
C{length}, C{_trailerHeaders} and C{_buffer}, of L{_IdentityTransferDecoder} C{contentLength}.
L{tests.contract.test_twisted_internals} fails when they change.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from attrs import define
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, _IdentityTransferDecoder
from twisted.web.http_headers import Headers
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
from hoody.interfaces import IDoor
from hoody.protocols import sockets
from hoody.protocols.promptness import Promptness
from hoody.protocols.receipts import Receipt
from hoody.protocols.spans import ChunkedSpan, CountedSpan, Span

if TYPE_CHECKING:
    from hoody.protocols.request import Request
    from hoody.protocols.site import Site
    from hoody.protocols.tunnel import TunnelEnd

HEAD_LIMIT = 64 * 1024
"""Bytes of one request head, as the contract has it."""
MAX_CHUNK = 2**63 - 1
"""Bytes of one chunk; whoever says more means to overflow somebody's integer."""
READ_LIMIT = 256 * 1024
"""Bytes that are read at once of a stream that comes quickly."""
LARGE_CHUNK = 4 * 1024
"""Bytes of a chunk from which on what it takes is a matter of bytes, not of chunks."""
LINGER_SECONDS = 2.0
LINGER_BYTES = 1024 * 1024
"""
How long we wait before we close on an unwanted body, and how much of it is read.
To close with bytes unread makes the kernel send a reset, which can destroy our
answer before the client has read it (RFC 9112 section 9.6).
"""
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_LAST_CHUNK = re.compile(rb"0+(?:[ \t;].*)?")
_OTHER_VERSION = re.compile(rb" HTTP/(?!1\.[01]$)\d(\.\d)?$")


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


def nothing_ahead() -> None:
    """What L{Channel.reads_on} is where nothing has been read ahead."""


@implementer(IHalfCloseableProtocol)
class Channel(HTTPChannel):
    """
    One connection.

    @ivar site: what made it.
    @ivar plain: what reads and writes the socket, if the very bytes of requests
        and answers pass there: not so under TLS.
    @ivar read_ahead: says what has been read of the body, and not been parsed yet.
    @ivar reads_on: called when the body is wanted again after it was not: of what has
        been read ahead the socket does not tell.
    @ivar door: by which it came, if that is a container's own.
    @ivar is_too_many: whether it came when no connection was left to give.
    """

    MAX_LENGTH = HEAD_LIMIT
    totalHeadersSize = HEAD_LIMIT

    transport: ITCPTransport
    site: Site
    requests: list[Request]

    plain: FileDescriptor | None = None
    read_ahead: Callable[[], bytes] = bytes
    reads_on: Callable[[], None] = staticmethod(nothing_ahead)
    door: IDoor | None = None
    is_too_many = False
    _held = False
    _body_pending = False
    _lingering = False
    _drained = 0
    _read_closed = False
    _hangup: bool | None = None
    _fault: HoodyError | None = None
    _head_call: IDelayedCall | None = None
    _next_call: IDelayedCall | None = None
    _linger_call: IDelayedCall | None = None
    _descriptor: int | None = None
    _receipt: Receipt | None = None
    _promptness: Promptness | None = None
    _tunnel: TunnelEnd | None = None
    _write_closed = False

    # Connection

    def connectionMade(self) -> None:
        self.site.connections.add(self)
        self.plain = sockets.plain_descriptor(self.transport)
        sock = sockets.socket_of(self.transport)
        if sock is not None:
            self.is_too_many = not self.site.has_room(sock.fileno())
            sockets.expect_dead_peers(sock, self.site.peer_timeout)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.connections.discard(self)
        if self.door is not None:
            self.door.left(self)
        self._forget_party()
        if self._descriptor is not None:
            self.site.hangups.unwatch(self._descriptor)
        # What is finished now is finished for nobody, and nothing is parsed after it.
        self._lingering = True
        self.persistent = False
        if self._receipt is not None:
            self._receipt.connection_lost()
        super().connectionLost(reason)
        for call in (self._head_call, self._linger_call, self._next_call):
            if call is not None and call.active():
                call.cancel()

    def timeoutConnection(self) -> None:
        """Nothing came for a while between two requests: close without a word."""
        self.close_within(LINGER_SECONDS)

    def close_within(self, seconds: float) -> None:
        """Close when what was written has gone out, but wait no longer than that."""
        self._lingering = True
        self._held = False
        self.setTimeout(None)
        if self._linger_call is not None and self._linger_call.active():
            self._linger_call.cancel()
        self._linger_call = self.callLater(seconds, self.transport.abortConnection)
        # Through HTTPChannel: a transport that has a producer never closes.
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
        if self._read_closed:
            self.close_within(LINGER_SECONDS)
            return
        self._linger_call = self.callLater(LINGER_SECONDS, self._end_linger)
        if not ISSLTransport.providedBy(self.transport):
            half_close = getattr(self.transport, "loseWriteConnection", None)
            if half_close is not None:
                half_close()
        self._networkProducer.resumeProducing()

    def _end_linger(self) -> None:
        self.close_within(LINGER_SECONDS)

    def _discard(self, data: bytes) -> None:
        self._drained += len(data)
        if self._drained > LINGER_BYTES >= self._drained - len(data):
            # Who cannot send any more looks for what has been said.
            self._networkProducer.pauseProducing()

    # Parsing

    def dataReceived(self, data: bytes) -> None:
        self.stir()
        if self._lingering:
            self._discard(data)
            return
        if self._tunnel is not None:
            self._tunnel.came(data)
            return
        if self._in_head and self._head_call is None and (data or self._buffer):
            self._head_call = self.callLater(self.site.head_timeout, self._head_is_late)
        super().dataReceived(data)
        if self._in_head and not self.paused and b"\n" in self._buffer:
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
        elif not self.requests:
            # curl sends what stands behind the "?" as it was typed: UTF-8.
            super().lineReceived(_NOT_ASCII.sub(lambda byte: b"%%%02X" % byte[0][0], line))
        else:
            super().lineReceived(line)

    def rawDataReceived(self, data: bytes) -> None:
        if self._lingering:
            self._discard(data)
            return
        if self.plain is not None and len(data) == self.plain.bufferSize:
            # There was more; to read much at once costs less. See hold().
            self.plain.bufferSize = min(2 * len(data), READ_LIMIT)
        super().rawDataReceived(data)
        if getattr(self._transferDecoder, "length", LARGE_CHUNK) < LARGE_CHUNK:
            self._read_less()  # each chunk takes its time, and others wait
        if self._handlingRequest and self._waitingForTransport:
            # Who does not read is not read from either; Twisted has no limit here.
            self._networkProducer.pauseProducing()
        decoder = self._transferDecoder
        in_line = getattr(decoder, "state", None) in ("CHUNK_LENGTH", "TRAILER")
        if decoder is not None and in_line and b"\n" in decoder._buffer:
            # A line end that the decoder does not take for one; it would wait for more.
            self._respondToBadRequestAndDisconnect()
        elif getattr(decoder, "length", 0) > MAX_CHUNK:
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
        # Twisted keeps them for nobody (its issue 12014).
        lines = getattr(self._transferDecoder, "_trailerHeaders", ())
        self.requests[-1].trailer_lines = [bytes(line) for line in lines]
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        self._forget_party()
        self._receipt = self._promptness = None
        rest = b"".join(self._dataBuffer) + self._buffer
        if self._body_pending or self._lingering or (self._read_closed and not rest):
            self.persistent = False
        self._dataBuffer, self._buffer = [], b""
        self._savedTimeOut = self.site.timeOut
        super().requestDone(request)
        if rest and self.persistent:
            # The next request is parsed in a turn of its own: whoever finished this
            # one may be in the midst of something, and other connections wait too.
            self._buffer = rest
            self.paused = True
            self._networkProducer.pauseProducing()
            self._next_call = self.callLater(0, self._parse_next)

    def _parse_next(self) -> None:
        self._next_call = None
        if self._waitingForTransport:
            return  # resumeProducing comes back to it
        self.paused = False
        self.dataReceived(b"")
        if self.paused:
            return
        if not (self._held or self._has_enough):
            self._networkProducer.resumeProducing()
        if self._read_closed and not self._handlingRequest:
            self.close_within(LINGER_SECONDS)

    def send_continue(self) -> None:
        """Let a client that asked with C{Expect} begin its body."""
        self._send100Continue()

    # Writing

    def write_promptly(self) -> None:
        """From now on until the request is done, keep nothing that can be sent."""
        self.flush()
        if self.plain is not None:
            self._promptness = Promptness(self.plain)

    def flush(self) -> None:
        """Send what the transport has kept."""
        plain = self.plain
        if plain is None or not plain.connected or plain.disconnecting:
            return  # the last: its end has to be told to the reactor, when that asks
        if sockets.has_unsent(plain):
            plain.doWrite()

    def stir(self) -> None:
        """Something goes in or out: whose own door that is has to be awake for it."""
        if self.door is not None:
            self.door.moved()

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """As Twisted's, but one piece: some sixty would be looked at one by one."""
        lines = [b"%b %b %b" % (version, code, reason)]
        for name, values in headers.getAllRawHeaders():
            lines += [b"%b: %b" % (name, value) for value in values]
        self.stir()
        self.transport.write(b"\r\n".join([*lines, b"", b""]))

    @property
    def outstanding(self) -> int:
        """Bytes written that the peer's kernel has not acknowledged."""
        sock = sockets.socket_of(self.transport)
        return sockets.unsent(self.transport) + (sockets.unacknowledged(sock) if sock else 0)

    @property
    def taken(self) -> int:
        """A count that grows as the peer takes what it is sent."""
        sock = sockets.socket_of(self.transport)
        if sock is None or sock.family == socket.AF_UNIX:
            return -self.outstanding
        return sockets.acknowledged(sock)

    def limit_send_buffer(self, size: int) -> None:
        """Have the kernel keep no more than this for the peer, to the connection's end."""
        sock = sockets.socket_of(self.transport)
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def write(self, data: bytes) -> None:
        self.writeSequence((data,))

    def writeSequence(self, iovec: Sequence[bytes]) -> None:
        self.stir()
        rest = self._promptness.write(iovec) if self._promptness is not None else iovec
        if rest:
            super().writeSequence(rest)

    # Holding back

    def hold(self) -> None:
        """Read no more of the body, or tunnel. What one read has brought already still comes."""
        if (self._body_pending or self._tunnel is not None) and not self._held:
            self._held = True
            self._networkProducer.pauseProducing()
            self._read_less()
            if self._hangup is not None:
                self.callLater(0, self._judge_hangup)

    def _read_less(self) -> None:
        if self.plain is not None:
            self.plain.bufferSize = FileDescriptor.bufferSize

    def release(self) -> None:
        """Read on."""
        if self._held:
            self._held = False
            if not self._waitingForTransport:
                self._networkProducer.resumeProducing()
            self.reads_on()

    @property
    def may_read(self) -> bool:
        """Whether the body is wanted, and the peer reads what it is told."""
        return not (self._held or self._waitingForTransport)

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self.reads_on()
        if self._held or self._has_enough or self.paused:
            self._networkProducer.pauseProducing()
        elif self._handlingRequest:
            self._networkProducer.resumeProducing()
        if self.paused and self._next_call is None:
            self._next_call = self.callLater(0, self._parse_next)

    def span(self, least_chunk: int) -> Span | None:
        """
        The body that is still to come, as it stands on the wire; C{None} if
        there is none.

        @param least_chunk: see L{ChunkedSpan.least}.
        """
        decoder = self._transferDecoder
        if not self._body_pending or decoder is None:
            return None
        if isinstance(decoder, _IdentityTransferDecoder):
            return CountedSpan(decoder)
        return ChunkedSpan(decoder, least_chunk)

    def came_behind(self, data: bytes) -> None:
        """Keep what was read behind the end of a body for the next request."""
        if data:
            self._dataBuffer.append(data)

    # Peers that leave

    def attend_party(self) -> None:
        """
        From now on until the request is done, notice whatever becomes of the
        peer; it may be silent for as long as it likes.
        """
        self.setTimeout(None)
        sock = sockets.socket_of(self.transport)
        if sock is None:
            return
        self.site.parties.add(self)
        if self._descriptor is None:
            # To the connection's end: the next request may well be of the same kind.
            self._descriptor = sock.fileno()
            self.site.hangups.watch(self._descriptor, self._hung_up)
        elif self._hangup is not None:
            self.callLater(0, self._judge_hangup)

    def _forget_party(self) -> None:
        self.site.parties.discard(self)
        self._read_less()

    def drop_dead_peer(self) -> None:
        """The peer has not answered the kernel for too long."""
        self._drop(PeerError(f"it has not answered for {self.site.peer_timeout:g} s"))

    def _hung_up(self, gone: bool) -> None:
        self._hangup = gone
        if self._lingering:
            self._networkProducer.resumeProducing()  # what is left has an end
        self._judge_hangup()

    @property
    def _deaf(self) -> bool:
        """Whether we would not notice an end of the stream by reading."""
        return bool(
            self._held
            or self._read_closed
            or self.paused
            or self._waitingForTransport
            or self._has_enough
        )

    @property
    def _has_enough(self) -> bool:
        """Whether enough has come in behind the request that is being handled."""
        return sum(map(len, self._dataBuffer)) > self._optimisticEagerReadSize

    def _judge_hangup(self) -> None:
        """A hang-up was seen; if we do not read, see what it means."""
        if self._hangup is None or self not in self.site.parties:
            return
        if self._tunnel is not None:
            if self._hangup and not self._write_closed:
                self.transport.abortConnection()
            return
        if not self.requests or not self._deaf or self._lingering:
            return
        if self._receipt is not None and self._receipt.look():
            return
        intake = self.requests[0].intake
        if intake is None or (self._body_pending and not self._body_can_end()):
            useful = False
        elif self._hangup:
            useful = self._body_pending and intake.patient
        else:
            useful = intake.halfClosed()
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
        rest = bytes(decoder._buffer) + self.read_ahead() + sockets.peek(sock, waiting)
        return ends_chunked(rest[-HEAD_LIMIT:], in_trailers=decoder.state == "TRAILER")

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
        if self._tunnel is not None:
            self._tunnel.ended()
            return
        if self._receipt is not None:
            self._receipt.look()
        request = self.requests[0] if self.requests else None
        if self.paused:
            return  # what has come is still to be parsed, and answered
        if request is None or self._lingering:
            self.close_within(LINGER_SECONDS)
        elif self._body_pending:
            self.persistent = False
            request.lose(PeerError("its body stopped before its end"))
            self.linger()
        elif not self._handlingRequest:
            self.close_within(LINGER_SECONDS)
        elif self._hangup:
            # A reset came right behind its end, which hides it from reading (tcp_recvmsg
            # of Linux); and we were told of it while we still read.
            self._judge_hangup()
        elif request.intake is None or not request.intake.halfClosed():
            self._drop(PeerError("it closed the connection"))

    def writeConnectionLost(self) -> None:
        """We closed our half ourselves."""

    # Tunnels

    def become_tunnel(self, end: TunnelEnd) -> None:
        """
        HTTP is over here: whatever comes goes to C{end}, what has come already first. To be
        held and released as a body is. The request lasts as long as the tunnel.
        """
        self.persistent = False
        early = b"".join(self._dataBuffer) + self._buffer
        self._dataBuffer, self._buffer = [], b""
        self._tunnel = end
        self._networkProducer.resumeProducing()
        self.write_promptly()
        if early:
            end.came(early)
        if self._read_closed:
            end.ended()

    def half_close(self) -> None:
        """Say that no more will come from here; TLS has no such word, and closes."""
        self._write_closed = True
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if half_close is None or ISSLTransport.providedBy(self.transport):
            super().loseConnection()
        else:
            # A transport that has a producer never closes.
            cast(IConsumer, self.transport).unregisterProducer()
            half_close()

    # Acknowledgement

    def acknowledged(self) -> Deferred[None]:
        """
        @return: fires when the peer's kernel has acknowledged all that was
            written; fails with L{PeerError} if the connection is lost before.
        """
        self._receipt = Receipt(self.transport, self.callLater, settled=self.plain is not None)
        self._receipt.wait()
        return self._receipt.deferred


def ends_chunked(data: bytes, *, in_trailers: bool) -> bool:
    """
    Whether C{data} can be the end of a chunked body: a last chunk, trailers, an
    empty line (RFC 9112 section 7.1).

    @param in_trailers: whether the last chunk has been read already.
    """
    lines = data.split(b"\r\n")
    if lines[-2:] != [b"", b""]:
        return False
    for line in reversed(lines[:-2]):
        if _LAST_CHUNK.fullmatch(line):
            return True
        if not line:
            return False
    return in_trailers


_HEAD_TOO_LARGE = HeadTooLarge("The request's head is over 64 KiB; send fewer or shorter headers.")
_MALFORMED = CallerError("The request is malformed; send HTTP/1.1 as RFC 9112 has it.")
