"""What the README says to paste is pasted, as it stands but for the port."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import night_image
from tests.support.containers import House
from tests.support.postgres import Postgres, folder
from tests.support.server import Server
from tests.support.wire import Wire

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = dict(re.findall(r"<!-- run: (\w+) -->\n```sh\n(.*?)```", README, re.DOTALL))


def start(block: str, server: Server, folder: Path, **env: str) -> subprocess.Popen[str]:
    lines = BLOCKS[block].replace("http://localhost:8080", server.url)
    assert lines != BLOCKS[block]
    return subprocess.Popen(
        ["bash", "-eo", "pipefail", "-c", lines],
        cwd=folder,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_block_to_paste_is_run_here() -> None:
    assert set(BLOCKS) == {
        *("sender", "receiver", "three", "form", "watch", "poll", "token", "follow"),
        "container",
        "idle",
        "snapshot",
        "move",
        "night",
        "morning",
    }
    assert README.count("```sh") == len(BLOCKS)


def pasted(block: str, house: House) -> str:
    lines = BLOCKS[block].replace("localhost:8080", f"localhost:{house.server.port}")
    lines = lines.replace("/var/lib/hoody", str(house.data_dir))
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", lines], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    "source",
    ["at hand", pytest.param("Debian's", marks=(pytest.mark.long, pytest.mark.timeout(600)))],
)
def test_one_night(tmp_path: Path, pool: Path, cluster: Postgres, source: str) -> None:
    """The image is Debian's by the network, or of this machine's packages: then it is there."""
    with closing(House(tmp_path / "data", pool, cluster)) as house:
        if source == "at hand":
            programs = folder()
            assert programs is not None
            night_image.make(tmp_path / "image.tar", programs)
            house.api(
                *("POST", "/images?name=debian", None, "-T", str(tmp_path / "image.tar")),
                *("-H", "Expect:", "-m", "100"),
            )
        told = pasted("night", house)
        assert '"schedule_human": "At 02:55"' in told
        told = pasted("morning", house)
        assert '"status": "succeeded"' in told
        assert "pre-migration snapshot" in told
        assert '"success": true' in told
        taken = house.api.get("/containers/app/snapshots").data["snapshots"]
        assert [each["alias"] for each in taken] == [None, "rollback-point"]
        assert taken[1]["expires_at"] is not None
        house.delete("app")


def test_a_container_and_its_sleep(tmp_path: Path, pool: Path, cluster: Postgres) -> None:
    house = House(tmp_path / "data", pool, cluster)

    def paste(block: str) -> str:
        return pasted(block, house)

    try:
        told = paste("container")
        assert '"status": "running"' in told
        assert "It runs" in told
        assert '{"stream":"stdout","data":"staging\\n"}' in told
        assert '"operation": "restart"' in told
        assert house.run("staging", "cat /data/since")[0] == 0
        told = paste("idle")
        assert '"status_reason": "idle"' in told
        assert "X-Hoody-Wake: paused; dur=" in told
        assert "It runs" in told
        since = house.run("staging", "cat /data/since")
        told = paste("snapshot")
        assert '"alias": "rollback-point"' in told
        assert '"removed": [{"path": "/data/since"' in told
        assert '"success": true' in told
        assert '"name": "undo-' in told
        assert house.run("staging", "cat /data/since") == since
        assert '"name": "moved"' in paste("move")
        assert house.run("moved", "cat /data/since") == since
    finally:
        house.close()


@pytest.mark.parametrize("first", ["sender", "receiver"])
def test_the_pipes_two_lines(server: Server, tmp_path: Path, first: str) -> None:
    """The real database is the story's own test; here its programs are stood in for."""
    for program, script in {"pg_dump": "seq 100000", "psql": "sha256sum > got"}.items():
        path = tmp_path / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    sides = {first: start(first, server, tmp_path, **env)}
    server.waiting(1)
    second = "receiver" if first == "sender" else "sender"
    sides[second] = start(second, server, tmp_path, **env)
    told, _ = sides["sender"].communicate()
    assert sides["receiver"].wait() == 0
    assert told.splitlines()[-1] == "[INFO] Transfer complete."
    expected = subprocess.check_output("seq 100000 | sha256sum", shell=True, text=True)
    assert (tmp_path / "got").read_text() == expected


def test_the_lines_it_shows_are_those_that_come(server: Server, tmp_path: Path) -> None:
    shown = re.findall(r"^    (\[INFO\] .*)$", README, re.MULTILINE)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for program in ("pg_dump", "psql"):
        (tmp_path / program).write_text("#!/bin/sh\ncat </dev/null\n")
        (tmp_path / program).chmod(0o755)
    sender = start("sender", server, tmp_path, **env)
    server.waiting(1)
    receiver = start("receiver", server, tmp_path, **env)
    assert sender.communicate()[0].splitlines() == shown
    receiver.communicate()


def test_three_receivers(server: Server, tmp_path: Path) -> None:
    told, errors = start("three", server, tmp_path).communicate(timeout=30)
    assert [(tmp_path / f"news.{number}").read_text() for number in (1, 2, 3)] == [
        "to all of you\n"
    ] * 3, errors
    assert "[INFO] Digest: sha256=" in told


def test_a_form(server: Server, tmp_path: Path) -> None:
    """The name that it is saved under is the sender's."""
    process = start("form", server, tmp_path)
    told, errors = process.communicate(timeout=30)
    assert (tmp_path / "inbox" / "report.txt").read_text() == "all is well\n", errors
    assert told.endswith("[INFO] Transfer complete.\n")


def test_watching(server: Server, tmp_path: Path) -> None:
    watching = start("watch", server, tmp_path)
    assert watching.stdout is not None
    assert watching.stdout.readline() == "event: state\n"
    with Wire(server) as receiver, Wire(server) as sender:
        receiver.get("migration")
        sender.put("migration", "Content-Length: 5").send(b"hello")
        sender.read_line("[INFO] Transfer complete.")
    line = ""
    while not ("finishedAt" in line and '"bytes":5,' in line):
        line = watching.stdout.readline()
    subprocess.run(["pkill", "-P", str(watching.pid)], check=False)
    watching.wait()
    told, _ = start("poll", server, tmp_path).communicate()
    assert json.loads(told)["state"] == "complete"


def test_what_happened(tmp_path: Path, cluster: Postgres) -> None:
    cluster.run("createdb", "readme")
    with Server(tmp_path / "data", f"--database={cluster.dsn('readme')}") as server:
        home = str(server.data_dir)
        follow = BLOCKS["follow"].replace("/var/lib/hoody", home)
        lines = BLOCKS["token"].replace("/var/lib/hoody", home)
        assert home in lines
        follower = subprocess.Popen(
            ["bash", "-c", follow.replace("http://localhost:8080", server.url)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert follower.stdout is not None
        assert follower.stdout.readline() == "retry: 2000\n"
        done = subprocess.run(
            ["bash", "-ec", lines.replace("http://localhost:8080", server.url)],
            capture_output=True,
            text=True,
            check=True,
        )
        project, token, events = map(json.loads, done.stdout.splitlines())
        assert project["data"]["alias"] == "billing"
        assert token["data"]["token"].startswith("hdy_")
        told = [event["event_type"] for event in events["data"]["events"]]
        assert told == ["token.created", "project.created", "token.created"]
        seen = ""
        while "token.created" not in seen:
            seen += follower.stdout.readline()
        assert "project.created" in seen
        os.killpg(follower.pid, signal.SIGTERM)
        follower.wait()
