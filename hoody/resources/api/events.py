"""The audit as HTTP sees it: JSON, a stream, and a page that reads like a story."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from attrs import define
from msgspec import Meta
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from hoody.audit.events import TYPES, Event, Filter, seq_of
from hoody.audit.feed import Feed
from hoody.auth.principal import Principal
from hoody.auth.tokens import Scope
from hoody.errors import CallerError, DatabaseAway, Forbidden, Unavailable
from hoody.interfaces import IStore
from hoody.later import sleep
from hoody.protocols import sse
from hoody.protocols.request import Request
from hoody.protocols.sse import EventStream
from hoody.resources.accept import HTML, JSON, SSE, preferred
from hoody.resources.api.operations import Call, Operation, Pagination, Paging, pagination
from hoody.resources.api.reading import in_utc, whole
from hoody.resources.api.timeline import show_timeline
from hoody.resources.guard import Guard
from hoody.units import timed_id

MOST_FOLLOWERS = 200
BATCH = 200
AGAIN = 1.0
"""Seconds until the database is asked again that was away."""
MOST_ON_A_PAGE = 100
"""Events on one page of HTML, which is made in one go."""
_log = Logger(namespace="hoody.audit")

Id = Annotated[str, Meta(pattern=whole("[0-9a-f]{24}"), description="an id: 24 hex digits")]


class EventQuery(Paging, kw_only=True):
    """Which events; times are RFC 3339, with a zone."""

    limit: Annotated[int, Meta(ge=1, le=500)] = 20
    sort_by: Literal["ts"] = "ts"
    container_id: Id | None = None
    project_id: Id | None = None
    event_type: Annotated[
        str | None, Meta(description="one, or several with commas: " + ", ".join(TYPES))
    ] = None
    resource_type: Annotated[str, Meta(max_length=40)] | None = None
    since: datetime | None = None
    until: datetime | None = None
    follow: Annotated[bool, Meta(description="go on as server-sent events")] = False


class EventRow(msgspec.Struct, kw_only=True):
    id: str
    ts: datetime
    event_type: str
    actor: str
    resource_type: str
    resource_id: str
    container_id: str | None
    project_id: str | None
    data: dict[str, Any]
    duration_ms: float | None
    request_id: str | None


class EventPage(msgspec.Struct, kw_only=True):
    events: list[EventRow]
    pagination: Pagination


@define(eq=False)
class EventsFace:
    _store: IStore
    _feed: Feed
    guard: Guard
    _clock: IReactorTime
    followers: int = 0

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/api/v1/events",
                summary="What happened, newest first; followed, as server-sent events",
                answer=self.tell_events,
                scope=Scope.READ,
                query=EventQuery,
                returns=EventPage,
                tied=True,
                page=True,
                media=(SSE, HTML),
            )
        ]

    async def tell_events(self, call: Call) -> EventPage | None:
        wanted = wanted_of(call)
        call.request.setHeader(b"vary", b"Accept, Authorization, Cookie")
        kind = SSE if call.query.follow else preferred(call.request, (JSON, SSE, HTML))
        if kind == SSE:
            await self._follow(call, wanted)
            return None
        query = call.query
        if kind == HTML:
            query.limit = min(query.limit, MOST_ON_A_PAGE)
        async with self._store.transaction() as transaction:
            found, total = await transaction.events.page(
                wanted, query.offset, query.limit, query.sort_order == "asc"
            )
        where = pagination(query, total)
        if kind == HTML:
            show_timeline(call, found, where, self.guard.csrf_token(call.principal))
            return None
        return EventPage(events=[row_of(event) for event in found], pagination=where)

    async def _follow(self, call: Call, wanted: Filter) -> None:
        """
        Without a Last-Event-ID from C{since} on, or, without that, from now on; with one,
        all that came behind it, whoever was restarted meanwhile.
        """
        if self.followers >= MOST_FOLLOWERS:
            raise Unavailable(f"{MOST_FOLLOWERS} follow the events already; try again later.")
        self.followers += 1
        try:
            seq = await self._begin(_last_seen(call.request), wanted)
            if call.request.gone:
                return
            stream = EventStream.open(call.request)
            # Who is cut off before anything has happened comes back to here, too.
            stream.write(b"id: " + timed_id(call.now, seq).encode() + b"\n\n")
            try:
                await self._pour(stream, call.principal, seq, wanted)
            except CancelledError:
                pass  # they have gone
            except Exception:
                _log.failure("a stream of events broke off")
            stream.close()
        finally:
            self.followers -= 1

    async def _begin(self, last: int | None, wanted: Filter) -> int:
        """Behind which event to begin. One that is yet to come was of another database."""
        async with self._store.transaction() as transaction:
            newest = await transaction.events.newest()
        if last is not None:
            return min(last, newest)
        return 0 if wanted.since is not None else newest

    async def _pour(
        self, stream: EventStream, principal: Principal, seq: int, wanted: Filter
    ) -> None:
        while not stream.over and self.guard.still_admits(principal):
            count = self._feed.count
            try:
                async with self._store.transaction() as transaction:
                    batch = await transaction.events.after(seq, wanted, BATCH)
            except DatabaseAway:
                stream.write(b": the database is away\n")
                await sleep(self._clock, AGAIN)
                if self._feed.closed:
                    return
                continue
            if not self.guard.still_admits(principal):
                return
            for event in batch:
                stream.write(sse.encode(event.id, msgspec.json.encode(row_of(event))))
                seq = event.seq
            await stream.drained()
            if len(batch) < BATCH:
                await self._feed.later_than(count)
                if self._feed.closed:
                    return


def wanted_of(call: Call) -> Filter:
    """The filter, and what whoever asks may see of it."""
    query, containers = call.query, call.principal.containers
    if containers is not None and query.container_id not in (None, *containers):
        raise Forbidden(
            f"container_id: the token is tied to other containers ({', '.join(containers)})."
        )
    return Filter(
        container_id=query.container_id,
        project_id=query.project_id,
        event_types=_types(query.event_type),
        resource_type=query.resource_type,
        containers=containers,
        since=in_utc("since", query.since) if query.since else None,
        until=in_utc("until", query.until) if query.until else None,
    )


def _types(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(text.split(","))
    for name in names:
        if name not in TYPES:
            raise CallerError(f"event_type: {name!r} will not do; give one of {', '.join(TYPES)}.")
    return names


def _last_seen(request: Request) -> int | None:
    given = request.getHeader(b"last-event-id")
    if not given:
        return None
    try:
        return seq_of(given.decode("ascii", "replace"))
    except ValueError:
        raise CallerError(
            "Last-Event-ID: this is none of ours; send the id of an event, or leave it out."
        ) from None


def row_of(event: Event) -> EventRow:
    return EventRow(
        id=event.id,
        ts=event.ts,
        event_type=event.event_type,
        actor=event.actor,
        resource_type=event.resource_type,
        resource_id=event.resource_id,
        container_id=event.container_id,
        project_id=event.project_id,
        data=event.data,
        duration_ms=event.duration_ms,
        request_id=event.request_id,
    )
