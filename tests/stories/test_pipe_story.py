"""
A database leaves one cloud and lands in another: pg_dump | gzip | curl on one
side, curl | gunzip | psql on the other. The lines are the story's own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import Postgres, folder, postgres
from tests.support.server import Server

pytestmark = [
    pytest.mark.skipif(folder() is None, reason="Postgres is missing"),
    pytest.mark.timeout(900),
]

MIB = 1 << 20
# pgbench's tables take about 15 MB a unit of scale.
QUICK_SCALE, LONG_SCALE = 14, 70

SIZES = pytest.mark.parametrize(
    "source",
    [
        pytest.param(QUICK_SCALE, id="200 MB"),
        pytest.param(LONG_SCALE, id="1 GB", marks=pytest.mark.long),
    ],
    indirect=True,
)

CHECKSUM = """
SELECT string_agg(line, ';') FROM (
  SELECT 'accounts ' || count(*) || ' ' || sum(hashtextextended(a::text, 0)) AS line
  FROM pgbench_accounts a
  UNION ALL SELECT 'branches ' || count(*) || ' ' || sum(hashtextextended(b::text, 0))
  FROM pgbench_branches b
  UNION ALL SELECT 'tellers ' || count(*) || ' ' || sum(hashtextextended(t::text, 0))
  FROM pgbench_tellers t
  UNION ALL SELECT 'history ' || count(*) || ' ' || sum(hashtextextended(h::text, 0))
  FROM pgbench_history h
) AS tables
"""


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    # Under /tmp: the Postgres user cannot enter pytest's own folders.
    made = Path(tempfile.mkdtemp(prefix="hoody-pg-"))
    made.chmod(0o755)
    try:
        with postgres(made / "server") as running:
            yield running
    finally:
        shutil.rmtree(made)


@pytest.fixture
def source(database: Postgres, request: pytest.FixtureRequest) -> str:
    """A database with data in all tables, made once a size; the name of it."""
    name = f"source_{request.param}"
    if name not in database.ask("postgres", "SELECT datname FROM pg_database"):
        database.run("createdb", name)
        database.run("pgbench", "-iq", "-s", str(request.param), name)
        database.run("pgbench", "-n", "-t", "500", "-c", "2", name)
    return name


@pytest.fixture
def target(database: Postgres) -> Iterator[str]:
    database.run("createdb", "target")
    yield "target"
    database.run("dropdb", "target")


def shell(database: Postgres, line: str, **variables: str) -> subprocess.Popen[str]:
    env = {**database.env, **variables}
    return subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", line],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


SEND = 'pg_dump "$DB" | gzip -1 | curl -sS -T - "$PIPE/api/v1/pipe/migration"'
RECEIVE = 'curl -sS "$PIPE/api/v1/pipe/migration" | gunzip | psql -qX -v ON_ERROR_STOP=1 "$DB"'


@SIZES
@pytest.mark.parametrize("first", ["sender", "receiver"])
def test_a_database_moves(
    server: Server, database: Postgres, source: str, target: str, first: str
) -> None:
    lines = {"sender": (SEND, source), "receiver": (RECEIVE, target)}
    second = "receiver" if first == "sender" else "sender"
    started = {}
    for side in (first, second):
        line, name = lines[side]
        started[side] = shell(database, line, PIPE=server.url, DB=name)
        if side == first:
            server.waiting(1)
    told, complaints = started["sender"].communicate()
    _, errors = started["receiver"].communicate()
    assert started["sender"].returncode == 0, complaints
    assert started["receiver"].returncode == 0, errors
    assert told.splitlines()[-1] == "[INFO] Transfer complete."
    size = int(database.ask("postgres", f"SELECT pg_database_size('{source}')"))
    assert size > (1000 if "70" in source else 200) * MIB
    assert database.ask(source, CHECKSUM) == database.ask(target, CHECKSUM)


@SIZES
def test_a_slow_receiver_throttles_the_dump_and_the_server_holds_nothing(
    server: Server, database: Postgres, source: str, target: str
) -> None:
    """
    At 2 MB/s. The sender is seen to be throttled: what the server has taken
    from it stays close to what the receiver has been given.
    """
    slow = 'curl -sS --limit-rate 2M "$PIPE/api/v1/pipe/migration" >/dev/null'
    dump = 'pg_dump "$DB" | curl -sS -T - "$PIPE/api/v1/pipe/migration"'
    receiver = shell(database, slow, PIPE=server.url, DB=target)
    server.waiting(1)
    server.forget_peak()
    before = server.resident("VmRSS")
    sender = shell(database, dump, PIPE=server.url, DB=source)
    try:
        server.wait_until(lambda counts: counts.running == 1)
        time.sleep(8)  # until the kernel's buffers on four ends are full
        began, before_window = time.monotonic(), _sent_by(sender)
        time.sleep(10)
        taken = _sent_by(sender) - before_window
        elapsed = time.monotonic() - began
        assert sender.poll() is receiver.poll() is None
        assert server.resident("VmHWM") - before < 4 * MIB
        # 2 MB/s, and the buffers may still grow; without a brake it is 100 MB/s.
        assert taken < 2 * MIB * elapsed + 20 * MIB, f"{taken} bytes in {elapsed} s"
    finally:
        for side in (receiver, sender):
            end_with_children(side)


def end_with_children(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _sent_by(shell_process: subprocess.Popen[str]) -> int:
    """Bytes that the curl under this shell has read from its pipe (proc(5), io)."""
    children = Path(f"/proc/{shell_process.pid}/task/{shell_process.pid}/children")
    for child in children.read_text().split():
        if Path(f"/proc/{child}/comm").read_text().strip() == "curl":
            io = Path(f"/proc/{child}/io").read_text()
            return int(io.split("rchar:")[1].split()[0])
    raise AssertionError("there is no curl")
