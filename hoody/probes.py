"""
Requests that look whether a container is well, and are no reason to wake it, or to keep it awake.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from hoody.protocols.request import Request

KINDS = ("path", "agent", "header")
_RULE = re.compile(rf"({'|'.join(KINDS)})=(\S[^,]*)")


@frozen
class Probe:
    """
    One rule of C{--probes}.

    @ivar kind: C{path}, of which C{value} is the whole, or, with C{*} behind it, the beginning;
        C{agent}, where it is a part of C{User-Agent}; or C{header}, where it is the name of one
        that is there, or C{NAME:VALUE}. Case does not matter in the latter two.
    """

    kind: str
    value: str

    @classmethod
    def read(cls, text: str) -> Probe:
        """@raise ValueError: if that is none."""
        match = _RULE.fullmatch(text.strip())
        if match is None or (match[1] == "path" and not match[2].startswith("/")):
            raise ValueError(
                "give rules such as path=/healthz, agent=kube-probe or header=X-Probe, with commas"
                " between"
            )
        return cls(match[1], match[2].strip())

    def matches(self, request: Request) -> bool:
        test: Callable[[Request], bool] = getattr(self, f"_is_{self.kind}")
        return test(request)

    def _is_path(self, request: Request) -> bool:
        path = request.path.decode("latin-1")
        if self.value.endswith("*"):
            return path.startswith(self.value[:-1])
        return path == self.value

    def _is_agent(self, request: Request) -> bool:
        agent = (request.getHeader(b"user-agent") or b"").decode("latin-1")
        return self.value.lower() in agent.lower()

    def _is_header(self, request: Request) -> bool:
        name, _, wanted = self.value.partition(":")
        given = request.requestHeaders.getRawHeaders(name.strip().encode("latin-1"), [])
        if not wanted:
            return bool(given)
        return wanted.strip().lower() in (each.decode("latin-1").strip().lower() for each in given)


def is_probe(probes: tuple[Probe, ...], request: Request) -> bool:
    """Whether one of the rules has it so."""
    return any(probe.matches(request) for probe in probes)
