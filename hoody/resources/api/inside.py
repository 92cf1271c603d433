"""What is in a container: commands, output, variables, figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from attrs import define, evolve, field, frozen
from msgspec import Meta
from twisted.internet.threads import deferToThread

from hoody.auth.tokens import Scope
from hoody.containers import logs
from hoody.containers.commands import NoSuchUser, find_user, is_dense
from hoody.containers.container import Container
from hoody.containers.execution import Execution
from hoody.containers.fleet import Fleet
from hoody.containers.keeper import Keeper
from hoody.containers.runtime import Run
from hoody.errors import CallerError, Conflict, NoSuchThing
from hoody.interfaces import IStore
from hoody.later import sleep
from hoody.protocols import sse
from hoody.protocols.request import Request
from hoody.protocols.sse import EventStream
from hoody.resources.accept import SSE, TEXT, preferred
from hoody.resources.api.container_forms import Command, Script, Word
from hoody.resources.api.containers import (
    MASK,
    ONE,
    ContainersFace,
    check_variables,
    command_of,
    find_container,
)
from hoody.resources.api.operations import Call, Operation
from hoody.resources.api.reading import whole

NDJSON = "application/x-ndjson"
FOLLOW_SECONDS = 0.25
"""How often a log that is followed is looked at."""
LINE = 1 << 16
"""Bytes of a log that are told at once; a longer line is told in parts."""


class Exec(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A command; its output comes as it happens, and last its exit code."""

    command: Command | Script
    user: (
        Annotated[
            str,
            Meta(
                pattern=whole("[0-9]{1,5}(:[0-9]{1,5})?|[a-z_][a-z0-9_.-]{0,31}"),
                description="a user's name of the container, or UID, or UID:GID",
            ),
        ]
        | None
    ) = None
    env: dict[str, Word] = {}
    timeout_seconds: Annotated[float, Meta(gt=0, le=604800)] | None = None


class LogQuery(msgspec.Struct, kw_only=True):
    tail: Annotated[int, Meta(ge=0, le=100_000, description="how many lines")] | None = None
    follow: bool = False


