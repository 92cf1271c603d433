"""What is due, in both stores; and in the real one when several come at once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred

from hoody.cron.entry import Due, Entry, RunStatus
from hoody.errors import DatabaseAway
from hoody.interfaces import IStore
from hoody.later import sleep
from hoody.store.database import Database
from tests.support.cron import MINUTE, begin, due, entry, housed, keep, next_due, run_of
from tests.support.postgres import Postgres
from tests.support.stores import NOW, awaits, fresh_id

# What the clock does


@awaits
async def test_an_entry_is_of_the_server_that_has_its_container(store: IStore) -> None:
    here, there = await housed(store, "s1", "s2")
    made = {
        "no container": entry(next_fire_at=NOW),
        "here": entry(next_fire_at=NOW + MINUTE, container_id=here.id, server_id="s2"),
        "there": entry(next_fire_at=NOW, container_id=there.id, run_on="container"),
        "about there": entry(next_fire_at=NOW + MINUTE, container_id=there.id, run_on="server"),
    }
    await keep(store, *made.values())
    ours, theirs = await due(store, NOW + MINUTE), await due(store, NOW + MINUTE, "s2")
    assert [each.entry for each in ours] == [made["no container"], made["here"]]
    assert [each.entry for each in theirs] == [made["there"], made["about there"]]
    assert [(each.project_id, each.container) for each in ours] == [
        (None, None),
        (here.project_id, "s1-0"),
    ]
    assert await due(store, NOW + MINUTE, "s3") == []


@awaits
async def test_due_is_what_fires_now_or_should_have_longest_due_first(store: IStore) -> None:
    late, now = entry(next_fire_at=NOW - MINUTE), entry(next_fire_at=NOW)
    later = entry(next_fire_at=NOW + timedelta(microseconds=1))
    off = entry(next_fire_at=NOW, enabled=False)
    await keep(store, later, now, off, entry(), late)
    assert [each.entry for each in await due(store)] == [late, now]
    async with store.transaction() as transaction:
        cron = transaction.cron
        assert [each.entry for each in await cron.due("s1", NOW, 1)] == [late]
        assert await cron.later_than("s1", NOW, "", 9) == [later]
        both = sorted((now, later), key=lambda each: each.id)
        assert await cron.later_than("s1", NOW - MINUTE, "", 1) == both[:1]
        assert await cron.later_than("s1", NOW - MINUTE, both[0].id, 9) == both[1:]
        assert await cron.later_than("s1", NOW - MINUTE, "", 9) == both
        assert await cron.later_than("s2", NOW - MINUTE, "", 9) == []


@awaits
async def test_who_is_due_comes_with_the_number_of_its_runs_that_are_not_over(
    store: IStore,
) -> None:
    busy, idle = entry(next_fire_at=NOW - MINUTE), entry(next_fire_at=NOW)
    await keep(store, busy, idle)
    await begin(
        store,
        run_of(busy, NOW - MINUTE),
        run_of(busy, NOW - 2 * MINUTE, server_id="s2"),
        run_of(busy, NOW - 3 * MINUTE, status=RunStatus.SUCCEEDED),
        run_of(idle, NOW - MINUTE, status=RunStatus.SKIPPED),
    )
    assert [each.running for each in await due(store)] == [2, 0]


@awaits
async def test_next_due_is_the_first_fire_retry_or_end(store: IStore) -> None:
    own, elsewhere = await housed(store, "s1", "s2")
    assert await next_due(store) is None
    ends = entry(expires_at=NOW + 5 * MINUTE, enabled=False)
    retried = entry(enabled=False)
    apart, about = entry(), entry(container_id=own.id, server_id="s2")
    gone = entry()
    await keep(
        store,
        *(ends, retried, apart, about),
        entry(expires_at=NOW, expired=True),
        entry(next_fire_at=NOW, enabled=False),
        entry(next_fire_at=NOW + MINUTE, expires_at=NOW + MINUTE, server_id="s2"),
        entry(next_fire_at=NOW, expires_at=NOW, container_id=elsewhere.id),
    )
    await begin(store, run_of(gone, retry_at=NOW, status=RunStatus.FAILED))
    assert await next_due(store) == NOW + 5 * MINUTE
    await begin(store, run_of(retried, retry_at=NOW + 4 * MINUTE, status=RunStatus.FAILED))
    assert await next_due(store) == NOW + 4 * MINUTE
    for minutes, each in ((3, apart), (2, about)):
        async with store.transaction() as transaction:
            await transaction.cron.set_next({each.id: NOW + minutes * MINUTE})
        assert await next_due(store) == NOW + minutes * MINUTE
    assert await next_due(store, "s2") == NOW


@awaits
async def test_next_fires_are_set_without_a_version(store: IStore) -> None:
    made = [entry(next_fire_at=NOW) for _ in range(300)]
    await keep(store, *made)
    fires = {each.id: NOW + number * MINUTE for number, each in enumerate(made, 1)}
    async with store.transaction() as transaction:
        await transaction.cron.set_next({})
        await transaction.cron.set_next({**fires, made[0].id: None, "nobody": NOW})
    async with store.transaction() as transaction:
        later = await transaction.cron.later_than("s1", NOW, "", 999)
        assert [each.id for each in later] == [each.id for each in made[1:]]
        assert [each.next_fire_at for each in later] == list(fires.values())[1:]
        assert await transaction.cron.find(made[0].id) == evolve(made[0], next_fire_at=None)
        assert len(await transaction.cron.versions(made[1].id)) == 1


@awaits
async def test_a_failed_run_is_tried_again_with_its_entry_as_it_is_now(store: IStore) -> None:
    (own,) = await housed(store, "s1")
    about, apart = entry(container_id=own.id), entry()
    await keep(store, about, apart, entry(id="theirs", server_id="s2"))
    first = run_of(about, status=RunStatus.FAILED, retry_at=NOW - MINUTE, stderr="why")
    second = run_of(apart, status=RunStatus.TIMED_OUT, retry_at=NOW, attempt=2)
    third = run_of(apart, NOW + MINUTE, status=RunStatus.FAILED, retry_at=NOW)
    await begin(
        store,
        *(third, second, first),
        run_of(apart, NOW - MINUTE, retry_at=NOW + MINUTE),
        run_of(apart, NOW - 2 * MINUTE),
        run_of(entry(id="theirs"), retry_at=NOW),
        run_of(entry(id="gone"), retry_at=NOW),
    )
    changed = evolve(about, version=2, command="false", enabled=False)
    async with store.transaction() as transaction:
        await transaction.cron.change(changed)
    async with store.transaction() as transaction:
        found = await transaction.cron.retries("s1", NOW, 100)
        assert found == [
            Due(entry=changed, project_id=own.project_id, container="s1-0", failed=first),
            Due(entry=apart, running=2, failed=second),
            Due(entry=apart, running=2, failed=third),
        ]
        assert await transaction.cron.retries("s1", NOW, 1) == found[:1]


@awaits
async def test_what_ends_is_told_once(store: IStore) -> None:
    (own,) = await housed(store, "s1")
    first = entry(expires_at=NOW - MINUTE, enabled=False, container_id=own.id)
    second = entry(expires_at=NOW, next_fire_at=NOW)
    await keep(
        store,
        *(second, first),
        entry(expires_at=NOW + MINUTE),
        entry(expires_at=NOW, expired=True),
        entry(expires_at=NOW, server_id="s2"),
    )
    async with store.transaction() as transaction:
        found = await transaction.cron.ending("s1", NOW, 100)
        assert found == [
            Due(entry=first, project_id=own.project_id, container="s1-0"),
            Due(entry=second),
        ]
        assert await transaction.cron.ending("s1", NOW, 1) == found[:1]


# Only the real one: several at once


@awaits
async def test_who_comes_at_the_same_time_gets_others_that_are_due(
    postgres_store: Database,
) -> None:
    made = [entry(next_fire_at=NOW - each * MINUTE, expires_at=NOW) for each in range(10)]
    retried = [entry() for _ in range(4)]
    await keep(postgres_store, *made, *retried)
    await begin(postgres_store, *(run_of(each, retry_at=NOW) for each in retried))
    for ask, each, total in (("due", 4, 10), ("ending", 4, 10), ("retries", 2, 4)):
        async with (
            postgres_store.transaction() as one,
            postgres_store.transaction() as two,
            postgres_store.transaction() as three,
        ):
            first = await getattr(one.cron, ask)("s1", NOW, each)
            second = await getattr(two.cron, ask)("s1", NOW, each)
            rest = await getattr(three.cron, ask)("s1", NOW, 100)
        found = [due.entry.id for due in [*first, *second, *rest]]
        assert [len(first), len(second), len(rest)] == [each, each, total - 2 * each]
        assert len(set(found)) == total


@awaits
async def test_what_was_seen_to_meanwhile_is_not_due_again(postgres_store: Database) -> None:
    own = entry(next_fire_at=NOW)
    await keep(postgres_store, own)
    async with postgres_store.transaction() as one:
        assert [due.entry for due in await one.cron.due("s1", NOW, 9)] == [own]
        async with postgres_store.transaction() as two:
            assert await two.cron.due("s1", NOW, 9) == []
            assert await two.cron.later_than("s1", NOW - MINUTE, "", 9) == []
            await one.cron.begin([run_of(own)])
            await one.cron.set_next({own.id: NOW + MINUTE})
            await one.commit(5)
            assert await two.cron.due("s1", NOW, 9) == []
            (found,) = await two.cron.due("s1", NOW + MINUTE, 9)
    assert (found.entry.next_fire_at, found.running) == (NOW + MINUTE, 1)


@awaits
async def test_two_that_begin_the_same_run_at_once_begin_one(postgres_store: Database) -> None:
    own = entry()
    ours = [run_of(own, NOW + each * MINUTE) for each in range(50)]
    theirs = [evolve(each, id=fresh_id()) for each in ours[::-1]]
    async with postgres_store.transaction() as one:
        assert await one.cron.begin(ours) == {each.id for each in ours}
        waiting = ensureDeferred(begin(postgres_store, *theirs))
        await sleep(reactor, 0.05)
        assert not waiting.called
    assert await waiting == set()
    async with postgres_store.transaction() as transaction:
        found, total = await transaction.cron.runs(own.id, 0, 100)
    assert (found, total) == (ours[::-1], 50)


@awaits
async def test_who_finds_an_entry_for_change_has_others_wait(postgres_store: Database) -> None:
    own = entry(next_fire_at=NOW)
    await keep(postgres_store, own)

    async def find() -> Entry | None:
        async with postgres_store.transaction() as transaction:
            return await transaction.cron.find(own.id, for_change=True)

    changed = evolve(own, version=2, comment="mine")
    async with postgres_store.transaction() as one:
        await one.cron.find(own.id, for_change=True)
        waiting = ensureDeferred(find())
        assert await due(postgres_store) == []
        assert not waiting.called
        await one.cron.change(changed)
    assert await waiting == changed


@awaits
async def test_what_a_connection_had_when_it_was_killed_is_due_for_the_next(
    postgres_store: Database, cluster: Postgres
) -> None:
    own = entry(next_fire_at=NOW)
    await keep(postgres_store, own)
    with pytest.raises(DatabaseAway):
        async with postgres_store.transaction() as transaction:
            (found,) = await transaction.cron.due("s1", NOW, 9)
            await transaction.cron.begin([run_of(own)])
            await transaction.cron.set_next({own.id: None})
            pid = (await transaction._link.run("SELECT pg_backend_pid()"))[0][0]
            cluster.ask("postgres", f"SELECT pg_terminate_backend({pid}, 5000)")
            await transaction.cron.next_due("s1")
    assert await due(postgres_store) == [found] == [Due(entry=own)]
    async with postgres_store.transaction() as transaction:
        assert await transaction.cron.runs(own.id, 0, 9) == ([], 0)
