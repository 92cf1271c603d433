"""Where strangers meet: the paths, and what happens on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from hoody.errors import HoodyError, Unavailable
from hoody.interfaces import IPipeObserver, IReceiver, ISender
from hoody.pipes.caps import Caps
from hoody.pipes.meeting import Core, Gathered, MoverFactory, Patience, Running
from hoody.pipes.transfer import Machine, Transfer, gather, gathering

DRAINING = "The server is about to stop; try again in a moment."


@define(kw_only=True, eq=False)
class Rendezvous:
    """
    Every path that somebody is on.

    A path is free again as soon as the last byte of its transfer is on its
    way; the transfer itself lives on until that byte has been acknowledged.
    """

    clock: IReactorTime
    patience: Patience
    caps: Caps
    observer: IPipeObserver
    make_mover: MoverFactory
    _paths: dict[str, Transfer] = field(factory=dict, init=False)
    _transfers: dict[Core, Transfer] = field(factory=dict, init=False)
    _draining: HoodyError | None = field(default=None, init=False)
    _idle: list[Deferred[None]] = field(factory=list, init=False)

    @property
    def paths(self) -> int:
        """How many paths are taken."""
        return len(self._paths)

    @property
    def transfers(self) -> int:
        """How many transfers live, those that wait for acknowledgements included."""
        return len(self._transfers)

    def send(self, path: str, sender: ISender) -> Transfer:
        """
        A sender arrives.

        @return: the transfer that it is now part of.
        @raise HoodyError: if it cannot be; nothing has changed then.
        """
        return self._join(path, lambda transfer: transfer.sender_arrives(sender))

    def receive(self, path: str, receiver: IReceiver) -> Transfer:
        """A receiver arrives; as L{send}."""
        return self._join(path, lambda transfer: transfer.receiver_arrives(receiver))

    def on_path(self, path: str) -> list[Gathered | Running]:
        """Who is on a path, eldest first: the last bytes of a transfer may be under way yet."""
        found = [
            transfer.look() for core, transfer in self._transfers.items() if core.path == path
        ]
        return [one for one in found if one is not None]

    def running(self) -> Iterator[tuple[str, Running]]:
        """What runs, by its path."""
        for core, transfer in self._transfers.items():
            found = transfer.look()
            if isinstance(found, Running):
                yield core.path, found

    def drain(self) -> Deferred[None]:
        """
        Turn away who waits and who comes.

        @return: fires when the last transfer has ended.
        """
        self._draining = Unavailable(DRAINING)
        for transfer in tuple(self._transfers.values()):
            transfer.drain(self._draining)
        done: Deferred[None] = Deferred()
        self._idle.append(done)
        self._tell_if_idle()
        return done

    def cut(self) -> None:
        """End every transfer, now."""
        self._draining = Unavailable(DRAINING)
        for transfer in tuple(self._transfers.values()):
            transfer.cut(self._draining)

    def _join(self, path: str, arrive: Callable[[Transfer], None]) -> Transfer:
        if self._draining is not None:
            raise self._draining
        transfer = self._paths.get(path)
        if transfer is None:
            transfer = self._open(path)
        try:
            arrive(transfer)
        except HoodyError:
            transfer.abandoned()
            raise
        return transfer

    def _open(self, path: str) -> Transfer:
        core = Core(
            path=path,
            clock=self.clock,
            patience=self.patience,
            caps=self.caps,
            observer=self.observer,
            make_mover=self.make_mover,
            free=partial(self._paths.__delitem__, path),
            over=lambda: self._forget(core),
        )
        transfer = Machine(core, gathering, gather)
        self._paths[path] = self._transfers[core] = transfer
        return transfer

    def _forget(self, core: Core) -> None:
        del self._transfers[core]
        self._tell_if_idle()

    def _tell_if_idle(self) -> None:
        if not self._transfers:
            idle, self._idle = self._idle, []
            for done in idle:
                done.callback(None)
