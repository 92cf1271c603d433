"""What both stores keep of cron: entries, what they were before, and their runs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from attrs import evolve

from hoody.auth.tokens import Scope
from hoody.cron.entry import Due, RunStatus
from hoody.interfaces import IStore
from tests.support.cron import MINUTE, begin, entry, housed, keep, run_of
from tests.support.stores import NOW, awaits

LATE = NOW + 9999 * MINUTE

# Entries and their versions


@awaits
async def test_an_entry_is_kept_with_all_that_it_has(store: IStore) -> None:
    (own,) = await housed(store, "s2")
    made = entry(
        type="raw",
        user="ü's",
        name="night %s",
        comment='a "comment"',
        timezone="Europe/Madrid",
        enabled=False,
        overlap="queue",
        timeout_seconds=7,
        retries=2,
        start_deadline_seconds=9,
        environment_vars={"B": "1\n", "A": "{}"},
        container_id=own.id,
        run_on="container",
        scopes=(Scope.SNAPSHOT, Scope.READ),
        expires_at=NOW + MINUTE,
        next_fire_at=NOW + timedelta(microseconds=1),
        expired=True,
        version=3,
    )
    bare = entry(scopes=())
    await keep(store, made, bare)
    async with store.transaction() as transaction:
        assert await transaction.cron.find(made.id) == made
        assert await transaction.cron.find(bare.id, for_change=True) == bare
        assert await transaction.cron.find("nobody") is None
        assert await transaction.cron.versions(made.id) == [evolve(made, next_fire_at=None)]


@awaits
async def test_each_version_is_kept_as_it_was_made_and_outlives_its_entry(store: IStore) -> None:
    first = entry(next_fire_at=NOW)
    second = evolve(first, version=2, command="false", changed_by="ci", next_fire_at=None)
    await keep(store, first)
    async with store.transaction() as transaction:
        cron = transaction.cron
        await cron.change(evolve(first, expired=True))
        await cron.change(second)
        assert await cron.find(first.id) == second
        await cron.remove(first.id)
        await cron.remove(first.id)
        await cron.change(evolve(second, version=3))
    async with store.transaction() as transaction:
        assert await transaction.cron.find(first.id) is None
        assert await transaction.cron.versions(first.id) == [
            second,
            evolve(first, next_fire_at=None),
        ]
        assert await transaction.cron.versions("nobody") == []


@awaits
async def test_entries_page_by_page_and_by_whose_they_are(store: IStore) -> None:
    one, two = await housed(store, "s1", "s1")
    made = [
        entry(user=user, container_id=about, created_at=NOW + number * MINUTE)
        for number, (user, about) in enumerate(
            [("b", None), ("a", one.id), ("b", one.id), ("a", two.id), ("a", None)]
        )
    ]
    await keep(store, *made[::-1])
    async with store.transaction() as transaction:
        page = transaction.cron.page
        assert await page(0, 9) == (made, 5)
        assert await page(1, 2) == (made[1:3], 5)
        assert await page(1, 1, "a") == ([made[3]], 3)
        assert await page(0, 9, container_id=one.id) == (made[1:3], 2)
        assert await page(0, 9, "b", one.id) == ([made[2]], 1)
        assert await page(0, 9, only=(two.id, "nobody")) == ([made[3]], 1)
        assert await page(0, 9, None, one.id, (two.id,)) == ([], 0)
        assert await page(0, 9, only=()) == ([], 0)


@awaits
async def test_entries_in_another_order(store: IStore) -> None:
    made = [
        entry(name=name, next_fire_at=fire, created_at=NOW + number * MINUTE)
        for number, (name, fire) in enumerate(
            [("b", NOW), (None, NOW + MINUTE), ("É", None), ("B", NOW - MINUTE)]
        )
    ]
    none, capital, small, accented = made[1], made[3], made[0], made[2]
    await keep(store, *made)
    async with store.transaction() as transaction:
        page = transaction.cron.page
        assert await page(0, 9, ascending=False) == (made[::-1], 4)
        named = [none, capital, small, accented]
        assert await page(0, 9, sort_by="name") == (named, 4)
        assert await page(1, 2, sort_by="name", ascending=False) == (named[::-1][1:3], 4)
        fires, _ = await page(0, 9, sort_by="next_fire_at")
        assert fires == [accented, capital, small, none]


@awaits
async def test_users_are_those_with_entries_or_a_layout_by_name(store: IStore) -> None:
    (own,) = await housed(store, "s1")
    await keep(store, entry(user="b"), entry(user="b"), entry(user="É", container_id=own.id))
    async with store.transaction() as transaction:
        cron = transaction.cron
        await cron.lay_out("Z", own.id, "# nothing\n")
        await cron.lay_out("a", None, "# nothing\n")
        assert await cron.users(0, 9) == (["Z", "a", "b", "É"], 4)
        assert await cron.users(1, 2) == (["a", "b"], 4)
        assert await cron.users(0, 9, own.id) == (["Z", "É"], 2)
        assert await cron.users(0, 9, None, (own.id,)) == (["Z", "É"], 2)
        assert await cron.users(0, 9, None, ()) == ([], 0)


@awaits
async def test_there_is_one_layout_of_a_user_and_a_container_or_none(store: IStore) -> None:
    (own,) = await housed(store, "s1")
    async with store.transaction() as transaction:
        cron = transaction.cron
        for layout in ("# first\n", "# %s 'second'\n"):
            await cron.lay_out("a", None, layout)
            await cron.lay_out("a", own.id, f"{layout}# in it\n")
    async with store.transaction() as transaction:
        cron = transaction.cron
        assert await cron.layout("a", None) == "# %s 'second'\n"
        assert await cron.layout("a", own.id) == "# %s 'second'\n# in it\n"
        assert await cron.layout("b", None) is None
        await cron.lay_out("a", None, None)
        await cron.lay_out("a", None, None)
        assert await cron.layout("a", None) is None
        assert await cron.layout("a", own.id) is not None


@awaits
async def test_a_container_takes_its_entries_along_but_not_what_was(store: IStore) -> None:
    own, other = await housed(store, "s1", "s1")
    about, elsewhere = entry(container_id=own.id), entry(container_id=other.id)
    run = run_of(about, status=RunStatus.FAILED, retry_at=NOW)
    await keep(store, about, elsewhere)
    await begin(store, run)
    async with store.transaction() as transaction:
        await transaction.cron.lay_out("root", own.id, "# its\n")
        await transaction.containers.remove(own.id)
    async with store.transaction() as transaction:
        cron = transaction.cron
        assert await cron.page(0, 9) == ([elsewhere], 1)
        assert await cron.layout("root", own.id) is None
        assert await cron.versions(about.id) == [about]
        assert await cron.run(run.id) == run
        assert await cron.retries("s1", NOW, 9) == []
        assert await cron.next_due("s1") is None


@awaits
async def test_nothing_is_left_of_what_was_broken_off(store: IStore) -> None:
    before, never = entry(next_fire_at=NOW), entry(next_fire_at=NOW)
    await keep(store, before)
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as transaction:
            cron = transaction.cron
            await cron.add(never)
            await cron.change(evolve(before, version=2))
            await cron.lay_out("root", None, "# never\n")
            await cron.begin([run_of(before)])
            await cron.set_next({before.id: None})
            raise ZeroDivisionError
    async with store.transaction() as transaction:
        cron = transaction.cron
        assert await cron.page(0, 9) == ([before], 1)
        assert len(await cron.versions(before.id)) == 1
        assert await cron.versions(never.id) == []
        assert await cron.layout("root", None) is None
        assert await cron.runs(before.id, 0, 9) == ([], 0)
        assert await cron.due("s1", NOW, 9) == [Due(entry=before)]


# Runs


@awaits
async def test_a_run_is_kept_with_all_that_it_has_and_what_postgres_cannot_keep_is_shown(
    store: IStore,
) -> None:
    begun = run_of(entry(), token_id="t" * 24, version=4, attempt=3, server_id="s9")
    assert await begin(store, begun) == {begun.id}
    over = evolve(
        begun,
        status=RunStatus.FAILED,
        started_at=NOW + timedelta(microseconds=1),
        finished_at=NOW + MINUTE,
        start_delay_ms=0.001,
        duration_ms=60_000.5,
        exit_code=-9,
        stdout="ü\n'%s' \\0 \0\0",
        stderr="\0",
        retry_at=NOW + MINUTE,
    )
    async with store.transaction() as transaction:
        assert await transaction.cron.run(begun.id) == begun
        await transaction.cron.change_runs([over, evolve(over, id="gone")])
    async with store.transaction() as transaction:
        kept = evolve(over, stdout="ü\n'%s' \\0 \ufffd\ufffd", stderr="\ufffd")
        assert await transaction.cron.run(begun.id) == kept
        assert await transaction.cron.run("gone") is None
    also = run_of(entry(), stdout="\0")
    await begin(store, also)
    async with store.transaction() as transaction:
        assert await transaction.cron.run(also.id) == evolve(also, stdout="\ufffd")


@awaits
async def test_of_one_entry_time_and_attempt_there_is_one_run(store: IStore) -> None:
    own = entry()
    many = [run_of(own, NOW + number * MINUTE) for number in range(300)]
    assert await begin(store, *many) == {each.id for each in many}
    again, other = run_of(own, stdout="again"), run_of(own, attempt=2)
    twice = run_of(own, attempt=2)
    assert await begin(store, again, other, twice) == {other.id}
    assert await begin(store) == set()
    async with store.transaction() as transaction:
        assert await transaction.cron.run(many[0].id) == many[0]
        assert await transaction.cron.run(again.id) is None


@awaits
async def test_runs_come_newest_first_and_the_last_without_what_it_said(store: IStore) -> None:
    own, other = entry(), entry()
    first, retried = run_of(own, attempt=1), run_of(own, attempt=2, stdout="o", stderr="e")
    earlier = run_of(own, NOW - MINUTE)
    alone = run_of(other, status=RunStatus.SKIPPED)
    await begin(store, first, retried, earlier, alone)
    async with store.transaction() as transaction:
        cron = transaction.cron
        assert await cron.runs(own.id, 0, 9) == ([retried, first, earlier], 3)
        assert await cron.runs(own.id, 1, 1) == ([first], 3)
        assert await cron.runs("nobody", 0, 9) == ([], 0)
        assert await cron.last_runs([own.id, other.id, "nobody"]) == {
            own.id: evolve(retried, stdout="", stderr=""),
            other.id: alone,
        }
        assert await cron.last_runs([]) == {}


@awaits
async def test_unfinished_are_those_of_this_server_by_id(store: IStore) -> None:
    own = entry(server_id="s2")
    first, second, third = sorted(
        (run_of(own, NOW - number * MINUTE, started_at=NOW) for number in range(3)),
        key=lambda run: run.id,
    )
    over = [
        run_of(own, NOW + number * MINUTE, status=status)
        for number, status in enumerate(RunStatus, 1)
        if status != RunStatus.RUNNING
    ]
    elsewhere = run_of(own, NOW - 3 * MINUTE, server_id="s2")
    await begin(store, second, third, first, elsewhere, *over)
    async with store.transaction() as transaction:
        cron = transaction.cron
        assert await cron.unfinished("s1", "", 9) == [first, second, third]
        assert await cron.unfinished("s1", "", 2) == [first, second]
        assert await cron.unfinished("s1", second.id, 2) == [third]


@awaits
async def test_what_was_said_by_a_clock_that_was_ahead_is_taken_back(store: IStore) -> None:
    own = entry()
    ahead = [run_of(own, NOW + n * MINUTE, status=s) for n, s in enumerate(RunStatus, 1)]
    missed = run_of(own, NOW, status=RunStatus.MISSED)
    other = run_of(own, NOW + 99 * MINUTE, status=RunStatus.MISSED, server_id="s2")
    failed = [
        run_of(own, NOW - MINUTE, status=RunStatus.FAILED, attempt=attempt, retry_at=at)
        for attempt, at in ((1, NOW), (2, NOW + MINUTE), (3, NOW + 60 * MINUTE), (90, LATE))
    ]
    await begin(store, *ahead, missed, other, *failed)
    async with store.transaction() as transaction:
        cron = transaction.cron
        await cron.take_back("s1", NOW, MINUTE)
        there = [run.status for run in ahead if await cron.run(run.id) is not None]
        assert there == [s for s in RunStatus if s not in ("missed", "skipped")]
        assert await cron.run(missed.id) == missed
        assert await cron.run(other.id) == other
        found = [await cron.run(run.id) for run in failed]
    times = [NOW, NOW + MINUTE, NOW + 4 * MINUTE, NOW + 60 * MINUTE]
    assert [run.retry_at for run in found if run] == times


@awaits
async def test_what_there_is_to_know_of_some(store: IStore) -> None:
    one, other = entry(), entry()
    await keep(store, one, other)
    await begin(store, *(run_of(one, NOW - number * MINUTE) for number in range(60)))
    async with store.transaction() as transaction:
        found = await transaction.cron.seen([other.id, "nobody", one.id])
        assert [(due.entry, due.running) for due in found] == [(other, 0), (one, 60)]
        assert await transaction.cron.seen([]) == []


@awaits
async def test_runs_that_are_too_old_go_a_batch_at_a_time_whether_their_entry_is_there_or_not(
    store: IStore,
) -> None:
    own, gone = entry(), entry()
    await keep(store, own)
    runs = [
        run_of(of, NOW - number * MINUTE, status=RunStatus.LOST)
        for of in (own, gone)
        for number in range(4)
    ]
    runs.append(run_of(own, NOW - 9 * MINUTE))
    await begin(store, *runs)
    for expected in (3, 1, 0):
        async with store.transaction() as transaction:
            assert await transaction.cron.expire(NOW - MINUTE, 3) == expected
    async with store.transaction() as transaction:
        mine, _ = await transaction.cron.runs(own.id, 0, 9)
        theirs, _ = await transaction.cron.runs(gone.id, 0, 9)
    assert mine == [*runs[:2], runs[-1]]
    assert theirs == runs[4:6]
