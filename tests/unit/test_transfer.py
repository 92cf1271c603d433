"""Who is told what in a meeting, and what is left of it."""

from __future__ import annotations

import hashlib

import pytest
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from hoody.errors import (
    CallerError,
    FormHadNoFile,
    NothingToReceive,
    PeerError,
    TooMany,
    Unavailable,
    WaitedTooLong,
)
from hoody.interfaces import IReceiver, ISender
from hoody.pipes.heads import Head
from tests.support.parties import FakeReceiver, FakeSender, Meeting


@pytest.fixture
def meeting() -> Meeting:
    return Meeting()


def test_the_fakes_keep_to_the_interfaces() -> None:
    verifyObject(ISender, FakeSender())
    verifyObject(IReceiver, FakeReceiver())


def test_a_sender_that_comes_first_is_told_as_things_happen(meeting: Meeting) -> None:
    sender, receiver = FakeSender(), FakeReceiver()
    meeting.rendezvous.send("a", sender)
    assert sender.lines == ["Waiting for 1 receiver(s) to connect..."]
    meeting.rendezvous.receive("a", receiver)
    assert sender.lines[1:] == ["A receiver was connected.", "Streaming to 1 receiver(s)..."]
    sender.send(b"abc")
    sender.end()
    assert sender.lines[3:] == ["Upload complete."]
    receiver.acknowledge()
    assert sender.lines[4:] == ["Transfer complete."]
    assert sender.finished
    assert receiver.got == b"abc"
    assert meeting.clean


def test_a_sender_that_comes_last_hears_who_was_there(meeting: Meeting) -> None:
    receivers = [FakeReceiver(2), FakeReceiver(2)]
    for receiver in receivers:
        meeting.rendezvous.receive("a", receiver)
    sender = FakeSender(2)
    meeting.rendezvous.send("a", sender)
    assert sender.lines == [
        "Waiting for 2 receiver(s) to connect...",
        "2 receiver(s) already connected.",
        "Streaming to 2 receiver(s)...",
    ]


def test_nothing_is_moved_before_all_receivers_are_there(meeting: Meeting) -> None:
    sender = FakeSender(2)
    meeting.rendezvous.send("a", sender)
    meeting.rendezvous.receive("a", FakeReceiver(2))
    assert sender.consumer is None
    meeting.rendezvous.receive("a", FakeReceiver(2))
    assert sender.consumer is not None


def test_transfer_complete_waits_for_every_receipt(meeting: Meeting) -> None:
    sender, receivers = FakeSender(2), [FakeReceiver(2), FakeReceiver(2)]
    meeting.rendezvous.send("a", sender)
    for receiver in receivers:
        meeting.rendezvous.receive("a", receiver)
    sender.end()
    receivers[0].acknowledge()
    assert not sender.over
    receivers[1].acknowledge()
    assert sender.finished


def test_a_path_is_free_while_the_last_transfer_waits_for_its_receipt(meeting: Meeting) -> None:
    sender, receiver = FakeSender(), FakeReceiver()
    meeting.rendezvous.send("a", sender)
    meeting.rendezvous.receive("a", receiver)
    sender.end()
    following = FakeReceiver()
    meeting.rendezvous.receive("a", following)
    receiver.acknowledge()
    assert sender.finished
    assert following.failed is None
    assert meeting.rendezvous.paths == 1


@pytest.mark.parametrize("first", ["sender", "receiver"])
def test_a_different_n_is_refused_and_changes_nothing(meeting: Meeting, first: str) -> None:
    if first == "sender":
        meeting.rendezvous.send("a", FakeSender(2))
        with pytest.raises(CallerError, match="waits with n=2, you came with n=3"):
            meeting.rendezvous.receive("a", FakeReceiver(3))
    else:
        meeting.rendezvous.receive("a", FakeReceiver(2))
        with pytest.raises(CallerError, match="waits with n=2, you came with n=1"):
            meeting.rendezvous.send("a", FakeSender(1))
    assert meeting.caps.waiting == 1


