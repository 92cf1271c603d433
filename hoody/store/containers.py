"""The SQL of containers, of their images, of what became of them, and of whose they are."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg2.errors
from attrs import asdict, define
from zope.interface import implementer

from hoody.containers.container import Container, Incarnation, Status, Volume
from hoody.containers.elsewhere import Owner
from hoody.containers.image import Image, ImageStatus
from hoody.containers.transitions import Transition
from hoody.errors import InUse
from hoody.interfaces import IContainers, IImages, IServers
from hoody.store.links import Link
from hoody.store.rows import names_of, unique

_NAMES = names_of(Container)
_COLUMNS = ", ".join(f"c.{name}" for name in _NAMES)
_JSON = frozenset(
    {
        *("image_config", "command", "exposed_ports", "environment_vars", "volumes"),
        "incarnation",
    }
)
_IMAGE_NAMES = names_of(Image)
_IMAGE = ", ".join(_IMAGE_NAMES)
_TRANSITION_NAMES = names_of(Transition, "id")


@implementer(IContainers)
@define(eq=False)
class Containers:
    _link: Link

    async def add(self, container: Container) -> None:
        places = ", ".join(_place(name) for name in _NAMES)
        await unique(
            self._link.run(
                f"INSERT INTO containers ({', '.join(_NAMES)}) VALUES ({places})",
                _row(container),
            )
        )
        await self._label(container)

    async def _label(self, container: Container) -> None:
        await self._link.run(
            "DELETE FROM container_labels WHERE container_id = %s AND label <> ALL(%s)",
            (container.id, list(container.labels)),
        )
        await unique(
            self._link.run(
                "INSERT INTO container_labels (label, container_id)"
                " SELECT label, %s FROM unnest(%s) AS label"
                " WHERE label NOT IN (SELECT label FROM container_labels WHERE container_id = %s)",
                (container.id, list(container.labels), container.id),
            )
        )

    async def find(self, label: str, for_change: bool = False) -> Container | None:
        rows = await self._link.run(
            f"SELECT {_COLUMNS} FROM containers c JOIN container_labels l"
            " ON l.container_id = c.id WHERE l.label = %s"
            + (" FOR UPDATE OF c" if for_change else ""),
            (label,),
        )
        return _container(rows[0]) if rows else None

    async def page(
        self,
        offset: int,
        limit: int,
        sort_by: str,
        ascending: bool,
        project_id: str | None = None,
        only: tuple[str, ...] | None = None,
    ) -> tuple[list[Container], int]:
        assert sort_by in _NAMES
        where, values = ["true"], dict[str, object]()
        if project_id is not None:
            where.append("c.project_id = %(project_id)s")
            values["project_id"] = project_id
        if only is not None:
            where.append("c.id = ANY(%(only)s)")
            values["only"] = list(only)
        said = " AND ".join(where)
        rows = await self._link.run(
            f"SELECT {_COLUMNS} FROM containers c WHERE {said} ORDER BY c.{sort_by}"
            f" {'ASC NULLS FIRST' if ascending else 'DESC NULLS LAST'}, c.id"
            " LIMIT %(limit)s OFFSET %(offset)s",
            {**values, "limit": limit, "offset": offset},
        )
        total = await self._link.run(f"SELECT count(*) FROM containers c WHERE {said}", values)
        return [_container(row) for row in rows], total[0][0]

    async def of_server(self, server_id: str) -> list[Container]:
        rows = await self._link.run(
            f"SELECT {_COLUMNS} FROM containers c WHERE c.server_id = %s ORDER BY c.id",
            (server_id,),
        )
        return [_container(row) for row in rows]

    async def owners(self, labels: list[str]) -> dict[str, Owner]:
        rows = await self._link.run(
            "SELECT l.label, c.name, c.server_id, s.name FROM container_labels l"
            " JOIN containers c ON c.id = l.container_id"
            " LEFT JOIN servers s ON s.id = c.server_id WHERE l.label = ANY(%s)",
            (labels,),
        )
        return {
            label: Owner(container=name, server_id=server_id, server=server)
            for label, name, server_id, server in rows
        }

    async def free_number(self, server_id: str) -> int:
        await self._link.run(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"numbers {server_id}",)
        )
        rows = await self._link.run(
            "SELECT min(candidate) FROM (SELECT 0 AS candidate UNION ALL"
            " SELECT number + 1 FROM containers WHERE server_id = %(server)s) AS candidates"
            " WHERE candidate NOT IN (SELECT number FROM containers WHERE server_id = %(server)s)",
            {"server": server_id},
        )
        return int(rows[0][0])

    async def count(self, project_id: str) -> int:
        rows = await self._link.run(
            "SELECT count(*) FROM containers WHERE project_id = %s", (project_id,)
        )
        return int(rows[0][0])

    async def change(self, container: Container) -> None:
        places = ", ".join(f"{name} = {_place(name)}" for name in _NAMES)
        await unique(
            self._link.run(f"UPDATE containers SET {places} WHERE id = %(id)s", _row(container))
        )
        await self._label(container)

    async def remove(self, container_id: str) -> None:
        await self._link.run("DELETE FROM containers WHERE id = %s", (container_id,))

    async def passed(self, transition: Transition) -> None:
        names = ", ".join(_TRANSITION_NAMES)
        places = ", ".join(f"%({name})s" for name in _TRANSITION_NAMES)
        row = {**asdict(transition), "metadata": _json(transition.metadata)}
        await self._link.run(f"INSERT INTO container_transitions ({names}) VALUES ({places})", row)

    async def transitions(
        self, container_id: str, offset: int, limit: int, ascending: bool
    ) -> tuple[list[Transition], int]:
        rows = await self._link.run(
            f"SELECT {', '.join([*_TRANSITION_NAMES, 'id'])} FROM container_transitions"
            f" WHERE container_id = %s ORDER BY id {'ASC' if ascending else 'DESC'}"
            " LIMIT %s OFFSET %s",
            (container_id, limit, offset),
        )
        total = await self._link.run(
            "SELECT count(*) FROM container_transitions WHERE container_id = %s", (container_id,)
        )
        names = [*_TRANSITION_NAMES, "id"]
        return [Transition(**dict(zip(names, row, strict=True))) for row in rows], total[0][0]


def _place(name: str) -> str:
    return f"%({name})s::jsonb" if name in _JSON else f"%({name})s"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _row(container: Container) -> dict[str, object]:
    row = asdict(container)
    for name in _JSON:
        row[name] = None if row[name] is None else _json(row[name])
    return row


def _container(row: tuple[Any, ...]) -> Container:
    found = dict(zip(_NAMES, row, strict=True))
    found["command"] = None if found["command"] is None else tuple(found["command"])
    found["exposed_ports"] = tuple(found["exposed_ports"])
    found["volumes"] = tuple(Volume(**volume) for volume in found["volumes"])
    found["status"] = Status(found["status"])
    if found["incarnation"] is not None:
        found["incarnation"] = Incarnation(**found["incarnation"])
    return Container(**found)


@implementer(IImages)
@define(eq=False)
class Images:
    _link: Link

    async def add(self, image: Image) -> None:
        places = ", ".join(f"%({name})s" for name in _IMAGE_NAMES)
        await unique(
            self._link.run(f"INSERT INTO images ({_IMAGE}) VALUES ({places})", _image_row(image))
        )

    async def find(self, server_id: str, name: str) -> Image | None:
        rows = await self._link.run(
            f"SELECT {_IMAGE} FROM images WHERE server_id = %s AND name = %s FOR SHARE",
            (server_id, name),
        )
        return _image(rows[0]) if rows else None

    async def of_server(self, server_id: str) -> list[Image]:
        rows = await self._link.run(
            f"SELECT {_IMAGE} FROM images WHERE server_id = %s ORDER BY name", (server_id,)
        )
        return [_image(row) for row in rows]

    async def change(self, image: Image) -> None:
        places = ", ".join(f"{name} = %({name})s" for name in _IMAGE_NAMES)
        await self._link.run(f"UPDATE images SET {places} WHERE id = %(id)s", _image_row(image))

    async def remove(self, image_id: str) -> None:
        try:
            await self._link.run("DELETE FROM images WHERE id = %s", (image_id,))
        except psycopg2.errors.ForeignKeyViolation as error:
            raise InUse from error


def _image_row(image: Image) -> dict[str, object]:
    return {**asdict(image), "config": _json(image.config)}


def _image(row: tuple[Any, ...]) -> Image:
    found = dict(zip(_IMAGE_NAMES, row, strict=True))
    found["status"] = ImageStatus(found["status"])
    return Image(**found)


@implementer(IServers)
@define(eq=False)
class Servers:
    _link: Link

    async def say(self, server_id: str, name: str) -> None:
        await self._link.run(
            "INSERT INTO servers AS s (id, name) VALUES (%s, %s) ON CONFLICT (id)"
            " DO UPDATE SET name = excluded.name WHERE s.name <> excluded.name",
            (server_id, name),
        )

    async def names(self, server_ids: set[str]) -> dict[str, str]:
        return dict(
            await self._link.run(
                "SELECT id, name FROM servers WHERE id = ANY(%s)", (list(server_ids),)
            )
        )
