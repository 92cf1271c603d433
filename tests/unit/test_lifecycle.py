"""The life of a container, as the one place that says what may become of it has it."""

from __future__ import annotations

import itertools

import pytest
from automat import NoTransition
from hypothesis import given
from hypothesis import strategies as st

from hoody.containers.container import fault_of, label
from hoody.containers.lifecycle import SETTLED, Core, Life, Machine, Task, unknown

ASKED = ("start", "stop", "force_stop", "restart", "pause", "resume", "delete")
ALLOWED = {
    "running": {"stop", "force_stop", "restart", "pause", "delete"},
    "paused": {"stop", "force_stop", "restart", "resume", "delete"},
    "stopped": {"start", "restart", "delete"},
    "failed": {"start", "restart", "delete"},
}


class World:
    def __init__(self) -> None:
        self.begun: list[Task] = []
        self.settled = 0
        self.life: Life = Machine(Core(self._begin, self._settled), unknown)

    def _begin(self, task: Task, order: object) -> None:
        self.begun.append(task)

    def _settled(self) -> None:
        self.settled += 1


def in_state(state: str) -> World:
    world = World()
    getattr(world.life, f"adopt_{state}")()
    return world


@pytest.mark.parametrize(("state", "asked"), [*itertools.product(ALLOWED, ASKED)])
def test_what_makes_sense_when(state: str, asked: str) -> None:
    world = in_state(state)
    if asked not in ALLOWED[state]:
        with pytest.raises(NoTransition):
            getattr(world.life, asked)(None)
        assert world.life.state() == state
        assert not world.begun
        return
    getattr(world.life, asked)(None)
    assert len(world.begun) == 1
    assert world.life.state() not in SETTLED


@given(st.lists(st.sampled_from([*ASKED, "ended", "done", "failed"]), max_size=30))
def test_never_are_two_things_done_at_once(steps: list[str]) -> None:
    world = World()
    world.life.create(None)
    being_done = 1
    for step in steps:
        before = len(world.begun)
        try:
            if step in ("done", "failed"):
                getattr(world.life, step)()
                being_done -= 1
            else:
                getattr(world.life, step)(None)
        except NoTransition:
            continue
        being_done += len(world.begun) - before
        assert being_done in (0, 1)
        assert (being_done == 0) == (world.life.state() in SETTLED)


def test_what_could_not_be_begun_changes_nothing() -> None:
    world = in_state("paused")
    world.life.stop(None)
    world.life.back_to_paused()
    assert world.life.state() == "paused"
    assert world.settled == 2


@pytest.mark.parametrize("name", ["web", "Web-1", "a_b", "x" * 63, "0-0"])
def test_names_that_hosts_can_have(name: str) -> None:
    assert fault_of(name) is None


@pytest.mark.parametrize(
    "name",
    ["", "ab", "x" * 64, "-ab", "ab-", "a.b", "a b", "grün", "api", "PIPE", "cron", "a" * 24],
)
def test_names_that_they_cannot(name: str) -> None:
    assert fault_of(name) is not None


def test_a_name_is_a_label_without_case() -> None:
    assert label("My_Web") == "my-web"
