"""What containers take together, and would take unshared."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.web.test.requesthelper import DummyRequest

from hoody.containers.container import Status
from hoody.containers.ledger import Entry, Sums, taken, unshared
from hoody.resources import html
from hoody.resources.api.ledger import Line, in_words, state_of


def entry(name: str, image: str = "i", **more: Any) -> Entry:
    given: dict[str, Any] = {
        "id": name,
        "name": name,
        "image_id": image,
        "status": Status.RUNNING,
        "is_asleep": False,
        "idle_since": None,
        "idle_seconds": 0.0,
        "memory_own": 100,
        "memory_shared": 30,
        "memory_merged": 20,
        "disk_own": 5,
        "disk_shared": 1000,
    }
    return Entry(**{**given, **more})


def test_what_is_shared_counts_once() -> None:
    three = [entry("a"), entry("b"), entry("c", "other", disk_shared=1)]
    assert taken(three) == Sums(memory=330, disk=1016)
    assert unshared(three) == Sums(memory=390, disk=2016)
    assert taken([]) == unshared([]) == Sums(0, 0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7199, "119 minutes"),
        (7200, "2 hours"),
        (36 * 3600, "36 hours"),
        (3 * 86400, "3 days"),
        (13.9 * 86400, "13 days"),
        (22 * 7 * 86400 + 5, "22 weeks"),
    ],
)
def test_how_long_is_said_in_one_unit(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("fields", "words", "kind"),
    [
        ({"idle_seconds": 3.0}, "active now", "awake"),
        ({"idle_seconds": 300.0}, "active 5 minutes ago", "awake"),
        (
            {"status": Status.PAUSED, "is_asleep": True, "idle_seconds": 86400.0 * 21},
            "idle 3 weeks",
            "asleep",
        ),
        ({"status": Status.PAUSED}, "paused by hand", "still"),
        ({"status": Status.STOPPED, "idle_seconds": None}, "stopped", "still"),
        ({"status": Status.FAILED, "idle_seconds": None}, "failed", "bad"),
    ],
)
def test_states_in_words(fields: dict[str, Any], words: str, kind: str) -> None:
    assert state_of(entry("a", **fields)) == (words, kind)


class Turns(Clock):
    """@ivar ends: when each turn of a long work ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def callLater(self, delay: float, *rest: Any, **more: Any) -> Any:
        self.ends.append(self.seconds())
        return super().callLater(delay, *rest, **more)


def test_others_have_their_turns_while_a_long_page_is_made() -> None:
    clock, request = Turns(), DummyRequest([])
    words = ("memory", "disk", "memory_unshared", "disk_unshared", "saved", "asleep", "now")

    def lines() -> Iterator[Line]:
        for number in range(1000):
            clock.rightNow += 0.0005  # as long as one takes on a slow machine
            yield Line(f"c-{number}.", "/", "idle 3 weeks", "asleep", "1", "2", "3")

    making = html.show_in_turns(
        clock,
        request,  # type: ignore[arg-type]
        "ledger.html",
        style=("look.css",),
        lines=lines(),
        count=1000,
        **dict.fromkeys(words, "0"),
    )
    done = ensureDeferred(making)
    while not done.called:
        clock.advance(0)
    ends = [0.0, *clock.ends, clock.seconds()]
    assert max(end - begin for begin, end in pairwise(ends)) < 0.01
    text = b"".join(request.written)
    assert all(b"c-%d." % number in text for number in range(1000))
