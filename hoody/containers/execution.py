"""Running a command in a container that runs."""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

TIMED_OUT = 124
"""The exit status of a command that took too long, as timeout(1) has it."""
KILL_PAUSE, KILLS = 0.1, 10
"""Seconds between two attempts to end it, and how many before the runtime is ended, too."""
_STREAMS = {1: "stdout", 2: "stderr"}


def _parent(pid: int) -> int:
    """Of a process (proc(5), stat, 4)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])


@implementer(IPushProducer)
@define(eq=False)
class Execution(ProcessProtocol):
    """
    One command.

    @ivar tell: given the stream's name, and what came on it.
    @ivar pid_file: where the runtime writes which process it is, as the host sees it.
    @ivar ended: fires with its exit status, or minus the signal.
    """

    _reactor: Any
    tell: Callable[[str, str], None]
    pid_file: Path
    ended: Deferred[int] = field(factory=Deferred, init=False)
    too_late: bool = field(default=False, init=False)
    _late: IDelayedCall | None = field(default=None, init=False)
    _kills: int = field(default=0, init=False)
    _again: IDelayedCall | None = field(default=None, init=False)
    _decoders: dict[int, codecs.IncrementalDecoder] = field(init=False)

    def __attrs_post_init__(self) -> None:
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = {number: make("replace") for number in _STREAMS}

    def start(self, words: list[str], environment: dict[str, str], seconds: float | None) -> None:
        """@param seconds: how long it may take; C{None} for as long as it likes."""
        self._reactor.spawnProcess(self, words[0], words, env=environment, path="/")
        if seconds is not None:
            self._late = self._reactor.callLater(seconds, self._is_late)

    def _is_late(self) -> None:
        self.too_late = True
        self.kill()

    def kill(self) -> None:
        """End it, and not only the runtime that waits for it."""
        if self.ended.called or self._again is not None or self.transport is None:
            return
        self.resumeProducing()
        self._kill()

    def _kill(self) -> None:
        """
        Until it has ended: it may not have begun, and what it has left behind may keep the
        runtime waiting.
        """
        self._again = None
        if self.ended.called:
            return
        runtime: Any = self.transport
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(self.pid_file.read_text())
            # A pid may be another's by now: but not as a child of this runtime.
            if runtime.pid and _parent(pid) == runtime.pid:
                os.kill(pid, signal.SIGKILL)
        self._kills += 1
        if self._kills > KILLS and runtime is not None and runtime.pid:
            runtime.signalProcess("KILL")
        self._again = self._reactor.callLater(KILL_PAUSE, self._kill)

    # ProcessProtocol

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.closeStdin()

    def childDataReceived(self, number: int, data: bytes) -> None:
        text = self._decoders[number].decode(data)
        if text:
            self.tell(_STREAMS[number], text)

    def processEnded(self, reason: Failure) -> None:
        if self._late is not None and self._late.active():
            self._late.cancel()
        if self._again is not None and self._again.active():
            self._again.cancel()
        self.pid_file.unlink(missing_ok=True)
        for number, decoder in self._decoders.items():
            rest = decoder.decode(b"", final=True)
            if rest:
                self.tell(_STREAMS[number], rest)
        value: Any = reason.value
        status = 0 if isinstance(value, ProcessDone) else value.exitCode
        if status is None:
            status = -(value.signal or 0)
        self.ended.callback(TIMED_OUT if self.too_late else status)

    # IPushProducer

    def _pipes(self) -> list[Any]:
        pipes: dict[int, Any] = getattr(self.transport, "pipes", {})
        return [pipe for number, pipe in pipes.items() if number in _STREAMS]

    def pauseProducing(self) -> None:
        for pipe in self._pipes():
            pipe.stopReading()

    def resumeProducing(self) -> None:
        for pipe in self._pipes():
            pipe.startReading()

    def stopProducing(self) -> None:
        """Who listened has gone."""
        self.kill()
