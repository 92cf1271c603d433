"""
Who a request is from: a bearer token, a capability URL, or a page's session.

The right token always passes; a wrong one costs its address, and nobody else.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from urllib.parse import parse_qsl, urlencode, urlsplit

from attrs import define

from hoody.auth.keyring import Keyring
from hoody.auth.principal import Principal
from hoody.auth.signatures import Session
from hoody.auth.suspects import Suspects
from hoody.auth.tokens import Scope, Token
from hoody.errors import Forbidden, NoToken, TooMany, Unavailable
from hoody.pipes import names
from hoody.protocols.request import Request

COOKIE = "__Host-hoody"
SESSION_LASTS = timedelta(hours=12)
_SAFE = (b"GET", b"HEAD", b"OPTIONS")
_BEARER = re.compile(rb"bearer +(\S+) *", re.IGNORECASE)


class GoTo(Exception):
    """
    Ask again elsewhere, by GET.

    @ivar cookie: to be set, as C{Set-Cookie} has it.
    """

    def __init__(self, url: str, cookie: str) -> None:
        super().__init__(url)
        self.url = url
        self.cookie = cookie


def go_to(request: Request, elsewhere: GoTo) -> bytes:
    """Answer so."""
    request.setResponseCode(303)
    request.setHeader(b"location", elsewhere.url.encode())
    request.setHeader(b"set-cookie", elsewhere.cookie.encode())
    request.setHeader(b"content-length", b"0")
    return b""


@define(eq=False)
class Guard:
    keyring: Keyring
    suspects: Suspects

    async def admit(
        self, request: Request, scope: Scope, *, page: bool, others: tuple[Scope, ...] = ()
    ) -> Principal:
        """
        @param scope: what is asked for.
        @param others: scopes of tokens that will do as well.
        @param page: whether this is something that browsers open, where a token in the
            URL is taken for a session.
        @raise NoToken: if they do not say who they are, or not truly.
        @raise TooMany: if they have done so too often.
        @raise Forbidden: if they may not.
        @raise GoTo: if they have shown a token in the URL.
        """
        principal = await self._recognise(request, scope, page)
        principal.require(scope, others=others)
        return principal

    def admit_at_once(self, request: Request, scope: Scope) -> Principal:
        """As L{admit}, for bearers whose token is at hand, and with no time to ask further."""
        if self.keyring.signer is None:
            raise _not_yet()
        secret = bearer_of(request)
        capability = _query_of(request).get("cap")
        if secret is None and capability is not None:
            return self._by_capability(request, capability, scope)
        if secret is None:
            raise self._unknown()
        token = self.keyring.find(secret)
        if token is None:
            raise self._blame(request)
        principal = Principal(actor=token.alias, token=token)
        principal.require(scope)
        return principal

    def check_at_once(self, request: Request) -> None:
        """
        Refuse those who show nothing that is known here; what they may is looked at later.

        @raise NoToken: if it is so.
        """
        signer, secret = self.keyring.signer, bearer_of(request)
        if signer is None:
            raise _not_yet()
        text = _query_of(request).get("cap")
        if secret is not None:
            known = self.keyring.find(secret)
        elif text is not None:
            capability = signer.read_capability(text)
            known = self.keyring.known(capability.token_id) if capability else None
        else:
            raise self._unknown()
        if known is None:
            raise self._blame(request)

    async def _recognise(self, request: Request, scope: Scope, page: bool) -> Principal:
        if self.keyring.signer is None:
            raise _not_yet()
        secret = bearer_of(request)
        if secret is not None:
            token = await self.find(request, secret)
            return Principal(actor=token.alias, token=token)
        query = _query_of(request)
        if "cap" in query:
            return self._by_capability(request, query["cap"], scope)
        if "token" in query:
            await self._open_session(request, query["token"], page)
        return self._by_session(request)

    async def find(self, request: Request, secret: str) -> Token:
        """
        Whose secret this is. Who has shown too many wrong ones does not have the database asked
        for more.

        @raise NoToken: if it is nobody's.
        @raise TooMany: if they have shown too many such.
        """
        token = self.keyring.find(secret)
        now = request.site.reactor.seconds()
        if token is None and not self.suspects.is_over(request.peer_address, now):
            token = await self.keyring.search(secret)
        if token is None:
            raise self._blame(request)
        return token

    def _by_capability(self, request: Request, text: str, scope: Scope) -> Principal:
        signer = self.keyring.signer
        assert signer is not None
        capability = signer.read_capability(text)
        token = self.keyring.known(capability.token_id) if capability else None
        if capability is None or token is None:
            raise self._blame(request)
        path = request.path.decode("ascii", "replace")
        if not capability.allows(scope, path, self.keyring.now):
            raise Forbidden(
                f"This URL was given for {capability.right} on {capability.resource} until"
                f" {capability.expires_at:%Y-%m-%dT%H:%M:%SZ}; ask for another one."
            )
        return Principal(
            actor=token.alias, token=token, only=capability.right, until=capability.expires_at
        )

    async def _open_session(self, request: Request, secret: str, page: bool) -> None:
        if not page or request.method != b"GET":
            raise NoToken(
                "A token in the URL is for pages and event streams, which browsers open;"
                " send it as Authorization: Bearer."
            )
        token = await self.find(request, secret)
        raise GoTo(_without_token(request), self._cookie(token))

    def _cookie(self, token: Token) -> str:
        signer, now = self.keyring.signer, self.keyring.now
        assert signer is not None
        expires = session_end(token, now)
        text = signer.sign_session(Session(token_id=token.id, expires_at=expires))
        return session_cookie(COOKIE, text, expires - now)

    def _by_session(self, request: Request) -> Principal:
        signer = self.keyring.signer
        assert signer is not None
        text = cookie_of(request, COOKIE)
        session = signer.read_session(text) if text else None
        if text is None or session is None or self.keyring.now >= session.expires_at:
            raise self._unknown()
        token = self.keyring.known(session.token_id)
        if token is None:
            raise self._unknown()
        if request.method not in _SAFE:
            given = request.getHeader(b"x-csrf-token") or b""
            if not signer.is_csrf_token(given.decode("ascii", "replace"), text):
                raise Forbidden(
                    "A change by cookie needs the page's X-CSRF-Token; or send the token as"
                    " Authorization: Bearer."
                )
            if not _is_same_origin(request):
                raise Forbidden("A change by cookie must come from a page of this very origin.")
        return Principal(actor=token.alias, token=token, session=text, until=session.expires_at)

    def still_admits(self, principal: Principal) -> bool:
        """Whether the token of somebody who was admitted is still valid."""
        if principal.until is not None and self.keyring.now >= principal.until:
            return False
        return self.keyring.known(principal.token.id) is not None

    def csrf_token(self, principal: Principal) -> str:
        """What a page made for this principal sends with its changes; empty without a session."""
        signer = self.keyring.signer
        if signer is None or principal.session is None:
            return ""
        return signer.csrf_token(principal.session)

    def _blame(self, request: Request) -> Exception:
        address, now = request.peer_address, request.site.reactor.seconds()
        if self.suspects.blame(address, now):
            return TooMany("Too many wrong tokens from your address; wait a little.")
        return NoToken(
            "This token is not valid here: mistyped, revoked or expired. Ask for a new one, or,"
            " on the machine, use the one in the data directory's root-token."
        )

    def _unknown(self) -> NoToken:
        return NoToken(
            "This needs a token; send Authorization: Bearer hdy_... (the first one is in the"
            " data directory's file root-token)."
        )


@define(eq=False)
class PipeGuard:
    """
    Who may take part in pipes, and watch them.

    @ivar is_open: whether everybody may, who does not come by a container's own door.
    """

    guard: Guard
    is_open: bool

    def wants_token(self, request: Request) -> bool:
        return not self.is_open or request.door is not None

    def admit_at_once(self, request: Request, name: str) -> None:
        """@raise HoodyError: if they may not take part in the pipe of this name."""
        if self.wants_token(request):
            _check_space(self.guard.admit_at_once(request, Scope.PIPE), name)

    async def admit(self, request: Request, name: str) -> Principal | None:
        """
        Let in who watches.

        @return: by whose grace; C{None} where everybody may.
        @raise GoTo: if they have shown a token in the URL.
        """
        if not self.wants_token(request):
            return None
        principal = await self.guard.admit(request, Scope.PIPE, page=True)
        _check_space(principal, name)
        return principal

    def still_admits(self, principal: Principal | None) -> bool:
        """Whether who was let in would be let in now."""
        return principal is None or self.guard.still_admits(principal)


def _check_space(principal: Principal, name: str) -> None:
    """@raise Forbidden: for another container's pipe, to those who are tied to some."""
    owner = names.container_of(name)
    tied = principal.containers
    if owner is not None and tied is not None and owner not in tied:
        raise Forbidden(
            f"The token {principal.token.alias!r} is tied to other containers than the one"
            " whose pipe this is."
        )


