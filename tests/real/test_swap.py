"""The swap in compressed memory that a server can have made: for the whole machine, once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.logger import capturedLogs, formatEvent

from hoody.containers.swap import PRIORITY, CompressedSwap
from tests.support.containers import House
from tests.support.postgres import Postgres

SWAPS = Path("/proc/swaps")
CONTROL = Path("/sys/class/zram-control")


@pytest.fixture
def clean() -> Iterator[None]:
    if os.geteuid() != 0 or not CONTROL.exists():
        pytest.skip("zram needs root, and a kernel that has it")
    if "/dev/zram" in SWAPS.read_text():
        pytest.skip("somebody has one")
    before = _devices()
    yield
    for device in _devices() - before:
        subprocess.run(["swapoff", f"/dev/{device}"], check=False, capture_output=True)
        Path(f"/sys/block/{device}/reset").write_text("1")
        (CONTROL / "hot_remove").write_text(device.removeprefix("zram"))


def _devices() -> set[str]:
    return {path.name for path in Path("/sys/block").glob("zram*")}


def _swaps() -> list[list[str]]:
    """Name, kind, size and priority of each."""
    found = [line.split() for line in SWAPS.read_text().splitlines() if "/dev/zram" in line]
    return [[*each[:3], each[-1]] for each in found]


def test_a_server_makes_one_and_the_next_leaves_it(
    clean: None, tmp_path: Path, pool: Path, cluster: Postgres
) -> None:
    house = House(tmp_path / "data", pool, cluster, "--zram=64M")
    try:
        (one,) = _swaps()
        assert abs(int(one[2]) * 1024 - (64 << 20)) <= 8192
        assert int(one[-1]) == PRIORITY
        assert any("compressed memory" in event["message"] for event in house.server.events)
        house.server.stop()
        assert _swaps() == [one]
        house.start()
        assert _swaps() == [one]
        assert any("left as it is" in event["message"] for event in house.server.events)
    finally:
        house.close()


def test_what_cannot_be_made_leaves_nothing(clean: None) -> None:
    before = _devices()
    CompressedSwap(1).ensure()  # mkswap(8) wants ten pages
    assert _devices() == before
    assert not _swaps()


def test_without_zram_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "swaps").write_text("Filename Type Size Used Priority\n")
    (tmp_path / "control").mkdir()
    with capturedLogs() as said:
        CompressedSwap(1 << 20, tmp_path / "control", tmp_path, tmp_path / "swaps").ensure()
    assert "no zram" in formatEvent(said[-1])
