"""The measurements themselves: they run, and say what they must. No figure is looked at."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import cron, firing, gates, keeping, passing, sleepers, snapshots, watching
from bench.rivals import missing
from bench.targets import TARGETS, Run
from bench.works import WORKS
from hoody.containers import machine
from hoody.containers.cgroups import Hierarchies

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if absent := missing():
        pytest.skip(f"{', '.join(absent)} missing; script/bench pipe installs them")
    return _measured("pipe", tmp_path_factory.mktemp("bench"))[1]


@pytest.fixture(scope="module")
def of_watching(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    if absent := missing(rivals=False):
        pytest.skip(f"{', '.join(absent)} missing; script/bench progress installs them")
    return _measured("progress", tmp_path_factory.mktemp("bench"))


def _measured(name: str, folder: Path, seconds: float = 110) -> tuple[str, dict[str, Any]]:
    """What was printed, and what was written."""
    path = folder / "figures.json"
    # As a module, from the checkout: bench is no part of the package that is tested.
    command = [sys.executable, "-m", f"bench.{name}", "--quick", "--json", str(path)]
    done = subprocess.run(
        command, cwd=ROOT, check=True, timeout=seconds, stdout=subprocess.PIPE, text=True
    )
    return done.stdout, json.loads(path.read_text())


def test_every_gate_did_every_work_without_an_error(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if absent := gates.missing():
        pytest.skip(f"{', '.join(absent)} missing; script/bench gateway installs them")
    _, report = _measured("gateway", tmp_path_factory.mktemp("bench"))
    done = {(run["work"], run["server"]) for run in report["runs"]}
    assert done == {(work, gate) for work in passing.WORKS for gate in gates.NAMES}
    assert [run["error"] for run in report["runs"] if run["error"]] == []
    assert len(report["targets"]) == len(passing.TARGETS)


@pytest.mark.timeout(400)
def test_every_sleeper_did_every_work_without_an_error(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Each work makes a server, and a file system."""
    if lack := machine.lack("auto", True, Hierarchies.read()):
        pytest.skip(f"containers: {lack}")
    swaps, mounts = Path("/proc/swaps").read_text(), Path("/proc/self/mounts").read_text()
    _, report = _measured("idle", tmp_path_factory.mktemp("bench"), 390)
    assert [run["error"] for run in report["runs"] if run["error"]] == []
    done = {(run["work"], run["server"]) for run in report["runs"]}
    works = sleepers.WORKS.items()
    assert done == {(name, server) for name, work in works for server in work.servers}
    assert len(report["targets"]) == len(sleepers.TARGETS)
    asleep = next(run for run in report["runs"] if run["work"] == "thousand")
    assert asleep["figures"]["their_cpu_ms"] == 0
    assert Path("/proc/swaps").read_text().count("zram") == swaps.count("zram")
    assert Path("/proc/self/mounts").read_text().count("/pool ") <= mounts.count("/pool ")


