"""What every store keeps: the real one, and the one in memory."""

from __future__ import annotations

import itertools
import os
import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import cast

import psycopg2
import pytest
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.base import ReactorBase
from twisted.internet.defer import CancelledError, ensureDeferred, gatherResults

from hoody.audit.events import Event, Filter
from hoody.auth.tokens import Scope, Token, mint
from hoody.containers.container import Incarnation, Status, Volume
from hoody.containers.elsewhere import Owner
from hoody.containers.image import ImageStatus
from hoody.containers.transitions import Transition
from hoody.errors import DatabaseAway, InUse, Taken
from hoody.interfaces import IStore
from hoody.later import sleep
from hoody.pipes.results import Result
from hoody.projects import Project
from hoody.snapshots.snapshot import Snapshot
from hoody.store import programs
from hoody.store.cluster import Cluster
from hoody.store.database import Database
from hoody.store.embedded import EmbeddedPostgres
from hoody.store.links import Link
from tests.support.postgres import Postgres, open_folder
from tests.support.stores import (
    NOW,
    awaits,
    container,
    fresh_id,
    furnished,
    image,
    project,
    seconds,
)


def event(event_type: str = "project.created", **more: object) -> Event:
    given: dict[str, object] = {
        "ts": NOW,
        "event_type": event_type,
        "actor": "root",
        "resource_type": event_type.partition(".")[0],
        "resource_id": "x",
        **more,
    }
    return Event(**given)  # type: ignore[arg-type]


async def record(store: IStore, *events: Event) -> None:
    async with store.transaction() as transaction:
        for one in events:
            transaction.record(one)


async def told(store: IStore, **wanted: object) -> list[Event]:
    async with store.transaction() as transaction:
        found, _ = await transaction.events.page(Filter(**wanted), 0, 100, True)  # type: ignore[arg-type]
    return found


# Projects


@awaits
async def test_a_project_is_found_by_its_id_and_by_its_alias_in_any_case(store: IStore) -> None:
    made = project("Billing", color="red", max_snapshots=3, snapshot_retention_days=7, dense=True)
    async with store.transaction() as transaction:
        await transaction.projects.add(made)
    async with store.transaction() as transaction:
        assert await transaction.projects.find(made.id) == made
        assert await transaction.projects.find("bILLING") == made
        assert await transaction.projects.find("nobody") is None


@awaits
async def test_an_alias_is_taken_once_whatever_its_case(store: IStore) -> None:
    first, second = project("Öne"), project("two")
    async with store.transaction() as transaction:
        await transaction.projects.add(first)
        await transaction.projects.add(second)
        await transaction.tokens.add(token("Ñandú"))
    with pytest.raises(Taken):
        async with store.transaction() as transaction:
            await transaction.projects.add(project("öNE"))
    with pytest.raises(Taken):
        async with store.transaction() as transaction:
            await transaction.tokens.add(token("ñANDÚ"))
    with pytest.raises(Taken):
        async with store.transaction() as transaction:
            await transaction.projects.change(
                Project(id=second.id, alias="öne", created_at=NOW, updated_at=NOW)
            )


@awaits
async def test_projects_come_in_pages_and_in_order(store: IStore) -> None:
    async with store.transaction() as transaction:
        for alias in ("c", "a", "b"):
            await transaction.projects.add(project(alias))
        found, total = await transaction.projects.page(1, 5, "alias", True)
        back, _ = await transaction.projects.page(0, 2, "alias", False)
    assert ([one.alias for one in found], total) == (["b", "c"], 3)
    assert [one.alias for one in back] == ["c", "b"]


@awaits
async def test_a_change_and_a_removal_stay(store: IStore) -> None:
    first, second = project("one"), project("two")
    async with store.transaction() as transaction:
        await transaction.projects.add(first)
        await transaction.projects.add(second)
    changed = Project(id=first.id, alias="uno", created_at=NOW, updated_at=NOW, max_containers=2)
    async with store.transaction() as transaction:
        await transaction.projects.change(changed)
        await transaction.projects.remove(second.id)
    async with store.transaction() as transaction:
        found, total = await transaction.projects.page(0, 10, "alias", True)
    assert (found, total) == ([changed], 1)


# Tokens


