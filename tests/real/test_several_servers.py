"""Servers that share a database, and what each says of the containers of the others."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.support.api import Api
from tests.support.containers import House
from tests.support.postgres import Postgres
from tests.support.server import Server

OWNER = "box-one"
"""What the server is called that has the container."""


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres
) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house") / "data", pool, cluster)
    try:
        house.create("web", alias="front", egress="none", start=False)
        # Both run on this machine, and would be called the same.
        assert rename(house, house.server_id, OWNER)
        yield house
    finally:
        house.close()


@pytest.fixture(scope="module")
def other(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the same database, without containers of its own."""
    with Server(tmp_path_factory.mktemp("other") / "data", f"--database={house.dsn}") as server:
        yield server


@pytest.fixture(scope="module")
def stranger(house: House, other: Server) -> Api:
    """The other one's API; every server accepts every token."""
    return Api(f"{other.url}/api/v1", house.api.token)


def rename(house: House, server_id: str, name: str) -> str:
    """@return: what it was called before."""
    with closing(psycopg2.connect(house.dsn)) as connection, connection, connection.cursor() as do:
        do.execute(
            "UPDATE hoody.servers AS now SET name = %s FROM hoody.servers AS before"
            " WHERE now.id = %s AND before.id = now.id RETURNING before.name",
            (name, server_id),
        )
        [(former,)] = do.fetchall()
    return str(former)


def get(server: Server, host: str, *more: str) -> tuple[int, str]:
    url = f"http://{host}.containers.hoody.localhost:{server.port}/"
    done = subprocess.run(
        ["curl", "-sS", "-m", "20", "-w", "%{http_code}", *more, url],
        capture_output=True,
        check=True,
        text=True,
    )
    return int(done.stdout[-3:]), done.stdout[:-3]


@pytest.mark.parametrize("host", ["web", "front", "WEB", "{id}", "{project}-{id}-http-8080.any"])
def test_a_host_of_another_server_s_container_says_whose_it_is(
    house: House, other: Server, host: str
) -> None:
    row = house.row("web")
    status, said = get(other, host.format(id=row["id"], project=row["project_id"]))
    assert status == 421
    assert said == (
        f"[ERROR] The container 'web' is on the server '{OWNER}' ({house.server_id}); ask that"
        " one.\n"
    )


def test_as_a_page_too(other: Server) -> None:
    status, said = get(other, "web", "-H", "Accept: text/html")
    assert status == 421
    assert "<h1>The container is on another server</h1>" in said
    assert OWNER in said


def test_an_upload_to_it_is_refused_and_not_read(other: Server, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(8 << 20))
    assert get(other, "web", "-T", str(tmp_path / "large"))[0] == 421


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/start", None),
        ("DELETE", "", None),
        ("PATCH", "", {"comment": "x"}),
        ("POST", "/copy", {}),
        ("POST", "/exec", {"command": "true"}),
        ("GET", "/logs", None),
        ("GET", "/stats", None),
        ("PUT", "/env/A", {"value": "b"}),
    ],
)
def test_the_api_says_whose_it_is(
    house: House, stranger: Api, method: str, path: str, body: Any
) -> None:
    answer = stranger(method, f"/containers/web{path}", body)
    assert answer.status == 421
    assert f"on the server '{OWNER}' ({house.server_id})" in answer.error


def test_a_row_names_the_server_that_has_it(house: House, stranger: Api) -> None:
    for row in (
        stranger.get("/containers/web").data,
        stranger.get("/containers").data["containers"][0],
        house.row("web"),
    ):
        assert (row["server_id"], row["server_name"]) == (house.server_id, OWNER)


def test_a_server_that_is_called_otherwise_says_so_at_its_start(
    house: House, tmp_path: Path
) -> None:
    options = (tmp_path / "data", f"--database={house.dsn}")
    with Server(*options):
        pass
    server_id = (tmp_path / "data" / "server-id").read_text().strip()
    # What it was called is what we find.
    assert rename(house, server_id, "formerly") == socket.gethostname()
    with Server(*options):
        pass
    assert rename(house, server_id, "") == socket.gethostname()


def test_a_name_that_nobody_has_is_unknown_and_found_when_it_comes(
    house: House, other: Server
) -> None:
    assert get(other, "late")[0] == 404
    assert house.api("PATCH", "/containers/web", {"alias": "late"}).status == 200
    try:
        late = time.monotonic() + 10
        while get(other, "late")[0] != 421:  # it is not asked for each time
            assert time.monotonic() < late
            time.sleep(0.1)
    finally:
        house.api("PATCH", "/containers/web", {"alias": "front"})
