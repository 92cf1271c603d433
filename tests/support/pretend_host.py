"""
The server's side of egress, as a program that can be put into a namespace which plays the
host, and killed: it reads one JSON list a line, a method of L{Egress} and its arguments, and
answers each in one line.
"""

from __future__ import annotations

import json
import sys
import time
from ipaddress import IPv4Network
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver

from hoody.containers.egress import Egress
from hoody.errors import HoodyError


class Told(LineOnlyReceiver):
    delimiter = b"\n"

    def __init__(self, egress: Egress) -> None:
        self.egress = egress

    def lineReceived(self, line: bytes) -> None:
        Deferred.fromCoroutine(self._do(*json.loads(line)))

    async def _do(self, name: str, *arguments: Any) -> None:
        began = time.perf_counter()
        try:
            done = getattr(self.egress, name)(*arguments)
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
    StandardIO(Told(Egress(reactor, sys.argv[1], **options)))
    reactor.run()