def token(alias: str, **more: object) -> Token:
    return mint(alias=alias, scopes=(Scope.READ, Scope.CRON), now=NOW, **more)[0]  # type: ignore[arg-type]


@awaits
async def test_a_token_is_kept_with_all_that_it_has(store: IStore) -> None:
    made = token("ci", containers=("a" * 24,), expires_at=NOW + timedelta(days=1))
    async with store.transaction() as transaction:
        await transaction.tokens.add(made)
    async with store.transaction() as transaction:
        assert await transaction.tokens.get(made.id) == made
        assert await transaction.tokens.all() == [made]
        assert await transaction.tokens.remove(made.id)
        assert not await transaction.tokens.remove(made.id)
        assert await transaction.tokens.get(made.id) is None


@awaits
async def test_there_is_one_root_token(store: IStore) -> None:
    async with store.transaction() as transaction:
        await transaction.tokens.add(token("root", root=True))
    with pytest.raises(Taken):
        async with store.transaction() as transaction:
            await transaction.tokens.add(token("another", root=True))


@awaits
async def test_a_secret_is_what_it_was_first(store: IStore) -> None:
    async with store.transaction() as transaction:
        assert await transaction.secret("signing", b"\x00first") == b"\x00first"
    async with store.transaction() as transaction:
        assert await transaction.secret("signing", b"second") == b"\x00first"
        assert await transaction.secret("other", b"third") == b"third"


# Events


@awaits
async def test_an_event_is_told_as_it_was_recorded_and_in_order(store: IStore) -> None:
    first = event(
        data={"alias": "ü\\\"'%s", "n": [1, None]},
        duration_ms=1.5,
        request_id="r",
        container_id="c",
        project_id="p",
    )
    await record(store, first, event("token.created"))
    await record(store, event("token.revoked", ts=NOW - timedelta(days=1)))
    found = await told(store)
    assert [one.event_type for one in found] == [
        "project.created",
        "token.created",
        "token.revoked",
    ]
    assert found[0].data == first.data
    assert (found[0].ts, found[0].duration_ms, found[0].request_id) == (NOW, 1.5, "r")
    assert (found[0].container_id, found[0].project_id) == ("c", "p")
    seqs = [one.seq for one in found]
    assert seqs == sorted(set(seqs))
    assert 0 not in seqs


@awaits
async def test_every_filter_of_events_filters(store: IStore) -> None:
    await record(
        store,
        event("token.created", container_id="a", project_id="p"),
        event("token.revoked", container_id="b", ts=NOW + timedelta(hours=1)),
        event("pipe.failed", project_id="p", ts=NOW + timedelta(hours=2)),
    )

    async def types(**wanted: object) -> list[str]:
        return [one.event_type for one in await told(store, **wanted)]

    assert await types(container_id="a") == ["token.created"]
    assert await types(project_id="p") == ["token.created", "pipe.failed"]
    assert await types(event_types=("pipe.failed", "token.revoked")) == [
        "token.revoked",
        "pipe.failed",
    ]
    assert await types(resource_type="token") == ["token.created", "token.revoked"]
    assert await types(containers=("b", "c")) == ["token.revoked"]
    assert await types(containers=()) == []
    assert await types(since=NOW + timedelta(hours=1)) == ["token.revoked", "pipe.failed"]
    assert await types(until=NOW + timedelta(hours=1)) == ["token.created"]
    assert await types(resource_type="token", container_id="b") == ["token.revoked"]


@awaits
async def test_events_come_in_pages_either_way_and_behind_one(store: IStore) -> None:
    await record(store, *(event(resource_id=str(n)) for n in range(5)))
    async with store.transaction() as transaction:
        newest_first, total = await transaction.events.page(Filter(), 1, 2, False)
        assert ([one.resource_id for one in newest_first], total) == (["3", "2"], 5)
        behind = await transaction.events.after(newest_first[1].seq, Filter(), 10)
        assert [one.resource_id for one in behind] == ["3", "4"]
        assert await transaction.events.newest() == behind[-1].seq


