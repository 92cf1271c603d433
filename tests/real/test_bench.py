"""The measurement itself: it runs, and says what it must. Its figures are not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.rivals import missing
from bench.targets import TARGETS, Run
from bench.works import WORKS

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        bool(missing()), reason=f"{', '.join(missing())} missing; script/bench pipe installs them"
    ),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("bench") / "figures.json"
    # As a module, from the checkout: bench is no part of the package that is tested.
    command = [sys.executable, "-m", "bench.pipe", "--quick", "--json", str(path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=110)
    found: dict[str, Any] = json.loads(path.read_text())
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
