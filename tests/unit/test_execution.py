"""Commands in containers that cannot be begun."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from hoody.containers.cgroups import Cgroup, Hierarchies
from hoody.containers.execution import NOT_RUN, Execution
from tests.support.stores import awaits


class Full:
    """A reactor of a machine that has no room for another process."""

    def spawnProcess(self, *_: Any, **__: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


@awaits
async def test_where_there_is_no_room_for_another_process_it_says_so_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    heard: list[tuple[str, str]] = []
    groups = tmp_path / "groups"
    groups.mkdir()
    execution = Execution(
        Full(),
        lambda stream, text: heard.append((stream, text)),
        tmp_path / "order",
        Cgroup(Hierarchies(None, {"pids": groups}), "/one"),
    )
    await execution.start(["/bin/true"], {}, lambda: "a secret", 5.0)
    assert await execution.ended == NOT_RUN
    [(stream, text)] = heard
    assert stream == "stderr"
    assert "Resource temporarily unavailable" in text
    assert not execution.order.exists()
    assert list(groups.iterdir()) == []
