"""
What the server signs, to know it again: capability URLs, sessions, and the tokens
against forged requests (CSRF) that go with these.

All servers of a database have the same key. Each kind is signed under a name of its
own, so that one cannot pass for another.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

from attrs import frozen
from itsdangerous import BadData, URLSafeSerializer

from hoody.auth.tokens import Scope

KEY_BYTES = 32


@frozen(kw_only=True)
class Capability:
    """
    One right on one resource until some time, for whoever has the URL, by the grace
    of a token: it is worth nothing when that is revoked or has expired.

    @ivar right: never C{admin}.
    @ivar resource: the path of the URL, without host and query.
    """

    right: Scope
    resource: str
    token_id: str
    expires_at: datetime

    def allows(self, right: Scope, path: str, now: datetime) -> bool:
        same = self.resource.rstrip("/") == path.rstrip("/")
        return self.right is right and same and now < self.expires_at


@frozen(kw_only=True)
class Session:
    """A browser that has shown a token; good for no longer than the token is."""

    token_id: str
    expires_at: datetime


@frozen(kw_only=True)
class ContainerSession:
    """A browser that has shown a token to one container's URL: good for that one alone."""

    token_id: str
    container_id: str
    expires_at: datetime


class Signer:
    """Signs, and reads what was signed; whoever reads has to look at the time."""

    def __init__(self, key: bytes) -> None:
        self._capabilities = _serializer(key, "capability")
        self._sessions = _serializer(key, "session")
        self._container_sessions = _serializer(key, "container-session")
        self._csrf = hashlib.sha256(b"csrf" + key).digest()

    def sign_capability(self, capability: Capability) -> str:
        """As C{?cap=} has it."""
        return self._capabilities.dumps(
            [
                capability.right.value,
                capability.resource,
                capability.token_id,
                int(capability.expires_at.timestamp()),
            ]
        )

    def read_capability(self, text: str) -> Capability | None:
        try:
            right, resource, token_id, expires = self._capabilities.loads(text)
            return Capability(
                right=Scope(right),
                resource=resource,
                token_id=token_id,
                expires_at=_time(expires),
            )
        except (BadData, ValueError, TypeError):
            return None

    def sign_session(self, session: Session) -> str:
        """As the cookie has it."""
        return self._sessions.dumps([session.token_id, int(session.expires_at.timestamp())])

    def read_session(self, text: str) -> Session | None:
        try:
            token_id, expires = self._sessions.loads(text)
            return Session(token_id=token_id, expires_at=_time(expires))
        except (BadData, ValueError, TypeError):
            return None

    def sign_container_session(self, session: ContainerSession) -> str:
        """As the cookie has it."""
        return self._container_sessions.dumps(
            [session.token_id, session.container_id, int(session.expires_at.timestamp())]
        )

    def read_container_session(self, text: str) -> ContainerSession | None:
        try:
            token_id, container_id, expires = self._container_sessions.loads(text)
            return ContainerSession(
                token_id=token_id, container_id=container_id, expires_at=_time(expires)
            )
        except (BadData, ValueError, TypeError):
            return None

    def csrf_token(self, session: str) -> str:
        """What a page of this session sends with each change."""
        return hmac.new(self._csrf, session.encode(), hashlib.sha256).hexdigest()

    def is_csrf_token(self, given: str, session: str) -> bool:
        expected = self.csrf_token(session).encode()
        return hmac.compare_digest(given.encode("utf-8", "replace"), expected)


def _serializer(key: bytes, name: str) -> URLSafeSerializer:
    return URLSafeSerializer(
        key,
        salt=f"hoody.{name}".encode(),
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
