"""Who has shown wrong tokens of late: it costs them, and nobody else."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from attrs import define, field

PERIOD = 60.0
"""Seconds after which a wrong token is forgiven."""
MOST = 10_000
"""Addresses that are remembered."""


@define(eq=False)
class Suspects:
    """
    @ivar allowed: wrong tokens from one address within L{PERIOD}; 1 or more.
    """

    allowed: int
    _budgets: OrderedDict[str, tuple[float, float]] = field(factory=OrderedDict, init=False)

    def blame(self, address: str | None, now: float) -> bool:
        """
        Note a wrong token.

        @param now: seconds, of any clock that does not jump back far.
        @return: whether that was one too many.
        """
        network = network_of(address)
        spent = min(self._spent(network, now) + 1, self.allowed + 1)
        self._budgets[network] = (spent, now)
        self._budgets.move_to_end(network)
        while len(self._budgets) > MOST:
            self._budgets.popitem(last=False)
        return spent > self.allowed

    def is_over(self, address: str | None, now: float) -> bool:
        """Whether the next one will be too many."""
        return self._spent(network_of(address), now) + 1 > self.allowed

    def _spent(self, network: str, now: float) -> float:
        spent, then = self._budgets.get(network, (0.0, now))
        return max(0.0, spent - max(0.0, now - then) * self.allowed / PERIOD)


def network_of(address: str | None) -> str:
    """Whom an address stands for: with IPv6, everybody has 2**64 of them."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        return str(found.ipv4_mapped)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
