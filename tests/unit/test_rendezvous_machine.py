"""Any order of arrivals, leavings, time-outs and data, against a plain model."""

from __future__ import annotations

from typing import Any

from attrs import define
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from twisted.python.failure import Failure

from hoody.errors import CallerError, PeerError
from hoody.pipes.heads import Head
from hoody.pipes.transfer import Transfer
from tests.support.parties import FakeReceiver, FakeSender, Meeting

PATHS = st.sampled_from(["a", "b"])
WANTED = st.sampled_from([1, 1, 2, 3])


@define(eq=False)
class Seat:
    """One party, and the transfer it got a place in."""

    path: str
    party: Any
    transfer: Transfer
    gone: bool = False


class Strangers(RuleBasedStateMachine):
    """
    The model is what the parties themselves have seen: what may be true of
    them together, whatever happened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.meeting = Meeting()
        self.seats: list[Seat] = []
        self.sent: dict[FakeSender, bytes] = {}

    senders = Bundle("senders")
    receivers = Bundle("receivers")

    def _arrive(self, path: str, party: Any) -> Seat | None:
        before = (
            self.meeting.caps.waiting,
            self.meeting.caps.running,
            self.meeting.rendezvous.paths,
        )
        arrive = (
            self.meeting.rendezvous.send
            if isinstance(party, FakeSender)
            else self.meeting.rendezvous.receive
        )
        try:
            transfer = arrive(path, party)
        except CallerError:
            after = (
                self.meeting.caps.waiting,
                self.meeting.caps.running,
                self.meeting.rendezvous.paths,
            )
            assert before == after, "a refusal changed something"
            return None
        seat = Seat(path, party, transfer)
        self.seats.append(seat)
        return seat

    @rule(target=senders, path=PATHS, wanted=WANTED, form=st.booleans())
    def sender_arrives(self, path: str, wanted: int, form: bool) -> Seat | None:
        seat = self._arrive(path, FakeSender(wanted, None if form else Head()))
        if seat is not None:
            self.sent[seat.party] = b""
        return seat

    @rule(target=receivers, path=PATHS, wanted=WANTED)
    def receiver_arrives(self, path: str, wanted: int) -> Seat | None:
        return self._arrive(path, FakeReceiver(wanted))

    @rule(seat=senders)
    def form_comes_to_its_file(self, seat: Seat | None) -> None:
        if seat and not seat.gone and not seat.party.over and seat.party.head is None:
            seat.party.head = Head()
            seat.transfer.head_known()

    @rule(seat=senders, data=st.binary(min_size=1, max_size=4))
    def data_flows(self, seat: Seat | None, data: bytes) -> None:
        if seat and not seat.gone and not seat.party.over and self._moving(seat):
            self.sent[seat.party] += data
            seat.party.send(data)

    @rule(seat=senders)
    def body_ends(self, seat: Seat | None) -> None:
        if seat and not seat.gone and not seat.party.over and self._moving(seat):
            seat.party.end()
            seat.party.consumer = None

    def _moving(self, seat: Seat) -> bool:
        return seat.party.consumer is not None

    @rule(seat=receivers, full=st.booleans())
    def receiver_pauses_or_resumes(self, seat: Seat | None, full: bool) -> None:
        if seat and not seat.gone and seat.party.producer is not None:
            seat.party.full() if full else seat.party.hungry()

    @rule(seat=receivers, well=st.booleans())
    def receipt_comes(self, seat: Seat | None, well: bool) -> None:
        if seat and not seat.gone and seat.party.receipt and not seat.party.receipt.called:
            if well:
                seat.party.receipt.callback(None)
            else:
                seat.party.receipt.errback(Failure(PeerError("lost")))

    @rule(seat=consumes(senders))
    def sender_leaves(self, seat: Seat | None) -> None:
        self._leave(seat)

    @rule(seat=consumes(receivers))
    def receiver_leaves(self, seat: Seat | None) -> None:
        self._leave(seat)

    def _leave(self, seat: Seat | None) -> None:
        if seat and not seat.gone:
            seat.gone = True
            seat.transfer.leaves(seat.party, ConnectionError("gone"))

    @rule(seconds=st.sampled_from([1, 26, 31, 150, 301]))
    def time_passes(self, seconds: int) -> None:
        self.meeting.clock.advance(seconds)

    @invariant()
    def no_byte_is_lost_doubled_or_out_of_order(self) -> None:
        for seat in self.seats:
            if isinstance(seat.party, FakeReceiver) and seat.party.got:
                sources = [
                    sent
                    for sender, sent in self.sent.items()
                    if sent
                    and any(
                        other.party is sender and other.transfer is seat.transfer
                        for other in self.seats
                    )
                ]
                assert len(sources) == 1
                assert sources[0].startswith(seat.party.got)
                whole = seat.party.receipt is not None and seat.party.failed is None
                assert not whole or seat.party.got == sources[0]

    @invariant()
    def the_slowest_receiver_paces_the_sender(self) -> None:
        for seat in self.seats:
            if isinstance(seat.party, FakeSender) and seat.party.paused and not seat.party.over:
                assert any(
                    other.transfer is seat.transfer
                    and isinstance(other.party, FakeReceiver)
                    and other.party.producer is not None
                    for other in self.seats
                ), "a sender is held by nobody"

    @invariant()
    def nobody_is_both_well_and_failed(self) -> None:
        for seat in self.seats:
            if isinstance(seat.party, FakeSender):
                assert not (seat.party.finished and seat.party.failed)
                told = "Transfer complete." in seat.party.lines
                assert told == seat.party.finished

    @invariant()
    def counts_are_never_negative(self) -> None:
        assert self.meeting.caps.waiting >= 0
        assert self.meeting.caps.running >= 0
        assert self.meeting.rendezvous.paths <= self.meeting.rendezvous.transfers

    def teardown(self) -> None:
        for seat in self.seats:
            self._leave(seat)
        assert self.meeting.clean, "something is left when everybody has gone"
        assert len(self.meeting.reports.begun) == len(self.meeting.reports.ends)


TestStrangers = Strangers.TestCase
