"""Containers as HTTP sees them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from attrs import define, evolve
from twisted.internet.threads import deferToThread

from hoody.auth.principal import Principal
from hoody.auth.tokens import Scope
from hoody.containers.container import DOOR_PORT, PORT, Container, Status, Volume, fault_of, label
from hoody.containers.elsewhere import Owner
from hoody.containers.fleet import Fleet
from hoody.containers.image import Image, ImageStatus
from hoody.containers.keeper import Keeper
from hoody.containers.orders import Order
from hoody.containers.storage import trouble
from hoody.errors import (
    BadField,
    CallerError,
    Conflict,
    DatabaseAway,
    HoodyError,
    NoSuchThing,
    Taken,
)
from hoody.interfaces import IStore, ITransaction
from hoody.later import to_its_end
from hoody.projects import Project
from hoody.resources.api.container_forms import (
    ContainerChange,
    ContainerPage,
    ContainerPaging,
    ContainerRow,
    Copy,
    Deletion,
    NewContainer,
    Operated,
    TransitionPage,
    TransitionRow,
    VolumeForm,
)
from hoody.resources.api.operations import Call, Operation, Paging, pagination
from hoody.resources.api.projects import USER_ID
from hoody.resources.api.reading import given
from hoody.resources.urls import container_url
from hoody.snapshots.catalogue import Catalogue, find_snapshot
from hoody.snapshots.snapshot import Snapshot, mark_used
from hoody.units import new_id

ALL = "/api/v1/containers"
ONE = "/api/v1/containers/{container}"
OPERATIONS = ("start", "stop", "force-stop", "restart", "pause", "resume")
MASK = "***"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SYSTEM_PATHS = ("/proc", "/sys", "/dev", "/run")


@define(eq=False)
class ContainersFace:
    """
    @ivar domain: whose subdomains they are.
    @ivar server_name: what this one is called.
    """

    _store: IStore
    _fleet: Fleet
    _snapshots: Catalogue
    domain: str
    server_name: str

    def operations(self) -> list[Operation]:
        of_project = "/api/v1/projects/{project}/containers"
        change: dict[str, Any] = {
            "path": ONE,
            "summary": "Change what is named, and nothing else",
            "answer": self.change_container,
            "scope": Scope.WRITE,
            "body": ContainerChange,
            "returns": ContainerRow,
            "tied": True,
            "errors": (404, 409, 421),
        }
        return [
            Operation(
                method="POST",
                path=of_project,
                summary="Make a container, and start it",
                answer=self.create_container,
                scope=Scope.WRITE,
                body=NewContainer,
                returns=ContainerRow,
                status=201,
                says="The container was created.",
                errors=(404, 409, 503),
            ),
            Operation(
                method="GET",
                path=of_project,
                summary="A project's containers",
                answer=self.list_project_containers,
                scope=Scope.READ,
                query=ContainerPaging,
                returns=ContainerPage,
                tied=True,
                errors=(404,),
            ),
            Operation(
                method="GET",
                path=ALL,
                summary="The containers",
                answer=self.list_containers,
                scope=Scope.READ,
                query=ContainerPaging,
                returns=ContainerPage,
                tied=True,
            ),
            Operation(
                method="GET",
                path=ONE,
                summary="One container, by id, name or alias; looking never wakes",
                answer=self.get_container,
                scope=Scope.READ,
                returns=ContainerRow,
                tied=True,
                errors=(404,),
            ),
            Operation(method="PATCH", **change),
            Operation(method="PUT", **change),
            Operation(
                method="DELETE",
                path=ONE,
                summary="Delete a container with its volumes and snapshots",
                answer=self.delete_container,
                scope=Scope.WRITE,
                query=Deletion,
                returns=ContainerRow,
                says="The container was deleted.",
                tied=True,
                errors=(404, 409, 421, 503),
            ),
            Operation(
                method="POST",
                path=ONE + "/copy",
                summary="Make another container with all that this one has",
                answer=self.copy_container,
                scope=Scope.WRITE,
                body=Copy,
                returns=ContainerRow,
                status=201,
                says="The container was copied.",
                errors=(404, 409, 421, 503),
            ),
            Operation(
                method="POST",
                path=ONE + "/{operation}",
                summary="start, stop, force-stop, restart, pause or resume",
                answer=self.operate_container,
                scope=Scope.WRITE,
                returns=Operated,
                tied=True,
                errors=(404, 409, 421, 503),
            ),
            Operation(
                method="GET",
                path=ONE + "/status-logs",
                summary="What became of its status, newest first",
                answer=self.list_status_logs,
                scope=Scope.READ,
                query=Paging,
                returns=TransitionPage,
                tied=True,
                errors=(404,),
            ),
        ]

    # Looking

    async def list_containers(self, call: Call) -> ContainerPage:
        return await self._list(call, None)

    async def list_project_containers(self, call: Call, project: str) -> ContainerPage:
        return await self._list(call, project)

    async def _list(self, call: Call, project: str | None) -> ContainerPage:
        query = call.query
        async with self._store.transaction() as transaction:
            of = None if project is None else (await find_project(transaction, project)).id
            found, total = await transaction.containers.page(
                query.offset,
                query.limit,
                query.sort_by,
                query.sort_order == "asc",
                of,
                call.principal.containers,
            )
            rows = await self._rows(call, transaction, found)
        return ContainerPage(containers=rows, pagination=pagination(query, total))

    async def get_container(self, call: Call, container: str) -> ContainerRow:
        async with self._store.transaction() as transaction:
            found = await find_container(transaction, call.principal, container)
            return (await self._rows(call, transaction, [found]))[0]

    async def list_status_logs(self, call: Call, container: str) -> TransitionPage:
        query = call.query
        async with self._store.transaction() as transaction:
            found = await find_container(transaction, call.principal, container)
            some, total = await transaction.containers.transitions(
                found.id, query.offset, query.limit, query.sort_order == "asc"
            )
        return TransitionPage(
            logs=[
                TransitionRow(
                    id=each.id,
                    from_status=each.from_status,
                    to_status=each.to_status,
                    transition_time=each.transition_time,
                    duration_ms=each.duration_ms,
                    triggered_by=each.triggered_by,
                    metadata=each.metadata,
                )
                for each in some
            ],
            pagination=pagination(query, total),
        )

    async def _rows(
        self, call: Call, transaction: ITransaction, found: list[Container]
    ) -> list[ContainerRow]:
        servers = await self._servers(transaction, found)
        counts = await transaction.snapshots.counts([each.id for each in found])
        projects = {
            each: await transaction.projects.find(each)
            for each in {container.project_id for container in found}
        }
        return [
            self.row_of(
                call,
                each,
                projects[each.project_id],
                counts.get(each.id, 0),
                servers.get(each.server_id, each.server_id),
            )
            for each in found
        ]

    async def _servers(
        self, transaction: ITransaction, containers: list[Container]
    ) -> dict[str, str]:
        """What those are called that have them."""
        found: dict[str, str] = await transaction.servers.names(
            {each.server_id for each in containers}
        )
        return found

    def row_of(
        self,
        call: Call,
        container: Container,
        project: Project | None,
        snapshots: int = 0,
        server_name: str | None = None,
    ) -> ContainerRow:
        """
        @param snapshots: how many it has.
        @param server_name: what the server is called that has it; C{None} for this one.
        """
        host = f"{container.host_label}.containers.{self.domain}"
        masked = not call.principal.may(Scope.WRITE)
        return ContainerRow(
            id=container.id,
            project_id=container.project_id,
            project_alias=project.alias if project else "",
            server_id=container.server_id,
            server_name=server_name or self.server_name,
            user_id=USER_ID,
            realm_ids=[],
            name=container.name,
            alias=container.alias,
            color=container.color,
            container_image=container.container_image,
            command=list(container.command) if container.command else None,
            port=container.port,
            exposed_ports=list(container.exposed_ports),
            status=container.status,
            status_reason=container.status_reason,
            idle_since=container.idle_since,
            last_activity_at=container.last_activity_at,
            wake_count=container.wake_count,
            last_wake_ms=container.last_wake_ms,
            environment_vars={
                name: MASK if masked else value
                for name, value in container.environment_vars.items()
            },
            volumes=[VolumeForm(name=each.name, path=each.path) for each in container.volumes],
            ssh_public_key=container.ssh_public_key,
            ssh_hostname=host,
            comment=container.comment,
            autostart=container.autostart,
            idle_timeout_seconds=container.idle_timeout_seconds,
            access=container.access,
            egress=container.egress,
            memory_limit=container.memory_limit,
            disk_limit=container.disk_limit,
            cpu_limit=container.cpu_limit,
            snapshot_count=snapshots,
            last_used_snapshot=container.last_used_snapshot,
            source_container_id=container.source_container_id,
            url=container_url(call.request, host),
            created_at=container.created_at,
            updated_at=container.updated_at,
        )

    # Making

    async def create_container(self, call: Call, project: str) -> ContainerRow:
        return await to_its_end(self._create(call, project))

    async def _create(self, call: Call, project: str) -> ContainerRow:
        body: NewContainer = call.body
        self._fleet.check()
        check_form(body)
        if body.kvm:
            raise CallerError("kvm: true will not do; containers share the machine's kernel.")
        name = body.name or _made_up(body.container_image)
        of: Project | None = None

        async def write(transaction: ITransaction) -> Container:
            nonlocal of
            of = await self.room_in(transaction, project)
            image = await self._image(transaction, body.container_image)
            container = Container(
                id=new_id(call.now),
                project_id=of.id,
                server_id=self._fleet.server_id,
                name=name,
                alias=body.alias,
                color=body.color,
                comment=body.comment,
                container_image=image.name,
                image_id=image.id,
                image_config=image.config,
                command=command_of(body.command),
                port=body.port or _port_of(image),
                exposed_ports=tuple(body.exposed_ports),
                environment_vars=body.environment_vars,
                volumes=volumes_of(body.volumes),
                ssh_public_key=body.ssh_public_key,
                autostart=body.autostart,
                idle_timeout_seconds=body.idle_timeout_seconds,
                access=body.access,
                egress=body.egress,
                memory_limit=body.memory_limit,
                disk_limit=body.disk_limit,
                cpu_limit=body.cpu_limit,
                pending="creating",
                number=await transaction.containers.free_number(self._fleet.server_id),
                created_at=call.now,
                updated_at=call.now,
            )
            await transaction.containers.add(container)
            return container

        try:
            keeper = await self._fleet.create(write, self._order(call))
        except Taken:
            raise _taken(name, body.alias) from None
        if body.start:
            await self.start(call, keeper)
        return self.row_of(call, keeper.container, of)

    async def start(self, call: Call, keeper: Keeper) -> None:
        """That it was made is true, whatever becomes of it: its row says that."""
        try:
            await keeper.ask("start", self._order(call))
        except DatabaseAway:
            raise
        except HoodyError:
            await keeper.settled()  # a request to its name may be starting it already

    async def copy_container(self, call: Call, container: str) -> ContainerRow:
        return await to_its_end(self._copy(call, container))

    async def _copy(self, call: Call, container: str) -> ContainerRow:
        body: Copy = call.body
        if body.name is not None:
            _check_name("name", body.name)
        snapshot: Snapshot | None = None
        with ExitStack() as uses:
            async with self._store.transaction() as transaction:
                source = await find_container(transaction, call.principal, container)
                await self.check_ours(transaction, source)
                if body.source_snapshot is not None:
                    snapshot = await find_snapshot(transaction, source, body.source_snapshot)
                    uses.enter_context(self._snapshots.using(snapshot))
            self._fleet.check()
            return await self._copy_of(call, container, source, snapshot)

    async def _copy_of(
        self, call: Call, container: str, source: Container, snapshot: Snapshot | None
    ) -> ContainerRow:
        body: Copy = call.body
        name = body.name or _made_up(source.name)
        of: Project | None = None

        async def write(transaction: ITransaction) -> Container:
            nonlocal of
            # Whoever changes its snapshots just now is waited for.
            source = await find_container(
                transaction, call.principal, container, for_change=snapshot is not None
            )
            await self.check_ours(transaction, source)
            project = body.target_project_id or source.project_id
            of = await self.room_in(transaction, project)
            copied = evolve(
                source,
                id=new_id(call.now),
                project_id=of.id,
                name=name,
                alias=None,
                status=Status.COPYING,
                status_reason=None,
                pending="copying",
                wake_count=0,
                last_wake_ms=None,
                idle_since=None,
                last_activity_at=None,
                source_container_id=source.id,
                last_used_snapshot=None,
                number=await transaction.containers.free_number(self._fleet.server_id),
                incarnation=None,
                created_at=call.now,
                updated_at=call.now,
            )
            await transaction.containers.add(copied)
            if snapshot is not None:
                await mark_used(transaction, snapshot, call.now)
            return copied

        try:
            order = evolve(
                self._order(call, source.id), source_snapshot=snapshot.id if snapshot else None
            )
            keeper = await self._fleet.create(write, order)
        except Taken:
            raise _taken(name, None) from None
        await self.start(call, keeper)
        return self.row_of(call, keeper.container, of)

    async def room_in(self, transaction: ITransaction, project: str) -> Project:
        """A project that takes one more. @raise Conflict: if it does not."""
        found = await find_project(transaction, project, for_change=True)
        most = found.max_containers
        if most is not None and await transaction.containers.count(found.id) >= most:
            raise Conflict(
                f"The project {found.alias!r} has {most} containers, as many as it may"
                " (max_containers); delete one, or raise that."
            )
        return found

    async def _image(self, transaction: ITransaction, name: str) -> Image:
        found = await transaction.images.find(self._fleet.server_id, name)
        if found is None:
            raise NoSuchThing(
                f"container_image: there is no {name!r}; GET /api/v1/images has them."
            )
        if found.status is not ImageStatus.READY:
            raise Conflict(f"container_image: {name!r} is {found.status}; wait until it is ready.")
        return found

    # Changing

    async def change_container(self, call: Call, container: str) -> ContainerRow:
        return await to_its_end(self._change(call, container))

    async def _change(self, call: Call, container: str) -> ContainerRow:
        changes = given(call.body)
        check_form(call.body)
        if isinstance(changes.get("command"), (str, list)):
            changes["command"] = command_of(changes["command"])
        if "volumes" in changes:
            changes["volumes"] = volumes_of(changes["volumes"])
        if "exposed_ports" in changes:
            changes["exposed_ports"] = tuple(changes["exposed_ports"])
        keeper: Keeper | None = None
        try:
            async with self._store.transaction() as transaction:
                found = await find_container(
                    transaction, call.principal, container, for_change=True
                )
                await self.check_ours(transaction, found)
                keeper = self._fleet.find(found)
                changed = evolve(found, updated_at=call.now, **changes)
                await transaction.containers.change(changed)
                project = await transaction.projects.find(found.project_id)
                counts = await transaction.snapshots.counts([found.id])
                await self._reshape(found, changed)
        except Taken:
            raise _taken(changes.get("name") or found.name, changes.get("alias")) from None
        except DatabaseAway:
            if keeper is not None:
                self._fleet.look_again(keeper.container.id)
            raise
        keeper.container = changed
        self._fleet.relabel(keeper)
        return self.row_of(call, changed, project, counts.get(changed.id, 0))

    async def _reshape(self, before: Container, after: Container) -> None:
        """What is on the disk; before the row is true, which may refer to it."""
        has_other_volumes = before.volumes != after.volumes
        try:
            await deferToThread(
                self._fleet.storage.reshape,
                after.id,
                [volume.name for volume in after.volumes] if has_other_volumes else [],
                after.disk_limit,
                limit=has_other_volumes or before.disk_limit != after.disk_limit,
            )
        except FileNotFoundError:
            raise Conflict(f"The container {after.name!r} is not there just now.") from None
        except OSError as error:
            raise trouble(error) from error

    async def delete_container(self, call: Call, container: str) -> ContainerRow:
        keeper, project = await self._own(call, container)
        async with self._store.transaction() as transaction:
            found = await transaction.snapshots.of_container(keeper.container.id)
        pinned = [each.name for each in found if each.pinned]
        if pinned and not call.query.force:
            raise Conflict(
                f"The container {keeper.container.name!r} has snapshots that are pinned:"
                f" {', '.join(pinned[:5])}; delete them first, or say ?force=true."
            )
        used = [each.name for each in found if self._snapshots.is_used(each)]
        if used and not call.query.force:
            raise Conflict(
                f"The container {keeper.container.name!r} has snapshots that are being used just"
                f" now: {', '.join(used[:5])}; delete it when that is over, or say ?force=true."
            )
        row = self.row_of(call, keeper.container, project, sum(not e.is_undo for e in found))
        await self._fleet.operate(keeper, "delete", self._order(call))
        row.status = Status.DELETING
        return row

    async def operate_container(self, call: Call, container: str, operation: str) -> Operated:
        if operation not in OPERATIONS:
            raise NoSuchThing(
                f"There is no operation {operation!r}; give one of {', '.join(OPERATIONS)}."
            )
        keeper, _ = await self._own(call, container)
        await self._fleet.operate(keeper, operation.replace("-", "_"), self._order(call))
        own = keeper.container
        return Operated(
            operation=operation,
            container_id=own.id,
            project_id=own.project_id,
            status=own.status,
        )

    async def _own(self, call: Call, container: str) -> tuple[Keeper, Project | None]:
        async with self._store.transaction() as transaction:
            found = await find_container(transaction, call.principal, container)
            await self.check_ours(transaction, found)
            project = await transaction.projects.find(found.project_id)
        return self._fleet.find(found), project

    def _order(self, call: Call, source_id: str | None = None) -> Order:
        return self._fleet.order(
            call.principal.actor,
            request_id=call.request.request_id.decode("ascii"),
            source_id=source_id,
        )

    async def check_ours(self, transaction: ITransaction, container: Container) -> None:
        """@raise Misdirected: if another server has it."""
        if container.server_id != self._fleet.server_id:
            names = await self._servers(transaction, [container])
            raise Owner(
                container=container.name,
                server_id=container.server_id,
                server=names.get(container.server_id),
            ).misdirected


async def find_project(
    transaction: ITransaction, id_or_alias: str, *, for_change: bool = False
) -> Project:
    found = await transaction.projects.find(id_or_alias, for_change)
    if found is None:
        raise NoSuchThing(f"There is no project {id_or_alias!r}; GET /api/v1/projects has them.")
    return found


async def find_container(
    transaction: ITransaction, principal: Principal, name: str, *, for_change: bool = False
) -> Container:
    """
    By id, name or alias.

    @raise NoSuchThing: if there is none, or none that whoever asks may know of.
    """
    found = await transaction.containers.find(label(name), for_change)
    if found is None or (
        principal.containers is not None and found.id not in principal.containers
    ):
        raise NoSuchThing(f"There is no container {name!r}; GET /api/v1/containers has them.")
    return found


def command_of(given: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """A list of words, or what a shell makes of a text."""
    if given is None:
        return None
    if isinstance(given, str) and "\x00" in given:
        raise CallerError("command: a NUL character will not do; leave it out.")
    return ("/bin/sh", "-c", given) if isinstance(given, str) else tuple(given)


def volumes_of(forms: list[VolumeForm]) -> tuple[Volume, ...]:
    return tuple(Volume(form.name, form.path.rstrip("/")) for form in forms)


def check_form(form: NewContainer | ContainerChange) -> None:
    """What a form's types do not say."""
    if isinstance(form.name, str):
        _check_name("name", form.name)
    if isinstance(form.alias, str):
        _check_name("alias", form.alias, 1)
    if isinstance(form.environment_vars, dict):
        check_variables(form.environment_vars)
    if isinstance(form.volumes, list):
        _check_volumes(form.volumes)
    for field, ports in (("port", [form.port]), ("exposed_ports", form.exposed_ports)):
        if isinstance(ports, list) and DOOR_PORT in ports:
            raise CallerError(
                f"{field}: {DOOR_PORT} is the container's own door to the API (HOODY_URL); choose"
                " another port."
            )


