"""One request on its way to its container, and the answer on its way back."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import ConnectBindError, ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IPushProducer, IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from hoody.errors import BadGateway, CallerError, GatewayTimeout, HoodyError, Unavailable
from hoody.interfaces import IDestination, IIntake, IVisit
from hoody.pipes.pauses import Pause, Pauses
from hoody.protocols.answers import AnswerHead, Body, NoAnswer, read_headers
from hoody.protocols.channel import Reading
from hoody.protocols.kept import KeptConnections, Place
from hoody.protocols.relaying import Relay, Relaying
from hoody.protocols.request import Request
from hoody.protocols.tunnel import Tunnel
from hoody.protocols.upstream import Upstream, connect
from hoody.resources import failures, forwarding

_REPEATABLE = (b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"DELETE")
"""What may be sent again, where nobody knows whether it was heard (RFC 9110 section 9.2.2)."""


@frozen(kw_only=True)
class Means:
    """
    What all passages share.

    @ivar relaying: has the kernel move large answers; C{None} where it cannot.
    """

    clock: IReactorTime
    kept: KeptConnections
    connect_timeout: float
    relaying: Relaying | None


@implementer(IIntake, IPushProducer)
class Passage:
    """
    A request that waits to be told where L{to} go. Until then, and until the container takes
    it, its body stays with the client.

    @ivar is_over: whether the answer has been given, or will not be.
    @ivar is_endless: whether what is given has no end of its own: what follows an upgrade, and
        a stream of events.
    """

    patient = False

    def __init__(
        self,
        request: Request,
        means: Means,
        *,
        refuse: Callable[[Request, HoodyError], None],
        left: Callable[[Passage], None],
    ) -> None:
        """
        @param refuse: answers what cannot be.
        @param left: called when it is over.
        """
        self.request = request
        self._refuse = refuse
        self.is_over = self.is_endless = False
        self._means = means
        self._left = left
        self._upstream: Upstream | None = None
        self._connecting: Deferred[Upstream] | None = None
        self._visit: IVisit | None = None
        self._container = ""
        self._place: Place = ("", 0)
        self._endpoint: IStreamClientEndpoint | None = None
        self._head = b""
        self._would_switch = False
        self._body: Body | None = None
        self._relay: Relay | None = None
        self._early: list[bytes] = []
        self._body_ended = False
        self._pauses = Pauses(Reading(request.channel))
        self._unwanted: Pause | None = None
        self._full: Pause | None = None

    def begin(self) -> None:
        """Leave the body where it is until it is wanted, and notice when the client leaves."""
        self.request.attend()
        self._unwanted = self._pauses.hold()

    async def to(self, destination: IDestination, port: int, *, counts: bool = True) -> None:
        """
        Go there.

        @param counts: whether it keeps the container awake for longer than it lasts.
        @raise HoodyError: if that cannot be; the request has not been answered then.
        """
        request = self.request
        self._would_switch = bool(forwarding.upgrade_of(request))
        self._head = forwarding.request_head(request)
        self._container = destination.name
        self._place = (destination.container_id, port)
        self._visit = destination.visit(counts=counts)
        self._endpoint = await self._visit.endpoint(port)
        if self.is_over:
            return
        upstream = None
        if request.length == 0 and request.method in _REPEATABLE and not self._would_switch:
            upstream = self._means.kept.take(self._place)
        self._ask(upstream or await self._connect())

    @property
    def visit(self) -> IVisit:
        """What keeps its container awake, once that is known."""
        assert self._visit is not None
        return self._visit

    async def _connect(self) -> Upstream | None:
        """
        A new connection; C{None} if nobody waits for it any more.

        @raise HoodyError: if there is nobody there.
        """
        assert self._endpoint is not None
        seconds = self._means.connect_timeout + self.visit.patience
        port = self._place[1]
        self._connecting = connect(self._endpoint)
        late = self._means.clock.callLater(seconds, self._connecting.cancel)
        try:
            upstream = await self._connecting
        except (CancelledError, ConnectingCancelledError):
            if self.is_over:
                return None
            raise GatewayTimeout(
                f"{self._container} runs, but its port {port} did not take the connection within"
                f" {seconds:g} s."
            ) from None
        except ConnectBindError:
            raise Unavailable("No connection is left for this; try again in a moment.") from None
        except ConnectError:
            raise BadGateway(
                f"{self._container} runs, but nothing listens on its port {port}; start a program"
                " there that does, on 127.0.0.1 or 0.0.0.0."
            ) from None
        finally:
            self._connecting = None
            if late.active():
                late.cancel()
        if self.is_over:
            upstream.abort()
            return None
        return upstream

    def _ask(self, upstream: Upstream | None) -> None:
        if upstream is None or self.is_over:
            return
        self._upstream = upstream
        self.visit.connected()
        request = self.request
        request.registerProducer(upstream, True)
        upstream.paced_by(self)
        upstream.ask(self, self._head, method=request.method, may_switch=self._would_switch)
        early, self._early = self._early, []
        for data in early:
            self._send(data)
        if self._body_ended:
            self._end_sending()
        elif self._unwanted is not None:
            self._unwanted.release()

    def _send(self, data: bytes) -> None:
        upstream, request = self._upstream, self.request
        if upstream is None:
            self._early.append(data)
            return
        self.visit.moved()
        if request.length is None:
            upstream.write(b"%x\r\n" % len(data), data, b"\r\n")
        else:
            upstream.write(data)

    def _end_sending(self) -> None:
        upstream, request = self._upstream, self.request
        assert upstream is not None
        if request.length is None:
            try:
                trailers = forwarding.trailer_lines(read_headers(list(request.trailer_lines)))
            except NoAnswer:
                self.give_up(CallerError("A trailer of the body is malformed."))
                return
            upstream.write(b"0\r\n" + trailers + b"\r\n")
        upstream.asked_all()

    # IPushProducer, of the body

    def pauseProducing(self) -> None:
        if self._full is None:
            self._full = self._pauses.hold()
            if not self.is_over:
                self.visit.holds_back(True)

    def resumeProducing(self) -> None:
        if self._full is not None:
            full, self._full = self._full, None
            full.release()
            if not self.is_over:
                self.visit.holds_back(False)

    def stopProducing(self) -> None:
        self.pauseProducing()

    # IIntake

    def halfClosed(self) -> bool:
        """
        One that has closed looks just like that, and is the much more likely; as most
        proxies do, we take it for gone.
        """
        return False

    def dataReceived(self, data: bytes) -> None:
        if not self.is_over:
            self._send(data)

    def bodyComplete(self) -> None:
        self._body_ended = True
        if self._upstream is not None and not self.is_over:
            self._end_sending()

    def connectionLost(self, error: BaseException) -> None:
        if isinstance(error, CallerError):
            self.give_up(error)  # what it sent was no body; it may still be there to read why
        else:
            self._end()

    # Asker

    def interim(self, head: AnswerHead) -> None:
        self.request.send_interim(head.status, head.reason, forwarding.interim_headers(head))

    def begun(self, head: AnswerHead, body: Body) -> None:
        request, self._body = self.request, body
        self.visit.answered()
        self.is_endless = forwarding.is_stream_of_events(head)
        forwarding.set_answer(request, head)
        if self.visit.wake is not None:
            forwarding.tell_of_wake(request.responseHeaders, *self.visit.wake)
        if not (self._body_ended and forwarding.may_persist(request)):
            request.close_after()
        request.write(b"")
        relaying, upstream = self._means.relaying, self._upstream
        if relaying is not None and upstream is not None:
            self._relay = relaying.begin(upstream, request, body, self.visit.moved)

    def came(self, content: bytes) -> None:
        self.visit.moved()
        self.request.write(content)
        if self._body is not None and not self._body.ended:
            self.request.channel.write_promptly()

    def complete(self) -> None:
        upstream, request = self._upstream, self.request
        assert upstream is not None
        assert self._body is not None
        self._upstream = None
        self._end()
        self._means.kept.keep(self._place, upstream)
        if self._body.trailers:
            request.end_body(forwarding.trailer_lines(self._body.trailers))
        request.finish_promptly()

    def switched(self, head: AnswerHead) -> None:
        assert self._upstream is not None
        self.visit.answered()
        self.is_endless = True
        tunnel = Tunnel(
            self.request,
            self._upstream,
            self.visit.moved,
            self.visit.holds_back,
            self._tunnel_is_over,
        )
        headers = forwarding.switching_headers(head)
        if self.visit.wake is not None:
            forwarding.tell_of_wake(headers, *self.visit.wake)
        tunnel.open(head.reason, headers)

    def _tunnel_is_over(self) -> None:
        self._upstream = None
        self._end()
        if not self.request.gone:
            self.request.finish()

    def failed(self, why: str) -> None:
        upstream = self._upstream
        if upstream is not None and upstream.used and upstream.silent:
            # Kept, and closed as we came: nothing says that it was our request's doing.
            self._upstream = None
            self.request.unregisterProducer()
            ensureDeferred(self._ask_anew()).addErrback(self.fail)
        else:
            self.give_up(BadGateway(f"{self._container} did not answer as it should: {why}."))

    async def _ask_anew(self) -> None:
        self._ask(await self._connect())

    # The end

    def fail(self, failure: Failure) -> None:
        """Give up, for whatever has happened."""
        self.give_up(failures.understood(failure))

    def answer(self, answer: Callable[[], None]) -> None:
        """End with this, where nothing has been begun."""
        if not self.is_over:
            self._end()
            if not self.request.gone:
                answer()

    def give_up(self, error: HoodyError) -> None:
        """Answer with C{error}; or break off, where something else has been begun."""
        if self.is_over:
            return
        self._end()
        request = self.request
        if request.gone:
            return
        if not request.startedWriting:
            self._refuse(request, error)
        elif request.body_done or request.close_delimited:
            request.break_off()
        else:
            request.break_off_upload()

    def _end(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        if self._relay is not None:
            self._relay.end()
        if not self.request.gone and self.request.producer is not None:
            self.request.unregisterProducer()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._upstream is not None:
            self._upstream.abort()
        if self._visit is not None:
            self._visit.ended()
        self._left(self)
