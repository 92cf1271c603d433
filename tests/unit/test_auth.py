"""Tokens, signatures and suspects, without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from hoody.audit.events import Event, Filter
from hoody.auth import tokens
from hoody.auth.keyring import AGAIN, Keyring
from hoody.auth.principal import Principal
from hoody.auth.signatures import Capability, Session, Signer
from hoody.auth.suspects import Suspects, network_of
from hoody.auth.tokens import Scope, Token, mint
from hoody.errors import DatabaseAway, Forbidden, InUse
from hoody.store.memory import MemoryStore, MemoryTransaction

NOW = datetime(2026, 5, 4, 2, 55, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def token(*scopes: Scope, **more: object) -> Token:
    return mint(alias="a", scopes=scopes, now=NOW, **more)[0]  # type: ignore[arg-type]


def test_only_its_own_secret_is_a_tokens() -> None:
    made, secret = mint(alias="a", scopes=(), now=NOW)
    assert tokens.identity(secret) == made.id
    assert tokens.is_secret_of(made, secret)
    assert not tokens.is_secret_of(made, secret + "x")
    assert not tokens.is_secret_of(None, secret)
    assert secret.encode() not in repr(made).encode()


@given(st.text())
def test_no_text_is_a_token_but_what_looks_like_one(text: str) -> None:
    made = token()
    assert tokens.identity(text) is None
    assert not tokens.is_secret_of(made, text)


@pytest.mark.parametrize("scope", list(Scope))
def test_a_scope_is_itself_write_brings_read_and_snapshot_and_admin_all(scope: Scope) -> None:
    for other in Scope:
        expected = (
            other is scope
            or scope is Scope.ADMIN
            or (scope is Scope.WRITE and other in (Scope.READ, Scope.SNAPSHOT))
        )
        assert token(scope).may(other) is expected


def test_a_capability_url_never_bears_more_than_its_one_right() -> None:
    principal = Principal(actor="a", token=token(Scope.ADMIN), only=Scope.READ)
    principal.require(Scope.READ)
    for scope in set(Scope) - {Scope.READ}:
        with pytest.raises(Forbidden):
            principal.require(scope)
    with pytest.raises(Forbidden, match="needs read"):
        Principal(actor="a", token=token(Scope.PIPE), only=Scope.READ).require(Scope.READ)


def capability() -> Capability:
    return Capability(right=Scope.SNAPSHOT, resource="/a/b", token_id="0" * 24, expires_at=LATER)


def test_a_capability_is_for_one_right_one_path_and_a_time() -> None:
    made = capability()
    assert made.allows(Scope.SNAPSHOT, "/a/b", NOW)
    assert not made.allows(Scope.READ, "/a/b", NOW)
    assert made.allows(Scope.SNAPSHOT, "/a/b/", NOW)  # a slash at the end is no difference
    assert not made.allows(Scope.SNAPSHOT, "/a/b/c", NOW)
    assert not made.allows(Scope.SNAPSHOT, "/a", NOW)
    assert not made.allows(Scope.SNAPSHOT, "/a/b", LATER)


def test_what_was_signed_is_known_again_and_nothing_else() -> None:
    signer, other = Signer(b"k" * 32), Signer(b"o" * 32)
    text = signer.sign_capability(capability())
    assert signer.read_capability(text) == capability()
    assert other.read_capability(text) is None
    session = signer.sign_session(Session(token_id="1" * 24, expires_at=LATER))
    assert signer.read_session(session) == Session(token_id="1" * 24, expires_at=LATER)
    # One kind is not taken for the other.
    assert signer.read_session(text) is None
    assert signer.read_capability(session) is None


@given(st.data())
def test_a_signature_does_not_survive_a_change(data: st.DataObject) -> None:
    signer = Signer(b"k" * 32)
    text = signer.sign_capability(capability())
    place = data.draw(st.integers(0, len(text) - 2))  # the last has bits that mean nothing
    other = data.draw(
        st.sampled_from("ABCDEFabcdef0123456789_-.").filter(lambda c: c != text[place])
    )
    assert signer.read_capability(text[:place] + other + text[place + 1 :]) is None


def test_a_csrf_token_is_of_one_session() -> None:
    signer = Signer(b"k" * 32)
    assert signer.is_csrf_token(signer.csrf_token("one"), "one")
    assert not signer.is_csrf_token(signer.csrf_token("one"), "two")
    assert not signer.is_csrf_token("", "one")
    assert not signer.is_csrf_token("\ud800", "one")


def test_wrong_tokens_cost_and_are_forgiven() -> None:
    suspects = Suspects(3)
    assert [suspects.blame("10.0.0.1", 0) for _ in range(4)] == [False, False, False, True]
    assert not suspects.blame("10.0.0.2", 0)
    assert suspects.blame("10.0.0.1", 1)
    assert not suspects.blame("10.0.0.1", 60)


def test_whoever_has_many_addresses_is_one() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff")
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8::1")
    assert network_of("10.0.0.1") != network_of("10.0.0.2")
    assert network_of(None) == ""


def test_suspects_take_no_more_room_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoody.auth.suspects.MOST", 10)
    suspects = Suspects(1)
    for number in range(100):
        suspects.blame(f"10.0.0.{number}", 0)
    assert len(suspects._budgets) == 10


# The keyring


class Ring:
    def __init__(self) -> None:
        self.store, self.clock = MemoryStore(), Clock()
        self.clock.advance(NOW.timestamp())
        self.keyring = Keyring(self.store, self.clock)
        self.keyring.follow()

    async def create(self, **more: object) -> tuple[Token, str]:
        given: dict[str, object] = {
            "alias": "ci",
            "scopes": (Scope.READ,),
            "containers": None,
            "expires_at": None,
            **more,
        }
        return await self.keyring.create(told=told, **given)  # type: ignore[arg-type]


def told(event_type: str, token: Token) -> Event:
    return Event(
        ts=NOW, event_type=event_type, actor="x", resource_type="token", resource_id=token.id
    )


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_token_is_found_by_its_secret_until_it_expires() -> None:
    ring = Ring()
    await ring.keyring.load()
    made, secret = await ring.create(expires_at=LATER)
    assert ring.keyring.find(secret) == made
    assert ring.keyring.find(secret[:-1] + "!") is None
    ring.clock.advance(3599)
    assert ring.keyring.find(secret) == made
    ring.clock.advance(1)
    assert ring.keyring.find(secret) is None
    assert await ring.keyring.search(secret) is None


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_tokens_are_known_while_the_database_is_away() -> None:
    ring = Ring()
    await ring.keyring.load()
    made, secret = await ring.create()
    ring.store.away = "it is gone"
    assert ring.keyring.find(secret) == made
    assert await ring.keyring.search(secret) == made
    with pytest.raises(DatabaseAway):
        await ring.keyring.revoke(made.id, told)
    assert ring.keyring.find(secret) == made
    ring.store.away = None
    assert await ring.keyring.revoke(made.id, told) == made
    assert ring.keyring.find(secret) is None


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_what_another_server_did_is_followed() -> None:
    one, two = Ring(), Ring()
    two.keyring = Keyring(one.store, two.clock)
    two.keyring.follow()
    await one.keyring.load()
    await two.keyring.load()
    made, secret = await one.create()
    assert two.keyring.find(secret) == made
    await two.keyring.revoke(made.id, told)
    assert one.keyring.find(secret) is None


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_the_root_token_is_in_its_file_before_it_is_true(tmp_path: Path) -> None:
    ring, path = Ring(), tmp_path / "root-token"
    ring.store.away = "it is gone"
    with pytest.raises(DatabaseAway):
        await ring.keyring.ensure_root(str(path))
    ring.store.away = None
    secret = await ring.keyring.ensure_root(str(path))
    assert secret is not None
    assert path.read_text().strip() == secret
    assert await ring.keyring.ensure_root(str(path)) is None
    found = ring.keyring.find(secret)
    assert found is not None
    assert found.root


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_start_that_was_cut_off_goes_on_with_the_token_in_the_file(
    tmp_path: Path,
) -> None:
    ring, path = Ring(), tmp_path / "root-token"
    _, secret = mint(alias="root", scopes=(Scope.ADMIN,), now=NOW, root=True)
    path.write_text(secret + "\n")
    assert await ring.keyring.ensure_root(str(path)) == secret
    assert ring.keyring.find(secret) is not None
    assert path.read_text() == secret + "\n"


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_reset_leaves_one_root_token(tmp_path: Path) -> None:
    ring, path = Ring(), tmp_path / "root-token"
    first = await ring.keyring.ensure_root(str(path))
    second = await ring.keyring.reset_root(str(path))
    assert first is not None
    assert ring.keyring.find(first) is None
    assert ring.keyring.find(second) is not None
    async with ring.store.transaction() as transaction:
        events, _ = await transaction.events.page(Filter(), 0, 10, True)
    assert [event.event_type for event in events] == [
        "token.created",
        "token.revoked",
        "token.created",
    ]


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_change_that_could_not_be_read_at_once_is_read_later() -> None:
    """Else a token that was revoked on another server would stay valid here."""
    one, two = Ring(), Ring()
    two.keyring = Keyring(one.store, two.clock)
    await one.keyring.load()
    await two.keyring.load()
    made, secret = await one.create()
    await two.keyring.load()
    two.keyring.follow()
    rows = one.store._rows
    await one.keyring.revoke(made.id, told)
    # It was told, and could not look.
    two.keyring._tokens[made.id] = made
    one.store.away = "it is busy"
    two.keyring._changed()
    assert two.keyring.find(secret) == made
    one.store.away = None
    two.clock.advance(AGAIN)
    assert two.keyring.find(secret) is None
    assert rows is not one.store._rows


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_reset_that_fails_leaves_the_root_token_as_it_was(tmp_path: Path) -> None:
    ring, path = Ring(), tmp_path / "root-token"
    first = await ring.keyring.ensure_root(str(path))
    assert first is not None

    class Lost(MemoryStore):
        @asynccontextmanager
        async def _transaction(self) -> AsyncIterator[MemoryTransaction]:
            async with ring.store.transaction() as transaction:
                yield transaction
                raise DatabaseAway("lost before the COMMIT")

    with pytest.raises(DatabaseAway):
        await Keyring(Lost(), ring.clock).reset_root(str(path))
    assert path.read_text().strip() == first
    await ring.keyring.load()
    assert ring.keyring.find(first) is not None


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_reset_cut_off_behind_the_commit_is_finished_by_the_next_start(
    tmp_path: Path,
) -> None:
    ring, path = Ring(), tmp_path / "root-token"
    first = await ring.keyring.ensure_root(str(path))
    second = await ring.keyring.reset_root(str(path))
    path.rename(f"{path}.new")
    path.write_text(f"{first}\n")
    assert await ring.keyring.ensure_root(str(path)) is None
    assert path.read_text().strip() == second


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_the_root_token_is_not_revoked() -> None:
    ring = Ring()
    made, _ = mint(alias="root", scopes=(Scope.ADMIN,), now=NOW, root=True)
    async with ring.store.transaction() as transaction:
        await transaction.tokens.add(made)
    with pytest.raises(InUse):
        await ring.keyring.revoke(made.id, told)


def test_an_ipv4_address_in_ipv6_is_itself() -> None:
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1") != network_of("::ffff:10.0.0.2")
