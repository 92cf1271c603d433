"""
Who may come to a container whose URL is not for everybody: by bearer, or by a session for
that container alone, which a token in the URL opens.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from attrs import define

from hoody.auth import tokens
from hoody.auth.principal import Principal
from hoody.auth.signatures import ContainerSession
from hoody.auth.tokens import Scope, Token
from hoody.errors import Forbidden, NoToken, Unavailable
from hoody.interfaces import IDestination
from hoody.protocols.request import Request
from hoody.resources import forwarding
from hoody.resources.guard import GoTo, Guard, bearer_of, cookie_of, session_cookie, session_end

COOKIE = "__Host-hoody-c"
PUBLIC = "public"
_SAFE = (b"GET", b"HEAD", b"OPTIONS", b"TRACE")


@define(eq=False)
class Doors:
    guard: Guard

    async def admit(self, request: Request, destination: IDestination) -> Principal | None:
        """
        @return: by whose grace they come in; C{None} where everybody may.
        @raise GoTo: if they have shown a token in the URL.
        @raise HoodyError: if they may not.
        """
        secret = _token_in_url(request)
        if secret is not None and request.method == b"GET":
            await self._open_session(request, destination, secret)
        if destination.access == PUBLIC:
            return None
        return await self.recognise(request, destination)

    async def recognise(self, request: Request, destination: IDestination) -> Principal:
        """
        Who it is, of those who may.

        @raise HoodyError: if it is nobody of these.
        """
        bearer = bearer_of(request)
        if bearer is not None and bearer.startswith(tokens.PREFIX):
            return self._allowed(await self._find(request, bearer), destination)
        return self._by_session(request, destination)

    async def _find(self, request: Request, secret: str) -> Token:
        if self.guard.keyring.signer is None:
            raise Unavailable("The database has not been reached yet; try again in a moment.")
        return await self.guard.find(request, secret)

    def _allowed(self, token: Token, destination: IDestination) -> Principal:
        principal = Principal(actor=token.alias, token=token)
        principal.require(Scope.READ)
        if token.containers is not None and destination.container_id not in token.containers:
            raise Forbidden(f"The token {token.alias!r} is tied to other containers than this.")
        return principal

    async def _open_session(
        self, request: Request, destination: IDestination, secret: str
    ) -> None:
        token = await self._find(request, secret)
        self._allowed(token, destination)
        keyring = self.guard.keyring
        assert keyring.signer is not None
        expires = session_end(token, keyring.now)
        text = keyring.signer.sign_container_session(
            ContainerSession(
                token_id=token.id, container_id=destination.container_id, expires_at=expires
            )
        )
        cookie = session_cookie(COOKIE, text, expires - keyring.now)
        raise GoTo(_url_without_token(request), cookie)

    def _by_session(self, request: Request, destination: IDestination) -> Principal:
        keyring = self.guard.keyring
        text = cookie_of(request, COOKIE)
        if text is None or keyring.signer is None:
            raise _nobody()
        session = keyring.signer.read_container_session(text)
        if session is None or session.container_id != destination.container_id:
            raise _nobody()
        token = keyring.known(session.token_id)
        if token is None or keyring.now >= session.expires_at:
            raise _nobody()
        if _is_from_elsewhere(request):
            raise Forbidden("A page of another origin may not do this with your session.")
        return Principal(actor=token.alias, token=token, session=text, until=session.expires_at)


def _nobody() -> NoToken:
    return NoToken(
        "This container is for holders of a token; send Authorization: Bearer hdy_..., or open"
        " the URL in a browser with ?token=hdy_... once."
    )


def _token_in_url(request: Request) -> str | None:
    """What has the form of one of ours; any other C{token} is the container's business."""
    for part in request.query.split(b"&"):
        if forwarding.is_token(part):
            return parse_qsl(part.decode("latin-1"))[0][1]
    return None


def _url_without_token(request: Request) -> str:
    """Of one slash: two would name another host, and a dot between them changes nothing."""
    url = forwarding.target(request)
    return ("/." if url.startswith(b"//") else "") + url.decode("latin-1")


def _is_from_elsewhere(request: Request) -> bool:
    """
    Whether a browser says that a page of another origin does more than to look. Other
    containers are of the same site, so that SameSite does not keep them out.
    """
    if request.method in _SAFE and not forwarding.upgrade_of(request):
        return False
    site = request.getHeader(b"sec-fetch-site")
    if site is not None:
        return site not in (b"same-origin", b"none")
    origin = request.getHeader(b"origin")
    if origin is None:
        return False
    return urlsplit(origin.decode("latin-1")).netloc.lower().encode() != request.authority.lower()
