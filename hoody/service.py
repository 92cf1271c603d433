"""
The composition root: who is wired to whom, started in order, drained in order.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.address import UNIXAddress
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IReactorFDSet
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from zope.interface import implementer

from hoody import __version__, logs
from hoody.blocking import BlockingWatch
from hoody.interfaces import IPipeObserver
from hoody.pipes.caps import Caps
from hoody.pipes.fanout import Fanout
from hoody.pipes.meeting import MoverFactory, Patience, Report
from hoody.pipes.rendezvous import Rendezvous
from hoody.protocols import kernelpipes
from hoody.protocols.hangups import Hangups
from hoody.protocols.kernelpipes import KernelPipes
from hoody.protocols.site import Site
from hoody.protocols.splicing import Splicing
from hoody.resources import failures, pages
from hoody.resources.health import Health, open_descriptors
from hoody.resources.pipe import PipeFace
from hoody.resources.root import Root
from hoody.settings import Settings, declared, flag, mask

RESERVED_DESCRIPTORS = 32
"""Kept from connections: for logs, subprocesses, and the answer that none is left."""

_log = Logger(namespace="hoody")


@implementer(IPipeObserver)
class PipeLog:
    """Says in the log how transfers go."""

    def started(self, path: str) -> None:
        """Its end says it all."""

    def ended(self, report: Report) -> None:
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


class Hoody(Service):
    """
    The server.

    @ivar site: the HTTP side, for tests that look inside.
    @ivar rendezvous: the pipes.
    """

    name = "hoody"

    def __init__(self, reactor: ReactorBase, settings: Settings) -> None:
        self._reactor = reactor
        self._settings = settings
        self._ports: list[IListeningPort] = []
        self._signals = Signals(reactor, self.cut)
        self._kernel_pipes = KernelPipes(kernelpipes.MEMORY, 0)
        self._splices = False
        self._blocking: BlockingWatch | None = None
        self._last_words = 2.0
        self.rendezvous = Rendezvous(
            clock=reactor,
            patience=Patience(
                ttl=settings.pipe_ttl, form=settings.form_timeout, note=settings.waiting_note
            ),
            caps=Caps(
                max_waiting=settings.max_waiting,
                max_waiting_per_address=settings.max_waiting_per_address,
                max_running=settings.max_running,
            ),
            observer=PipeLog(),
            make_mover=self._make_movers(),
        )
        self.site = self._make_site()

    def _make_movers(self) -> MoverFactory:
        threshold = self._settings.splice
        if threshold is None:
            return Fanout.between
        lack = kernelpipes.lack()
        if lack is not None:
            _log.info("the kernel moves no bytes by itself here: {lack}", lack=lack)
            return Fanout.between
        self._splices = True
        return Splicing(self._kernel_pipes, threshold).between

    def _make_site(self) -> Site:
        settings = self._settings
        health = Health(time.time(), {"pipes": self._pipes_part, "reactor": self._reactor_part})
        root = Root(
            domain=settings.domain,
            pipe=PipeFace(
                rendezvous=self.rendezvous,
                needs_token=settings.pipe_auth == "token",
                private_network=settings.private_network,
            ),
            pipe_pages=pages.pipe_pages(health.report, ttl=settings.pipe_ttl),
            server_pages=pages.server_pages(health.report),
        )
        return Site(
            root,
            reactor=self._reactor,
            hangups=Hangups(IReactorFDSet(self._reactor)),
            refuse=failures.refuse_connection,
            access=logs.log_access,
            server_name=f"hoody/{__version__}".encode(),
            head_timeout=settings.head_timeout,
            idle_timeout=settings.idle_timeout,
            peer_timeout=settings.peer_timeout,
        )

    def _pipes_part(self) -> dict[str, object]:
        return {
            "status": "ok",
            "paths": self.rendezvous.paths,
            "transfers": self.rendezvous.transfers,
            "waiting": self.rendezvous.caps.waiting,
            "running": self.rendezvous.caps.running,
            "kernel_pipes": self._kernel_pipes.open,
        }

    def _reactor_part(self) -> dict[str, object]:
        return {
            "status": "ok",
            "timers": len(self._reactor.getDelayedCalls()),
            "connections": len(self.site.connections),
        }

    # IService

    def setServiceParent(self, parent: object) -> None:
        """Have twistd log in our way."""
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, logs.observer(self._settings.log_format))
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Say what was chosen, and make the data directory, before anything else."""
        for attribute in declared():
            value = mask(attribute.name, getattr(self._settings, attribute.name))
            _log.info("setting {name}={value}", name=flag(attribute), value=value)
        os.makedirs(self._settings.data_dir, mode=0o711, exist_ok=True)

    def startService(self) -> None:
        super().startService()
        self._share_descriptors(raise_descriptor_limit())
        if self._settings.debug_blocking:
            self._blocking = BlockingWatch(self._reactor, self._settings.debug_blocking)
            self._blocking.start()
        self._reactor.callWhenRunning(self._signals.install)
        ensureDeferred(self._listen()).addErrback(self._give_up)

    def _share_descriptors(self, limit: int) -> None:
        """Connections get what is left by what is open, kept, and by kernel pipes."""
        pipes = min(kernelpipes.MEMORY // kernelpipes.LEAST, limit // 16) if self._splices else 0
        self._kernel_pipes.pipes = pipes
        taken = open_descriptors() + RESERVED_DESCRIPTORS + 2 * pipes
        self.site.max_connections = limit - taken

    async def _listen(self) -> None:
        for text in self._settings.listen:
            endpoint = serverFromString(self._reactor, text)
            port = await endpoint.listen(self.site)
            self._ports.append(port)
            address = port.getHost()
            if isinstance(address, UNIXAddress):
                _log.info("listening on {path}", path=os.fsdecode(address.name or b""))
            else:
                _log.info("listening on {host}:{port}", host=address.host, port=address.port)

    def _give_up(self, failure: Failure) -> None:
        _log.critical("cannot listen: {reason}; choose another --listen", reason=failure.value)
        # Twisted knows no other way to end with a status than to do it last.
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self._reactor.callWhenRunning(self._reactor.stop)

    def stopService(self) -> Deferred[None]:
        """
        Drain: no new pipes, and those that run may end within C{--drain}.

        @return: fires when nothing runs any more.
        """
        super().stopService()
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        running = self.rendezvous.caps.running
        if running:
            _log.info(
                "{running} pipe(s) may run for {drain} s more; signal again to cut them",
                running=running,
                drain=self._settings.drain,
            )
        drained = self.rendezvous.drain()
        late = self._reactor.callLater(self._settings.drain, self.cut)
        await drained
        if late.active():
            late.cancel()
        if self._blocking is not None:
            self._blocking.stop()
        await gatherResults([maybeDeferred(port.stopListening) for port in self._ports])
        await self._say_goodbye()
        self._signals.restore()

    def cut(self) -> None:
        """End everything that runs, now."""
        self._last_words = 0.2
        _log.info("cutting {running} pipe(s)", running=self.rendezvous.caps.running)
        self.rendezvous.cut()

    async def _say_goodbye(self) -> None:
        """Close what is still open, and let last words go out, but not for long."""
        for channel in tuple(self.site.connections):
            channel.loseConnection()
        late = self._reactor.seconds() + self._last_words
        while self.site.connections and self._reactor.seconds() < late:
            await pause(self._reactor, 0.05)


async def pause(reactor: ReactorBase, seconds: float) -> None:
    """Come back later."""
    done: Deferred[None] = Deferred()
    reactor.callLater(seconds, done.callback, None)
    await done


Handler = Callable[[int, FrameType | None], Any] | int | None


@define
class Signals:
    """
    SIGTERM and SIGINT: the first does what Twisted does, which is to stop the
    services; Twisted has no use for a second one, we have.
    """

    _reactor: ReactorBase
    _again: Callable[[], None]
    _former: dict[int, Handler] = field(factory=dict, init=False)

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._former[number] = signal.getsignal(number)
            signal.signal(number, self._take)

    def restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    def _take(self, number: int, frame: FrameType | None) -> None:
        former = self._former.get(number)
        if self._reactor._stopped:
            self._reactor.callFromThread(self._again)
        elif callable(former):
            former(number, frame)


def raise_descriptor_limit() -> int:
    """Take as many file descriptors as we may have; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
