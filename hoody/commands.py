"""Running other programs, without waiting for them in the reactor."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from hoody.pidfds import end_tree

MOST = 1 << 20
"""Bytes of each output that are kept."""
MOST_SAID = 500
"""Characters of what it said last that are told."""


class CommandFailed(Exception):
    """
    A program did not do it.

    @ivar program: its name.
    @ivar said: what it said of that, in one line; or that it took too long.
    """

    def __init__(self, program: str, said: str) -> None:
        super().__init__(f"{program}: {said}")
        self.program, self.said = program, said


@frozen
class Output:
    """@ivar status: the exit status; negative for the signal that ended it."""

    status: int
    out: bytes
    err: bytes


@define(eq=False)
class _Run(ProcessProtocol):
    _reactor: Any
    _given: bytes
    _line: Callable[[bytes], None] | None
    ended: Deferred[Output] = field(factory=Deferred, init=False)
    late: IDelayedCall | None = field(default=None, init=False)
    too_late: bool = field(default=False, init=False)
    _out: list[bytes] = field(factory=list, init=False)
    _err: list[bytes] = field(factory=list, init=False)
    _kept: int = field(default=0, init=False)
    _rest: bytes = field(default=b"", init=False)

    @property
    def _process(self) -> IProcessTransport:
        assert self.transport is not None
        return self.transport

    def connectionMade(self) -> None:
        if self._given:
            self._process.write(self._given)
        self._process.closeStdin()

    def outReceived(self, data: bytes) -> None:
        if self._line is None:
            self._keep(self._out, data)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)

    def errReceived(self, data: bytes) -> None:
        self._keep(self._err, data)

    def _keep(self, parts: list[bytes], data: bytes) -> None:
        if self._kept < MOST:
            parts.append(data)
            self._kept += len(data)

    def kill(self) -> None:
        """With all that it has begun; nothing more is heard of any of it."""
        self.too_late = True
        if self._process.pid:
            end_tree(self._reactor, self._process.pid)
        # Who has inherited the pipes, and escaped, is not waited for.
        self._process.loseConnection()

    def processEnded(self, reason: Failure) -> None:
        if self.late is not None and self.late.active():
            self.late.cancel()
        value: Any = reason.value
        status = 0 if isinstance(value, ProcessDone) else value.exitCode
        if status is None:
            status = -(value.signal or 1)
        self.ended.callback(Output(status, b"".join(self._out), b"".join(self._err)))


async def run(
    reactor: Any,
    words: Sequence[str],
    *,
    given: bytes = b"",
    seconds: float,
    environment: Mapping[str, str] | None = None,
    each_line: Callable[[bytes], None] | None = None,
    well: bool = True,
) -> Output:
    """
    Run a program to its end.

    @param given: what it reads.
    @param seconds: how long it may take; then it is killed, with what it has begun.
    @param each_line: given each line that it says, which is not kept then.
    @param well: whether anything but status 0 is an error.
    @raise CommandFailed: if it was too late, or could not be run, or failed.
    """
    process = _Run(reactor, given, each_line)
    name = os.path.basename(words[0])
    variables = {"PATH": os.environ.get("PATH", os.defpath), **(environment or {})}
    try:
        reactor.spawnProcess(process, words[0], list(words), env=variables, path="/")
    except OSError as error:
        raise CommandFailed(name, str(error.strerror)) from error
    process.late = reactor.callLater(seconds, process.kill)
    try:
        output = await process.ended
    except CancelledError:
        process.kill()
        raise
    if process.too_late:
        raise CommandFailed(name, f"it took more than {seconds:g} s")
    if well and output.status != 0:
        raise CommandFailed(name, last_line(output.err) or _how_it_ended(output.status))
    return output


def _how_it_ended(status: int) -> str:
    return f"signal {-status} ended it" if status < 0 else f"it ended with {status}"


def last_line(text: bytes) -> str:
    """Where programs say what went wrong."""
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return speakable(lines[-1]) if lines else ""


def speakable(text: str) -> str:
    """What a program says, as a part of a sentence of ours: short, and nothing but letters."""
    letters = "".join(each if each.isprintable() else " " for each in text[:MOST_SAID])
    return " ".join(letters.split())
