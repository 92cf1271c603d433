"""
A Postgres of our own, under the data directory: made, started, adopted, stopped.

It is reached by a unix socket alone, runs as an unprivileged user when we are root,
and outlives us only if we are killed; the next start then adopts it.

What blocks runs in threads; that it ended is told by a pidfd (pidfd_open(2)), whether
it is our child or not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import psycopg2
from attrs import define, field
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from zope.interface import implementer

from hoody.errors import DatabaseAway
from hoody.sleeping import sleep
from hoody.store.cluster import Cluster
from hoody.store.links import first_line

_READY_SECONDS = 60
_STOP_SECONDS = 20
_ADOPT_SECONDS = 5
_RESTART_SECONDS = (0.1, 0.5, 1, 2, 5, 10)

_log = Logger(namespace="hoody.postgres")


@implementer(IReadDescriptor)
@define(eq=False)
class Ended:
    """Tells when a process ends, by its pidfd."""

    _reactor: Any
    _told: Callable[[], None]
    _descriptor: int

    @classmethod
    def watch(cls, reactor: Any, pid: int, told: Callable[[], None]) -> Ended:
        """@raise ProcessLookupError: if it has ended already."""
        watch = cls(reactor, told, os.pidfd_open(pid))
        reactor.addReader(watch)
        return watch

    def cancel(self) -> None:
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> None:
        self.cancel()
        self._told()

    def connectionLost(self, reason: object) -> None:
        self.cancel()

    def logPrefix(self) -> str:
        return "pidfd"


@define(eq=False)
class EmbeddedPostgres:
    """
    Keeps one running.

    @ivar pid: of the postmaster, or C{None} while there is none.
    """

    _reactor: ReactorBase
    cluster: Cluster
    pid: int | None = field(default=None, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _watch: Ended | None = field(default=None, init=False)
    _starting: bool = field(default=False, init=False)
    _stopping: bool = field(default=False, init=False)
    _ended: list[Deferred[None]] = field(factory=list, init=False)
    _failures: int = field(default=0, init=False)
    _reviving: Any = field(default=None, init=False)

    @property
    def dsn(self) -> str:
        return self.cluster.dsn()

    @property
    def pg_dump(self) -> str:
        return self.cluster.programs().path("pg_dump")

    async def start(self) -> None:
        """
        Have it running, and answering. From then on it is kept so.

        @raise DatabaseAway: if it cannot be.
        """
        if self._stopping:
            raise DatabaseAway("the server is stopping")
        self._starting = True
        try:
            found, user = await deferToThread(self.cluster.prepare)
            pid = await deferToThread(self.cluster.running)
            if self._stopping and pid is None:
                raise DatabaseAway("the server is stopping")
            if pid is not None and await deferToThread(self.cluster.answers, _ADOPT_SECONDS):
                _log.info("adopted the Postgres that was left running, pid {pid}", pid=pid)
                self._keep(pid, None)
            else:
                if pid is not None:
                    _log.warn("Postgres {pid} runs but does not answer; ending it", pid=pid)
                    await deferToThread(self.cluster.end, pid)
                process = await deferToThread(self.cluster.launch, found, user)
                _log.info("Postgres {major} starts, pid {pid}", major=found.major, pid=process.pid)
                self._keep(process.pid, process)
                await self._answers()
            await deferToThread(self.cluster.furnish)
        except (OSError, subprocess.SubprocessError, psycopg2.Error) as error:
            raise DatabaseAway(first_line(error)) from error
        finally:
            self._starting = False
        self._failures = 0

    async def _answers(self) -> None:
        late = self._reactor.seconds() + _READY_SECONDS
        while not await deferToThread(self.cluster.answers, 0.5):
            if self._stopping or self.pid is None or self._reactor.seconds() > late:
                raise DatabaseAway(
                    f"Postgres does not start; {self.cluster.data_dir}/postgres.log says why"
                )

    def _keep(self, pid: int, process: subprocess.Popen[bytes] | None) -> None:
        self.pid, self._process = pid, process
        self._watch = Ended.watch(self._reactor, pid, self._has_ended)

    def _has_ended(self) -> None:
        if self._process is not None:
            self._process.wait()  # it has ended: this does not block
        pid, self.pid, self._process, self._watch = self.pid, None, None, None
        ended, self._ended = self._ended, []
        for done in ended:
            done.callback(None)
        if not (self._stopping or self._starting):
            _log.error("Postgres {pid} has ended; starting it again", pid=pid)
            self._revive()

    def _revive(self) -> None:
        pause = _RESTART_SECONDS[min(self._failures, len(_RESTART_SECONDS) - 1)]
        self._failures += 1
        self._reviving = self._reactor.callLater(pause, lambda: ensureDeferred(self._try_again()))

    async def _try_again(self) -> None:
        self._reviving = None
        failures = self._failures
        try:
            await self.start()
        except Exception as error:
            _log.error("Postgres does not start: {reason}", reason=first_line(error))
            if self.pid is None and not self._stopping:
                self._failures = failures
                self._revive()

    async def stop(self) -> None:
        """Stop it, cleanly if it lets us (its "fast shutdown"); nobody is connected any more."""
        self._stopping = True
        if self._reviving is not None:
            self._reviving.cancel()
            self._reviving = None
        while self._starting:
            await sleep(self._reactor, 0.02)  # what a thread is about to start is ours to end
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if self.pid is None:
                return
            done: Deferred[None] = Deferred(lambda done: self._ended.remove(done))
            self._ended.append(done)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
            with contextlib.suppress(Exception):
                await done.addTimeout(_STOP_SECONDS, self._reactor)
