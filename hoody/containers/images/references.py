"""
Names of images in registries, and addresses that are nobody's business (distribution's
reference grammar; the host is never left out here).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

from attrs import frozen

from hoody.errors import CallerError, Forbidden

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<host>{_LABEL}(?:\.{_LABEL})*)(?::(?P<port>[0-9]{{1,5}}))?"
    rf"/(?P<repository>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})|@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_MOST = 255
HTTPS = 443
_UNICAST = ipaddress.ip_network("2000::/3")
"""The Internet's (RFC 4291, section 2.4); NAT64 and mapped IPv4 addresses are outside."""
_EMBEDDING = [ipaddress.ip_network(text) for text in ("2002::/16", "2001::/32")]
"""In it and yet leading to IPv4 ones: 6to4, Teredo."""


@frozen(kw_only=True)
class Reference:
    """@ivar tag: or C{digest}: one of them is there."""

    host: str
    port: int
    repository: str
    tag: str | None
    digest: str | None

    @property
    def registry(self) -> str:
        """As lists of registries name it."""
        return self.host if self.port == HTTPS else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        ending = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{self.registry}/{self.repository}{ending}"


def read(text: str, registries: Collection[str]) -> Reference:
    """
    @param registries: those that may be named.
    @raise CallerError: if it is none.
    @raise Forbidden: if it is of another registry.
    """
    match = _REFERENCE.fullmatch(text)
    port = int(match["port"] or HTTPS) if match else 0
    if match is None or len(text) > _MOST or not 0 < port < 65536:
        raise CallerError(
            f"reference: {text[:100]!r} is none; give HOST/REPOSITORY:TAG or"
            " HOST/REPOSITORY@sha256:..., such as docker.io/library/alpine:3.20."
        )
    found = Reference(
        host=match["host"],
        port=port,
        repository=match["repository"],
        tag=None if match["digest"] else match["tag"] or "latest",
        digest=match["digest"],
    )
    if found.registry not in registries:
        allowed = ", ".join(registries) or "none is"
        raise Forbidden(
            f"reference: images from {found.registry} are not allowed here; allowed: {allowed}."
        )
    return found


def is_public(address: str) -> bool:
    """Whether an IP address is one of the Internet's, and not of this machine or its network."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6 and (ip not in _UNICAST or any(ip in network for network in _EMBEDDING)):
        return False
    return ip.is_global and not ip.is_multicast
