"""Images as HTTP sees them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import msgspec
from attrs import define, field
from msgspec import Meta

from hoody.auth.tokens import Scope
from hoody.containers.fleet import Fleet
from hoody.containers.image import NAME, Image
from hoody.containers.workshop import Workshop
from hoody.errors import CallerError, NoSuchThing
from hoody.interfaces import IStore
from hoody.resources.accept import SSE
from hoody.resources.api.operations import Call, Operation, Pagination, Paging, pagination
from hoody.resources.api.reading import whole
from hoody.resources.api.telling import told

_PACKAGE = "[a-z0-9][a-z0-9+.-]{1,63}"
_RELATIVE = re.compile(r"[a-z0-9-]+([./:@]|$)")

ImageName = Annotated[
    str,
    Meta(
        pattern=whole(NAME),
        description="1 to 63 lower-case letters, digits, ., _ and -, a letter or digit first and"
        " last",
    ),
]


class NewImage(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """
    An image that is to be. C{source} is C{busybox}, C{debian}, C{oci:} with the path of a
    layout on the server, or a registry's reference; a tarball is uploaded instead.
    """

    name: ImageName
    source: Annotated[str, Meta(min_length=1, max_length=512)]
    packages: Annotated[
        list[Annotated[str, Meta(pattern=whole(_PACKAGE), description="names of packages")]],
        Meta(max_length=200),
    ] = []
    suite: Annotated[
        str, Meta(pattern=whole("[a-z][a-z0-9-]{1,30}"), description="such as bookworm")
    ] = "bookworm"


class ImageRow(msgspec.Struct, kw_only=True):
    id: str
    server_id: str
    name: str
    source: str
    status: str
    progress: str | None
    config: dict[str, Any]
    size: int
    created_at: datetime


class ImagePage(msgspec.Struct, kw_only=True):
    images: list[ImageRow]
    pagination: Pagination


@define(eq=False)
class ImagesFace:
    """@ivar registries: the hosts that images may come from."""

    _store: IStore
    _fleet: Fleet
    _workshop: Workshop
    registries: tuple[str, ...] = field(default=())

    def operations(self) -> list[Operation]:
        all_of_them, one = "/api/v1/images", "/api/v1/images/{image}"
        return [
            Operation(
                method="GET",
                path=all_of_them,
                summary="The images of this server",
                answer=self.list_images,
                scope=Scope.READ,
                query=Paging,
                returns=ImagePage,
                tied=True,
            ),
            Operation(
                method="POST",
                path=all_of_them,
                summary="Make an image; with Accept: text/event-stream, told of as it goes",
                answer=self.create_image,
                scope=Scope.WRITE,
                body=NewImage,
                returns=ImageRow,
                status=201,
                says="The image was made.",
                media=(SSE,),
                errors=(409, 503),
            ),
            Operation(
                method="GET",
                path=one,
                summary="One image",
                answer=self.get_image,
                scope=Scope.READ,
                returns=ImageRow,
                tied=True,
                errors=(404,),
            ),
            Operation(
                method="DELETE",
                path=one,
                summary="Delete an image that no container is made of",
                answer=self.delete_image,
                scope=Scope.WRITE,
                returns=ImageRow,
                says="The image was deleted.",
                errors=(404, 409, 503),
            ),
        ]

    async def list_images(self, call: Call) -> ImagePage:
        async with self._store.transaction() as transaction:
            found = await transaction.images.of_server(self._fleet.server_id)
        some = found[call.query.offset : call.query.offset + call.query.limit]
        return ImagePage(
            images=[self.row_of(image) for image in some],
            pagination=pagination(call.query, len(found)),
        )

    async def get_image(self, call: Call, image: str) -> ImageRow:
        async with self._store.transaction() as transaction:
            found = await transaction.images.find(self._fleet.server_id, image)
        if found is None:
            raise NoSuchThing(f"There is no image {image!r}; GET /api/v1/images has them.")
        return self.row_of(found)

    async def create_image(self, call: Call) -> ImageRow | None:
        self._fleet.check()
        asked = self._order(call)

        async def make(tell: Callable[[str], None]) -> ImageRow:
            return self.row_of(await self._workshop.make(call.body.name, asked, tell))

        return await told(call, make)

    def _order(self, call: Call) -> dict[str, Any]:
        """What the builder is asked for."""
        body: NewImage = call.body
        if body.source == "busybox":
            return {"kind": "busybox"}
        if body.source == "debian":
            return {"kind": "debian", "suite": body.suite, "packages": body.packages}
        if body.source.startswith("oci:/"):
            call.principal.require(Scope.ADMIN, ", as it reads files of the server")
            return {"kind": "layout", "layout": body.source.removeprefix("oci:")}
        if body.source == "upload" or not _RELATIVE.match(body.source):
            raise CallerError(
                f'source: "{body.source}" will not do; give busybox, debian, oci:/PATH, or'
                " HOST/REPOSITORY:TAG of a registry. To upload a tarball, send it itself as the"
                " body of POST /api/v1/images?name=NAME."
            )
        call.principal.require(Scope.ADMIN, ", as it has the server fetch something")
        return {
            "kind": "registry",
            "reference": body.source,
            "registries": list(self.registries),
        }

    async def delete_image(self, call: Call, image: str) -> ImageRow:
        self._fleet.check()
        return self.row_of(await self._workshop.remove(image))

    def row_of(self, image: Image) -> ImageRow:
        return ImageRow(
            id=image.id,
            server_id=image.server_id,
            name=image.name,
            source=image.source,
            status=image.status,
            progress=self._workshop.making.get(image.name),
            config={key: value for key, value in image.config.items() if value is not None},
            size=image.size,
            created_at=image.created_at,
        )
