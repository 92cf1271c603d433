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
from time import monotonic

import psycopg2
from attrs import define, field
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody.errors import DatabaseAway
from hoody.pidfds import Ended
from hoody.store.cluster import Answer, Cluster
from hoody.store.links import first_line, in_words

_READY_SECONDS = 60
_STOPPING = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 5.0))
_ADOPT_SECONDS = 5
_RESTART_SECONDS = (0.1, 0.5, 1, 2, 5, 10)

_log = Logger(namespace="hoody.postgres")


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
    _starts: DeferredLock = field(factory=DeferredLock, init=False)
    _stopping: bool = field(default=False, init=False)
    _ended: list[Deferred[None]] = field(factory=list, init=False)
    _failures: int = field(default=0, init=False)
    _reviving: IDelayedCall | None = field(default=None, init=False)

    @property
    def dsn(self) -> str:
        return self.cluster.dsn()

    @property
    def pg_dump(self) -> str:
        return self.cluster.programs().path("pg_dump")

    async def start(self) -> None:
        """
        Have it running, and answering. From then on it is kept so. It may be called
        again whenever it does not seem to be so.

        @raise DatabaseAway: if it cannot be.
        """
        await self._starts.acquire()
        try:
            if self.pid is None:
                await self._bring_up()
            await self._until_ready()
            await deferToThread(self.cluster.furnish)
        except (OSError, subprocess.SubprocessError, psycopg2.Error) as error:
            raise DatabaseAway(in_words(error)) from error
        finally:
            self._starts.release()
        self._failures = 0

    async def _bring_up(self) -> None:
        self._check()
        found, user = await deferToThread(self.cluster.prepare)
        pid = await deferToThread(self.cluster.running)
        if pid is not None:
            if await deferToThread(self.cluster.answers, _ADOPT_SECONDS) is not Answer.NONE:
                _log.info("adopted the Postgres that was left running, pid {pid}", pid=pid)
                self._keep(pid, None)
                return
            _log.warn("Postgres {pid} runs but does not answer; ending it", pid=pid)
            await deferToThread(self.cluster.end, pid)
        self._check()
        process = await deferToThread(self.cluster.launch, found, user)
        _log.info("Postgres {major} starts, pid {pid}", major=found.major, pid=process.pid)
        self._keep(process.pid, process)

    def _check(self) -> None:
        if self._stopping:
            raise DatabaseAway("the server is stopping")

    async def _until_ready(self) -> None:
        late = monotonic() + _READY_SECONDS
        while await deferToThread(self.cluster.answers, 0.5) is not Answer.READY:
            self._check()
            if self.pid is None or monotonic() > late:
                raise DatabaseAway(
                    f"Postgres does not start; {self.cluster.data_dir}/postgres.log says why"
                )

    async def look(self) -> None:
        """End one that lives and does not answer; then it is started again."""
        pid = self.pid
        if pid is None or self._starts.locked or self._stopping:
            return
        answer = await deferToThread(self.cluster.answers, _ADOPT_SECONDS)
        if answer is Answer.NONE and self.pid == pid:
            _log.error("Postgres {pid} does not answer any more; ending it", pid=pid)
            await deferToThread(self.cluster.end, pid)

    def _keep(self, pid: int, process: subprocess.Popen[bytes] | None) -> None:
        try:
            Ended.watch(self._reactor, pid, self._has_ended)
        except ProcessLookupError as error:
            if process is not None:
                process.wait()
            raise DatabaseAway("Postgres has ended as soon as it was started") from error
        self.pid, self._process = pid, process

    def _has_ended(self) -> None:
        if self._process is not None:
            self._process.wait()  # it has ended: this does not block
        pid, self.pid, self._process = self.pid, None, None
        ended, self._ended = self._ended, []
        for done in ended:
            done.callback(None)
        if not (self._stopping or self._starts.locked):
            _log.error("Postgres {pid} has ended; starting it again", pid=pid)
            self._revive()

    def _revive(self) -> None:
        if self._reviving is not None:
            return
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
        await self._starts.acquire()  # what a thread is about to start is ours to end
        for number, seconds in _STOPPING:
            if self.pid is None:
                break
            done: Deferred[None] = Deferred(self._ended.remove)
            self._ended.append(done)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
            with contextlib.suppress(Exception):
                await done.addTimeout(seconds, self._reactor)
        await deferToThread(self.cluster.tidy)
        self._starts.release()