@awaits
async def test_what_is_too_old_goes_a_batch_at_a_time_and_nothing_else(store: IStore) -> None:
    await record(store, *(event(ts=NOW - timedelta(days=n), resource_id=str(n)) for n in range(5)))
    async with store.transaction() as transaction:
        assert await transaction.events.expire(NOW - timedelta(days=1, hours=1), 2) == 2
    async with store.transaction() as transaction:
        assert await transaction.events.expire(NOW - timedelta(days=1, hours=1), 2) == 1
    assert [one.resource_id for one in await told(store)] == ["0", "1"]


# Transactions


@awaits
async def test_there_is_one_event_of_a_key(store: IStore) -> None:
    await record(store, event(key="a"), event(), event(key="b"))
    await record(store, event(key="b", actor="again"), event(), event(key="c"))
    found = await told(store)
    assert [one.key for one in found] == ["a", None, "b", None, "c"]
    assert {one.actor for one in found} == {"root"}


@awaits
async def test_nothing_of_a_transaction_that_fails_is_true(store: IStore) -> None:
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as transaction:
            await transaction.projects.add(project("lost"))
            transaction.record(event())
            raise ZeroDivisionError
    async with store.transaction() as transaction:
        assert await transaction.projects.find("lost") is None
    assert await told(store) == []


@awaits
async def test_observers_are_told_after_a_change_is_true_and_of_no_other(store: IStore) -> None:
    heard: list[str] = []
    store.observe("tokens", lambda: heard.append("tokens"))
    store.observe("events", lambda: heard.append("events"))
    await sleep(reactor, 0.2)
    heard.clear()
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as transaction:
            transaction.announce("tokens")
            raise ZeroDivisionError
    await record(store, event())
    late = seconds() + 5
    while not heard and seconds() < late:
        await sleep(reactor, 0.01)
    assert heard == ["events"]
    async with store.transaction() as transaction:
        transaction.announce("tokens")
    while len(heard) < 2 and seconds() < late:
        await sleep(reactor, 0.01)
    assert heard == ["events", "tokens"]


# Containers and images


@awaits
async def test_servers_say_what_they_are_called_and_whose_is_what(store: IStore) -> None:
    of = await furnished(store)
    async with store.transaction() as transaction:
        await transaction.servers.say("s1", "one")
        await transaction.servers.say("s2", "two")
        await transaction.servers.say("s1", "uno")
        web = container("Web_1", of, alias="front")
        await transaction.containers.add(web)
        await transaction.containers.add(container("db", of, server_id="s3"))
    async with store.transaction() as transaction:
        assert await transaction.servers.names({"s1", "s3"}) == {"s1": "uno"}
        owners = await transaction.containers.owners([web.id, "web-1", "front", "db", "nobody"])
    mine = Owner(container="Web_1", server_id="s1", server="uno")
    theirs = Owner(container="db", server_id="s3", server=None)
    assert owners == {web.id: mine, "web-1": mine, "front": mine, "db": theirs}


@awaits
async def test_a_container_is_kept_as_it_is(store: IStore) -> None:
    of = await furnished(store)
    made = container(
        "Web_1",
        of,
        alias="front",
        command=("sh", "-c", 'echo "a b"'),
        exposed_ports=(1, 65535),
        environment_vars={"A": "ü\n'"},
        volumes=(Volume("data", "/data"),),
        memory_limit=2**40,
        cpu_limit=0.5,
        image_config={"command": ["x"]},
        incarnation=Incarnation(pid=7, started=2**40, boot="b", network=4026531840),
        status=Status.RUNNING,
        status_reason="why",
        idle_since=NOW,
    )
    async with store.transaction() as transaction:
        await transaction.containers.add(made)
    async with store.transaction() as transaction:
        for known_as in (made.id, "web-1", "front"):
            assert await transaction.containers.find(known_as) == made
        assert await transaction.containers.find("web_1") is None
        assert await transaction.containers.of_server("s1") == [made]
        assert await transaction.containers.of_server("s2") == []
        assert await transaction.containers.count(of[0].id) == 1


