"""Whether bytes can be the end of a chunked body."""

from __future__ import annotations

import time

import pytest

from hoody.protocols.channel import ends_chunked


@pytest.mark.parametrize(
    "data",
    [
        b"0\r\n\r\n",
        b"000\r\n\r\n",
        b"0;a=b\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"0\r\nX: y\r\nZ: w\r\n\r\n",
    ],
)
def test_an_end(data: bytes) -> None:
    assert ends_chunked(data, in_trailers=False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"0",
        b"0\r\n",
        b"5\r\nhello\r\n",
        b"5\r\nhel",
        b"\r\n\r\n",
        b"hello\r\n\r\n",
        b"0\r\n\r\nX",
    ],
)
def test_no_end(data: bytes) -> None:
    assert not ends_chunked(data, in_trailers=False)


@pytest.mark.parametrize("data", [b"\r\n", b"X: y\r\n\r\n"])
def test_an_end_when_the_last_chunk_was_read_already(data: bytes) -> None:
    assert ends_chunked(data, in_trailers=True)
    assert not ends_chunked(data, in_trailers=False)


@pytest.mark.parametrize("line", [b"0\r\n", b"0;\r\n", b"X: y\r\n", b"\r\n", b"0"])
def test_looking_takes_no_longer_than_reading(line: bytes) -> None:
    """It was a regular expression once, and quadratic: eight seconds in the reactor."""
    data = line * (65536 // len(line))
    began = time.process_time()
    ends_chunked(data, in_trailers=False)
    assert time.process_time() - began < 1
