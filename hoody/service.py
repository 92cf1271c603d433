"""
The composition root: who is wired to whom, started in order, drained in order.
"""

from __future__ import annotations

import gc
import ipaddress
import os
import socket
import sys
import time
from collections.abc import Callable
from functools import partial

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReactorFDSet
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from hoody import __version__, logs
from hoody.audit.events import Event
from hoody.audit.feed import Feed
from hoody.audit.journal import Journal
from hoody.audit.results import result_of
from hoody.audit.retention import Retention
from hoody.audit.spool import Spool
from hoody.audit.unfinished import Unfinished
from hoody.audit.witness import Witness
from hoody.auth.keyring import Keyring
from hoody.auth.suspects import Suspects
from hoody.blocking import BlockingWatch
from hoody.clock import ClockWatch
from hoody.containers.assembly import STATE, make_fleet
from hoody.containers.destinations import Destinations
from hoody.containers.elsewhere import Elsewhere
from hoody.cron.crontabs import Crontabs
from hoody.cron.entries import Entries
from hoody.cron.looking import Looking as CronLooking
from hoody.cron.places import Places
from hoody.cron.runs import Runs
from hoody.cron.scheduler import Scheduler
from hoody.cron.users import Users
from hoody.errors import DatabaseAway
from hoody.later import sleep
from hoody.metrics import Metrics
from hoody.orphans import Orphans
from hoody.pipes.caps import Caps
from hoody.pipes.fanout import Fanout
from hoody.pipes.meeting import MoverFactory, Patience
from hoody.pipes.rendezvous import Rendezvous
from hoody.pipes.results import Kept
from hoody.pipes.watching import Watches
from hoody.process import (
    DataDir,
    DataDirTaken,
    Descriptors,
    Signals,
    adopt_orphans,
    raise_descriptor_limit,
    say_to_operator,
)
from hoody.projects import ensure_default
from hoody.protocols import kernelpipes
from hoody.protocols.hangups import Hangups
from hoody.protocols.kernelpipes import KernelPipes
from hoody.protocols.relaying import Relaying
from hoody.protocols.site import Site
from hoody.protocols.splicing import Splicing
from hoody.resources import failures, pages
from hoody.resources.api.catalogue import catalogue
from hoody.resources.api.containers import ContainersFace
from hoody.resources.api.cron import CronFace
from hoody.resources.api.events import EventsFace
from hoody.resources.api.images import ImagesFace
from hoody.resources.api.inside import InsideFace
from hoody.resources.api.ledger import LedgerFace
from hoody.resources.api.moving import MovingFace
from hoody.resources.api.operations import Operation
from hoody.resources.api.snapshots import SnapshotsFace
from hoody.resources.doors import Doors
from hoody.resources.gateway import GatewayFace
from hoody.resources.guard import Guard, PipeGuard
from hoody.resources.health import Health
from hoody.resources.pipe import PipeFace
from hoody.resources.progress import ProgressFace, encode
from hoody.resources.root import Root, containers_suffix, witness_request
from hoody.resources.upload import Uploads
from hoody.settings import Settings, declared, flag, mask
from hoody.snapshots import upkeep
from hoody.snapshots.catalogue import Catalogue
from hoody.snapshots.looking import Looking
from hoody.snapshots.moving import Moving
from hoody.snapshots.reading import Reading
from hoody.snapshots.sweep import Sweep
from hoody.snapshots.taking import Taking
from hoody.snapshots.upkeep import Upkeep
from hoody.store import databases
from hoody.store.migrations import SchemaRefused
from hoody.store.postgres import EVENTS
from hoody.units import moment, new_id

FIRST_START_SECONDS = 120.0
"""How long the first start waits for a database of our own, which has to be made."""
START_SECONDS = 3.0
"""How long any other does, before it serves without it."""

_log = Logger(namespace="hoody")