@awaits
async def test_a_label_leads_to_one_container(store: IStore) -> None:
    of = await furnished(store)
    first, second = container("one", of, alias="uno"), container("two", of, 1)
    async with store.transaction() as transaction:
        await transaction.containers.add(first)
        await transaction.containers.add(second)
    for wrong in (
        container("ONE", of, 2),
        container("uno", of, 2),
        container("three", of, 2, alias="Two"),
    ):
        with pytest.raises(Taken):
            async with store.transaction() as transaction:
                await transaction.containers.add(wrong)
    with pytest.raises(Taken):
        async with store.transaction() as transaction:
            await transaction.containers.change(evolve(second, alias="one"))
    async with store.transaction() as transaction:
        await transaction.containers.change(evolve(first, name="other", alias=None))
    async with store.transaction() as transaction:
        await transaction.containers.change(evolve(second, alias="one"))
    async with store.transaction() as transaction:
        assert await transaction.containers.find("uno") is None
        found = await transaction.containers.find("one")
        assert found is not None
        assert found.name == "two"
        await transaction.containers.remove(second.id)
    async with store.transaction() as transaction:
        assert await transaction.containers.find("one") is None


@awaits
async def test_numbers_are_used_again(store: IStore) -> None:
    of = await furnished(store)
    for expected in (0, 1, 2):
        async with store.transaction() as transaction:
            number = await transaction.containers.free_number("s1")
            assert number == expected
            await transaction.containers.add(container(f"c{number}", of, number))
    async with store.transaction() as transaction:
        middle = await transaction.containers.find("c1")
        assert middle is not None
        await transaction.containers.remove(middle.id)
    async with store.transaction() as transaction:
        assert await transaction.containers.free_number("s1") == 1
        assert await transaction.containers.free_number("s2") == 0


@awaits
async def test_containers_page_by_page(store: IStore) -> None:
    of = await furnished(store)
    made = [container(f"c{number}", of, number) for number in range(5)]
    async with store.transaction() as transaction:
        for one in made:
            await transaction.containers.add(one)
    async with store.transaction() as transaction:
        found, total = await transaction.containers.page(1, 2, "name", False)
        assert ([one.name for one in found], total) == (["c3", "c2"], 5)
        only = (made[0].id, made[4].id, "nobody")
        found, total = await transaction.containers.page(0, 9, "name", True, of[0].id, only)
        assert ([one.name for one in found], total) == (["c0", "c4"], 2)
        assert (await transaction.containers.page(0, 9, "name", True, "elsewhere"))[1] == 0


@awaits
async def test_what_became_of_a_container_is_kept_as_long_as_it_is(store: IStore) -> None:
    of = await furnished(store)
    made = container("one", of)
    steps = [
        Transition(
            container_id=made.id,
            from_status=before,
            to_status=after,
            transition_time=NOW,
            duration_ms=1.5,
            triggered_by="root",
            metadata={"n": [1]},
        )
        for before, after in itertools.pairwise(["creating", "stopped", "running"])
    ]
    async with store.transaction() as transaction:
        await transaction.containers.add(made)
        for step in steps:
            await transaction.containers.passed(step)
    async with store.transaction() as transaction:
        found, total = await transaction.containers.transitions(made.id, 0, 9, True)
        assert [evolve(one, id=0) for one in found] == steps
        newest, _ = await transaction.containers.transitions(made.id, 0, 1, False)
        assert newest == found[1:]
        assert total == 2
        await transaction.containers.remove(made.id)
    async with store.transaction() as transaction:
        assert await transaction.containers.transitions(made.id, 0, 9, True) == ([], 0)


def snapshot(container_id: str, name: str, **more: object) -> Snapshot:
    given: dict[str, object] = {
        "id": fresh_id(),
        "container_id": container_id,
        "name": name,
        "created_at": NOW,
        "created_by": "night",
        "consistency": "frozen",
        **more,
    }
    return Snapshot(**given)  # type: ignore[arg-type]


