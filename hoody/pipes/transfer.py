"""
One meeting on one path, from the first arrival to the last acknowledgement:
who may come when, who is told what, and what is left of it afterwards.

The machine is pure: parties, mover and clock are given to it, and a test may
play all three.
"""

from __future__ import annotations

from typing import Protocol

from automat import TypeMachineBuilder

from hoody.errors import (
    CallerError,
    FormHadNoFile,
    HoodyError,
    NothingToReceive,
    PeerError,
    TooMany,
    WaitedTooLong,
)
from hoody.interfaces import IParty, IReceiver, ISender
from hoody.pipes.heads import Head
from hoody.pipes.meeting import Core, Gathered, Report, Running


class Transfer(Protocol):
    """What can happen to a transfer: first what others tell it, then its own steps."""

    def sender_arrives(self, sender: ISender) -> None:
        """@raise CallerError: if there is no place for it."""

    def receiver_arrives(self, receiver: IReceiver) -> None:
        """@raise CallerError: if there is no place for it."""

    def head_known(self) -> None:
        """The sender's form has come to its file."""

    def form_fails(self, error: HoodyError) -> None:
        """It never will."""

    def leaves(self, party: IParty, error: BaseException) -> None:
        """This party's connection is gone, or worthless."""

    def upload_ends(self) -> None:
        """The body has come to its end, and the mover has all of it."""

    def drain(self, error: HoodyError) -> None:
        """Who waits shall wait no more; who runs may go on."""

    def cut(self, error: HoodyError) -> None:
        """End now, whatever it is."""

    def abandoned(self) -> None:
        """Somebody was refused; if that was the first to come, nobody is here."""

    def expires(self, party: IParty) -> None:
        """This party's patience is at an end."""

    def note(self) -> None:
        """Time to tell the sender that it still waits."""

    def empties(self) -> None:
        """The last of those who waited has left."""

    def begins(self, gathered: Gathered) -> None:
        """All are there."""

    def moves(self) -> None:
        """All have been told; bytes may flow."""

    def confirms(self, running: Running) -> None:
        """Every byte is on its way, what is left is to hear that it arrived."""

    def receipt(self, receiver: IReceiver) -> None:
        """This receiver's kernel has acknowledged everything."""

    def settles(self) -> None:
        """Nobody is left to hear from."""

    def fails(self, error: HoodyError) -> None:
        """It cannot go on."""

    def look(self) -> Gathered | Running | None:
        """What it keeps now, which says who is there; C{None} when it is over."""


builder: TypeMachineBuilder[Transfer, Core] = TypeMachineBuilder(Transfer, Core)


def gather(transfer: Transfer, core: Core) -> Gathered:
    """Where every transfer begins: with nobody."""
    return Gathered()


def _run(transfer: Transfer, core: Core, gathered: Gathered) -> Running:
    assert gathered.sender is not None
    return Running(
        mover=core.make_mover(gathered.sender, gathered.receivers, transfer.upload_ends),
        sender=gathered.sender,
        numbers={receiver: 1 + index for index, receiver in enumerate(gathered.receivers)},
        wanted=gathered.sender.wanted,
        total=_total(gathered.sender.head),
        started=core.clock.seconds(),
    )


def _total(head: Head | None) -> int | None:
    assert head is not None
    return head.expected if head.length is None else head.length


def _keep(transfer: Transfer, core: Core, running: Running) -> Running:
    return running


over = builder.state("over")
gathering = builder.state("gathering", gather)
streaming = builder.state("streaming", _run)
confirming = builder.state("confirming", _keep)


# Gathering: in any order, each with its own patience.


