"""
Large answers on their way from a container to its client, passed by the kernel.

As the pipes' mover (L{hoody.protocols.splicing}) it stands in for C{doRead} of one transport
and C{doWrite} of the other, and for nothing else: the head, what has come along with it, and
every answer whose length is not known go the ordinary way.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field, frozen
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from hoody.protocols import sockets
from hoody.protocols.answers import Body, Counted
from hoody.protocols.coalescing import LOW_WATER, Coalescing
from hoody.protocols.kernelpipes import KernelPipe, KernelPipes
from hoody.protocols.request import Request
from hoody.protocols.splicing import Sink, Tap
from hoody.protocols.upstream import Upstream

_NEAR_END = 4 * LOW_WATER
"""Bytes from which on to wait for more would be to wait for the last."""


@frozen
class Relaying:
    """
    Makes a L{Relay} where it can be.

    @ivar threshold: bytes of a body from which on the kernel moves it.
    """

    pipes: KernelPipes
    threshold: int

    def begin(
        self, upstream: Upstream, request: Request, body: Body, moved: Callable[[], None]
    ) -> Relay | None:
        """
        Have what is still to come of C{body} go by the kernel.

        @param moved: called whenever some has.
        """
        if not isinstance(body, Counted) or body.ended or body.missing < self.threshold:
            return None
        plain, sock = upstream.plain, sockets.socket_of(upstream.plain)
        client = Tap.of(request)
        if plain is None or sock is None or client is None:
            return None
        relay = Relay(
            upstream,
            Tap(request, plain, sock),
            Sink(client),
            body,
            self.pipes,
            Coalescing(sock, request.channel.callLater),
            moved,
        )
        relay.start()
        return relay


@define(eq=False)
class Relay:
    """One body; one batch at a time: what has been read has been sent before the next is."""

    _upstream: Upstream
    _source: Tap
    _sink: Sink
    _body: Counted
    _pipes: KernelPipes
    _coalescing: Coalescing
    _moved: Callable[[], None]
    _pipe: list[KernelPipe] = field(factory=list, init=False)

    def start(self) -> None:
        self._source.divert("doRead", self._do_read)
        self._sink.begin(self._sent)

    def end(self) -> None:
        """Let be; what could not be sent yet is left to the client's transport."""
        self._source.restore()
        self._coalescing.end()
        self._sink.end()
        self._pipes.give_back(self._pipe)
        self._pipe = []

    def _do_read(self) -> object:
        if self._sink.owes:
            self._upstream.pauseProducing()
            return None
        if not self._pipe:
            self._pipe = self._pipes.take(1)
            if not self._pipe:
                return self._source.ordinary()
        try:
            count = self._pipe[0].fill(self._source.descriptor.fileno(), self._body.missing)
        except BlockingIOError:
            return None
        except EOFError:
            return CONNECTION_DONE
        except OSError:
            return CONNECTION_LOST
        self._body.missing -= count
        self._moved()
        if self._body.missing > _NEAR_END:
            self._coalescing.passed(count)
        else:
            self._coalescing.end()
        self._sink.offer(self._pipe[0], count)
        if self._sink.owes:
            self._upstream.pauseProducing()
        else:
            self._end_if_done()
        return None

    def _sent(self) -> None:
        """The client's kernel has taken what it had not at once."""
        self._upstream.resumeProducing()
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._body.ended:
            self._upstream.end_body()
