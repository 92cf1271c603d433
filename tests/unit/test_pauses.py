"""A pause is a counted reason."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hoody.pipes.pauses import Pause, Pauses
from tests.support.parties import FakeSender


def test_the_last_reason_to_go_resumes() -> None:
    producer = FakeSender()
    pauses = Pauses(producer)
    first, second = pauses.hold(), pauses.hold()
    first.release()
    assert producer.paused
    second.release()
    assert not producer.paused


def test_a_reason_released_twice_counts_once() -> None:
    producer = FakeSender()
    pauses = Pauses(producer)
    first, _ = pauses.hold(), pauses.hold()
    first.release()
    first.release()
    assert producer.paused


@given(st.lists(st.integers(-5, 5)))
def test_it_is_paused_exactly_while_a_reason_holds(steps: list[int]) -> None:
    producer = FakeSender()
    pauses = Pauses(producer)
    held: list[Pause] = []
    for step in steps:
        if step >= 0:
            held.append(pauses.hold())
        elif held:
            held.pop(step % len(held)).release()
        assert producer.paused == bool(held) == bool(pauses)