@gathering.upon(Transfer.sender_arrives).loop()
def _seat_sender(transfer: Transfer, core: Core, gathered: Gathered, sender: ISender) -> None:
    if gathered.sender is not None:
        # Of one that was killed while it was held back nothing is heard until it is told
        # something: who tries again in a moment finds its place free.
        gathered.tell("Still waiting...")
        raise CallerError(
            "A sender is on this path already; choose another path, or wait for its end."
        )
    gathered.admit(core, sender, len(gathered.receivers) == sender.wanted, sender.head is not None)
    gathered.sender = sender
    core.observer.changed(core.path, gathered)
    gathered.start(core, sender, core.patience.ttl, transfer.expires, sender)
    if sender.head is not None:
        transfer.head_known()
    else:
        sentence = (
            f"The form came to no file within {core.patience.form:g} s; send a part that has a"
            ' filename, as curl -F "file=@NAME" does.'
        )
        gathered.start(
            core, "form", core.patience.form, transfer.form_fails, FormHadNoFile(sentence)
        )


@gathering.upon(Transfer.head_known).loop()
def _accept_sender(transfer: Transfer, core: Core, gathered: Gathered) -> None:
    sender = gathered.sender
    assert sender is not None
    gathered.stop("form")
    if gathered.complete:
        try:
            core.caps.check_run()
        except TooMany as error:
            gathered.forget(core, sender)
            core.observer.changed(core.path, gathered)
            sender.fail(error)
            return
    sender.accept()
    sender.tell(f"Waiting for {sender.wanted} receiver(s) to connect...")
    if gathered.receivers:
        sender.tell(f"{len(gathered.receivers)} receiver(s) already connected.")
    if gathered.complete:
        transfer.begins(gathered)
    else:
        gathered.start(core, "note", core.patience.note, transfer.note)


@gathering.upon(Transfer.receiver_arrives).loop()
def _seat_receiver(
    transfer: Transfer, core: Core, gathered: Gathered, receiver: IReceiver
) -> None:
    if len(gathered.receivers) == gathered.wanted == receiver.wanted:
        raise CallerError(
            f"All {gathered.wanted} receiver(s) of this path are there already; to have more,"
            " use a larger n on both sides."
        )
    filled = gathered.sender is not None and len(gathered.receivers) + 1 == receiver.wanted
    gathered.admit(core, receiver, filled, gathered.sender_ready)
    gathered.receivers.append(receiver)
    core.observer.changed(core.path, gathered)
    gathered.start(core, receiver, core.patience.ttl, transfer.expires, receiver)
    gathered.tell("A receiver was connected.")
    if gathered.complete:
        transfer.begins(gathered)


@gathering.upon(Transfer.note).loop()
def _tell_still_waiting(transfer: Transfer, core: Core, gathered: Gathered) -> None:
    gathered.tell("Still waiting...")
    gathered.start(core, "note", core.patience.note, transfer.note)


@gathering.upon(Transfer.leaves).loop()
def _vacate(
    transfer: Transfer, core: Core, gathered: Gathered, party: IParty, error: BaseException
) -> None:
    if party in gathered.parties:
        gathered.forget(core, party)
        gathered.tell(
            f"A receiver left before the start; {len(gathered.receivers)} still connected."
        )
        if gathered.parties:
            core.observer.changed(core.path, gathered)
        else:
            transfer.empties()


@gathering.upon(Transfer.expires).loop()
def _expire(transfer: Transfer, core: Core, gathered: Gathered, party: IParty) -> None:
    waited = f"within {core.patience.ttl:g} s"
    if gathered.sender is not None:
        sentence = f"Not all receivers came {waited}; start all of them, and the sender, again."
    else:
        sentence = f"Nothing was sent here {waited}; start the sender, then receive again."
    transfer.leaves(party, WaitedTooLong(sentence))
    party.fail(WaitedTooLong(sentence))


@gathering.upon(Transfer.form_fails).loop()
def _fail_form(transfer: Transfer, core: Core, gathered: Gathered, error: HoodyError) -> None:
    apology = NothingToReceive("The sender's form held no file; ask for it to be sent again.")
    for party in gathered.parties:
        sentence = error if party is gathered.sender else apology
        gathered.forget(core, party)
        party.fail(sentence)
    transfer.empties()


