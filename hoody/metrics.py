"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from attrs import define, field
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
LATENCY_EVERY = 0.5
"""Seconds between two looks at how late the reactor is."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 2.5, 10)

Readings = Callable[[], Mapping[str, float | dict[str, float]]]
"""
Numbers by the names of their gauges, less the C{hoody_}; of one that has several, by status.
"""


class _Gauges(Collector):
    """Numbers that somebody else keeps, read when they are asked for."""

    def __init__(self, readings: list[Readings]) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        for readings in self._readings:
            for name, value in readings().items():
                if isinstance(value, dict):
                    gauge = GaugeMetricFamily(f"hoody_{name}", _HELP[name], labels=("status",))
                    for status, number in value.items():
                        gauge.add_metric((status,), number)
                    yield gauge
                else:
                    yield GaugeMetricFamily(f"hoody_{name}", _HELP[name], value=value)


_HELP = {
    "pipes_waiting": "Senders and receivers that wait for their counterpart.",
    "pipes_running": "Pipes whose bytes flow.",
    "pipes_paths": "Paths that are in use.",
    "kernel_pipes_open": "Kernel pipes that are open (pipe(7)).",
    "connections": "HTTP connections that are open.",
    "database_up": "Whether Postgres can be used.",
    "database_connections": "Connections to Postgres.",
    "database_connections_busy": "Of these, in use.",
    "database_waiting": "Questions that wait for a connection.",
    "events_waiting": "Events that have not been written yet.",
    "events_lost": "Events for which there was no room while the database was away.",
    "cron_runs_running": "Commands of cron that run.",
    "cron_runs_waiting": "Those that wait for room, or for their turn.",
    "followers": "Who follows the events.",
    "paths_watched": "Paths that somebody watches.",
    "spectators": "Streams of progress that are open.",
    "containers": "Containers of this server; those that sleep until somebody comes are asleep.",
    "disk_shared_bytes": "What equal files of containers would take more if each had its own.",
    "ksm_pages_shared": "Pages of the whole machine that stand for several equal ones (KSM).",
    "ksm_pages_sharing": "How many more places have them: so many pages are saved.",
    "ksm_general_profit_bytes": "What that saves, less what the kernel needs for it.",
}


@define(eq=False)
class Metrics:
    _clock: IReactorTime
    readings: list[Readings] = field(factory=list)
    _registry: CollectorRegistry = field(factory=CollectorRegistry, init=False)
    _requests: Counter = field(init=False)
    _durations: Histogram = field(init=False)
    _pipes: Counter = field(init=False)
    _bytes: Counter = field(init=False)
    _wakes: Histogram = field(init=False)
    _latency: Histogram = field(init=False)
    _call: LoopingCall = field(init=False)
    _due: float = field(default=0.0, init=False)
    _counters: dict[tuple[str, ...], Counter] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        registry = self._registry
        self._requests = Counter(
            "hoody_requests",
            "Requests that are over.",
            ("area", "method", "status"),
            registry=registry,
        )
        self._durations = Histogram(
            "hoody_request_seconds",
            "How long requests took that are our own to answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._pipes = Counter(
            "hoody_pipes", "Pipes that are over.", ("outcome",), registry=registry
        )
        self._bytes = Counter(
            "hoody_pipe_bytes",
            "Bytes of bodies that receivers were given, by what moved them.",
            ("mover",),
            registry=registry,
        )
        self._wakes = Histogram(
            "hoody_wake_seconds",
            "From a request to a container that slept to its taking the connection.",
            ("found",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._latency = Histogram(
            "hoody_reactor_latency_seconds",
            "How late the reactor comes to what is due.",
            buckets=_SECONDS,
            registry=registry,
        )
        ProcessCollector(registry=registry)
        registry.register(_Gauges(self.readings))
        self._call = LoopingCall(self._feel)
        self._call.clock = self._clock

    def start(self) -> None:
        self._due = self._clock.seconds() + LATENCY_EVERY
        self._call.start(LATENCY_EVERY, now=False)

    def stop(self) -> None:
        if self._call.running:
            self._call.stop()

    def jumped(self, seconds: float) -> None:
        """The clock was set by so much."""
        self._due += seconds

    def page(self) -> bytes:
        """All of it, in the text format."""
        return generate_latest(self._registry)

    def request_is_over(self, area: str, method: str, status: int, seconds: float) -> None:
        """@param area: C{pipe}, C{container}, C{api} or C{other}."""
        method = method if method in _METHODS else "other"
        key = (area, method, str(status))
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._requests.labels(*key)
        counter.inc()
        if area not in ("pipe", "container"):
            self._durations.observe(seconds)

    def pipe_is_over(self, *, failed: bool, delivered: int, spliced: int) -> None:
        self._pipes.labels("failed" if failed else "completed").inc()
        self._bytes.labels("kernel").inc(spliced)
        self._bytes.labels("portable").inc(max(0, delivered - spliced))

    def container_woke(self, found: str, seconds: float) -> None:
        """@param found: what it was: C{paused} or C{stopped}."""
        self._wakes.labels(found).observe(seconds)

    def _feel(self) -> None:
        now = self._clock.seconds()
        self._latency.observe(max(0.0, now - self._due))
        # LoopingCall keeps to its first beat, and leaves out those that it missed.
        while self._due <= now:
            self._due += LATENCY_EVERY


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
