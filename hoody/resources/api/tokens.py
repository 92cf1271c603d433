"""Tokens and capability URLs as HTTP sees them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from attrs import define
from msgspec import Meta

from hoody.audit.events import Event
from hoody.auth.keyring import Keyring
from hoody.auth.signatures import Capability
from hoody.auth.tokens import Scope, Token
from hoody.errors import CallerError, Conflict, InUse, NoSuchThing, Taken
from hoody.resources.api.operations import Call, Operation, Pagination, Paging, pagination
from hoody.resources.api.reading import in_utc, whole

LONGEST_CAPABILITY = timedelta(days=366)

Alias = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        pattern=whole(r"[^\x00-\x1f\x7f]+"),
        description="1 to 100 characters without control characters, which no other token has",
    ),
]
Id = Annotated[str, Meta(pattern=whole("[0-9a-f]{24}"), description="an id: 24 hex digits")]


class NewToken(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A token that is to be."""

    alias: Alias
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=len(Scope))] = msgspec.field(
        default_factory=lambda: [Scope.READ]
    )
    containers: Annotated[list[Id], Meta(min_length=1, max_length=1000)] | None = None
    expires_at: datetime | None = None


class TokenRow(msgspec.Struct, kw_only=True):
    """Never with the secret."""

    id: str
    alias: str
    scopes: list[Scope]
    containers: list[str] | None
    root: bool
    expired: bool
    created_at: datetime
    expires_at: datetime | None


class IssuedToken(TokenRow, kw_only=True):
    """As it is shown once, to whoever made it."""

    token: str


class TokenPaging(Paging, kw_only=True):
    sort_by: Literal["created_at", "alias"] = "created_at"


class TokenPage(msgspec.Struct, kw_only=True):
    tokens: list[TokenRow]
    pagination: Pagination


class NewCapability(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A URL that is to bear one right on one resource."""

    right: Scope
    resource: Annotated[
        str,
        Meta(
            max_length=1024,
            pattern=whole(r"/api/v1/[!-\"$->@-~]+"),
            description="the path of a URL of this API, such as /api/v1/events",
        ),
    ]
    expires_at: datetime


class IssuedCapability(msgspec.Struct, kw_only=True):
    url: str
    right: Scope
    resource: str
    expires_at: datetime


@define(eq=False)
class TokensFace:
    _keyring: Keyring

    def operations(self) -> list[Operation]:
        path = "/api/v1/auth/tokens"
        return [
            Operation(
                method="GET",
                path=path,
                summary="The tokens, without their secrets",
                answer=self.list_tokens,
                scope=Scope.ADMIN,
                query=TokenPaging,
                returns=TokenPage,
            ),
            Operation(
                method="POST",
                path=path,
                summary="Issue a token; its secret is in this answer, and nowhere else",
                answer=self.create_token,
                scope=Scope.ADMIN,
                body=NewToken,
                returns=IssuedToken,
                status=201,
                says="The token was issued. Keep it: it is not shown again.",
                errors=(409,),
            ),
            Operation(
                method="DELETE",
                path=path + "/{token}",
                summary="Revoke a token, by its id, on all servers at once",
                answer=self.revoke_token,
                scope=Scope.ADMIN,
                returns=TokenRow,
                says="The token was revoked.",
                errors=(404, 409),
            ),
            Operation(
                method="POST",
                path="/api/v1/auth/capabilities",
                summary="Sign a URL that bears one right on one resource until a time",
                answer=self.sign_capability,
                scope=Scope.READ,
                body=NewCapability,
                returns=IssuedCapability,
                status=201,
                says="Whoever has the URL has the right.",
                errors=(),
            ),
        ]

    async def list_tokens(self, call: Call) -> TokenPage:
        query, now = call.query, call.now
        found = await self._keyring.all()
        found.sort(key=attrgetter(query.sort_by), reverse=query.sort_order == "desc")
        shown = found[query.offset : query.offset + query.limit]
        return TokenPage(
            tokens=[TokenRow(**_fields(token, now)) for token in shown],
            pagination=pagination(query, len(found)),
        )

    async def create_token(self, call: Call) -> IssuedToken:
        body: NewToken = call.body
        expires_at = _expiry(body.expires_at, call.now)
        try:
            token, secret = await self._keyring.create(
                alias=body.alias,
                scopes=tuple(dict.fromkeys(body.scopes)),
                containers=tuple(dict.fromkeys(body.containers)) if body.containers else None,
                expires_at=expires_at,
                told=_told(call),
            )
        except Taken:
            raise Conflict(
                f"alias: another token is called {body.alias!r}; choose another alias."
            ) from None
        return IssuedToken(token=secret, **_fields(token, call.now))

    async def revoke_token(self, call: Call, token: str) -> TokenRow:
        try:
            gone = await self._keyring.revoke(token, _told(call))
        except InUse:
            raise Conflict(
                "The root token is not revoked, but replaced: run 'hoody token reset' on the"
                " machine."
            ) from None
        if gone is None:
            raise NoSuchThing(
                f"There is no token with the id {token!r}; GET /api/v1/auth/tokens has them."
            )
        return TokenRow(**_fields(gone, call.now))

    async def sign_capability(self, call: Call) -> IssuedCapability:
        body: NewCapability = call.body
        if body.right is Scope.ADMIN:
            raise CallerError('right: "admin" will not do; a URL may bear any other right.')
        call.principal.require(body.right)
        if call.principal.only is not None:
            raise CallerError("A capability URL signs no other; use a token.")
        expires_at = _expiry(body.expires_at, call.now)
        assert expires_at is not None
        if expires_at > call.now + LONGEST_CAPABILITY:
            raise CallerError("expires_at: at most a year from now will do.")
        if "/../" in f"{body.resource}/" or "//" in body.resource:
            raise CallerError(
                f'resource: "{body.resource}" will not do; give the path as it is asked for.'
            )
        signer = self._keyring.signer
        assert signer is not None
        text = signer.sign_capability(
            Capability(
                right=body.right,
                resource=body.resource,
                token_id=call.principal.token.id,
                expires_at=expires_at,
            )
        )
        return IssuedCapability(
            url=f"{_origin(call)}{body.resource}?cap={quote(text)}",
            right=body.right,
            resource=body.resource,
            expires_at=expires_at,
        )


def _told(call: Call) -> Callable[[str, Token], Event]:
    def told(event_type: str, token: Token) -> Event:
        return call.event(
            event_type,
            "token",
            token.id,
            alias=token.alias,
            scopes=list(token.scopes),
        )

    return told


def _fields(token: Token, now: datetime) -> dict[str, Any]:
    return {
        "id": token.id,
        "alias": token.alias,
        "scopes": list(token.scopes),
        "containers": None if token.containers is None else list(token.containers),
        "root": token.root,
        "expired": not token.is_valid(now),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
    }


def _expiry(given: datetime | None, now: datetime) -> datetime | None:
    if given is None:
        return None
    expires_at = in_utc("expires_at", given)
    if expires_at <= now:
        raise CallerError(f'expires_at: "{given.isoformat()}" is past; give a later time.')
    return expires_at


def _origin(call: Call) -> str:
    scheme = "https" if call.request.isSecure() else "http"
    host = (call.request.getHeader(b"host") or b"localhost").decode("ascii", "replace")
    return f"{scheme}://{re.sub('[^][A-Za-z0-9.:_-]', '', host)}"
