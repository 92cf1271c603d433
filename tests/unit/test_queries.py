"""What may be asked for behind the question mark."""

from __future__ import annotations

import pytest

from hoody.errors import CallerError
from hoody.pipes.queries import ReceiveQuery, SendQuery, parse, read_receive, read_send


@pytest.mark.parametrize(("query", "wanted"), [(b"", 1), (b"n=1", 1), (b"n=256", 256)])
def test_n_is_a_number_of_receivers(query: bytes, wanted: int) -> None:
    assert read_send(parse(query)).wanted == wanted
    assert read_receive(parse(query)).wanted == wanted


@pytest.mark.parametrize("n", ["0", "-1", "257", "abc", "1.5", "", "+1", "1e2", "٣", "0x1", " 1"])
def test_any_other_n_is_refused_by_name(n: str) -> None:
    with pytest.raises(CallerError, match=r"^n must be a whole number from 1 to 256"):
        read_send({"n": [n]})


def test_n_given_twice_is_refused() -> None:
    with pytest.raises(CallerError, match=r"^n is given 2 times"):
        read_receive(parse(b"n=1&n=1"))


@pytest.mark.parametrize(
    ("query", "size"),
    [
        (b"size=5", 5),
        (b"size=60M", 60 * 1024**2),
        (b"size=200G", 200 * 1024**3),
        (b"size=1.5GiB", 3 * 1024**3 // 2),
        (b"size=2kib", 2048),
        (b"size=1TB", 1000**4),
    ],
)
def test_size_counts_as_gnu_head_does(query: bytes, size: int) -> None:
    assert read_send(parse(query)).expected == size


@pytest.mark.parametrize(
    "query",
    [b"size=", b"size=big", b"size=-1", b"size=1X", b"size=1&size=2", b"size=" + b"9" * 5000],
)
def test_any_other_size_is_refused_by_name(query: bytes) -> None:
    with pytest.raises(CallerError, match=r"^size"):
        read_send(parse(query))


def test_sha256_is_the_only_digest() -> None:
    assert read_send(parse(b"digest=sha256")) == SendQuery(digest=True)
    with pytest.raises(CallerError, match=r"^digest must be sha256"):
        read_send(parse(b"digest=md5"))


@pytest.mark.parametrize(
    ("query", "download"),
    [
        (b"", None),
        (b"download", True),
        (b"download=", True),
        (b"download=1", True),
        (b"download=true", True),
        (b"download=YES", True),
        (b"download=0", False),
        (b"download=no", False),
    ],
)
def test_download_is_yes_no_or_the_senders_wish(query: bytes, download: bool | None) -> None:
    assert read_receive(parse(query)).download is download


def test_a_download_that_is_neither_is_refused_by_name() -> None:
    with pytest.raises(CallerError, match=r"^download must be 1 or 0"):
        read_receive(parse(b"download=maybe"))


@pytest.mark.parametrize("query", [b"progress", b"progress=1", b"progress=true"])
def test_progress_is_to_watch(query: bytes) -> None:
    assert read_receive(parse(query)).progress


@pytest.mark.parametrize("query", [b"progress=0", b"progress=false", b"progress=no", b""])
def test_without_progress_it_is_a_plain_receiver(query: bytes) -> None:
    assert read_receive(parse(query)) == ReceiveQuery()


def test_a_filename_may_come_as_bare_utf8() -> None:
    assert read_receive(parse("filename=résumé.pdf".encode())).filename == "résumé.pdf"


def test_a_filename_is_decoded() -> None:
    assert read_receive(parse(b"filename=caf%C3%A9+1.txt")).filename == "café 1.txt"


def test_a_query_of_a_thousand_fields_is_refused() -> None:
    with pytest.raises(CallerError, match="100 fields"):
        parse(b"&".join(b"a%d=1" % number for number in range(1000)))
