"""
The server's part of the containers' network, as a program that can be put into a namespace
which plays the host, and killed: it reads one JSON list a line, a method of L{Egress} or
L{Doors} and its arguments, and answers each in one line.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from ipaddress import IPv4Network
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver

from hoody.containers.network.dnsdoor import DnsDoor
from hoody.containers.network.egress import Egress
from hoody.containers.network.resolvers import Resolvers
from hoody.containers.network.within import within
from hoody.errors import HoodyError


class Doors:
    """L{DnsDoor}s, by the numbers of their containers."""

    def __init__(self, resolvers: Resolvers) -> None:
        self.resolvers = resolvers
        self.open: dict[int, DnsDoor] = {}

    async def open_door(self, namespace: int, number: int) -> None:
        def make_socket(family: int, kind: int) -> socket.socket:
            return within(namespace, lambda: socket.socket(family, kind))

        self.open[number] = await DnsDoor.open(reactor, make_socket, self.resolvers)

    async def close_door(self, number: int) -> None:
        await self.open.pop(number).close()

    def busy(self) -> tuple[int, int]:
        """Milliseconds of processor time so far, and how many descriptors are open."""
        return round(1000 * time.process_time()), len(os.listdir("/proc/self/fd"))


class Told(LineOnlyReceiver):
    delimiter = b"\n"

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def lineReceived(self, line: bytes) -> None:
        Deferred.fromCoroutine(self._do(*json.loads(line)))

    async def _do(self, name: str, *arguments: Any) -> None:
        began = time.perf_counter()
        try:
            (method,) = [getattr(part, name) for part in self.parts if hasattr(part, name)]
            done = method(*arguments)
            result = await done if hasattr(done, "__await__") else done
            answer = {"result": result}
        except HoodyError as error:
            answer = {"error": error.sentence}
        answer["seconds"] = time.perf_counter() - began
        self.sendLine(json.dumps(answer, default=str).encode())

    def connectionLost(self, reason: object = None) -> None:
        if reactor.running:
            reactor.stop()


if __name__ == "__main__":
    options = json.loads(sys.argv[2])
    if "block" in options:
        options["block"] = IPv4Network(options["block"])
    options["forbidden"] = tuple(map(IPv4Network, options.get("forbidden", ())))
    doors = Doors(Resolvers(reactor, options.pop("resolv_conf", "/etc/resolv.conf"), patience=0.7))
    StandardIO(Told(Egress(reactor, sys.argv[1], **options), doors))
    reactor.run()
