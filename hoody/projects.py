"""Projects: what containers belong to, with the policies that they share."""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from hoody.errors import Taken
from hoody.interfaces import IStore
from hoody.units import new_id

DEFAULT = "default"
"""The alias of the one that always exists."""
IDLE_TIMEOUT_SECONDS = 900


@frozen(kw_only=True)
class Project:
    """
    @ivar max_containers: C{None} for no limit, as for C{max_snapshots} (of each container).
    @ivar snapshot_retention_days: how long a snapshot is kept that does not say;
        C{None} until it is deleted.
    @ivar dense: whether its containers share memory by KSM, at the price of isolation.
    """

    id: str
    alias: str
    color: str | None = None
    max_containers: int | None = None
    max_snapshots: int | None = None
    snapshot_retention_days: int | None = None
    idle_timeout_seconds: int = IDLE_TIMEOUT_SECONDS
    dense: bool = False
    created_at: datetime
    updated_at: datetime


async def ensure_default(store: IStore, now: datetime) -> None:
    """Have the project that always exists."""
    try:
        async with store.transaction() as transaction:
            if await transaction.projects.find(DEFAULT) is None:
                await transaction.projects.add(
                    Project(id=new_id(now), alias=DEFAULT, created_at=now, updated_at=now)
                )
    except Taken:
        pass  # another server of this database was first
