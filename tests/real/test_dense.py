"""Containers of dense projects, whose equal memory the kernel merges. All parts are real."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hoody.containers.merging import KSM
from tests.support.api import Api
from tests.support.containers import House
from tests.support.postgres import Postgres

HOLDS = "x=$(seq 1 300000); while :; do sleep 1000; done"
"""Two megabytes, no page like another."""
SETTINGS = ("advisor_mode", "pages_to_scan", "run")


def setting(name: str) -> str:
    text = (KSM / name).read_text().strip()
    return text.partition("[")[2].partition("]")[0] or text


@pytest.fixture(autouse=True)
def ksm() -> Iterator[None]:
    """The machine's own, as after a boot; afterwards as it was."""
    if not KSM.exists():
        pytest.skip("this kernel has no KSM")
    if not (KSM / "advisor_mode").exists():
        pytest.skip("this kernel merges no processes, or leaves its speed to us")
    with open("/tmp/hoody-test-ksm", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = {name: setting(name) for name in SETTINGS}
        try:
            for name, value in (("run", "2"), ("run", "0"), ("advisor_mode", "none")):
                (KSM / name).write_text(value)
            yield
        finally:
            (KSM / "run").write_text("2")  # nothing stays merged
            (KSM / "advisor_mode").write_text("none")  # else the next is not for us to set
            for name in ("pages_to_scan", "advisor_mode", "run"):
                (KSM / name).write_text(before[name])


@pytest.fixture
def make(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres
) -> Iterator[Callable[..., House]]:
    with contextlib.ExitStack() as stack:

        def make(*options: str) -> House:
            house = House(tmp_path_factory.mktemp("house") / "data", pool, cluster, *options)
            stack.callback(house.close)
            return house

        yield make


def project(house: House) -> str:
    answer = house.api("POST", "/projects", {"alias": "dense", "dense": True})
    assert answer.status == 201, answer.body
    return str(answer.data["id"])


def create(house: House, of: str, name: str, **fields: object) -> dict[str, Any]:
    body = {"name": name, "egress": "none", "command": HOLDS, **fields}
    answer = house.api("POST", f"/projects/{of}/containers", body)
    assert answer.status == 201, answer.body
    data: dict[str, Any] = answer.data
    return data


def holder(house: House, row: dict[str, Any]) -> int:
    """The process that has the memory."""
    late = time.monotonic() + 15
    while True:
        sizes = {}
        for pid in house.pids(row["id"]):
            with contextlib.suppress(OSError):  # it may have ended just now
                sizes[int(Path(f"/proc/{pid}/statm").read_text().split()[5])] = pid
        if len(sizes) == 3 and max(sizes) > 500:  # the first, the shell, and what it waits for
            return sizes[max(sizes)]
        assert time.monotonic() < late, sizes
        time.sleep(0.05)


def merging(pid: int) -> int:
    """Pages of a process."""
    lines = Path(f"/proc/{pid}/ksm_stat").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("ksm_merging_pages")).split()[1])


def has_random_addresses(pid: int) -> bool:
    return not int(Path(f"/proc/{pid}/personality").read_text(), 16) & 0x0040000


def test_equal_memory_is_merged_of_dense_projects_alone(make: Callable[..., House]) -> None:
    house = make("--ksm=on")
    other = holder(house, create(house, "default", "other"))
    assert setting("run") == "0", "nobody is there for whom it would be"
    dense = project(house)
    rows = [create(house, dense, f"dense-{number}") for number in (1, 2)]
    pids = [holder(house, row) for row in rows]
    house.server.wait_for(lambda event: "KSM is switched on" in event["message"])
    assert setting("run") == "1"
    assert setting("advisor_mode") == "scan-time"
    late = time.monotonic() + 20
    while min(map(merging, pids)) < 400:
        assert time.monotonic() < late, [merging(pid) for pid in pids]
        time.sleep(0.1)
    assert merging(other) == 0
    assert [has_random_addresses(pid) for pid in (*pids, other)] == [False, False, True]
    page = Api(house.server.url, None).get("/metrics").body
    figures = dict(line.split() for line in page.splitlines() if line.startswith("hoody_ksm"))
    assert float(figures["hoody_ksm_pages_sharing"]) >= 400
    assert float(figures["hoody_ksm_pages_shared"]) >= 400
    assert float(figures["hoody_ksm_general_profit_bytes"]) > 1e6


def test_what_runs_in_a_dense_one(make: Callable[..., House]) -> None:
    house = make("--ksm=on")
    dense = project(house)
    create(house, dense, "dense")
    create(house, dense, "own", environment_vars={"PYTHONHASHSEED": "7"})
    look = "cat /proc/self/personality; grep merge_any /proc/self/ksm_stat; echo $PYTHONHASHSEED"
    assert house.run("dense", look) == (0, "00040000\nksm_merge_any: yes\n0\n")
    assert house.run("own", look) == (0, "00040000\nksm_merge_any: yes\n7\n")
    # Whoever runs it does not matter, nor whether a program is in between.
    shell = f"/bin/sh -c '{look}'"
    assert house.run("dense", shell, user="1000:1000")[1].startswith(
        "00040000\nksm_merge_any: yes"
    )
    # A server that comes later knows it, too.
    house.kill()
    house.start()
    assert house.run("dense", look) == (0, "00040000\nksm_merge_any: yes\n0\n")
    # What is said of the project counts from the next start on.
    assert house.api("PATCH", f"/projects/{dense}", {"dense": False}).status == 200
    assert house.run("dense", look)[1].startswith("00040000\n")
    assert house.operate("dense", "restart").status == 200
    assert house.run("dense", look) == (0, "00000000\nksm_merge_any: no\n\n")


def test_the_machine_stays_as_it_is_unless_it_is_said(make: Callable[..., House]) -> None:
    house = make()
    create(house, project(house), "dense")
    house.server.wait_for(lambda event: "KSM is off" in event["message"])
    assert setting("run") == "0"
    assert house.run("dense", "cat /proc/self/personality") == (0, "00040000\n")


def test_ksm_that_is_on_is_left_as_it_is_set(make: Callable[..., House]) -> None:
    for name, value in (("pages_to_scan", "123"), ("run", "1")):
        (KSM / name).write_text(value)
    house = make("--ksm=on")
    create(house, project(house), "dense")
    house.server.wait_for(lambda event: "KSM is on already" in event["message"])
    assert [setting(name) for name in SETTINGS] == ["none", "123", "1"]
    house.kill()
    house.start()
    assert setting("run") == "1"
