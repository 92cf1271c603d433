"""What a process says, as the body of an answer: at its reader's pace, and whole or broken."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IPushProducer
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hoody.errors import Unavailable
from hoody.protocols.request import Request

PIPE = 1 << 20
"""Bytes that the process is ahead of us, where the kernel lets it."""
AT_ONCE = 1 << 18
_MOST_SAID = 1 << 16

_log = Logger(namespace="hoody.containers")


class _Pipe(FileDescriptor):
    """The end of the process's stdout. Twisted's own reads 8 KiB at a time."""

    def __init__(
        self,
        reactor: Any,
        descriptor: int,
        came: Callable[[bytes], None],
        over: Callable[[], None],
    ) -> None:
        super().__init__(reactor)
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._came, self._over = came, over
        self.connected = True

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> Any:
        try:
            data = os.read(self._descriptor, AT_ONCE)
        except BlockingIOError:
            return None
        if not data:
            return CONNECTION_DONE
        self._came(data)
        return None

    def connectionLost(self, reason: object) -> None:
        if self._descriptor >= 0:
            self.stopReading()
            os.close(self._descriptor)
            self._descriptor = -1
            self._over()


@implementer(IPushProducer)
@define(eq=False)
class Outflow(ProcessProtocol):
    """
    Of one process. The head goes out with the first of what it says, so that one that fails at
    once can still be answered with an error.

    @ivar refusal: makes that of what the process said last on its stderr.
    @ivar heard: given each line of that as it comes.
    @ivar ended: fires when all is over; fails only where nothing has been answered.
    """

    _reactor: Any
    _request: Request
    _refusal: Callable[[bytes], Exception]
    _heard: Callable[[bytes], None] = field(default=lambda line: None)
    ended: Deferred[None] = field(init=False)
    _pipe: _Pipe | None = field(default=None, init=False)
    _said: bytes = field(default=b"", init=False)
    _line: bytes = field(default=b"", init=False)
    _status: int | None = field(default=None, init=False)
    _begun: bool = field(default=False, init=False)
    _gone: bool = field(default=False, init=False)

    def start(
        self, words: Sequence[str], given: bytes, environment: Mapping[str, str]
    ) -> Deferred[None]:
        """@param given: what it reads. @return: L{ended}; to cancel it ends the process."""
        self.ended = Deferred(lambda _: self.kill())
        self._request.attend()
        self._request.notifyFinish().addErrback(lambda _: self.kill())
        here, there = os.pipe2(os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):
                fcntl.fcntl(here, fcntl.F_SETPIPE_SZ, PIPE)
            self._pipe = _Pipe(self._reactor, here, self._came, self._over)
            process = self._reactor.spawnProcess(
                self,
                words[0],
                list(words),
                env={"PATH": os.environ.get("PATH", os.defpath), **environment},
                path="/",
                childFDs={0: "w", 1: there, 2: "r"},
            )
        except OSError as error:
            os.close(here)
            raise Unavailable(f"No process can be begun just now: {error.strerror}.") from error
        finally:
            os.close(there)
        self._pipe.startReading()
        process.writeToChild(0, given)
        process.closeChildFD(0)
        return self.ended

    @property
    def is_whole(self) -> bool:
        """Whether all that was to be said has been given to who reads."""
        return self._status == 0 and self._begun and not self._gone

    def kill(self) -> None:
        """Nobody listens."""
        self._gone = True
        if self.transport is not None:
            with contextlib.suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")
        if self._pipe is not None:
            self._pipe.connectionLost(None)

    def _came(self, data: bytes) -> None:
        if self._gone:
            return
        if not self._begun:
            self._begun = True
            self._request.registerProducer(self, True)
        self._request.write(data)

    def _over(self) -> None:
        self._pipe = None
        self._end()

    # ProcessProtocol

    def childDataReceived(self, number: int, data: bytes) -> None:
        self._said = (self._said + data)[-_MOST_SAID:]
        *lines, self._line = (self._line + data[-_MOST_SAID:]).split(b"\n")
        for line in lines:
            self._heard(line)

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        self._status = 0 if isinstance(value, ProcessDone) else 1
        self._end()

    def _end(self) -> None:
        """When it has ended, and all that it said has been heard."""
        if self._status is None or self._pipe is not None or self.ended.called:
            return
        if self._begun and not self._gone:
            self._request.unregisterProducer()
            if self._status == 0:
                self._request.finish()
            else:
                _log.error("an answer is broken off: {why}", why=self._refusal(self._said))
                self._request.break_off()
        if self._begun or self._gone:
            self.ended.callback(None)
        else:
            self.ended.errback(self._refusal(self._said))

    # IPushProducer

    def pauseProducing(self) -> None:
        if self._pipe is not None:
            self._pipe.stopReading()

    def resumeProducing(self) -> None:
        if self._pipe is not None:
            self._pipe.startReading()

    def stopProducing(self) -> None:
        self.kill()
