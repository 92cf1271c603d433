"""
What is done for snapshots now and then: those whose time is over go, the unread are read,
and what is equal in them is made to share its blocks.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
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
    """@ivar every: seconds between two looks; the first comes when containers can be had."""

    _reactor: Any
    _catalogue: Catalogue
    _taking: Taking
    _sweep: Sweep
    every: float
    _call: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._call = LoopingCall(self._look_later)
        self._call.clock = self._reactor

    def start(self) -> None:
        self._call.start(self.every)

    def stop(self) -> None:
        if self._call.running:
            self._call.stop()
        self._sweep.stop()

    def _look_later(self) -> Deferred[None]:
        return ensureDeferred(self.look())

    async def look(self) -> None:
        fleet = self._catalogue.fleet
        if not fleet.ready or fleet.lacks is not None:
            return
        for work in (self._catalogue.expire, self._taking.read_rest):
            try:
                await work()
            except (HoodyError, OSError) as error:
                reason = getattr(error, "sentence", str(error))
                _log.warn("snapshots are seen to later: {reason}", reason=reason)
            except Exception:
                _log.failure("snapshots are seen to later")
        self._sweep.begin()
