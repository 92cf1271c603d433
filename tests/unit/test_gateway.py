"""What of a request is the gateway's business, without a request."""

from __future__ import annotations

import pytest

from hoody.auth import tokens
from hoody.auth.signatures import KEY_BYTES, ContainerSession, Session, Signer
from hoody.resources.forwarding import is_token, query_without_tokens, trailer_lines, without_ours
from hoody.resources.gateway import Address, read_address
from hoody.units import moment

PROJECT, CONTAINER = "a" * 24, "b" * 24
TOKEN = tokens.mint(alias="a", scopes=(), now=moment(0))[1].encode()


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("web", Address(label="web")),
        ("my_box-1", Address(label="my_box-1")),
        (CONTAINER, Address(label=CONTAINER)),
        ("cron", Address(label="cron", service="cron")),
        (
            f"{PROJECT}-{CONTAINER}-http-8080.s1",
            Address(label=CONTAINER, project_id=PROJECT, port=8080),
        ),
        (
            f"{PROJECT}-{CONTAINER}-cron-0.s1",
            Address(label=CONTAINER, project_id=PROJECT, service="cron", port=0),
        ),
        ("", None),
        ("-web", None),
        ("web-", None),
        ("w" * 64, None),
        ("web.s1", None),
        ("*", None),
        ("a%2eb", None),
        (f"{PROJECT}-{CONTAINER}-http-8080.s1.s2", None),
        (f"{PROJECT}-{CONTAINER}-http-8080.", Address(label=f"{PROJECT}-{CONTAINER}-http-8080")),
        (f"{PROJECT}-{CONTAINER}-http-123456.s1", None),
        (f"{PROJECT}-{CONTAINER}-http-.s1", None),
    ],
)
def test_a_host_is_read(name: str, address: Address | None) -> None:
    assert read_address(name) == address


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b"a=1; b=2", b"a=1; b=2"),
        (b"__Host-hoody=x", b""),
        (b"__Host-hoody-c=x; a=1", b"a=1"),
        (b"a=1;__host-HOODY=x ;b=__Host-hoody", b"a=1;b=__Host-hoody"),
        (b"__Host-other=x", b"__Host-other=x"),
    ],
)
def test_our_cookies_are_taken_out(given: bytes, kept: bytes) -> None:
    assert without_ours(given) == kept


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        (b"", b""),
        (b"token=own", b"token=own"),
        (b"token=" + TOKEN, b""),
        (b"a&token=" + TOKEN + b"&b=%20", b"a&b=%20"),
        (b"%74oken=%68" + TOKEN[1:], b""),
        (b"other=" + TOKEN, b"other=" + TOKEN),
    ],
    ids=range(6),  # a token is another each time, and test runners compare names
)
def test_our_tokens_are_taken_out_of_a_query(query: bytes, kept: bytes) -> None:
    assert query_without_tokens(query) == kept
    assert not any(map(is_token, kept.split(b"&")))


def test_trailers_that_say_how_to_read_are_left_out() -> None:
    names = [b"Digest", b"Content-Length", b"content_length", b"Host", b"X-Forwarded-For", b"Age"]
    assert trailer_lines((name, b"1") for name in names) == b"Digest: 1\r\nAge: 1\r\n"


def test_a_session_of_one_kind_is_none_of_the_other() -> None:
    signer, end = Signer(b"k" * KEY_BYTES), moment(1000)
    mine = ContainerSession(token_id="t", container_id="c", expires_at=end)
    text = signer.sign_container_session(mine)
    assert signer.read_container_session(text) == mine
    assert signer.read_session(text) is None
    console = signer.sign_session(Session(token_id="t", expires_at=end))
    assert signer.read_container_session(console) is None
    assert Signer(b"l" * KEY_BYTES).read_container_session(text) is None
    assert signer.read_container_session(text[:-1]) is None
