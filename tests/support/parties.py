"""Senders and receivers that a test plays by hand."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from twisted.internet.task import Clock
from zope.interface import implementer

from hoody.errors import HoodyError
from hoody.interfaces import IPipeObserver, IReceiver, ISender
from hoody.pipes.caps import Caps
from hoody.pipes.fanout import Fanout
from hoody.pipes.heads import Head
from hoody.pipes.meeting import Gathered, Patience, Report, Running
from hoody.pipes.progress import Standing
from hoody.pipes.rendezvous import Rendezvous

PLAIN = Head()


@implementer(ISender)
class FakeSender:
    """
    @ivar lines: what it was told.
    @ivar failed: why it was told to give up.
    """

    wire = None

    def __init__(
        self, wanted: int = 1, head: Head | None = PLAIN, address: str | None = "10.0.0.1"
    ) -> None:
        self.wanted, self.head, self.address = wanted, head, address
        self.lines: list[str] = []
        self.accepted = self.finished = self.paused = False
        self.failed: HoodyError | None = None
        self.consumer: IConsumer | None = None

    def accept(self) -> None:
        assert not self.accepted
        self.accepted = True

    def tell(self, line: str) -> None:
        assert self.accepted
        assert not self.over
        self.lines.append(line)

    def produceInto(self, consumer: IConsumer) -> None:
        self.consumer = consumer

    def send(self, data: bytes) -> None:
        assert self.consumer is not None
        self.consumer.write(data)

    def end(self) -> None:
        assert self.consumer is not None
        self.consumer.unregisterProducer()

    def finish(self) -> None:
        assert not self.over
        self.finished = True

    def fail(self, error: HoodyError) -> None:
        assert not self.over
        self.failed = error

    @property
    def over(self) -> bool:
        return self.finished or self.failed is not None

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        raise AssertionError("nobody stops a sender")


@implementer(IReceiver)
class FakeReceiver:
    """
    @ivar got: its body so far.
    @ivar receipt: what L{complete} returned.
    """

    wire = None
    outstanding = 0

    def __init__(self, wanted: int = 1, address: str | None = "10.0.0.2") -> None:
        self.wanted, self.address = wanted, address
        self.head: Head | None = None
        self.got = b""
        self.failed: HoodyError | None = None
        self.receipt: Deferred[None] | None = None
        self.digest: bytes | None = None
        self.producer: IPushProducer | None = None

    def begin(self, head: Head) -> None:
        assert self.head is None
        self.head = head

    def complete(self, digest: bytes | None) -> Deferred[None]:
        assert self.receipt is None
        assert self.failed is None
        self.digest = digest
        self.receipt = Deferred()
        return self.receipt

    def acknowledge(self) -> None:
        assert self.receipt is not None
        self.receipt.callback(None)

    def fail(self, error: HoodyError) -> None:
        assert self.failed is None
        self.failed = error

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        assert streaming
        assert self.producer is None
        self.producer = IPushProducer(producer)

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        assert self.head is not None
        assert self.failed is None
        self.got += data

    def full(self) -> None:
        """Have enough for now."""
        assert self.producer is not None
        self.producer.pauseProducing()

    def hungry(self) -> None:
        """Want more."""
        assert self.producer is not None
        self.producer.resumeProducing()


@implementer(IPipeObserver)
class Reports:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.standings: list[Standing] = []
        self.begun: list[str] = []
        self.ends: list[Report] = []

    def changed(self, path: str, source: Gathered | Running) -> None:
        self.standings.append(source.standing)

    def started(self, path: str, running: Running) -> None:
        self.begun.append(path)

    def ended(self, report: Report, running: Running) -> None:
        self.ends.append(report)


class Meeting:
    """A rendezvous with a clock that the test moves."""

    def __init__(
        self,
        *,
        ttl: float = 300,
        max_waiting: int = 1000,
        max_waiting_per_address: int = 100,
        max_running: int = 1000,
    ) -> None:
        self.clock = Clock()
        self.reports = Reports()
        self.caps = Caps(
            max_waiting=max_waiting,
            max_waiting_per_address=max_waiting_per_address,
            max_running=max_running,
        )
        self.rendezvous = Rendezvous(
            clock=self.clock,
            patience=Patience(ttl=ttl, form=30, note=25),
            caps=self.caps,
            observer=self.reports,
            make_mover=Fanout.between,
        )

    def patience(self, ttl: float) -> None:
        """Let parties wait so long."""
        self.rendezvous.patience = Patience(ttl=ttl, form=30, note=25)

    @property
    def clean(self) -> bool:
        """Whether nothing is left of anything."""
        return (
            not self.clock.getDelayedCalls()
            and self.rendezvous.paths == self.rendezvous.transfers == 0
            and self.caps.waiting == self.caps.running == 0
            and not self.caps._by_address
        )
