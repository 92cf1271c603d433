"""
Reading what is in snapshots: by processes of their own (C{python -m hoody.snapshots}), a few at
a time, as it may be terabytes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import DeferredSemaphore, ensureDeferred
from twisted.internet.threads import deferToThread

from hoody import commands
from hoody.commands import CommandFailed
from hoody.containers.container import Container
from hoody.containers.states import RECORD, States
from hoody.containers.storage import ROOT, subvolumes
from hoody.errors import CallerError, HoodyError, Unavailable

SECONDS = 7 * 86400.0
"""How long one may take: as long as it reads, it gets on."""
AT_ONCE = 2
READER = "hoody.snapshots"

Tell = Callable[[str], None]
"""Given sentences, as it goes."""


class NotRead(Unavailable):
    """What is in a snapshot could not be found out."""


@define(eq=False)
class Reading:
    _reactor: Any
    _states: States
    _places: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(AT_ONCE), init=False)

    async def scan(self, container: Container, snapshot_id: str, tell: Tell) -> dict[str, Any]:
        """
        Find out what is in one; what that is lies beside it from then on.

        @return: C{digest}, C{record_sha256}, C{size}.
        @raise NotRead: if it cannot be.
        """
        path = self._states.storage.snapshot_path(container.id, snapshot_id)
        order = await deferToThread(self._scan_order, container, path, path / RECORD)
        return await self._ask(order, tell)

    def _scan_order(self, container: Container, folder: Path, into: Path) -> dict[str, Any]:
        base = self._states.base_of(folder)
        return {
            "kind": "scan",
            **self._image(container),
            "trees": _trees(folder),
            "base": str(base) if base is not None else None,
            "into": str(into),
        }

    def _image(self, container: Container) -> dict[str, str]:
        storage = self._states.storage
        return {
            "image": str(storage.image_path(container.image_id)),
            "image_manifest": str(storage.image_manifest(container.image_id)),
        }

    async def scan_present(self, container: Container, kept: Path, tell: Tell) -> Path:
        """
        As L{scan}, of a snapshot that nobody is told of.

        @return: the record.
        """
        order = await deferToThread(self._scan_order, container, kept, kept / RECORD)
        await self._ask(order, tell)
        return kept / RECORD

    async def verify(
        self, container: Container, snapshot_id: str, digest: str, record: str, tell: Tell
    ) -> dict[str, Any]:
        """
        Read all of one anew.

        @return: C{valid}, C{digest}, C{mismatches}.
        """
        path = self._states.storage.snapshot_path(container.id, snapshot_id)
        order = {
            "kind": "verify",
            **self._image(container),
            "trees": await deferToThread(_trees, path),
            "record": str(path / RECORD),
            "digest": digest,
            "record_sha256": record,
        }
        return await self._ask(order, tell)

    async def diff(
        self, container: Container, before: Path, after: Path, offset: int, limit: int
    ) -> dict[str, Any]:
        """@return: what of C{after} differs, and what of C{before} is not there any more."""
        image = self._image(container)
        order = {
            "kind": "diff",
            "before": {"record": str(before), **image},
            "after": {"record": str(after), **image},
            "offset": offset,
            "limit": limit,
        }
        return await self._ask(order, lambda _: None)

    async def _ask(self, order: dict[str, Any], tell: Tell) -> dict[str, Any]:
        found: dict[str, Any] = await self._places.run(
            lambda: ensureDeferred(self._ask_at_once(order, tell))
        )
        return found

    async def _ask_at_once(self, order: dict[str, Any], tell: Tell) -> dict[str, Any]:
        said: dict[str, Any] = {}

        def hear(line: bytes) -> None:
            said.update(json.loads(line))
            sentence = said.pop("progress", None)
            if sentence is not None:
                tell(sentence)

        try:
            output = await commands.run(
                self._reactor,
                [sys.executable, "-m", READER],
                given=json.dumps({**order, "parent": os.getpid()}).encode(),
                seconds=SECONDS,
                each_line=hear,
                well=False,
                environment={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        except CommandFailed as error:
            raise NotRead(f"The snapshot could not be read: {error}.") from error
        if "done" not in said:
            reason = said.get("error") or commands.last_line(output.err) or "it broke off"
            kind: type[HoodyError] = CallerError if said.get("status") == 400 else NotRead
            raise kind(f"The snapshot could not be read: {reason}")
        done: dict[str, Any] = said["done"]
        return done


def _trees(folder: Path) -> dict[str, str]:
    return {each.name: str(each) for each in subvolumes(folder)}


def shown(path: str, container: Container) -> str:
    """
    Where inside a container that is which is told as C{TREE/PATH}: below its root, or where
    its volume is now; of a volume that is no more, C{volume-NAME:/PATH}.
    """
    tree, _, rest = path.partition("/")
    if tree == ROOT:
        return f"/{rest}"
    places = {f"volume-{each.name}": each.path for each in container.volumes}
    return f"{places[tree]}/{rest}".rstrip("/") if tree in places else f"{tree}:/{rest}"
