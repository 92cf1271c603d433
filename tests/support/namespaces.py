"""
Network namespaces that end with the descriptors that hold them: nothing is left of them.
And the server's part of the containers' network, inside one that plays the host.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attrs import frozen

from hoody.containers.network.within import in_a_new_one, within

T = TypeVar("T")

_SCRIPT = Path(__file__).parent / "pretend_host.py"


def _here() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@frozen
class Namespace:
    """@ivar descriptor: that holds it."""

    descriptor: int

    @classmethod
    def make(cls) -> Namespace:
        made = cls(in_a_new_one(_here))
        made.run("ip", "link", "set", "lo", "up")
        return made

    def close(self) -> None:
        os.close(self.descriptor)

    def do(self, work: Callable[[], T]) -> T:
        """Do it inside; a program that is started stays there."""
        return within(self.descriptor, work)

    def run(self, *command: str, stdin: str = "") -> str:
        done = self.do(
            lambda: subprocess.run(
                command, input=stdin, capture_output=True, text=True, check=False, timeout=20
            )
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def script(self, text: str) -> str:
        return self.run("sh", "-eu", "-c", text)


class Broken(AssertionError):
    """What the server said instead of doing it."""


class Server:
    """L{Egress} in a process of its own, inside the namespace that plays the host."""

    def __init__(
        self, host: Namespace, descriptors: Sequence[int] = (), tag: str = "test", **more: Any
    ) -> None:
        self.process = host.do(
            lambda: subprocess.Popen(
                [sys.executable, str(_SCRIPT), tag, json.dumps(more)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=list(descriptors),
            )
        )

    def send(self, name: str, *arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, *arguments]).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, name: str, *arguments: Any) -> dict[str, Any]:
        assert self.process.stdout is not None
        self.send(name, *arguments)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def do(self, name: str, *arguments: Any) -> Any:
        answer = self.ask(name, *arguments)
        if "error" in answer:
            raise Broken(answer["error"])
        return answer["result"]

    def stop(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
