"""Commands of cron about containers, in them and on the server. All parts are real."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Api
from tests.support.containers import House
from tests.support.cron_calls import Cron, eventually, fire
from tests.support.postgres import Postgres
from tests.support.server import Server

WAITS = "echo begun >>/tmp/said; until [ -e /tmp/gate ]; do sleep 0.05; done; echo done"
"""A command that goes on when it may."""
STUBBORN = "sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' >/dev/null 2>&1"


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres
) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house") / "data"
    house = House(folder, pool, cluster, "--cron-retry=0.3s")
    try:
        yield house
    finally:
        house.close()


@pytest.fixture
def cron(house: House) -> Cron:
    return Cron.of_house(house)


@pytest.fixture
def name(request: pytest.FixtureRequest, house: House) -> Iterator[str]:
    name = f"c{abs(hash(request.node.name)) % 10**8}"
    yield name
    with contextlib.suppress(AssertionError):
        house.delete(name)


def create(house: House, name: str, **fields: Any) -> dict[str, Any]:
    return house.create(name, **{"egress": "none", "idle_timeout_seconds": 0, **fields})


def asleep(house: House, name: str) -> dict[str, Any]:
    return house.until(name, status="paused", status_reason="idle")


def has_begun(house: House, name: str) -> None:
    eventually(lambda: house.run(name, "cat /tmp/said")[0] == 0)


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# Awake for it


def test_it_wakes_one_that_sleeps_which_is_then_as_idle_as_before(
    house: House, cron: Cron, name: str
) -> None:
    row = create(house, name, idle_timeout_seconds=1)
    pids = house.pids(row["id"])
    house.get(name)
    before = asleep(house, name)
    entry = cron.add("echo hello; sleep 0.7", container_id=name)
    for times in (1, 2):
        cron.run(entry)
        house.until(name, status="running")
        run = cron.over(entry, times)[-1]
        assert (run["status"], run["stdout"]) == ("succeeded", "hello\n")
        after = asleep(house, name)
        for key in ("idle_since", "last_activity_at"):
            assert after[key] == before[key]
    house.still_runs(row["id"], pids)
    assert cron.told(entry) == ["started", "finished"] * 2
    assert {each["container_id"] for each in cron.events(entry)} == {row["id"]}
    [woken, *_] = house.api.get(
        f"/events?event_type=container.woken&container_id={row['id']}"
    ).data["events"]
    assert woken["actor"] == f"cron {entry}"


def test_who_visits_meanwhile_keeps_it_awake(house: House, cron: Cron, name: str) -> None:
    create(house, name, idle_timeout_seconds=2)
    house.get(name)
    asleep(house, name)
    entry = cron.add("sleep 1", container_id=name)
    cron.run(entry)
    house.until(name, status="running")
    visited = time.time()
    assert house.get(name)[0] == 200
    [run] = cron.over(entry)
    assert visited < moment(run["finished_at"]), "it ran still"
    after = asleep(house, name)
    assert moment(after["idle_since"]) >= visited
    [slept] = house.api.get(f"/containers/{name}/status-logs?limit=1").data["logs"]
    assert slept["to_status"] == "paused"
    assert moment(slept["transition_time"]) >= visited + 2


def test_it_starts_one_that_is_stopped(house: House, cron: Cron, name: str) -> None:
    create(house, name, start=False, idle_timeout_seconds=1)
    entry = cron.add("echo hello", container_id=name)
    cron.run(entry)
    [run] = cron.over(entry)
    assert run["stdout"] == "hello\n"
    asleep(house, name)
    logs = house.api.get(f"/containers/{name}/status-logs").data["logs"]
    assert f"cron {entry}" in {each["triggered_by"] for each in logs}


@pytest.mark.parametrize(("operation", "status"), [("stop", "stopped"), ("pause", "paused")])
def test_one_that_was_put_to_rest_by_hand_stays_so(
    house: House, cron: Cron, name: str, operation: str, status: str
) -> None:
    create(house, name)
    house.operate(name, operation)
    run = cron.result("echo hello", container_id=name)
    assert (run["status"], run["exit_code"], run["stdout"]) == ("failed", 126, "")
    assert name in run["stderr"]
    assert status in run["stderr"]
    assert house.row(name)["status"] == status


# As whom, and with what


def has_users(house: House, name: str) -> None:
    """Its busybox cannot make any."""
    made = (
        "echo ann:x:1234:1234:Ann:/home/ann:/bin/sh >>/etc/passwd"
        " && echo bob:x:1235:1235:Bob:/nowhere:/bin/sh >>/etc/passwd"
        " && echo staff:x:50:bob,ann >>/etc/group && mkdir -p /home/ann && chown 1234 /home/ann"
    )
    assert house.run(name, made) == (0, "")


@pytest.mark.parametrize(
    ("user", "uid", "groups", "home", "where"),
    [
        ("root", "0", "0", "/root", "/root"),
        ("ann", "1234", "1234 50", "/home/ann", "/home/ann"),
        ("bob", "1235", "1235 50", "/nowhere", "/"),
        ("4242", "4242", "4242", "/", "/"),
    ],
)
def test_it_runs_as_a_user_of_the_container(
    house: House, cron: Cron, name: str, user: str, uid: str, groups: str, home: str, where: str
) -> None:
    variables = {"A": "the container's", "B": "b", "USER": "x", "HOME": "/x"}
    row = create(house, name, environment_vars=variables)
    has_users(house, name)
    run = cron.result(
        'id -u; id -G; echo "$HOME|$USER|$LOGNAME|$A|$B|$CONTAINER_ID|$HOODY_URL"; pwd',
        user=user,
        container_id=name,
        environment_vars={"A": "the entry's", "CONTAINER_ID": "x"},
    )
    own, own_groups, told, here = run["stdout"].splitlines()
    assert (own, here) == (uid, where)
    assert set(own_groups.split()) == set(groups.split())
    assert told == f"{home}|{user}|{user}|the entry's|b|{row['id']}|http://127.0.0.1:1008"


def test_one_whom_it_does_not_know(house: House, cron: Cron, name: str) -> None:
    create(house, name)
    answer = cron.make("true", user="ann", container_id=name)
    assert (answer.status, answer.json["code"]) == (404, "USER_NOT_FOUND")
    has_users(house, name)
    entry = cron.add("true", user="ann", container_id=name)
    assert house.run(name, "sed -i /^ann/d /etc/passwd")[0] == 0
    cron.run(entry)
    [run] = cron.over(entry)
    assert (run["status"], run["exit_code"]) == ("failed", 126)
    assert run["stderr"] == f"The container {name} knows no user ann.\n"


def test_a_snapshot_of_itself_by_its_own_door_without_any_network(
    house: House, cron: Cron, name: str
) -> None:
    row = create(house, name, idle_timeout_seconds=1)
    house.get(name)
    before = asleep(house, name)
    command = 'wget -qO- --post-data "{\\"alias\\": \\"point\\"}" "$SNAP_URL" && echo "$SNAP_URL"'
    entry = cron.add(command, container_id=name, comment="nightly")
    cron.run(entry)
    [run] = cron.over(entry)
    assert run["status"] == "succeeded", run
    said, _, url = run["stdout"].strip().rpartition("\n")
    assert json.loads(said)["data"]["container_id"] == row["id"]
    assert url == (f"http://127.0.0.1:1008/api/v1/containers/{row['id']}/snapshots?cap=***")
    [snapshot] = house.api.get(f"/containers/{name}/snapshots").data["snapshots"]
    assert snapshot["alias"] == "point"
    assert "nightly" in snapshot["created_by"]
    after = asleep(house, name)
    assert after["idle_since"] == before["idle_since"]


def test_its_token_is_for_this_and_nothing_else(house: House, cron: Cron, name: str) -> None:
    create(house, name)
    other = create(house, f"{name}-2")
    ask = 'wget -qSO- --header "Authorization: Bearer $HOODY_TOKEN" {} "$HOODY_URL/api/v1{}" 2>&1'
    asked = [
        ("GET", "/containers/$CONTAINER_ID/snapshots"),
        ("POST", "/containers/$CONTAINER_ID/snapshots"),
        ("GET", f"/containers/{other['id']}/snapshots"),
        ("POST", f"/containers/{other['id']}/snapshots"),
        ("GET", "/auth/tokens"),
        ("POST", "/auth/tokens"),
        ("POST", "/containers/$CONTAINER_ID/exec"),
        ("POST", "/containers/$CONTAINER_ID/stop"),
        ("GET", "/containers/$CONTAINER_ID/env"),
        ("GET", "/events"),
    ]
    body = "--post-data '{}'"
    command = "; ".join(
        ask.format("" if method == "GET" else body, path) + " | grep -o -m1 'HTTP/1.1 [0-9]*'"
        for method, path in asked
    )
    run = cron.result(command, container_id=name)
    said = [line.partition(" ")[2] for line in run["stdout"].splitlines()]
    found = dict(zip(asked, said, strict=True))
    assert found.pop(("POST", "/containers/$CONTAINER_ID/snapshots")) == "200", run
    found.pop(("GET", "/containers/$CONTAINER_ID/snapshots"))
    assert set(found.values()) <= {"403", "404"}, found
    assert house.api.get(f"/containers/{other['id']}/snapshots").data["snapshots"] == []
    house.delete(f"{name}-2")


@pytest.mark.parametrize("ends_by", ["itself", "time"])
def test_what_runs_on_the_server_has_its_token_as_long_as_it_runs(
    house: House, cron: Cron, name: str, tmp_path: Path, ends_by: str
) -> None:
    row = create(house, name, start=False)
    entry = cron.add(
        f'echo "$SNAP_URL" >{tmp_path}/url; echo "$HOODY_TOKEN" >{tmp_path}/token;'
        ' echo "$HOODY_TOKEN"; echo "$SNAP_URL" >&2; echo "$CONTAINER_ID";'
        f" touch {tmp_path}/begun; until [ -e {tmp_path}/gate ]; do sleep 0.05; done",
        container_id=name,
        run_on="server",
        timeout_seconds=60 if ends_by == "itself" else 3,
    )
    cron.run(entry)
    eventually((tmp_path / "begun").exists)
    url, token = [(tmp_path / each).read_text().strip() for each in ("url", "token")]
    assert url.startswith(house.server.url)
    own = house.api.with_token(token)
    assert post(url) == 200
    assert own("POST", f"/containers/{name}/snapshots", {}).status == 200
    assert own.get("/auth/tokens").status == 403
    tokens = house.api.get("/auth/tokens").data["tokens"]
    assert len([each for each in tokens if each["alias"].startswith("cron ")]) == 1
    if ends_by == "itself":
        (tmp_path / "gate").touch()
    [run] = cron.over(entry)
    assert run["status"] == ("succeeded" if ends_by == "itself" else "timed_out")
    assert run["stdout"] == f"***\n{row['id']}\n"
    assert run["stderr"].endswith("?cap=***\n")
    assert post(url) in (401, 403)
    assert own("POST", f"/containers/{name}/snapshots", {}).status == 401
    tokens = house.api.get("/auth/tokens").data["tokens"]
    assert [each for each in tokens if each["alias"].startswith("cron ")] == []
    logged = json.dumps(house.server.events)
    assert token not in logged
    assert url.partition("cap=")[2] not in logged


def post(url: str) -> int:
    words = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-d", "{}"]
    return int(subprocess.run([*words, url], capture_output=True, check=True, text=True).stdout)


# Its end


def test_what_it_leaves_in_the_background_goes_on(house: House, cron: Cron, name: str) -> None:
    create(house, name)
    run = cron.result("sleep 600 >/dev/null 2>&1 & echo $!", container_id=name)
    assert (run["status"], run["exit_code"]) == ("succeeded", 0)
    assert house.run(name, f"cat /proc/{int(run['stdout'])}/comm")[1] == "sleep\n"


def test_after_its_time_all_that_it_has_begun_is_ended_and_nobody_else(
    house: House, cron: Cron, name: str
) -> None:
    row = create(house, name)
    count = len(house.pids(row["id"])) + 1
    assert house.run(name, "setsid sleep 700 >/dev/null 2>&1 &")[0] == 0
    pids = eventually(lambda: len(found := house.pids(row["id"])) == count and found)
    # Some that hear, some that do not; some of its session, some not.
    entry = cron.add(
        f"setsid {STUBBORN} & (setsid {STUBBORN} &); {STUBBORN} &"
        " setsid sleep 600 >/dev/null 2>&1 & exec sleep 600",
        container_id=name,
        timeout_seconds=1,
    )
    cron.run(entry)
    eventually(lambda: len(house.pids(row["id"])) >= count + 5)
    [run] = cron.over(entry)
    assert run["status"] == "timed_out"
    assert 5900 <= run["duration_ms"] < 15_000
    eventually(lambda: set(pids) >= set(house.pids(row["id"])), 2)
    assert house.run(name, "ps | grep -c '[s]leep 700'")[1] == "1\n"


def test_one_that_hears_is_not_waited_for(house: House, cron: Cron, name: str) -> None:
    create(house, name)
    command = "trap 'echo bye; exit 3' TERM; setsid sleep 600 & while :; do sleep 0.1; done"
    run = cron.result(command, container_id=name, timeout_seconds=1)
    assert (run["status"], run["exit_code"], run["stdout"]) == ("timed_out", 3, "bye\n")
    assert run["duration_ms"] < 5000


@pytest.mark.parametrize("operation", ["stop", "force-stop", "restart", "delete", "restore"])
def test_its_container_goes_away_below_it(
    house: House, cron: Cron, name: str, operation: str
) -> None:
    row = create(house, name)
    assert house.api("POST", f"/containers/{name}/snapshots", {"alias": "a"}).status == 200
    entry = cron.add(WAITS, container_id=name)
    cron.run(entry)
    has_begun(house, name)
    if operation == "delete":
        house.delete(name)
    elif operation == "restore":
        assert house.api("PATCH", f"/containers/{name}/snapshots/a").status == 200
    else:
        assert house.operate(name, operation).status == 200
    [run] = cron.over(entry)
    assert run["status"] == "failed"
    assert run["exit_code"] in (-9, -15, 137, 143)
    assert cron.told(entry) == ["started", "failed"]
    tokens = house.api.get("/auth/tokens").data["tokens"]
    assert [each for each in tokens if each["alias"].startswith("cron ")] == []
    if operation == "delete":
        assert cron.ask("GET", entry).status == 404
        assert not house.pids(row["id"])
    elif operation in ("restart", "restore"):
        assert house.run(name, "cat /tmp/said")[0] != 0 or operation == "restart"
        assert house.run(name, "ps | grep -c '[g]ate'")[1] == "0\n"


def test_a_server_that_is_killed_loses_what_ran_and_ends_it(
    house: House, cron: Cron, name: str
) -> None:
    row = create(house, name)
    pids = house.pids(row["id"])
    entry = cron.add(f"setsid {STUBBORN} & {WAITS}", container_id=name, retries=3)
    fire(cron.dsn, entry)
    has_begun(house, name)
    house.kill()
    house.start()
    cron = Cron.of_house(house)
    [run] = cron.over(entry)
    assert (run["status"], run["exit_code"]) == ("lost", None)
    house.still_runs(row["id"], pids)
    assert cron.told(entry) == ["started", "failed"]
    assert cron.error(entry) == "the server was killed while it ran"
    tokens = house.api.get("/auth/tokens").data["tokens"]
    assert [each for each in tokens if each["alias"].startswith("cron ")] == []
    assert house.run(name, "cat /tmp/said") == (0, "begun\n")
    assert cron.over(entry) == [run]


# Elsewhere


def test_it_runs_where_its_container_is_whoever_is_asked(
    house: House, cron: Cron, name: str, tmp_path: Path
) -> None:
    create(house, name)
    with Server(tmp_path / "data", f"--database={house.dsn}") as other:
        stranger = Cron(other.url, Api(f"{other.url}/api/v1", house.api.token), house.dsn)
        entries = [
            each.add(f"echo {number} >>/ran", container_id=name)
            for number in range(10)
            for each in [(cron, stranger)[number % 2]]
        ]
        fire(cron.dsn, *entries)
        for entry in entries:
            [run] = stranger.over(entry)
            assert (run["status"], run["server_id"]) == ("succeeded", house.server_id)
        said = house.run(name, "sort -n /ran")[1].split()
        assert said == [str(number) for number in range(10)]
        answer = stranger.ask("POST", entries[1], "/run")
        assert answer.status == 421
        assert "ask that one" in answer.json["message"]
        assert len(cron.runs(entries[1])) == 1
