"""What stands before the one server: our gateway, HAProxy, or nothing."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import frozen

from bench import rivals

DIRECT, HOODY, HAPROXY = NAMES = ("direct", "hoody", "haproxy")
DOMAIN = "bench.test"
HOST = f"box.containers.{DOMAIN}"
"""Of the container, as it is asked for."""

# As we do it: the kernel moves what it can, connections are kept, and Forwarded is set.
_HAPROXY_CONFIG = """\
global
    maxconn 100
defaults
    mode http
    option splice-auto
    option forwardfor
    http-reuse always
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen gate
    bind 127.0.0.1:{port}
    server origin 127.0.0.1:{origin}
"""


@frozen(kw_only=True)
class Gate:
    """One that runs."""

    name: str
    pid: int
    port: int


def missing() -> list[str]:
    """Programs that a run needs and that are not here."""
    return [program for program in ("curl", "haproxy") if shutil.which(program) is None]


@contextmanager
def serving(folder: Path) -> Iterator[list[Gate]]:
    """All of them, before one server, until the context ends."""
    with ExitStack() as stack:

        def start(name: str, port: int, *command: str) -> Gate:
            pid = stack.enter_context(rivals.listening(command, port, folder))
            return Gate(name=name, pid=pid, port=port)

        origin, ours, theirs = (rivals.free_port() for _ in range(3))
        config = folder / "haproxy.cfg"
        config.write_text(_HAPROXY_CONFIG.format(port=theirs, origin=origin))
        yield [
            start(DIRECT, origin, sys.executable, _beside("origin.py"), str(origin)),
            start(HOODY, ours, sys.executable, _beside("gate.py"), str(ours), str(origin), DOMAIN),
            start(HAPROXY, theirs, "haproxy", "-db", "-f", str(config)),
        ]


def _beside(name: str) -> str:
    return str(Path(__file__).with_name(name))


def versions() -> Mapping[str, str]:
    """Of everything that takes part."""
    return {**rivals.versions(rivals=False), "haproxy": rivals.haproxy_version()}