def test_a_second_sender_a_receiver_too_many_and_a_guest_too_late_are_refused(
    meeting: Meeting,
) -> None:
    meeting.rendezvous.receive("a", FakeReceiver(2))
    meeting.rendezvous.receive("a", FakeReceiver(2))
    with pytest.raises(CallerError, match="All 2 receiver"):
        meeting.rendezvous.receive("a", FakeReceiver(2))
    meeting.rendezvous.send("b", FakeSender())
    with pytest.raises(CallerError, match="A sender is on this path already"):
        meeting.rendezvous.send("b", FakeSender())
    meeting.rendezvous.receive("b", FakeReceiver())
    with pytest.raises(CallerError, match="A transfer is running"):
        meeting.rendezvous.send("b", FakeSender())
    with pytest.raises(CallerError, match="A transfer is running"):
        meeting.rendezvous.receive("b", FakeReceiver())


def test_each_party_waits_its_own_time(meeting: Meeting) -> None:
    early, late, sender = FakeReceiver(3), FakeReceiver(3), FakeSender(3)
    meeting.rendezvous.receive("a", early)
    meeting.clock.advance(200)
    meeting.rendezvous.receive("a", late)
    meeting.rendezvous.send("a", sender)
    meeting.clock.advance(100)
    assert isinstance(early.failed, WaitedTooLong)
    assert late.failed is None
    assert sender.lines[-1] == "A receiver left before the start; 1 still connected."
    meeting.rendezvous.receive("a", FakeReceiver(3))
    meeting.clock.advance(200)
    assert isinstance(late.failed, WaitedTooLong)
    assert isinstance(sender.failed, WaitedTooLong)


def test_a_place_is_free_again_after_its_time(meeting: Meeting) -> None:
    meeting.rendezvous.send("a", FakeSender())
    meeting.clock.advance(300)
    assert meeting.clean
    meeting.rendezvous.send("a", FakeSender())


def test_a_running_transfer_has_no_time_limit(meeting: Meeting) -> None:
    sender, receiver = FakeSender(), FakeReceiver()
    meeting.rendezvous.send("a", sender)
    meeting.rendezvous.receive("a", receiver)
    meeting.clock.advance(10**7)
    sender.send(b"still here")
    assert receiver.got == b"still here"


def test_a_waiting_sender_is_told_every_25_seconds(meeting: Meeting) -> None:
    sender = FakeSender()
    meeting.rendezvous.send("a", sender)
    meeting.clock.pump([25] * 4)
    assert sender.lines[1:] == ["Still waiting..."] * 4
    meeting.rendezvous.receive("a", FakeReceiver())
    meeting.clock.pump([25] * 4)
    assert sender.lines[-1] == "Streaming to 1 receiver(s)..."


def test_a_sender_that_breaks_off_breaks_its_receivers(meeting: Meeting) -> None:
    sender, receivers = FakeSender(2), [FakeReceiver(2), FakeReceiver(2)]
    transfer = meeting.rendezvous.send("a", sender)
    for receiver in receivers:
        meeting.rendezvous.receive("a", receiver)
    sender.send(b"abc")
    transfer.leaves(sender, ConnectionError("reset"))
    assert all(isinstance(receiver.failed, PeerError) for receiver in receivers)
    assert meeting.reports.ends[0].error == "The sender broke off: reset"
    assert meeting.reports.ends[0].delivered == 3
    assert meeting.clean


