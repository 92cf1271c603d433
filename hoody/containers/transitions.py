"""What became of a container's status, and by whom."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import field, frozen


@frozen(kw_only=True)
class Transition:
    """@ivar id: larger for later ones; 0 until it is kept."""

    container_id: str
    from_status: str
    to_status: str
    transition_time: datetime
    duration_ms: float
    triggered_by: str
    metadata: dict[str, Any] = field(factory=dict)
    id: int = 0
