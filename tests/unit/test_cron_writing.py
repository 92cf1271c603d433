"""How runs are written down: together, and none of them less because of another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import pytest_twisted
from attrs import define, evolve
from twisted.internet.defer import Deferred

from hoody.auth import tokens
from hoody.auth.tokens import Scope
from hoody.cron.claims import by_hand
from hoody.cron.entry import Due
from hoody.cron.telling import told_of_run
from hoody.cron.writing import MOST, Note, Scribe
from hoody.errors import DatabaseAway, Taken
from hoody.store.memory import MemoryStore, MemoryTransaction
from tests.support.clockwork import NIGHT, SERVER, entry


def awaits(test: Callable[..., Any]) -> Any:
    return pytest_twisted.ensureDeferred(test)


@define(eq=False)
class Counting(MemoryStore):
    """@ivar transactions: how many were begun."""

    transactions: int = 0

    def transaction(self, patience: float = 1.5) -> AbstractAsyncContextManager[MemoryTransaction]:
        self.transactions += 1
        return super().transaction(patience)


async def note(store: MemoryStore, alias: str | None = None) -> Note:
    """Of a run that is there, and has begun now; with a token that is called so."""
    due = Due(entry=entry(NIGHT))
    run = by_hand(due, NIGHT, SERVER)
    async with store.transaction() as transaction:
        await transaction.cron.begin([run])
    given = None
    if alias is not None:
        given, _ = tokens.mint(alias=alias, scopes=(Scope.PIPE,), now=NIGHT)
    begun = evolve(run, started_at=NIGHT)
    return Note(run=begun, event=told_of_run(due, begun, NIGHT), given=given)


def failure_of(done: Deferred[None]) -> Any:
    """Why it is not written, if it is known by now."""
    found: list[Any] = []
    done.addErrback(found.append)
    assert done.called
    return found[0].value if found else None


@awaits
async def test_what_comes_while_others_are_written_is_written_together() -> None:
    store = Counting()
    notes = [await note(store) for _ in range(MOST + 3)]
    scribe, store.transactions = Scribe(store), 0
    async with store.transaction():
        written = [scribe.write(each) for each in notes]
        assert not any(done.called for done in written)
    assert all(done.called for done in written)
    assert store.transactions == 1 + 3  # ours, the first alone, as many as may be, the rest
    async with store.transaction() as transaction:
        runs = await transaction.cron.unfinished(SERVER, "", 100)
    assert [run.started_at for run in runs] == [NIGHT] * len(notes)


@awaits
async def test_one_that_will_not_do_keeps_no_other_from_being_written() -> None:
    store = MemoryStore()
    notes = [await note(store, alias) for alias in ("first", "one", "one", "other")]
    scribe = Scribe(store)
    async with store.transaction():
        written = [scribe.write(each) for each in notes]
    failures = [failure_of(done) for done in written]
    assert [type(failure) for failure in failures] == [type(None), type(None), Taken, type(None)]
    async with store.transaction() as transaction:
        there = {token.alias for token in await transaction.tokens.all()}
    assert there == {"first", "one", "other"}


@awaits
async def test_all_hear_that_the_database_is_away_and_may_try_again() -> None:
    store = MemoryStore()
    notes = [await note(store) for _ in range(3)]
    scribe = Scribe(store)
    held = store.transaction()
    await held.__aenter__()
    written = [scribe.write(each) for each in notes]
    store.away = "gone"
    with pytest.raises(DatabaseAway):
        await held.__aexit__(None, None, None)
    assert [type(failure_of(done)) for done in written] == [DatabaseAway] * 3
    store.away = None
    assert failure_of(scribe.write(notes[0])) is None
