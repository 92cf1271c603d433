"""What of a request is not for the log."""

from __future__ import annotations

import pytest

from hoody.logs import _masked


@pytest.mark.parametrize(
    ("pair", "logged"),
    [
        ("token=hdy_x", "token=***"),
        ("cap=abc", "cap=***"),
        ("%74oken=hdy_x", "%74oken=***"),
        ("c%61p=abc", "c%61p=***"),
        ("tokens=3", "tokens=3"),
        ("follow", "follow"),
        ("a=token", "a=token"),
    ],
)
def test_a_secret_in_a_query_is_not_logged_however_its_name_is_written(
    pair: str, logged: str
) -> None:
    assert _masked(pair) == logged
