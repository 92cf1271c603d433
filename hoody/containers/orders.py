"""What somebody asks of a container, and what becomes of it."""

from __future__ import annotations

import secrets
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred

from hoody.containers.container import Incarnation, Status
from hoody.errors import Unavailable


class CouldNot(Unavailable):
    """A container did not do what it was asked to."""


@frozen(kw_only=True)
class Order:
    """
    What somebody asks for.

    @ivar actor: as the audit names them.
    @ivar by_hand: whether a person, or a program of theirs, asked for just this.
    @ivar grace: seconds between asking processes to end and making them.
    @ivar patient: whether a database that is away is waited for before anything is done.
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
    key: str = field(factory=lambda: secrets.token_hex(12))
    done: Deferred[None] = field(factory=Deferred)


@frozen(kw_only=True)
class Outcome:
    """
    What became of a task.

    @ivar event_type: as it is told; C{None} where nothing is.
    @ivar data: what is told with it; C{fields}: what else changes in the row.
    """

    status: Status
    reason: str | None
    event_type: str | None
    incarnation: Incarnation | None = None
    data: dict[str, object] = field(factory=dict)
    fields: dict[str, Any] = field(factory=dict)
