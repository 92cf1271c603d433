"""Images: what containers begin as."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Any

from attrs import field, frozen

BUSYBOX = "busybox"
"""The one that is there from the first start."""
NAME = r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?"


class ImageStatus(StrEnum):
    MAKING = "making"
    READY = "ready"
    FAILED = "failed"


@frozen(kw_only=True)
class Image:
    """
    @ivar source: where it comes from: C{busybox}, C{debian}, C{upload}, C{oci:...} or a
        registry's reference.
    @ivar config: C{command}, C{port}, C{environment_vars}, C{working_dir}, C{user}.
    @ivar size: bytes of what is in it.
    """

    id: str
    server_id: str
    name: str
    source: str
    status: ImageStatus = ImageStatus.MAKING
    error: str | None = None
    config: dict[str, Any] = field(factory=dict)
    size: int = 0
    created_at: datetime


def is_name(text: str) -> bool:
    return re.fullmatch(NAME, text) is not None
