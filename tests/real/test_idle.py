"""Containers that sleep until somebody comes. All parts are real."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hoody.containers.cgroups import Cgroup, Hierarchies
from tests.support.browser import OpenPage, violations
from tests.support.containers import House
from tests.support.postgres import Postgres

PROBES = "path=/healthz,path=/live/*,agent=Prober/,header=X-Probe,header=X-Kind: probe"
COUNTS = "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.1; done"


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres
) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house") / "data"
    house = House(folder, pool, cluster, "--reclaim-after=1s", f"--probes={PROBES}")
    try:
        yield house
    finally:
        house.close()


@pytest.fixture
def name(request: pytest.FixtureRequest, house: House) -> Iterator[str]:
    name = f"c{abs(hash(request.node.name)) % 10**8}"
    yield name
    with contextlib.suppress(AssertionError):
        house.delete(name)


def served(script: str) -> list[str]:
    """A command that answers each connection by a script."""
    return [
        "/bin/sh",
        "-c",
        'printf "%s" "$0" >/tmp/s; chmod +x /tmp/s; exec nc -ll -p 8080 -e /tmp/s',
        f"#!/bin/sh\nwhile read -r line && [ ${{#line}} -gt 1 ]; do :; done\n{script}",
    ]


def asleep(house: House, name: str) -> dict[str, Any]:
    return house.until(name, status="paused", status_reason="idle")


def cgroup(house: House, row: dict[str, Any]) -> Cgroup:
    return Cgroup(Hierarchies.read(), f"/hoody/{house.server_id}/{row['id']}")


def headers(house: House, label: str, path: str = "/", *more: str) -> dict[str, str]:
    """Of an answer; the status is C{:status}."""
    done = subprocess.run(
        ["curl", "-sS", "-m", "20", "-o", "/dev/null", "-D", "-", *more]
        + [f"http://{label}.containers.hoody.localhost:{house.server.port}{path}"],
        capture_output=True,
        check=True,
        text=True,
    )
    first, *rest = done.stdout.strip().splitlines()
    found = {key.lower(): value.strip() for key, _, value in (x.partition(":") for x in rest)}
    return {**found, ":status": first.split()[1]}


def test_it_sleeps_and_the_first_request_wakes_it(house: House, name: str) -> None:
    row = house.create(name, egress="none", idle_timeout_seconds=1)
    pids = house.pids(row["id"])
    house.get(name)
    slept = asleep(house, name)
    assert slept["idle_since"] is not None
    assert slept["idle_since"] == slept["last_activity_at"]
    before = cgroup(house, row).cpu_ns
    time.sleep(1)
    assert cgroup(house, row).cpu_ns == before, "it takes no CPU at all"
    # Looking does not wake.
    for path in ("", "/logs", "/stats", "/status-logs", "/env"):
        assert house.api.get(f"/containers/{name}{path}").status == 200
    stats = house.api.get(f"/containers/{name}/stats").data
    assert stats["cpu"]["idle"] is True
    assert stats["idle_seconds"] > 1
    assert cgroup(house, row).is_frozen
    said = headers(house, name)
    assert said[":status"] == "200"
    assert said["x-hoody-wake"].startswith("paused; dur=")
    assert float(said["x-hoody-wake"].partition("dur=")[2]) < 1000
    assert said["server-timing"].startswith("wake;dur=")
    assert "x-hoody-wake" not in headers(house, name)
    awake = house.until(name, status="running", wake_count=1)
    assert awake["idle_since"] is None
    assert awake["last_wake_ms"] > 0
    house.still_runs(row["id"], pids)
    events = house.api.get(f"/events?container_id={row['id']}&sort_order=asc").data["events"]
    told = {each["event_type"]: each for each in events}
    assert told["container.paused"]["actor"] == "idle timer"
    assert told["container.woken"]["actor"] == "request"
    assert told["container.woken"]["data"]["idle_seconds"] > 1
    logs = house.api.get(f"/containers/{name}/status-logs?sort_order=asc").data["logs"]
    assert [each["to_status"] for each in logs] == ["stopped", "running", "paused", "running"]


def test_its_processes_go_on_where_they_were(house: House, name: str) -> None:
    house.create(name, egress="none", idle_timeout_seconds=1, command=COUNTS)
    asleep(house, name)
    before = house.api.get(f"/containers/{name}/logs").body.split()
    time.sleep(0.5)
    assert house.api.get(f"/containers/{name}/logs").body.split() == before
    code, said = house.run(name, "echo awake")
    assert (code, said) == (0, "awake\n")
    time.sleep(0.3)
    after = [int(word) for word in house.api.get(f"/containers/{name}/logs").body.split()]
    assert len(after) > len(before)
    assert after == list(range(1, len(after) + 1))


def test_the_project_says_when_and_0_is_never(house: House, name: str) -> None:
    project = house.api("POST", "/projects", {"alias": name, "idle_timeout_seconds": 1}).data
    paths = f"/projects/{project['id']}/containers"
    try:
        for field in ({}, {"idle_timeout_seconds": 0}):
            called = f"{name}-{len(field)}"
            answer = house.api("POST", paths, {"name": called, "egress": "none", **field})
            assert answer.status == 201, answer.body
        asleep(house, f"{name}-0")
        assert house.row(f"{name}-1")["status"] == "running"
    finally:
        for number in (0, 1):
            house.delete(f"{name}-{number}")
        house.api("DELETE", f"/projects/{project['id']}")


def test_a_slow_request_is_answered(house: House, name: str) -> None:
    slow = served("sleep 4; printf 'HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\nslow'")
    house.create(name, egress="none", idle_timeout_seconds=1, command=slow)
    assert house.get(name) == (200, b"slow")
    asleep(house, name)


def test_fifty_first_requests_are_answered(house: House, name: str) -> None:
    row = house.create(name, egress="none", idle_timeout_seconds=1)
    house.get(name)
    asleep(house, name)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: house.get(name)[0], range(50)))
    assert answers == [200] * 50
    assert house.until(name, status="running")["wake_count"] == 1
    assert not cgroup(house, row).is_frozen


def test_requests_that_come_just_as_it_falls_asleep(house: House, name: str) -> None:
    names = [f"{name}-{number}" for number in range(4)]
    for each in names:
        house.create(each, egress="none", idle_timeout_seconds=1)
    chance = random.Random(7)

    def visit(each: str) -> list[int]:
        found = []
        for _ in range(6):
            # It is put to sleep within half a second after one.
            time.sleep(1 + 0.5 * chance.random())
            found.append(house.get(each)[0])
        return found

    try:
        with ThreadPoolExecutor(len(names)) as pool:
            assert set(itertools.chain(*pool.map(visit, names))) == {200}
        assert any(house.row(each)["wake_count"] for each in names)
    finally:
        for each in names:
            house.delete(each)


def test_a_silent_connection_stays_and_a_word_wakes(house: House, name: str) -> None:
    switch = (
        "HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: echo\\r\\n\\r\\n"
    )
    row = house.create(
        name, egress="none", idle_timeout_seconds=1, command=served(f"printf '{switch}'; cat")
    )
    with socket.create_connection(("127.0.0.1", house.server.port), timeout=20) as client:
        host = f"{name}.containers.hoody.localhost"
        asked = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        client.sendall(asked.encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 101 ")
        for word in (b"one", b"two"):
            asleep(house, name)
            assert cgroup(house, row).is_frozen
            client.sendall(word)
            assert client.recv(4096) == word
            house.until(name, status="running")
        # That it is closed is no reason to wake.
        asleep(house, name)
    time.sleep(0.5)
    assert house.row(name)["status"] == "paused"


def test_one_that_does_not_take_what_it_is_sent_is_not_put_to_sleep(
    house: House, name: str
) -> None:
    """Who sends could not wake it: there is no room for another byte."""
    switch = (
        "HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: count\\r\\n\\r\\n"
    )
    takes = served(f"printf '{switch}'; sleep 3; head -c {32 << 20} | wc -c")
    house.create(name, egress="none", idle_timeout_seconds=1, command=takes)
    with socket.create_connection(("127.0.0.1", house.server.port), timeout=10) as client:
        host = f"{name}.containers.hoody.localhost"
        asked = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: count\r\n\r\n"
        client.sendall(asked.encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 101 ")
        client.sendall(bytes(32 << 20))
        assert client.recv(4096).strip() == str(32 << 20).encode()
    asleep(house, name)


def test_a_silent_answer_sleeps(house: House, name: str) -> None:
    head = "HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\n\\r\\n"
    stream = served(f"printf '{head}data: 1\\n\\n'; sleep 1000")
    house.create(name, egress="none", idle_timeout_seconds=1, command=stream)
    url = f"http://{name}.containers.hoody.localhost:{house.server.port}/"
    with subprocess.Popen(["curl", "-sSN", url], stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        assert curl.stdout.readline() == b"data: 1\n"
        asleep(house, name)
        assert curl.poll() is None
        curl.kill()


@pytest.mark.parametrize(
    ("egress", "busy"),
    [
        ("none", 'while :; do wget -qO /dev/null "$HOODY_URL/health"; sleep 0.2; done'),
        ("nat", "while :; do nc -w 1 9.9.9.9 9; sleep 0.1; done"),
    ],
)
def test_bytes_on_its_own_ways_keep_it_awake(
    house: House, name: str, egress: str, busy: str
) -> None:
    house.create(name, egress=egress, idle_timeout_seconds=2, command=busy)
    quiet = f"{name}-q"
    house.create(quiet, egress=egress, idle_timeout_seconds=2, command="exec sleep 1000")
    try:
        asleep(house, quiet)
        time.sleep(1.5)
        assert house.row(name)["status"] == "running"
    finally:
        house.delete(quiet)


def test_what_comes_by_its_own_door_wakes_it(house: House, name: str) -> None:
    takes = (
        'wget -qO- --header "Authorization: Bearer $TOKEN" $HOODY_URL/api/v1/pipe/$NAME | wc -c;'
        " sleep 1000"
    )
    variables = {"TOKEN": house.api.token, "NAME": name}
    row = house.create(
        name, egress="none", idle_timeout_seconds=1, command=takes, environment_vars=variables
    )
    asleep(house, name)
    url = f"{house.server.url}/api/v1/pipe/{name}"
    with subprocess.Popen(["curl", "-sST-", url], stdin=subprocess.PIPE) as sender:
        assert sender.stdin is not None
        # More than is moved by other means than the kernel's, and than sockets keep.
        for wakes in (1, 2):
            sender.stdin.write(bytes(8 << 20))
            sender.stdin.flush()
            house.until(name, wake_count=wakes)
            asleep(house, name)
            assert cgroup(house, row).is_frozen
        sender.stdin.close()
        assert sender.wait(20) == 0
    late = time.monotonic() + 10
    while f"{16 << 20}" not in house.api.get(f"/containers/{name}/logs").body:
        assert time.monotonic() < late
        time.sleep(0.1)


def test_a_command_keeps_it_awake(house: House, name: str) -> None:
    house.create(name, egress="none", idle_timeout_seconds=1)
    assert house.run(name, "sleep 2.5; echo done") == (0, "done\n")
    log = house.api.get(f"/containers/{name}/status-logs").data["logs"]
    assert "paused" not in [each["to_status"] for each in log]
    asleep(house, name)


def test_paused_by_hand_stays_paused(house: House, name: str) -> None:
    row = house.create(name, egress="none", idle_timeout_seconds=1)
    asleep(house, name)
    # Of one that sleeps, too.
    assert house.operate(name, "pause").status == 200
    found = house.until(name, status="paused", status_reason="manual")
    assert found["idle_since"] is None
    code, said = house.get(name)
    assert code == 503
    assert b"paused by hand" in said
    assert cgroup(house, row).is_frozen
    assert house.operate(name, "resume").status == 200
    assert house.get(name)[0] == 200
    asleep(house, name)


@pytest.mark.parametrize("operation", ["stop", "force-stop", "restart", "resume"])
def test_operations_on_one_that_sleeps(house: House, name: str, operation: str) -> None:
    house.create(name, egress="none", idle_timeout_seconds=1)
    asleep(house, name)
    answer = house.operate(name, operation)
    assert answer.status == 200, answer.body
    status = "running" if operation in ("restart", "resume") else "stopped"
    assert house.row(name)["status"] == status


def test_one_that_sleeps_is_copied_and_deleted(house: House, name: str) -> None:
    house.create(name, egress="none", idle_timeout_seconds=1)
    assert house.run(name, "echo kept >/kept")[0] == 0
    asleep(house, name)
    answer = house.api("POST", f"/containers/{name}/copy", {"name": f"{name}-copy"})
    assert answer.status == 201, answer.body
    try:
        assert house.run(f"{name}-copy", "cat /kept") == (0, "kept\n")
        assert answer.data["wake_count"] == 0
    finally:
        house.delete(f"{name}-copy")
    assert house.row(name)["status"] == "paused"


def test_stopped_ones_start_on_request(house: House, name: str) -> None:
    # That its server takes its time is waited for, too.
    late = "if [ -e /again ]; then sleep 1; exec httpd -f -p 8080 -h /var/www; fi; touch /again"
    house.create(name, egress="none", command=late)
    assert house.until(name, status="stopped")["status_reason"] == "exited"
    said = headers(house, name)
    assert said[":status"] == "200"
    assert said["x-hoody-wake"].startswith("stopped; dur=")
    assert float(said["x-hoody-wake"].partition("dur=")[2]) > 1000
    assert house.operate(name, "stop").status == 200
    assert house.get(name)[0] == 503


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/healthz", ()),
        ("/healthz?full", ()),
        ("/live/deep", ()),
        ("/", ("-A", "Some prober/2")),
        ("/", ("-H", "x-probe: 1")),
        ("/", ("-H", "X-Kind: Probe")),
        ("/", ("-I", "-H", "X-Probe: 1")),
    ],
)
def test_probes_neither_wake_nor_keep_awake(
    house: House, probed: str, path: str, words: tuple[str, ...]
) -> None:
    row = asleep(house, probed)
    said = headers(house, probed, path, *words)
    assert said[":status"] == "200"
    assert said["x-hoody-asleep"] == "paused"
    assert cgroup(house, row).is_frozen
    assert house.row(probed)["wake_count"] == row["wake_count"]


def test_other_requests_than_probes_wake(house: House, probed: str) -> None:
    asleep(house, probed)
    for words in (("-A", "Probe"), ("-H", "X-Kind: other")):
        said = headers(house, probed, "/healthz2", *words)
        assert "x-hoody-asleep" not in said
    # While it is awake they reach it, and it falls asleep all the same.
    assert headers(house, probed, "/healthz")[":status"] == "404"
    late = time.monotonic() + 8
    while "x-hoody-asleep" not in headers(house, probed, "/healthz"):
        assert time.monotonic() < late
        time.sleep(0.3)


@pytest.fixture(scope="module")
def probed(house: House) -> Iterator[str]:
    house.create("probed", egress="none", idle_timeout_seconds=1)
    yield "probed"
    house.delete("probed")


def test_who_browses_is_shown_that_it_starts(house: House, name: str, open_page: OpenPage) -> None:
    late = "if [ -e /again ]; then sleep 4; exec httpd -f -p 8080 -h /var/www; fi; touch /again"
    house.create(name, egress="none", command=late)
    house.until(name, status="stopped")
    url = f"http://{name}.containers.hoody.localhost:{house.server.port}/"
    page = open_page(url, allowed="503", width=390)
    page.goto(url)
    page.get_by_role("heading", name=f"{name} is starting").wait_for()
    assert not violations(page)
    # It asks again by itself.
    page.get_by_text("It runs").wait_for(timeout=15_000)
    assert house.row(name)["status"] == "running"


def test_asleep_through_a_kill_of_the_server(house: House, name: str) -> None:
    row = house.create(name, egress="none", idle_timeout_seconds=1, autostart=False)
    other = house.create(f"{name}-o", egress="none", idle_timeout_seconds=0)
    try:
        pids = house.pids(row["id"])
        asleep(house, name)
        house.kill()
        # What the row says is made true again, either way.
        cgroup(house, row).thaw()
        cgroup(house, other)._set_frozen(True)
        house.start()
        assert house.row(name)["status"] == "paused"
        late = time.monotonic() + 5
        while not cgroup(house, row).is_frozen or cgroup(house, other).is_frozen:
            assert time.monotonic() < late
            time.sleep(0.05)
        assert headers(house, name)["x-hoody-wake"].startswith("paused")
        house.still_runs(row["id"], pids)
    finally:
        house.delete(f"{name}-o")


def test_memory_is_given_back(house: House, name: str) -> None:
    row = house.create(name, egress="none", idle_timeout_seconds=1, memory_limit=256 << 20)
    assert house.run(
        name, "dd if=/dev/urandom of=/tmp/x bs=1M count=48; sync; cat /tmp/x >/dev/null"
    )
    group = cgroup(house, row)
    assert sum(group.memory[what] for what in ("own", "shared")) > 40 << 20
    asleep(house, name)
    late = time.monotonic() + 20
    while sum(group.memory[what] for what in ("own", "shared")) > 16 << 20:
        assert time.monotonic() < late, group.memory
        time.sleep(0.1)
    assert house.get(name)[0] == 200
