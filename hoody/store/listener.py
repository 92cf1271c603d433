"""What servers of one database tell each other (LISTEN, NOTIFY), and whether it lives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic

from attrs import define, field
from twisted.internet.base import ReactorBase
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hoody.store.links import Link

BEAT = 1.0
"""Seconds between two looks at whether Postgres is there."""
PATIENCE = 2.0
"""Seconds that its answer may take."""
DESPAIR = 10.0
"""Seconds without an answer after which somebody should look what is the matter."""

_log = Logger(namespace="hoody.database")


@define(eq=False)
class Listener:
    """
    Keeps one connection for what others announce. It is asked for a sign of life
    now and then; when it is lost another is made, and all observers are called, since
    they may have missed something.

    @ivar problem: why there is none, or C{None}.
    @ivar on_beat: called at each sign of life.
    @ivar on_despair: called now and then while there is none for long.
    """

    _reactor: ReactorBase
    open_link: Callable[[], Awaitable[Link]]
    problem: str | None = field(default=None, init=False)
    on_beat: Callable[[], None] = field(default=lambda: None, init=False)
    on_despair: Callable[[], object] = field(default=lambda: None, init=False)
    _silent_since: float | None = field(default=None, init=False)
    _observers: dict[str, list[Callable[[], None]]] = field(factory=dict, init=False)
    _link: Link | None = field(default=None, init=False)
    _beating: bool = field(default=False, init=False)
    _beats: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._beats = LoopingCall(self._beat)
        self._beats.clock = self._reactor

    @property
    def connections(self) -> int:
        return int(self._link is not None)

    def start(self) -> None:
        self._beats.start(BEAT)

    def stop(self) -> None:
        if self._beats.running:
            self._beats.stop()
        if self._link is not None:
            self._link.close()
            self._link = None

    def observe(self, topic: str, observer: Callable[[], None]) -> None:
        self._observers.setdefault(topic, []).append(observer)

    def _beat(self) -> None:
        if self._link is not None:
            self._link.look()
        if not self._beating:
            self._beating = True
            ensureDeferred(self._live())

    async def _live(self) -> None:
        try:
            if self._link is None or not self._link.usable:
                await self._connect()
            else:
                await self._ask(self._link, "SELECT 1")
            self._alive()
        except Exception as error:
            self._lost(getattr(error, "reason", "the connection was lost"))
        finally:
            self._beating = False

    def _alive(self) -> None:
        self._silent_since = None
        self.on_beat()

    def _despair(self) -> None:
        now = monotonic()
        if self._silent_since is None:
            self._silent_since = now
        elif now - self._silent_since >= DESPAIR:
            self._silent_since = now
            self.on_despair()

    async def _connect(self) -> None:
        link = await self.open_link()
        if not self._beats.running:
            link.close()
            return
        self._link = link
        link.on_death = lambda: self._lost("the connection was lost")
        link.on_notify(self._announced)
        await self._ask(link, "LISTEN hoody")
        if self.problem is not None:
            _log.info("the database is back")
        self.problem = None
        for topic in tuple(self._observers):
            self._announced(topic)

    async def _ask(self, link: Link, sql: str) -> None:
        link.late = monotonic() + PATIENCE
        await link.run(sql)

    def _announced(self, topic: str) -> None:
        for observer in self._observers.get(topic, []):
            observer()

    def _lost(self, reason: str) -> None:
        self._despair()
        if self._link is not None:
            self._link.close()
            self._link = None
        if self.problem is None and self._beats.running:
            _log.error("the database is away: {reason}", reason=reason)
            self.problem = reason
