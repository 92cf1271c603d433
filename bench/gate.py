"""
The gateway before one container, which is a port of this machine: all else as in the server.
Run as C{gate.py PORT ORIGIN-PORT DOMAIN}.
"""

from __future__ import annotations

import sys
from typing import Any

from attrs import frozen
from twisted.internet import reactor as the_reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import globalLogBeginner
from zope.interface import implementer

from hoody import logs
from hoody.auth.keyring import Keyring
from hoody.auth.suspects import Suspects
from hoody.interfaces import IDestination, IDestinations, IVisit
from hoody.protocols import kernelpipes
from hoody.protocols.hangups import Hangups
from hoody.protocols.kernelpipes import KernelPipes
from hoody.protocols.relaying import Relaying
from hoody.protocols.site import Site
from hoody.resources import failures
from hoody.resources.doors import Doors
from hoody.resources.gateway import GatewayFace
from hoody.resources.guard import Guard
from hoody.resources.root import Root, containers_suffix
from hoody.store.memory import MemoryStore


@implementer(IVisit)
@frozen
class _Visit:
    wake = None
    patience = 0.0

    async def endpoint(self, port: int) -> IStreamClientEndpoint:
        return TCP4ClientEndpoint(the_reactor, "127.0.0.1", port)

    def answered(self) -> None:
        """Nobody has to know."""

    connected = moved = ended = answered

    def holds_back(self, some: bool) -> None:
        """Nor this."""


@implementer(IDestinations, IDestination)
@frozen
class _Container:
    """The one there is."""

    port: int
    container_id: str = "0" * 24
    project_id: str = "1" * 24
    name: str = "box"
    access: str = "public"
    ports: frozenset[int] = frozenset()
    sleeps: str | None = None

    def here(self, label: str) -> IDestination | None:
        return self

    async def find(self, label: str) -> IDestination | None:
        return self

    def visit(self, *, counts: bool = True) -> IVisit:
        return _Visit()

    async def last_words(self) -> str:
        return ""


def main() -> None:
    """Serve for ever."""
    reactor: Any = the_reactor
    domain = sys.argv[3]
    nothing: Any = None
    pages: Any = _NoPages()
    globalLogBeginner.beginLoggingTo([logs.observer("text")], redirectStandardIO=False)
    guard = Guard(Keyring(MemoryStore(), reactor), Suspects(5))
    face = GatewayFace(
        destinations=_Container(int(sys.argv[2])),
        doors=Doors(guard),
        clock=reactor,
        suffix=containers_suffix(domain.encode()),
        relaying=Relaying(KernelPipes(kernelpipes.MEMORY, 32), 256 * 1024),
    )
    site = Site(
        Root(
            domain=domain,
            pipe=nothing,
            pipe_pages=pages,
            server_pages=pages,
            cron_pages=pages,
            gateway=face,
            guard=guard,
        ),
        reactor=reactor,
        hangups=Hangups(reactor),
        refuse=failures.refuse_connection,
        access=logs.log_access,
        server_name=b"hoody",
        head_timeout=30,
        idle_timeout=60,
        peer_timeout=60,
        stream_timeout=60,
    )
    reactor.listenTCP(int(sys.argv[1]), site, interface="127.0.0.1")
    reactor.run()


class _NoPages:
    def resource(self) -> None:
        """There is nothing beside the gateway here."""


if __name__ == "__main__":
    main()
