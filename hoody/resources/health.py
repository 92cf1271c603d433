"""How the server is."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable

from attrs import frozen

from hoody import __version__
from hoody.protocols.request import Request
from hoody.units import rfc3339

Part = Callable[[], dict[str, object]]


_WELL = ("ok", "off", "starting")
"""What a part may say while nothing is wrong with it: it may not be wanted, or not yet be."""


@frozen
class Health:
    """
    @ivar started: seconds since the epoch.
    @ivar parts: each says of itself C{{"status": "ok", ...}}.
    """

    started: float
    parts: dict[str, Part]

    def report(self, request: Request) -> dict[str, object]:
        """What C{GET /health} answers; 200 as long as pipes work."""
        parts = {name: part() for name, part in self.parts.items()}
        well = all(part["status"] in _WELL for part in parts.values())
        return {
            "status": "ok" if well else "degraded",
            "service": "hoody",
            "version": __version__,
            "started": rfc3339(self.started),
            "pid": os.getpid(),
            "ip": getattr(request.getHost(), "host", None),
            "memory": {"rss": resident_bytes()},
            "fds": open_descriptors(),
            "parts": parts,
        }


def resident_bytes() -> int:
    """Our resident set in bytes (proc(5), statm)."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def open_descriptors() -> int:
    """How many file descriptors we have open, but for the one that counts them."""
    return len(os.listdir("/proc/self/fd")) - 1
