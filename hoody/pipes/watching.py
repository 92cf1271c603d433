"""
Watching paths: what becomes of each is told to its spectators.

Spectators are never in the way of a byte: they are told of what the machine of a transfer
has come to, and of counts that its mover keeps anyway. A path that nobody watches costs a
look into a dictionary at each of its turns.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from hoody.errors import TooMany
from hoody.interfaces import IPipeObserver, ISpectator
from hoody.pipes.meeting import Gathered, Report, Running
from hoody.pipes.progress import Figures, Meter, Standing, State, percent_of
from hoody.pipes.results import Kept, Result
from hoody.units import rfc3339

EVERY = 0.25
"""Seconds between two events while bytes flow."""
AT_ONCE = 200
"""Spectators that are told in one turn of the reactor, which has other work to do."""
LINGER = 60.0
"""Seconds that a path is measured on after the last who looked: who polls has true speeds."""

Data = dict[str, object]
Source = Gathered | Running
Encode = Callable[[str, str, Data], bytes]
"""Makes, of an id, a name and data, what is sent to everybody."""

_NOTHING = Standing(State.IDLE)
_log = Logger(namespace="hoody")


@define(eq=False)
class Letter:
    """
    An event, and who is still to be told.

    @ivar number: later ones are larger, of one path, and over restarts too.
    @ivar done: the identity of the result that it tells of; 0 if it does not.
    @ivar is_again: whether it is for those alone who have not been told of that yet.
    """

    number: int
    name: str
    data: Data
    done: int
    readers: list[ISpectator]
    _encode: Encode
    is_again: bool = False
    _made: dict[int, bytes] = field(factory=dict, init=False)

    def is_news(self, seen: int) -> bool:
        """Whether somebody who was told last of that result is to be told of this."""
        return not (self.is_again and self.done == seen)

    def event(self, seen: int) -> bytes:
        """As it is sent to all who have been told of this result; see L{seen_by}."""
        told = self.done or seen
        if told not in self._made:
            self._made[told] = self._encode(f"{self.number}-{told}", self.name, self.data)
        return self._made[told]


@define(eq=False)
class Watch:
    """
    One path that is being watched.

    A new transfer may gather on it while the last bytes of the former are still to be
    acknowledged: that one is told of to its end first.

    @ivar standing: what has been told of who is there.
    @ivar result: how its last transfer ended, unless a new one has started.
    @ivar meter: of the transfer that runs.
    @ivar former: of the one before, if that was watched.
    @ivar touched: when somebody looked last.
    @ivar quiet_since: since when nothing has happened.
    @ivar number: of the last event.
    """

    path: str
    _clock: IReactorTime
    _encode: Encode
    _post: Callable[[Letter], None]
    result: Result | None
    standing: Standing = field(default=_NOTHING, init=False)
    meter: Meter | None = field(default=None, init=False)
    former: Meter | None = field(default=None, init=False)
    touched: float = field(default=0.0, init=False)
    quiet_since: float = field(default=0.0, init=False)
    spectators: set[ISpectator] = field(factory=set, init=False)
    _running: Running | None = field(default=None, init=False)
    _follower: Source | None = field(default=None, init=False)
    number: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.touched = self.quiet_since = self._clock.seconds()
        if self.result is not None:
            self.standing = self.result.standing

    # What happens on the path

    def changed(self, source: Source) -> None:
        """Somebody came or left."""
        if self._running is not None and source is not self._running:
            if isinstance(source, Gathered) or not isinstance(self._follower, Gathered):
                self._follower = source  # who gathers is newer than what runs
        elif source.standing.state is State.IDLE and self.result is not None:
            # Who waited has left, and what was is still true.
            self._show(self.result.standing)
            self._tell_done(again=True)
        else:
            self._show(source.standing)

    def started(self, running: Running) -> None:
        """Bytes begin to flow."""
        if self._running is not None:
            self._follower = running
        else:
            self.follow(running)
            self._show(running.standing)

    def follow(self, running: Running) -> None:
        """Measure this transfer, which may have run for a while."""
        self._running, self.result = running, None
        self.meter = Meter(running.started, running.total)
        self.measure()

    def ended(self, running: Running, result: Result) -> None:
        """It is over, and all is known of it."""
        if running is self._running:
            self.measure()
            self._tell("progress", self._progress())
        self.result = result
        self._show(result.standing)
        self._tell_done()
        if running is self._running:
            self._running, self.former, self.meter = None, self.meter, None
            following, self._follower = self._follower, None
        else:
            following = self._running  # the former is not over yet
            if self._follower is running:
                self._follower = None
        if isinstance(following, Running):
            if following is not self._running:
                self.follow(following)
            self._show(following.standing)
        elif following is not None:
            self.changed(following)

    def forget(self) -> None:
        """The result is too old to be told."""
        self.result = None
        if self.is_over:
            self._show(_NOTHING)

    def learn(self, result: Result) -> None:
        """It comes late to light how the last transfer ended."""
        self.result = result
        self._show(result.standing)
        self._tell_done(again=True)

    def measure(self) -> None:
        """Take a count, of what runs."""
        if self._running is not None and self.meter is not None:
            self.meter.sample(self._clock.seconds(), self._running.arrived)

    def tick(self) -> None:
        """It is time to say how far it has come."""
        if self.meter is not None:
            self.measure()
            if self.spectators:
                self._tell("progress", self._progress())

    def _tell_done(self, again: bool = False) -> None:
        assert self.result is not None
        self._tell("done", self._done(), done=self.result.identity, again=again)

    def _show(self, standing: Standing) -> None:
        if standing != self.standing:
            self.standing = standing
            self._tell("state", self._state())

    def _tell(self, name: str, data: Data, done: int = 0, again: bool = False) -> None:
        self.quiet_since = self._clock.seconds()
        if self.spectators:
            readers = list(self.spectators)
            self._post(Letter(self._next(), name, data, done, readers, self._encode, again))

    def _next(self) -> int:
        """
        The number of an event. It has a moment in it, so that it is larger than all that
        an earlier process gave.
        """
        self.number = max(self.number + 1, round(self._clock.seconds() * 1000))
        return self.number

    # For whoever comes

    @property
    def is_over(self) -> bool:
        """Whether there is nobody here, and a result."""
        return self.standing.state in (State.COMPLETE, State.FAILED)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing will happen unless somebody comes."""
        return self.standing.state is State.IDLE or self.is_over

    def present(self, seen: int) -> tuple[list[bytes], int]:
        """
        All that is true now, as events.

        @param seen: the identity of the result that has been told already.
        @return: and that of the result that has been now. What is posted from now on has a
            number over L{number}.
        """
        parts = [("state", self._state(), 0)]
        if self.meter is not None:
            parts.append(("progress", self._progress(), 0))
        if self.is_over and self.result is not None and self.result.identity != seen:
            parts.append(("done", self._done(), self.result.identity))
        letters = [Letter(self._next(), *part, [], self._encode) for part in parts]
        return [letter.event(seen) for letter in letters], letters[-1].done or seen

    def flat(self) -> Data:
        """All that is true now, as one object: C{None} for what is not known, or not yet."""
        data: Data = {**dict.fromkeys(_FIELDS), **self._state()}
        if self.meter is not None:
            data |= self._progress()
        if self.is_over:
            data |= self._done()
            if self.standing.state is State.COMPLETE:
                # Whatever was announced: this was all.
                data |= {"totalBytes": data["bytes"], "percent": 100.0}
            elif self.result is not None and self.result.total is not None:
                data["totalBytes"] = self.result.total
                data["percent"] = percent_of(self.result.delivered, self.result.total)
        return data

    def _now(self) -> str:
        return rfc3339(self._clock.seconds())

    def _state(self) -> Data:
        standing = self.standing
        return {
            "state": standing.state,
            "hasSender": standing.has_sender,
            "activeReceivers": standing.active,
            "receivers": standing.wanted,
            "ts": self._now(),
        }

    @property
    def figures(self) -> Figures | None:
        """Of what runs, as of the last count."""
        return self.meter.figures() if self.meter is not None else None

    def _progress(self) -> Data:
        figures = self.figures
        assert figures is not None
        eta = None if figures.eta is None else round(figures.eta)
        return {
            "bytes": figures.delivered,
            "bytesTransferred": figures.delivered,
            "totalBytes": figures.total,
            "percent": figures.percent,
            "speed": round(figures.speed),
            "mbps": _megabytes(figures.speed),
            "eta": eta,
            "etaSec": eta,
            "receivers": self.standing.wanted,
            "elapsedSec": round(figures.elapsed, 1),
            "ts": self._now(),
        }

    def _done(self) -> Data:
        result = self.result
        assert result is not None
        seconds = max(result.ended - result.started, 0.0)
        speed = result.delivered / max(seconds, 0.001)
        return {
            "state": result.standing.state,
            "bytes": result.delivered,
            "bytesTransferred": result.delivered,
            "durationSec": round(seconds, 3),
            "duration": round(seconds * 1000),
            "avgSpeed": round(speed),
            "mbps": _megabytes(speed),
            "receivers": result.receivers,
            "digest": result.digest,
            "error": result.error,
            "startedAt": rfc3339(result.started),
            "finishedAt": rfc3339(result.ended),
        }


