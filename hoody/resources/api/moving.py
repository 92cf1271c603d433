"""Containers that move to another server, as HTTP sees them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from attrs import define, field
from msgspec import Meta

from hoody.auth.tokens import Scope
from hoody.containers.container import PORT, fault_of
from hoody.containers.keeper import Keeper
from hoody.containers.orders import Order as Asked
from hoody.errors import CallerError, HoodyError
from hoody.interfaces import IIntake, IStore, ITransaction
from hoody.manifests.errands import Left
from hoody.manifests.orders import Line, Order, read_line, write
from hoody.manifests.stream import MEDIA
from hoody.projects import Project
from hoody.protocols.request import Request
from hoody.resources.accept import SSE, preferred
from hoody.resources.api.container_forms import ContainerRow, NewContainer
from hoody.resources.api.containers import (
    ContainersFace,
    check_form,
    command_of,
    find_container,
    volumes_of,
)
from hoody.resources.api.onlookers import Onlookers
from hoody.resources.api.operations import Call, Operation, enveloped
from hoody.resources.api.reading import read_query
from hoody.resources.api.snapshots import SNAPSHOT
from hoody.resources.api.telling import told
from hoody.resources.guard import Guard
from hoody.resources.outflow import Outflow
from hoody.resources.upload import Upload, place_for
from hoody.snapshots.catalogue import Catalogue, find_snapshot
from hoody.snapshots.moving import Moving, Wish, check_name
from hoody.snapshots.reading import NotRead, Tell, command, environment, in_words
from hoody.snapshots.snapshot import Snapshot

IMPORT = "/api/v1/projects/{project}/containers/import"
_IMPORT = re.compile(rb"/api/v1/projects/([^/]+)/containers/import/?")
_NAME = Annotated[str, Meta(max_length=63, description="what it is to be called here")]
_SNAPSHOT_NAME = Annotated[
    str, Meta(max_length=100, description="a snapshot, whose content the receiver has")
]


class ExportQuery(msgspec.Struct, kw_only=True):
    """
    `base`, by name or alias; `image`: whether the image comes along, which it does where there
    is no base.
    """

    base: _SNAPSHOT_NAME | None = None
    image: bool | None = None


class ImportQuery(msgspec.Struct, kw_only=True):
    """`name`: else it is called as it was."""

    name: _NAME | None = None
    start: bool = True


@define(eq=False)
class MovingFace:
    _store: IStore
    _catalogue: Catalogue
    _moving: Moving
    _containers: ContainersFace
    _guard: Guard
    _onlookers: Onlookers = field(factory=Onlookers, init=False)

    def operations(self) -> list[Operation]:
        take: dict[str, Any] = {
            "path": IMPORT,
            "summary": "Make a container of what an export gave: the body, of any size. With"
            " Accept: text/event-stream, told of as it goes",
            "answer": self.import_container,
            "scope": Scope.WRITE,
            "query": ImportQuery,
            "takes": MEDIA,
            "returns": ContainerRow,
            "status": 201,
            "says": _SAYS,
            "media": (SSE,),
            "errors": (404, 409, 503),
        }
        return [
            Operation(
                method="GET",
                path=SNAPSHOT + "/export",
                summary="All of it as one stream, with the container's settings and variables,"
                " for the import of another server. With Accept: text/event-stream, how the one"
                " goes that somebody is given, or else the next",
                answer=self.export_snapshot,
                scope=Scope.WRITE,
                query=ExportQuery,
                tied=True,
                media=(MEDIA, SSE),
                errors=(404, 409, 421, 429, 503),
            ),
            Operation(method="POST", **take),
            Operation(method="PUT", **take),
        ]

    # Going out

    async def export_snapshot(self, call: Call, container: str, snapshot: str) -> None:
        async with self._store.transaction() as transaction:
            found = await find_container(transaction, call.principal, container)
            await self._containers.check_ours(transaction, found)
            wanted = await find_snapshot(transaction, found, snapshot)
        if preferred(call.request, (MEDIA, SSE)) == SSE:
            await self._onlookers.watch(call.request, wanted.id)
            return
        keeper = self._catalogue.fleet.find(found)
        query: ExportQuery = call.query
        with_image = query.base is None if query.image is None else query.image

        async def send(order: Order, sent: Snapshot) -> None:
            _head(call.request, keeper, sent)
            await self._send(call.request, order, sent)

        await self._moving.leave(keeper, snapshot, query.base, with_image, send)

    async def _send(self, request: Request, order: Order, sent: Snapshot) -> None:
        last = Line()

        def hear(raw: bytes) -> None:
            nonlocal last
            with contextlib.suppress(msgspec.MsgspecError):  # a traceback
                last = read_line(raw)
                if last.progress is not None:
                    said = {"message": in_words(last.progress)}
                    self._onlookers.tell(sent.id, "progress", said)

        flow = Outflow(self._catalogue.fleet.reactor, request, _refusal, hear)
        try:
            await flow.start(command(order, sent.container_id), write(order), environment())
        finally:
            if flow.is_whole and isinstance(last.done, Left):
                told = {"name": sent.name, "digest": sent.digest, "bytes": last.done.bytes_sent}
                self._onlookers.end(sent.id, "done", told)
            else:
                why = last.error or "who received it has left."
                said = f"The export was broken off: {why}"
                self._onlookers.end(sent.id, "error", {"statusCode": 502, "message": said})

    # Coming in

    def claim(self, request: Request) -> IIntake | None:
        """
        A body that is to be imported.

        @raise HoodyError: for one that cannot be; nothing of it is read then.
        """
        match = _IMPORT.fullmatch(request.path)
        if match is None or request.method not in (b"POST", b"PUT") or request.length == 0:
            return None
        principal = self._guard.admit_at_once(request, Scope.WRITE)
        principal.require_all_containers()
        fleet = self._catalogue.fleet
        fleet.check()
        query = read_query(request, ImportQuery)
        if query.name is not None:
            fault = fault_of(query.name)
            if fault is not None:
                raise CallerError(f'name: "{query.name}" will not do; {fault}.')
        call = Call(request=request, principal=principal, body=None, query=query)
        project = unquote(match[1].decode("ascii"))
        return Upload(
            request,
            place_for(request, fleet),
            lambda path: self._take(call, project, path),
            self._may_come(project, query.name),
        )

    async def import_container(self, call: Call, project: str) -> None:
        """What has a body never comes here: see L{claim}."""
        raise CallerError(
            "The body is empty; send what an export gave: curl -T - -X POST URL < FILE"
        )

    async def _may_come(self, project: str, name: str | None) -> None:
        """Before gigabytes have come for nothing."""
        async with self._store.transaction() as transaction:
            await self._containers.room_in(transaction, project)
            if name is not None:
                await check_name(transaction, name)

    async def _take(self, call: Call, project: str, path: Path) -> bytes | None:
        request, fleet = call.request, self._catalogue.fleet
        asked = fleet.order(call.principal.actor, request_id=request.request_id.decode("ascii"))

        async def work(tell: Tell) -> ContainerRow:
            return await self._make(call, project, path, asked, tell)

        row = await told(call, work)
        return None if row is None else enveloped(request, 201, _SAYS, row)

    async def _make(
        self, call: Call, project: str, path: Path, asked: Asked, tell: Tell
    ) -> ContainerRow:
        of: Project | None = None

        async def room_in(transaction: ITransaction) -> Project:
            nonlocal of
            of = await self._containers.room_in(transaction, project)
            return of

        def fields(settings: dict[str, Any]) -> Mapping[str, Any]:
            return _fields(settings, call.query.name)

        wish = Wish(room_in=room_in, fields=fields)
        keeper = await self._moving.arrive(path, wish, asked, tell)
        if call.query.start:
            tell("starting it")
            await self._containers.start(call, keeper)
        return self._containers.row_of(call, keeper.container, of, 1)


_SAYS = "The container was imported."


def _head(request: Request, keeper: Keeper, snapshot: Snapshot) -> None:
    name = f"{keeper.container.host_label}-{snapshot.name}.hoody"
    request.setHeader(b"content-type", MEDIA.encode())
    request.setHeader(b"content-disposition", f'attachment; filename="{name}"'.encode())
    request.setHeader(b"x-content-type-options", b"nosniff")
    request.setHeader(b"x-accel-buffering", b"no")


def _refusal(said: bytes) -> HoodyError:
    """Of an export that has sent nothing yet."""
    try:
        reason = read_line(said.splitlines()[-1]).error
    except (IndexError, msgspec.MsgspecError):
        reason = None
    return NotRead(f"The snapshot could not be read: {reason or 'it broke off'}")


def _fields(settings: dict[str, Any], name: str | None) -> dict[str, Any]:
    """
    What comes with a stream is as good as what anybody says of a container that is to be made.

    @raise CallerError: with what will not do.
    """
    given = {**settings, "name": name or settings.get("name")}
    try:
        form = msgspec.convert(given, NewContainer)
    except msgspec.ValidationError as error:
        raise CallerError(f"The settings in the stream will not do: {error}.") from None
    check_form(form)
    if form.name is None:
        raise CallerError("The stream has no name for the container; give one by ?name=.")
    return {
        "name": form.name,
        "color": form.color,
        "comment": form.comment,
        "command": command_of(form.command),
        "port": form.port or PORT,
        "exposed_ports": tuple(form.exposed_ports),
        "environment_vars": form.environment_vars,
        "volumes": volumes_of(form.volumes),
        "ssh_public_key": form.ssh_public_key,
        "autostart": form.autostart,
        "idle_timeout_seconds": form.idle_timeout_seconds,
        "access": form.access,
        "egress": form.egress,
        "memory_limit": form.memory_limit,
        "disk_limit": form.disk_limit,
        "cpu_limit": form.cpu_limit,
    }
