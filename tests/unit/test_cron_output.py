"""What is kept of what a command says."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hoody.cron.output import MASK, MOST, Excerpt

SECRETS = ("hdy_secret", "cap.ability")


def heard(parts: list[str], secrets: tuple[str, ...] = ()) -> str:
    excerpt = Excerpt(secrets)
    for part in parts:
        excerpt.hear(part)
    return excerpt.text()


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({min(place, len(text)) for place in places} | {0, len(text)})
    return [text[begin:end] for begin, end in pairwise(ends)]


@given(st.text(max_size=200), st.lists(st.integers(0, 200)))
def test_little_is_kept_as_it_is(text: str, places: list[int]) -> None:
    text = text.encode("utf-8", "replace").decode()
    assert heard(cut(text, places)) == text


@given(
    st.lists(st.sampled_from([*SECRETS, "hdy", "hdy_", "_", "cap", ".", "a\n", "é"]), max_size=40),
    st.lists(st.integers(0, 400)),
)
def test_a_secret_is_never_shown_wherever_it_is_cut(words: list[str], places: list[int]) -> None:
    text = "".join(words)
    shown = heard(cut(text, places), SECRETS)
    assert not any(secret in shown.replace(MASK, "") for secret in SECRETS)
    assert shown == heard([text], SECRETS)


def test_of_much_the_first_and_the_last_are_kept() -> None:
    lines = [f"{number:07}\n" for number in range(100_000)]
    shown = heard(lines)
    first, note, last = shown.partition("\n[... 668928 bytes are left out here ...]\n")
    whole = "".join(lines)
    assert note
    assert (first, last) == (whole[:MOST], whole[-MOST:])


@given(st.integers(0, 3 * MOST), st.integers(1, MOST))
def test_memory_does_not_grow_with_what_is_said(length: int, chunk: int) -> None:
    excerpt = Excerpt()
    for begin in range(0, length, chunk):
        excerpt.hear("x" * min(chunk, length - begin))
    kept = sum(map(len, excerpt._first)) + sum(map(len, excerpt._last))
    assert kept <= 2 * MOST + chunk
    shown = excerpt.text()
    assert shown.count("x") == min(length, 2 * MOST)


def test_characters_that_are_cut_in_two_do_not_break_it() -> None:
    shown = heard(["é" * MOST] * 3)
    assert set(shown.partition("\n[")[0]) == {"é"}
    assert "�" not in shown
