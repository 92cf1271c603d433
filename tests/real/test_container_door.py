"""A container's own door to the API: what it opens, and what it does not."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hoody.containers.container import DOOR_PORT
from tests.support.api import issue
from tests.support.containers import House
from tests.support.postgres import Postgres

URL = f"http://127.0.0.1:{DOOR_PORT}"


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres
) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house") / "data", pool, cluster)
    try:
        yield house
    finally:
        house.close()


@pytest.fixture(scope="module")
def row(house: House) -> dict[str, Any]:
    return house.create("inside", egress="none", exposed_ports=[9000])


@pytest.fixture
def pid(house: House, row: dict[str, Any]) -> int:
    return house.pids(row["id"])[0]


def ask(pid: int, path: str, *words: str, given: bytes = b"") -> tuple[int, str]:
    """What is answered, by curl in the container's network: the status and the body."""
    done = subprocess.run(
        ["nsenter", "-t", str(pid), "-n", "curl", "-sS", "-m", "20", "-w", "\n%{http_code}"]
        + [*words, f"{URL}{path}"],
        input=given,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.decode().rpartition("\n")
    return int(status), body


def bearer(house: House) -> str:
    return f"Authorization: Bearer {house.api.token}"


@pytest.mark.parametrize("egress", ["none", "nat"])
def test_programs_inside_find_it(house: House, egress: str) -> None:
    house.create("finds", egress=egress, command="echo at $HOODY_URL; exec sleep 1000")
    try:
        code, said = house.run("finds", 'echo "$HOODY_URL"; wget -qO- "$HOODY_URL/health"')
        assert code == 0
        assert said.startswith(f"{URL}\n")
        assert '"status": "ok"' in said.replace('":"', '": "')
        assert f"at {URL}" in house.api.get("/containers/finds/logs").body
    finally:
        house.delete("finds")


def test_it_grants_nothing_by_itself(pid: int) -> None:
    for path in ("/api/v1/containers", "/metrics", "/api/v1/events", "/api/v1/auth/tokens"):
        assert ask(pid, path)[0] == 401, path
    # On the machine itself pipes are open.
    assert ask(pid, "/api/v1/pipe/x", "-T", "-", given=b"abc")[0] == 401
    assert ask(pid, "/api/v1/pipe/x")[0] == 401
    assert ask(pid, "/api/v1/pipe/x?progress")[0] == 401


def test_a_token_counts_as_anywhere(house: House, pid: int, row: dict[str, Any]) -> None:
    status, body = ask(pid, f"/api/v1/containers/{row['id']}", "-H", bearer(house))
    assert (status, '"inside"' in body) == (200, True)
    reader = issue(house.api, "read")
    words = ("-H", f"Authorization: Bearer {reader.token}")
    assert ask(pid, "/api/v1/containers", *words)[0] == 200
    assert ask(pid, "/api/v1/containers/inside/stop", *words, "-X", "POST")[0] == 403


def test_a_pipe_leads_out_of_it(house: House, pid: int) -> None:
    sent = b"dump" * 100_000
    with ThreadPoolExecutor(1) as pool:
        receiver = pool.submit(
            subprocess.run,
            ["curl", "-sS", "-m", "20", f"{house.server.pipe}/from-inside"],
            capture_output=True,
        )
        status, said = ask(
            pid, "/api/v1/pipe/from-inside", "-H", bearer(house), "-T", "-", given=sent
        )
        assert status == 200
        assert "Transfer complete" in said
        assert receiver.result().stdout == sent


def test_a_body_of_somebody_unknown_is_not_taken(pid: int) -> None:
    with _connected(pid) as sock:
        sock.sendall(
            b"POST /api/v1/projects HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
        )
        assert sock.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_it_does_not_lead_to_neighbours(house: House, pid: int) -> None:
    house.create("neighbour", egress="none")
    try:
        host = "neighbour.containers.hoody.localhost"
        for words in (("-H", f"Host: {host}"), ("--request-target", f"http://{host}/")):
            status, said = ask(pid, "/", *words)
            assert status == 404
            assert "It runs" not in said
    finally:
        house.delete("neighbour")


def test_the_gateway_never_leads_to_it(house: House) -> None:
    api = house.api
    for fields in ({"port": DOOR_PORT}, {"exposed_ports": [81, DOOR_PORT]}):
        answer = api("POST", "/projects/default/containers", {"name": "leads", **fields})
        assert answer.status == 400
        assert next(iter(fields)) in answer.error
        assert "HOODY_URL" in answer.error
        assert api("PATCH", "/containers/inside", fields).status == 400
    row = house.row("inside")
    host = f"{row['project_id']}-{row['id']}-http-{DOOR_PORT}.here.containers.hoody.localhost"
    done = subprocess.run(
        ["curl", "-sS", "-H", f"Host: {host}", house.server.url], capture_output=True, check=True
    )
    assert b"not reachable" in done.stdout


def test_wrong_tokens_inside_cost_nobody_else(house: House, pid: int) -> None:
    wrong = ("-H", "Authorization: Bearer hdy_" + "x" * 40)
    seen = {ask(pid, "/api/v1/containers", *wrong)[0] for _ in range(30)}
    assert seen == {401, 429}
    here = house.api.with_token("hdy_" + "y" * 40)
    assert here.get("/containers").status == 401
    assert ask(pid, "/api/v1/containers", "-H", bearer(house))[0] == 200


def test_who_asks_too_often_is_told_so_and_nobody_else_waits(house: House, pid: int) -> None:
    with _connected(pid) as sock:
        asked = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        sock.sendall(asked * 2000)
        said = b""
        while piece := sock.recv(1 << 20):
            said += piece
    assert said.count(b"HTTP/1.1 200 ") < 1000
    assert said.count(b"HTTP/1.1 429 ") == 1
    assert house.api.get("/containers").status == 200


def test_many_connections_wait_in_the_containers_own_kernel(house: House, pid: int) -> None:
    def connections() -> int:
        said: int = house.server.health()["parts"]["reactor"]["connections"]
        return said

    before = connections()
    crowd = [_connected(pid) for _ in range(80)]
    try:
        time.sleep(0.3)
        assert connections() <= before + 40
        assert house.api.get("/containers").status == 200
    finally:
        for sock in crowd:
            sock.close()
    late = time.monotonic() + 10
    while ask(pid, "/health")[0] != 200:
        assert time.monotonic() < late


def test_it_is_there_again_after_a_kill(house: House, pid: int) -> None:
    with _connected(pid) as sock:  # a connection that outlives the server must not hold the port
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(100)
        house.kill()
        house.start()
    late = time.monotonic() + 5
    while True:
        code, said = house.run("inside", 'wget -qO- "$HOODY_URL/health"')
        if code == 0:
            break
        assert time.monotonic() < late, said


def test_it_goes_with_its_container(house: House) -> None:
    before = house.server.steady()
    row = house.create("goes", egress="none")
    pid = house.pids(row["id"])[0]
    with _connected(pid):
        house.delete("goes")
        house.server.wait_until(lambda counts: counts.fds <= before.fds)


# A container's own pipes


def _space(row: dict[str, Any], project_id: str | None = None) -> str:
    project = project_id or row["project_id"]
    return f"{project}-{row['id']}-pipe-0.here.containers.hoody.localhost"


def _curl(house: House, host: str, path: str, *words: str, given: bytes = b"") -> str:
    done = subprocess.run(
        ["curl", "-sS", "-m", "20", "-H", f"Host: {host}", *words, f"{house.server.url}{path}"],
        input=given,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode()


@pytest.mark.parametrize("prefix", ["", "/api/v1/pipe"])
def test_each_container_has_pipes_of_its_own(
    house: House, row: dict[str, Any], prefix: str
) -> None:
    host = _space(row)
    with ThreadPoolExecutor(2) as pool:
        own = pool.submit(_curl, house, host, "/backup")
        common = pool.submit(_curl, house, "localhost", "/api/v1/pipe/backup")
        said = _curl(house, host, f"{prefix}/backup", "-T", "-", given=b"its own")
        assert "Transfer complete" in said
        assert own.result() == "its own"
        assert not common.done()
        _curl(house, "localhost", "/api/v1/pipe/backup", "-T", "-", given=b"of all")
        assert common.result() == "of all"
        # By its whole name it is the same.
        whole = pool.submit(_curl, house, host, "/again")
        name = f"/api/v1/pipe/containers/{row['id']}/again"
        _curl(house, "localhost", name, "-T", "-", given=b"the same")
        assert whole.result() == "the same"
    page = _curl(house, host, "/backup?progress", "-H", "Accept: text/html")
    assert f"http://{host}/backup?progress" in page
    assert "Transfer complete" in page or "complete" in page.lower()


def test_pipes_of_no_container_are_not_there(house: House, row: dict[str, Any]) -> None:
    for host in (_space(row, "0" * 24), _space({**row, "id": "f" * 24})):
        assert "no container" in _curl(house, host, "/backup", "-T", "-", given=b"x")
        assert "no container" in _curl(house, host, "/backup")


def test_who_is_tied_to_containers_has_pipes_of_these(house: House, row: dict[str, Any]) -> None:
    other = house.create("other", egress="none", start=False)
    try:
        tied = issue(house.api, "pipe", containers=[other["id"]])
        pid = house.pids(row["id"])[0]
        words = ("-H", f"Authorization: Bearer {tied.token}", "-T", "-")
        path = f"/api/v1/pipe/containers/{row['id']}/x"
        status, said = ask(pid, path, *words, given=b"x")
        assert (status, "tied" in said) == (403, True)
    finally:
        house.delete("other")


def _connected(pid: int) -> socket.socket:
    """To the door, from inside."""
    with open(f"/proc/{pid}/ns/net") as theirs, open("/proc/thread-self/ns/net") as ours:
        _set_namespace(theirs.fileno())
        try:
            sock = socket.socket()
        finally:
            _set_namespace(ours.fileno())
    sock.settimeout(20)
    sock.connect(("127.0.0.1", DOOR_PORT))
    return sock


def _set_namespace(descriptor: int) -> None:
    import ctypes

    assert ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000) == 0