def session_end(token: Token, now: datetime) -> datetime:
    """When a session that begins now ends: not after its token."""
    end = now + SESSION_LASTS
    return end if token.expires_at is None else min(end, token.expires_at)


def session_cookie(name: str, value: str, lasts: timedelta) -> str:
    """As C{Set-Cookie} has it."""
    age = int(lasts.total_seconds())
    return f"{name}={value}; Path=/; Max-Age={age}; Secure; HttpOnly; SameSite=Lax"


def _not_yet() -> Unavailable:
    return Unavailable("The database has not been reached yet; try again in a moment.")


def bearer_of(request: Request) -> str | None:
    given = request.getHeader(b"authorization")
    if given is None:
        return None
    match = _BEARER.fullmatch(given)
    return (match[1] if match else given).decode("ascii", "replace")


def _query_of(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.query.decode("ascii", "replace"), keep_blank_values=True))


def cookie_of(request: Request, wanted: str) -> str | None:
    """
    A cookie. Of two cookies of the name, browsers send the better one first (RFC 6265 section
    5.4). What others look like is none of our business.
    """
    for part in (request.getHeader(b"cookie") or b"").decode("latin-1").split(";"):
        name, _, value = part.strip().partition("=")
        if name == wanted:
            return value
    return None


def _is_same_origin(request: Request) -> bool:
    """
    As the browser says it. A container's own pages are of the same site, but not of
    the same origin.
    """
    site = request.getHeader(b"sec-fetch-site")
    if site is not None:
        return site == b"same-origin"
    origin = urlsplit((request.getHeader(b"origin") or b"").decode("latin-1"))
    host = (request.getHeader(b"host") or b"").decode("latin-1").lower()
    return bool(origin.netloc) and origin.netloc.lower() == host


def _without_token(request: Request) -> str:
    query = parse_qsl(request.query.decode("ascii", "replace"), keep_blank_values=True)
    rest = urlencode([(name, value) for name, value in query if name != "token"])
    # Of one slash: two would name another host. To us one that is encoded is the same.
    given = request.path.decode("ascii", "replace")
    rest_of_path = given.lstrip("/")
    path = "/" + "%2F" * (len(given) - len(rest_of_path) - 1) + rest_of_path
    return f"{path}?{rest}" if rest else path
