"""What a container's network has besides its loopback."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Network
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IProtocol
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody.containers.container import Container
from hoody.containers.network.apidoor import ApiDoor
from hoody.containers.network.dnsdoor import DnsDoor
from hoody.containers.network.egress import Egress
from hoody.containers.network.namespaces import NetworkNamespace
from hoody.containers.network.resolvers import Resolvers
from hoody.errors import HoodyError
from hoody.interfaces import IDoor

NAT = "nat"
_log = Logger(namespace="hoody.containers")


@define(eq=False)
class Network:
    """
    @ivar block: where containers have their addresses from.
    @ivar serve: makes what serves a connection by a container's own door to the API.
    @ivar moved: told of whose door something goes through, by the container's id.
    """

    _reactor: Any
    block: IPv4Network
    serve: Callable[[IDoor], IProtocol] = field(init=False)
    moved: Callable[[str], None] = field(init=False)
    _egress: Egress = field(init=False)
    _resolvers: Resolvers = field(init=False)
    _doors: dict[str, list[ApiDoor | DnsDoor]] = field(factory=dict, init=False)

    def identify(self, server_id: str) -> None:
        """Say which server this is, so that others on this machine keep theirs."""
        self._egress = Egress(self._reactor, server_id[-8:], self.block)
        self._resolvers = Resolvers(self._reactor)

    async def take_up(self, containers: list[Container]) -> None:
        """After a start: what nobody has any more goes, and the rules are as they should be."""
        numbers = [each.number for each in containers if each.egress == NAT]
        try:
            if numbers:
                await self._egress.prepare()
            await self._egress.sweep(numbers)
        except HoodyError as error:
            _log.warn("containers have no way out: {reason}", reason=error.sentence)

    async def furnish(self, container: Container, network: NetworkNamespace) -> None:
        """
        Before anything runs in it, and again by a server that has found it running: sockets
        of ours went with the one before.

        @raise HoodyError: if it cannot be.
        """
        await self.unfurnish(container)
        doors: list[ApiDoor | DnsDoor] = []
        self._doors[container.id] = doors
        if container.egress == NAT:
            await self._egress.connect(network.descriptor, container.number)
            doors.append(await DnsDoor.open(self._reactor, network.socket, self._resolvers))
        moved = partial(self.moved, container.id)
        doors.append(ApiDoor.open(container.id, self._reactor, network.socket, self.serve, moved))

    async def unfurnish(self, container: Container) -> None:
        """What is of the namespace goes with it; what is ours here."""
        for door in self._doors.pop(container.id, ()):
            await door.close()

    async def traffic(self, containers: list[Container]) -> dict[str, int]:
        """Bytes that have gone in and out of each so far, by whatever way, by their ids."""
        found = {
            each.id: sum(
                door.traffic for door in self._doors.get(each.id, ()) if isinstance(door, ApiDoor)
            )
            for each in containers
        }
        leading_out = [each for each in containers if each.egress == NAT]
        if leading_out:
            counted = await deferToThread(self._egress.traffic)
            for each in leading_out:
                found[each.id] += counted.get(each.number, 0)
        return found

    async def leave(self, containers: list[Container]) -> None:
        """Close what is ours; rules stay while there is somebody whom they hold."""
        for container in containers:
            await self.unfurnish(container)
        self._egress.close()
        if not any(each.egress == NAT for each in containers):
            try:
                await self._egress.remove_all()
            except HoodyError as error:
                _log.warn("{reason}", reason=error.sentence)
