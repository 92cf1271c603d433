"""Answers of servers, parsed, cut anywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoody.protocols.answers import (
    HEAD_LIMIT,
    Body,
    Chunked,
    Counted,
    NoAnswer,
    UntilClose,
    body_of,
    read_head,
)

OK = b"HTTP/1.1 200 OK"


def fed(body: Body, data: bytes, cuts: list[int]) -> bytes:
    """What C{body} makes of C{data}, given piece by piece."""
    content, rest = b"", b""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(places):
        if body.ended:
            rest += data[start:end]
        else:
            content += body.feed(data[start:end])
    body.rest += rest
    return content


def test_a_head_is_read_with_its_values_stripped() -> None:
    head = read_head(b"HTTP/1.0 404 Not There\r\nA: \t b c \t\r\nset-cookie: x=1\r\nSet-Cookie: y")
    assert (head.minor, head.status, head.reason) == (0, 404, b"Not There")
    assert head.headers == [(b"A", b"b c"), (b"set-cookie", b"x=1"), (b"Set-Cookie", b"y")]
    assert head.values(b"set-cookie") == [b"x=1", b"y"]


def test_lines_may_end_with_lf_as_cgi_programs_have_it() -> None:
    head = read_head(OK + b"\r\nContent-Type: text/plain\nA: b")
    assert head.headers == [(b"Content-Type", b"text/plain"), (b"A", b"b")]


@pytest.mark.parametrize("first", [b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 299 \xc3\xa9"])
def test_a_reason_may_be_missing_or_in_any_language(first: bytes) -> None:
    assert read_head(first).status in (200, 299)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/2 200 OK",
        b"HTTP/1.2 200 OK",
        b"http/1.1 200 OK",
        b"ICY 200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200 O\rK",
        OK + b"\r\n a: b",
        OK + b"\r\na: b\r\n c",
        OK + b"\r\na : b",
        OK + b"\r\na",
        OK + b"\r\n: b",
        OK + b"\r\na: b\r\r\nc: d",
        OK + b"\r\na: b\rc",
        OK + b"\r\na: b\x00",
        OK + b"\r\na\x80: b",
    ],
)
def test_what_is_no_head_is_refused(head: bytes) -> None:
    with pytest.raises(NoAnswer):
        read_head(head)


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        (b"", UntilClose),
        (b"\r\nContent-Length: 5", Counted),
        (b"\r\nContent-Length: 5\r\ncontent-length: 5", Counted),
        (b"\r\nContent-Length: 5, 5", Counted),
        (b"\r\nTransfer-Encoding: Chunked", Chunked),
    ],
)
def test_the_framing_is_what_the_head_says(headers: bytes, kind: type) -> None:
    assert isinstance(body_of(read_head(OK + headers), to_head=False), kind)


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5, 6",
        b"Content-Length: +5",
        b"Content-Length: 5 5",
        b"Content-Length: -1",
        b"Content-Length: 0x5",
        b"Content-Length:",
        b"Content-Length: 99999999999999999999",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: identity",
    ],
)
def test_a_framing_that_can_be_read_in_two_ways_is_refused(headers: bytes) -> None:
    with pytest.raises(NoAnswer):
        body_of(read_head(OK + b"\r\n" + headers), to_head=False)


def test_http_1_0_has_no_chunks() -> None:
    with pytest.raises(NoAnswer):
        body_of(read_head(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked"), to_head=False)


@pytest.mark.parametrize("status", [b"101", b"103", b"204", b"304"])
def test_some_answers_have_no_body_whatever_they_say(status: bytes) -> None:
    head = read_head(b"HTTP/1.1 " + status + b" x\r\nContent-Length: 5")
    assert body_of(head, to_head=False).ended


def test_the_answer_to_head_has_no_body() -> None:
    assert body_of(read_head(OK + b"\r\nContent-Length: 5"), to_head=True).ended


@pytest.mark.parametrize(
    ("head", "persists"),
    [
        (OK, True),
        (OK + b"\r\nConnection: x, Close", False),
        (b"HTTP/1.0 200 OK", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive", True),
    ],
)
def test_a_head_says_whether_the_connection_persists(head: bytes, persists: bool) -> None:
    assert read_head(head).persists is persists


cuts = st.lists(st.integers(0, 10_000), max_size=20)


@given(st.binary(max_size=100), st.binary(max_size=20), cuts)
def test_a_counted_body_ends_at_its_length(content: bytes, behind: bytes, cuts: list[int]) -> None:
    body = Counted(len(content))
    assert fed(body, content + behind, cuts) == content
    assert body.ended
    assert body.rest == behind


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=10),
    st.sampled_from([b"", b"; a=b", b' ;q="x;y"', b" "]),
    st.lists(st.sampled_from([(b"A", b"1"), (b"Digest", b"x y")]), max_size=3),
    st.binary(max_size=20),
    cuts,
)
def test_chunks_are_joined_and_extensions_dropped_cut_anywhere(
    pieces: list[bytes],
    extension: bytes,
    trailers: list[tuple[bytes, bytes]],
    behind: bytes,
    cuts: list[int],
) -> None:
    wire = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    wire += b"000\r\n" + b"".join(b"%b: %b\r\n" % trailer for trailer in trailers) + b"\r\n"
    body = Chunked()
    assert fed(body, wire + behind, cuts) == b"".join(pieces)
    assert body.ended
    assert body.trailers == trailers
    assert body.rest == behind


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b"5\nhello\n",
        b"5\r\nhelloo\r\n",
        b"5\r\nhello\n",
        b"5 5\r\n",
        b"5;\x00\r\n",
        b"f" * 16 + b"\r\n",
        b"5;" + b"x" * 5000,
        b"0\r\nbad\r\n\r\n",
        b"0\r\n folded: x\r\n\r\n",
        b"0\r\n" + b"a: %b\r\n" % (b"x" * 1000) * (HEAD_LIMIT // 1000 + 1),
    ],
)
def test_chunks_that_are_none_are_refused(wire: bytes) -> None:
    with pytest.raises(NoAnswer):
        Chunked().feed(wire)


def test_a_body_without_an_end_takes_all() -> None:
    body = UntilClose()
    assert body.feed(b"abc") == b"abc"
    assert not body.ended
    assert body.ends_with_connection
