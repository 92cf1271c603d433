"""Cron as HTTP sees it: entries, their runs, and crontabs."""

from __future__ import annotations

from typing import Any

from attrs import asdict, define
from twisted.internet.threads import deferToThread

from hoody.auth.tokens import Scope
from hoody.cron.crontabs import Crontabs
from hoody.cron.entries import Entries
from hoody.cron.entry import Entry, Run
from hoody.cron.errors import Invalid
from hoody.cron.looking import Looking, Shown
from hoody.cron.output import MASK
from hoody.cron.rights import Asking, Own, is_over
from hoody.cron.schedules import in_words
from hoody.resources.api.containers import check_variables
from hoody.resources.api.cron_forms import (
    Count,
    CronPaging,
    CrontabPage,
    CrontabPut,
    CrontabRow,
    EntryChange,
    EntryDeleted,
    EntryPage,
    EntryPaging,
    EntryRow,
    NewCrontab,
    NewEntry,
    NextFires,
    RunPage,
    RunRow,
    Versions,
    fields_of,
)
from hoody.resources.api.operations import Call, Operation
from hoody.resources.gateway import read_address

ALL = "/users/{user}/entries"
ONE = ALL + "/{entry}"
CRONTAB = "/users/{user}/crontab"


@define(eq=False)
class CronFace:
    """@ivar suffix: what stands behind the names of containers, with its first dot."""

    _entries: Entries
    _looking: Looking
    _crontabs: Crontabs
    suffix: bytes

    def operations(self) -> list[Operation]:
        common: dict[str, Any] = {"bare": True, "tied": True}
        look: dict[str, Any] = {"scope": Scope.READ, "others": (Scope.CRON,), **common}
        do: dict[str, Any] = {"scope": Scope.CRON, **common}
        change: dict[str, Any] = {
            "path": ONE,
            "summary": "Change what is named, and nothing else",
            "answer": self.change_entry,
            "body": EntryChange,
            "returns": EntryRow,
            "errors": (404, 413, 421),
            **do,
        }
        return [
            Operation(
                method="GET",
                path=ALL,
                summary="A user's entries, oldest first",
                answer=self.list_entries,
                query=EntryPaging,
                returns=EntryPage,
                errors=(404,),
                **look,
            ),
            Operation(
                method="POST",
                path=ALL,
                summary="Make an entry",
                answer=self.create_entry,
                body=NewEntry,
                returns=EntryRow,
                status=201,
                errors=(404, 409, 413, 421),
                **do,
            ),
            Operation(
                method="GET",
                path=ONE,
                summary="One entry",
                answer=self.get_entry,
                returns=EntryRow,
                errors=(404,),
                **look,
            ),
            Operation(method="PATCH", **change),
            Operation(method="PUT", **change),
            Operation(
                method="DELETE",
                path=ONE,
                summary="Delete an entry; its versions and runs can be read still",
                answer=self.delete_entry,
                returns=EntryDeleted,
                errors=(404, 421),
                **do,
            ),
            Operation(
                method="POST",
                path=ONE + "/run",
                summary="Run it now, whether or not it is enabled",
                answer=self.run_entry,
                returns=RunRow,
                status=202,
                errors=(404, 421),
                **do,
            ),
            Operation(
                method="GET",
                path=ONE + "/runs",
                summary="Its runs, newest first",
                answer=self.list_runs,
                query=CronPaging,
                returns=RunPage,
                errors=(404,),
                **look,
            ),
            Operation(
                method="GET",
                path=ONE + "/next",
                summary="When it is due next; never, while it is disabled",
                answer=self.list_next_fires,
                query=Count,
                returns=NextFires,
                errors=(404,),
                **look,
            ),
            Operation(
                method="GET",
                path=ONE + "/versions",
                summary="As it was, newest first",
                answer=self.list_versions,
                returns=Versions,
                errors=(404,),
                **look,
            ),
            Operation(
                method="GET",
                path=CRONTAB,
                summary="A user's entries as a crontab(5)",
                answer=self.get_crontab,
                returns=CrontabRow,
                errors=(404,),
                **look,
            ),
            Operation(
                method="PUT",
                path=CRONTAB,
                summary="Have the entries be what a crontab(5) says, all or none of it",
                answer=self.replace_crontab,
                body=NewCrontab,
                returns=CrontabPut,
                strict=True,
                errors=(404, 409, 413, 415, 421),
                **do,
            ),
            Operation(
                method="GET",
                path="/crontab",
                summary="The crontabs of all who have one, by name",
                answer=self.list_crontabs,
                query=CronPaging,
                returns=CrontabPage,
                errors=(404,),
                **look,
            ),
        ]

    def _asking(self, call: Call) -> Asking:
        """By the host it may be of one container."""
        own, host = None, call.request.host_name
        if host.endswith(self.suffix):
            address = read_address(host.removesuffix(self.suffix).decode("ascii"))
            if address is not None and address.project_id is not None:
                own = Own(project_id=address.project_id, container_id=address.label)
        return Asking(
            principal=call.principal,
            request_id=call.request.request_id.decode("ascii"),
            own=own,
        )

    # Entries

    async def list_entries(self, call: Call, user: str) -> EntryPage:
        query: EntryPaging = call.query
        shown, total = await self._looking.page(
            self._asking(call),
            user,
            query.offset,
            query.limit,
            "next_fire_at" if query.sort_by == "next_run_at" else query.sort_by,
            query.sort_order == "asc",
        )
        rows = await deferToThread(lambda: [self._row(call, each) for each in shown])
        return EntryPage(user=user, entries=rows, total=total, page=query.page, limit=query.limit)

    async def create_entry(self, call: Call, user: str) -> EntryRow:
        fields = fields_of(call.body)
        check_variables(fields["environment_vars"])
        return self._row(call, await self._entries.create(self._asking(call), user, fields))

    async def get_entry(self, call: Call, user: str, entry: str) -> EntryRow:
        return self._row(call, await self._looking.get(self._asking(call), user, entry))

    async def change_entry(self, call: Call, user: str, entry: str) -> EntryRow:
        body: EntryChange = call.body
        fields = fields_of(body)
        check_variables(fields.get("environment_vars", {}))
        if body.clear_expiration:
            if fields.get("expires_at") is not None:
                raise Invalid(
                    "expires_at",
                    "expires_at: with clear_expiration there is none; leave one of them out.",
                )
            fields["expires_at"] = None
        shown = await self._entries.change(self._asking(call), user, entry, fields)
        return self._row(call, shown)

    async def delete_entry(self, call: Call, user: str, entry: str) -> EntryDeleted:
        await self._entries.delete(self._asking(call), user, entry)
        return EntryDeleted(deleted=True)

    async def run_entry(self, call: Call, user: str, entry: str) -> RunRow:
        return run_row(await self._entries.run(self._asking(call), user, entry))

    async def list_runs(self, call: Call, user: str, entry: str) -> RunPage:
        query: CronPaging = call.query
        runs, total = await self._looking.runs(
            self._asking(call), user, entry, query.offset, query.limit
        )
        return RunPage(
            runs=[run_row(run) for run in runs], total=total, page=query.page, limit=query.limit
        )

    async def list_next_fires(self, call: Call, user: str, entry: str) -> NextFires:
        query: Count = call.query
        return NextFires(
            next=await self._looking.next(self._asking(call), user, entry, query.count)
        )

    async def list_versions(self, call: Call, user: str, entry: str) -> Versions:
        found = await self._looking.versions(self._asking(call), user, entry)
        rows = await deferToThread(lambda: [self._former(call, each) for each in found])
        return Versions(versions=rows)

    def _former(self, call: Call, entry: Entry) -> EntryRow:
        row = self._row(call, Shown(entry=entry))
        row.next_run_at = None  # of what was, nothing is due
        return row

    def _row(self, call: Call, shown: Shown) -> EntryRow:
        entry, run = shown.entry, shown.last_run
        fields = asdict(entry, recurse=False)
        for name in ("server_id", "changed_by", "next_fire_at"):
            del fields[name]
        if not self._asking(call).may_see_variables:
            fields["environment_vars"] = dict.fromkeys(entry.environment_vars, MASK)
        return EntryRow(
            **{
                **fields,
                "scopes": list(entry.scopes),
                "expired": is_over(entry, call.now),
            },
            schedule_human=in_words(entry.schedule),
            next_run_at=entry.next_fire_at,
            last_run=None if run is None else run_row(run),
        )

    # Crontabs

    async def get_crontab(self, call: Call, user: str) -> CrontabRow:
        text = await self._crontabs.get(self._asking(call), user)
        return CrontabRow(user=user, crontab=text)

    async def replace_crontab(self, call: Call, user: str) -> CrontabPut:
        body: NewCrontab = call.body
        text, removed = await self._crontabs.put(self._asking(call), user, body.crontab)
        return CrontabPut(user=user, crontab=text, removed_expired=removed)

    async def list_crontabs(self, call: Call) -> CrontabPage:
        query: CronPaging = call.query
        found, total = await self._crontabs.page(self._asking(call), query.offset, query.limit)
        return CrontabPage(
            items=[CrontabRow(user=user, crontab=text) for user, text in found],
            total=total,
            page=query.page,
            limit=query.limit,
        )


def run_row(run: Run) -> RunRow:
    fields = asdict(run, recurse=False)
    for name in ("token_id", "retry_at"):
        del fields[name]
    return RunRow(**fields)
