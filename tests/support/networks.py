"""Two hosts with a cable between them that can be pulled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import frozen


@frozen
class Cable:
    """
    @ivar server: and C{client}, names of network namespaces.
    @ivar address: the server's.
    """

    server: str
    client: str
    address: str

    def pull(self) -> None:
        """From now on nothing gets through, and nobody is told."""
        ip("-n", self.client, "link", "set", "cable", "down")


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextmanager
def cable() -> Iterator[Cable]:
    """Make it, and take it away whatever happens."""
    made = Cable(f"hoody-s-{os.getpid()}", f"hoody-c-{os.getpid()}", "10.99.0.1")
    try:
        for namespace in (made.server, made.client):
            ip("netns", "add", namespace)
        ip(
            "-n",
            made.server,
            "link",
            "add",
            "cable",
            "type",
            "veth",
            "peer",
            "cable",
            "netns",
            made.client,
        )
        for namespace, address in ((made.server, made.address), (made.client, "10.99.0.2")):
            ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", namespace, "link", "set", "cable", "up")
            ip("-n", namespace, "link", "set", "lo", "up")
        yield made
    finally:
        for namespace in (made.server, made.client):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)
