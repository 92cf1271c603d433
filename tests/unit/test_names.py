"""What a pipe may be called."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoody.errors import CallerError, TooLong
from hoody.pipes import names


@pytest.mark.parametrize(
    ("encoded", "name"),
    [
        (b"backup", "backup"),
        (b"a/b/c", "a/b/c"),
        (b"a%2Fb", "a/b"),
        (b"caf%C3%A9", "café"),
        (b"a+b", "a+b"),
        (b"a/../b", "a/../b"),
        (b"../../etc/passwd", "../../etc/passwd"),
        (b"%252e", "%2e"),
    ],
)
def test_a_name_is_decoded_once_and_taken_as_it_is(encoded: bytes, name: str) -> None:
    assert names.read(encoded) == name


@pytest.mark.parametrize("encoded", [b"a%00b", b"a%0d%0ab", b"a\\b", b"a%5Cb", b"%7F", b"%C2%85"])
def test_control_characters_and_backslashes_are_refused(encoded: bytes) -> None:
    with pytest.raises(CallerError, match="control character or a backslash"):
        names.read(encoded)


def test_what_is_not_utf8_is_refused() -> None:
    with pytest.raises(CallerError, match="UTF-8"):
        names.read(b"%ff")


def test_1024_characters_are_a_name_and_1025_are_too_many() -> None:
    assert names.read("é".encode() * 1024) == "é" * 1024
    with pytest.raises(TooLong, match="max 1024 characters"):
        names.read(b"x" * 1025)


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("", ""),
        ("/", ""),
        ("..", ""),
        ("help", "help"),
        ("HELP", "help"),
        ("Help/", "help"),
        ("help.", "help"),
        ("version./", "version"),
        ("Robots.TXT", "robots.txt"),
        ("favicon.ico.", "favicon.ico"),
        ("noscript", "noscript"),
        ("health//", "health"),
        ("helper", None),
        ("a/help", None),
        ("/help", None),
        ("help/me", None),
    ],
)
def test_reserved_pages_are_known_in_any_dress(name: str, page: str | None) -> None:
    assert names.page(name) == page


@given(st.text(min_size=1, max_size=1024))
def test_every_name_that_is_taken_comes_back_from_its_encoding(name: str) -> None:
    try:
        encoded = quote(name, safe="").encode()
    except UnicodeEncodeError:  # a lone surrogate is no text
        return
    try:
        assert names.read(encoded) == name
    except CallerError:
        assert any(
            ord(letter) < 32 or 127 <= ord(letter) < 160 or letter == "\\" for letter in name
        )
