"""
The gateway as a process of its own, before servers that the test says.

Run as a program: C{gateway.py FILE}; the file is JSON of containers by their labels, and is
read again when it changes. It logs its port, and tells what visits have come, on stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, serverFromString
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import globalLogBeginner
from zope.interface import implementer

from hoody import logs
from hoody.auth.keyring import Keyring
from hoody.auth.suspects import Suspects
from hoody.auth.tokens import Scope
from hoody.errors import NotServing
from hoody.interfaces import IDestination, IDestinations, IVisit
from hoody.protocols import kernelpipes
from hoody.protocols.hangups import Hangups
from hoody.protocols.kernelpipes import KernelPipes
from hoody.protocols.relaying import Relaying
from hoody.protocols.site import Site
from hoody.resources import failures
from hoody.resources.doors import Doors
from hoody.resources.gateway import GatewayFace
from hoody.resources.guard import Guard
from hoody.resources.root import Root, containers_suffix
from hoody.store.memory import MemoryStore

DOMAIN = "d.localhost"
SUFFIX = f".containers.{DOMAIN}"
PROJECT = "f" * 23 + "1"
_COUNTED = ("visits", "answered", "moved", "ended", "late")


@implementer(IVisit)
@define(eq=False)
class Visit:
    """Counts what it is told."""

    counts: dict[str, int]
    container: Container
    wake: tuple[str, float] | None = None
    patience = 0.0
    is_over: bool = False

    async def endpoint(self, port: int) -> IStreamClientEndpoint:
        own = self.container
        if own.why:
            raise NotServing(own.why, f"{own.name} is {own.why}.")
        return TCP4ClientEndpoint(the_reactor, own.host, port)

    def connected(self) -> None:
        if self.container.slept:
            self.wake = (self.container.slept, 1.75)

    def answered(self) -> None:
        self._count("answered")

    def moved(self) -> None:
        self._count("moved")

    def holds_back(self, some: bool) -> None:
        self.counts["late"] += self.is_over

    def ended(self) -> None:
        self._count("ended")
        self.is_over = True

    def _count(self, what: str) -> None:
        self.counts["late"] += self.is_over
        self.counts[what] += 1


@implementer(IDestination)
@frozen(kw_only=True)
class Container:
    """One that a test has made up: a port of this machine."""

    container_id: str
    name: str
    port: int
    host: str = "127.0.0.1"
    access: str = "public"
    why: str = ""
    slept: str = ""
    exposed: tuple[int, ...] = ()
    project_id: str = PROJECT
    counts: dict[str, int]

    @property
    def ports(self) -> frozenset[int]:
        return frozenset(self.exposed)

    @property
    def sleeps(self) -> str | None:
        return self.slept or None

    def visit(self, *, counts: bool = True) -> IVisit:
        self.counts["visits"] += 1
        return Visit(self.counts, self)

    async def last_words(self) -> str:
        return "<last> words\nof it"


@implementer(IDestinations)
@define(eq=False)
class Containers:
    _file: Path
    _time: float = 0.0
    _found: dict[str, Container] = field(factory=dict)
    counts: dict[str, int] = field(factory=lambda: dict.fromkeys(_COUNTED, 0))

    async def find(self, label: str) -> IDestination | None:
        return self.here(label)

    def here(self, label: str) -> IDestination | None:
        time = os.stat(self._file).st_mtime_ns
        if time != self._time:
            self._time = time
            self._found = {
                name: Container(counts=self.counts, **fields)
                for name, fields in json.loads(self._file.read_text()).items()
            }
        return self._found.get(label)


async def _serve(file: Path, *, splice: int | None = None, **options: Any) -> None:
    """@param splice: bytes of an answer from which on the kernel moves it."""
    reactor: Any = the_reactor
    relaying = None
    if splice is not None:
        relaying = Relaying(KernelPipes(kernelpipes.MEMORY, 64), splice)
    keyring = Keyring(MemoryStore(), reactor)
    await keyring.load()
    guard = Guard(keyring, Suspects(5))
    containers = Containers(file)
    face = GatewayFace(
        destinations=containers,
        doors=Doors(guard),
        clock=reactor,
        suffix=containers_suffix(DOMAIN.encode()),
        relaying=relaying,
        **options,
    )
    pages: Any = _Steering(keyring, containers, reactor)
    root = Root(
        domain=DOMAIN,
        pipe=pages,
        pipe_pages=pages,
        server_pages=pages,
        cron_pages=pages,
        gateway=face,
        guard=guard,
    )
    site = Site(
        root,
        reactor=reactor,
        hangups=Hangups(reactor),
        refuse=failures.refuse_connection,
        access=logs.log_access,
        server_name=b"hoody/test",
        head_timeout=10,
        idle_timeout=2,
        peer_timeout=20,
        stream_timeout=20,
    )
    pages.site = site
    plain = "tcp:0:interface=127.0.0.1"
    pem = f"privateKey={file.parent}/key.pem:certKey={file.parent}/cert.pem"
    for text in (plain, f"haproxy:{plain}", f"ssl:0:interface=127.0.0.1:{pem}"):
        port = await serverFromString(reactor, text).listen(site)
        print(json.dumps({"listening": port.getHost().port}), flush=True)


class _Steering:
    """What stands beside the gateway here: how a test asks what is inside."""

    private_network = False
    site: Any

    def __init__(self, keyring: Keyring, containers: Containers, reactor: Any) -> None:
        self._keyring, self._containers, self._reactor = keyring, containers, reactor

    def resource(self) -> Any:
        return self

    def render(self, request: Any) -> Any:
        ensureDeferred(self._answer(request))
        return None

    async def _answer(self, request: Any) -> None:
        command, *words = request.path.decode().strip("/").split("/")
        body = json.dumps(await getattr(self, f"_{command}")(*words)).encode()
        request.setHeader(b"content-length", b"%d" % len(body))
        request.write(body)
        request.finish()

    async def _counts(self) -> dict[str, int]:
        return {
            **self._containers.counts,
            "connections": len(self.site.connections),
            "fds": len(os.listdir("/proc/self/fd")),
            "timers": len(self._reactor.getDelayedCalls()),
        }

    async def _token(self, scope: str, container: str = "") -> list[str]:
        token, secret = await self._keyring.create(
            alias=os.urandom(4).hex(),
            scopes=(Scope(scope),),
            containers=(container,) if container else None,
            expires_at=None,
            told=lambda kind, token: self._keyring._told(kind, token),
        )
        return [token.id, secret]

    async def _revoke(self, token_id: str) -> None:
        await self._keyring.revoke(token_id, lambda kind, token: self._keyring._told(kind, token))

    async def _session(self, token_id: str) -> str:
        """The console's cookie."""
        guard = Guard(self._keyring, Suspects(5))
        token = self._keyring.known(token_id)
        assert token is not None
        return guard._cookie(token).partition(";")[0]

    async def _reads(self, text: str) -> bool:
        """Whether this is the console's session."""
        assert self._keyring.signer is not None
        return self._keyring.signer.read_session(text) is not None


