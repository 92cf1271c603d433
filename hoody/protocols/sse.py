"""
Answers that go on: server-sent events (WHATWG HTML, section 9.2), each stream under
its own back-pressure.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from zope.interface import implementer

from hoody.protocols.request import Request

HEARTBEAT = 15.0
"""Seconds of silence after which we say that we are still there; at most."""
RETRY_MILLISECONDS = 2000
CLEAR = 4096
"""Bytes that somebody who reads may have outstanding: some events."""
SMALL_BUFFER = 8192
"""What the kernel keeps for a reader who is only ever told what is newest."""


def heartbeat(stream_timeout: float) -> float:
    """How long a stream is silent at most, in seconds."""
    return min(HEARTBEAT, stream_timeout / 4)


def encode_lines(data: bytes) -> bytes:
    """One event for each line, as L{encode} makes them; quickly, however many there are."""
    return b"data: " + data.replace(b"\r", b"").replace(b"\n", b"\n\ndata: ") + b"\n\n"


def encode(event_id: str | None, data: bytes, name: str | None = None) -> bytes:
    """One event; C{data} may have lines."""
    lines = []
    if event_id is not None:
        lines.append(b"id: " + event_id.encode())
    if name is not None:
        lines.append(b"event: " + name.encode())
    lines += [b"data: " + line for line in data.split(b"\n")]
    return b"\n".join(lines) + b"\n\n"


@implementer(IPushProducer)
@define(eq=False)
class EventStream:
    """
    The answer to C{request}, from L{open} on.

    @ivar source: what makes the events, if it is to keep the reader's pace.
    @ivar ended: fires when nobody reads any more.
    """

    _request: Request
    _sign_of_life: bytes
    _paused: bool = field(default=False, init=False)
    _quiet: bool = field(default=True, init=False)
    _taken: int = field(default=0, init=False)
    _stuck: float = field(default=0.0, init=False)
    _over: bool = field(default=False, init=False)
    _drained: Deferred[None] | None = field(default=None, init=False)
    _heartbeat: IDelayedCall | None = field(default=None, init=False)
    source: IPushProducer | None = field(default=None, init=False)
    ended: Deferred[None] = field(factory=Deferred, init=False)

    @classmethod
    def open(
        cls, request: Request, *, newest_only: bool = False, ping: bool = False
    ) -> EventStream:
        """
        Send the head.

        @param newest_only: whether what cannot be sent at once will be left out, so that
            little needs to be kept for this reader; the connection ends with the stream.
        @param ping: whether silence is broken by an event C{ping}: a browser keeps comments
            from its scripts, which then cannot tell silence from a server that hangs.
        """
        # A comment goes without an empty line: some clients take a block for an event.
        stream = cls(request, encode(None, b"{}", "ping") if ping else b":\n")
        request.setHeader(b"content-type", b"text/event-stream; charset=utf-8")
        request.setHeader(b"cache-control", b"no-store, no-transform")
        request.setHeader(b"x-accel-buffering", b"no")
        request.notifyFinish().addBoth(stream._ended)
        request.attend()
        if newest_only:
            request.close_after()
            request.channel.limit_send_buffer(SMALL_BUFFER)
        request.registerProducer(stream, True)
        stream._beat_later()
        request.send_head()
        # Of the first event, and no block of its own, as above.
        request.write(b"retry: %d\n" % RETRY_MILLISECONDS)
        return stream

    @property
    def over(self) -> bool:
        """Whether nobody reads any more."""
        return self._over

    @property
    def clear(self) -> bool:
        """Whether what was sent has been taken, but for an event or two."""
        return self._request.channel.outstanding <= CLEAR

    def write(self, data: bytes) -> None:
        """Send what L{encode} has made."""
        if not self._over:
            self._quiet = False
            self._request.write(data)

    async def drained(self) -> None:
        """Wait until what was sent has mostly been taken, or nobody is there any more."""
        if self._paused and not self._over:
            self._drained = Deferred(self._forget)
            await self._drained

    def close(self) -> None:
        """End it well."""
        if not self._over:
            self._request.unregisterProducer()
            self._request.finish()

    def _forget(self, _: Deferred[None]) -> None:
        self._drained = None

    @property
    def _patience(self) -> float:
        return self._request.site.stream_timeout

    def _beat_later(self) -> None:
        # Twice as often: what is sent right after one beat is silence at the next.
        pause = heartbeat(self._patience) / 2
        self._heartbeat = self._request.site.reactor.callLater(pause, self._beat, pause)

    def _beat(self, seconds: float) -> None:
        """Say that we are there; see whether they are, and take what they are sent."""
        self._beat_later()
        taken = self._request.channel.taken
        if self.clear or taken > self._taken:
            self._stuck = 0.0
        else:
            self._stuck += seconds
        self._taken = taken
        if self._stuck >= self._patience:
            self._request.channel.transport.abortConnection()
        elif self._quiet and self.clear:
            self._request.write(self._sign_of_life)
        self._quiet = True

    def _ended(self, _: object) -> None:
        self._over = True
        if self._heartbeat is not None and self._heartbeat.active():
            self._heartbeat.cancel()
        self._wake()
        self.ended.callback(None)

    def _wake(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(None)

    # IPushProducer

    def pauseProducing(self) -> None:
        self._paused = True
        if self.source is not None:
            self.source.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if self.source is not None and not self._over:
            self.source.resumeProducing()
        self._wake()

    def stopProducing(self) -> None:
        """The connection's end says so, too."""
