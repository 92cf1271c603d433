"""
A Postgres that works in a container while snapshots are taken of it: each of them is one that
it recovers from, with all that it had acknowledged before.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import postgres_image
from tests.support.containers import House
from tests.support.postgres import Postgres, folder
from tests.support.rollback import started, take, until, verified

BALANCES = (
    "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM"
    " pgbench_history) AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(delta) FROM"
    " pgbench_history) AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta)"
    " FROM pgbench_history)"
)
"""Each transaction of pgbench changes all four, or none."""
CLIENTS = 4


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres
) -> Iterator[House]:
    made = tmp_path_factory.mktemp("house")
    house = House(made / "data", pool, cluster)
    try:
        archive = made / "postgres.tar"
        postgres_image.make(archive, _programs())
        answer = house.api(
            *("POST", "/images?name=postgres", None, "-T", str(archive)),
            *("-H", "Expect:", "-m", "100"),
        )
        assert answer.status == 201, answer.body
        archive.unlink()
        yield house
    finally:
        house.close()


def _programs() -> Path:
    found = folder()
    assert found is not None
    return found


class Inside:
    """The Postgres in a container."""

    def __init__(self, house: House, name: str) -> None:
        self._house, self.name = house, name

    def run(self, program: str, *words: str) -> str:
        command = [str(_programs() / program), "-h", "/tmp", "-U", "postgres", *words]
        code, said = self._house.run(self.name, command)
        assert code == 0, said
        return said

    def ask(self, query: str) -> str:
        return self.run("psql", "-XAtqc", query, "postgres").strip()

    def until_up(self) -> None:
        """As long as it takes to recover."""
        command = [str(_programs() / "pg_isready"), "-q", "-h", "/tmp", "-U", "postgres"]
        try:
            until(lambda: self._house.run(self.name, command)[0] == 0, 60)
        except AssertionError as error:
            logs = self._house.api.get(f"/containers/{self.name}/logs?tail=20").body
            raise AssertionError(logs) from error

    def stream(self, command: str) -> Iterator[str]:
        """What a command says, as it does, for as long as it runs."""
        body = json.dumps({"command": command, "timeout_seconds": 1800})
        more = ("-N", "-m", "1800", "-d", body)
        asking = started(self._house, "POST", f"/containers/{self.name}/exec", *more)
        assert asking.stdout is not None
        with asking:
            for line in asking.stdout:
                yield json.loads(line).get("data", "")


class Client:
    """
    Inserts numbers, one in each transaction.

    @ivar acknowledged: the last number of which it has been told that it was kept.
    """

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self.acknowledged = 0
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def _go_on(self) -> None:
        psql = f"{_programs()}/psql -XAtq -h /tmp -U postgres"
        command = (
            "i=0; while [ $i -lt 1000000 ]; do i=$((i + 1));"
            ' echo "INSERT INTO kept VALUES ($i) RETURNING n;"; done'
            f" | {psql} -v ON_ERROR_STOP=1 postgres"
        )
        rest = ""
        for said in self._inside.stream(command):
            *lines, rest = (rest + said).split("\n")
            if lines:
                self.acknowledged = int(lines[-1])

    def until_more(self, count: int) -> None:
        wanted = self.acknowledged + count
        until(lambda: self.acknowledged >= wanted, 60)


@pytest.mark.parametrize("count", [5, pytest.param(50, marks=pytest.mark.long)])
@pytest.mark.timeout(900)
def test_a_database_recovers_from_each_with_all_that_it_had_acknowledged(
    house: House, count: int
) -> None:
    house.create(
        "database",
        container_image="postgres",
        command=postgres_image.command(_programs()),
        volumes=[{"name": "data", "path": "/data"}],
        egress="none",
    )
    inside = Inside(house, "database")
    inside.until_up()
    inside.ask("CREATE TABLE kept (n int PRIMARY KEY)")
    inside.run("pgbench", "-i", "-q", "-s", "2", "postgres")
    client = Client(inside)
    bench = f"{_programs()}/pgbench -h /tmp -U postgres -n -c {CLIENTS} -T 1700 postgres"
    working = threading.Thread(target=lambda: list(inside.stream(bench)), daemon=True)
    working.start()
    until(lambda: int(inside.ask("SELECT count(*) FROM pgbench_history")) > 20, 60)
    taken: list[tuple[str, int, int]] = []
    for _ in range(count):
        client.until_more(20)
        before = client.acknowledged
        row = take(house, "database")
        assert row["consistency"] == "frozen"
        taken.append((row["name"], before, int(inside.ask("SELECT max(n) FROM kept"))))
    assert len({name for name, _, _ in taken}) == count
    for number, (name, before, after) in enumerate(taken):
        _check(house, f"database-{number}", name, before, after)
    assert verified(house, "database", taken[-1][0])["valid"]
    assert inside.ask("SELECT pg_is_in_recovery()") == "f"
    house.nothing_is_left(15)
    working.join(20)


def _check(house: House, copy: str, snapshot: str, before: int, after: int) -> None:
    body = {"name": copy, "source_snapshot": snapshot}
    answer = house.api("POST", "/containers/database/copy", body)
    assert answer.status == 201, answer.body
    inside = Inside(house, copy)
    inside.until_up()
    found = inside.ask("SELECT count(*), min(n), max(n) FROM kept").split("|")
    held, least, most = map(int, found)
    assert (least, held) == (1, most), "none is missing in between"
    assert before <= most <= after
    assert inside.ask(BALANCES) == "t"
    inside.run("pg_amcheck", "--install-missing", "--heapallindexed", "-d", "postgres")
    inside.ask(f"INSERT INTO kept VALUES ({most + 1})")
    house.delete(copy)
