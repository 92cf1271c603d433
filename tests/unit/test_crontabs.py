"""Crontabs as they are put and got: what lines make of the entries that there are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted

from hoody.auth.tokens import Scope
from hoody.cron import crontabs, entries, output
from hoody.cron.errors import CronError
from hoody.errors import Conflict, Forbidden, Misdirected
from tests.support.clockwork import APP, NIGHT, OTHER, container
from tests.support.clockwork import entry as some_entry
from tests.support.cronface import Cron, asking

ID = "00000000-0000-4000-8000-000000000000"
ROOT = asking()
CRON = asking(Scope.CRON)


def awaits(test: Callable[..., Any]) -> Any:
    return pytest_twisted.ensureDeferred(test)


@pytest.fixture
def cron() -> Cron:
    return Cron()


async def put(cron: Cron, text: str, by: Any = ROOT, user: str = "root") -> str:
    """@return: the crontab then."""
    said, removed = await cron.crontabs.put(by, user, text)
    assert removed == 0
    assert await cron.crontabs.get(by, user) == said
    return said


async def types(cron: Cron) -> list[str]:
    return [each.event_type.removeprefix("cron.entry.") for each in await cron.told()]


@awaits
async def test_a_crontab_is_given_back_as_it_was_put(cron: Cron) -> None:
    text = (
        "# mine\n\nPATH=/bin\nCRON_TZ=Europe/Berlin\n55 2 * * * backup 100%\n"
        "@daily  two  blanks\n# end\n"
    )
    assert await put(cron, text) == text.replace("@daily  two", "@daily two")
    first, second = sorted(await cron.all(), key=lambda each: each.command)
    assert (first.type, first.schedule, first.command) == ("raw", "55 2 * * *", "backup 100%")
    assert (first.environment_vars, first.timezone) == ({"PATH": "/bin"}, "Europe/Berlin")
    assert second.command == "two  blanks"
    assert first.next_fire_at == NIGHT.replace(hour=0, minute=55) + timedelta(days=1)
    assert await types(cron) == ["created", "created"]
    assert cron.announced == 1


@awaits
async def test_equal_lines_keep_their_entries(cron: Cron) -> None:
    text = "55 2 * * * a\n55 2 * * * a\n56 2 * * * b\n"
    await put(cron, text)
    before = await cron.all()
    assert len(before) == 3
    cron.clock.advance(60)
    await put(cron, "# moved\n56 2 * * * b\n\n55 2 * * * a\n55 2 * * * a\n")
    assert await cron.all() == before
    await put(cron, "55 2 * * * a\n57 2 * * * b\n")
    after = await cron.all()
    assert len(after) == 2
    assert len({each.id for each in after} & {each.id for each in before}) == 1
    assert sorted(await types(cron)) == sorted(
        [*(3 * ["created"]), "deleted", "deleted", "created"]
    )


@awaits
async def test_lines_whose_variables_alone_change_keep_their_entries_as_other_versions(
    cron: Cron,
) -> None:
    await put(cron, "A=1\n55 2 * * * a\nB=2\n55 2 * * * a\n")
    before = {each.id: each for each in await cron.all()}
    await put(cron, "A=1\n55 2 * * * a\nB=3\nCRON_TZ=UTC\n55 2 * * * a\n")
    after = await cron.all()
    assert {each.id for each in after} == set(before)
    kept, changed = sorted(after, key=lambda each: each.version)
    assert kept == before[kept.id]
    assert (changed.version, changed.environment_vars) == (2, {"A": "1", "B": "3"})
    assert changed.type == "raw"


@awaits
async def test_managed_entries_are_lines_under_their_ids(cron: Cron) -> None:
    await put(cron, "# mine\n55 2 * * * raw\n")
    made = await cron.create(name="nightly", schedule="@hourly")
    text = f"# mine\n55 2 * * * raw\n# hoody:{made.id} nightly\n@hourly true\n"
    assert await cron.crontabs.get(ROOT, "root") == text
    before = await cron.all()
    assert await put(cron, text) == text
    assert await cron.all() == before
    # Their places are kept.
    moved = f"# hoody:{made.id} nightly\n@hourly true\n# mine\n55 2 * * * raw\n"
    assert await put(cron, moved) == moved
    assert await cron.all() == before


@awaits
async def test_a_managed_line_that_is_edited_is_another_version(cron: Cron) -> None:
    made = await cron.create(name="nightly", retries=3)
    line = f"# hoody:{made.id} called otherwise\n"
    text = await put(cron, f"{line}56 2 * * * false\n")
    assert text == f"# hoody:{made.id} nightly\n56 2 * * * false\n"
    [changed] = await cron.all()
    assert (changed.version, changed.command, changed.retries) == (2, "false", 3)
    assert changed.next_fire_at == NIGHT.replace(minute=56)
    await put(cron, f"{line}#56 2 * * * false\n")
    [disabled] = await cron.all()
    assert (disabled.enabled, disabled.next_fire_at, disabled.version) == (False, None, 3)
    await put(cron, f"{line}56 2 * * * false\n")
    assert (await cron.all())[0].enabled
    told = (await cron.told())[1:]
    assert [each.data["changed"] for each in told] == [
        ["schedule", "command"],
        ["enabled"],
        ["enabled"],
    ]


@awaits
async def test_what_is_not_repeated_is_deleted(cron: Cron) -> None:
    made = await cron.create()
    kept = await cron.create(name="kept")
    await put(cron, "55 2 * * * raw\n")
    assert [each.command for each in await cron.all()] == ["raw"]
    assert len(await cron.looking.versions(ROOT, "root", made.id)) == 1
    # Its line without its id is a job of its own.
    kept = await cron.create(name="kept", command="x")
    await put(cron, "55 2 * * * x\n")
    [raw] = await cron.all()
    assert raw.type == "raw"
    assert raw.id != kept.id
    assert await put(cron, "") == ""
    assert await cron.all() == []
    assert await cron.crontabs.page(ROOT, 0, 9) == ([], 0)


@awaits
async def test_a_raw_entry_that_the_api_changes_is_managed_from_then_on(cron: Cron) -> None:
    await put(cron, "A=1\n55 2 * * * a\n56 2 * * * b\n")
    [first, _] = sorted(await cron.all(), key=lambda each: each.command)
    changed = await cron.change(first, enabled=False, retries=2)
    assert (changed.type, changed.environment_vars) == ("managed", {"A": "1"})
    text = f"A=1\n# hoody:{first.id}\n#55 2 * * * a\n56 2 * * * b\n"
    assert await cron.crontabs.get(ROOT, "root") == text
    before = await cron.all()
    assert await put(cron, text) == text
    assert await cron.all() == before


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        ("61 * * * * x", "INVALID_SCHEDULE", "Line 3: "),
        ("@reboot x", "INVALID_SCHEDULE", "Line 3: @reboot"),
        ("0 0 30 2 * x", "INVALID_SCHEDULE", "never comes"),
        ("* * * * *", "INVALID_COMMAND", "Line 3: "),
        ("* * * * * curl $SNAP_URL", "INVALID_COMMAND", "Line 3: command: $SNAP_URL"),
        ("CRON_TZ=Nowhere", "INVALID_TIMEZONE", "Line 3: "),
        ("SHELL=/bin/bash", "INVALID_BODY", "Line 3: "),
        ("what is this", "INVALID_SCHEDULE", "Line 3: "),
        (f"# hoody:{ID}\n* * * * * x", "ENTRY_NOT_FOUND", f"Line 3: there is no entry {ID}"),
        ("# hoody:x\n* * * * * x", "INVALID_BODY", "Line 3: "),
        (f"# hoody:{ID}", "INVALID_BODY", "Line 3: "),
    ],
)
@awaits
async def test_a_line_that_will_not_do_is_named_and_nothing_changes(
    cron: Cron, line: str, code: str, sentence: str
) -> None:
    text = "55 2 * * * a\n# b\n"
    await put(cron, text)
    await cron.create()
    before, told = await cron.all(), await cron.told()
    with pytest.raises(CronError) as caught:
        await cron.crontabs.put(ROOT, "root", f"* * * * * new\n\n{line}\n")
    assert caught.value.code == code
    assert sentence in caught.value.sentence
    assert caught.value.details is not None
    assert caught.value.details["line"] == 3
    assert await cron.all() == before
    assert await cron.told() == told
    assert (await cron.crontabs.get(ROOT, "root")).startswith(text)


@awaits
async def test_what_is_too_large_is_refused(cron: Cron, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CronError) as caught:
        await cron.crontabs.put(ROOT, "root", "#" + "é" * (128 << 10))
    assert (caught.value.code, caught.value.status) == ("PAYLOAD_TOO_LARGE", 413)
    await put(cron, "#" + "é" * ((128 << 10) - 2) + "\n")
    large = "A=" + "x" * (64 << 10) + "\n" + "* * * * * x\n" * 20
    with pytest.raises(CronError, match="variables of all lines"):
        await cron.crontabs.put(ROOT, "root", large)
    monkeypatch.setattr(entries, "MOST_ENTRIES", 2)
    with pytest.raises(Conflict):
        await cron.crontabs.put(ROOT, "root", "* * * * * x\n" * 3)


@awaits
async def test_expired_ones_go_and_are_counted(cron: Cron) -> None:
    over = [await cron.create(expires_at=NIGHT + timedelta(hours=1)) for _ in range(2)]
    stays = await cron.create(name="stays")
    text = await cron.crontabs.get(ROOT, "root")
    cron.clock.advance(timedelta(hours=2).total_seconds())
    await cron.has_changed(over[0], expired=True, next_fire_at=None)
    said, removed = await cron.crontabs.put(ROOT, "root", text)
    assert removed == 2
    assert said == f"# hoody:{stays.id} stays\n55 2 * * * true\n"
    assert [each.id for each in await cron.all()] == [stays.id]
    assert (await types(cron))[-2:] == ["deleted", "deleted"]
    # Those that somebody else has to delete stay where they are.
    await cron.has(container())
    server = await cron.create(expires_at=NIGHT + timedelta(hours=3))
    await cron.create(container_id="app", expires_at=NIGHT + timedelta(hours=3))
    text = await cron.crontabs.get(CRON, "root")
    cron.clock.advance(timedelta(hours=2).total_seconds())
    _, removed = await cron.crontabs.put(CRON, "root", text)
    assert removed == 1
    assert {each.id for each in await cron.all()} == {stays.id, server.id}


# Whose it is


@awaits
async def test_a_container_has_a_crontab_of_its_own(cron: Cron) -> None:
    app = await cron.has(container())
    here = asking(Scope.CRON, own=app)
    text = "# inside\nA=1\n55 2 * * * curl $SNAP_URL\n"
    assert await put(cron, text, here) == text
    [raw] = await cron.all()
    assert (raw.container_id, raw.run_on, raw.type) == (APP, "container", "raw")
    # Among all that the user has, a bare line would be the server's.
    whole = f"# hoody:{raw.id}\n55 2 * * * curl $SNAP_URL\n"
    assert await cron.crontabs.get(ROOT, "root") == whole
    assert await put(cron, f"# all\n* * * * * x\n{whole}") == f"# all\n* * * * * x\n{whole}"
    assert await cron.crontabs.get(here, "root") == text
    assert raw in await cron.all()
    # What is put inside is no matter to what is not of it.
    await put(cron, "", here)
    assert await cron.crontabs.get(ROOT, "root") == "# all\n* * * * * x\n"
    assert await cron.crontabs.page(here, 0, 9) == ([], 0)


@awaits
async def test_raw_lines_on_the_server_are_for_admins(cron: Cron) -> None:
    await put(cron, "# the server's\n55 2 * * * x\n")
    managed = await cron.create(name="y")
    text = await cron.crontabs.get(CRON, "root")
    # Who repeats them changes nothing, and so may.
    assert await put(cron, text + "# more\n", CRON) == text + "# more\n"
    before = await cron.all()
    for wrong in (
        text + "* * * * * z\n",
        text.replace("55 2 * * * x", "56 2 * * * x"),
        text.replace(f"# hoody:{managed.id} y\n55", f"# hoody:{managed.id} y\n#55"),
        text.split("# hoody")[0],
        "",
    ):
        with pytest.raises(Forbidden, match="needs admin"):
            await cron.crontabs.put(CRON, "root", wrong)
    assert await cron.all() == before
    tied = asking(containers=(APP,))
    with pytest.raises(Forbidden, match="cron host"):
        await cron.crontabs.put(tied, "root", "")


@awaits
async def test_who_is_tied_sees_their_entries_and_not_what_stands_between(cron: Cron) -> None:
    app = await cron.has(container())
    await put(cron, "KEY=secret\n55 2 * * * x\n")
    own = await cron.create(container_id="app", name="own")
    tied = asking(Scope.CRON, containers=(APP,))
    line = f"# hoody:{own.id} own\n55 2 * * * true\n"
    assert await cron.crontabs.get(tied, "root") == line
    assert await cron.crontabs.page(tied, 0, 9) == ([("root", line)], 1)
    here = asking(Scope.CRON, containers=(APP,), own=app)
    assert await put(cron, "# here\n" + line, here) == "# here\n" + line


@awaits
async def test_readers_do_not_see_what_variables_say(cron: Cron) -> None:
    await put(cron, "KEY=secret\nCRON_TZ=Europe/Berlin\n55 2 * * * x\n")
    reader = asking(Scope.READ)
    masked = "KEY=***\nCRON_TZ=Europe/Berlin\n55 2 * * * x\n"
    assert await cron.crontabs.get(reader, "root") == masked
    assert await cron.crontabs.page(reader, 0, 9) == ([("root", masked)], 1)
    assert "secret" in await cron.crontabs.get(asking(Scope.WRITE), "root")


@awaits
async def test_the_crontabs_of_all_come_in_pages(cron: Cron) -> None:
    await put(cron, "# only a remark\n", user="alice")
    await put(cron, "* * * * * x\n")
    assert await cron.crontabs.page(ROOT, 0, 1) == ([("alice", "# only a remark\n")], 2)
    assert await cron.crontabs.page(ROOT, 1, 1) == ([("root", "* * * * * x\n")], 2)


@awaits
async def test_new_lines_need_a_user_who_is_known_and_others_do_not(cron: Cron) -> None:
    await cron.crontabs.put(ROOT, "bob", "# nothing runs\n")
    with pytest.raises(CronError) as caught:
        await cron.crontabs.put(ROOT, "bob", "* * * * * x\n")
    assert caught.value.code == "USER_NOT_FOUND"


@awaits
async def test_what_another_server_runs_is_kept_and_changed_there_alone(cron: Cron) -> None:
    theirs = await cron.has_entry(some_entry(NIGHT, type="raw", server_id=OTHER))
    line = f"# hoody:{theirs.id}\n55 2 * * * true\n"
    text = f"55 2 * * * true\n{line}"
    assert await put(cron, text) == text
    assert len(await cron.all()) == 2
    for wrong in ("55 2 * * * true\n", text.replace(f"{theirs.id}\n55", f"{theirs.id}\n56")):
        with pytest.raises(Misdirected):
            await cron.crontabs.put(ROOT, "root", wrong)


@awaits
async def test_what_changes_meanwhile_is_not_overwritten(cron: Cron) -> None:
    made = await cron.create()
    text = await cron.crontabs.get(ROOT, "root")
    # The clock has moved it on meanwhile, which is no version.
    later = NIGHT + timedelta(days=9)
    await cron.has_changed(made, next_fire_at=later)
    await put(cron, text.replace("true", "false"))
    [changed] = await cron.all()
    assert (changed.command, changed.next_fire_at) == ("false", later)


def test_the_mask_is_that_of_containers() -> None:
    from hoody.resources.api import containers

    assert output.MASK == containers.MASK


@awaits
async def test_many_entries_are_read_a_part_at_a_time(
    cron: Cron, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crontabs, "BATCH", 2)
    for count in range(1, 6):
        await cron.create()
        assert (await cron.crontabs.get(ROOT, "root")).count("# hoody:") == count
    await put(cron, await cron.crontabs.get(ROOT, "root"))
    await put(cron, "")
    assert await cron.all() == []
