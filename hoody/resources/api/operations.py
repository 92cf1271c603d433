"""
What the API can be asked to do: each operation is said once, and from that come its
route, its checks, its envelope and its place in C{/openapi.json}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from attrs import define, frozen
from klein import Klein
from msgspec import Meta

from hoody.audit.events import Event
from hoody.auth.principal import Principal
from hoody.auth.tokens import Scope
from hoody.errors import NoSuchThing
from hoody.protocols.request import Request
from hoody.resources import failures
from hoody.resources.api.reading import check_is_json, read_body, read_query
from hoody.resources.guard import GoTo, Guard, go_to
from hoody.units import moment

MOST_A_PAGE = 100

T = TypeVar("T")


@define
class Call:
    """
    One request that has passed all checks.

    @ivar principal: who asks.
    @ivar body: and C{query}: what L{Operation} says they are, else C{None}.
    """

    request: Request
    principal: Principal
    body: Any
    query: Any

    @property
    def now(self) -> datetime:
        return moment(self.request.site.reactor.seconds())

    def event(
        self,
        event_type: str,
        resource_type: str,
        resource_id: str,
        *,
        project_id: str | None = None,
        **data: object,
    ) -> Event:
        """What is done here, as the audit tells it."""
        return Event(
            ts=self.now,
            event_type=event_type,
            actor=self.principal.actor,
            resource_type=resource_type,
            resource_id=resource_id,
            project_id=project_id,
            data=data,
            request_id=self.request.request_id.decode("ascii"),
        )


@frozen(kw_only=True)
class Operation:
    """
    @ivar path: with C{{name}} for what varies.
    @ivar answer: given the L{Call} and what varies; what it returns is C{data}, or, if
        C{None}, it has answered by itself.
    @ivar scope: what is needed.
    @ivar body: and C{query}: L{msgspec.Struct}s, or C{None} for nothing.
    @ivar returns: the type of C{data}.
    @ivar says: the envelope's message.
    @ivar tied: whether who is tied to containers may ask.
    @ivar page: whether browsers open it; see L{Guard.admit}.
    @ivar takes: the type of a body that is no JSON.
    @ivar media: other types than JSON that it answers with.
    @ivar errors: statuses of its own, besides those of all.
    @ivar others: scopes that will do as well.
    @ivar bare: whether it is one of cron's: what it returns is all of the answer, and
        what varies in its path it looks at by itself.
    @ivar strict: whether a body must not say that it is something else than JSON.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    summary: str
    answer: Callable[..., Awaitable[Any]]
    scope: Scope
    body: Any = None
    query: Any = None
    returns: Any = None
    status: int = 200
    says: str = "OK"
    tied: bool = False
    page: bool = False
    takes: str | None = None
    media: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    others: tuple[Scope, ...] = ()
    bare: bool = False
    strict: bool = False

    @property
    def name(self) -> str:
        """Unique, and a good name for a client's method."""
        return getattr(self.answer, "__name__", "").strip("_")


def register(app: Klein, guard: Guard, operations: list[Operation]) -> None:
    """Make routes of them."""
    for operation in operations:
        _register(app, guard, operation)


def _register(app: Klein, guard: Guard, operation: Operation) -> None:
    path = operation.path.replace("{", "<").replace("}", ">")

    async def serve(request: Request, **parts: str) -> bytes | None:
        return await _serve(request, guard, operation, parts)

    serve.__name__ = f"{operation.method}_{operation.path}"
    app.route(path, methods=[operation.method], strict_slashes=False)(serve)


async def _serve(
    request: Request, guard: Guard, operation: Operation, parts: dict[str, str]
) -> bytes | None:
    # What belongs to somebody is for nobody else to keep.
    request.setHeader(b"cache-control", b"no-store")
    request.setHeader(b"referrer-policy", b"no-referrer")
    try:
        principal = await guard.admit(
            request, operation.scope, page=operation.page, others=operation.others
        )
    except GoTo as elsewhere:
        return go_to(request, elsewhere)
    if not operation.tied:
        principal.require_all_containers()
    for name, value in parts.items():
        if not (operation.bare or value.isprintable()):
            raise NoSuchThing(f"There is no {name} {value!r}.")
    if operation.strict:
        check_is_json(request)
    call = Call(
        request=request,
        principal=principal,
        body=read_body(request, operation.body) if operation.body else None,
        query=read_query(request, operation.query) if operation.query else None,
    )
    data = await operation.answer(call, **parts)
    if data is None:
        return None
    if operation.bare:
        return bare(request, operation.status, data)
    return enveloped(request, operation.status, operation.says, data)


def enveloped(request: Request, status: int, message: str, data: object) -> bytes:
    """Set status and headers, and make the body of an answer that is well."""
    return bare(request, status, {"statusCode": status, "message": message, "data": data})


def bare(request: Request, status: int, data: object) -> bytes:
    """As L{enveloped}, without an envelope."""
    body = failures.as_json(data)
    request.setResponseCode(status, HTTPStatus(status).phrase.encode())
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"content-length", b"%d" % len(body))
    return body


# What lists have in common


class Paging(msgspec.Struct, kw_only=True):
    """Which part of a list."""

    page: Annotated[int, Meta(ge=1, le=1_000_000, description="from 1")] = 1
    limit: Annotated[int, Meta(ge=1, le=MOST_A_PAGE)] = 20
    sort_order: Literal["asc", "desc"] = "desc"

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.limit


class Pagination(msgspec.Struct, rename={"total_pages": "totalPages"}):
    """Where one is in a list."""

    total: int
    page: int
    limit: int
    total_pages: int


def pagination(paging: Any, total: int) -> Pagination:
    return Pagination(total, paging.page, paging.limit, -(-total // paging.limit))
