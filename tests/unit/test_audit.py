"""The journal, retention and words, with a clock that the test moves."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from hoody.audit import words
from hoody.audit.events import TYPES, Event, Filter, seq_of
from hoody.audit.feed import Feed
from hoody.audit.journal import EVERY, Journal
from hoody.audit.results import result_of as result_in
from hoody.audit.retention import Retention
from hoody.audit.spool import Spool
from hoody.audit.witness import event_of
from hoody.pipes.meeting import Report
from hoody.pipes.watching import result_of
from hoody.store.memory import MemoryStore
from hoody.units import duration_in_words, moment, size_in_words, timed_id

NOW = datetime(2026, 5, 4, 2, 55, 8, tzinfo=UTC)


def event(event_type: str = "pipe.completed", **more: object) -> Event:
    given: dict[str, object] = {
        "ts": NOW,
        "event_type": event_type,
        "actor": "request",
        "resource_type": "pipe",
        "resource_id": "a",
        "data": {"bytes": 1, "receivers": 1, "digest": None, "error": None},
        **more,
    }
    return Event(**given)  # type: ignore[arg-type]


class Audit:
    def __init__(self, folder: Path) -> None:
        self.store, self.clock, self.folder = MemoryStore(), Clock(), folder
        self.found: list[Event] = []
        self.clock.advance(NOW.timestamp())
        self.begin()

    def begin(self) -> None:
        """As a process that finds what an earlier one has left, which was killed."""
        for call in self.clock.getDelayedCalls():
            call.cancel()
        self.journal = Journal(self.store, self.clock, Spool(str(self.folder)), self.found.append)
        self.journal.start()

    def only_segment(self) -> Path:
        (segment,) = self.folder.iterdir()
        return segment

    async def written(self) -> None:
        """Let the journal do its work, which is partly a thread's."""
        for _ in range(500):
            self.clock.advance(EVERY)
            if not self.journal.waiting:
                return
            await deferLater(reactor, 0.01)
        raise AssertionError(f"{self.journal.waiting} wait")

    async def told(self) -> list[str]:
        async with self.store.transaction() as transaction:
            found, _ = await transaction.events.page(Filter(), 0, 10**6, True)
        return [one.resource_id for one in found]


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return Audit(tmp_path / "journal")


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_what_is_added_is_written_soon_and_in_order(audit: Audit) -> None:
    for number in range(3):
        audit.journal.add(event(resource_id=str(number)))
    assert await audit.told() == []
    await audit.written()
    assert await audit.told() == ["0", "1", "2"]
    assert list(audit.folder.iterdir()) == []


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_while_the_database_is_away_events_wait(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hoody.audit.journal.SEGMENT_BYTES", 20_000)
    audit.store.away = "it is gone"
    for number in range(1200):
        audit.journal.add(event(resource_id=str(number)))
        if number % 500 == 0:
            audit.clock.advance(EVERY)
    assert audit.journal.waiting == 1200
    audit.store.away = None
    await audit.written()
    assert await audit.told() == [str(number) for number in range(1200)]


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_whoever_comes_after_a_kill_writes_what_was_left_and_all_of_it_once(
    audit: Audit,
) -> None:
    audit.store.away = "it is gone"
    for number in range(3):
        audit.journal.add(event(resource_id=str(number)))
    left = audit.only_segment()
    lines = left.read_bytes()
    (audit.folder / "somebody-elses.jsonl").write_text("not ours\n")
    audit.begin()
    assert [one.resource_id for one in audit.found] == ["0", "1", "2"]
    audit.store.away = None
    await audit.written()
    assert await audit.told() == ["0", "1", "2"]
    (audit.folder / "somebody-elses.jsonl").unlink()
    # Killed again, between the commit and the removal, and while it wrote a line.
    left.write_bytes(lines + b'{"ts": "20')
    audit.begin()
    assert audit.journal.waiting == 3
    await audit.written()
    assert await audit.told() == ["0", "1", "2"]
    assert list(audit.folder.iterdir()) == []


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_there_is_an_end_to_what_is_kept(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hoody.audit.journal.MOST_BYTES", 1000)
    audit.store.away = "it is gone"
    for number in range(20):
        audit.journal.add(event(resource_id=str(number)))
    assert 0 < audit.journal.waiting < 10
    assert audit.journal.waiting + audit.journal.lost == 20
    kept = audit.journal.waiting
    audit.store.away = None
    await audit.written()
    assert await audit.told() == [str(number) for number in range(kept)]
    audit.journal.add(event(resource_id="later"))
    await audit.written()
    assert (await audit.told())[-1] == "later"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.needs_root
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_on_a_full_disk_events_are_held_and_written_all_the_same(small_disk: Path) -> None:
    audit = Audit(small_disk)
    audit.store.away = "it is gone"
    for number in range(100):
        audit.journal.add(event(resource_id=str(number)))
    segment = audit.only_segment()
    assert 0 < segment.stat().st_size <= 8192
    assert segment.read_bytes().endswith(b"}\n")
    assert audit.journal.waiting == 100
    audit.store.away = None
    await audit.written()
    assert sorted(await audit.told(), key=int) == [str(number) for number in range(100)]


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_an_event_is_written_even_if_its_result_cannot_be(audit: Audit) -> None:
    """The store in memory takes any number; a result that it cannot sort stands for others."""
    odd = {"bytes": 1, "receivers": 1, "digest": None, "error": None}
    audit.journal.add(event(resource_id="a", data=odd))
    audit.journal.add(event(resource_id="b", data={"bytes": 1}))
    audit.journal.add(event(resource_id="c", data=odd))
    await audit.written()
    assert await audit.told() == ["a", "b", "c"]


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_what_is_left_is_written_at_the_end(audit: Audit) -> None:
    audit.journal.add(event())
    await audit.journal.stop()
    assert await audit.told() == ["a"]
    assert not audit.clock.getDelayedCalls()


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_what_is_too_old_goes_as_time_goes(audit: Audit) -> None:
    retention = Retention(audit.store, audit.clock, 3600.0, 86400.0, 86400.0, 60.0)
    retention.start()
    for minutes in range(3):
        audit.journal.add(event(ts=NOW + timedelta(minutes=minutes), resource_id=str(minutes)))
    await audit.written()
    audit.clock.pump([60.0] * 58)
    assert await audit.told() == ["0", "1", "2"]
    audit.clock.pump([60.0] * 3)
    assert await audit.told() == ["2"]
    audit.clock.pump([60.0] * 3)
    assert await audit.told() == []


def test_a_feed_wakes_whoever_waits_and_lets_nobody_miss_anything() -> None:
    feed, heard = Feed(), []
    count = feed.count
    feed.later_than(count).addCallback(lambda _: heard.append("first"))
    assert heard == []
    feed.changed()
    assert heard == ["first"]
    feed.later_than(count).addCallback(lambda _: heard.append("late"))
    assert heard == ["first", "late"]
    waiting: Deferred[None] = feed.later_than(feed.count)
    waiting.addErrback(lambda _: heard.append("cancelled"))
    waiting.cancel()
    feed.close()
    assert heard == ["first", "late", "cancelled"]
    assert feed.later_than(feed.count).called


@pytest.mark.parametrize("event_type", TYPES)
def test_every_type_of_event_has_words(event_type: str) -> None:
    said = words.sentence(event(event_type, data={"alias": "app {x}"}))
    assert "app {x}" in said
    assert event_type not in said


def test_details_are_said_in_few_words() -> None:
    said = words.details(event(data={"bytes": 412 * 1024 * 1024, "receivers": 3}))
    assert said == "412 MiB; to 3 receivers"
    assert words.details(event(data={"error": "gone", "digest": None})) == "gone"
    taken = {"name": "snap-2026-05-04", "alias": "rollback-point", "container": "app"}
    assert words.details(event(data=taken)) == "snap-2026-05-04 of app"
    back = {**taken, "alias": None, "undo": "undo-2026-05-04-031500"}
    assert words.details(event(data=back)) == "of app; what was there is undo-2026-05-04-031500"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.008, "8 ms"), (8, "8.0 s"), (125, "2 min 5 s"), (7260, "2 h 1 min")],
)
def test_durations_are_said_as_people_do(seconds: float, said: str) -> None:
    assert duration_in_words(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (5, "5 bytes"),
        (1152, "1.13 KiB"),
        (1536, "1.50 KiB"),
        (1, "1 byte"),
        (1010 * 1024**2, "1010 MiB"),
        (200 * 1024**3, "200 GiB"),
    ],
)
def test_sizes_are_said_as_people_do(count: int, said: str) -> None:
    assert size_in_words(count) == said


def test_an_events_id_says_when_and_which() -> None:
    one = event(seq=77)
    assert len(one.id) == 24
    assert seq_of(one.id) == 77
    assert int(one.id[:8], 16) == int(NOW.timestamp())
    for bad in ("", "77", "x" * 24, "A" * 24):
        with pytest.raises(ValueError, match="24 hex digits"):
            seq_of(bad)
    assert timed_id(moment(0), 1) == "0" * 23 + "1"


@given(st.floats(0, 2e9), st.floats(0, 1e5), st.one_of(st.none(), st.just("it broke off")))
def test_a_result_is_the_same_from_memory_and_from_the_audit(
    started: float, seconds: float, error: str | None
) -> None:
    report = Report(
        path="a",
        receivers=2,
        delivered=5,
        spliced=0,
        total=10,
        started=started,
        ended=started + seconds,
        digest=None if error else b"12",
        error=error,
    )
    put_down = msgspec.json.encode(event_of(report))
    assert result_in(msgspec.json.decode(put_down, type=Event)) == result_of(report)
