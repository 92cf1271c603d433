"""
Which transfers run: should this process be killed, the next one tells of their end.

They are put down now and then, so what is told is how far they had come a little before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

import msgspec
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody.pipes.meeting import Report, Running

EVERY = 5.0
"""Seconds between two looks."""
LEAST = 1.0
"""Seconds that a transfer has run for before it is put down."""
ERROR = "The server was killed while it ran; this is how far it had come shortly before."

_log = Logger(namespace="hoody.audit")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer that ran at the time C{seen}, as seconds since the epoch."""

    path: str
    receivers: int
    delivered: int
    total: int | None
    started: float
    seen: float

    @property
    def report(self) -> Report:
        return Report(
            path=self.path,
            receivers=self.receivers,
            delivered=self.delivered,
            spliced=0,
            total=self.total,
            started=self.started,
            ended=self.seen,
            digest=None,
            error=ERROR,
        )


@define(eq=False)
class Unfinished:
    """
    @ivar file: where they are put down.
    @ivar running: what runs, by its path.
    """

    file: str
    _clock: IReactorTime
    running: Callable[[], Iterable[tuple[str, Running]]]
    _putting: Deferred[None] | None = field(default=None, init=False)
    _is_there: bool = field(default=False, init=False)
    _call: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._call = LoopingCall(self._look)
        self._call.clock = self._clock

    def left_over(self) -> list[Entry]:
        """Those that an earlier process was killed with; L{start} forgets them."""
        try:
            with open(self.file, "rb") as file:
                return msgspec.json.decode(file.read(), type=list[Entry])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as error:
            _log.error("what ran before cannot be told: {error}", error=error)
            return []

    def start(self) -> None:
        self._forget()
        self._call.start(EVERY, now=False)

    async def stop(self) -> None:
        """Nothing runs any more."""
        if self._call.running:
            self._call.stop()
        if self._putting is not None:
            await self._putting
        self._forget()

    def _look(self) -> Deferred[None] | None:
        now = self._clock.seconds()
        entries = [
            Entry(
                path=path,
                receivers=running.wanted,
                delivered=running.delivered,
                total=running.total,
                started=running.started,
                seen=now,
            )
            for path, running in self.running()
            if now - running.started >= LEAST
        ]
        if not entries and not self._is_there:
            return None
        self._is_there = bool(entries)
        self._putting = deferToThread(self._put_down, entries).addErrback(_cannot)
        return self._putting

    def _put_down(self, entries: list[Entry]) -> None:
        """Runs in a thread."""
        if not entries:
            self._forget()
            return
        fresh = f"{self.file}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.encode(entries))
        os.replace(fresh, self.file)

    def _forget(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.file)


def _cannot(failure: object) -> None:
    _log.error("what runs cannot be put down: {failure}", failure=failure)
