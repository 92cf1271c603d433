"""
Runs that have been claimed: begun as there is room, listened to, ended in time, written down.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredSemaphore, ensureDeferred
from twisted.logger import Logger

from hoody.auth import tokens
from hoody.auth.keyring import Keyring
from hoody.auth.signatures import Capability
from hoody.auth.tokens import Scope
from hoody.cron.claims import retry_at
from hoody.cron.entry import Due, Run, RunStatus
from hoody.cron.output import Excerpt
from hoody.cron.telling import told_of_run
from hoody.cron.writing import Note, Scribe
from hoody.errors import DatabaseAway, HoodyError
from hoody.interfaces import ICommand, IPlaces, IStore
from hoody.later import sleep
from hoody.units import moment

KILL_AFTER = 5.0
"""Seconds that a command has from SIGTERM to SIGKILL."""
AGAIN_SECONDS = 1.0
"""Until the database is asked again that was away."""
MOST_AGAIN = 60.0
"""And for so long it is not asked, if it is there and does not do it."""
TOKEN_SECONDS = 60.0
"""For so long after its time-out a run's token would be good, should nobody take it away."""
NOT_BEGUN = 126
"""The exit code of a command that could not be begun, as sh(1) has it."""

_log = Logger(namespace="hoody.cron")


@define(eq=False)
class Going:
    """
    A run of ours that is not over.

    @ivar actor: who has asked for it; C{None} if its time has come.
    @ivar has_begun: whether it waits for nothing more.
    @ivar began: when its command did, by the reactor's clock.
    """

    due: Due
    run: Run
    actor: str | None
    turn: Deferred[None] = field(factory=Deferred, init=False)
    has_begun: bool = field(default=False, init=False)
    command: ICommand | None = field(default=None, init=False)
    began: float = field(default=0.0, init=False)
    is_late: bool = field(default=False, init=False)
    is_stopped: bool = field(default=False, init=False)
    done: Deferred[None] = field(factory=Deferred, init=False)


