"""What the clock does: each due minute once, whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from psycopg2.errors import ReadOnlySqlTransaction
from twisted.internet.defer import Deferred, ensureDeferred, fail

from hoody.cron.entry import Entry, Run, RunStatus
from hoody.cron.errors import NotThere
from hoody.cron.runs import KILL_AFTER, Runs
from hoody.cron.writing import Scribe
from hoody.errors import CannotRun, DatabaseAway, Misdirected
from hoody.store.memory import MemoryStore
from hoody.store.memory_cron import MemoryCron
from tests.support.clockwork import APP, NIGHT, OTHER, SERVER, Clockwork, container


def awaits(test: Callable[..., Any]) -> Any:
    return pytest_twisted.ensureDeferred(test)


@pytest.fixture
def cron() -> Clockwork:
    return Clockwork()


def statuses(runs: list[Run]) -> list[str]:
    return [str(run.status) for run in runs]


async def types(cron: Clockwork) -> list[str]:
    return [event.event_type for event in await cron.told()]


# The usual


@awaits
async def test_it_fires_at_its_minute_and_once(cron: Clockwork) -> None:
    await cron.start()
    entry = await cron.add()
    cron.until(2, 54, 59)
    assert cron.stage.commands == []
    cron.until(2, 55)
    [command] = cron.stage.commands
    assert command.environment == {"HOODY_URL": "http://127.0.0.1:1008"}
    command.hear("stdout", "all ")
    command.hear("stdout", "well\n")
    command.hear("stderr", "nothing\n")
    cron.pass_by(2)
    command.end()
    cron.until(3, 30)
    [run] = await cron.runs_of(entry)
    assert run.status is RunStatus.SUCCEEDED
    assert run.scheduled_at == NIGHT.replace(minute=55)
    assert run.started_at is not None
    assert run.start_delay_ms is not None
    assert 0 <= run.start_delay_ms <= 200
    assert run.duration_ms == pytest.approx(2000, abs=400)
    assert (run.exit_code, run.stdout, run.stderr) == (0, "all well\n", "nothing\n")
    started, finished = await cron.told()
    assert (started.event_type, finished.event_type) == ("cron.run.started", "cron.run.finished")
    assert started.actor == f"cron {entry.id}"
    assert started.resource_id == finished.resource_id == run.id
    assert finished.duration_ms == run.duration_ms
    found = await kept(cron, entry)
    assert found.next_fire_at == NIGHT.replace(minute=55) + timedelta(days=1)


async def kept(cron: Clockwork, entry: Entry) -> Entry:
    async with cron.store.transaction() as transaction:
        found = await transaction.cron.find(entry.id)
    assert found is not None
    return found


@awaits
async def test_a_run_of_a_container_has_a_token_that_ends_with_it(cron: Clockwork) -> None:
    await cron.start()
    async with cron.store.transaction() as transaction:
        await transaction.containers.add(container())
    entry = await cron.add(container_id=APP, run_on="container", environment_vars={"A": "b"})
    cron.until(2, 55)
    [command] = cron.stage.commands
    given = command.environment
    assert given.keys() == {"A", "HOODY_URL", "CONTAINER_ID", "HOODY_TOKEN", "SNAP_URL"}
    assert given["CONTAINER_ID"] == APP
    url = f"http://127.0.0.1:1008/api/v1/containers/{APP}/snapshots?cap="
    assert given["SNAP_URL"].startswith(url)
    token = cron.keyring.find(given["HOODY_TOKEN"])
    assert token is not None
    assert (token.scopes, token.containers) == (("snapshot", "pipe"), (APP,))
    assert cron.keyring.signer is not None
    text = given["SNAP_URL"].removeprefix(url)
    capability = cron.keyring.signer.read_capability(text)
    assert capability is not None
    assert capability.token_id == token.id
    command.hear("stdout", f"{given['HOODY_TOKEN']} {given['SNAP_URL']}")
    command.end()
    assert cron.keyring.find(given["HOODY_TOKEN"]) is None
    async with cron.store.transaction() as transaction:
        assert await transaction.tokens.all() == []
    [run] = await cron.runs_of(entry)
    assert run.stdout == f"*** {url}***"
    assert run.token_id is None
    [started, finished] = await cron.told()
    for event in (started, finished):
        assert (event.container_id, event.project_id) == (APP, "e" * 24)
        assert event.data["container"] == "app"


@awaits
async def test_what_cannot_be_begun_has_failed_and_says_why(cron: Clockwork) -> None:
    await cron.start()
    cron.stage.refusal = CannotRun("There is no user.")
    entry = await cron.add()
    cron.until(2, 56)
    [run] = await cron.runs_of(entry)
    assert (run.status, run.exit_code, run.stderr) == ("failed", 126, "There is no user.\n")
    assert await types(cron) == ["cron.run.started", "cron.run.failed"]
    assert (await cron.told())[-1].data["error"] == "There is no user."


@awaits
async def test_what_takes_too_long_is_asked_to_end_and_then_ended(cron: Clockwork) -> None:
    await cron.start()
    entry = await cron.add(timeout_seconds=10)
    cron.until(2, 55)
    [command] = cron.stage.commands
    cron.pass_by(9)
    assert command.signals == []
    cron.pass_by(1.2)
    assert command.signals == ["TERM"]
    cron.pass_by(KILL_AFTER)
    assert command.signals == ["TERM", "KILL"]
    command.end(-9)
    [run] = await cron.runs_of(entry)
    assert (run.status, run.exit_code) == ("timed_out", -9)
    failed = (await cron.told())[-1]
    assert failed.data["error"] == "it took longer than 10 s"
    cron.pass_by(100)
    assert command.signals == ["TERM", "KILL"]


@awaits
async def test_a_failure_is_tried_again_later_and_later(cron: Clockwork) -> None:
    await cron.start()
    entry = await cron.add(retries=2)
    cron.until(2, 55)
    for attempt, seconds in ((1, 30), (2, 60), (3, None)):
        assert len(cron.stage.commands) == attempt
        cron.stage.commands[-1].end(7)
        if seconds is not None:
            cron.pass_by(seconds - 1)
            assert len(cron.stage.commands) == attempt
            cron.pass_by(1.5)
    cron.until(3, 30)
    runs = await cron.runs_of(entry)
    assert len(cron.stage.commands) == 3
    assert [(run.attempt, run.status, run.exit_code) for run in runs] == [
        (1, "failed", 7),
        (2, "failed", 7),
        (3, "failed", 7),
    ]
    assert {run.scheduled_at for run in runs} == {NIGHT.replace(minute=55)}


@awaits
async def test_no_more_run_at_once_than_may(cron: Clockwork) -> None:
    cron = Clockwork(most=2)
    await cron.start()
    entries = [await cron.add() for _ in range(5)]
    cron.until(2, 55)
    async with cron.store.transaction() as transaction:
        assert len(await transaction.cron.unfinished(SERVER, "", 100)) == 5, "all are claimed"
    for count in (2, 3, 4, 5, 5):
        assert len(cron.stage.commands) == count
        next(each for each in cron.stage.commands if not each.ended.called).end()
        cron.pass_by(0.2)
    for each in entries:
        assert statuses(await cron.runs_of(each)) == ["succeeded"]


# One that is due while it runs


@pytest.mark.parametrize(
    ("overlap", "at_three", "in_the_end"),
    [
        ("skip", ["running", "skipped"], ["succeeded", "skipped", "succeeded"]),
        ("queue", ["running", "running"], ["succeeded", "succeeded", "succeeded"]),
        ("allow", ["running", "running"], ["succeeded", "succeeded", "succeeded"]),
    ],
)
@awaits
async def test_one_that_is_due_while_it_runs(
    cron: Clockwork, overlap: str, at_three: list[str], in_the_end: list[str]
) -> None:
    await cron.start()
    entry = await cron.add(schedule="0,1,2 3 * * *", overlap=overlap)
    cron.until(3, 1)
    assert statuses(await cron.runs_of(entry)) == at_three
    assert len(cron.stage.commands) == (2 if overlap == "allow" else 1)
    cron.until(3, 1, 30)
    ended = 0
    while ended < len(cron.stage.commands):
        cron.stage.commands[ended].end()
        ended += 1
        cron.pass_by(0.2)
    cron.until(3, 2)
    cron.stage.commands[-1].end()
    cron.pass_by(0.2)
    assert statuses(await cron.runs_of(entry)) == in_the_end
    assert ("cron.run.skipped" in await types(cron)) is (overlap == "skip")


@awaits
async def test_not_more_than_some_wait_for_their_turn(cron: Clockwork) -> None:
    await cron.start()
    entry = await cron.add(schedule="* 3 * * *", overlap="queue")
    cron.until(3, 20)
    assert statuses(await cron.runs_of(entry)) == ["running"] * 11 + ["skipped"] * 10


# Whatever happens


@pytest.mark.parametrize("seconds", [100, 301])
@awaits
async def test_while_the_database_is_away_it_waits_or_is_missed(
    cron: Clockwork, seconds: int
) -> None:
    await cron.start()
    entry = await cron.add()
    cron.until(2, 54)
    cron.store.away = "it is away"
    cron.until(2, 55)
    cron.pass_by(seconds, 1.0)
    assert cron.stage.commands == []
    cron.store.away = None
    cron.pass_by(2)
    is_late = seconds < 300
    assert len(cron.stage.commands) == is_late
    for command in cron.stage.commands:
        command.end()
    [run] = await cron.runs_of(entry)
    assert run.status == ("succeeded" if is_late else "missed")
    assert run.scheduled_at == NIGHT.replace(minute=55)
    if is_late:
        assert run.start_delay_ms == pytest.approx(seconds * 1000, abs=2500)
        assert await types(cron) == ["cron.run.started", "cron.run.finished"]
    else:
        assert await types(cron) == ["cron.run.missed"]


@awaits
async def test_what_ends_while_the_database_is_away_is_written_later(cron: Clockwork) -> None:
    await cron.start()
    entry = await cron.add()
    cron.until(2, 55)
    cron.store.away = "it is away"
    cron.stage.commands[0].end(3)
    cron.pass_by(60)
    cron.store.away = None
    cron.pass_by(2)
    [run] = await cron.runs_of(entry)
    assert (run.status, run.exit_code) == ("failed", 3)
    assert run.finished_at is not None
    assert run.finished_at < NIGHT.replace(minute=55, second=2)
    assert await types(cron) == ["cron.run.started", "cron.run.failed"]


def fails_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    write = Scribe.write

    def once(*_: Any) -> Deferred[None]:
        monkeypatch.setattr(Scribe, "write", write)
        return fail(error)

    monkeypatch.setattr(Scribe, "write", once)


@awaits
async def test_whatever_keeps_an_end_from_being_written_it_is_tried_again(
    cron: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a database that takes no changes for a while."""
    await cron.start()
    entry = await cron.add()
    cron.until(2, 55)
    fails_once(monkeypatch, ReadOnlySqlTransaction())
    cron.stage.commands[0].end()
    cron.pass_by(3)
    assert statuses(await cron.runs_of(entry)) == ["succeeded"]