@gathering.upon(Transfer.abandoned).loop()
def _close_unless_used(transfer: Transfer, core: Core, gathered: Gathered) -> None:
    if not gathered.parties:
        transfer.empties()


def _turn_away(transfer: Transfer, core: Core, gathered: Gathered, error: HoodyError) -> None:
    for party in gathered.parties:
        gathered.forget(core, party)
        party.fail(error)
    transfer.empties()


gathering.upon(Transfer.drain).loop()(_turn_away)
gathering.upon(Transfer.cut).loop()(_turn_away)


@gathering.upon(Transfer.empties).to(over)
def _close(transfer: Transfer, core: Core, gathered: Gathered) -> None:
    core.free()
    core.observer.changed(core.path, gathered)
    core.over()


@gathering.upon(Transfer.begins).to(streaming)
def _begin(transfer: Transfer, core: Core, before: Gathered, gathered: Gathered) -> None:
    for timer in tuple(gathered.timers):
        gathered.stop(timer)
    for party in gathered.parties:
        core.caps.waits_no_more(party)
    core.caps.running += 1
    gathered.tell(f"Streaming to {gathered.wanted} receiver(s)...")
    assert gathered.sender is not None
    assert gathered.sender.head is not None
    for receiver in gathered.receivers:
        receiver.begin(gathered.sender.head)
    transfer.moves()


# Streaming: nobody else may come, and whoever breaks off is gone.


_TAKEN = "A transfer is running on this path; choose another, or wait for its end."


@streaming.upon(Transfer.sender_arrives).loop()
def _refuse_sender(transfer: Transfer, core: Core, running: Running, sender: ISender) -> None:
    raise CallerError(_TAKEN)


@streaming.upon(Transfer.receiver_arrives).loop()
def _refuse_receiver(
    transfer: Transfer, core: Core, running: Running, receiver: IReceiver
) -> None:
    raise CallerError(_TAKEN)


@streaming.upon(Transfer.moves).loop()
def _start_mover(transfer: Transfer, core: Core, running: Running) -> None:
    core.observer.started(core.path, running)
    running.mover.start()


@streaming.upon(Transfer.leaves).loop()
def _go_on_without(
    transfer: Transfer, core: Core, running: Running, party: IParty, error: BaseException
) -> None:
    if party is running.sender:
        transfer.fails(PeerError(f"The sender broke off: {error}"))
    elif party in running.numbers:
        running.lose(party, error)
        core.observer.changed(core.path, running)
        if not running.numbers:
            transfer.fails(PeerError(_all_gone(running)))


def _all_gone(running: Running) -> str:
    return (
        "The receiver broke off; nobody is left to send to."
        if running.wanted == 1
        else f"All {running.wanted} receivers broke off; nobody is left to send to."
    )


@streaming.upon(Transfer.upload_ends).loop()
def _end_upload(transfer: Transfer, core: Core, running: Running) -> None:
    transfer.confirms(running)


@streaming.upon(Transfer.confirms).to(confirming)
def _ask_for_receipts(transfer: Transfer, core: Core, before: Running, running: Running) -> None:
    digest = running.mover.digest
    if running.sender:
        running.sender.tell("Upload complete.")
        if digest is not None:
            running.sender.tell(f"Digest: sha256={digest.hex()}")
    running.pending.update(running.numbers)
    for receiver in tuple(running.numbers):
        receiver.complete(digest).addCallbacks(
            lambda _, receiver=receiver: transfer.receipt(receiver),
            lambda failure, receiver=receiver: transfer.leaves(receiver, failure.value),
        )
    # From here on bytes only drain: a client in a loop may come back for the
    # next transfer before its kernel has acknowledged the last one.
    core.free()


# Confirming: what was sent is counted as arrived only when it has been acknowledged.


@confirming.upon(Transfer.receipt).loop()
def _count_receipt(transfer: Transfer, core: Core, running: Running, receiver: IReceiver) -> None:
    running.pending.discard(receiver)
    if not running.pending:
        transfer.settles()


