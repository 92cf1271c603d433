"""What a transfer keeps in each of its states, and what it needs of the world."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from hoody.errors import CallerError
from hoody.interfaces import IMover, IParty, IPipeObserver, IReceiver, ISender
from hoody.pipes.caps import Caps
from hoody.pipes.progress import Standing, State

MoverFactory = Callable[[ISender, list[IReceiver], Callable[[], None]], IMover]
"""Makes the mover of one transfer; the last argument is to be called at the body's end."""


@frozen(kw_only=True)
class Report:
    """
    How a transfer ended.

    @ivar delivered: bytes of the body that the slowest receiver was given.
    @ivar spliced: bytes of the body that the kernel moved by itself.
    @ivar total: bytes that the sender said there would be, or C{None}.
    @ivar started: and C{ended}, seconds of the reactor's clock.
    @ivar error: why it failed, or C{None}.
    """

    path: str
    receivers: int
    delivered: int
    spliced: int
    total: int | None
    started: float
    ended: float
    digest: bytes | None
    error: str | None


@frozen(kw_only=True)
class Patience:
    """How long to wait, in seconds: for a counterpart, for a form's file, between notes."""

    ttl: float
    form: float
    note: float


@define(kw_only=True, eq=False)
class Core:
    """
    What a transfer needs of the world.

    @ivar free: called once, when the path can be used anew.
    @ivar over: called once, when nothing of the transfer is left.
    """

    path: str
    clock: IReactorTime
    patience: Patience
    caps: Caps
    observer: IPipeObserver
    make_mover: MoverFactory
    free: Callable[[], None]
    over: Callable[[], None]


@define(eq=False)
class Gathered:
    """
    Who is there, of those who have not started yet.

    @ivar timers: of each party, and of the notes and the form's deadline.
    """

    sender: ISender | None = None
    receivers: list[IReceiver] = field(factory=list)
    timers: dict[object, IDelayedCall] = field(factory=dict)

    @property
    def wanted(self) -> int | None:
        """C{n}, once somebody has said it."""
        parties = self.parties
        return parties[0].wanted if parties else None

    @property
    def parties(self) -> list[IParty]:
        return ([self.sender] if self.sender else []) + list(self.receivers)

    @property
    def sender_ready(self) -> bool:
        """Whether there is a sender, and one that knows what it sends."""
        return self.sender is not None and self.sender.head is not None

    @property
    def complete(self) -> bool:
        return self.sender_ready and len(self.receivers) == self.wanted

    @property
    def standing(self) -> Standing:
        """Who is there, for spectators."""
        if not self.parties:
            return Standing(State.IDLE)
        return Standing(
            State.WAITING, self.sender is not None, len(self.receivers), self.wanted or 0
        )

    def admit(self, core: Core, party: IParty, completes: bool, ready: bool) -> None:
        """
        Give this party its place, or raise before anything has changed.

        @param completes: whether it is the last to come.
        @param ready: whether nothing else is to be waited for then.
        """
        if self.wanted not in (None, party.wanted):
            raise CallerError(
                f"This path waits with n={self.wanted}, you came with n={party.wanted};"
                " use the same n on both sides."
            )
        if completes:
            core.caps.check_run()
        if not (completes and ready):
            core.caps.check_wait(party)
        core.caps.waits(party)

    def forget(self, core: Core, party: IParty) -> None:
        """This party's place is free again."""
        core.caps.waits_no_more(party)
        self.stop(party)
        if party is self.sender:
            self.sender = None
            self.stop("note")
            self.stop("form")
        else:
            self.receivers = [receiver for receiver in self.receivers if receiver is not party]

    def tell(self, line: str) -> None:
        """Say it to the sender, if there is one to listen."""
        if self.sender_ready:
            assert self.sender is not None
            self.sender.tell(line)

    def start(
        self,
        core: Core,
        timer: object,
        seconds: float,
        then: Callable[..., None],
        *args: object,
    ) -> None:
        """Keep C{timer} under its name, to be stopped."""
        self.timers[timer] = core.clock.callLater(seconds, then, *args)

    def stop(self, timer: object) -> None:
        """Stop C{timer}, if it runs."""
        call = self.timers.pop(timer, None)
        if call is not None and call.active():
            call.cancel()


@define(eq=False)
class Running:
    """
    Who is still with a transfer that has started.

    @ivar sender: C{None} once it has gone after its body was whole.
    @ivar numbers: what to call each receiver that is still of use: the first to
        arrive is 1.
    @ivar total: bytes that the sender said there would be, or C{None}.
    @ivar pending: those we have not heard from, after the end.
    @ivar lost: how many receivers broke off.
    """

    mover: IMover
    sender: ISender | None
    numbers: dict[IReceiver, int]
    wanted: int
    total: int | None
    started: float
    pending: set[IReceiver] = field(factory=set, init=False)
    lost: int = field(default=0, init=False)
    _most_lost: int = field(default=0, init=False)

    def lose(self, receiver: IReceiver, error: BaseException) -> None:
        """Go on without this receiver, and tell the sender which it was."""
        number = self.numbers.pop(receiver)
        self.pending.discard(receiver)
        self.lost += 1
        self.mover.drop(receiver)
        given = self.mover.delivered(receiver)
        self._most_lost = max(self._most_lost, given)
        if self.sender:
            self.sender.tell(
                f"Receiver {number} of {self.wanted} ({receiver.address or 'local'}) broke off"
                f" after being sent {given} bytes ({error}); {len(self.numbers)} left."
            )

    @property
    def standing(self) -> Standing:
        """Who is there, for spectators."""
        return Standing(State.STREAMING, self.sender is not None, len(self.numbers), self.wanted)

    @property
    def delivered(self) -> int:
        """
        Bytes that the slowest of those who stayed was given; if none did, the
        most that one of those who left was.
        """
        if not self.numbers:
            return self._most_lost
        return min(map(self.mover.delivered, self.numbers))

    @property
    def arrived(self) -> int:
        """
        Those of L{delivered} that have arrived; a few less, as what frames them counts as
        bytes under way, too. It may go back by as much.
        """
        if not self.numbers:
            return self._most_lost
        mover = self.mover
        return max(
            min(
                mover.delivered(each) - mover.waiting(each) - each.outstanding
                for each in self.numbers
            ),
            0,
        )
