"""
Running containers by an OCI runtime, each call with a time that it may take.

A run outlives us: whoever comes after us finds it by its L{Incarnation}.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import resource
import secrets
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody import commands
from hoody.commands import CommandFailed, speakable
from hoody.containers.cgroups import Cgroup, Hierarchies
from hoody.containers.container import Container, Incarnation
from hoody.containers.execution import Execution
from hoody.containers.network.namespaces import NetworkNamespace, NotAContainer
from hoody.containers.spec import OPEN_FILES, RANGE, Surroundings, specification
from hoody.containers.storage import Storage
from hoody.errors import HoodyError
from hoody.later import sleep
from hoody.pidfds import Ended, exit_status, kill, reap, send
from hoody.process import private

KILL_SECONDS = 10.0
"""How long processes may take to end that were killed."""
REMOVE_SECONDS = 2.0
"""How long control groups may take to be empty of who has ended."""
STATUS_SECONDS = 1.0
"""How long it may take to hear how one ended that was no child of ours."""

_UNKILLABLE = f"its processes did not end in {KILL_SECONDS:g} s"
_LAUNCHER = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launcher.py"))]
_ADDR_NO_RANDOMIZE = 0x0040000
_INITS = ("/usr/bin/tini-static", "/usr/bin/docker-init")

_log = Logger(namespace="hoody.containers")


class RuntimeFailed(Exception):
    """It did not come about, with a sentence."""


@define(eq=False)
class Run:
    """
    A container that runs.

    @ivar network: its network namespace.
    @ivar began: when, by the reactor's clock; 0 if an earlier server started it.
    @ivar ended: called once when its first process has ended.
    @ivar status: how that ended, once it has: see L{exit_status}.
    """

    incarnation: Incarnation
    cgroup: Cgroup
    network: NetworkNamespace
    began: float = 0.0
    ended: Callable[[], None] | None = field(default=None, init=False)
    over: bool = field(default=False, init=False)
    status: int | None = field(default=None, init=False)
    _descriptor: int = field(default=-1, init=False)
    _watch: Ended | None = field(default=None, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    def watch(self, reactor: Any) -> None:
        """@raise ProcessLookupError: if it has ended already."""
        self._descriptor = os.pidfd_open(self.incarnation.pid)
        if started_at(self.incarnation.pid) != self.incarnation.started:
            self.close()
            raise ProcessLookupError(f"process {self.incarnation.pid} is another by now")
        self._watch = Ended.watch(reactor, self.incarnation.pid, self._over)

    @property
    def is_dense(self) -> bool:
        """
        Whether its equal memory is merged with that of others: as it was begun, whoever began
        it. Nothing in it can make it look so (C{seccomp.json}).
        """
        try:
            with open(f"/proc/{self.incarnation.pid}/personality") as file:
                return bool(int(file.read(), 16) & _ADDR_NO_RANDOMIZE)
        except OSError:  # it has ended
            return False

    def _over(self) -> None:
        self.over = True
        self.status = exit_status(self._descriptor, self.incarnation.pid)
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)
        if self.ended is not None:
            self.ended()

    async def how_it_ended(self, reactor: Any) -> int | None:
        """
        See L{exit_status}. Of one that is no child of ours the kernel tells when its parent,
        whoever that is by now, has heard of it: so not always at once.
        """
        late = reactor.seconds() + STATUS_SECONDS
        while self.status is None and self._descriptor >= 0 and reactor.seconds() < late:
            self.status = exit_status(self._descriptor, self.incarnation.pid)
            if self.status is None:
                await sleep(reactor, 0.02)
        return self.status

    def signal(self, number: int) -> None:
        if not self.over and self._descriptor >= 0:
            send(self._descriptor, number)

    async def until_over(self, reactor: Any, seconds: float) -> bool:
        """@return: whether it ended in time."""
        if self.over:
            return True
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        late: IDelayedCall = reactor.callLater(seconds, self._stop_waiting, done)
        await done
        if late.active():
            late.cancel()
        return self.over

    def _stop_waiting(self, done: Deferred[None]) -> None:
        self._waiting.remove(done)
        done.callback(None)

    def abandon(self, reactor: Any) -> None:
        """As L{close}; it may end only later, and is not to stay a zombie then."""
        if not self.over:
            with contextlib.suppress(ProcessLookupError):
                reap(reactor, os.pidfd_open(self.incarnation.pid))
        self.close()

    def close(self) -> None:
        """Know nothing of it any more."""
        self.ended = None
        if self._watch is not None:
            self._watch.cancel()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self.network.close()


@define(eq=False)
class Runtime:
    """
    @ivar program: the OCI runtime's path.
    @ivar seconds: how long it may take, at each call.
    @ivar first_id: where the ranges of their ids begin, as the host sees them.
    @ivar state: a folder that a reboot may forget.
    @ivar server_id: whose containers these are.
    """

    _reactor: Any
    program: str
    storage: Storage
    hierarchies: Hierarchies
    seconds: float
    first_id: int
    state: Path = field(default=Path(), init=False)
    server_id: str = field(default="", init=False)
    init: str | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.init = next((path for path in _INITS if os.access(path, os.X_OK)), None)

    def prepare(self) -> None:
        """Have its folders; what is of an earlier boot goes. To be called from a thread."""
        mark = self.state / "boot"
        if self.state.exists() and (not mark.exists() or mark.read_text() != boot_id()):
            shutil.rmtree(self.state)
        for folder in (self.state, self._root, self._bundles):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        mark.write_text(boot_id())

    @property
    def _root(self) -> Path:
        return self.state / "runtime"

    @property
    def _bundles(self) -> Path:
        return self.state / "bundles"

    def _bundle(self, container_id: str) -> Path:
        return self._bundles / container_id

    def cgroup(self, container_id: str) -> Cgroup:
        return Cgroup(self.hierarchies, f"/hoody/{self.server_id}/{container_id}")

    async def launch(
        self,
        container: Container,
        environment: dict[str, str],
        files: dict[str, str],
        furnish: Callable[[NetworkNamespace], Any],
        *,
        dense: bool,
    ) -> Run:
        """
        Start it.

        @param files: texts of files that are to be there, by their paths inside.
        @param dense: whether its equal memory is to be merged with that of others.
        @param furnish: what is to be done to its network before anything runs in it; an
            awaitable.
        @raise RuntimeFailed: if it cannot be; nothing is left of it then.
        """
        bundle = self._bundle(container.id)
        run: Run | None = None
        try:
            await self.clear(container.id)
            await deferToThread(self.storage.make_log, container.id)
            self._write_bundle(container, bundle, environment, files)
            await self._create(container, bundle, dense)
            run = self._find(container, bundle)
            run.network.raise_loopback()
            await furnish(run.network)
            await self._call("start", container.id)
            run.watch(self._reactor)
            run.began = self._reactor.seconds()
        except Exception as error:
            reason = error.sentence.rstrip(".") if isinstance(error, HoodyError) else str(error)
            if run is not None:
                run.abandon(self._reactor)
            try:
                await self.clear(container.id)
            except (RuntimeFailed, OSError) as more:
                reason = f"{reason}; and then: {more}"
            raise RuntimeFailed(reason) from error
        return run

    def _write_bundle(
        self,
        container: Container,
        bundle: Path,
        environment: dict[str, str],
        files: dict[str, str],
    ) -> None:
        bundle.mkdir(mode=0o711)
        own = bundle / "files"
        own.mkdir(mode=0o711)
        given = {}
        for inside, text in files.items():
            path = own / Path(inside).name
            path.write_text(text)
            path.chmod(0o644)
            given[inside] = str(path)
        around = Surroundings(
            bundle=str(bundle),
            cgroup=self.cgroup(container.id).path,
            init=self.init,
            files=given,
            environment=environment,
            # Nobody in a user namespace may have more than whoever made it.
            first_id=self._first_id(container),
            open_files=min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        )
        config = json.dumps(specification(container, around))
        # Variables may be secrets.
        with open(bundle / "config.json", "x", opener=private) as file:
            file.write(config)

    def _first_id(self, container: Container) -> int:
        return self.first_id + container.number * RANGE

    async def _create(self, container: Container, bundle: Path, dense: bool) -> None:
        own = self.storage.state_path(container.id)
        plan = {
            "parent": os.getpid(),
            "bundle": str(bundle),
            "image": str(self.storage.image_path(container.image_id)),
            "own": str(own / "root"),
            "volumes": {each.name: str(own / f"volume-{each.name}") for each in container.volumes},
            "base": self._first_id(container),
            "size": RANGE,
            "dense": dense,
            "log": str(self.storage.log_file(container.id)),
            "command": [
                *self._words("create", container.id),
                *("--bundle", str(bundle), "--pid-file", str(bundle / "pid"), container.id),
            ],
        }
        try:
            await commands.run(
                self._reactor,
                _LAUNCHER,
                given=marshal.dumps(plan),
                seconds=self.seconds,
            )
        except CommandFailed as error:
            raise self._failed("create", error, container.id) from error

    def _find(self, container: Container, bundle: Path) -> Run:
        try:
            pid = int((bundle / "pid").read_text())
            network = NetworkNamespace.of(pid)
        except (OSError, ValueError, OverflowError, NotAContainer) as error:
            name = os.path.basename(self.program)
            raise RuntimeFailed(f"{name} create: it said that it was done, and was not") from error
        incarnation = Incarnation(
            pid=pid, started=started_at(pid), boot=boot_id(), network=network.inode
        )
        return Run(incarnation, self.cgroup(container.id), network)

    def adopt(self, container: Container) -> Run | None:
        """The run that a container has had before we came, if it goes on."""
        incarnation = container.incarnation
        if incarnation is None or incarnation.boot != boot_id():
            return None
        try:
            if started_at(incarnation.pid) != incarnation.started:
                return None
            network = NetworkNamespace.of(incarnation.pid, incarnation.network)
        except (OSError, NotAContainer):
            return None
        run = Run(incarnation, self.cgroup(container.id), network)
        try:
            run.watch(self._reactor)
        except ProcessLookupError:
            run.close()
            return None
        return run

    async def stop(self, run: Run, container_id: str, grace: float) -> None:
        """
        Ask it to end, and then see to it that it does.

        @param grace: seconds between the two; 0 for at once.
        @raise RuntimeFailed: if it does not.
        """
        if grace > 0:
            run.signal(signal.SIGTERM)
            with contextlib.suppress(OSError):
                run.cgroup.thaw()
            await run.until_over(self._reactor, grace)
        if not run.over:
            run.signal(signal.SIGKILL)
            with contextlib.suppress(OSError):
                run.cgroup.thaw()
            if not await run.until_over(self._reactor, KILL_SECONDS):
                run.abandon(self._reactor)
                raise RuntimeFailed(_UNKILLABLE)
        run.close()
        await self.clear(container_id)

    async def clear(self, container_id: str) -> None:
        """
        Leave nothing of a run: no process, control group, or folder.

        @raise RuntimeFailed: if something cannot be got rid of.
        """
        cgroup = self.cgroup(container_id)
        await self._end_all(cgroup)
        known = self._root / container_id
        if known.exists():
            try:
                await self._call("delete", container_id, "--force")
            except RuntimeFailed as error:
                # Nothing of it runs, so what the runtime has of it is files.
                _log.error(
                    "container {container_id} is cleared without the runtime: {reason}",
                    container_id=container_id,
                    reason=str(error),
                )
                shutil.rmtree(known, ignore_errors=True)
        await self._remove(cgroup)
        bundle = self._bundle(container_id)
        if bundle.exists():
            shutil.rmtree(bundle)
        self._log_file(container_id).unlink(missing_ok=True)

    async def _end_all(self, cgroup: Cgroup) -> None:
        """@raise RuntimeFailed: if some of its processes do not end."""
        late = self._reactor.seconds() + KILL_SECONDS
        killed: set[int] = set()
        while pids := set(cgroup.pids):
            for pid in pids - killed:
                kill(self._reactor, pid)
            killed |= pids
            with contextlib.suppress(OSError):
                cgroup.thaw()  # none ends that is frozen
            if self._reactor.seconds() > late:
                raise RuntimeFailed(_UNKILLABLE)
            await sleep(self._reactor, 0.005)

    async def _remove(self, cgroup: Cgroup) -> None:
        """@raise RuntimeFailed: if it stays."""
        late = self._reactor.seconds() + REMOVE_SECONDS
        while True:
            try:
                cgroup.remove()
                break
            except OSError as error:
                # Who has just ended is in it still.
                if self._reactor.seconds() > late:
                    raise RuntimeFailed(f"its control group stays: {error.strerror}") from error
                await sleep(self._reactor, 0.01)
        with contextlib.suppress(OSError):
            Cgroup(self.hierarchies, f"/hoody/{self.server_id}").remove()  # if that was the last

    async def sweep(self, known: set[str]) -> list[str]:
        """Clear what is of no container that we know. @return: which that was."""
        found = {path.name for folder in (self._root, self._bundles) for path in folder.iterdir()}
        swept = []
        for container_id in sorted(found - known):
            try:
                await self.clear(container_id)
            except (RuntimeFailed, OSError) as error:
                _log.error("cannot clear {name}: {error}", name=container_id, error=error)
            else:
                swept.append(container_id)
        return swept

    def execution(self, container_id: str, tell: Callable[[str, str], None]) -> Execution:
        """A command that is to be run in it."""
        name = f"exec-{secrets.token_hex(8)}"
        return Execution(
            self._reactor,
            tell,
            self._bundle(container_id) / f"{name}.json",
            self.cgroup(container_id).within(name),
        )

    async def execute(
        self,
        execution: Execution,
        container_id: str,
        command: list[str],
        user: str | None,
        environment: dict[str, str],
        seconds: float | None,
        *,
        dense: bool,
        groups: tuple[int, ...] = (),
    ) -> None:
        """
        Begin it. No user of this machine sees what it is told.

        @param user: C{UID} or C{UID:GID}; C{None} for that of the container's own process.
        @param seconds: how long it may take; C{None} for as long as it likes.
        @param groups: that it is in besides, if a user is given.
        """
        words = [
            *self._words("exec", None),
            *("--process", str(execution.order), "--cgroup", execution.cgroup.as_within),
            container_id,
        ]
        if dense:
            words = [*_LAUNCHER, *words]

        def order() -> str:
            return self._process(container_id, command, user, groups, environment)

        await execution.start(words, self._own_environment, order, seconds)

    def _process(
        self,
        container_id: str,
        command: list[str],
        user: str | None,
        groups: tuple[int, ...],
        environment: dict[str, str],
    ) -> str:
        """As the container's own process was begun, but for what is said of this one."""
        with open(self._bundle(container_id) / "config.json") as file:
            process = json.load(file)["process"]
        process["args"] = command
        process["env"] += [f"{name}={value}" for name, value in environment.items()]
        if user is not None:
            ids = zip(("uid", "gid"), user.split(":"), strict=False)
            process["user"] |= {kind: int(number) for kind, number in ids}
            process["user"]["additionalGids"] = list(groups)
        return json.dumps(process)

    def end_commands(self, container_id: str) -> None:
        """Of an earlier server, whom nobody listens to any more. To be called from a thread."""
        cgroup = self.cgroup(container_id)
        for name in cgroup.names_within:
            cgroup.within(name).kill_within()
            cgroup.within(name).dissolve_within()
        for order in self._bundle(container_id).glob("exec-*.json"):
            order.unlink()

    @property
    def _own_environment(self) -> dict[str, str]:
        """What the runtime itself needs."""
        return {"PATH": os.environ.get("PATH", os.defpath)}

    def _log_file(self, container_id: str) -> Path:
        """What the runtime says of one container, and of no other."""
        return self.state / f"{container_id}.log"

    def _words(self, call: str, container_id: str | None) -> list[str]:
        """@param container_id: C{None} where its words on stderr will do."""
        file = os.devnull if container_id is None else str(self._log_file(container_id))
        log = ["--log", file, "--log-format", "json"]
        return [self.program, "--root", str(self._root), *log, call]

    async def _call(self, call: str, container_id: str, *words: str) -> None:
        command = [*self._words(call, container_id), *words, container_id]
        try:
            await commands.run(self._reactor, command, seconds=self.seconds)
        except CommandFailed as error:
            raise self._failed(call, error, container_id) from error

    def _failed(self, call: str, error: CommandFailed, container_id: str) -> RuntimeFailed:
        """What the runtime itself says of it, if it does."""
        said = self._last_error(container_id)
        return RuntimeFailed(said or f"{os.path.basename(self.program)} {call}: {error.said}")

    def _last_error(self, container_id: str) -> str:
        log = self._log_file(container_id)
        try:
            lines = log.read_text("utf-8", "replace").splitlines()
            log.unlink()
        except OSError:
            return ""
        for line in reversed(lines):
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and entry.get("level") == "error":
                    return speakable(str(entry.get("msg")))
        return ""


def started_at(pid: int) -> int:
    """When a process began, in clock ticks since boot."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def boot_id() -> str:
    """Which boot of the machine this is."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
