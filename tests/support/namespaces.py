"""Network namespaces that end with the descriptors that hold them: nothing is left of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import TypeVar

from attrs import frozen

from hoody.containers.within import in_a_new_one, within

T = TypeVar("T")


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
