"""The ledger, of real containers, as JSON and in a browser."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hoody.containers.cgroups import Cgroup, Hierarchies
from tests.support.api import Api, issue
from tests.support.browser import OpenPage, violations
from tests.support.containers import House
from tests.support.postgres import Postgres


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres
) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house") / "data", pool, cluster)
    try:
        house.create("acme", egress="none", idle_timeout_seconds=1)
        house.create("launch", egress="none", command="sleep 1000 & exec sleep 1000")
        house.create("stopped", egress="none", start=False)
        house.create("broken", egress="none", command="exit 3")
        assert house.run("launch", "dd if=/dev/urandom of=/x bs=1M count=3; sync")[0] == 0
        house.until("acme", status_reason="idle")
        house.until("broken", status="failed")
        yield house
    finally:
        house.close()


def test_each_container_and_the_sums(house: House) -> None:
    data = house.api.get("/ledger").data
    found: dict[str, Any] = {each["name"]: each for each in data["containers"]}
    assert set(found) == {"acme", "launch", "stopped", "broken"}
    acme, launch, stopped = found["acme"], found["launch"], found["stopped"]
    row = house.row("acme")
    assert (acme["status"], acme["idle_since"]) == ("paused", row["idle_since"])
    assert acme["idle_seconds"] > 1
    assert acme["memory_own"] == _cgroup(house, acme["id"]).memory["own"] > 0
    assert launch["idle_since"] is None
    assert launch["disk_own"] >= 3 << 20
    assert stopped["idle_seconds"] is None
    assert (stopped["memory_own"], stopped["memory_shared"]) == (0, 0)
    assert len({each["disk_shared"] for each in found.values()}) == 1
    image = stopped["disk_shared"]
    assert image > 500_000
    sums, alone = data["totals"], data["totals_unshared"]
    own = sum(each["disk_own"] for each in found.values())
    assert sums["disk"] == own + image
    assert alone["disk"] == own + 4 * image
    assert alone["memory"] >= sums["memory"] >= sum(each["memory_own"] for each in found.values())
    # To look wakes nobody.
    assert house.row("acme")["status"] == "paused"


def _cgroup(house: House, container_id: str) -> Cgroup:
    return Cgroup(Hierarchies.read(), f"/hoody/{house.server_id}/{container_id}")


def test_who_is_tied_sees_their_own(house: House) -> None:
    wanted = house.row("launch")["id"]
    tied = issue(house.api, "read", containers=[wanted])
    assert [each["id"] for each in tied.get("/ledger").data["containers"]] == [wanted]
    assert house.api.with_token(None).get("/ledger").status == 401


@pytest.mark.parametrize(("width", "colours"), [(390, "dark"), (1000, "light")])
def test_the_page(house: House, open_page: OpenPage, width: int, colours: str) -> None:
    url = f"{house.server.url}/api/v1/ledger"
    page = open_page(f"{url}?token={house.api.token}", width=width, colours=colours)
    page.get_by_role("heading", name="Ledger").wait_for()
    text = page.locator("main").inner_text()
    for words in ("idle", "stopped", "failed", "If nothing were shared", "MiB"):
        assert words in text, text
    link = page.get_by_role("link", name="acme").get_attribute("href")
    assert link == f"http://acme.containers.hoody.localhost:{house.server.port}/"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not violations(page)
    if shots := os.environ.get("HOODY_SHOTS"):
        page.screenshot(path=f"{shots}/ledger-{width}.png", full_page=True)


def test_the_page_looks_again_by_itself(house: House, open_page: OpenPage) -> None:
    page = open_page(f"{house.server.url}/api/v1/ledger?token={house.api.token}")
    page.evaluate("window.same = true")
    page.get_by_role("link", name="acme").wait_for()
    house.create("later", egress="none", start=False)
    try:
        # As if somebody had come back to the window.
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.get_by_role("link", name="later").wait_for()
        assert "5 containers" in page.inner_text("header")
        assert page.evaluate("window.same")
        # Who is among the links is left there.
        page.get_by_role("link", name="later").focus()
        page.evaluate("window.asked = 0; window.fetch = async () => { asked += 1; return {} }; 0")
        look = "document.dispatchEvent(new Event('visibilitychange')); window.asked"
        assert page.evaluate(look) == 0
        page.evaluate("document.activeElement.blur()")
        assert page.evaluate(look) >= 1
    finally:
        with contextlib.suppress(AssertionError):
            house.delete("later")


def test_without_scripts_it_is_the_same(house: House, open_page: OpenPage) -> None:
    url = f"{house.server.url}/api/v1/ledger?token={house.api.token}"
    page = open_page(url, width=390, javascript=False)
    assert "If nothing were shared" in page.locator("table").inner_text()


def test_metrics_count_them(house: House) -> None:
    page = Api(house.server.url, None).get("/metrics").body
    found = [line for line in page.splitlines() if line.startswith("hoody_containers{")]
    counted = dict(line.split() for line in found)
    assert counted == {
        f'hoody_containers{{status="{status}"}}': "1.0"
        for status in ("running", "asleep", "stopped", "failed")
    }


def test_the_same_as_json_without_saying_so(house: House) -> None:
    said = subprocess.run(
        ["curl", "-sS", "-H", f"Authorization: Bearer {house.api.token}"]
        + [f"{house.server.url}/api/v1/ledger/"],
        capture_output=True,
        check=True,
    ).stdout
    assert json.loads(said)["data"]["totals"]
