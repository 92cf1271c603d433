"""
The debug switch that says what holds the reactor.

A thread asks the reactor for a sign of life; if none comes in time, it writes
down where the reactor's thread is just then. It looks now and then, not at
every turn, so that it can be left on: what blocks often is found.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

_log = Logger(namespace="hoody.blocking")
_BETWEEN_LOOKS = 0.05


@define(eq=False)
class BlockingWatch:
    """
    @ivar threshold: how long the reactor may take to answer, in seconds.
    @ivar report: given the seconds waited and the stack, in the watching thread.
    """

    _reactor: IReactorFromThreads
    threshold: float
    report: Callable[[float, str], None] | None = None
    _stopping: threading.Event = field(factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin to look. Call it in the reactor's thread."""
        watched = threading.get_ident()
        self._thread = threading.Thread(
            target=self._look, args=(watched,), name="blocking-watch", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _look(self, watched: int) -> None:
        while not self._stopping.wait(_BETWEEN_LOOKS):
            alive = threading.Event()
            self._reactor.callFromThread(alive.set)
            if not alive.wait(self.threshold):
                frame = sys._current_frames().get(watched)
                stack = "".join(traceback.format_stack(frame)[-8:]) if frame else ""
                (self.report or self._log_it)(self.threshold, stack)
                alive.wait(10)

    def _log_it(self, seconds: float, stack: str) -> None:
        self._reactor.callFromThread(
            _log.warn,
            "the reactor was held for over {milliseconds:g} ms:\n{stack}",
            milliseconds=seconds * 1000,
            stack=stack,
        )