class Value(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    value: Word


class Cpu(msgspec.Struct, kw_only=True):
    usage_ns: int
    idle: bool


class Memory(msgspec.Struct, kw_only=True):
    own: int
    shared: int
    limit: int
    swap: int


class Disk(msgspec.Struct, kw_only=True):
    """
    Bytes on the disk, as compressed: what it has itself in its root and volumes, and its image,
    which others may have as well.
    """

    own: int
    shared: int
    limit: int | None


class Stats(msgspec.Struct, kw_only=True):
    status: str
    cpu: Cpu
    memory: Memory
    disk: Disk
    processes: int
    idle_seconds: float


@define(eq=False)
class InsideFace:
    _store: IStore
    _fleet: Fleet
    _containers: ContainersFace

    def operations(self) -> list[Operation]:
        env = ONE + "/env"
        return [
            Operation(
                method="POST",
                path=ONE + "/exec",
                summary="Run a command in it; its output comes as it happens",
                answer=self.exec_in_container,
                scope=Scope.WRITE,
                body=Exec,
                tied=True,
                media=(NDJSON, SSE),
                errors=(404, 409, 421, 503),
            ),
            Operation(
                method="GET",
                path=ONE + "/logs",
                summary="What its main process said; followed, as server-sent events",
                answer=self.get_logs,
                scope=Scope.READ,
                query=LogQuery,
                tied=True,
                page=True,
                media=(TEXT, SSE),
                errors=(404, 421),
            ),
            Operation(
                method="GET",
                path=ONE + "/stats",
                summary="What it takes",
                answer=self.get_stats,
                scope=Scope.READ,
                returns=Stats,
                tied=True,
                errors=(404, 421),
            ),
            Operation(
                method="GET",
                path=env,
                summary="Its variables",
                answer=self.get_env,
                scope=Scope.READ,
                returns=dict[str, str],
                tied=True,
                errors=(404,),
            ),
            Operation(
                method="PUT",
                path=env,
                summary="Set all of its variables, from its next start on",
                answer=self.put_env,
                scope=Scope.WRITE,
                body=dict[str, Word],
                returns=dict[str, str],
                tied=True,
                errors=(404, 421),
            ),
            Operation(
                method="PUT",
                path=env + "/{key}",
                summary="Set one of its variables, from its next start on",
                answer=self.put_variable,
                scope=Scope.WRITE,
                body=Value,
                returns=dict[str, str],
                tied=True,
                errors=(404, 421),
            ),
            Operation(
                method="DELETE",
                path=env + "/{key}",
                summary="Forget one of its variables, from its next start on",
                answer=self.delete_variable,
                scope=Scope.WRITE,
                returns=dict[str, str],
                tied=True,
                errors=(404, 421),
            ),
        ]

    async def _keeper(self, call: Call, container: str) -> Keeper:
        async with self._store.transaction() as transaction:
            found = await find_container(transaction, call.principal, container)
            await self._containers.check_ours(transaction, found)
        return self._fleet.find(found)

    # Commands

    async def exec_in_container(self, call: Call, container: str) -> None:
        body: Exec = call.body
        check_variables(body.env)
        command = command_of(body.command)
        assert command is not None
        keeper = await self._keeper(call, container)
        with keeper.busy():
            await self._run(call, keeper, list(command))

    async def _run(self, call: Call, keeper: Keeper, command: list[str]) -> None:
        body: Exec = call.body
        await self._fleet.serving(keeper)
        user = body.user
        if user is not None and not user[0].isdigit():
            try:
                user = (await find_user(self._fleet, keeper, user)).ids
            except NoSuchUser:
                raise CallerError(
                    f'user: "{user}" is nobody in the container; give a user of it, or UID:GID.'
                ) from None
        output = Output.open(call.request)
        runtime, own_id = self._fleet.runtime, keeper.container.id
        execution = runtime.execution(own_id, output.tell)
        output.of(execution)
        await runtime.execute(
            execution,
            own_id,
            command,
            user,
            body.env,
            body.timeout_seconds,
            dense=is_dense(keeper),
        )
        status = await execution.ended
        more = {"timed_out": True} if execution.too_late else {}
        output.end({"exit_code": status, **more})

    # Output

    async def get_logs(self, call: Call, container: str) -> None:
        keeper = await self._keeper(call, container)
        path = self._fleet.storage.log_file(keeper.container.id)
        lines = call.query.tail
        text, position = await deferToThread(logs.last_lines, path, lines)
        if call.query.follow or preferred(call.request, (TEXT, SSE)) == SSE:
            await self._follow(call, keeper, text, position)
            return
        call.request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        call.request.setHeader(b"x-content-type-options", b"nosniff")
        call.request.setHeader(b"content-length", b"%d" % len(text))
        call.request.write(text)
        call.request.finish()

    async def _follow(self, call: Call, keeper: Keeper, text: bytes, position: int) -> None:
        path = self._fleet.storage.log_file(keeper.container.id)
        stream = EventStream.open(call.request)
        rest = b""
        while not stream.over and keeper.state != "gone":
            for begin in range(0, len(text), LINE):
                whole_lines, found, rest = (rest + text[begin : begin + LINE]).rpartition(b"\n")
                if not found and len(rest) >= LINE:
                    whole_lines, found, rest = rest, b"\n", b""
                if found:
                    stream.write(sse.encode_lines(whole_lines))
                await stream.drained()
            await sleep(self._fleet.reactor, FOLLOW_SECONDS)
            text, position = await deferToThread(logs.read_from, path, position)
        stream.close()

    # Figures

    async def get_stats(self, call: Call, container: str) -> Stats:
        keeper = await self._keeper(call, container)
        own, run = keeper.container, keeper.run
        try:
            disk, shared = await deferToThread(self._fleet.storage.taken_by, own.id, own.image_id)
        except FileNotFoundError:
            raise NoSuchThing(f"The container {own.name!r} is gone.") from None
        counted = _counted(run)
        return Stats(
            status=own.status,
            cpu=Cpu(usage_ns=counted.cpu_ns, idle=keeper.state != "running"),
            memory=Memory(limit=self._fleet.memory_limit(own), **counted.memory),
            disk=Disk(own=disk, shared=shared, limit=own.disk_limit),
            processes=counted.processes,
            idle_seconds=round(self._fleet.reactor.seconds() - keeper.moved_at, 3),
        )

    # Variables

    async def get_env(self, call: Call, container: str) -> dict[str, str]:
        async with self._store.transaction() as transaction:
            found = await find_container(transaction, call.principal, container)
        if not call.principal.may(Scope.WRITE):
            return dict.fromkeys(found.environment_vars, MASK)
        return found.environment_vars

    async def put_env(self, call: Call, container: str) -> dict[str, str]:
        check_variables(call.body)
        return await self._change(call, container, lambda _: call.body)

    async def put_variable(self, call: Call, container: str, key: str) -> dict[str, str]:
        check_variables({key: ""})
        value: str = call.body.value
        return await self._change(call, container, lambda found: {**found, key: value})

    async def delete_variable(self, call: Call, container: str, key: str) -> dict[str, str]:
        def without(found: dict[str, str]) -> dict[str, str]:
            if key not in found:
                raise NoSuchThing(f"There is no variable {key!r}.")
            return {name: value for name, value in found.items() if name != key}

        return await self._change(call, container, without)

    async def _change(
        self, call: Call, container: str, change: Callable[[dict[str, str]], dict[str, str]]
    ) -> dict[str, str]:
        async with self._store.transaction() as transaction:
            found = await find_container(transaction, call.principal, container, for_change=True)
            await self._containers.check_ours(transaction, found)
            keeper = self._fleet.find(found)
            changed: Container = evolve(
                found, environment_vars=change(found.environment_vars), updated_at=call.now
            )
            if len(msgspec.json.encode(changed.environment_vars)) > 1 << 20:
                raise Conflict("environment_vars: together they are over 1 MiB; have fewer.")
            await transaction.containers.change(changed)
        keeper.container = changed
        return changed.environment_vars


@frozen
class _Counted:
    """What the kernel counts of a run; nothing of one that is none."""

    cpu_ns: int = 0
    memory: dict[str, int] = field(factory=lambda: {"own": 0, "shared": 0, "swap": 0})
    processes: int = 0


def _counted(run: Run | None) -> _Counted:
    if run is None:
        return _Counted()
    try:
        return _Counted(run.cgroup.cpu_ns, run.cgroup.memory, len(run.cgroup.pids))
    except OSError:  # it has just ended, and its control group with it
        return _Counted()


@define(eq=False)
class Output:
    """An answer that goes on: a JSON object a line, or an event."""

    _request: Request
    _stream: EventStream | None

    @classmethod
    def open(cls, request: Request) -> Output:
        if preferred(request, (NDJSON, SSE)) == SSE:
            return cls(request, EventStream.open(request))
        request.setHeader(b"content-type", NDJSON.encode())
        request.setHeader(b"x-accel-buffering", b"no")
        request.attend()
        return cls(request, None)

    def of(self, execution: Execution) -> None:
        """Its listener's pace is the command's; with the listener it ends."""
        request: Any = self._request
        if self._stream is not None:
            self._stream.source = execution
        else:
            request.registerProducer(execution, True)
            request.send_head()
        request.notifyFinish().addErrback(lambda _: execution.kill())

    def tell(self, stream: str, text: str) -> None:
        self._say({"stream": stream, "data": text})

    def _say(self, value: dict[str, object]) -> None:
        data = msgspec.json.encode(value)
        if self._stream is not None:
            self._stream.write(sse.encode(None, data))
        elif not self._request.gone:
            self._request.write(data + b"\n")

    def end(self, value: dict[str, object]) -> None:
        self._say(value)
        if self._stream is not None:
            self._stream.close()
        elif not self._request.gone:
            self._request.unregisterProducer()
            self._request.finish()