@pytest.mark.timeout(200)
def test_every_archive_did_every_work_and_nothing_of_it_is_left(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if lack := machine.lack("auto", True, Hierarchies.read()):
        pytest.skip(f"containers: {lack}")
    if absent := snapshots.missing():
        pytest.skip(f"{', '.join(absent)} missing; script/bench snapshots installs them")
    mounts = Path("/proc/self/mounts").read_text()
    table, report = _measured("snapshots", tmp_path_factory.mktemp("bench"), 190)
    assert [run["error"] for run in report["runs"] if run["error"]] == []
    done = {(run["work"], run["server"]) for run in report["runs"]}
    works = keeping.WORKS.items()
    assert done == {(name, server) for name, work in works for server in work.servers}
    assert len(report["targets"]) == len(keeping.TARGETS)
    restored = next(run for run in report["runs"] if run["work"] == "restore")
    assert restored["figures"]["broken"] == 0
    assert "left: 0 things" in table
    assert Path("/proc/self/mounts").read_text().count("/pool ") <= mounts.count("/pool ")


@pytest.mark.timeout(200)
def test_every_cron_did_every_work_and_nothing_of_it_is_left(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may start cron")
    if absent := cron.missing():
        pytest.skip(f"{', '.join(absent)} missing; script/bench cron installs them")
    before = _crons()
    _, report = _measured("cron", tmp_path_factory.mktemp("bench"), 190)
    assert [run["error"] for run in report["runs"] if run["error"]] == []
    done = {(run["work"], run["server"]) for run in report["runs"]}
    works = firing.WORKS.items()
    assert done == {(name, server) for name, work in works for server in work.servers}
    assert len(report["targets"]) == len(firing.TARGETS)
    crowd = {run["server"]: run["figures"] for run in report["runs"] if run["work"] == "crowd"}
    assert crowd["hoody"]["at_once"] <= firing.MOST_AT_ONCE < crowd["cron"]["at_once"]
    assert "/etc/crontab" not in Path("/proc/self/mounts").read_text()
    assert _crons() <= before


def _crons() -> set[str]:
    """The pids of all crons, and of what was begun to become one."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[:2] == [b"cron", b"-f"]:
                found.add(path.parent.name)
    return found


def test_every_server_did_every_work_without_an_error(report: dict[str, Any]) -> None:
    done = {(run["work"], run["server"]) for run in report["runs"]}
    assert done == {(name, server) for name, work in WORKS.items() for server in work.servers}
    assert [run["error"] for run in report["runs"] if run["error"]] == []
    assert report["errors"] == 0


def test_every_figure_has_a_median_and_a_spread(report: dict[str, Any]) -> None:
    for figure in report["figures"]:
        assert figure["runs"] == 1
        assert 0 < figure["least"] <= figure["lower"] <= figure["median"]
        assert figure["median"] <= figure["upper"] <= figure["most"]


def test_one_small_round_is_no_judgement(report: dict[str, Any]) -> None:
    assert len(report["targets"]) == 15
    assert {target["met"] for target in report["targets"]} == {None}


def test_three_rounds_are_judged_by_their_median() -> None:
    target = next(target for target in TARGETS if target.relation == ">=" and target.against)
    assert target.bound
    runs = [
        Run(round=number, work=one.work, server=one.server, figures={one.figure: figure})
        for number, figure in enumerate((0.1, 0.99, 5.0))
        for one, figure in ((target.of, figure), (target.against, 1 / target.bound))
        if one is not None
    ]
    assert target.met(runs[:4]) is None
    assert target.met(runs) is False


def test_it_says_what_was_measured_and_where(report: dict[str, Any]) -> None:
    assert report["date"].endswith("Z")
    assert report["command"].startswith("script/bench pipe --quick")
    assert set(report["machine"]) == {"cores", "memory_gib", "kernel", "cpu", "load"}
    programs = {"python", "twisted", "hoody", "node", "piping-server", "haproxy", "curl"}
    assert all(report["versions"][program] for program in programs)


def test_hoody_did_every_work_before_every_audience(
    of_watching: tuple[str, dict[str, Any]],
) -> None:
    _, report = of_watching
    done = {(run["work"], run["server"]) for run in report["runs"]}
    works = watching.WORKS.items()
    assert done == {(name, audience) for name, work in works for audience in work.audiences}
    assert [run["error"] for run in report["runs"] if run["error"]] == []
    assert report["errors"] == 0


def test_who_watched_was_told_enough(of_watching: tuple[str, dict[str, Any]]) -> None:
    _, report = of_watching
    fewest = [run["figures"].get("fewest_events") for run in report["runs"]]
    # At least that it streams, how it went, and that it is done.
    assert all(number >= 3 for number in fewest if number is not None)
    assert len([number for number in fewest if number is not None]) == 4


def test_each_figure_and_each_target_has_its_line(
    of_watching: tuple[str, dict[str, Any]],
) -> None:
    table, report = of_watching
    lines = [line.split() for line in table.splitlines()]
    for figure in report["figures"]:
        start = [figure["work"], *figure["server"].split(), figure["figure"]]
        assert any(line[: len(start)] == start for line in lines)
    for target in report["targets"]:
        line = next(line for line in table.splitlines() if line.startswith(target["target"]))
        assert line.endswith("not judged")
    assert len(report["targets"]) == len(watching.TARGETS)


def test_it_says_who_watched_and_where(of_watching: tuple[str, dict[str, Any]]) -> None:
    table, report = of_watching
    for name, audience in watching.QUICK.audiences.items():
        assert f"{name}: {audience.text}" in table
    assert report["command"].startswith("script/bench progress --quick")
    assert report["machine"]["cores"]
    assert all(report["versions"][program] for program in ("python", "twisted", "hoody", "curl"))
