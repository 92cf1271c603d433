"""Whose containers are that this server does not have, and what it costs to know."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from hoody.containers import elsewhere
from hoody.containers.container import Container
from hoody.containers.elsewhere import GOOD_FOR, PAUSE, Elsewhere, Owner
from hoody.errors import DatabaseAway
from hoody.store.memory import MemoryStore, MemoryTransaction

NOW = datetime(2026, 5, 4, tzinfo=UTC)
WEB = Container(
    id="0" * 24,
    project_id="1" * 24,
    server_id="s2",
    name="Web_1",
    alias="front",
    container_image="busybox",
    image_id="2" * 24,
    number=0,
    created_at=NOW,
    updated_at=NOW,
)


class Counting(MemoryStore):
    """@ivar questions: how many transactions there were."""

    questions = 0

    def transaction(self, patience: float = 1.5) -> AbstractAsyncContextManager[MemoryTransaction]:
        self.questions += 1
        return super().transaction(patience)


@pytest.fixture
def store() -> Counting:
    store = Counting()

    async def furnish() -> None:
        async with store.transaction() as transaction:
            await transaction.containers.add(WEB)
            await transaction.servers.say("s2", "box")

    ensureDeferred(furnish())
    store.questions = 0
    return store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def others(store: Counting, clock: Clock) -> Elsewhere:
    return Elsewhere(store, clock)


def owner(others: Elsewhere, label: str) -> Deferred[Owner | None]:
    return ensureDeferred(others.owner(label))


def told(asked: Deferred[Owner | None]) -> Owner | None:
    found: list[Owner | None] = []
    asked.addCallback(found.append)
    return found[0]


def test_an_owner_is_named(others: Elsewhere) -> None:
    found = told(owner(others, "front"))
    assert found == Owner(container="Web_1", server_id="s2", server="box")
    assert found.misdirected.sentence == (
        "The container 'Web_1' is on the server 'box' (s2); ask that one."
    )


def test_one_that_has_never_said_its_name_has_an_id() -> None:
    unnamed = Owner(container="web", server_id="s2", server=None)
    assert "on the server s2; ask" in unnamed.misdirected.sentence


def test_an_answer_is_good_for_a_moment(others: Elsewhere, store: Counting, clock: Clock) -> None:
    for _ in range(10):
        assert told(owner(others, "nobody")) is None
        clock.pump([PAUSE] * 2)
    assert store.questions == 1
    clock.advance(GOOD_FOR)
    told(owner(others, "nobody"))
    assert store.questions == 2


def test_all_who_ask_meanwhile_share_a_question(
    others: Elsewhere, store: Counting, clock: Clock
) -> None:
    first = owner(others, "n0")
    asked = [owner(others, f"n{number % 500}") for number in range(1, 1000)]
    asked.append(owner(others, "front"))
    assert told(first) is None
    assert store.questions == 1
    clock.advance(PAUSE)
    assert store.questions == 2
    assert [told(each) for each in asked[:-1]] == [None] * 999
    assert told(asked[-1]) is not None


def test_no_more_is_kept_than_some(
    others: Elsewhere, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "MOST_KEPT", 8)
    for number in range(100):
        owner(others, f"n{number}")
    clock.pump([PAUSE] * 3)
    assert len(others._kept) == 8


def test_what_cannot_be_known_is_not_kept(
    others: Elsewhere, store: Counting, clock: Clock
) -> None:
    store.away = "it is gone"
    asked = [owner(others, "front"), owner(others, "front")]
    clock.advance(PAUSE)
    errors: list[BaseException] = []

    def keep(failure: Failure) -> None:
        assert failure.value is not None
        errors.append(failure.value)

    for each in asked:
        each.addErrback(keep)
    assert [type(error) for error in errors] == [DatabaseAway] * 2
    store.away = None
    clock.advance(PAUSE)
    assert told(owner(others, "front")) is not None
