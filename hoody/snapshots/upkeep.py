"""
What is done for snapshots now and then: those whose time is over go, the unread are read,
and what is equal in them is made to share its blocks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hoody.errors import HoodyError
from hoody.snapshots.catalogue import Catalogue
from hoody.snapshots.sweep import Sweep
from hoody.snapshots.taking import Taking

EVERY = 60.0
"""Seconds between two looks."""

_log = Logger(namespace="hoody.snapshots")


@define(eq=False)
class Upkeep:
    """
    Two things that do not wait for each other, as to read may take hours.

    @ivar every: seconds between two looks.
    """

    _reactor: Any
    _catalogue: Catalogue
    _taking: Taking
    _sweep: Sweep
    every: float
    _calls: list[LoopingCall] = field(init=False)

    def __attrs_post_init__(self) -> None:
        works = (self._expire, self._read)
        self._calls = [LoopingCall(lambda work=work: ensureDeferred(work())) for work in works]
        for call in self._calls:
            call.clock = self._reactor

    def start(self) -> None:
        for call in self._calls:
            call.start(self.every, now=False)

    async def look(self) -> None:
        """Now: containers can be had."""
        await self._expire()
        await self._read()

    def stop(self) -> None:
        for call in self._calls:
            if call.running:
                call.stop()
        self._sweep.stop()

    async def _expire(self) -> None:
        await self._try(self._catalogue.expire)

    async def _read(self) -> None:
        await self._try(self._taking.read_rest)
        await self._try(self._share)

    async def _share(self) -> None:
        self._sweep.begin()

    async def _try(self, work: Callable[[], Awaitable[None]]) -> None:
        fleet = self._catalogue.fleet
        if not fleet.ready or fleet.lacks is not None:
            return
        try:
            await work()
        except (HoodyError, OSError) as error:
            reason = getattr(error, "sentence", str(error))
            _log.warn("snapshots are seen to later: {reason}", reason=reason)
        except Exception:
            _log.failure("snapshots are seen to later")
