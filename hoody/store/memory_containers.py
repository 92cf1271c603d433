"""Containers, snapshots and images in memory; see L{hoody.store.memory}."""

from __future__ import annotations

from datetime import datetime

from attrs import define, evolve, field
from zope.interface import implementer

from hoody.containers.container import Container
from hoody.containers.elsewhere import Owner
from hoody.containers.image import Image
from hoody.containers.transitions import Transition
from hoody.errors import InUse, Taken
from hoody.interfaces import IContainers, IImages, IServers, ISnapshots
from hoody.snapshots.snapshot import Snapshot
from hoody.store.memory_cron import CronRows


@define
class ContainerRows:
    containers: dict[str, Container] = field(factory=dict)
    images: dict[str, Image] = field(factory=dict)
    transitions: list[Transition] = field(factory=list)
    servers: dict[str, str] = field(factory=dict)
    snapshots: dict[str, Snapshot] = field(factory=dict)
    cron: CronRows = field(factory=CronRows)

    def copied(self) -> ContainerRows:
        return ContainerRows(
            dict(self.containers),
            dict(self.images),
            list(self.transitions),
            dict(self.servers),
            dict(self.snapshots),
            self.cron.copied(),
        )


@implementer(IContainers)
@define(eq=False)
class MemoryContainers:
    _rows: ContainerRows

    async def add(self, container: Container) -> None:
        self._check(container)
        self._rows.containers[container.id] = container

    def _check(self, container: Container) -> None:
        for other in self._rows.containers.values():
            if other.id != container.id and set(other.labels) & set(container.labels):
                raise Taken

    async def find(self, label: str, for_change: bool = False) -> Container | None:
        for container in self._rows.containers.values():
            if label in container.labels:
                return container
        return None

    async def page(
        self,
        offset: int,
        limit: int,
        sort_by: str,
        ascending: bool,
        project_id: str | None = None,
        only: tuple[str, ...] | None = None,
    ) -> tuple[list[Container], int]:
        found = [
            each
            for each in sorted(self._rows.containers.values(), key=lambda each: each.id)
            if project_id in (None, each.project_id) and (only is None or each.id in only)
        ]
        found.sort(
            key=lambda each: (getattr(each, sort_by) is not None, getattr(each, sort_by)),
            reverse=not ascending,
        )
        return found[offset : offset + limit], len(found)

    async def of_server(self, server_id: str) -> list[Container]:
        found = [each for each in self._rows.containers.values() if each.server_id == server_id]
        return sorted(found, key=lambda each: each.id)

    async def owners(self, labels: list[str]) -> dict[str, Owner]:
        return {
            label: Owner(
                container=each.name,
                server_id=each.server_id,
                server=self._rows.servers.get(each.server_id),
            )
            for each in self._rows.containers.values()
            for label in set(labels) & set(each.labels)
        }

    async def free_number(self, server_id: str) -> int:
        taken = {each.number for each in await self.of_server(server_id)}
        return next(number for number in range(len(taken) + 1) if number not in taken)

    async def count(self, project_id: str) -> int:
        return sum(each.project_id == project_id for each in self._rows.containers.values())

    async def change(self, container: Container) -> None:
        self._check(container)
        self._rows.containers[container.id] = container

    async def remove(self, container_id: str) -> None:
        self._rows.containers.pop(container_id, None)
        self._rows.transitions = [
            each for each in self._rows.transitions if each.container_id != container_id
        ]
        self._rows.snapshots = {
            each.id: each
            for each in self._rows.snapshots.values()
            if each.container_id != container_id
        }
        self._rows.cron.container_gone(container_id)

    async def passed(self, transition: Transition) -> None:
        last = max((each.id for each in self._rows.transitions), default=0)
        self._rows.transitions.append(evolve(transition, id=last + 1))

    async def transitions(
        self, container_id: str, offset: int, limit: int, ascending: bool
    ) -> tuple[list[Transition], int]:
        found = [each for each in self._rows.transitions if each.container_id == container_id]
        ordered = found if ascending else found[::-1]
        return ordered[offset : offset + limit], len(found)


@implementer(IImages)
@define(eq=False)
class MemoryImages:
    _rows: ContainerRows

    async def add(self, image: Image) -> None:
        if await self.find(image.server_id, image.name) is not None:
            raise Taken
        self._rows.images[image.id] = image

    async def find(self, server_id: str, name: str) -> Image | None:
        for image in self._rows.images.values():
            if (image.server_id, image.name) == (server_id, name):
                return image
        return None

    async def of_server(self, server_id: str) -> list[Image]:
        found = [each for each in self._rows.images.values() if each.server_id == server_id]
        return sorted(found, key=lambda each: each.name)

    async def change(self, image: Image) -> None:
        self._rows.images[image.id] = image

    async def remove(self, image_id: str) -> None:
        if any(each.image_id == image_id for each in self._rows.containers.values()):
            raise InUse
        self._rows.images.pop(image_id, None)


@implementer(IServers)
@define(eq=False)
class MemoryServers:
    _rows: ContainerRows

    async def say(self, server_id: str, name: str) -> None:
        self._rows.servers[server_id] = name

    async def names(self, server_ids: set[str]) -> dict[str, str]:
        return {each: name for each, name in self._rows.servers.items() if each in server_ids}


@implementer(ISnapshots)
@define(eq=False)
class MemorySnapshots:
    _rows: ContainerRows

    async def add(self, snapshot: Snapshot) -> None:
        if snapshot.id not in self._rows.snapshots:
            await self.change(snapshot)

    async def find(self, container_id: str, name: str) -> Snapshot | None:
        found = [
            each
            for each in await self.of_container(container_id)
            if name in (each.name, each.alias)
        ]
        return max(found, key=lambda each: each.name == name, default=None)

    async def of_container(self, container_id: str) -> list[Snapshot]:
        return [each for each in self._all()[::-1] if each.container_id == container_id]

    async def of_server(self, server_id: str) -> list[Snapshot]:
        return [
            each
            for each in self._all()
            if self._rows.containers[each.container_id].server_id == server_id
        ]

    async def ids(self, server_id: str) -> set[str]:
        return {each.id for each in await self.of_server(server_id)}

    def _all(self) -> list[Snapshot]:
        return sorted(self._rows.snapshots.values(), key=lambda each: (each.created_at, each.id))

    async def unread(self, server_id: str) -> list[Snapshot]:
        return [each for each in await self.of_server(server_id) if each.digest is None]

    async def expired(self, server_id: str, now: datetime) -> list[Snapshot]:
        return [
            each
            for each in await self.of_server(server_id)
            if each.expires_at is not None and each.expires_at <= now and not each.pinned
        ]

    async def counts(self, container_ids: list[str]) -> dict[str, int]:
        found = [each.container_id for each in self._all() if not each.is_undo]
        return {each: found.count(each) for each in container_ids if each in found}

    async def change(self, snapshot: Snapshot) -> None:
        for other in await self.of_container(snapshot.container_id):
            same_alias = snapshot.alias is not None and other.alias == snapshot.alias
            if other.id != snapshot.id and (same_alias or other.name == snapshot.name):
                raise Taken
        self._rows.snapshots[snapshot.id] = snapshot

    async def remove(self, snapshot_id: str) -> None:
        self._rows.snapshots.pop(snapshot_id, None)
