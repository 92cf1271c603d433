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
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

TIMED_OUT = 124
"""The exit status of a command that took too long, as timeout(1) has it."""
LAST_WORDS_SECONDS = 1.0
"""How long the output of one that was killed is still listened to."""
_STREAMS = {1: "stdout", 2: "stderr"}


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
    _end: IDelayedCall | None = field(default=None, init=False)
    _exited: bool = field(default=False, init=False)
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
        """End it, and not only the runtime that waits for it; and hear of that soon."""
        if self._end is not None or self.ended.called:
            return
        if not self._exited:  # else its pid may be another's by now
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(self.pid_file.read_text()), signal.SIGKILL)
        self._end = self._reactor.callLater(LAST_WORDS_SECONDS, self._let_go)
        self.resumeProducing()

    def _let_go(self) -> None:
        """Of a runtime that has not come so far, and of others who hold its output open."""
        assert self.transport is not None
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")
        self.transport.loseConnection()

    # ProcessProtocol

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.closeStdin()

    def childDataReceived(self, number: int, data: bytes) -> None:
        text = self._decoders[number].decode(data)
        if text:
            self.tell(_STREAMS[number], text)

    def processExited(self, reason: Failure) -> None:
        self._exited = True
        self.pid_file.unlink(missing_ok=True)

    def processEnded(self, reason: Failure) -> None:
        if self._late is not None and self._late.active():
            self._late.cancel()
        if self._end is not None and self._end.active():
            self._end.cancel()
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
