"""What somebody asks of a container, and what becomes of it."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred

from hoody.containers.container import Incarnation, Status
from hoody.errors import HoodyError, Unavailable
from hoody.interfaces import ITransaction
from hoody.snapshots.snapshot import Snapshot


class CouldNot(Unavailable):
    """A container did not do what it was asked to."""


@frozen(kw_only=True)
class Return:
    """
    What a container is to be put back to.

    @ivar snapshot: whose content it is to have.
    @ivar undo: as which what it has now is kept.
    """

    snapshot: Snapshot
    undo: Snapshot


@frozen(kw_only=True)
class Order:
    """
    What somebody asks for.

    @ivar actor: as the audit names them.
    @ivar by_hand: whether a person, or a program of theirs, asked for just this.
    @ivar grace: seconds between asking processes to end and making them.
    @ivar patient: whether a database that is away is waited for before anything is done.
    @ivar source_id: of a copy: the container whose content it is to have; C{source_snapshot}:
        not as that is now, but as of the snapshot of this id.
    @ivar puts_back: of a restore.
    @ivar began: by the reactor's clock.
    @ivar key: of its event, which is written again if nobody knows whether it was.
    @ivar done: fires with C{None}, or a L{HoodyError}.
    """

    actor: str
    began: float
    request_id: str | None = None
    by_hand: bool = True
    grace: float
    patient: bool = False
    source_id: str | None = None
    source_snapshot: str | None = None
    puts_back: Return | None = None
    key: str = field(factory=lambda: secrets.token_hex(12))
    done: Deferred[None] = field(factory=Deferred)


@frozen(kw_only=True)
class Outcome:
    """
    What became of a task.

    @ivar event_type: as it is told; C{None} where nothing is.
    @ivar data: what is told with it; C{fields}: what else changes in the row; C{also}: what
        else is written in the same transaction; C{told}: what whoever asked is told, though it
        is done.
    """

    status: Status
    reason: str | None
    event_type: str | None
    incarnation: Incarnation | None = None
    data: dict[str, object] = field(factory=dict)
    fields: dict[str, Any] = field(factory=dict)
    also: Callable[[ITransaction], Awaitable[None]] | None = None
    told: HoodyError | None = None
