"""How runs go is written down: by one transaction, what has come while the last was under way."""

from __future__ import annotations

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from hoody.audit.events import Event
from hoody.auth.keyring import TOPIC as TOKENS
from hoody.auth.tokens import Token
from hoody.cron.entry import TOPIC, Run
from hoody.errors import DatabaseAway
from hoody.interfaces import IStore, ITransaction

MOST = 16
"""Notes that are written by one transaction."""
PATIENCE = 10.0


@frozen(kw_only=True)
class Note:
    """
    What is to become true of a run, all of it or nothing.

    @ivar run: as it is now.
    @ivar event: what is told of it.
    @ivar given: the token that it has from now on.
    @ivar taken: the ids of those that it has no longer.
    """

    run: Run
    event: Event
    given: Token | None = None
    taken: tuple[str, ...] = ()


@define(eq=False)
class Scribe:
    """
    Whatever number of runs there is, it takes one connection to the database: others are for who
    asks for something else.
    """

    _store: IStore
    _waiting: list[tuple[Note, Deferred[None]]] = field(factory=list, init=False)
    _is_writing: bool = field(default=False, init=False)

    def write(self, note: Note) -> Deferred[None]:
        """@return: fires when it is written; fails with L{DatabaseAway} if it may not be."""
        done: Deferred[None] = Deferred()
        self._waiting.append((note, done))
        if not self._is_writing:
            self._is_writing = True
            ensureDeferred(self._go_on())
        return done

    async def _go_on(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            await self._write(some)
        self._is_writing = False

    async def _write(self, some: list[tuple[Note, Deferred[None]]]) -> None:
        result: Failure | None = None
        try:
            await self._write_all([note for note, _ in some])
        except Exception as error:
            if some[1:] and not isinstance(error, DatabaseAway):
                for one in some:  # which of them will not do?
                    await self._write([one])
                return
            result = Failure()  # type: ignore[no-untyped-call]
        for _, done in some:
            done.callback(result)  # a Failure goes down the errbacks

    async def _write_all(self, notes: list[Note]) -> None:
        async with self._store.transaction(patience=PATIENCE) as transaction:
            for note in notes:
                for token_id in note.taken:
                    await take_token(transaction, token_id)
                if note.given is not None:
                    await transaction.tokens.add(note.given)
                    transaction.announce(TOKENS)
            await transaction.cron.change_runs([note.run for note in notes])
            for note in notes:
                transaction.record(note.event)
                if note.run.retry_at is not None:
                    transaction.announce(TOPIC)


async def take_token(transaction: ITransaction, token_id: str | None) -> None:
    """A run's token ends with it."""
    if token_id is not None:
        await transaction.tokens.remove(token_id)
        transaction.announce(TOKENS)
