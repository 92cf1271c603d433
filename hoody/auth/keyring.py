"""The tokens at hand, and what is done with them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from datetime import datetime

from attrs import define, field
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from hoody.audit.events import Event
from hoody.auth import tokens
from hoody.auth.signatures import KEY_BYTES, Signer
from hoody.auth.tokens import ROOT, Scope, Token
from hoody.errors import DatabaseAway, InUse, Taken
from hoody.interfaces import IStore, ITransaction
from hoody.later import sleep
from hoody.units import moment

TOPIC = "tokens"
NEW = ".new"
"""What stands behind the name of a file whose secret is not yet true."""
AGAIN = 1.0
"""Seconds until the tokens are read again that could not be."""

_log = Logger(namespace="hoody.auth")


@define(eq=False)
class Keyring:
    """
    All valid tokens are kept in memory and follow the database: to check one costs
    no query, and pipes go on while Postgres is away. A change is announced to all servers.

    @ivar signer: C{None} until the database has been reached once.
    @ivar changed: called when tokens may have come or gone.
    """

    _store: IStore
    _clock: IReactorTime
    signer: Signer | None = field(default=None, init=False)
    changed: Callable[[], None] = field(default=lambda: None, init=False)
    _tokens: dict[str, Token] = field(factory=dict, init=False)
    _changes: int = field(default=0, init=False)
    _loading: bool = field(default=False, init=False)
    _stale: bool = field(default=False, init=False)

    @property
    def now(self) -> datetime:
        return moment(self._clock.seconds())

    def follow(self) -> None:
        """Keep in step with what all servers do."""
        self._store.observe(TOPIC, self._changed)

    async def load(self) -> None:
        """Read all; again, if something was done here meanwhile."""
        changes = -1
        while changes != self._changes:
            changes = self._changes
            async with self._store.transaction() as transaction:
                key = await transaction.secret("signing", secrets.token_bytes(KEY_BYTES))
                found = await transaction.tokens.all()
        self.signer = Signer(key)
        self._tokens = {token.id: token for token in found}

    def known(self, token_id: str) -> Token | None:
        """A valid token, by its id."""
        token = self._tokens.get(token_id)
        return token if token is not None and token.is_valid(self.now) else None

    def find(self, secret: str) -> Token | None:
        """The valid token that this is, if it is one that we know of."""
        identity = tokens.identity(secret)
        token = self.known(identity) if identity else None
        return token if tokens.is_secret_of(token, secret) else None

    async def search(self, secret: str) -> Token | None:
        """
        As L{find}, but ask the database about one that was perhaps made just now.

        @raise DatabaseAway: if that cannot be done.
        """
        identity = tokens.identity(secret)
        found = self.find(secret)
        if found is not None or identity is None or identity in self._tokens:
            return found
        changes = self._changes
        async with self._store.transaction() as transaction:
            token = await transaction.tokens.get(identity)
        if token is not None and tokens.is_secret_of(token, secret) and changes == self._changes:
            self._tokens[token.id] = token
        return self.find(secret)

    async def all(self) -> list[Token]:
        async with self._store.transaction() as transaction:
            return await transaction.tokens.all()

    async def create(
        self,
        *,
        alias: str,
        scopes: tuple[Scope, ...],
        containers: tuple[str, ...] | None,
        expires_at: datetime | None,
        told: Callable[[str, Token], Event],
    ) -> tuple[Token, str]:
        """
        @param told: makes the event, of its type and the token.
        @return: the token, and its secret.
        @raise Taken: if another has its alias.
        """
        token, secret = tokens.mint(
            alias=alias,
            scopes=scopes,
            containers=containers,
            expires_at=expires_at,
            now=self.now,
        )
        async with self._store.transaction() as transaction:
            await transaction.tokens.add(token)
            transaction.record(told("token.created", token))
            transaction.announce(TOPIC)
        self._changes += 1
        self._tokens[token.id] = token
        return token, secret

    def learn(self, token: Token) -> None:
        """One that was put into the database by somebody else here."""
        self._changes += 1
        self._tokens[token.id] = token

    def forget(self, token_id: str) -> None:
        """From now on it is worth nothing here, though it may still be in the database."""
        self._changes += 1
        self._tokens.pop(token_id, None)

    async def revoke(self, token_id: str, told: Callable[[str, Token], Event]) -> Token | None:
        """
        @return: the token that there was. From now on it is worth nothing here, and on
            other servers as soon as they hear of it, which takes some milliseconds.
        @raise InUse: if it is the root token, which is only ever replaced.
        """
        async with self._store.transaction() as transaction:
            token = await transaction.tokens.get(token_id)
            if token is None:
                return None
            if token.root:
                raise InUse
            await transaction.tokens.remove(token_id)
            transaction.record(told("token.revoked", token))
            transaction.announce(TOPIC)
        self._changes += 1
        self._tokens.pop(token_id, None)
        return token

    # The root token

    async def ensure_root(self, path: str) -> str | None:
        """
        Have a root token in the database. One that is made is in a file beside C{path}
        before it is in the database: cut off in between, the next start goes on with it.

        @return: its secret, if it is new.
        """
        secret = _kept(path + NEW) or _kept(path)
        try:
            async with self._store.transaction() as transaction:
                roots = [token for token in await transaction.tokens.all() if token.root]
                if roots:
                    fresh = _kept(path + NEW)
                    if fresh and tokens.is_secret_of(roots[0], fresh):
                        settle_private(path)
                    return None
                made = await self._add_root(transaction, path, secret)
        except Taken:
            return None  # another server of this database was first
        else:
            settle_private(path)
        finally:
            await self.load()
        return made

    async def reset_root(self, path: str) -> str:
        """Make a new root token in place of the one that there is, if any."""
        async with self._store.transaction() as transaction:
            for token in await transaction.tokens.all():
                if token.root:
                    await transaction.tokens.remove(token.id)
                    transaction.record(self._told("token.revoked", token))
            secret = await self._add_root(transaction, path, None)
        settle_private(path)
        await self.load()
        return secret

    async def _add_root(self, transaction: ITransaction, path: str, secret: str | None) -> str:
        token, fresh = tokens.mint(alias=ROOT, scopes=(Scope.ADMIN,), now=self.now, root=True)
        identity = tokens.identity(secret) if secret is not None else None
        if secret is None or identity is None:
            secret = fresh
        else:
            token = tokens.restored(token, identity, secret)
        write_private(path + NEW, secret)
        await transaction.tokens.add(token)
        transaction.record(self._told("token.created", token))
        transaction.announce(TOPIC)
        return secret

    def _told(self, event_type: str, token: Token) -> Event:
        return Event(
            ts=self.now,
            event_type=event_type,
            actor="operator",
            resource_type="token",
            resource_id=token.id,
            data={"alias": token.alias, "scopes": list(token.scopes)},
        )

    # Following

    def _changed(self) -> None:
        self._stale = True
        if not self._loading:
            self._loading = True
            ensureDeferred(self._reload())

    async def _reload(self) -> None:
        """Until it has been done: a token that was revoked elsewhere must not stay valid here."""
        try:
            while self._stale:
                self._stale = False
                try:
                    await self.load()
                except Exception as error:
                    self._stale = True
                    if not isinstance(error, DatabaseAway):
                        _log.failure("the tokens could not be read")
                    await sleep(self._clock, AGAIN)
                else:
                    self.changed()
        finally:
            self._loading = False


def _kept(path: str) -> str | None:
    """The secret that a file has, if it is there and has one."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read().strip()
    except FileNotFoundError:
        return None
    return text if tokens.identity(text) else None


def write_private(path: str, text: str) -> None:
    """A file for us alone, on the disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def settle_private(path: str) -> None:
    """Put what was written beside C{path} in its place."""
    os.replace(path + NEW, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
