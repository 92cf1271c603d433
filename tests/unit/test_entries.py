"""Entries as they are made, changed, looked at and deleted: whatever the way they come by."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve

from hoody.audit import words
from hoody.auth.tokens import Scope
from hoody.cron import entries
from hoody.cron.crontab import MOST_ENVIRONMENT
from hoody.cron.entry import RUN_SCOPES, Run, RunStatus
from hoody.cron.errors import CronError, code_of
from hoody.errors import Conflict, Forbidden, HoodyError, Misdirected, NoSuchThing
from tests.support.clockwork import APP, NIGHT, OTHER, SERVER, container
from tests.support.clockwork import entry as some_entry
from tests.support.cronface import Cron, asking

DAY = timedelta(days=1)
ID = "00000000-0000-4000-8000-000000000000"


def awaits(test: Callable[..., Any]) -> Any:
    return pytest_twisted.ensureDeferred(test)


@pytest.fixture
def cron() -> Cron:
    return Cron()


async def refused(work: Any, code: str) -> CronError:
    """What it said, that it would not do."""
    with pytest.raises(CronError) as caught:
        await work
    assert caught.value.code == code
    assert caught.value.sentence.endswith(".")
    return caught.value


# Making


@awaits
async def test_an_entry_has_what_was_said_and_the_rest_as_usual(cron: Cron) -> None:
    made = await cron.create(name="nightly", comment="c", schedule=" 55  2 * * * ")
    assert made.schedule == "55 2 * * *"
    assert (made.name, made.comment, made.type) == ("nightly", "c", "managed")
    assert (made.timezone, made.enabled, made.overlap) == ("UTC", True, "skip")
    assert (made.timeout_seconds, made.retries, made.start_deadline_seconds) == (3600, 0, 300)
    assert (made.container_id, made.run_on, made.scopes) == (None, "server", RUN_SCOPES)
    assert (made.version, made.changed_by, made.server_id) == (1, "me", SERVER)
    assert made.next_fire_at == NIGHT.replace(minute=55)
    assert made.created_at == made.updated_at == NIGHT
    assert await cron.all() == [made]
    assert cron.announced == 1


@awaits
async def test_it_is_told_by_whom_and_never_with_what_may_be_secret(cron: Cron) -> None:
    await cron.has(container())
    made = await cron.create(
        name="nightly", container_id="App", command="secret", environment_vars={"A": "secret"}
    )
    [event] = await cron.told()
    assert (event.event_type, event.actor, event.request_id) == ("cron.entry.created", "me", "r1")
    assert (event.resource_type, event.resource_id) == ("cron_entry", made.id)
    assert (event.container_id, event.project_id) == (APP, "e" * 24)
    assert "secret" not in str(event.data)
    assert words.sentence(event) == "Cron entry nightly was made"
    assert words.details(event) == "of app; 55 2 * * *"


@awaits
async def test_times_are_those_of_its_zone(cron: Cron) -> None:
    made = await cron.create(schedule="55 4 * * *", timezone="Europe/Berlin")
    assert made.next_fire_at == NIGHT.replace(minute=55)


@pytest.mark.parametrize(
    ("given", "code", "sentence"),
    [
        ({"schedule": "0 0 30 2 *"}, "INVALID_SCHEDULE", "never comes"),
        ({"schedule": "0 55 2 * * *"}, "INVALID_SCHEDULE", "6 fields"),
        ({"schedule": "@reboot"}, "INVALID_SCHEDULE", "@reboot"),
        ({"schedule": ""}, "INVALID_SCHEDULE", "five fields"),
        ({"command": ""}, "INVALID_COMMAND", "give what /bin/sh is to run"),
        ({"command": "a\nb"}, "INVALID_COMMAND", "give one line"),
        ({"command": "a\x07"}, "INVALID_COMMAND", "control characters"),
        ({"command": "a" * 4097}, "INVALID_COMMAND", "4096"),
        ({"command": "curl $SNAP_URL"}, "INVALID_COMMAND", "$SNAP_URL"),
        ({"command": 'curl "${SNAP_URL}"'}, "INVALID_COMMAND", "container_id"),
        ({"command": "x ${SNAP_URL:-y}"}, "INVALID_COMMAND", "$SNAP_URL"),
        ({"command": "echo $CONTAINER_ID"}, "INVALID_COMMAND", "$CONTAINER_ID"),
        ({"comment": "c" * 501}, "INVALID_COMMENT", "500"),
        ({"comment": "c\x00"}, "INVALID_COMMENT", "control"),
        ({"name": "n" * 121}, "INVALID_NAME", "120"),
        ({"name": ""}, "INVALID_NAME", "null for none"),
        ({"name": "a\nb"}, "INVALID_NAME", "one line"),
        ({"timezone": "berlin"}, "INVALID_TIMEZONE", "Europe/Berlin"),
        ({"timezone": "../etc/passwd"}, "INVALID_TIMEZONE", "no time zone"),
        ({"expires_at": NIGHT - DAY}, "EXPIRES_IN_PAST", "is past"),
        ({"expires_at": NIGHT}, "EXPIRES_IN_PAST", "later"),
        ({"container_id": "nobody"}, "INVALID_CONTAINER", "no container 'nobody'"),
        ({"run_on": "container"}, "INVALID_CONTAINER", "give container_id"),
        ({"scopes": (Scope.ADMIN,)}, "INVALID_BODY", "admin"),
        ({"environment_vars": {"A": "x" * MOST_ENVIRONMENT}}, "INVALID_BODY", "128 KiB"),
        ({"environment_vars": {"A": "é" * (MOST_ENVIRONMENT // 2)}}, "INVALID_BODY", "128 KiB"),
    ],
)
@awaits
async def test_what_will_not_do_is_refused_by_its_code_and_changes_nothing(
    cron: Cron, given: dict[str, Any], code: str, sentence: str
) -> None:
    error = await refused(cron.create(**given), code)
    assert sentence in error.sentence
    assert error.status == 400
    assert error.details == {"field": next(iter(given))}
    made = await cron.create()
    await refused(cron.change(made, **given), code)
    assert await cron.all() == [made]
    assert [each.event_type for each in await cron.told()] == ["cron.entry.created"]


@pytest.mark.parametrize(
    "given",
    [
        {"command": "x" * 4096},
        {"command": "echo 100% $SNAP_URLS $$SNAP"},
        {"command": "curl $SNAP_URL", "environment_vars": {"SNAP_URL": "x"}},
        {"comment": "two\nlines\tand more", "name": "n" * 120},
        {"schedule": "@daily"},
        {"expires_at": NIGHT + timedelta(milliseconds=1)},
    ],
)
@awaits
async def test_what_will_just_do(cron: Cron, given: dict[str, Any]) -> None:
    made = await cron.create(**given)
    assert {name: getattr(made, name) for name in given} == given


@pytest.mark.parametrize("user", ["", "-x", "a b", "a/b", "x" * 33, "é", "a\n"])
@awaits
async def test_a_user_that_nobody_can_be_called(cron: Cron, user: str) -> None:
    for work in (
        cron.create(user=user),
        cron.looking.page(asking(), user, 0, 20),
        cron.looking.get(asking(), user, ID),
        cron.crontabs.get(asking(), user),
        cron.crontabs.put(asking(), user, ""),
    ):
        await refused(work, "INVALID_USER")


@awaits
async def test_an_unknown_user_is_not_found_where_it_would_run(cron: Cron) -> None:
    await cron.has(container())
    error = await refused(cron.create(user="bob"), "USER_NOT_FOUND")
    assert (error.status, error.details) == (404, {"field": "user"})
    assert "no user bob on this server" in error.sentence
    error = await refused(cron.create(user="bob", container_id="app"), "USER_NOT_FOUND")
    assert "The container 'app' knows no user bob" in error.sentence
    await refused(cron.create(user="bob", container_id="app", run_on="server"), "USER_NOT_FOUND")
    assert cron.users.asked == [("bob", None), ("bob", "app"), ("bob", None)]
    # There are none of theirs, and none that could be shown.
    assert await cron.looking.page(asking(), "bob", 0, 20) == ([], 0)
    assert await cron.crontabs.get(asking(), "bob") == ""


@awaits
async def test_a_user_may_have_many_and_not_any_number(
    cron: Cron, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "MOST_ENTRIES", 2)
    await cron.create()
    await cron.create()
    with pytest.raises(Conflict, match="2 is the most"):
        await cron.create()
    await cron.create(user="alice")


# Whose container


@awaits
async def test_it_runs_in_its_container_unless_it_is_said_otherwise(cron: Cron) -> None:
    await cron.has(container(alias="Front"))
    for name in ("app", "APP", "front", APP):
        made = await cron.create(container_id=name)
        assert (made.container_id, made.run_on) == (APP, "container")
    made = await cron.create(container_id="app", run_on="server", command="curl $SNAP_URL")
    assert (made.container_id, made.run_on) == (APP, "server")


@awaits
async def test_at_its_own_host_a_container_has_its_own_entries(cron: Cron) -> None:
    app = await cron.has(container())
    web = await cron.has(container(id="b" * 24, name="web", number=2))
    here = asking(own=app)
    made = await cron.create(here)
    assert (made.container_id, made.run_on) == (APP, "container")
    assert (await cron.create(here, container_id="app")).container_id == APP
    await refused(cron.create(here, container_id="web"), "INVALID_CONTAINER")
    other = await cron.create(container_id="web")
    assert [each.entry.id for each in (await cron.looking.page(here, "root", 0, 9))[0]] == [
        each.id for each in await cron.all() if each.id != other.id
    ]
    await refused(cron.looking.get(here, "root", other.id), "ENTRY_NOT_FOUND")
    await refused(cron.change(other, here, name="x"), "ENTRY_NOT_FOUND")
    await refused(cron.change(made, here, container_id=None), "INVALID_CONTAINER")
    await refused(cron.change(made, here, container_id="web"), "INVALID_CONTAINER")
    with pytest.raises(NoSuchThing):
        await cron.create(asking(own=evolve(web, project_id="0" * 24)))
    with pytest.raises(NoSuchThing):
        await cron.looking.page(asking(own=evolve(web, id="0" * 24)), "root", 0, 9)
    with pytest.raises(NoSuchThing):
        await cron.looking.page(asking(own=web, containers=(APP,)), "root", 0, 9)


@awaits
async def test_an_entry_moves_to_a_container_and_says_so_when_it_leaves(cron: Cron) -> None:
    await cron.has(container())
    made = await cron.create()
    moved = await cron.change(made, container_id="app")
    assert (moved.container_id, moved.run_on) == (APP, "container")
    # What was to run inside is not to run on the server because nobody thought of it.
    await refused(cron.change(made, container_id=None), "INVALID_CONTAINER")
    back = await cron.change(made, container_id=None, run_on="server")
    assert (back.container_id, back.run_on, back.version) == (None, "server", 3)


# Rights


CRON = asking(Scope.CRON)


@awaits
async def test_what_runs_on_the_server_is_for_admins_to_say(cron: Cron) -> None:
    await cron.has(container())
    made = await cron.create()
    inside = await cron.create(CRON, container_id="app")
    tied = asking(containers=(APP,))
    for by in (CRON, asking(Scope.WRITE, Scope.CRON), tied):
        for work in (
            cron.create(by),
            cron.create(by, container_id="app", run_on="server"),
            cron.change(inside, by, run_on="server"),
        ):
            with pytest.raises(Forbidden):
                await work
    others: tuple[Any, ...] = (
        cron.change(made, CRON, name="x"),
        cron.change(made, CRON, container_id="app"),
        cron.entries.delete(CRON, "root", made.id),
        cron.entries.run(CRON, "root", made.id),
    )
    for work in others:
        with pytest.raises(Forbidden, match="needs admin, as this runs on the server"):
            await work
    assert len(await cron.all()) == 2
    assert not cron.runner.entries
    assert (await cron.looking.get(CRON, "root", made.id)).entry == made


@awaits
async def test_who_is_tied_to_containers_has_entries_of_these(cron: Cron) -> None:
    await cron.has(container())
    await cron.has(container(id="b" * 24, name="web", number=2))
    tied = asking(Scope.CRON, containers=(APP,))
    own = await cron.create(tied, container_id="app")
    other = await cron.create(container_id="web")
    await refused(cron.create(tied, container_id="web"), "INVALID_CONTAINER")
    await refused(cron.change(own, tied, container_id="web"), "INVALID_CONTAINER")
    for work in (
        cron.change(other, tied, name="x"),
        cron.looking.get(tied, "root", other.id),
        cron.looking.runs(tied, "root", other.id, 0, 1),
        cron.looking.versions(tied, "root", other.id),
        cron.looking.next(tied, "root", other.id, 1),
        cron.entries.delete(tied, "root", other.id),
        cron.entries.run(tied, "root", other.id),
    ):
        await refused(work, "ENTRY_NOT_FOUND")
    assert (await cron.looking.page(tied, "root", 0, 9))[1] == 1
    assert (await cron.change(own, tied, name="x")).name == "x"
    # What it was as another's is not theirs.
    await cron.change(other, container_id="app", name="now theirs")
    versions = await cron.looking.versions(tied, "root", other.id)
    assert [each.version for each in versions] == [2]


@awaits
async def test_a_run_may_no_more_than_who_says_what_is_run(cron: Cron) -> None:
    await cron.has(container())
    # What the contract has every run do, the scope for cron is enough for.
    made = await cron.create(CRON, container_id="app", scopes=(Scope.SNAPSHOT,))
    with pytest.raises(Forbidden, match="as runs of this entry have that scope"):
        await cron.create(CRON, container_id="app", scopes=(Scope.WRITE,))
    with pytest.raises(Forbidden):
        await cron.change(made, CRON, scopes=(Scope.READ,))
    writer = asking(Scope.CRON, Scope.WRITE)
    wide = await cron.change(made, writer, scopes=(Scope.READ, Scope.WRITE, Scope.READ))
    assert wide.scopes == (Scope.READ, Scope.WRITE)
    with pytest.raises(Forbidden):
        await cron.change(wide, CRON, command="something else")
    await cron.entries.run(CRON, "root", wide.id)
    await cron.entries.delete(CRON, "root", wide.id)


# Changing


@awaits
async def test_each_change_is_a_version_and_no_change_is_none(cron: Cron) -> None:
    made = await cron.create(name="one")
    cron.clock.advance(60)
    by = asking(alias="other")
    changed = await cron.change(made, by, name="two", command="true")
    assert (changed.version, changed.changed_by, changed.name) == (2, "other", "two")
    assert changed.updated_at == NIGHT + timedelta(minutes=1)
    assert changed.created_at == NIGHT
    for given in ({}, {"name": "two"}, {"schedule": "55  2 * * *"}, {"container_id": None}):
        assert await cron.change(made, **given) == changed
    assert [each.name for each in await cron.looking.versions(asking(), "root", made.id)] == [
        "two",
        "one",
    ]
    told = [each for each in await cron.told() if each.event_type == "cron.entry.updated"]
    assert [(each.actor, each.data["changed"]) for each in told] == [("other", ["name"])]
    assert cron.announced == 2


@awaits
async def test_when_it_is_due_changes_with_what_says_so_alone(cron: Cron) -> None:
    made = await cron.create()
    # It is due, and has not been seen to yet.
    cron.clock.advance(timedelta(hours=1).total_seconds())
    due = made.next_fire_at
    assert (await cron.change(made, name="x")).next_fire_at == due
    tomorrow = (due or NIGHT) + DAY
    assert (await cron.change(made, schedule="56 2 * * *")).next_fire_at == tomorrow.replace(
        minute=56
    )
    assert (await cron.change(made, timezone="Europe/Berlin")).next_fire_at is not None
    assert (await cron.change(made, enabled=False)).next_fire_at is None
    assert (await cron.change(made, comment="still")).next_fire_at is None
    assert (await cron.change(made, enabled=True, timezone="UTC")).next_fire_at == (
        tomorrow.replace(minute=56)
    )


@awaits
async def test_what_ends_before_it_is_due_is_not_due(cron: Cron) -> None:
    made = await cron.create(expires_at=NIGHT + timedelta(minutes=55))
    assert made.next_fire_at is None
    later = await cron.change(made, expires_at=NIGHT + timedelta(minutes=56))
    assert later.next_fire_at == NIGHT.replace(minute=55)
    cron.clock.advance(timedelta(hours=2).total_seconds())
    await cron.has_changed(later, expired=True, next_fire_at=None)
    over = await cron.change(made, name="x")
    assert over.expired
    assert (await cron.change(made, enabled=False)).expired
    lives = await cron.change(made, expires_at=None, enabled=True)
    assert not lives.expired
    assert lives.next_fire_at == NIGHT.replace(minute=55) + DAY


# Looking


@awaits
async def test_a_list_has_the_last_run_of_each(cron: Cron) -> None:
    made = [await cron.create() for _ in range(3)]
    async with cron.store.transaction() as transaction:
        await transaction.cron.begin(
            [
                Run(
                    id=f"{minute:024x}",
                    entry_id=made[0].id,
                    version=1,
                    status=RunStatus.SUCCEEDED,
                    scheduled_at=NIGHT + timedelta(minutes=minute),
                    stdout=f"said {minute}",
                    server_id=SERVER,
                )
                for minute in range(3)
            ]
        )
    shown, total = await cron.looking.page(asking(), "root", 0, 2)
    assert total == 3
    assert len(shown) == 2
    runs = {each.entry.id: each.last_run for each in shown}
    for entry_id, run in runs.items():
        assert (run is not None) == (entry_id == made[0].id)
    one = (await cron.looking.get(asking(), "root", made[0].id)).last_run
    assert one is not None
    assert one.stdout == "said 2"
    found, total = await cron.looking.runs(asking(), "root", made[0].id, 1, 1)
    assert ([each.stdout for each in found], total) == (["said 1"], 3)


@awaits
async def test_it_says_when_it_is_due_next(cron: Cron) -> None:
    made = await cron.create()
    fires = await cron.looking.next(asking(), "root", made.id, 3)
    assert fires == [NIGHT.replace(minute=55) + day * DAY for day in range(3)]
    await cron.change(made, expires_at=NIGHT + 2 * DAY)
    assert len(await cron.looking.next(asking(), "root", made.id, 9)) == 2
    await cron.change(made, enabled=False)
    assert await cron.looking.next(asking(), "root", made.id, 9) == []


@pytest.mark.parametrize("entry_id", [ID, "x", "", "\x00", "a" * 5000])
@awaits
async def test_what_is_not_there_is_not_found(cron: Cron, entry_id: str) -> None:
    error = await refused(cron.looking.get(asking(), "root", entry_id), "ENTRY_NOT_FOUND")
    assert error.status == 404
    assert len(error.sentence) < 300


@awaits
async def test_an_entry_of_another_user_is_not_found(cron: Cron) -> None:
    made = await cron.create()
    await refused(cron.looking.get(asking(), "alice", made.id), "ENTRY_NOT_FOUND")
    assert (await cron.looking.get(asking(), "root", made.id.upper())).entry == made


# Deleting, running


@awaits
async def test_of_one_that_is_deleted_what_it_was_can_be_read(cron: Cron) -> None:
    made = await cron.create(name="x")
    await cron.entries.delete(asking(), "root", made.id)
    assert await cron.all() == []
    assert [each.event_type for each in await cron.told()][-1] == "cron.entry.deleted"
    assert cron.announced == 2
    for work in (
        cron.looking.get(asking(), "root", made.id),
        cron.looking.next(asking(), "root", made.id, 1),
        cron.change(made, name="y"),
        cron.entries.delete(asking(), "root", made.id),
        cron.entries.run(asking(), "root", made.id),
    ):
        await refused(work, "ENTRY_NOT_FOUND")
    assert [each.name for each in await cron.looking.versions(asking(), "root", made.id)] == ["x"]
    assert await cron.looking.runs(asking(), "root", made.id, 0, 9) == ([], 0)


@awaits
async def test_it_runs_at_once_for_who_asks(cron: Cron) -> None:
    made = await cron.create(enabled=False)
    run = await cron.entries.run(asking(), "root", made.id)
    assert run.entry_id == made.id
    assert cron.runner.entries == [(made, "me", "r1")]


# Several servers


@awaits
async def test_what_runs_on_another_server_is_changed_there(cron: Cron) -> None:
    await cron.has(container(server_id=OTHER))
    theirs = await cron.has_entry(some_entry(NIGHT, server_id=OTHER))
    about = await cron.has_entry(some_entry(NIGHT, container_id=APP, run_on="server"))
    async with cron.store.transaction() as transaction:
        await transaction.servers.say(OTHER, "box-two")
    for entry in (theirs, about):
        for work in (
            cron.change(entry, name="x"),
            cron.entries.delete(asking(), "root", entry.id),
        ):
            with pytest.raises(Misdirected, match=f"'box-two' \\({OTHER}\\)"):
                await work
    with pytest.raises(Misdirected):
        await cron.create(container_id="app", run_on="server")
    inside = await cron.create(container_id="app")
    assert (await cron.change(inside, name="x")).name == "x"
    await cron.entries.delete(asking(), "root", inside.id)


# How it is said


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Conflict("x"), "CONFLICT"),
        (Forbidden("x"), "FORBIDDEN"),
        (Misdirected("x"), "MISDIRECTED"),
        (NoSuchThing("x"), "NOT_FOUND"),
        (HoodyError("x"), "INTERNAL_SERVER_ERROR"),
    ],
)
def test_every_error_has_a_code(error: HoodyError, code: str) -> None:
    assert code_of(error) == code