@awaits
async def test_snapshots_are_kept_as_long_as_their_container(store: IStore) -> None:
    own = container("web", await furnished(store))
    async with store.transaction() as transaction:
        await transaction.containers.add(own)
        first = snapshot(own.id, "snap-2026-05-04", alias="rollback-point", size=2**40)
        second = snapshot(own.id, "undo-2026-05-04-030000", is_undo=True, pause_ms=1.5)
        later = evolve(second, created_at=NOW + timedelta(hours=1))
        for each in (first, later, first):
            await transaction.snapshots.add(each)
    async with store.transaction() as transaction:
        snapshots = transaction.snapshots
        assert await snapshots.of_container(own.id) == [later, first]
        assert await snapshots.of_server(own.server_id) == [first, later]
        assert await snapshots.of_server("another") == []
        assert await snapshots.ids(own.server_id) == {first.id, later.id}
        assert await snapshots.ids("another") == set()
        assert await snapshots.find(own.id, "rollback-point") == first
        assert await snapshots.find(own.id, "snap-2026-05-04") == first
        assert await snapshots.find(own.id, "snap-2026-05-05") is None
        assert await snapshots.find("another", "snap-2026-05-04") is None
        assert await snapshots.counts([own.id, "another"]) == {own.id: 1}
        await snapshots.change(evolve(first, alias=None, digest="sha256:ab", record="ab"))
        assert await snapshots.unread(own.server_id) == [later]
        await snapshots.remove(later.id)
        await snapshots.remove(later.id)
        await transaction.containers.remove(own.id)
        assert await snapshots.of_server(own.server_id) == []


@awaits
async def test_of_a_containers_snapshots_one_has_a_name_and_an_alias(store: IStore) -> None:
    own = container("web", await furnished(store))
    async with store.transaction() as transaction:
        await transaction.containers.add(own)
        await transaction.snapshots.add(snapshot(own.id, "snap-2026-05-04", alias="good"))
        await transaction.snapshots.add(snapshot(own.id, "snap-2026-05-05"))
        await transaction.snapshots.add(snapshot(own.id, "snap-2026-05-06"))
    for name, alias in (("snap-2026-05-04", None), ("snap-2026-05-07", "good")):
        with pytest.raises(Taken):
            async with store.transaction() as transaction:
                await transaction.snapshots.add(snapshot(own.id, name, alias=alias))


@awaits
async def test_snapshots_whose_time_is_over(store: IStore) -> None:
    own = container("web", await furnished(store))
    before, after = NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)
    async with store.transaction() as transaction:
        await transaction.containers.add(own)
        over = snapshot(own.id, "snap-2026-05-01", expires_at=before)
        for each in (
            over,
            snapshot(own.id, "snap-2026-05-02", expires_at=after),
            snapshot(own.id, "snap-2026-05-03"),
            snapshot(own.id, "snap-2026-05-04", expires_at=before, pinned=True),
        ):
            await transaction.snapshots.add(each)
        assert await transaction.snapshots.expired(own.server_id, NOW) == [over]
        assert await transaction.snapshots.expired("another", NOW) == []


@awaits
async def test_an_image_stays_while_a_container_is_made_of_it(store: IStore) -> None:
    of = await furnished(store)
    made = container("one", of)
    ready = evolve(of[1], status=ImageStatus.READY, size=2**40)
    async with store.transaction() as transaction:
        await transaction.containers.add(made)
        await transaction.images.change(ready)
    with pytest.raises(Taken):
        async with store.transaction() as transaction:
            await transaction.images.add(image())
    with pytest.raises(InUse):
        async with store.transaction() as transaction:
            await transaction.images.remove(ready.id)
    async with store.transaction() as transaction:
        assert await transaction.images.find("s1", "box") == ready
        assert await transaction.images.find("s2", "box") is None
        assert await transaction.images.of_server("s1") == [ready]
        await transaction.containers.remove(made.id)
    async with store.transaction() as transaction:
        await transaction.images.remove(ready.id)
    async with store.transaction() as transaction:
        assert await transaction.images.of_server("s1") == []


# Only the real one


@awaits
async def test_whoever_is_cancelled_leaves_no_transaction_and_no_connection_behind(
    postgres_store: Database,
) -> None:
    store, sizes = postgres_store, set()
    for after in (0.0, 0.001, 0.003, 0.01, 0.03):

        async def work() -> None:
            async with store.transaction() as transaction:
                await transaction.projects.add(project("never"))
                await transaction._link.run("SELECT pg_sleep(0.05)")
                await transaction.projects.add(project("neither"))

        running = ensureDeferred(work())
        await sleep(reactor, after)
        running.cancel()
        with pytest.raises(CancelledError):
            await running
        # The next is served at once, on a connection of its own if need be.
        async with store.transaction() as transaction:
            assert await transaction.projects.find("never") is None
        sizes.add(len(store.pool.links))
    late = seconds() + 5
    while store.pool.busy and seconds() < late:
        await sleep(reactor, 0.02)
    assert store.pool.busy == 0
    assert max(sizes) <= store.pool.size