class Hoody(Service):
    """
    The server.

    @ivar site: the HTTP side, for tests that look inside.
    @ivar rendezvous: the pipes.
    @ivar clock: who measures durations from moments is told by it when it was set.
    """

    name = "hoody"

    def __init__(self, reactor: ReactorBase, settings: Settings) -> None:
        self._reactor = reactor
        self._settings = settings
        self.clock = ClockWatch(reactor)
        self._ports: list[IListeningPort] = []
        self._signals = Signals(reactor, self.cut)
        self._data_dir = DataDir(settings.data_dir)
        self._kernel_pipes = KernelPipes(kernelpipes.MEMORY, 0)
        self._descriptors = Descriptors(lambda: 2 * self._kernel_pipes.pipes)
        self._splices = False
        self._blocking: BlockingWatch | None = None
        self._last_words = 2.0
        self._hopeless = False
        self._name = socket.gethostname()
        self.database = databases.make(
            reactor, settings, self._data_dir, furnish=self._furnish, refused=self._refused
        )
        self._keyring = Keyring(self.database, reactor)
        self._fleet = make_fleet(reactor, settings, self._data_dir, self.database)
        self._fleet.has_room = self._descriptors.is_for_containers
        self._reading = reading = Reading(reactor, self._fleet.states, self._fleet.is_deleting)
        self._fleet.deleting = reading.end
        self._catalogue = Catalogue(reactor, self.database, self._fleet)
        self._taking = Taking(reactor, self.database, self._catalogue, reading)
        self._sweep = Sweep(reactor, self._fleet, reading)
        every = min(upkeep.EVERY, settings.sweep)
        self._upkeep = Upkeep(reactor, self._catalogue, self._taking, self._sweep, every)
        self._feed = Feed()
        self._journal = Journal(self.database, reactor, Spool(self._data_dir.journal), self._learn)
        self._retention = Retention(
            self.database,
            reactor,
            settings.event_retention,
            settings.result_retention,
            settings.run_retention,
            settings.sweep,
        )
        self._runs = Runs(
            reactor,
            self.database,
            self._keyring,
            Places(self._fleet, self._own_url),
            settings.cron_runs,
            settings.cron_retry,
        )
        self._scheduler = Scheduler(reactor, self.database, self._runs)
        self._orphans = Orphans(reactor, self._fleet.pids)
        self._metrics = Metrics(reactor)
        self._watches = Watches(
            clock=reactor,
            encode=encode,
            on_path=lambda path: self.rendezvous.on_path(path),
            kept=Kept(settings.result_retention),
            max_spectators=settings.max_spectators,
            max_paths=settings.max_watched_paths,
        )
        self._witness = Witness(self._journal, self._metrics, self._watches)
        self._unfinished = Unfinished(
            self._data_dir.unfinished, reactor, lambda: self.rendezvous.running()
        )
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
            observer=self._witness,
            make_mover=self._make_movers(),
        )
        guard = Guard(self._keyring, Suspects(settings.wrong_tokens))
        pipe_guard = PipeGuard(guard, is_open=settings.pipe_auth != "token")
        self._gateway = GatewayFace(
            destinations=Destinations(self._fleet, Elsewhere(self.database, reactor)),
            doors=Doors(guard),
            clock=reactor,
            suffix=containers_suffix(settings.domain.encode()),
            relaying=self._make_relaying(),
            probes=settings.probes,
        )
        self._images = ImagesFace(
            self.database, self._fleet, self._fleet.workshop, settings.registries
        )
        self._events = EventsFace(self.database, self._feed, guard, reactor)
        self._progress = ProgressFace(
            self._watches,
            self.database,
            reactor,
            pipe_guard,
            settings.watch_window,
            settings.embed_in,
        )
        self.site = self._make_site(guard, pipe_guard)
        self._fleet.network.serve = self.site.serve_door
        self._fleet.woke = self._metrics.container_woke
        self._metrics.readings.append(self._readings)
        self.database.observe(EVENTS, self._feed.changed)
        self._keyring.follow()
        self._keyring.changed = self._feed.changed  # who follows may no longer
        self.clock.jumped += [
            self._fleet.jumped,
            self._metrics.jumped,
            self._watches.jumped,
            self._runs.jumped,
            self._scheduler.jumped,
        ]

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

    def _make_relaying(self) -> Relaying | None:
        if not self._splices or self._settings.splice is None:
            return None
        return Relaying(self._kernel_pipes, self._settings.splice)

    def _make_site(self, guard: Guard, pipe_guard: PipeGuard) -> Site:
        settings = self._settings
        containers = ContainersFace(
            self.database, self._fleet, self._catalogue, settings.domain, self._name
        )
        moving = MovingFace(
            self.database,
            self._catalogue,
            Moving(self._reactor, self.database, self._catalogue, self._reading),
            containers,
            guard,
        )
        operations = self._operations(containers, moving)
        uploads = Uploads(guard, self._fleet, self._fleet.workshop, self._images.row_of)
        health = Health(
            time.time(),
            {
                "pipes": self._pipes_part,
                "reactor": self._reactor_part,
                "database": self.database.part,
                "containers": self._fleet.part,
            },
        )
        root = Root(
            domain=settings.domain,
            pipe=PipeFace(
                rendezvous=self.rendezvous,
                guard=pipe_guard,
                private_network=settings.private_network,
            ),
            pipe_pages=pages.pipe_pages(
                health.report,
                ttl=settings.pipe_ttl,
                guard=pipe_guard,
                progress=self._progress,
            ),
            server_pages=pages.server_pages(
                health.report,
                metrics=self._metrics.page,
                guard=guard,
                needs_token=bool(settings.public_listeners),
                operations=operations,
            ),
            cron_pages=pages.cron_pages(
                health.report, guard=guard, operations=[each for each in operations if each.bare]
            ),
            gateway=self._gateway,
            guard=guard,
            uploads=(uploads.claim, moving.claim),
        )
        return Site(
            root,
            reactor=self._reactor,
            hangups=Hangups(IReactorFDSet(self._reactor)),
            refuse=failures.refuse_connection,
            has_room=self._descriptors.is_for_clients,
            access=partial(witness_request, self._metrics, settings.domain.encode()),
            server_name=f"hoody/{__version__}".encode(),
            head_timeout=settings.head_timeout,
            idle_timeout=settings.idle_timeout,
            peer_timeout=settings.peer_timeout,
            stream_timeout=settings.stream_timeout,
        )

    def _operations(self, containers: ContainersFace, moving: MovingFace) -> list[Operation]:
        return catalogue(
            self.database,
            self._keyring,
            self._events,
            containers,
            InsideFace(self.database, self._fleet, containers),
            SnapshotsFace(
                self.database,
                self._catalogue,
                self._taking,
                Looking(self._catalogue, self._taking, self._reading),
                containers,
            ),
            moving,
            self._images,
            LedgerFace(self._fleet, self._sweep.saved_by, self._settings.domain),
            self._cron_face(),
        )

    def _cron_face(self) -> CronFace:
        entries = Entries(
            self.database,
            self._reactor,
            Users(self._fleet),
            self._scheduler,
            lambda: self._fleet.server_id,
        )
        suffix = containers_suffix(self._settings.domain.encode())
        looking = CronLooking(self.database, self._reactor)
        return CronFace(entries, looking, Crontabs(entries), suffix)

    def _readings(self) -> dict[str, float | dict[str, float]]:
        caps, pool = self.rendezvous.caps, self.database.pool
        return {
            "pipes_waiting": caps.waiting,
            "pipes_running": caps.running,
            "pipes_paths": self.rendezvous.paths,
            "kernel_pipes_open": self._kernel_pipes.open,
            "connections": len(self.site.connections),
            "database_up": self.database.problem is None,
            "database_connections": len(pool.links),
            "database_connections_busy": pool.busy,
            "database_waiting": pool.waiting,
            "events_waiting": self._journal.waiting,
            "events_lost": self._journal.lost,
            "cron_runs_running": self._runs.running,
            "cron_runs_waiting": len(self._runs.going) - self._runs.running,
            "followers": self._events.followers,
            "paths_watched": self._watches.watched,
            "spectators": self._watches.spectators,
            "containers": self._fleet.counts(),
            "disk_shared_bytes": self._sweep.saved,
            **self._fleet.merging.readings(),
        }

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
        try:
            self._data_dir.take()
        except DataDirTaken as taken:
            sys.exit(str(taken))

    def startService(self) -> None:
        super().startService()
        self.clock.start()
        self._share_descriptors(raise_descriptor_limit())
        if self._settings.debug_blocking:
            self._blocking = BlockingWatch(self._reactor, self._settings.debug_blocking)
            self._blocking.start()
        self._reactor.callWhenRunning(self._signals.install)
        self._journal.start()
        for entry in self._unfinished.left_over():
            self._witness.was_killed(entry)
        for part in (
            self._unfinished,
            self._watches,
            self._metrics,
            self._retention,
            self._upkeep,
        ):
            part.start()
        now = moment(self._reactor.seconds())
        self._fleet.identify(self._data_dir.server_id(new_id(now)), STATE)
        self.database.start()
        adopt_orphans()
        self._orphans.start()
        ensureDeferred(self._open()).addErrback(self._cannot_listen)

    def _share_descriptors(self, limit: int) -> None:
        """Kernel pipes get a part, and connections what is left by that and by all else."""
        pipes = min(kernelpipes.MEMORY // kernelpipes.LEAST, limit // 16) if self._splices else 0
        self._kernel_pipes.pipes = pipes
        self._descriptors.limit = limit

    async def _open(self) -> None:
        """The database first, since its answers need it; but pipes do not wait long for it."""
        is_first = not (self._settings.database or self._data_dir.has_root_token)
        try:
            await self.database.ready(FIRST_START_SECONDS if is_first else START_SECONDS)
        except DatabaseAway as away:
            if self._hopeless:
                return
            _log.error("starting without the database: {reason}", reason=away.reason)
        if self.running and not self._hopeless:
            ensureDeferred(self._start_fleet())
            # What is there by now stays: to look through it for garbage, as is done now and then,
            # would hold the reactor for some 80 ms.
            gc.freeze()
            await self._listen()
            self._scheduler.start(self._fleet.server_id)

    async def _start_fleet(self) -> None:
        await self._fleet.start()
        if self.running:
            await self._upkeep.look()

    async def _furnish(self) -> None:
        """What must be in the database before anybody asks."""
        secret = await self._keyring.ensure_root(self._data_dir.root_token)
        await ensure_default(self.database, moment(self._reactor.seconds()))
        async with self.database.transaction() as transaction:
            await transaction.servers.say(self._fleet.server_id, self._name)
        if secret is not None:
            say_to_operator(
                f"The root token, shown this once and kept in {self._data_dir.root_token}:"
                f" {secret}"
            )

    def _learn(self, event: Event) -> None:
        """What an earlier process could not write is true all the same."""
        result = result_of(event)
        if result is not None:
            self._watches.kept.add(result)

    def _refused(self, refusal: SchemaRefused) -> None:
        if self._ports:
            _log.critical("the database cannot be used: {reason}", reason=refusal.sentence)
        else:
            self._give_up(refusal.sentence)

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

    def _own_url(self) -> str | None:
        """Of the API, from this machine; C{None} if it is by a socket of files alone."""
        for text, port in zip(self._settings.listen, self._ports, strict=False):
            address = port.getHost()
            if isinstance(address, IPv4Address | IPv6Address):
                scheme = "https" if text.startswith(("ssl:", "tls:")) else "http"
                host = ipaddress.ip_address(address.host)
                if host.is_unspecified:
                    host = ipaddress.ip_address("127.0.0.1" if host.version == 4 else "::1")
                written = f"[{host}]" if host.version == 6 else str(host)
                return f"{scheme}://{written}:{address.port}"
        return None

    def _cannot_listen(self, failure: Failure) -> None:
        self._give_up(f"cannot listen: {failure.value}; choose another --listen")

    def _give_up(self, sentence: str) -> None:
        self._hopeless = True
        _log.critical("{sentence}", sentence=sentence)
        # Twisted knows no other way to end with a status than to do it last.
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self._reactor.callWhenRunning(self._reactor.stop)

    def stopService(self) -> Deferred[None]:
        """
        Drain: no new pipes, and those that run, then answers of containers, may end within
        C{--drain}.

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
        await self._scheduler.stop()
        runs_end = ensureDeferred(self._runs.stop(self._settings.drain))
        drained = self.rendezvous.drain()
        late = self._reactor.callLater(self._settings.drain, self.cut)
        await drained
        await runs_end  # before the ports close, as commands ask the API
        if self._blocking is not None:
            self._blocking.stop()
        await gatherResults([maybeDeferred(port.stopListening) for port in self._ports])
        self._feed.close()
        self._progress.close()
        await self._drain_gateway(late)
        if late.active():
            late.cancel()
        self._gateway.close()
        await self._until(lambda: not self._events.followers)
        await self._until(lambda: not any(channel.requests for channel in self.site.connections))
        for channel in tuple(self.site.connections):
            channel.loseConnection()
        await self._until(lambda: not self.site.connections)
        self._upkeep.stop()
        await self._fleet.stop()
        await self._journal.stop()
        await self._unfinished.stop()
        for part in (self._watches, self._retention, self._metrics, self._orphans):
            part.stop()
        await self.database.stop()
        self._data_dir.leave()
        self._signals.restore()
        self.clock.stop()

    async def _drain_gateway(self, late: IDelayedCall) -> None:
        left = self._gateway.drain()
        if left and late.active():
            _log.info(
                "{left} answer(s) of containers may go on for {seconds:.1f} s more; signal again"
                " to cut them",
                left=left,
                seconds=late.getTime() - self._reactor.seconds(),
            )
        while self._gateway.drain() and late.active():
            await sleep(self._reactor, 0.02)

    def cut(self) -> None:
        """End everything that runs, now."""
        self._last_words = 0.2
        self._gateway.cut()
        self._runs.cut()
        _log.info("cutting {running} pipe(s)", running=self.rendezvous.caps.running)
        self.rendezvous.cut()

    async def _until(self, done: Callable[[], bool]) -> None:
        """Let last words go out, but not for long."""
        late = self._reactor.seconds() + self._last_words
        while not done() and self._reactor.seconds() < late:
            await sleep(self._reactor, 0.02)
