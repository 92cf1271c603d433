"""
Tokens: who may do what.

A token is C{hdy_}, its id (24 hex digits), and a secret of 256 bits. The id is
no secret: it finds the row, and may be told. Only the SHA-256 of the whole is
kept; as the secret is random, nothing slower is needed (a password would).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import datetime
from enum import StrEnum

from attrs import evolve, frozen

from hoody.units import new_id

PREFIX = "hdy_"
_FORM = re.compile(r"hdy_([0-9a-f]{24})[A-Za-z0-9_-]{43}")
ROOT = "root"


class Scope(StrEnum):
    """
    A right. C{admin} has them all; C{write} has C{read}, since who may change a
    thing may look at it, and C{snapshot}, since who may delete it may also save it.
    """

    READ = "read"
    WRITE = "write"
    SNAPSHOT = "snapshot"
    CRON = "cron"
    PIPE = "pipe"
    ADMIN = "admin"


@frozen(kw_only=True)
class Token:
    """
    @ivar containers: the ids of those that it is tied to; C{None} for all.
    @ivar digest: SHA-256 of the token itself.
    @ivar root: whether it is the one that the first start made.
    """

    id: str
    alias: str
    scopes: tuple[Scope, ...]
    containers: tuple[str, ...] | None
    digest: bytes
    root: bool
    created_at: datetime
    expires_at: datetime | None

    def may(self, scope: Scope) -> bool:
        """Whether it has this right."""
        if scope in self.scopes or Scope.ADMIN in self.scopes:
            return True
        return scope in (Scope.READ, Scope.SNAPSHOT) and Scope.WRITE in self.scopes

    def is_valid(self, now: datetime) -> bool:
        return self.expires_at is None or now < self.expires_at


def mint(
    *,
    alias: str,
    scopes: tuple[Scope, ...],
    now: datetime,
    containers: tuple[str, ...] | None = None,
    expires_at: datetime | None = None,
    root: bool = False,
) -> tuple[Token, str]:
    """A new token, and its secret, which is not to be kept."""
    identity = new_id(now)
    secret = f"{PREFIX}{identity}{secrets.token_urlsafe(32)}"
    token = Token(
        id=identity,
        alias=alias,
        scopes=scopes,
        containers=containers,
        digest=digest(secret),
        root=root,
        created_at=now,
        expires_at=expires_at,
    )
    return token, secret


def identity(secret: str) -> str | None:
    """The id in what claims to be a token, or C{None} if it cannot be one."""
    match = _FORM.fullmatch(secret)
    return match[1] if match else None


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def is_secret_of(token: Token | None, secret: str) -> bool:
    """Compare in constant time, whether there is such a token or not."""
    kept = token.digest if token is not None else bytes(32)
    return hmac.compare_digest(digest(secret), kept) and token is not None


def restored(token: Token, token_id: str, secret: str) -> Token:
    """C{token}, as the one whose secret this is."""
    return evolve(token, id=token_id, digest=digest(secret))