@define(eq=False)
class Runs:
    """
    @ivar most: how many commands run at once; others wait.
    @ivar retry_seconds: how long after its first failure one is tried again.
    """

    _reactor: Any
    _store: IStore
    _keyring: Keyring
    _places: IPlaces
    most: int
    retry_seconds: float
    going: dict[str, Going] = field(factory=dict, init=False)
    _room: DeferredSemaphore = field(init=False)
    _scribe: Scribe = field(init=False)
    _of_entry: dict[str, list[Going]] = field(factory=lambda: defaultdict(list), init=False)
    _is_stopping: bool = field(default=False, init=False)
    _late: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._room = DeferredSemaphore(self.most)
        self._scribe = Scribe(self._store)

    @property
    def now(self) -> datetime:
        return moment(self._reactor.seconds())

    @property
    def running(self) -> int:
        """Commands that run."""
        return sum(going.command is not None for going in self.going.values())

    def add(self, due: Due, run: Run, actor: str | None = None) -> Deferred[None]:
        """
        Have a claimed run begun as soon as there is room, and it is its turn.

        @return: fires when it is over, and that is written.
        """
        going = Going(due, run, actor)
        self.going[run.id] = going
        line = self._of_entry[run.entry_id]
        line.append(going)
        if due.entry.overlap != "queue" or len(line) == 1:
            going.turn.callback(None)
        work = ensureDeferred(self._go(going))
        work.addErrback(lambda failure: _log.failure("a run was lost sight of", failure=failure))
        work.addBoth(lambda _: self._over(going))
        return going.done

    def _over(self, going: Going) -> None:
        del self.going[going.run.id]
        line = self._of_entry[going.run.entry_id]
        line.remove(going)
        if not line:
            del self._of_entry[going.run.entry_id]
        elif not line[0].turn.called:
            line[0].turn.callback(None)
        going.done.callback(None)

    def jumped(self, seconds: float) -> None:
        """The clock was set by so much: nothing has taken longer, or less long."""
        for going in self.going.values():
            going.began += seconds
        self._late += seconds

    async def stop(self, seconds: float) -> None:
        """
        Let what runs come to its end, for so long; then end it. What waits for its turn is not
        begun: it is lost, and the next start says so.
        """
        self._is_stopping = True
        self._late = self._reactor.seconds() + seconds
        await self._until_over()
        for strike in ("terminate", "kill"):
            for going in tuple(self.going.values()):
                if going.command is not None:
                    going.is_stopped = True
                    getattr(going.command, strike)()
            self._late = self._reactor.seconds() + KILL_AFTER
            await self._until_over()

    def cut(self) -> None:
        """Wait no longer for what runs."""
        self._late = min(self._late, self._reactor.seconds())

    async def _until_over(self) -> None:
        """Wait for all that have begun, with what is to be written of them."""
        while self._reactor.seconds() < self._late:
            if not any(going.has_begun for going in self.going.values()):
                return
            await sleep(self._reactor, 0.02)

    # One run

    async def _go(self, going: Going) -> None:
        await going.turn
        await self._room.acquire()
        try:
            if self._is_stopping:
                return
            going.has_begun = True
            try:
                secret = await self._begin(going)
                if going.run.status is RunStatus.RUNNING:
                    await self._see_through(going, secret)
            except Exception:
                _log.failure("a run was lost sight of")
                await self._lose(going)
        finally:
            self._room.release()

    async def _lose(self, going: Going) -> None:
        """Nothing of its entry would run any more, were it said to be running."""
        run = going.run
        if going.command is not None:
            going.command.kill()
        if run.token_id is not None:
            self._keyring.forget(run.token_id)
        going.run = evolve(run, status=RunStatus.LOST, finished_at=self.now, token_id=None)
        await self._write(
            going, run.token_id, "it failed for a reason that is in the server's log"
        )

    async def _begin(self, going: Going) -> str | None:
        """Write down that it begins, and give it its token; the database may be away for long."""
        due, asked = going.due, going.run
        deadline = timedelta(seconds=due.entry.start_deadline_seconds)
        late = asked.scheduled_at + deadline
        if self.now > late:  # it has waited for its turn, or this is another attempt
            late = self.now + deadline
        tried: list[str] = []
        while True:
            now = self.now
            token, secret = tokens.mint(
                alias=f"cron {due.entry.title[:60]}, run {asked.id}",
                scopes=due.entry.scopes,
                containers=(due.entry.container_id or "",),
                expires_at=now + timedelta(seconds=due.entry.timeout_seconds + TOKEN_SECONDS),
                now=now,
            )
            has_token = due.entry.container_id is not None and bool(due.entry.scopes)
            is_missed = now > late
            going.run = evolve(
                asked,
                status=RunStatus.MISSED if is_missed else RunStatus.RUNNING,
                started_at=None if is_missed else now,
                finished_at=now if is_missed else None,
                start_delay_ms=None if is_missed else _milliseconds(asked.scheduled_at, now),
                token_id=token.id if has_token and not is_missed else None,
            )
            given = token if going.run.token_id is not None else None
            event = told_of_run(due, going.run, now, actor=going.actor)
            try:
                if self._keyring.signer is None:
                    raise DatabaseAway("it is not furnished yet")
                note = Note(run=going.run, event=event, given=given, taken=tuple(tried))
                await self._scribe.write(note)  # nobody knows which of those tried is there
            except DatabaseAway:
                if self._is_stopping:
                    going.run = evolve(asked, status=RunStatus.LOST)
                    return None
                if going.run.token_id is not None:
                    tried.append(going.run.token_id)
                await sleep(self._reactor, AGAIN_SECONDS)
                continue
            if going.run.token_id is None:
                return None
            self._keyring.learn(token)
            return secret

    async def _see_through(self, going: Going, secret: str | None) -> None:
        environment = dict(going.due.entry.environment_vars)
        given, secrets = self._given(going, secret)
        heard = {name: Excerpt(secrets) for name in ("stdout", "stderr")}
        going.began = self._reactor.seconds()
        try:
            going.command = command = await self._places.begin(
                going.due, {**environment, **given}, lambda stream, text: heard[stream].hear(text)
            )
        except Exception as error:
            why = _why_not(error)
            heard["stderr"].hear(why + "\n")
            await self._end(going, NOT_BEGUN, heard, why)
            return
        calls = [self._reactor.callLater(going.due.entry.timeout_seconds, self._is_late, going)]
        calls.append(
            self._reactor.callLater(
                going.due.entry.timeout_seconds + KILL_AFTER, lambda: command.kill()
            )
        )
        try:
            status = await command.ended
        finally:
            going.command = None
            for call in calls:
                if call.active():
                    call.cancel()
        await self._end(going, status, heard)

    def _is_late(self, going: Going) -> None:
        going.is_late = True
        if going.command is not None:
            going.command.terminate()

    def _given(self, going: Going, secret: str | None) -> tuple[dict[str, str], tuple[str, ...]]:
        """What it finds in its environment, and what of that is not shown."""
        entry = going.due.entry
        given, secrets = dict[str, str](), tuple[str, ...]()
        url = self._places.url(entry)
        if url is not None:
            given["HOODY_URL"] = url
        if entry.container_id is not None:
            given["CONTAINER_ID"] = entry.container_id
        if secret is not None:
            given["HOODY_TOKEN"] = secret
            secrets += (secret,)
            if url is not None and Scope.SNAPSHOT in entry.scopes:
                path, text = self._capability(going)
                given["SNAP_URL"] = f"{url}{path}?cap={quote(text)}"
                secrets += (quote(text),)
        return given, secrets

    def _capability(self, going: Going) -> tuple[str, str]:
        entry, signer = going.due.entry, self._keyring.signer
        assert signer is not None
        assert going.run.token_id is not None
        path = f"/api/v1/containers/{entry.container_id}/snapshots"
        capability = Capability(
            right=Scope.SNAPSHOT,
            resource=path,
            token_id=going.run.token_id,
            expires_at=self.now + timedelta(seconds=entry.timeout_seconds + TOKEN_SECONDS),
        )
        return path, signer.sign_capability(capability)

    # Its end

    async def _end(
        self, going: Going, exit_code: int, heard: dict[str, Excerpt], why: str | None = None
    ) -> None:
        """@param why: it has failed, where its end does not say so itself."""
        run, entry, now = going.run, going.due.entry, self.now
        status = RunStatus.SUCCEEDED if exit_code == 0 else RunStatus.FAILED
        if going.is_late:
            status = RunStatus.TIMED_OUT
        elif going.is_stopped:
            status = RunStatus.FAILED
        fails = status is not RunStatus.SUCCEEDED
        going.run = evolve(
            run,
            status=status,
            finished_at=now,
            duration_ms=round((self._reactor.seconds() - going.began) * 1000, 3),
            exit_code=exit_code,
            stdout=heard["stdout"].text(),
            stderr=heard["stderr"].text(),
            token_id=None,
            retry_at=retry_at(entry, run, now, self.retry_seconds) if fails else None,
        )
        error = why or _why(going, exit_code) if fails else None
        if run.token_id is not None:
            self._keyring.forget(run.token_id)
        await self._write(going, run.token_id, error)

    async def _write(self, going: Going, token_id: str | None, error: str | None) -> None:
        """It is over; the database is told when that can be."""
        assert going.run.finished_at is not None
        event = told_of_run(
            going.due, going.run, going.run.finished_at, actor=going.actor, error=error
        )
        note = Note(run=going.run, event=event, taken=(token_id,) if token_id else ())
        tries = 0
        while True:
            try:
                await self._scribe.write(note)
                return
            except Exception as error:
                tries += 1
                is_away = isinstance(error, DatabaseAway)
                if not is_away:
                    _log.failure("the end of a run is not written")
                if self._is_stopping and tries > 1:
                    _log.error("the end of a run is not written: {error}", error=error)
                    return
                await sleep(self._reactor, AGAIN_SECONDS if is_away else min(tries, MOST_AGAIN))


def _why_not(error: Exception) -> str:
    """Why a command could not be begun."""
    if isinstance(error, HoodyError):
        return error.sentence
    _log.failure("a command could not be begun")
    return "It could not be begun, for a reason that is in the server's log."


def _why(going: Going, exit_code: int) -> str:
    if going.is_late:
        return f"it took longer than {going.due.entry.timeout_seconds} s"
    if going.is_stopped:
        return "the server was stopped"
    if exit_code < 0:
        return f"it was ended by signal {-exit_code}"
    return f"it ended with exit code {exit_code}"


def _milliseconds(since: datetime, until: datetime) -> float:
    """None at all, if the clock was set back in between."""
    return max(0.0, round((until - since).total_seconds() * 1000, 3))
