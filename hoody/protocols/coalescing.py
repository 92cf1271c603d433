"""
Being woken less often by a socket through which much passes.

Each time that the reactor wakes costs as much as to move some 100 KiB, and a
sender that is slower than we are has us wake for every bit that it sends. So
while a lot comes, the kernel is asked (SO_RCVLOWAT, socket(7)) to wake us only
once there is enough to be worth it, or no more will come.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall

LOW_WATER = 256 * 1024
"""Bytes that are worth to be woken for. Of 128 to 512 KiB none was better throughout."""
BULK = 64 * 1024
"""Bytes at once from which on to wait for more of them."""
LULL = 0.005
"""Seconds after which to look; less than that may have to wait for two looks."""


@define(eq=False)
class Coalescing:
    """What one socket does."""

    _socket: socket.socket
    _call_later: Callable[..., IDelayedCall]
    _passed: int = field(default=0, init=False)
    _check: IDelayedCall | None = field(default=None, init=False)

    def passed(self, count: int) -> None:
        """So many bytes were there at once."""
        self._passed += count
        if self._check is None and count >= BULK:
            self._set(LOW_WATER)
            self._check_later()

    def end(self) -> None:
        """Be woken for every byte again."""
        if self._check is not None:
            self._check.cancel()
            self._check = None
            self._set(1)

    def _check_later(self) -> None:
        self._passed = 0
        self._check = self._call_later(LULL, self._check_now)

    def _check_now(self) -> None:
        if self._passed >= LOW_WATER:
            self._check_later()
        else:
            self._check = None
            self._set(1)

    def _set(self, low_water: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water)
        except OSError:
            pass  # closed meanwhile