@awaits
async def test_another_attempt_is_not_missed_as_the_database_blinks(
    cron: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is late by its nature."""
    cron.runs.retry_seconds = 600.0
    await cron.start()
    entry = await cron.add(retries=1)
    cron.until(2, 55)
    cron.stage.commands[0].end(1)
    cron.until(3, 4, 50)
    fails_once(monkeypatch, DatabaseAway("it is away"))
    cron.until(3, 6)
    assert statuses(await cron.runs_of(entry)) == ["failed", "running"]
    cron.stage.commands[1].end()


@awaits
async def test_one_that_goes_wrong_in_an_unforeseen_way_is_over(
    cron: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cron.start()
    async with cron.store.transaction() as transaction:
        await transaction.containers.add(container())
    entry = await cron.add(container_id=APP, run_on="container", schedule="* * * * *")
    monkeypatch.setattr(Runs, "_given", lambda *_: 1 / 0)
    cron.until(2, 1)
    monkeypatch.undo()
    cron.pass_by(1)
    [run] = await cron.runs_of(entry)
    assert (run.status, run.token_id) == ("lost", None)
    assert "in the server's log" in (await cron.told())[-1].data["error"]
    async with cron.store.transaction() as transaction:
        assert await transaction.tokens.all() == []
    cron.until(2, 2)
    assert len(cron.stage.commands) == 1


@awaits
async def test_nothing_begins_before_the_database_is_furnished(cron: Clockwork) -> None:
    cron.scheduler.start(SERVER)
    async with cron.store.transaction() as transaction:
        await transaction.containers.add(container())
    entry = await cron.add(container_id=APP, run_on="container")
    cron.until(2, 55)
    await cron.keyring.load()
    cron.pass_by(2)
    assert statuses(await cron.runs_of(entry)) == ["running"]
    assert "SNAP_URL" in cron.stage.commands[0].environment


@awaits
async def test_of_several_that_nobody_saw_to_the_latest_runs(cron: Clockwork) -> None:
    entry = await cron.add(schedule="*/5 2 * * *")
    cron.until(2, 27)
    await cron.start()
    cron.pass_by(1)
    missed, run = await cron.runs_of(entry)
    assert (missed.status, missed.scheduled_at) == ("missed", NIGHT.replace(minute=5))
    assert (run.status, run.scheduled_at) == ("running", NIGHT.replace(minute=25))
    told = (await cron.told())[0]
    assert (told.event_type, told.data["fires"]) == ("cron.run.missed", 4)
    cron.stage.commands[0].end()
    cron.until(2, 30)
    assert len(cron.stage.commands) == 2


@awaits
async def test_a_server_that_was_killed_before_it_began_has_lost_it(cron: Clockwork) -> None:
    cron = Clockwork(most=1)
    await cron.start()
    async with cron.store.transaction() as transaction:
        await transaction.containers.add(container())
    first = await cron.add(schedule="54 2 * * *", container_id=APP, run_on="container")
    second = await cron.add()
    cron.until(2, 55)
    again = Clockwork(store=cron.store, clock=cron.clock)
    cron.scheduler._call.stop()
    await again.start()
    again.pass_by(2)
    assert again.stage.commands == []
    began, never = [(await again.runs_of(each))[0] for each in (first, second)]
    assert (began.status, never.status) == ("lost", "lost")
    assert (began.started_at is None, never.started_at is None) == (False, True)
    errors = [event.data["error"] for event in await again.told() if "error" in event.data]
    assert sorted(errors) == [
        "the server was killed before it began",
        "the server was killed while it ran",
    ]
    async with cron.store.transaction() as transaction:
        assert await transaction.tokens.all() == []
    again.until(3, 30)
    assert again.stage.commands == []


@awaits
async def test_however_many_were_lost_what_is_due_is_seen_to(
    cron: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And some have lost their entry, too."""
    batches = []
    unfinished = MemoryCron.unfinished

    async def some(*given: Any) -> list[Run]:
        batches.append(await unfinished(*given))
        return batches[-1]

    async def all_that_was_said(*_: Any) -> Any:
        raise AssertionError("it may be megabytes")

    entries = [await cron.add(schedule="54 2 * * *") for _ in range(250)]
    before = Clockwork(store=cron.store, clock=cron.clock, most=300)
    await before.start()
    before.until(2, 54)
    before.scheduler._call.stop()
    async with cron.store.transaction() as transaction:
        await transaction.cron.remove(entries[7].id)
    later = await cron.add()
    monkeypatch.setattr(MemoryCron, "unfinished", some)
    monkeypatch.setattr(MemoryCron, "runs", all_that_was_said)
    await cron.start()
    cron.until(2, 55)
    assert [command.due.entry.id for command in cron.stage.commands] == [later.id]
    assert list(map(len, batches)) == [100, 100, 50]
    assert (await types(cron)).count("cron.run.failed") == 250


@awaits
async def test_what_was_asked_for_while_the_database_went_is_not_lost_and_run(
    cron: Clockwork,
) -> None:
    """Before it was known what an earlier process had left."""
    entry = await cron.add(enabled=False)
    await cron.keyring.load()
    cron.scheduler.start(SERVER)
    begin = cron.store.transaction

    @asynccontextmanager
    async def goes(_: float = 0) -> AsyncIterator[Any]:
        async with begin() as transaction:
            yield transaction
        raise DatabaseAway("it went, and had written it")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(DatabaseAway):
        patch.setattr(MemoryStore, "transaction", lambda *_: goes())
        await cron.scheduler.run_now(entry, "ci")
    cron.pass_by(3)
    assert len(cron.stage.commands) == 1
    assert statuses(await cron.runs_of(entry)) == ["running"]
    assert "cron.run.failed" not in await types(cron)


@awaits
async def test_one_whose_times_cannot_be_told_keeps_no_other_waiting(cron: Clockwork) -> None:
    """As when a new list of time zones has no such one any more."""
    await cron.start()
    broken, other = await cron.add(), await cron.add()
    async with cron.store.transaction() as transaction:
        await transaction.cron.change(evolve(broken, timezone="Europe/Atlantis", version=2))
    cron.set_clock(NIGHT)
    cron.until(2, 55)
    assert [command.due.entry.id for command in cron.stage.commands] == [other.id]
    assert statuses(await cron.runs_of(broken)) == ["missed"]
    assert (await kept(cron, broken)).next_fire_at is None
    [missed] = [each for each in await cron.told() if each.event_type == "cron.run.missed"]
    assert "Europe/Atlantis" in missed.data["error"]


@awaits
async def test_two_of_one_name_claim_each_fire_once() -> None:
    """As when somebody has copied a data directory."""
    store = MemoryStore()
    cron = Clockwork(store=store)
    twin = Clockwork(store=store, clock=cron.clock)
    entries = [await cron.add() for _ in range(20)]
    await cron.start()
    await twin.start()
    cron.until(2, 56)
    for command in [*cron.stage.commands, *twin.stage.commands]:
        command.end()
    cron.pass_by(1)
    for entry in entries:
        assert statuses(await cron.runs_of(entry)) == ["succeeded"]


@awaits
async def test_each_server_runs_what_is_its_own() -> None:
    store = MemoryStore()
    cron = Clockwork(store=store)
    other = Clockwork(store=store, clock=cron.clock, server_id=OTHER)
    async with store.transaction() as transaction:
        await transaction.containers.add(container(OTHER))
    mine = await cron.add()
    theirs = await cron.add(server_id=OTHER)
    moved = await cron.add(container_id=APP, run_on="container")
    await cron.start()
    await other.start()
    cron.until(2, 55)
    assert [each.due.entry.id for each in cron.stage.commands] == [mine.id]
    assert {each.due.entry.id for each in other.stage.commands} == {theirs.id, moved.id}
    with pytest.raises(Misdirected):
        await cron.scheduler.run_now(theirs, "me")


# Clocks that are set


@awaits
async def test_a_clock_that_is_set_back_does_not_run_it_twice(cron: Clockwork) -> None:
    await cron.start()
    entry = await cron.add()
    cron.until(2, 55)
    cron.stage.commands[0].end()
    cron.pass_by(60)
    cron.set_clock(NIGHT.replace(minute=30))
    cron.until(3, 30)
    assert len(cron.stage.commands) == 1
    found = await kept(cron, entry)
    assert found.next_fire_at == NIGHT.replace(minute=55) + timedelta(days=1)


@awaits
async def test_a_clock_that_was_far_ahead_is_set_right(cron: Clockwork) -> None:
    right = cron.scheduler.now
    await cron.start()
    cron.set_clock(right + timedelta(days=1000))
    entry = await cron.add()
    cron.set_clock(right)
    cron.until(2, 55)
    [command] = cron.stage.commands
    command.end()
    assert statuses(await cron.runs_of(entry)) == ["succeeded"]


@awaits
async def test_a_clock_that_was_set_back_while_no_server_was_there(cron: Clockwork) -> None:
    ahead = NIGHT + timedelta(days=1000, minutes=55)
    await cron.add(next_fire_at=ahead)
    await cron.start()
    cron.until(2, 55)
    assert len(cron.stage.commands) == 1


@awaits
async def test_what_was_missed_by_a_clock_that_was_ahead_is_yet_to_come(cron: Clockwork) -> None:
    right = cron.scheduler.now
    await cron.start()
    entry = await cron.add()
    cron.set_clock(right + timedelta(days=365))
    assert statuses(await cron.runs_of(entry)) == ["missed", "missed"]
    cron.set_clock(right)
    cron.until(2, 55)
    [command] = cron.stage.commands
    command.end()
    assert statuses(await cron.runs_of(entry)) == ["succeeded"]


@awaits
async def test_another_attempt_does_not_wait_for_longer_when_the_clock_is_set_back(
    cron: Clockwork,
) -> None:
    await cron.start()
    entry = await cron.add(retries=2)
    cron.until(2, 55)
    cron.stage.commands[0].end(1)
    cron.set_clock(NIGHT.replace(minute=10))
    cron.pass_by(31)
    assert statuses(await cron.runs_of(entry)) == ["failed", "running"]
    cron.stage.commands[1].end(1)
    cron.set_clock(NIGHT.replace(minute=5))
    cron.pass_by(40)
    assert len(cron.stage.commands) == 2
    cron.pass_by(21)
    assert len(cron.stage.commands) == 3


@awaits
async def test_a_clock_that_is_set_back_as_the_database_goes(
    cron: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = cron.scheduler.now
    await cron.start()
    cron.set_clock(right + timedelta(days=1000))
    await cron.add()
    later_than = MemoryCron.later_than

    async def gone(*_: Any) -> Any:
        monkeypatch.setattr(MemoryCron, "later_than", later_than)
        raise DatabaseAway("it is away")

    monkeypatch.setattr(MemoryCron, "later_than", gone)
    cron.set_clock(right)
    cron.until(2, 55)
    assert len(cron.stage.commands) == 1


@pytest.mark.parametrize("minutes", [3, 60])
@awaits
async def test_a_clock_that_is_set_forward_or_a_laptop_that_slept(
    cron: Clockwork, minutes: int
) -> None:
    """Over the fire, so that it is late; or over that and its deadline."""
    await cron.start()
    entry = await cron.add()
    cron.until(2, 54)
    cron.set_clock(NIGHT.replace(minute=54) + timedelta(minutes=minutes))
    cron.pass_by(1)
    [run] = await cron.runs_of(entry)
    assert run.status == ("running" if minutes == 3 else "missed")
    assert len(cron.stage.commands) == (minutes == 3)


@awaits
async def test_a_run_takes_as_long_as_it_takes_whatever_the_clock_does(cron: Clockwork) -> None:
    await cron.start()
    await cron.add(timeout_seconds=100)
    cron.until(2, 55)
    cron.set_clock(NIGHT + timedelta(days=3))
    cron.pass_by(98)
    assert cron.stage.commands[0].signals == []
    cron.pass_by(3)
    assert cron.stage.commands[0].signals == ["TERM"]


# The end of an entry, and by hand


@awaits
async def test_one_whose_time_is_over_says_so_once_and_runs_no_more(cron: Clockwork) -> None:
    await cron.start()
    entry = await cron.add(schedule="0 * * * *", expires_at=NIGHT.replace(hour=3, minute=30))
    cron.until(3, 0)
    cron.stage.commands[0].end()
    cron.until(6, 0)
    assert len(cron.stage.commands) == 1
    found = await kept(cron, entry)
    assert (found.expired, found.next_fire_at, found.version) == (True, None, 1)
    assert (await types(cron)).count("cron.entry.expired") == 1


@awaits
async def test_it_runs_when_somebody_says_so(cron: Clockwork) -> None:
    await cron.start()
    entry = await cron.add(enabled=False)
    run = await cron.scheduler.run_now(entry, "ci", "r" * 24)
    assert (run.status, run.attempt, run.version) == ("running", 1, 1)
    again = await cron.scheduler.run_now(entry, "ci", "r" * 24)
    assert again.status == "skipped"
    cron.stage.commands[0].end()
    assert sorted(statuses(await cron.runs_of(entry))) == ["skipped", "succeeded"]
    assert {event.actor for event in await cron.told()} == {"ci"}


@awaits
async def test_by_hand_it_runs_as_it_is_now(cron: Clockwork) -> None:
    await cron.start()
    was = await cron.add(enabled=False)
    async with cron.store.transaction() as transaction:
        await transaction.cron.change(evolve(was, command="false", version=2))
    run = await cron.scheduler.run_now(was, "ci")
    assert (run.version, cron.stage.commands[0].due.entry.command) == (2, "false")
    async with cron.store.transaction() as transaction:
        await transaction.cron.remove(was.id)
    with pytest.raises(NotThere):
        await cron.scheduler.run_now(was, "ci")
    assert len(cron.stage.commands) == 1


@awaits
async def test_who_stops_lets_runs_end_and_then_ends_them(cron: Clockwork) -> None:
    await cron.start()
    entry = await cron.add()
    cron.until(2, 55)
    await cron.scheduler.stop()
    stopping = ensureDeferred(cron.runs.stop(5.0))
    cron.pass_by(4.5)
    command = cron.stage.commands[0]
    assert command.signals == []
    cron.pass_by(1)
    assert command.signals == ["TERM"]
    command.end(-15)
    cron.pass_by(1)
    assert stopping.called
    [run] = await cron.runs_of(entry)
    assert run.status == "failed"
    assert (await cron.told())[-1].data["error"] == "the server was stopped"
