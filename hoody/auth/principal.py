"""Who asks, and what they may."""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from hoody.auth.tokens import Scope, Token
from hoody.errors import Forbidden


@frozen(kw_only=True)
class Principal:
    """
    @ivar actor: as the audit names them.
    @ivar token: theirs, or that by whose grace they have a capability URL.
    @ivar only: the one right that such a URL bears; C{None} for all of the token's.
    @ivar session: the cookie that stood in for the token, if one did.
    @ivar until: when that, or the URL, ends; C{None} if only the token does.
    """

    actor: str
    token: Token
    only: Scope | None = None
    session: str | None = None
    until: datetime | None = None

    def require(self, scope: Scope, why: str = "", *, others: tuple[Scope, ...] = ()) -> None:
        """
        @param others: that will do as well.
        @raise Forbidden: if the right is not theirs.
        """
        scopes = (scope, *others)
        if any(self.may(each) for each in scopes):
            return
        needed = f"this needs {' or '.join(scopes)}{why}."
        if self.only is not None and self.only not in scopes:
            raise Forbidden(f"This URL bears the right to {self.only}; {needed}")
        raise Forbidden(
            f"The token {self.token.alias!r} has the scopes"
            f" {', '.join(self.token.scopes) or 'none'}; {needed}"
        )

    def may(self, scope: Scope) -> bool:
        """Whether the right is theirs."""
        if self.only is not None and self.only is not scope:
            return False
        return self.token.may(scope)

    def require_all_containers(self) -> None:
        """@raise Forbidden: if they are tied to some."""
        if self.token.containers is not None:
            raise Forbidden(
                f"The token {self.token.alias!r} is tied to containers; this is not of one of"
                " them. Use a token that is not tied."
            )

    @property
    def containers(self) -> tuple[str, ...] | None:
        """The ids of those they are tied to, or C{None}."""
        return self.token.containers