_FIELDS = (
    *("state", "hasSender", "activeReceivers", "receivers", "bytes", "bytesTransferred"),
    *("totalBytes", "percent", "speed", "mbps", "eta", "etaSec", "elapsedSec", "durationSec"),
    *("duration", "avgSpeed", "digest", "error", "startedAt", "finishedAt", "ts"),
)


def seen_by(last_event_id: str) -> int:
    """The identity of the result that whoever has this id has been told; 0 for none."""
    match = _ID.fullmatch(last_event_id)
    return int(match[1]) if match else 0


_ID = re.compile(r"[0-9]{1,20}-([0-9]{1,20})")


def _megabytes(speed: float) -> float:
    return round(speed / 1e6, 1)


@implementer(IPipeObserver)
@define(kw_only=True, eq=False)
class Watches:
    """
    Every path that is being watched.

    @ivar on_path: who is on a path now, the eldest first.
    @ivar kept: results, for those who come late.
    @ivar max_spectators: how many may watch one path.
    @ivar max_paths: how many paths may be watched.
    @ivar at_once: how many spectators are told in one turn of the reactor.
    """

    clock: IReactorTime
    encode: Encode
    on_path: Callable[[str], list[Source]]
    kept: Kept
    max_spectators: int
    max_paths: int
    at_once: int = AT_ONCE
    watched: int = field(default=0, init=False)
    spectators: int = field(default=0, init=False)
    _watches: dict[str, Watch] = field(factory=dict, init=False)
    _letters: deque[Letter] = field(factory=deque, init=False)
    _budget: int = field(init=False)
    _turn: IDelayedCall | None = field(default=None, init=False)
    _ticks: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._budget = self.at_once
        self._ticks = LoopingCall(self._tick)
        self._ticks.clock = self.clock

    def start(self) -> None:
        self._ticks.start(EVERY, now=False)

    def stop(self) -> None:
        if self._ticks.running:
            self._ticks.stop()
        if self._turn is not None:
            self._turn.cancel()

    def jumped(self, seconds: float) -> None:
        """The clock was set by so much: nobody has been quiet for longer or less long."""
        for watch in self._watches.values():
            watch.touched += seconds
            watch.quiet_since += seconds

    def find(self, path: str) -> Watch | None:
        """The watch of a path that is being watched, or was a moment ago."""
        watch = self._watches.get(path)
        if watch is not None:
            watch.touched = self.clock.seconds()
            if watch.result is not None and not self.kept.is_fresh(watch.result, watch.touched):
                watch.forget()
        return watch

    def open(self, path: str, result: Result | None) -> Watch:
        """
        Watch a path.

        @param result: of its last transfer, as far as is known from elsewhere.
        """
        watch = self.find(path)
        if watch is not None:
            if result is not None and watch.standing.state is State.IDLE:
                watch.learn(result)
            return watch
        now = self.clock.seconds()
        last = self.kept.get(path, now) or result
        watch = Watch(path, self.clock, self.encode, self._post, last)
        for source in self.on_path(path):
            if isinstance(source, Running) and watch.meter is None:
                watch.follow(source)
                watch.standing = source.standing
            else:
                watch.changed(source)
        self._make_room()
        self._watches[path] = watch
        return watch

    def _make_room(self) -> None:
        """Paths that nobody watches any more are measured on only while there is room."""
        if len(self._watches) >= 2 * self.max_paths:
            idle = [watch for watch in self._watches.values() if not watch.spectators]
            del self._watches[min(idle, key=lambda watch: watch.touched).path]

    def join(self, watch: Watch, spectator: ISpectator) -> None:
        """@raise TooMany: if there is no place for another."""
        if len(watch.spectators) >= self.max_spectators:
            raise TooMany(
                f"{self.max_spectators} watch this path already, as many as may; poll it with"
                " Accept: application/json, which takes no place."
            )
        if not watch.spectators:
            if self.watched >= self.max_paths:
                raise TooMany(
                    f"{self.max_paths} paths are being watched, as many as may; poll this one"
                    " with Accept: application/json, which takes no place."
                )
            self.watched += 1
        watch.spectators.add(spectator)
        self._watches[watch.path] = watch
        self.spectators += 1

    def leave(self, watch: Watch, spectator: ISpectator) -> None:
        if spectator in watch.spectators:
            watch.spectators.remove(spectator)
            self.spectators -= 1
            watch.touched = self.clock.seconds()
            if not watch.spectators:
                self.watched -= 1

    def _post(self, letter: Letter) -> None:
        """Tell them now, or, where many are to be told in one turn of the reactor, later."""
        self._letters.append(letter)
        self._deliver()

    def _deliver(self) -> None:
        while self._letters and self._budget:
            letter = self._letters[0]
            for _ in range(min(self._budget, len(letter.readers))):
                letter.readers.pop().tell(letter)
                self._budget -= 1
            if not letter.readers:
                self._letters.popleft()
        if self._turn is None:
            self._turn = self.clock.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._turn, self._budget = None, self.at_once
        if self._letters:
            self._deliver()

    def _tick(self) -> None:
        now = self.clock.seconds()
        for watch in tuple(self._watches.values()):
            try:
                self._see_to(watch, now)
            except Exception:
                _log.failure("watching {path!r} failed", path=watch.path)

    def _see_to(self, watch: Watch, now: float) -> None:
        watch.tick()
        for spectator in tuple(watch.spectators):
            spectator.look(now)
        if not watch.spectators and now - watch.touched > LINGER:
            del self._watches[watch.path]

    # IPipeObserver

    def changed(self, path: str, source: Source) -> None:
        watch = self._watches.get(path)
        if watch is not None:
            watch.changed(source)

    def started(self, path: str, running: Running) -> None:
        self.kept.forget(path)
        watch = self._watches.get(path)
        if watch is not None:
            watch.started(running)

    def ended(self, report: Report, running: Running) -> None:
        result = result_of(report)
        self.kept.add(result)
        watch = self._watches.get(report.path)
        if watch is not None:
            watch.ended(running, result)


def result_of(report: Report) -> Result:
    """What is kept of a report, as exactly as the audit keeps it."""
    ended = round(report.ended, 3)
    return Result(
        path=report.path,
        delivered=report.delivered,
        total=report.total,
        receivers=report.receivers,
        digest=f"sha256:{report.digest.hex()}" if report.digest else None,
        error=report.error,
        started=round(ended - round((report.ended - report.started) * 1000, 3) / 1000, 3),
        ended=ended,
    )