@awaits
async def test_who_waits_for_a_connection_may_be_cancelled_too(postgres_store: Database) -> None:
    pool = postgres_store.pool
    taken = [await pool.take(monotonic() + 5) for _ in range(pool.size)]
    waiting = pool.take(monotonic() + 5)
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    assert pool.waiting == 0
    with pytest.raises(DatabaseAway, match="busy"):
        await pool.take(monotonic() + 0.1)
    for link in taken:
        pool.give_back(link)
    async with postgres_store.transaction() as transaction:
        assert await transaction.events.newest() == 0


@awaits
async def test_a_change_that_comes_too_late_is_told_as_one_that_could_not_be_made(
    postgres_store: Database,
) -> None:
    with pytest.raises(DatabaseAway, match="in time"):
        async with postgres_store.transaction() as transaction:
            await transaction.projects.add(project("late"))
            await transaction.commit(-1)
    async with postgres_store.transaction() as transaction:
        assert await transaction.projects.find("late") is None


@awaits
async def test_a_question_that_takes_too_long_is_given_up_in_time(
    postgres_store: Database,
) -> None:
    begun = seconds()
    with pytest.raises(DatabaseAway, match="in time"):
        async with postgres_store.transaction() as transaction:
            await transaction._link.run("SELECT pg_sleep(30)")
    assert seconds() - begun < 2
    async with postgres_store.transaction() as transaction:
        assert await transaction.events.newest() == 0


@awaits
async def test_an_idle_connection_that_dies_is_replaced_without_a_word(
    postgres_store: Database, cluster: Postgres
) -> None:
    async with postgres_store.transaction() as transaction:
        await transaction.events.newest()
    cluster.ask(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hoody'",
    )
    late = seconds() + 5
    while (postgres_store.pool.links or postgres_store.listener.problem) and (seconds() < late):
        await sleep(reactor, 0.02)
    async with postgres_store.transaction() as transaction:
        assert await transaction.events.newest() == 0


@awaits
async def test_what_is_announced_while_nobody_listens_is_made_up_for(
    postgres_store: Database, cluster: Postgres
) -> None:
    heard: list[bool] = []
    await sleep(reactor, 0.2)
    postgres_store.observe("tokens", lambda: heard.append(True))
    cluster.ask(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN hoody'"
        " OR query = 'SELECT 1'",
    )
    late = seconds() + 10
    while not heard and seconds() < late:
        await sleep(reactor, 0.02)
    assert heard


@awaits
async def test_events_of_many_transactions_at_once_become_true_in_order(
    postgres_store: Database,
) -> None:
    """Who reads behind the newest that he has seen misses none, however they overlap."""
    seen: list[int] = []
    running = True

    async def write() -> None:
        for _ in range(20):
            await record(postgres_store, event())

    async def read() -> None:
        while running:
            async with postgres_store.transaction() as transaction:
                found = await transaction.events.after(seen[-1] if seen else 0, Filter(), 1000)
            seen.extend(one.seq for one in found)

    reading = ensureDeferred(read())
    writers = [ensureDeferred(write()) for _ in range(5)]
    for writer in writers:
        await writer
    running = False
    await reading
    async with postgres_store.transaction() as transaction:
        found = await transaction.events.after(seen[-1], Filter(), 1000)
    assert len(seen) + len(found) == 100
    assert seen == sorted(set(seen))


@awaits
async def test_the_database_itself_lets_nobody_change_what_happened(
    postgres_store: Database, cluster: Postgres
) -> None:
    await record(postgres_store, event(), event())
    dsn = postgres_store.source.dsn
    for statement in (
        "UPDATE hoody.events SET actor = 'nobody'",
        "DELETE FROM hoody.events",
        "TRUNCATE hoody.events",
        "BEGIN; SELECT set_config('hoody.expire_before', '2026-05-04', true);"
        "DELETE FROM hoody.events; COMMIT",
    ):
        connection = psycopg2.connect(dsn)
        try:
            with (
                connection.cursor() as cursor,
                pytest.raises(psycopg2.errors.RestrictViolation, match="only ever added"),
            ):
                cursor.execute(statement)
        finally:
            connection.close()
    assert len(await told(postgres_store)) == 2


