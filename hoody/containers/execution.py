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
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hoody.containers.cgroups import Cgroup
from hoody.interfaces import ICommand
from hoody.pidfds import children
from hoody.process import private

TIMED_OUT = 124
"""The exit status of a command that took too long, as timeout(1) has it."""
NOT_RUN = 125
"""And of one that was not even begun."""
LAST_WORDS_SECONDS = 1.0
"""How long the output of one that was killed is still listened to."""
STRIKE_SECONDS = 0.1
_STREAMS = {1: "stdout", 2: "stderr"}

_log = Logger(namespace="hoody.containers")


@implementer(IPushProducer, ICommand)
@define(eq=False)
class Execution(ProcessProtocol):
    """
    One command.

    @ivar tell: given the stream's name, and what came on it.
    @ivar order: what the runtime is told of it.
    @ivar cgroup: what it begins is in that, and all that this begins.
    @ivar ended: fires with its exit status, or minus the signal.
    """

    _reactor: Any
    tell: Callable[[str, str], None]
    order: Path
    cgroup: Cgroup
    ended: Deferred[int] = field(factory=Deferred, init=False)
    too_late: bool = field(default=False, init=False)
    _gone: bool = field(default=False, init=False)
    _is_to_end: bool = field(default=False, init=False)
    _waits: IDelayedCall | None = field(default=None, init=False)
    _status: int = field(default=0, init=False)
    _is_over: bool = field(default=False, init=False)
    _late: IDelayedCall | None = field(default=None, init=False)
    _striking: IDelayedCall | None = field(default=None, init=False)
    _struck_at: float = field(default=0.0, init=False)
    _decoders: dict[int, codecs.IncrementalDecoder] = field(init=False)

    def __attrs_post_init__(self) -> None:
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = {number: make("replace") for number in _STREAMS}

    async def start(
        self,
        words: list[str],
        environment: dict[str, str],
        order: Callable[[], str],
        seconds: float | None,
    ) -> None:
        """
        @param order: finds what the runtime is to be told; called from a thread.
        @param seconds: how long it may take; C{None} for as long as it likes.
        """
        try:
            await deferToThread(self._prepare, order)
        except OSError:
            self.tell("stderr", "The container does not run any more.\n")
            self._end(NOT_RUN)
            return
        if self._gone:
            self._end(-signal.SIGKILL)
            return
        try:
            self._reactor.spawnProcess(self, words[0], words, env=environment, path="/")
        except OSError as error:  # no process, or no descriptor, is left
            self.tell("stderr", f"The server cannot begin it: {error.strerror}.\n")
            self._end(NOT_RUN)
            return
        if seconds is not None:
            self._late = self._reactor.callLater(seconds, self._is_late)

    def _prepare(self, order: Callable[[], str]) -> None:
        text = order()
        # Variables may be secrets.
        with open(self.order, "x", opener=private) as file:
            file.write(text)
        self.cgroup.make_within()

    def _tidy(self) -> None:
        """What a command leaves running when it ends by itself goes on; else all ends."""
        self.order.unlink(missing_ok=True)
        if self._gone:
            self.cgroup.kill_within()
        self.cgroup.dissolve_within()

    def _is_late(self) -> None:
        self.too_late = True
        self.kill()

    def terminate(self) -> None:
        """Ask it to end, and all that it has begun: it is over when these have ended, too."""
        self._is_to_end = True
        for pid in self.cgroup.pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it, and hear of that soon; the runtime, which waits for it, then ends by itself."""
        if self._gone or self._is_over:
            return
        self._gone = True
        if self._waits is not None:
            self._waits.cancel()
            self._end(self._status)
        elif self.transport is not None:
            self._struck_at = self._reactor.seconds()
            self.resumeProducing()
            self._strike()

    def _strike(self) -> None:
        """
        Until it is over. The runtime may only now be about to begin it; and it is not killed
        before its children: nobody else sees to them, and a container ends after all of them.
        """
        assert self.transport is not None
        pids = self._pids()
        self.cgroup.kill_within()
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not pids and self._reactor.seconds() - self._struck_at > LAST_WORDS_SECONDS:
            # Others in the container hold its output open.
            with contextlib.suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")
            self.transport.loseConnection()
        self._striking = self._reactor.callLater(STRIKE_SECONDS, self._strike)

    def _pids(self) -> set[int]:
        """The runtime's children."""
        pid = getattr(self.transport, "pid", None)
        return set() if pid is None else children(pid)

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
        if self._striking is not None and self._striking.active():
            self._striking.cancel()
        for number, decoder in self._decoders.items():
            rest = decoder.decode(b"", final=True)
            if rest:
                self.tell(_STREAMS[number], rest)
        value: Any = reason.value
        status = 0 if isinstance(value, ProcessDone) else value.exitCode
        if status is None:
            status = -(value.signal or 0)
        self._status = TIMED_OUT if self.too_late else status
        self._end_with_all()

    def _end_with_all(self) -> None:
        if self._is_to_end and not self._gone and self.cgroup.pids:
            self._waits = self._reactor.callLater(STRIKE_SECONDS, self._end_with_all)
            return
        self._waits = None
        self._end(self._status)

    def _end(self, status: int) -> None:
        self._is_over = True
        tidied: Deferred[None] = deferToThread(self._tidy)
        tidied.addErrback(lambda failure: _log.failure("a command left traces", failure))
        tidied.addCallback(lambda _: self.ended.callback(status))

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
