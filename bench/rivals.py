"""The servers that are measured: how each is started, and which version it is."""

from __future__ import annotations

import json
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from attrs import frozen

import hoody
import twisted
from bench.processes import process

HOODY = "hoody"
PORTABLE = "hoody portable"
PIPING = "piping-server"
HAPROXY = "haproxy"
SINK = "bare sink"

_ROOT = Path(__file__).parents[1]
_TWISTD = str(Path(sys.executable).with_name("twistd"))
_MODULES = _ROOT / ".bench" / "node_modules"
_PIPING_SERVER = str(_MODULES / ".bin" / "piping-server")

# Below the range from which the kernel takes its clients' ports; each is used once.
_ports = iter(range(21000, 22000))

# What it takes to forward by splice(); the rest is as it comes, as with the others.
_HAPROXY_CONFIG = """\
global
    maxconn 100
defaults
    mode tcp
    option splice-auto
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen forward
    bind 127.0.0.1:{port}
    server sink 127.0.0.1:{sink}
"""


@frozen(kw_only=True)
class Server:
    """
    One that runs.

    @ivar prefix: what a pipe's name is put behind to make it a path.
    @ivar log: what it says, if it says how its pipes went.
    @ivar sinks: whether what is sent to it needs no receiver: it, or who stands
        behind it, reads the body itself, and answers how many bytes it had.
    """

    name: str
    pid: int
    port: int
    prefix: str = "/"
    log: Path | None = None
    sinks: bool = False

    def path(self, pipe: str) -> str:
        """What stands in the request line for a pipe."""
        return self.prefix + pipe

    def url(self, pipe: str) -> str:
        """What C{curl} is given for a pipe."""
        return f"http://127.0.0.1:{self.port}{self.path(pipe)}"


def missing(*, rivals: bool = True) -> list[str]:
    """Programs that a run needs and that are not here; C{script/bench} installs them."""
    programs = ["curl", _TWISTD]
    if rivals:
        programs += ["haproxy", "node", _PIPING_SERVER]
    return [Path(program).name for program in programs if shutil.which(program) is None]


def serving(name: str, folder: Path) -> AbstractContextManager[Server]:
    """
    A server of its own, until the context ends.

    @param folder: where its files and its log go.
    @raise RuntimeError: with the end of its log, if it does not start.
    """
    return _START[name](folder)


def hoody_with(settings: Sequence[str], folder: Path) -> AbstractContextManager[Server]:
    """As L{serving}; hoody with settings as its command line has them."""
    return _hoody(HOODY, settings, folder)


@contextmanager
def _hoody(name: str, settings: Sequence[str], folder: Path) -> Iterator[Server]:
    port = free_port()
    command = [
        *(_TWISTD, "-n", "--pidfile=", "hoody", "--containers=off"),
        f"--listen=tcp:{port}:interface=127.0.0.1",
        f"--data-dir={folder / f'data{port}'}",
        *settings,
    ]
    with listening(command, port, folder) as pid:
        log = _log(folder, port)
        yield Server(name=name, pid=pid, port=port, prefix="/api/v1/pipe/", log=log)


@contextmanager
def _piping_server(folder: Path) -> Iterator[Server]:
    port = free_port()
    command = [_PIPING_SERVER, "--host=127.0.0.1", f"--http-port={port}"]
    with listening(command, port, folder) as pid:
        yield Server(name=PIPING, pid=pid, port=port)


@contextmanager
def _haproxy(folder: Path) -> Iterator[Server]:
    with _sink(folder) as sink:
        port = free_port()
        config = folder / f"haproxy{port}.cfg"
        config.write_text(_HAPROXY_CONFIG.format(port=port, sink=sink.port))
        with listening(["haproxy", "-db", "-f", str(config)], port, folder) as pid:
            yield Server(name=HAPROXY, pid=pid, port=port, sinks=True)


@contextmanager
def _sink(folder: Path) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("sink.py")), str(port)]
    with listening(command, port, folder) as pid:
        yield Server(name=SINK, pid=pid, port=port, sinks=True)


_START: Mapping[str, Callable[[Path], AbstractContextManager[Server]]] = {
    HOODY: partial(_hoody, HOODY, ()),
    PORTABLE: partial(_hoody, PORTABLE, ("--splice=off",)),
    PIPING: _piping_server,
    HAPROXY: _haproxy,
    SINK: _sink,
}


def _log(folder: Path, port: int) -> Path:
    return folder / f"{port}.log"


@contextmanager
def listening(command: Sequence[str], port: int, folder: Path) -> Iterator[int]:
    """The pid of a server, once it listens."""
    log = _log(folder, port)
    with log.open("wb") as out, process(command, stdout=out, stderr=out, cwd=folder) as popen:
        deadline = time.monotonic() + 20
        while not _answers(port):
            if popen.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)
        yield popen.pid


def free_port() -> int:
    """Where nobody answers: another measurement's server would be taken for ours."""
    return next(port for port in _ports if not _answers(port))


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def versions(*, rivals: bool = True) -> dict[str, str]:
    """Of everything that takes part."""
    ours = {
        "python": platform.python_version(),
        "twisted": twisted.__version__,
        "hoody": hoody.__version__,
        "commit": _said("git", "-C", str(_ROOT), "describe", "--always", "--dirty"),
        "curl": _number(_said("curl", "--version")),
    }
    return {**ours, **_of_rivals()} if rivals else ours


def _of_rivals() -> dict[str, str]:
    package = json.loads((_MODULES / "piping-server" / "package.json").read_text())
    return {
        "node": _said("node", "--version").lstrip("v"),
        "piping-server": str(package["version"]),
        "haproxy": haproxy_version(),
    }


def haproxy_version() -> str:
    return _number(_said("haproxy", "-v"))


def _number(text: str) -> str:
    found = re.search(r"[0-9]+(\.[0-9]+)+\S*", text)
    return found[0] if found else text


def _said(*command: str) -> str:
    """What a program prints; nothing if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
