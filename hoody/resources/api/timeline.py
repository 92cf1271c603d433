"""The events of a night as a page."""

from __future__ import annotations

from datetime import date
from itertools import groupby
from urllib.parse import parse_qsl, urlencode

from attrs import frozen

from hoody.audit import words
from hoody.audit.events import Event
from hoody.resources import html
from hoody.resources.api.operations import Call, Pagination
from hoody.units import duration_in_words


@frozen
class Line:
    """One event, in words."""

    id: str
    iso: str
    clock: str
    kind: str
    what: str
    details: str
    who: str
    how_long: str


@frozen
class Day:
    name: str
    lines: list[Line]


def show_timeline(
    call: Call, events: list[Event], pagination: Pagination, csrf_token: str
) -> None:
    """Answer with the page."""
    html.show(
        call.request,
        "timeline.html",
        style=("look.css", "timeline.css"),
        script=("timeline.js",),
        days=days_of(events),
        pagination=pagination,
        newer=_page(call, pagination.page - 1) if pagination.page > 1 else None,
        older=_page(call, pagination.page + 1)
        if pagination.page < pagination.total_pages
        else None,
        is_live=pagination.page == 1 and call.query.sort_order == "desc",
        csrf_token=csrf_token,
        now=call.now.strftime("%H:%M:%S"),
    )


def days_of(events: list[Event]) -> list[Day]:
    """Lines by their days."""
    return [
        Day(_day_in_words(day), [line_of(event) for event in found])
        for day, found in groupby(events, key=lambda event: event.ts.date())
    ]


def line_of(event: Event) -> Line:
    return Line(
        id=event.id,
        iso=event.ts.strftime("%Y-%m-%dT%H:%M:%SZ"),
        clock=event.ts.strftime("%H:%M:%S"),
        kind=_kind(event),
        what=words.sentence(event),
        details=words.details(event),
        who="on request" if event.actor == "request" else f"by {event.actor}",
        how_long="" if event.duration_ms is None else duration_in_words(event.duration_ms / 1000),
    )


def _kind(event: Event) -> str:
    last = event.event_type.rpartition(".")[2]
    if last in ("failed", "missed"):
        return "bad"
    return "end" if last in ("deleted", "revoked", "expired", "skipped") else "good"


def _day_in_words(day: date) -> str:
    return f"{day:%A}, {day.day} {day:%B %Y}"


def _page(call: Call, number: int) -> str:
    query = call.request.query.decode("ascii", "replace")
    pairs = [(k, v) for k, v in parse_qsl(query, keep_blank_values=True) if k != "page"]
    return "?" + urlencode([*pairs, ("page", str(number))])
