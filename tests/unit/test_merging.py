"""What is said of merging where there can be none."""

from __future__ import annotations

from pathlib import Path

from twisted.logger import capturedLogs, formatEvent

from hoody.containers.merging import Merging


def test_a_kernel_that_cannot(tmp_path: Path) -> None:
    merging = Merging(is_allowed=True, folder=tmp_path)
    with capturedLogs() as said:
        merging._switch_on()
    assert [formatEvent(event) for event in said] == [
        "this kernel has no KSM: memory of dense projects is not merged"
    ]
    assert merging.readings() == {}


def test_a_kernel_that_does_not_choose_the_speed(tmp_path: Path) -> None:
    for name, value in (("run", "0"), ("pages_to_scan", "100")):
        (tmp_path / name).write_text(value)
    Merging(is_allowed=True, folder=tmp_path)._switch_on()
    assert (tmp_path / "run").read_text() == "1"
    assert (tmp_path / "pages_to_scan").read_text() == "1000"
