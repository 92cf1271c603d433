"""Projects as HTTP sees them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from attrs import asdict, define, evolve
from msgspec import UNSET, Meta, UnsetType

from hoody.auth.tokens import Scope
from hoody.errors import CallerError, Conflict, InUse, NoSuchThing, Taken
from hoody.interfaces import IStore, ITransaction
from hoody.projects import DEFAULT, IDLE_TIMEOUT_SECONDS, Project
from hoody.resources.api.operations import Call, Operation, Pagination, Paging, pagination
from hoody.resources.api.reading import given, whole
from hoody.units import new_id

USER_ID = "000000000000000000000001"
"""The one user that there is; clients look for the field."""

Alias = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        pattern=whole(r"[^\x00-\x1f\x7f/]+"),
        description="1 to 100 characters without control characters and slashes, which no other"
        " project has",
    ),
]
Color = Annotated[
    str,
    Meta(
        max_length=32,
        pattern=whole("#?[A-Za-z0-9]+"),
        description="a colour's name or hex digits, such as red or #ff8800",
    ),
]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Days = Annotated[int, Meta(ge=1, le=3650, description="days; null: kept until deleted")]
Seconds = Annotated[int, Meta(ge=0, le=31_536_000, description="seconds; 0: never")]


class ProjectChange(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What can be said of a project; what is left out stays."""

    alias: Alias | UnsetType = UNSET
    color: Color | UnsetType | None = UNSET
    max_containers: Count | UnsetType | None = UNSET
    max_snapshots: Count | UnsetType | None = UNSET
    snapshot_retention_days: Days | UnsetType | None = UNSET
    idle_timeout_seconds: Seconds | UnsetType = UNSET
    dense: bool | UnsetType = UNSET


class NewProject(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A project that is to be."""

    alias: Alias
    color: Color | None = None
    max_containers: Count | None = None
    max_snapshots: Count | None = None
    snapshot_retention_days: Days | None = None
    idle_timeout_seconds: Seconds = IDLE_TIMEOUT_SECONDS
    dense: bool = False


class ProjectRow(msgspec.Struct, kw_only=True):
    id: str
    user_id: str
    alias: str
    color: str | None
    max_containers: int | None
    max_snapshots: int | None
    snapshot_retention_days: int | None
    idle_timeout_seconds: int
    dense: bool
    created_at: datetime
    updated_at: datetime


class ProjectPage(msgspec.Struct, kw_only=True):
    projects: list[ProjectRow]
    pagination: Pagination


class ProjectPaging(Paging, kw_only=True):
    sort_by: Literal["alias", "created_at", "updated_at"] = "created_at"


@define(eq=False)
class ProjectsFace:
    _store: IStore

    def operations(self) -> list[Operation]:
        one, all_of_them = "/api/v1/projects/{project}", "/api/v1/projects"
        change: dict[str, Any] = {
            "path": one,
            "summary": "Change what is named, and nothing else",
            "answer": self.change_project,
            "scope": Scope.WRITE,
            "body": ProjectChange,
            "returns": ProjectRow,
            "errors": (404, 409),
        }
        return [
            Operation(
                method="GET",
                path=all_of_them,
                summary="The projects",
                answer=self.list_projects,
                scope=Scope.READ,
                query=ProjectPaging,
                returns=ProjectPage,
            ),
            Operation(
                method="POST",
                path=all_of_them,
                summary="Make a project",
                answer=self.create_project,
                scope=Scope.WRITE,
                body=NewProject,
                returns=ProjectRow,
                status=201,
                says="The project was created.",
                errors=(409,),
            ),
            Operation(
                method="GET",
                path=one,
                summary="One project, by id or alias",
                answer=self.get_project,
                scope=Scope.READ,
                returns=ProjectRow,
                errors=(404,),
            ),
            Operation(method="PATCH", **change),
            Operation(method="PUT", **change),
            Operation(
                method="DELETE",
                path=one,
                summary="Delete a project that has no containers",
                answer=self.delete_project,
                scope=Scope.WRITE,
                returns=ProjectRow,
                says="The project was deleted.",
                errors=(404, 409),
            ),
        ]

    async def list_projects(self, call: Call) -> ProjectPage:
        query = call.query
        async with self._store.transaction() as transaction:
            found, total = await transaction.projects.page(
                query.offset, query.limit, query.sort_by, query.sort_order == "asc"
            )
        return ProjectPage(
            projects=[row_of(project) for project in found], pagination=pagination(query, total)
        )

    async def create_project(self, call: Call) -> ProjectRow:
        now = call.now
        _check_alias(call.body.alias)
        _check_dense(call, call.body.dense)
        project = Project(
            id=new_id(now), created_at=now, updated_at=now, **msgspec.structs.asdict(call.body)
        )
        try:
            async with self._store.transaction() as transaction:
                await transaction.projects.add(project)
                transaction.record(_event(call, "project.created", project))
        except Taken:
            raise _taken(project.alias) from None
        return row_of(project)

    async def get_project(self, call: Call, project: str) -> ProjectRow:
        async with self._store.transaction() as transaction:
            return row_of(await _find(transaction, project))

    async def change_project(self, call: Call, project: str) -> ProjectRow:
        changes = given(call.body)
        try:
            async with self._store.transaction() as transaction:
                found = await _find(transaction, project, for_change=True)
                changed = {k: v for k, v in changes.items() if getattr(found, k) != v}
                if "alias" in changed:
                    _check_alias(changed["alias"])
                    if found.alias == DEFAULT:
                        raise Conflict("The project 'default' always exists; it keeps its alias.")
                if "dense" in changed:
                    _check_dense(call, True)
                if changed:
                    found = evolve(found, updated_at=call.now, **changed)
                    await transaction.projects.change(found)
                    transaction.record(
                        _event(call, "project.updated", found, changed=sorted(changed))
                    )
        except Taken:
            raise _taken(changes["alias"]) from None
        return row_of(found)

    async def delete_project(self, call: Call, project: str) -> ProjectRow:
        try:
            async with self._store.transaction() as transaction:
                found = await _find(transaction, project, for_change=True)
                if found.alias == DEFAULT:
                    raise Conflict("The project 'default' always exists; it cannot be deleted.")
                await transaction.projects.remove(found.id)
                transaction.record(_event(call, "project.deleted", found))
        except InUse:
            raise Conflict(
                f"The project {found.alias!r} has containers; delete them first."
            ) from None
        return row_of(found)


async def _find(
    transaction: ITransaction, id_or_alias: str, *, for_change: bool = False
) -> Project:
    found = await transaction.projects.find(id_or_alias, for_change)
    if found is None:
        raise NoSuchThing(f"There is no project {id_or_alias!r}; GET /api/v1/projects has them.")
    return found


def _check_alias(alias: str) -> None:
    if alias != alias.strip():
        raise CallerError(f'alias: "{alias}" will not do; leave out the spaces around it.')
    if re.fullmatch(r"[0-9a-f]{24}", alias, re.IGNORECASE):
        raise CallerError(f'alias: "{alias}" will not do; it could be taken for an id.')


def _check_dense(call: Call, dense: bool) -> None:
    if dense:
        call.principal.require(Scope.ADMIN, ", since dense weakens what keeps containers apart")


def _taken(alias: str) -> Conflict:
    return Conflict(f"alias: another project is called {alias!r}; choose another alias.")


def _event(call: Call, event_type: str, project: Project, **data: object) -> Any:
    return call.event(
        event_type, "project", project.id, project_id=project.id, alias=project.alias, **data
    )


def row_of(project: Project) -> ProjectRow:
    return ProjectRow(user_id=USER_ID, **asdict(project))
