"""What a sender's headers become."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.web.http_headers import Headers

from hoody.errors import CallerError
from hoody.pipes.heads import (
    ALWAYS,
    Head,
    read_disposition,
    read_head,
    safe_filename,
    safe_type,
    write_disposition,
)
from hoody.pipes.queries import ReceiveQuery


@pytest.mark.parametrize(
    "content_type",
    [
        b"text/html",
        b"TEXT/HTML ; charset=x",
        b"application/xhtml+xml",
        b"image/svg+xml",
        b"text/xml",
        b"application/xml",
        b"application/rss+xml",
        b"text/javascript",
        b"application/javascript",
        b"application/x-javascript",
        b"application/ecmascript",
        b"text/xsl",
        b"application/xslt+xml",
        b"text/javascript1.5",
        b"multipart/x-mixed-replace",
    ],
)
def test_what_a_browser_would_run_becomes_plain_text(content_type: bytes) -> None:
    assert safe_type(content_type).startswith(b"text/plain")


def test_plain_text_keeps_its_charset() -> None:
    assert safe_type(b'text/html; charset="utf-8"') == b"text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "content_type",
    [
        b"text/plain",
        b"application/gzip",
        b"application/octet-stream",
        b"image/png",
        b"application/json",
        b"application/pdf",
        b"video/mp4; codecs=x",
        b"application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        b"application/x-www-form-urlencoded",
    ],
)
def test_what_is_harmless_passes_as_it_is(content_type: bytes) -> None:
    assert safe_type(content_type) == content_type


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"html",
        b"text/html\x00",
        b"text/ html",
        b"/",
        b"\xff",
        b"text/plain, text/html",
        b"text/plain;a=b, text/html",
        b"text/plain;a=b,image/svg+xml",
        b'text/plain;a="b, text/html',
    ],
)
def test_what_is_no_media_type_becomes_octets(content_type: bytes) -> None:
    assert safe_type(content_type) == b"application/octet-stream"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("backup.sql.gz", "backup.sql.gz"),
        ("../../etc/passwd", "etcpasswd"),
        ("..\\..\\boot.ini", "boot.ini"),
        (".bashrc", "bashrc"),
        ("a\r\nSet-Cookie: x", "aSet-Cookie: x"),
        ("a\u202etxt.exe", "atxt.exe"),
        ("🐘 backup.sql", "🐘 backup.sql"),
        ('say "hi".txt', 'say "hi".txt'),
        ("...", None),
        ("", None),
        ("/\\", None),
        ("x" * 300, "x" * 255),
    ],
)
def test_a_filename_stays_in_its_folder(name: str, safe: str | None) -> None:
    assert safe_filename(name) == safe


@given(st.text())
def test_no_filename_breaks_out_of_its_header(name: str) -> None:
    safe = safe_filename(name)
    written = write_disposition("attachment", safe).decode("ascii")
    pattern = r"""attachment(?:; filename="([ !#$&-~]*)"(?:; filename\*=UTF-8''(\S+))?)?"""
    match = re.fullmatch(pattern, written)
    assert match
    assert (unquote(match[2]) if match[2] else match[1]) == safe


def test_a_plain_name_is_written_once_and_any_other_twice() -> None:
    assert write_disposition("inline", None) == b"inline"
    assert write_disposition("attachment", "a.txt") == b'attachment; filename="a.txt"'
    assert (
        write_disposition("attachment", 'é".txt')
        == b"attachment; filename=\"__.txt\"; filename*=UTF-8''%C3%A9%22.txt"
    )


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (None, (None, None)),
        (b"inline", ("inline", None)),
        (b'attachment; filename="a b.txt"', ("attachment", "a b.txt")),
        (b"attachment; filename*=UTF-8''caf%C3%A9.txt", ("attachment", "café.txt")),
        ('attachment; filename="café.txt"'.encode(), ("attachment", "café.txt")),
        (b'form-data; filename="../x"', ("attachment", "x")),
    ],
)
def test_a_disposition_is_read(value: bytes | None, read: tuple[str | None, str | None]) -> None:
    assert read_disposition(value) == read


SENT = Head(disposition="inline", filename="sent.txt", content_type=b"text/plain", length=3)


@pytest.mark.parametrize(
    ("head", "query", "disposition"),
    [
        (SENT, ReceiveQuery(), b'inline; filename="sent.txt"'),
        (SENT, ReceiveQuery(download=True), b'attachment; filename="sent.txt"'),
        (SENT, ReceiveQuery(download=False), None),
        (SENT, ReceiveQuery(filename="own.txt"), b'attachment; filename="own.txt"'),
        (SENT, ReceiveQuery(download=False, filename="own.txt"), None),
        (Head(), ReceiveQuery(), None),
        (Head(), ReceiveQuery(download=True), b"attachment"),
        (Head(), ReceiveQuery(filename=".."), None),
    ],
)
def test_each_receiver_has_its_own_disposition(
    head: Head, query: ReceiveQuery, disposition: bytes | None
) -> None:
    assert dict(head.headers_for(query)).get(b"Content-Disposition") == disposition


def test_receivers_always_get_what_keeps_a_strangers_bytes_harmless() -> None:
    assert set(ALWAYS) <= set(Head().headers_for(ReceiveQuery()))


def test_own_headers_pass_and_others_do_not() -> None:
    headers = Headers({"x-piping": ["a", "b"], "X-Hoody-Pipe": ["c"], "x-other": ["d"]})
    passed = read_head(headers, length=None, digest=False, expected=None).passed
    assert passed == ((b"X-Piping", b"a"), (b"X-Piping", b"b"), (b"X-Hoody-Pipe", b"c"))


def test_over_8_kib_of_an_own_header_are_refused_by_name() -> None:
    read_head(Headers({"x-piping": ["x" * 8192]}), length=0, digest=False, expected=None)
    with pytest.raises(CallerError, match="X-Piping is over 8 KiB"):
        read_head(Headers({"x-piping": ["x" * 8193]}), length=0, digest=False, expected=None)


def test_content_range_is_refused() -> None:
    headers = Headers({"content-range": ["bytes 0-1/2"]})
    with pytest.raises(CallerError, match="Content-Range"):
        read_head(headers, length=None, digest=False, expected=None)
