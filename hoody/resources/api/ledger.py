"""The ledger: what each container takes, as the invoice that it is not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec
from attrs import define, frozen
from twisted.internet.threads import deferToThread

from hoody.auth.tokens import Scope
from hoody.containers import ledger
from hoody.containers.container import Status, label
from hoody.containers.fleet import Fleet
from hoody.containers.ledger import Entry, Look
from hoody.resources import html
from hoody.resources.accept import HTML, JSON, preferred
from hoody.resources.api.operations import Call, Operation
from hoody.resources.urls import container_url
from hoody.units import size_in_words

ACTIVE_SECONDS = 60.0
"""One to which somebody came within so many is active now."""
_WORDS = (("week", 604800), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


class LedgerEntry(msgspec.Struct):
    """
    One container: `idle_since` is when somebody last came to one that sleeps, `idle_seconds` how
    long ago that is for any that runs; memory and disk are bytes: `own` is what nobody else has,
    `memory_shared` files kept in memory and merged pages, `disk_shared` its image, `disk_saved`
    what its files do not take as they share the blocks of equal ones.
    """

    id: str
    name: str
    status: str
    idle_since: datetime | None
    idle_seconds: float | None
    memory_own: int
    memory_shared: int
    disk_own: int
    disk_shared: int
    disk_saved: int


class LedgerSums(msgspec.Struct):
    """Bytes of all containers together."""

    memory: int
    disk: int


class LedgerTotals(msgspec.Struct):
    """Bytes of all containers together; `disk_saved` more if no equal files shared blocks."""

    memory: int
    disk: int
    disk_saved: int


class Ledger(msgspec.Struct):
    """
    The containers of this server: `totals` is what they take, with what is shared once,
    `totals_unshared` what they would take if each had all for itself.
    """

    containers: list[LedgerEntry]
    totals: LedgerTotals
    totals_unshared: LedgerSums


@define(eq=False)
class LedgerFace:
    """@ivar _saved_by: bytes that a container's files do not take, as equal ones have them."""

    _fleet: Fleet
    _saved_by: Callable[[str], int]
    _domain: str

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/api/v1/ledger",
                summary="What containers take, own and shared, and how long they have been idle",
                answer=self.get_ledger,
                scope=Scope.READ,
                returns=Ledger,
                tied=True,
                page=True,
                media=("text/html",),
            )
        ]

    async def get_ledger(self, call: Call) -> Ledger | None:
        call.request.setHeader(b"vary", b"Accept, Authorization, Cookie")
        entries = await self._entries(call)
        taken, unshared = ledger.taken(entries), ledger.unshared(entries)
        if preferred(call.request, (JSON, HTML)) == HTML:
            await self._show(call, entries)
            return None
        return Ledger(
            containers=[
                LedgerEntry(
                    id=each.id,
                    name=each.name,
                    status=each.status,
                    idle_since=each.idle_since,
                    idle_seconds=each.idle_seconds,
                    memory_own=each.memory_own,
                    memory_shared=each.memory_shared,
                    disk_own=each.disk_own,
                    disk_shared=each.disk_shared,
                    disk_saved=each.disk_saved,
                )
                for each in entries
            ],
            totals=LedgerTotals(taken.memory, taken.disk, ledger.saved(entries)),
            totals_unshared=LedgerSums(unshared.memory, unshared.disk),
        )

    async def _entries(self, call: Call) -> list[Entry]:
        fleet, tied = self._fleet, call.principal.containers
        fleet.check()
        looks = [
            Look.at(
                keeper,
                fleet.now,
                fleet.reactor.seconds(),
                self._saved_by(keeper.container.id),
            )
            for keeper in fleet.keepers.values()
            if tied is None or keeper.container.id in tied
        ]
        found: list[Entry] = await deferToThread(ledger.read, looks, fleet.storage)
        return sorted(found, key=lambda each: (-(each.idle_seconds or 0), each.name))

    async def _show(self, call: Call, entries: list[Entry]) -> None:
        taken, unshared = ledger.taken(entries), ledger.unshared(entries)
        await html.show_in_turns(
            self._fleet.reactor,
            call.request,
            "ledger.html",
            style=("look.css", "ledger.css"),
            script=("ledger.js",),
            count=len(entries),
            lines=(line_of(call, each, self._domain) for each in entries),
            asleep=sum(each.is_asleep for each in entries),
            memory=size_in_words(taken.memory),
            disk=size_in_words(taken.disk),
            memory_unshared=size_in_words(unshared.memory),
            disk_unshared=size_in_words(unshared.disk),
            saved=ledger.saved(entries) and size_in_words(ledger.saved(entries)),
            now=call.now.strftime("%H:%M:%S"),
        )


@frozen
class Line:
    """One container, in words."""

    name: str
    url: str
    state: str
    kind: str
    memory: str
    disk: str
    shared: str


def line_of(call: Call, entry: Entry, domain: str) -> Line:
    state, kind = state_of(entry)
    return Line(
        name=entry.name,
        url=container_url(call.request, f"{label(entry.name)}.containers.{domain}"),
        state=state,
        kind=kind,
        memory=size_in_words(entry.memory_own),
        disk=size_in_words(entry.disk_own),
        shared=size_in_words(entry.memory_shared + entry.disk_shared),
    )


def state_of(entry: Entry) -> tuple[str, str]:
    """In words, and as the page colours it."""
    if entry.is_asleep:
        return f"idle {in_words(entry.idle_seconds or 0)}", "asleep"
    if entry.status is Status.RUNNING:
        seconds = entry.idle_seconds or 0
        if seconds < ACTIVE_SECONDS:
            return "active now", "awake"
        return f"active {in_words(seconds)} ago", "awake"
    if entry.status is Status.PAUSED:
        return "paused by hand", "still"
    return str(entry.status), "bad" if entry.status is Status.FAILED else "still"


def in_words(seconds: float) -> str:
    """As C{22 weeks}: the largest unit of which there are two, or one of the smallest."""
    for unit, length in _WORDS:
        if seconds >= 2 * length or unit == "second":
            count = int(seconds // length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    raise AssertionError