@confirming.upon(Transfer.leaves).loop()
def _lose_late(
    transfer: Transfer, core: Core, running: Running, party: IParty, error: BaseException
) -> None:
    if party is running.sender:
        running.sender = None
    elif party in running.pending:
        running.lose(party, error)
        core.observer.changed(core.path, running)
        if not running.numbers:
            transfer.fails(PeerError(_all_gone(running)))
        elif not running.pending:
            transfer.settles()


@confirming.upon(Transfer.settles).loop()
def _settle(transfer: Transfer, core: Core, running: Running) -> None:
    if running.lost:
        whole = f"{len(running.numbers)} of {running.wanted}"
        transfer.fails(PeerError(f"Only {whole} receivers got everything."))
        return
    # It is told of before anybody is told that all is well.
    _conclude(core, running, None)
    if running.sender:
        running.sender.tell("Transfer complete.")
        running.sender.finish()
    transfer.empties()


@confirming.upon(Transfer.empties).to(over)
def _end_well(transfer: Transfer, core: Core, running: Running) -> None:
    core.over()


# Failing: who is left is shown an end that nobody can take for a clean one.


@streaming.upon(Transfer.fails).to(over)
def _fail(transfer: Transfer, core: Core, running: Running, error: HoodyError) -> None:
    core.free()
    _break_off(core, running, tuple(running.numbers), error)


@confirming.upon(Transfer.fails).to(over)
def _fail_late(transfer: Transfer, core: Core, running: Running, error: HoodyError) -> None:
    _break_off(core, running, tuple(running.pending), error)


def _break_off(
    core: Core, running: Running, receivers: tuple[IReceiver, ...], error: HoodyError
) -> None:
    _conclude(core, running, error.sentence)
    for receiver in receivers:
        running.mover.drop(receiver)
        receiver.fail(error)
    if running.sender:
        running.sender.fail(error)
    core.over()


def _cut(transfer: Transfer, core: Core, running: Running, error: HoodyError) -> None:
    transfer.fails(error)


streaming.upon(Transfer.cut).loop()(_cut)
confirming.upon(Transfer.cut).loop()(_cut)


def _conclude(core: Core, running: Running, error: str | None) -> None:
    core.caps.running -= 1
    core.observer.ended(
        Report(
            path=core.path,
            receivers=running.wanted,
            delivered=running.delivered,
            spliced=running.mover.spliced,
            total=running.total,
            started=running.started,
            ended=core.clock.seconds(),
            digest=None if error else running.mover.digest,
            error=error,
        ),
        running,
    )


# Being looked at changes nothing.


@gathering.upon(Transfer.look).loop()
def _who_waits(transfer: Transfer, core: Core, gathered: Gathered) -> Gathered:
    return gathered


def _who_runs(transfer: Transfer, core: Core, running: Running) -> Running:
    return running


streaming.upon(Transfer.look).loop()(_who_runs)
confirming.upon(Transfer.look).loop()(_who_runs)
over.upon(Transfer.look).loop().returns(None)


# What comes late, or for the second time, changes nothing.

for _input in (
    Transfer.head_known,
    Transfer.form_fails,
    Transfer.leaves,
    Transfer.upload_ends,
    Transfer.drain,
    Transfer.cut,
    Transfer.moves,
    Transfer.receipt,
    Transfer.settles,
    Transfer.fails,
):
    over.upon(_input).loop().returns(None)
streaming.upon(Transfer.abandoned).loop().returns(None)
streaming.upon(Transfer.drain).loop().returns(None)
confirming.upon(Transfer.drain).loop().returns(None)
confirming.upon(Transfer.moves).loop().returns(None)
confirming.upon(Transfer.upload_ends).loop().returns(None)

Machine = builder.build()
"""Makes a transfer of a L{Core}; start it in L{gathering}, with L{gather}."""