def _check_name(field: str, name: str, least: int = 3) -> None:
    fault = fault_of(name, least)
    if fault is not None:
        raise CallerError(f'{field}: "{name}" will not do; {fault}.')


def check_variables(variables: dict[str, str]) -> None:
    for name in variables:
        if not _VARIABLE.fullmatch(name) or len(name) > 256:
            raise BadField(
                f'environment_vars: "{name}" will not do as a name; give letters, digits and _,'
                " no digit first.",
                "environment_vars",
            )


def _check_volumes(volumes: list[VolumeForm]) -> None:
    names, paths = set(), set()
    for each in volumes:
        path = each.path.rstrip("/")
        parts = path.split("/")[1:]
        if not path or "" in parts or "." in parts or ".." in parts:
            raise CallerError(
                f'volumes: "{each.path}" will not do as a path; give one such as /data, without'
                " dots and double slashes."
            )
        if any(path == system or path.startswith(f"{system}/") for system in _SYSTEM_PATHS):
            raise CallerError(f'volumes: "{each.path}" is the system\'s; choose another path.')
        if each.name in names or path in paths:
            raise CallerError(
                f'volumes: "{each.name}" at "{each.path}" is there twice; give each a name and a'
                " path of its own."
            )
        names.add(each.name)
        paths.add(path)


def _port_of(image: Image) -> int:
    said = image.config.get("port")
    return PORT if said in (None, DOOR_PORT) else int(said)


def _taken(name: str, alias: str | None) -> Conflict:
    said = f"{name!r}" if alias is None else f"{name!r} or {alias!r}"
    return Conflict(f"name: another container answers to {said} already; choose another.")


def _made_up(base: str) -> str:
    stem = re.sub(r"[^a-z0-9-]+", "-", base.lower()).strip("-")[:50] or "container"
    return f"{stem}-{secrets.token_hex(3)}"
