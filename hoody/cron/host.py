"""Commands that run on the server itself, as one of its users."""

from __future__ import annotations

import codecs
import contextlib
import os
import pwd
import signal
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from hoody.containers.commands import IN_ITS_HOME
from hoody.errors import CannotRun
from hoody.interfaces import ICommand
from hoody.later import in_thread

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOOK_UP_SECONDS = 30.0
"""How long a user is looked up."""
LAST_WORDS_SECONDS = 1.0
"""How long the output of one that has ended is still listened to: others may hold it open."""
LOOK_SECONDS = 0.05
"""How often it is looked whether one that was told to end has, with all that it has begun."""
_STREAMS = {1: "stdout", 2: "stderr"}


@implementer(ICommand)
@define(eq=False)
class HostCommand(ProcessProtocol):
    """
    The leader of a session, and so of a process group, of its own.

    @ivar hear: given the stream's name, and what came on it.
    """

    _reactor: Any
    _hear: Callable[[str, str], None]
    ended: Deferred[int] = field(factory=Deferred, init=False)
    _pid: int = field(default=0, init=False)
    _status: int | None = field(default=None, init=False)
    _late: IDelayedCall | None = field(default=None, init=False)
    _is_to_end: bool = field(default=False, init=False)
    _killed_at: float | None = field(default=None, init=False)
    _decoders: dict[int, codecs.IncrementalDecoder] = field(init=False)

    def __attrs_post_init__(self) -> None:
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = {number: make("replace") for number in _STREAMS}

    @classmethod
    async def begin(
        cls,
        reactor: Any,
        user: str,
        command: str,
        environment: dict[str, str],
        hear: Callable[[str, str], None],
    ) -> HostCommand:
        """
        As cron(8) runs one: in the user's home, with little in the environment.

        @raise CannotRun: if there is no such user, or we may not be them.
        """
        looking = in_thread(reactor, lambda: _words(user))
        looking.addTimeout(LOOK_UP_SECONDS, reactor)
        try:
            words, given = await looking
        except TimeoutError:
            raise CannotRun(f"It takes too long to find out who {user} is.") from None
        made = cls(reactor, hear)
        try:
            reactor.spawnProcess(made, words[0], [*words, command], env={**given, **environment})
        except OSError as error:  # no process, or no descriptor, is left
            raise CannotRun(f"The server cannot begin it: {error.strerror}.") from error
        return made

    # ICommand

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        if self._killed_at is None:
            self._killed_at = self._reactor.seconds()
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        self._is_to_end = True
        if self._pid and not self.ended.called:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, number)

    def _lives_on(self) -> bool:
        """Whether it has left somebody in its group; so long the group's number is its own."""
        with contextlib.suppress(ChildProcessError):
            # Those whom it has left behind are children of ours, see L{adopt_orphans}.
            while os.waitpid(-self._pid, os.WNOHANG)[0]:
                pass
        try:
            os.killpg(self._pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        now, killed = self._reactor.seconds(), self._killed_at
        return killed is None or now - killed < LAST_WORDS_SECONDS

    # ProcessProtocol

    def connectionMade(self) -> None:
        assert self.transport is not None
        self._pid = self.transport.pid  # it becomes its group's before it begins
        self.transport.closeStdin()

    def childDataReceived(self, number: int, data: bytes) -> None:
        text = self._decoders[number].decode(data)
        if text:
            self._hear(_STREAMS[number], text)

    def processExited(self, reason: Failure) -> None:
        assert self.transport is not None
        value: Any = reason.value
        self._status = -value.signal if value.signal is not None else value.exitCode or 0
        self._late = self._reactor.callLater(LAST_WORDS_SECONDS, self.transport.loseConnection)

    def processEnded(self, reason: Failure) -> None:
        if self._late is not None and self._late.active():
            self._late.cancel()
        for number, decoder in self._decoders.items():
            rest = decoder.decode(b"", final=True)
            if rest:
                self._hear(_STREAMS[number], rest)
        self._end()

    def _end(self) -> None:
        """It is over; if it was told to end, not before all that it has begun is."""
        if self._is_to_end and self._lives_on():
            self._reactor.callLater(LOOK_SECONDS, self._end)
            return
        assert self._status is not None
        self.ended.callback(self._status)


def _words(user: str) -> tuple[list[str], dict[str, str]]:
    """
    What runs a command as a user, but for the command itself; and what is in its environment.
    To be called from a thread of its own: who is there may be asked of a network that hangs.
    """
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise CannotRun(f"There is no user {user} on this server any more.") from None
    words = ["/usr/bin/setsid", "/bin/sh", "-c", IN_ITS_HOME, "sh"]
    if found.pw_uid != os.geteuid():
        if os.geteuid() != 0:
            raise CannotRun(f"The server does not run as root, and cannot run this as {user}.")
        ids = [f"--reuid={found.pw_uid}", f"--regid={found.pw_gid}", "--init-groups"]
        words = ["/usr/bin/setpriv", *ids, "--", *words]
    given = {"HOME": found.pw_dir, "LOGNAME": user, "USER": user, "SHELL": "/bin/sh", "PATH": PATH}
    return words, given