def test_the_others_go_on_when_one_receiver_breaks_off(meeting: Meeting) -> None:
    sender = FakeSender(3)
    receivers = [FakeReceiver(3, f"10.0.0.{number}") for number in (1, 2, 3)]
    transfer = meeting.rendezvous.send("a", sender)
    for receiver in receivers:
        meeting.rendezvous.receive("a", receiver)
    sender.send(b"abc")
    receivers[1].full()
    assert sender.paused
    transfer.leaves(receivers[1], ConnectionError("reset"))
    assert not sender.paused
    assert sender.lines[-1] == (
        "Receiver 2 of 3 (10.0.0.2) broke off after being sent 3 bytes (reset); 2 left."
    )
    sender.send(b"def")
    sender.end()
    receivers[0].acknowledge()
    receivers[2].acknowledge()
    assert receivers[0].got == receivers[2].got == b"abcdef"
    assert isinstance(sender.failed, PeerError)
    assert sender.failed.sentence == "Only 2 of 3 receivers got everything."
    assert "Transfer complete." not in sender.lines
    assert meeting.clean


def test_a_sender_whose_last_receiver_breaks_off_is_told_and_closed(meeting: Meeting) -> None:
    sender, receivers = FakeSender(2), [FakeReceiver(2), FakeReceiver(2)]
    transfer = meeting.rendezvous.send("a", sender)
    for receiver in receivers:
        meeting.rendezvous.receive("a", receiver)
    for receiver in receivers:
        transfer.leaves(receiver, ConnectionError("reset"))
    assert sender.failed is not None
    assert sender.failed.sentence == "All 2 receivers broke off; nobody is left to send to."
    assert meeting.clean


def test_a_receiver_lost_before_its_receipt_is_not_a_success(meeting: Meeting) -> None:
    sender, receiver = FakeSender(), FakeReceiver()
    meeting.rendezvous.send("a", sender)
    meeting.rendezvous.receive("a", receiver)
    sender.send(b"abc")
    sender.end()
    assert receiver.receipt is not None
    receiver.receipt.errback(Failure(PeerError("it left")))
    assert sender.failed is not None
    assert "Transfer complete." not in sender.lines
    assert meeting.reports.ends[0].error is not None
    assert meeting.clean


def test_a_sender_that_leaves_after_its_last_byte_spoils_nothing(meeting: Meeting) -> None:
    sender, receiver = FakeSender(), FakeReceiver()
    transfer = meeting.rendezvous.send("a", sender)
    meeting.rendezvous.receive("a", receiver)
    sender.send(b"abc")
    sender.end()
    transfer.leaves(sender, ConnectionError("gone"))
    receiver.acknowledge()
    assert receiver.failed is None
    assert meeting.reports.ends[0].error is None
    assert meeting.clean


def test_a_digest_is_told_to_both_sides(meeting: Meeting) -> None:
    sender, receiver = FakeSender(head=Head(digest=True)), FakeReceiver()
    meeting.rendezvous.send("a", sender)
    meeting.rendezvous.receive("a", receiver)
    sender.send(b"ab")
    sender.send(b"c")
    sender.end()
    receiver.acknowledge()
    digest = hashlib.sha256(b"abc")
    assert receiver.digest == digest.digest()
    assert f"Digest: sha256={digest.hexdigest()}" in sender.lines
    assert meeting.reports.ends[0].digest == digest.digest()


def test_a_form_is_accepted_when_it_comes_to_its_file(meeting: Meeting) -> None:
    sender, receiver = FakeSender(head=None), FakeReceiver()
    meeting.rendezvous.receive("a", receiver)
    transfer = meeting.rendezvous.send("a", sender)
    assert not sender.accepted
    assert receiver.head is None
    sender.head = Head()
    transfer.head_known()
    assert sender.lines == [
        "Waiting for 1 receiver(s) to connect...",
        "1 receiver(s) already connected.",
        "Streaming to 1 receiver(s)...",
    ]


def test_a_form_without_a_file_fails_both_sides_after_30_seconds(meeting: Meeting) -> None:
    sender, receiver = FakeSender(head=None), FakeReceiver()
    meeting.rendezvous.receive("a", receiver)
    meeting.rendezvous.send("a", sender)
    meeting.clock.advance(30)
    assert isinstance(sender.failed, FormHadNoFile)
    assert isinstance(receiver.failed, NothingToReceive)
    assert (sender.failed.status, receiver.failed.status) == (400, 500)
    assert meeting.clean


