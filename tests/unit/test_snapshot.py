"""What snapshots may be called, and when one that could not be read is tried again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from twisted.internet.task import Clock

from hoody.errors import CallerError
from hoody.snapshots.snapshot import (
    Snapshot,
    fault_of_alias,
    is_snapshot_name,
    name_for,
    undo_name_for,
)
from hoody.snapshots.taking import LAST_PAUSE, PutOff, Wish

AT = datetime(2026, 5, 4, 2, 55, 8, tzinfo=UTC)


def test_the_days_first_is_called_after_the_day_and_later_ones_after_the_second() -> None:
    names: list[str] = []
    for _ in range(4):
        names.append(name_for(AT, names))
    assert names == [
        "snap-2026-05-04",
        "snap-2026-05-04-025508",
        "snap-2026-05-04-025508-2",
        "snap-2026-05-04-025508-3",
    ]
    assert undo_name_for(AT, names) == "undo-2026-05-04-025508"
    assert undo_name_for(AT, ["undo-2026-05-04-025508"]) == "undo-2026-05-04-025508-2"


def test_the_days_name_is_not_given_again_while_there_is_one_of_that_day() -> None:
    assert name_for(AT, ["snap-2026-05-04-020000"]) == "snap-2026-05-04-025508"
    assert name_for(AT, ["snap-2026-05-03", "undo-2026-05-04-020000"]) == "snap-2026-05-04"


@pytest.mark.parametrize(
    ("name", "could_be"),
    [
        ("snap-2026-05-04", True),
        ("undo-2026-05-04-025508", True),
        ("snap-2024-02-29-235959-12", True),
        ("snap-2026-02-29", False),
        ("snap-9999-99-99-999999", False),
        ("snap-2026-05-04-250000", False),
        ("rollback-point", False),
    ],
)
def test_a_name_that_a_snapshot_could_have_got(name: str, could_be: bool) -> None:
    assert is_snapshot_name(name) is could_be


@pytest.mark.parametrize(
    "alias", ["rollback-point", "before billing", "v1.2", "a", "vor-Ü", "x" * 100, "snap", "undo-"]
)
def test_an_alias_that_will_do(alias: str) -> None:
    assert fault_of_alias(alias) is None


@pytest.mark.parametrize(
    ("alias", "fault"),
    [
        ("", "1 to 100"),
        ("x" * 101, "1 to 100"),
        ("a/b", "slashes"),
        ("a\nb", "control"),
        ("a\u2028b", "control"),
        (" a", "spaces"),
        ("..", "URLs"),
        ("now", "present state"),
        ("snap-2026-05-04", "snapshot's name"),
        ("undo-2026-05-04-025508-2", "snapshot's name"),
    ],
)
def test_an_alias_that_will_not_do(alias: str, fault: str) -> None:
    assert fault in (fault_of_alias(alias) or "")


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        (Wish(alias="now"), "alias"),
        (Wish(pinned=True, days=7), "expiry"),
        (Wish(replaces=True), "replace"),
    ],
)
def test_a_wish_that_contradicts_itself_is_refused(wish: Wish, field: str) -> None:
    with pytest.raises(CallerError, match=f"^{field}: "):
        wish.check()


def test_one_that_cannot_be_read_is_tried_ever_more_rarely() -> None:
    clock = Clock()
    put_off = PutOff(clock)
    one = Snapshot(
        id="1",
        container_id="a",
        name="snap-2026-05-04",
        created_at=AT,
        created_by="night",
        consistency="frozen",
    )
    assert not put_off.is_put_off(one)
    pauses = []
    for _ in range(20):
        put_off.put_off(one)
        began = clock.seconds()
        while put_off.is_put_off(one):
            clock.advance(1)
        pauses.append(clock.seconds() - began)
    assert pauses == [min(2.0**n, LAST_PAUSE) for n in range(20)]