def certify(folder: Path) -> None:
    """A key and a certificate, which nobody trusts."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


class Gateway:
    """
    The process, for a test.

    @ivar events: what it has logged.
    """

    host = "127.0.0.1"

    def __init__(self, folder: Path, **options: float | None) -> None:
        self.folder = folder
        self._file = folder / "containers.json"
        self._file.write_text("{}")
        certify(folder)
        self.containers: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.gateway", str(self._file), json.dumps(options)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent.parent,
        )
        self.port, self.haproxy_port, self.tls_port = (self._listening() for _ in range(3))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _listening(self) -> int:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if "listening" in self.events[-1]:
                return int(self.events[-1]["listening"])
        raise AssertionError(self.events)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def has(self, label: str, port: int, **fields: Any) -> str:
        """
        There is a container of this name now.

        @return: its host.
        """
        number = len(self.containers) + 1
        self.containers[label] = {
            "container_id": f"{number:024x}",
            "name": label,
            "port": port,
            **fields,
        }
        known = {entry["container_id"]: entry for entry in self.containers.values()}
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps({**self.containers, **known}))
        fresh.replace(self._file)
        return label + SUFFIX

    def ask(self, path: str) -> Any:
        """What the process says of itself."""
        command = ["curl", "-sS", "-m", "10", f"http://{self.host}:{self.port}/{path}"]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    def is_settled(self, before: dict[str, int]) -> bool:
        """Whether nothing is left of what was not there C{before}, and each visit ended once."""
        now = self.ask("counts")
        assert not now["late"], "something was told of a visit that was over"
        same = all(now[what] <= before[what] for what in ("connections", "fds", "timers"))
        return same and now["visits"] == now["ended"]

    def settle(self, before: dict[str, int]) -> None:
        """Return when it L{is_settled}."""
        deadline = time.monotonic() + 10
        while not self.is_settled(before):
            assert time.monotonic() < deadline, (before, self.ask("counts"))
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        return self.process.pid

    def resident(self, what: str = "VmHWM") -> int:
        """Bytes of memory: VmRSS now, VmHWM the most since L{forget_peak}."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {what}")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        broken = [event["traceback"] for event in self.events if "traceback" in event]
        assert not broken, broken[0]


@contextmanager
def gateway(folder: Path, **options: float | None) -> Iterator[Gateway]:
    running = Gateway(folder, **options)
    try:
        yield running
    finally:
        running.stop()


if __name__ == "__main__":
    globalLogBeginner.beginLoggingTo([logs.observer("json")], redirectStandardIO=False)
    ensureDeferred(_serve(Path(sys.argv[1]), **json.loads(sys.argv[2]))).addErrback(
        lambda failure: (failure.printTraceback(), os._exit(1))
    )
    the_reactor.run()