def test_caps_count_parties_and_let_the_counterpart_in() -> None:
    meeting = Meeting(max_waiting=2)
    meeting.rendezvous.send("a", FakeSender())
    meeting.rendezvous.send("b", FakeSender())
    with pytest.raises(TooMany, match="2 senders and receivers wait already"):
        meeting.rendezvous.send("c", FakeSender())
    meeting.rendezvous.receive("a", FakeReceiver())
    meeting.rendezvous.send("c", FakeSender())
    assert meeting.rendezvous.paths == 3


def test_one_address_cannot_take_all_places_but_loopback_can() -> None:
    meeting = Meeting(max_waiting_per_address=2)
    for path in ("a", "b"):
        meeting.rendezvous.send(path, FakeSender())
    with pytest.raises(TooMany, match=r"from 10\.0\.0\.1"):
        meeting.rendezvous.send("c", FakeSender())
    for path in "defg":
        meeting.rendezvous.send(path, FakeSender(address="127.0.0.1"))
        meeting.rendezvous.receive(f"{path}6", FakeReceiver(address="::ffff:127.0.0.1"))
    meeting.rendezvous.send("h", FakeSender(address="10.0.0.9"))


def test_the_pipe_over_the_cap_does_not_start() -> None:
    meeting = Meeting(max_running=1)
    for path in ("a", "b"):
        meeting.rendezvous.send(path, FakeSender())
    meeting.rendezvous.receive("a", FakeReceiver())
    with pytest.raises(TooMany, match="1 pipes run already"):
        meeting.rendezvous.receive("b", FakeReceiver())
    assert meeting.caps.waiting == 1


def test_a_form_over_the_cap_is_told_when_it_comes_to_its_file() -> None:
    meeting = Meeting(max_running=1)
    form, receiver = FakeSender(head=None), FakeReceiver()
    meeting.rendezvous.receive("b", receiver)
    transfer = meeting.rendezvous.send("b", form)
    meeting.rendezvous.send("a", FakeSender())
    meeting.rendezvous.receive("a", FakeReceiver())
    form.head = Head()
    transfer.head_known()
    assert isinstance(form.failed, TooMany)
    assert receiver.failed is None
    assert meeting.caps.running == meeting.caps.waiting == 1


def test_draining_turns_away_who_waits_and_who_comes_and_lets_who_runs_end() -> None:
    meeting = Meeting()
    sender, receiver, waiting = FakeSender(), FakeReceiver(), FakeReceiver()
    meeting.rendezvous.send("a", sender)
    meeting.rendezvous.receive("a", receiver)
    meeting.rendezvous.receive("b", waiting)
    done = meeting.rendezvous.drain()
    assert isinstance(waiting.failed, Unavailable)
    with pytest.raises(Unavailable):
        meeting.rendezvous.send("c", FakeSender())
    assert not done.called
    sender.end()
    assert not done.called
    receiver.acknowledge()
    assert done.called
    assert sender.finished


def test_a_cut_ends_what_runs_and_what_waits_for_a_receipt() -> None:
    meeting = Meeting()
    pairs = [(FakeSender(), FakeReceiver()), (FakeSender(), FakeReceiver())]
    for path, (sender, receiver) in zip("ab", pairs, strict=True):
        meeting.rendezvous.send(path, sender)
        meeting.rendezvous.receive(path, receiver)
    pairs[1][0].end()
    done = meeting.rendezvous.drain()
    meeting.rendezvous.cut()
    assert done.called
    for sender, receiver in pairs:
        assert isinstance(sender.failed, Unavailable)
        assert isinstance(receiver.failed, Unavailable)
    assert meeting.clean
