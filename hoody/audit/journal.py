"""
Events of what must not wait for the database: pipes go on while it is away.

They are put down at once, in files, and written to the database a little later, many
together. Each has a key of its own, so that it is written once and only once, whoever is
killed meanwhile, and however often it has to be tried.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable

import msgspec
from attrs import define, evolve, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody.audit.events import Event
from hoody.audit.results import result_of
from hoody.audit.spool import Spool, read
from hoody.errors import DatabaseAway
from hoody.interfaces import IStore

EVERY = 0.25
"""Seconds between two times that what has come is written."""
MOST_BYTES = 256 * 1024 * 1024
"""How much is put down while the database is away; then what comes is lost."""
SEGMENT_BYTES = 4 * 1024 * 1024
"""How much is read back at a time."""
MOST_HELD = 10_000
"""Events that are held in memory while they cannot be put down."""
BATCH = 250

_log = Logger(namespace="hoody.audit")


@define(eq=False)
class Journal:
    """
    @ivar left_over: told, at the start, of what an earlier process could not write.
    @ivar waiting: how many have not been written yet.
    @ivar lost: how many there was no room for.
    """

    _store: IStore
    _clock: IReactorTime
    _spool: Spool
    left_over: Callable[[Event], None]
    waiting: int = field(default=0, init=False)
    lost: int = field(default=0, init=False)
    _segments: deque[str] = field(factory=deque, init=False)
    _held: deque[bytes] = field(factory=deque, init=False)
    _fresh: bool = field(default=False, init=False)
    _writing: Deferred[None] | None = field(default=None, init=False)
    _call: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._call = LoopingCall(self._tick)
        self._call.clock = self._clock

    def start(self) -> None:
        """Go on where an earlier process was stopped."""
        for segment in self._spool.left_over():
            try:
                lines = read(segment)
            except OSError as error:
                _log.error("{segment} stays unread: {error}", segment=segment, error=error)
                continue
            self._segments.append(segment)
            self.waiting += len(lines)
            for event in filter(None, map(_event, lines)):
                self.left_over(event)
        self._call.start(EVERY, now=False)

    def add(self, event: Event) -> None:
        """Have it written soon; it is safe from the end of this process when this returns."""
        line = msgspec.json.encode(evolve(event, key=event.key or secrets.token_hex(12)))
        if self._spool.size + len(line) > MOST_BYTES:
            self._lose("more events than can be kept while the database is away")
            return
        try:
            self._spool.add(line)
            self._fresh = True
            if self._spool.written >= SEGMENT_BYTES:
                self._seal()
        except OSError as error:
            if len(self._held) >= MOST_HELD:
                self._lose(f"events cannot be put down ({error})")
                return
            if not self._held:
                _log.error("events cannot be put down: {error}; held in memory", error=error)
            self._held.append(line)
        self.waiting += 1

    def _lose(self, why: str) -> None:
        if not self.lost:
            _log.critical("{why}; some are lost", why=why)
        self.lost += 1

    async def stop(self) -> None:
        """Write what is left, if that can be done at once; the next start finds the rest."""
        if self._call.running:
            self._call.stop()
        if self._writing is not None:
            await self._writing
        await self._write()
        if self._held:
            _log.error("{count} event(s) could not be written", count=len(self._held))

    def _tick(self) -> None:
        if self.waiting and self._writing is None:
            self._writing = ensureDeferred(self._write())
            self._writing.addBoth(self._written)

    def _written(self, _: object) -> None:
        self._writing = None

    async def _write(self) -> None:
        try:
            while self._segments or self._fresh:
                if not self._segments:
                    self._seal()
                lines = await deferToThread(read, self._segments[0])
                await self._tell(lines)
                self._spool.remove(self._segments.popleft())
            while self._held:
                lines = list(self._held)
                await self._tell(lines)
                for _ in lines:
                    self._held.popleft()
        except DatabaseAway:
            pass
        except Exception:
            _log.failure("events could not be written; they wait")

    def _seal(self) -> None:
        self._segments.append(self._spool.seal())
        self._fresh = False

    async def _tell(self, lines: list[bytes]) -> None:
        for start in range(0, len(lines), BATCH):
            batch = [event for line in lines[start : start + BATCH] if (event := _event(line))]
            try:
                await self._record(batch)
            except DatabaseAway:
                raise
            except Exception:
                await self._record_each(batch)
        self.waiting -= len(lines)

    async def _record(self, events: list[Event], with_results: bool = True) -> None:
        async with self._store.transaction(patience=5) as transaction:
            for event in events:
                transaction.record(event)
            if with_results:
                results = [result for event in events if (result := result_of(event))]
                if results:
                    await transaction.results.keep(results)

    async def _record_each(self, events: list[Event]) -> None:
        """One of them is not to the database's liking; the others shall not wait for it."""
        for event in events:
            if not (await self._tried(event, True) or await self._tried(event, False)):
                self.lost += 1

    async def _tried(self, event: Event, with_result: bool) -> bool:
        try:
            await self._record([event], with_result)
        except DatabaseAway:
            raise
        except Exception:
            what = "an event with its result" if with_result else "an event"
            _log.failure("{what} could not be written, and is given up", what=what)
            return False
        return True


def _event(line: bytes) -> Event | None:
    try:
        return msgspec.json.decode(line, type=Event)
    except msgspec.DecodeError:
        _log.error("what was put down is no event: {line!r}", line=line[:200])
        return None
