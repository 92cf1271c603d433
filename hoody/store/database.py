"""Postgres as the rest of the house sees it: brought up, kept, and spoken to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import monotonic
from typing import Protocol

import psycopg2
from attrs import define, field
from twisted.internet.base import ReactorBase
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hoody.errors import DatabaseAway, HoodyError, NoPostgres
from hoody.interfaces import IStore
from hoody.later import in_thread, sleep
from hoody.store.links import Link, first_line, in_words
from hoody.store.listener import Listener
from hoody.store.migrations import Migration, SchemaRefused, known, migrate
from hoody.store.pool import Pool
from hoody.store.postgres import Transaction
from hoody.units import rfc3339

POOL_SIZE = 8
_TRY_AGAIN = 1.0
_STOP_SECONDS = 5.0

_log = Logger(namespace="hoody.database")


def _say(failure: Failure) -> None:
    _log.failure("looking after the database failed", failure)


class Source(Protocol):
    """Where Postgres comes from."""

    @property
    def dsn(self) -> str: ...

    async def start(self) -> None:
        """@raise DatabaseAway: if it cannot be had now."""

    async def look(self) -> None:
        """It has not answered for long; see what is the matter."""

    async def stop(self) -> None: ...


@define(eq=False)
class External:
    """One that somebody else looks after."""

    dsn: str

    async def start(self) -> None:
        """It is there, or is not."""

    async def look(self) -> None:
        """Not ours to look after."""

    async def stop(self) -> None:
        """Not ours to stop."""


@implementer(IStore)
@define(eq=False)
class Database:
    """
    @ivar save: makes, of a DSN, what saves the database before a migration; see
        L{hoody.store.migrations.migrate}.
    @ivar furnish: puts in what must be there before anybody uses it; called once, when it
        has come up.
    @ivar on_refusal: called if its schema is not one that we can work with.
    """

    _reactor: ReactorBase
    source: Source
    save: Callable[[], Callable[[int], None] | None]
    furnish: Callable[[], Awaitable[None]]
    on_refusal: Callable[[SchemaRefused], None]
    pool: Pool = field(init=False)
    listener: Listener = field(init=False)
    up: bool = field(default=False, init=False)
    _stopping: bool = field(default=False, init=False)
    _problem: str | None = field(default="it is starting", init=False)
    _coming: Deferred[None] | None = field(default=None, init=False)
    _waiters: list[Deferred[None]] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.pool = Pool(self._reactor, self._open, POOL_SIZE)
        self.listener = Listener(self._reactor, self._open)
        self.listener.on_beat = self._is_alive
        self.listener.on_despair = lambda: ensureDeferred(self.source.look()).addErrback(_say)

    def _is_alive(self) -> None:
        if not self.pool.waiting:
            self.pool.problem = None

    def _open(self) -> Awaitable[Link]:
        return Link.open(self._reactor, self.source.dsn)

    def start(self) -> None:
        """Begin to bring it up; go on until it is."""
        self.pool.start()
        self._coming = ensureDeferred(self._come_up())

    async def ready(self, seconds: float) -> None:
        """
        Wait until it is up.

        @raise DatabaseAway: if it is not, that long.
        """
        if self.up:
            return
        waiter: Deferred[None] = Deferred(self._forget)
        self._waiters.append(waiter)
        try:
            await waiter.addTimeout(seconds, self._reactor)
        except Exception as error:
            raise DatabaseAway(self.problem or "it takes long to start") from error

    def _forget(self, waiter: Deferred[None]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    async def stop(self) -> None:
        """Leave it, and stop it if it is ours."""
        self._stopping = True
        self.up, self._problem = False, "the server is stopping"
        self.listener.stop()
        self.pool.stop()
        await self.source.stop()
        if self._coming is not None:
            # A migration may hang with its database; we need not.
            await self._coming.addTimeout(_STOP_SECONDS, self._reactor).addErrback(lambda _: None)

    async def _come_up(self) -> None:
        while not self._stopping:
            try:
                await self._try_to_come_up()
                break
            except SchemaRefused as refusal:
                self._problem = refusal.sentence
                self.on_refusal(refusal)
                self._wake(DatabaseAway(refusal.sentence))
                return
            except CancelledError:
                return
            except Exception as error:
                problem = getattr(error, "reason", in_words(error))
                if problem != self._problem:
                    _log.error(
                        "the database is away: {problem} ({detail})",
                        problem=problem,
                        detail=first_line(error.__cause__ or error),
                    )
                    if not isinstance(error, (HoodyError, psycopg2.Error, OSError)):
                        _log.failure("and this was not expected")
                self._problem = problem
                if isinstance(error, NoPostgres):
                    self._wake(error)  # there is nothing to wait for
                await sleep(self._reactor, _TRY_AGAIN)
        self._coming = None
        self._wake(None)

    def _wake(self, result: object) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if isinstance(result, Exception):
                waiter.errback(result)
            else:
                waiter.callback(None)

    async def _try_to_come_up(self) -> None:
        await self.source.start()
        if self._stopping:
            return
        now = rfc3339(self._reactor.seconds())

        def bring_up_to_date() -> list[Migration]:
            return migrate(self.source.dsn, now=now, migrations=known(), save=self.save())

        applied = await in_thread(self._reactor, bring_up_to_date)
        for migration in applied:
            _log.info("applied {number:04}_{name}", number=migration.number, name=migration.name)
        if self._stopping:
            return
        self.up = True
        try:
            await self.furnish()
        except BaseException:
            self.up = False
            raise
        if not self._stopping:
            self._problem = None
            self.listener.start()

    @property
    def problem(self) -> str | None:
        """Why it cannot be used, as far as we know."""
        return self._problem or self.listener.problem or self.pool.problem

    def part(self) -> dict[str, object]:
        """For C{/health}."""
        problem = self.problem
        return {
            "status": "down" if problem else "ok",
            **({"problem": problem} if problem else {}),
            "embedded": not isinstance(self.source, External),
            "connections": len(self.pool.links) + self.listener.connections,
            "busy": self.pool.busy,
            "waiting": self.pool.waiting,
        }

    # IStore

    def observe(self, topic: str, observer: Callable[[], None]) -> None:
        self.listener.observe(topic, observer)

    def transaction(self, patience: float = 1.5) -> AbstractAsyncContextManager[Transaction]:
        return self._transaction(patience)

    @asynccontextmanager
    async def _transaction(self, patience: float) -> AsyncIterator[Transaction]:
        if not self.up:
            raise DatabaseAway(self._problem or "it is not up")
        late = monotonic() + patience
        link = await self.pool.take(late)
        try:
            await link.run("BEGIN")
            # It began before we hear of it, so what is left then is not too much.
            within = late - monotonic()
            transaction = Transaction(link)
            yield transaction
            await transaction.commit(within)
        except BaseException:
            self.pool.retire(link)
            raise
        self.pool.give_back(link)
