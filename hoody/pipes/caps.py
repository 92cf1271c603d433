"""How many may wait, and how many pipes may run."""

from __future__ import annotations

import ipaddress
from collections import Counter
from functools import lru_cache

from attrs import define, field

from hoody.errors import TooMany
from hoody.interfaces import IParty


@define(kw_only=True)
class Caps:
    """
    @ivar max_waiting: senders and receivers together.
    @ivar max_waiting_per_address: of these, from one address that is not loopback.
    @ivar max_running: transfers.
    """

    max_waiting: int
    max_waiting_per_address: int
    max_running: int
    waiting: int = field(default=0, init=False)
    running: int = field(default=0, init=False)
    _by_address: Counter[str] = field(factory=Counter, init=False)

    def check_wait(self, party: IParty) -> None:
        """@raise TooMany: if this one cannot wait, too."""
        if self.waiting >= self.max_waiting:
            raise TooMany(
                f"{self.max_waiting} senders and receivers wait already; try again later."
            )
        address = _counted(party.address)
        if address is not None and self._by_address[address] >= self.max_waiting_per_address:
            raise TooMany(
                f"{self.max_waiting_per_address} senders and receivers from {address} wait"
                " already; try again when some of them have met."
            )

    def check_run(self) -> None:
        """@raise TooMany: if not one more transfer can run."""
        if self.running >= self.max_running:
            raise TooMany(f"{self.max_running} pipes run already; try again later.")

    def waits(self, party: IParty) -> None:
        """One more waits."""
        self.waiting += 1
        address = _counted(party.address)
        if address is not None:
            self._by_address[address] += 1

    def waits_no_more(self, party: IParty) -> None:
        """It left, or its transfer starts."""
        self.waiting -= 1
        address = _counted(party.address)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]


@lru_cache(1024)
def _counted(address: str | None) -> str | None:
    """The address that a party counts for; loopback is shared by everybody behind a proxy."""
    if address is None:
        return None
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address  # not of the network: it says itself whose it is
    mapped = getattr(parsed, "ipv4_mapped", None)
    return None if (mapped or parsed).is_loopback else address
