"""Says how transfers go: in the log, in the metrics, in the audit, and to spectators."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from attrs import frozen
from twisted.logger import Logger
from zope.interface import implementer

from hoody import logs
from hoody.audit.events import Event
from hoody.audit.journal import Journal
from hoody.audit.unfinished import Entry
from hoody.interfaces import IPipeObserver
from hoody.metrics import Metrics
from hoody.pipes.meeting import Gathered, Report, Running
from hoody.pipes.watching import Watches, result_of
from hoody.units import moment

ACTOR = "request"

_log = Logger(namespace="hoody")


@implementer(IPipeObserver)
@frozen(eq=False)
class Witness:
    _journal: Journal
    _metrics: Metrics
    _watches: Watches

    def changed(self, path: str, source: Gathered | Running) -> None:
        self._show(self._watches.changed, path, source)

    def started(self, path: str, running: Running) -> None:
        self._show(self._watches.started, path, running)

    def _show(self, tell: Callable[..., None], *what: object) -> None:
        """Spectators are never in the way of a transfer, whatever is wrong with them."""
        try:
            tell(*what)
        except Exception:
            _log.failure("spectators could not be told")

    def was_killed(self, entry: Entry) -> None:
        """
        It seems to have run when an earlier process was killed. If it ended just before,
        that was told, under the same key, and stands.
        """
        self._journal.add(event_of(entry.report))
        self._watches.kept.presume(result_of(entry.report))

    def ended(self, report: Report, running: Running) -> None:
        _say(report)
        self._metrics.pipe_is_over(
            failed=report.error is not None, delivered=report.delivered, spliced=report.spliced
        )
        self._journal.add(event_of(report))
        self._show(self._watches.ended, report, running)


def _say(report: Report) -> None:
    outcome = "failed after" if report.error else "moved"
    spliced = f" ({report.spliced} spliced)" if report.spliced else ""
    seconds = round(report.ended - report.started, 3)
    logs.say(
        _log,
        f"pipe {report.path!r} {outcome} {report.delivered} bytes{spliced} to"
        f" {report.receivers} receiver(s) in {seconds} s",
        path=report.path,
        outcome=outcome,
        bytes=report.delivered,
        spliced=report.spliced,
        receivers=report.receivers,
        seconds=seconds,
        error=report.error,
    )


def event_of(report: Report) -> Event:
    """A transfer's end as the audit has it; it is told once, however often we come to it."""
    return Event(
        key=hashlib.sha256(f"{report.started} {report.path}".encode()).hexdigest()[:24],
        ts=moment(report.ended),
        event_type="pipe.failed" if report.error else "pipe.completed",
        actor=ACTOR,
        resource_type="pipe",
        resource_id=report.path,
        data={
            "bytes": report.delivered,
            "total_bytes": report.total,
            "receivers": report.receivers,
            "digest": f"sha256:{report.digest.hex()}" if report.digest else None,
            "error": report.error,
        },
        duration_ms=round((report.ended - report.started) * 1000, 3),
    )
