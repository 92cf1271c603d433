"""
The clock's hand: sees what is due, claims it, and has it run.

When an entry is due next is a column of its row. A claim moves that on, and puts the run down,
in one transaction that locks the row: whoever is killed or races, each fire becomes one run.
What was claimed and never ended is lost, and said to be, when this server comes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from hoody.cron.claims import Claim, again, by_hand, claim, next_fire, untold
from hoody.cron.entry import TOPIC, Due, Entry, Run, RunStatus
from hoody.cron.errors import NotThere
from hoody.cron.runs import Runs
from hoody.cron.telling import told_of_expiry, told_of_run
from hoody.cron.writing import take_token
from hoody.errors import DatabaseAway, Misdirected
from hoody.interfaces import IRunner, IStore, ITransaction
from hoody.later import to_its_end, unhurried
from hoody.units import moment

TICK = 0.1
"""Seconds between two looks at the clock: they cost a comparison."""
LOOK_AT_LEAST = 30.0
"""And between two at the database, should an announcement not have come through."""
AGAIN_SECONDS = 1.0
UNSURE_SECONDS = 60.0
"""So long what was claimed as the database went may still turn out to have been written."""
HOLD_SECONDS = 1.0
"""So long what is claimed is not begun while more is."""
BATCH = 100
"""Entries that are claimed at once."""
MOST_SECONDS = 0.003
"""For so long at most the reactor sees to nothing else."""
MOST_BACK = 0.5
"""Seconds that the clock may go back before it is asked what is due anew."""

_log = Logger(namespace="hoody.cron")


@frozen
class Unsure:
    """
    Claimed as the database went, so that nobody knows whether it was written.

    @ivar until: when that is given up, by the reactor's clock.
    """

    due: Due
    run: Run
    actor: str | None
    until: float


@implementer(IRunner)
@define(eq=False)
class Scheduler:
    """
    @ivar server_id: what this server is called; C{""} until that is known.
    """

    _reactor: Any
    _store: IStore
    _runs: Runs
    server_id: str = field(default="", init=False)
    _look_at: float = field(default=0.0, init=False)
    _is_stale: bool = field(default=False, init=False)
    _has_recovered: bool = field(default=False, init=False)
    _went_back: bool = field(default=True, init=False)
    _problem: str | None = field(default=None, init=False)
    _unsure: list[Unsure] = field(factory=list, init=False)
    _claimed: list[tuple[Due, Run]] = field(factory=list, init=False)
    _asked: set[str] = field(factory=set, init=False)
    _call: LoopingCall = field(init=False)
    _working: Deferred[None] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._call = LoopingCall(self._tick)
        self._call.clock = self._reactor
        self._store.observe(TOPIC, self._changed)

    def start(self, server_id: str) -> None:
        self.server_id = server_id
        self._call.start(TICK, now=False)

    async def stop(self) -> None:
        """Claim no more; see L{Runs.stop} for what runs."""
        if self._call.running:
            self._call.stop()
        if self._working is not None:
            await self._working

    def jumped(self, seconds: float) -> None:
        """
        The clock was set.

        @param seconds: how far; less than 0 is back.
        """
        self._went_back = self._went_back or seconds < -MOST_BACK
        self._changed()

    def _changed(self) -> None:
        self._is_stale = True
        self._look_at = 0.0

    @property
    def now(self) -> datetime:
        return moment(self._reactor.seconds())

    def _tick(self) -> None:
        if self._working is not None or self._reactor.seconds() < self._look_at:
            return
        work: Deferred[None] = ensureDeferred(self._try())
        if not work.called:
            self._working = work

    async def _try(self) -> None:
        self._is_stale = False
        try:
            await self._look()
            wait = 0.0
        except DatabaseAway as away:
            if self._problem is None:
                _log.warn("what is due waits: {reason}", reason=away.reason)
            self._problem, wait = away.reason, AGAIN_SECONDS
        except Exception:
            _log.failure("what is due waits")
            wait = AGAIN_SECONDS
        else:
            self._problem = None
        if wait:
            self._look_at = self._reactor.seconds() + wait
        elif self._is_stale:
            self._look_at = 0.0
        self._working = None

    async def _look(self) -> None:
        if not self._has_recovered:
            await self._recover()
            self._has_recovered = True
        await self._make_sure()
        await self._claim_all()
        while self._call.running and await self._claim_again() == BATCH:
            pass
        while self._call.running and await self._expire() == BATCH:
            pass
        if self._went_back:
            self._went_back = False
            try:
                await self._bring_forward()
            except BaseException:
                self._went_back = True
                raise
        async with self._store.transaction(patience=5) as transaction:
            due = await transaction.cron.next_due(self.server_id)
        now = self._reactor.seconds()
        self._look_at = now + LOOK_AT_LEAST
        if due is not None:
            self._look_at = min(self._look_at, due.timestamp())

    async def _recover(self) -> None:
        """Runs of an earlier process were cut off, or never begun."""
        after: str | None = ""
        while after is not None:
            after = await self._recover_some(after)

    async def _recover_some(self, after: str) -> str | None:
        """@return: after which to go on; C{None} if there are no more."""
        async with self._store.transaction(patience=10) as transaction:
            now = self.now
            found = await transaction.cron.unfinished(self.server_id, after, BATCH)
            runs = [run for run in found if not self._is_ours(run)]
            dues = await self._dues_of(transaction, {run.entry_id for run in runs})
            lost = [
                evolve(run, status=RunStatus.LOST, finished_at=now, token_id=None) for run in runs
            ]
            await transaction.cron.change_runs(lost)
            for before, run in zip(runs, lost, strict=True):
                await take_token(transaction, before.token_id)
                if run.entry_id in dues:
                    error = "the server was killed while it ran"
                    if run.started_at is None:
                        error = "the server was killed before it began"
                    transaction.record(told_of_run(dues[run.entry_id], run, now, error=error))
        return found[-1].id if len(found) == BATCH else None

    def _is_ours(self, run: Run) -> bool:
        """Whether it is of this process."""
        unsure = (each.run.id for each in self._unsure)
        return run.id in self._runs.going or run.id in self._asked or run.id in unsure

    async def _make_sure(self) -> None:
        """What turns out to have been claimed before the database went is begun now."""
        if not self._unsure:
            return
        asked, found = self._unsure, set[str]()
        async with self._store.transaction(patience=5) as transaction:
            for each in asked:
                run = await transaction.cron.run(each.run.id)
                if run is not None and run.status is RunStatus.RUNNING:
                    found.add(each.run.id)
        now = self._reactor.seconds()
        self._unsure = [
            each
            for each in self._unsure
            if each not in asked or (each.run.id not in found and now < each.until)
        ]
        for each in asked:
            if each.run.id in found:
                self._runs.add(each.due, each.run, each.actor)

    @contextmanager
    def _claiming(self, begun: list[tuple[Due, Run]], actor: str | None = None) -> Iterator[None]:
        """
        Begin what has been claimed within this.

        @param begun: what is to be, once the claim is written.
        """
        try:
            yield
        except DatabaseAway:
            until = self._reactor.seconds() + UNSURE_SECONDS
            self._unsure += [Unsure(due, run, actor, until) for due, run in begun]
            self._changed()
            raise
        for due, run in begun:
            self._runs.add(due, run, actor)

    async def _dues_of(self, transaction: ITransaction, entry_ids: set[str]) -> dict[str, Due]:
        """By their ids; of one that was deleted, as it was."""
        dues = {due.entry.id: due for due in await transaction.cron.seen(sorted(entry_ids))}
        for entry_id in entry_ids - dues.keys():
            versions = await transaction.cron.versions(entry_id)
            if versions:
                dues[entry_id] = await self._due_as_it_was(transaction, versions[0])
        return dues

    async def _due_as_it_was(self, transaction: ITransaction, entry: Entry) -> Due:
        container = None
        if entry.container_id is not None:
            container = await transaction.containers.find(entry.container_id)
        return Due(
            entry=entry,
            project_id=container.project_id if container else None,
            container=container.name if container else None,
        )

    async def _claim_all(self) -> None:
        """What is claimed is begun when all is: that takes longer. But it does not wait long."""
        late = self._reactor.seconds() + HOLD_SECONDS
        try:
            while self._call.running and await self._claim():
                if self._reactor.seconds() > late:
                    self._begin_claimed()
        finally:
            self._begin_claimed()

    def _begin_claimed(self) -> None:
        claimed, self._claimed = self._claimed, []
        for due, run in claimed:
            self._runs.add(due, run)

    async def _claim(self) -> bool:
        """@return: whether there may be more."""
        begun: list[tuple[Due, Run]] = []
        with self._claiming(begun):
            is_more = await self._claim_some(begun)
            self._claimed += begun
            begun.clear()
        return is_more

    async def _claim_some(self, begun: list[tuple[Due, Run]]) -> bool:
        async with self._store.transaction(patience=5) as transaction:
            now = self.now
            dues = await transaction.cron.due(self.server_id, now, BATCH)
            if not dues:
                return False
            claims = [
                (due, self._claim_of(due, now))
                async for due in unhurried(self._reactor, dues, MOST_SECONDS)
            ]
            await transaction.cron.set_next(
                {due.entry.id: made.next_fire_at for due, made in claims}
            )
            runs = [run for _, made in claims for run in (made.passed, made.run) if run]
            new = await transaction.cron.begin(runs)
            for due, made in claims:
                begun += self._tell(transaction, due, made, now, new)
        return len(dues) == BATCH

    def _claim_of(self, due: Due, now: datetime) -> Claim:
        """One whose times cannot be told keeps no other waiting."""
        try:
            return claim(due, now, self.server_id)
        except Exception as error:
            _log.failure("when the entry {id} is due cannot be told", id=due.entry.id)
            why = str(error) if isinstance(error, ValueError) else "when it is due is not known"
            return untold(due, now, self.server_id, why)

    def _tell(
        self, transaction: ITransaction, due: Due, made: Claim, now: datetime, new: set[str]
    ) -> list[tuple[Due, Run]]:
        """@return: what is to be begun."""
        if made.passed is not None and made.passed.id in new:
            transaction.record(told_of_run(due, made.passed, now, fires=made.count))
        if made.run.id not in new:
            return []  # the clock was set back, and this has been
        if made.run.status is RunStatus.RUNNING:
            return [(due, made.run)]
        transaction.record(told_of_run(due, made.run, now, error=made.why))
        return []

    async def _claim_again(self) -> int:
        begun: list[tuple[Due, Run]] = []
        with self._claiming(begun):
            return await self._claim_some_again(begun)

    async def _claim_some_again(self, begun: list[tuple[Due, Run]]) -> int:
        async with self._store.transaction(patience=5) as transaction:
            now = self.now
            dues = await transaction.cron.retries(self.server_id, now, BATCH)
            await transaction.cron.change_runs(
                [evolve(due.failed, retry_at=None) for due in dues if due.failed]
            )
            wanted = [due for due in dues if due.entry.enabled and not due.entry.expired]
            runs = [(due, again(due, now, self.server_id)) for due in wanted]
            new = await transaction.cron.begin([run for _, run in runs])
            for due, run in runs:
                if run.id not in new:
                    continue
                if run.status is RunStatus.RUNNING:
                    begun.append((due, run))
                else:
                    transaction.record(told_of_run(due, run, now))
        return len(dues)

    async def _expire(self) -> int:
        async with self._store.transaction(patience=5) as transaction:
            now = self.now
            dues = await transaction.cron.ending(self.server_id, now, BATCH)
            for due in dues:
                await transaction.cron.change(evolve(due.entry, expired=True, next_fire_at=None))
                transaction.record(told_of_expiry(due, now))
        return len(dues)

    async def _bring_forward(self) -> None:
        """
        The clock may have been set back, perhaps while nobody looked: what was to be due by
        the clock as it was may be due sooner. What has been a run already is not one again; but
        what was only said to be over by a clock that was ahead is yet to come.
        """
        async with self._store.transaction(patience=5) as transaction:
            seconds = timedelta(seconds=self._runs.retry_seconds)
            await transaction.cron.take_back(self.server_id, self.now, seconds)
        after = ""
        while True:
            async with self._store.transaction(patience=5) as transaction:
                now = self.now
                entries = await transaction.cron.later_than(self.server_id, now, after, BATCH)
                sooner = await self._sooner(entries, now)
                if sooner:
                    await transaction.cron.set_next(sooner)
            if len(entries) < BATCH or not self._call.running:
                return
            after = entries[-1].id
            await self._claim_all()  # there may be many entries, and it takes long

    async def _sooner(self, entries: list[Entry], now: datetime) -> dict[str, datetime | None]:
        found: dict[str, datetime | None] = {}
        async for entry in unhurried(self._reactor, entries, MOST_SECONDS):
            fire = None
            with suppress(Exception):  # it is told of when it is due
                fire = next_fire(entry, now)
            if fire is not None and entry.next_fire_at is not None and fire < entry.next_fire_at:
                found[entry.id] = fire
        return found

    # By hand

    async def run_now(self, entry: Entry, actor: str, request_id: str | None = None) -> Run:
        return await to_its_end(self._run_now(entry, actor, request_id))

    async def _run_now(self, entry: Entry, actor: str, request_id: str | None) -> Run:
        begun: list[tuple[Due, Run]] = []
        try:
            with self._claiming(begun, actor):
                return await self._claim_by_hand(begun, entry, actor, request_id)
        finally:
            self._asked -= {run.id for _, run in begun}

    async def _claim_by_hand(
        self, begun: list[tuple[Due, Run]], entry: Entry, actor: str, request_id: str | None
    ) -> Run:
        async with self._store.transaction() as transaction:
            now = self.now
            # Of two who ask at once, one waits here, and sees what the other has begun.
            found = await transaction.cron.find(entry.id, for_change=True)
            if found is None:
                raise NotThere("ENTRY_NOT_FOUND", f"The entry {entry.title!r} has been deleted.")
            [due] = await transaction.cron.seen([entry.id])
            owner = await self._owner(transaction, found)
            if owner != self.server_id:
                names = await transaction.servers.names({owner})
                raise Misdirected(
                    f"This entry runs on the server {names.get(owner, owner)}; ask that one."
                )
            run = by_hand(due, now, self.server_id)
            while run.id not in await transaction.cron.begin([run]):
                run = by_hand(due, now, self.server_id)  # another asked within this millisecond
            if run.status is RunStatus.RUNNING:
                self._asked.add(run.id)
                begun.append((due, run))
            else:
                transaction.record(told_of_run(due, run, now, actor=actor, request_id=request_id))
        return run

    async def _owner(self, transaction: ITransaction, entry: Entry) -> str:
        if entry.container_id is not None:
            container = await transaction.containers.find(entry.container_id)
            if container is not None:
                return container.server_id
        return entry.server_id
