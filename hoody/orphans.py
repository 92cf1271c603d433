"""What our children leave behind, and nobody waits for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.process import reapProcessHandlers
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody.pidfds import children

LOOK_SECONDS = 2.0

_log = Logger(namespace="hoody.process")


@define(eq=False)
class Orphans:
    """
    A command that has ended may have left others running. They become ours (L{adopt_orphans}),
    and when they have ended somebody has to hear of it, or they stay as zombies.

    @ivar known: of our children those, but for Twisted's own, that somebody hears of who asks for
        how they have ended.
    """

    _reactor: Any
    _known: Callable[[], Set[int]]
    _ended: set[int] = field(factory=set, init=False)
    _call: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._call = LoopingCall(self._look)
        self._call.clock = self._reactor

    def start(self) -> None:
        self._call.start(LOOK_SECONDS, now=False)

    def stop(self) -> None:
        if self._call.running:
            self._call.stop()

    def _look(self) -> Deferred[None]:
        looking = ensureDeferred(self._hear())
        looking.addErrback(lambda failure: _log.failure("orphans are not heard of", failure))
        return looking

    async def _hear(self) -> None:
        """Of those that had ended when it was looked last: of others somebody may just hear."""
        ended = await deferToThread(_ended_children, self._of_others())
        for pid in (ended & self._ended) - self._of_others():
            _reap(pid)
        self._ended = ended

    def _of_others(self) -> set[int]:
        return {*reapProcessHandlers, *self._known()}


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _ended_children(but: set[int]) -> set[int]:
    found = set()
    for pid in children(os.getpid()) - but:
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_bytes()  # proc_pid_stat(5)
            if stat.rpartition(b")")[2].split()[0] == b"Z":
                found.add(pid)
    return found
