"""Watching a pipe as HTTP sees it: a stream of events, one object, a page."""

from __future__ import annotations

import msgspec
from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from hoody.auth.principal import Principal
from hoody.errors import DatabaseAway
from hoody.interfaces import ISpectator, IStore
from hoody.pipes.progress import State
from hoody.pipes.results import Result
from hoody.pipes.watching import Data, Letter, Watch, Watches, seen_by
from hoody.protocols import sse
from hoody.protocols.request import Request
from hoody.protocols.sse import EventStream
from hoody.resources import failures
from hoody.resources.accept import HTML, JSON, SSE, preferred
from hoody.resources.dashboard import show_dashboard
from hoody.resources.guard import GoTo, PipeGuard, go_to

_OFFERED = (SSE, HTML, JSON)
_log = Logger(namespace="hoody")


def encode(event_id: str, name: str, data: Data) -> bytes:
    """An event as every spectator is sent it."""
    return sse.encode(event_id, msgspec.json.encode(data), name)


@define(eq=False)
class ProgressFace:
    """
    @ivar window: seconds that a spectator may wait where nothing happens.
    @ivar embed_in: who may show the embedded page, as C{frame-ancestors} has it.
    """

    _watches: Watches
    _store: IStore
    _clock: IReactorTime
    guard: PipeGuard
    window: float
    embed_in: str
    _spectators: set[Spectator] = field(factory=set, init=False)

    async def show(self, request: Request, path: str) -> bytes | None:
        """Answer a GET of C{?progress}, in the form that is wanted."""
        request.setHeader(b"vary", b"Accept, Origin")
        request.setHeader(b"cache-control", b"no-store")
        request.setHeader(b"referrer-policy", b"no-referrer")
        try:
            principal = await self.guard.admit(request, path)
        except GoTo as elsewhere:
            return go_to(request, elsewhere)
        watch = await self._watch(path)
        if request.gone:
            return None
        kind = preferred(request, _OFFERED)
        if kind == SSE:
            await self._stream(request, watch, principal)
            return None
        watch.measure()
        if kind == HTML:
            show_dashboard(
                request,
                watch,
                self._clock.seconds(),
                embed_in=self.embed_in,
                bearer=self.guard.wants_token(request),
            )
            return None
        body = failures.as_json(watch.flat())
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"content-length", b"%d" % len(body))
        return body

    async def _watch(self, path: str) -> Watch:
        """What was before is asked of the database until something is known."""
        watch = self._watches.find(path)
        if watch is None or watch.standing.state is State.IDLE:
            watch = self._watches.open(path, await self._last(path))
        return watch

    async def _last(self, path: str) -> Result | None:
        try:
            async with self._store.transaction() as transaction:
                found: Result | None = await transaction.results.find(path)
        except DatabaseAway:
            found = None  # what is newest is in memory
        kept = self._watches.kept
        presumed = kept.presumed(path)
        if presumed is not None and (found is None or found.ended < presumed.ended):
            found = presumed
        if found is None or not kept.is_fresh(found, self._clock.seconds()):
            return None
        return found

    async def _stream(self, request: Request, watch: Watch, who: Principal | None) -> None:
        last = (request.getHeader(b"last-event-id") or b"").decode("latin-1")
        spectator = Spectator(self, watch, request, who, seen_by(last))
        self._watches.join(watch, spectator)
        self._spectators.add(spectator)
        try:
            await spectator.stay()
        finally:
            self._watches.leave(watch, spectator)
            self._spectators.discard(spectator)

    def close(self) -> None:
        """Let all go; they will come back, to whoever is here then."""
        for spectator in tuple(self._spectators):
            spectator.close()


@implementer(ISpectator)
@define(eq=False)
class Spectator:
    """
    One open stream of events. It is given what is newest, when it has taken what was before.

    @ivar seen: the identity of the result that it was told last.
    """

    _face: ProgressFace
    watch: Watch
    _request: Request
    _principal: Principal | None
    seen: int
    _stream: EventStream = field(init=False)
    _is_behind: bool = field(default=False, init=False)
    _number: int = field(default=0, init=False)
    _since: float = field(default=0.0, init=False)

    async def stay(self) -> None:
        """Say what is, and what comes, until it goes."""
        self._since = self._request.site.reactor.seconds()
        ping = b"ping=1" in self._request.query.split(b"&")
        self._stream = EventStream.open(self._request, newest_only=True, ping=ping)
        self._catch_up()
        await self._stream.ended

    def close(self) -> None:
        self._stream.close()

    def _catch_up(self) -> None:
        events, self.seen = self.watch.present(self.seen)
        self._is_behind, self._number = False, self.watch.number
        self._stream.write(b"".join(events))

    # ISpectator

    def tell(self, letter: Letter) -> None:
        if self._stream.over or letter.number <= self._number:
            return  # what it was told when it caught up is newer
        if not letter.is_news(self.seen):
            return
        if self._is_behind or not self._stream.clear:
            self._is_behind = True
            return
        self._stream.write(letter.event(self.seen))
        self.seen = letter.done or self.seen

    def look(self, now: float) -> None:
        if self._stream.over:
            return
        if not self._face.guard.still_admits(self._principal):
            self.close()
        elif self._is_behind and self._stream.clear:
            self._catch_up()
        elif self.watch.is_quiet and now - self._quiet_since > self._face.window:
            self.close()

    @property
    def _quiet_since(self) -> float:
        return max(self._since, self.watch.quiet_since)
