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
"""Seconds of silence after which a comment says that we are still there."""
PATIENCE = 60.0
"""Seconds that somebody may take nothing; then they are let go."""
RETRY_MILLISECONDS = 2000


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
    """The answer to C{request}, from L{open} on."""

    _request: Request
    _paused: bool = field(default=False, init=False)
    _quiet: bool = field(default=True, init=False)
    _stuck: float = field(default=0.0, init=False)
    _over: bool = field(default=False, init=False)
    _drained: Deferred[None] | None = field(default=None, init=False)
    _heartbeat: IDelayedCall | None = field(default=None, init=False)

    @classmethod
    def open(cls, request: Request) -> EventStream:
        """Send the head."""
        stream = cls(request)
        request.setHeader(b"content-type", b"text/event-stream; charset=utf-8")
        request.setHeader(b"cache-control", b"no-store, no-transform")
        request.setHeader(b"x-accel-buffering", b"no")
        request.notifyFinish().addBoth(stream._ended)
        request.attend()
        request.registerProducer(stream, True)
        stream._beat_later()
        request.write(b"retry: %d\n\n" % RETRY_MILLISECONDS)
        return stream

    @property
    def over(self) -> bool:
        """Whether nobody reads any more."""
        return self._over

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

    def _beat_later(self) -> None:
        clock = self._request.site.reactor
        self._heartbeat = clock.callLater(HEARTBEAT, self._beat)

    def _beat(self) -> None:
        self._beat_later()
        if self._paused:
            self._stuck += HEARTBEAT
            if self._stuck >= PATIENCE:
                self._request.channel.transport.abortConnection()
        elif self._quiet:
            self._request.write(b":\n\n")
        self._quiet = True

    def _ended(self, _: object) -> None:
        self._over = True
        if self._heartbeat is not None and self._heartbeat.active():
            self._heartbeat.cancel()
        self._wake()

    def _wake(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(None)

    # IPushProducer

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused, self._stuck = False, 0.0
        self._wake()

    def stopProducing(self) -> None:
        """The connection's end says so, too."""
