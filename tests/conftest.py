"""What all tests share."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.browser import browser, open_page
from tests.support.containers import pool
from tests.support.postgres import Postgres, folder, open_folder, postgres
from tests.support.server import Server

# Long enough for a machine that does other things too, short enough to wait for.
hypothesis.settings.register_profile("default", deadline=None, max_examples=200)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=5000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

__all__ = ["browser", "open_page", "pool"]

# Containers and their file systems outlive a server: only tests of them have any.
os.environ["HOODY_CONTAINERS"] = "off"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "pool" in getattr(item, "fixturenames", ()):
            item.add_marker("containers")


Serve = Callable[..., Server]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Postgres]:
    """A Postgres for all tests that want a database and do not break it."""
    if folder() is None:
        pytest.skip("Postgres is not installed (apt-get install postgresql)")
    with open_folder() as made, postgres(made / "postgres") as running:
        yield running


@pytest.fixture(scope="session", autouse=True)
def common_database(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    Servers that say nothing else share one database: so they start sooner, and prove
    that they can.
    """
    if folder() is None:
        yield
        return
    running: Postgres = request.getfixturevalue("cluster")
    running.run("createdb", "common")
    os.environ["HOODY_DATABASE"] = running.dsn("common")
    yield
    del os.environ["HOODY_DATABASE"]


@pytest.fixture(scope="session", params=["off", "0"], ids=["portable", "kernel"])
def mover(request: pytest.FixtureRequest) -> str:
    """C{--splice}: what holds of pipes holds on both movers, from the first byte on."""
    return f"--splice={request.param}"


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory, mover: str) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("shared") / "data", mover) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """The server with its defaults; nothing of a test may be left in it."""
    before = shared_server.steady()
    yield shared_server
    shared_server.settle(before)


@pytest.fixture
def serve(tmp_path: Path, mover: str) -> Iterator[Serve]:
    """Starts servers with options; they end with the test, and must be clean then."""
    started: list[tuple[Server, object]] = []

    def start(*options: str, **more: object) -> Server:
        data_dir = tmp_path / f"data{len(started)}"
        server = Server(data_dir, mover, *options, **more)  # type: ignore[arg-type]
        started.append((server, server.steady()))
        return server

    yield start
    try:
        for server, before in started:
            if server.process.poll() is None:
                server.settle(before)  # type: ignore[arg-type]
    finally:
        for server, _ in started:
            server.stop()


_numbers = itertools.count(1)


@pytest.fixture
def name() -> str:
    """A path that no other test uses."""
    return f"test-{next(_numbers)}"