@awaits
async def test_a_connection_that_does_not_come_about_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is accepted, and nothing is said to it: a stopped proxy, a cable that was cut."""
    monkeypatch.setattr("hoody.store.links.CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as dumb:
        port = dumb.getsockname()[1]
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(DatabaseAway, match="in time"):
                await Link.open(cast(ReactorBase, reactor), f"host=127.0.0.1 port={port}")
        assert len(os.listdir("/proc/self/fd")) == before


@awaits
async def test_an_embedded_one_may_be_started_again_and_again() -> None:
    if programs.find() is None:
        pytest.skip("Postgres is not installed (apt-get install postgresql)")
    with open_folder() as made:
        (made / "data").mkdir(mode=0o711)
        embedded = EmbeddedPostgres(cast(ReactorBase, reactor), Cluster(str(made / "data")))
        await embedded.start()
        pid, before = embedded.pid, len(os.listdir("/proc/self/fd"))
        try:
            await gatherResults([ensureDeferred(embedded.start()) for _ in range(5)])
            assert embedded.pid == pid
            assert len(os.listdir("/proc/self/fd")) == before
        finally:
            await embedded.stop()
        assert embedded.pid is None


@awaits
async def test_many_that_come_at_once_are_all_served(postgres_store: Database) -> None:
    async def one(number: int) -> int:
        async with postgres_store.transaction() as transaction:
            await transaction.events.newest()
            return number

    running = [ensureDeferred(one(number)) for number in range(200)]
    assert [await each for each in running] == list(range(200))
    assert len(postgres_store.pool.links) <= postgres_store.pool.size


@awaits
async def test_a_change_that_was_given_up_does_not_come_true_later(
    postgres_store: Database, cluster: Postgres
) -> None:
    stopped = 0
    with pytest.raises(DatabaseAway, match="in time"):
        async with postgres_store.transaction(patience=1) as transaction:
            await transaction.projects.add(project("late"))
            (link,) = postgres_store.pool.links
            stopped = (await link.run("SELECT pg_backend_pid()"))[0][0]
            os.kill(stopped, signal.SIGSTOP)
            # Its COMMIT is on the way, and will be read.
    os.kill(stopped, signal.SIGCONT)
    await eventually(lambda: not os.path.exists(f"/proc/{stopped}"))
    async with postgres_store.transaction() as transaction:
        assert await transaction.projects.find("late") is None


async def eventually(wanted: Callable[[], bool]) -> None:
    late = seconds() + 10
    while not wanted():
        assert seconds() < late
        await sleep(reactor, 0.02)


def result(path: str, ended: float = 1_800_000_000.123, **more: object) -> Result:
    given: dict[str, object] = {
        "path": path,
        "delivered": 2**40,
        "total": None,
        "receivers": 3,
        "digest": None,
        "error": None,
        "started": ended - 1.5,
        "ended": ended,
        **more,
    }
    return Result(**given)  # type: ignore[arg-type]


@awaits
async def test_of_each_path_the_newest_result_is_kept(store: IStore) -> None:
    long = "\N{SNOWMAN}" * 1024
    newest = result("a", 1_800_000_009.0, error="it broke off", total=2**41)
    for batch in (
        [result("a"), result(long, digest="sha256:ab")],
        [newest, result("a", 1_800_000_005.0), result("b")],
        [result("a", 1_800_000_008.0)],
    ):
        async with store.transaction() as transaction:
            await transaction.results.keep(batch)
    async with store.transaction() as transaction:
        assert await transaction.results.find("a") == newest
        assert await transaction.results.find(long) == result(long, digest="sha256:ab")
        assert await transaction.results.find("c") is None


@awaits
async def test_results_that_are_too_old_go_a_batch_at_a_time(store: IStore) -> None:
    async with store.transaction() as transaction:
        await transaction.results.keep([result(str(n), 1_800_000_000.0 + n) for n in range(10)])
    before = datetime.fromtimestamp(1_800_000_005, UTC)
    async with store.transaction() as transaction:
        assert await transaction.results.expire(before, 3) == 3
        assert await transaction.results.expire(before, 3) == 2
    async with store.transaction() as transaction:
        left = [await transaction.results.find(str(n)) for n in range(10)]
    assert [one is not None for one in left] == [False] * 5 + [True] * 5
