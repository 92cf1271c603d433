"""
Equal files of different containers have their blocks together: looked after in the background,
whenever snapshots have been read that were not there before.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoody.containers.fleet import Fleet
from hoody.errors import HoodyError
from hoody.manifests.orders import Saving
from hoody.snapshots.reading import Reading

REST = 10
"""After a sweep there is none for so many times as long as it took: records are many to read."""
_FILE = "shared"

_log = Logger(namespace="hoody.snapshots")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """
    Of a sweep, as it is written down.

    @ivar snapshots: the ids of those that had been read before it.
    @ivar savings: by container.
    """

    snapshots: frozenset[str] = frozenset()
    savings: dict[str, Saving] = {}


@define(eq=False)
class Sweep:
    """@ivar outcome: of the last one."""

    _reactor: Any
    _fleet: Fleet
    _reading: Reading
    outcome: Outcome = field(factory=Outcome, init=False)
    _running: Deferred[None] | None = field(default=None, init=False)
    _not_before: float = field(default=0.0, init=False)
    _is_known: bool = field(default=False, init=False)

    @property
    def saved(self) -> int:
        """Bytes on the disk, of all containers."""
        return sum(self.saved_by(container_id) for container_id in self.outcome.savings)

    def saved_by(self, container_id: str) -> int:
        """Where each block is counted once, snapshots are counted with a container."""
        saving = self.outcome.savings.get(container_id)
        if saving is None or container_id not in self._fleet.keepers:
            return 0
        return saving.kept if self._fleet.storage.is_simple else saving.now

    def begin(self) -> None:
        """Unless there is one, or nothing to do. Nobody waits for it."""
        if self._running is None:
            self._running = ensureDeferred(self._run())
            self._running.addBoth(self._over)

    def stop(self) -> None:
        """What has been shared stays so."""
        if self._running is not None:
            self._running.cancel()

    def _over(self, result: object) -> None:
        self._running = None
        if isinstance(result, Failure) and not isinstance(result.value, CancelledError):
            _log.failure("blocks are shared later", failure=result)

    async def _run(self) -> None:
        began = self._reactor.seconds()
        if began < self._not_before:
            return
        try:
            if not self._is_known:
                self.outcome = await deferToThread(_load, self._file)
                self._is_known = True
            there = await self._read_snapshots()
            if there != self.outcome.snapshots:
                await self._share(there)
        except (HoodyError, OSError) as error:
            reason = getattr(error, "sentence", str(error))
            _log.warn("blocks are shared later: {reason}", reason=reason)
        now = self._reactor.seconds()
        self._not_before = now + REST * (now - began)

    async def _share(self, there: frozenset[str]) -> None:
        found = await self._reading.share()
        _log.info(
            "of {compared} bytes of equal files, {shared} share blocks from now on",
            compared=found.compared,
            shared=found.shared,
        )
        self.outcome = Outcome(snapshots=there, savings=found.savings)
        await deferToThread(_save, self.outcome, self._file)

    async def _read_snapshots(self) -> frozenset[str]:
        async with self._fleet.store.transaction() as transaction:
            rows = await transaction.snapshots.of_server(self._fleet.server_id)
        return frozenset(each.id for each in rows if each.digest is not None)

    @property
    def _file(self) -> Path:
        return self._fleet.storage.root / _FILE


def _load(path: Path) -> Outcome:
    """What is none is looked for anew."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=Outcome)
    return Outcome()


def _save(outcome: Outcome, path: Path) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(outcome))
    fresh.replace(path)
