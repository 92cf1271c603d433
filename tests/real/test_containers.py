"""Containers: made, run, looked into, and gone without a trace. All parts are real."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Answer, database_option, issue
from tests.support.containers import House
from tests.support.postgres import Postgres
from tests.support.server import Server

HTTPD = ["httpd", "-f", "-p", "8080", "-h", "/var/www"]
TICKS = "while :; do cut -d' ' -f1 /proc/uptime; sleep 0.1; done"
"""Seconds, ten times in each."""


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres
) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house") / "data", pool, cluster)
    try:
        yield house
    finally:
        house.close()


@pytest.fixture(autouse=True)
def nothing_is_left(house: House) -> Iterator[None]:
    """What a test has made is deleted, and then there is nothing any more."""
    yield
    house.nothing_is_left()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"c{abs(hash(request.node.name)) % 10**8}"


# Life


def test_a_container_is_made_and_runs(house: House, name: str) -> None:
    row = house.create(name, egress="none", alias=f"{name}-also", environment_vars={"A": "b c"})
    assert row["status"] == "running"
    assert row["container_image"] == "busybox"
    assert row["port"] == 8080
    assert row["url"].startswith(f"http://{name}.containers.hoody.localhost:")
    for known_as in (row["id"], name.upper(), f"{name}-also"):
        assert house.row(known_as)["id"] == row["id"]
    code, said = house.run(name, 'echo "$A"; hostname; wget -qO- http://127.0.0.1:8080/')
    assert code == 0
    assert said.startswith(f"b c\n{name}\n")
    assert "It runs" in said


def test_all_operations_one_after_the_other(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    for operation, status in (
        ("pause", "paused"),
        ("resume", "running"),
        ("stop", "stopped"),
        ("start", "running"),
        ("restart", "running"),
        ("force-stop", "stopped"),
        ("restart", "running"),
        ("pause", "paused"),
        ("stop", "stopped"),
    ):
        answer = house.operate(name, operation)
        assert answer.status == 200, answer.body
        assert answer.data == {
            "operation": operation,
            "container_id": row["id"],
            "project_id": row["project_id"],
            "status": status,
        }
        assert house.row(name)["status"] == status
    assert house.row(name)["status_reason"] == "manual"
    assert not house.pids(row["id"])
    logs = house.api.get(f"/containers/{name}/status-logs?limit=100&sort_order=asc").data["logs"]
    assert [each["to_status"] for each in logs][:4] == ["stopped", "running", "paused", "running"]
    assert all(each["triggered_by"] == "root" for each in logs)
    events = house.api.get(f"/events?container_id={row['id']}&limit=50&sort_order=asc").data
    assert [each["event_type"] for each in events["events"]][:5] == [
        f"container.{what}" for what in ("created", "started", "paused", "resumed", "stopped")
    ]


@pytest.mark.parametrize(
    ("before", "operation"),
    [("start", "start"), ("start", "resume"), ("stop", "pause"), ("stop", "stop")],
)
def test_what_makes_no_sense_is_refused(
    house: House, name: str, before: str, operation: str
) -> None:
    house.create(name, egress="none", start=before == "start")
    answer = house.operate(name, operation)
    assert answer.status == 409
    assert name in answer.error
    assert house.operate(name, "dance").status == 404


def test_two_at_once_are_never_both_half_done(house: House, name: str) -> None:
    house.create(name, egress="none")
    row = house.row(name)
    for _ in range(4):
        operations = ["stop", "start", "restart", "force-stop", "pause", "resume", "restart"]
        with ThreadPoolExecutor(len(operations)) as all_at_once:
            answers = list(all_at_once.map(lambda each: house.operate(name, each), operations))
        assert {answer.status for answer in answers} <= {200, 409}
        now = house.row(name)
        assert now["status"] in ("running", "paused", "stopped")
        assert bool(house.pids(row["id"])) == (now["status"] != "stopped")
        house.operate(name, "restart")
    logs = house.api.get(f"/containers/{name}/status-logs?limit=100&sort_order=asc").data["logs"]
    for one, other in itertools.pairwise(logs):
        assert one["to_status"] == other["from_status"]


def test_processes_are_asked_to_end_before_they_are_made_to(house: House, name: str) -> None:
    command = (
        "trap 'echo bye; sleep 0.3; echo done; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    )
    house.create(name, egress="none", command=command)
    _until_log(house, name, "up")
    assert house.operate(name, "stop").status == 200
    assert house.api.get(f"/containers/{name}/logs").body == "up\nbye\ndone\n"


def test_who_ends_by_itself_is_stopped_or_failed(house: House, name: str) -> None:
    house.create(name, egress="none", command="sleep 0.5")
    assert house.until(name, status="stopped")["status_reason"] == "exited"
    house.api("PATCH", f"/containers/{name}", {"command": "echo oh dear; exit 3"})
    house.operate(name, "start")
    assert "status 3" in house.until(name, status="failed")["status_reason"]
    assert "oh dear" in house.api.get(f"/containers/{name}/logs").body


def test_a_command_that_is_not_there_says_so(house: House, name: str) -> None:
    row = house.create(name, egress="none", command=["/no/such/program"])
    # A small first process starts it, and ends with it.
    failed = house.until(name, status="failed")
    assert failed["status_reason"]
    assert "/no/such/program" in house.api.get(f"/containers/{name}/logs").body
    assert not house.pids(row["id"])


def test_what_is_written_stays_over_restarts_and_volumes_too(house: House, name: str) -> None:
    house.create(name, egress="none", volumes=[{"name": "data", "path": "/data"}])
    assert house.run(name, "echo one > /root/file; echo two > /data/file")[0] == 0
    assert house.operate(name, "restart").status == 200
    assert house.run(name, "cat /root/file /data/file") == (0, "one\ntwo\n")
    more = [{"name": "data", "path": "/elsewhere"}, {"name": "more", "path": "/more"}]
    assert house.api("PATCH", f"/containers/{name}", {"volumes": more}).status == 200
    assert house.operate(name, "restart").status == 200
    assert house.run(name, "cat /elsewhere/file; touch /more/x")[1] == "two\n"


def test_what_is_written_in_it_is_no_device_and_makes_nobody_more(house: House, name: str) -> None:
    """Whatever came to be on the disk, by whichever fault: the mounts themselves forbid it."""
    house.create(name, egress="none", volumes=[{"name": "data", "path": "/data"}])
    status, said = house.run(name, "cat /proc/self/mountinfo")
    assert status == 0
    mounts = [line.split() for line in said.splitlines()]
    writable = {
        mount[4]: set(mount[5].split(","))
        for mount in mounts
        # /dev has those devices that the runtime puts there, and nothing else is to be one.
        if "rw" in mount[5].split(",") and "devtmpfs" not in mount
    }
    assert {"/", "/data", "/run", "/dev/shm"} <= set(writable)
    assert [path for path in writable if "nosuid" not in writable[path]] == []
    assert {path for path in writable if "nodev" not in writable[path]} == {"/dev", "/dev/pts"}


def test_a_volume_that_is_no_longer_named_is_kept(house: House, name: str) -> None:
    data = [{"name": "data", "path": "/data"}]
    house.create(name, egress="none", volumes=data)
    house.run(name, "echo two > /data/file")
    for volumes, said in (([], ""), (data, "two\n")):
        answer = house.api("PATCH", f"/containers/{name}", {"volumes": volumes})
        assert answer.data["volumes"] == volumes
        house.operate(name, "restart")
        assert house.run(name, "cat /data/file 2>/dev/null")[1] == said


def test_a_copy_has_all_of_it_and_goes_its_own_way(house: House, name: str) -> None:
    house.create(name, egress="none", volumes=[{"name": "data", "path": "/data"}])
    house.run(name, "echo one > /root/file; echo two > /data/file")
    answer = house.api("POST", f"/containers/{name}/copy", {"name": f"{name}-b"})
    assert answer.status == 201, answer.body
    assert answer.data["source_container_id"] == house.row(name)["id"]
    assert answer.data["status"] == "running"
    assert house.run(f"{name}-b", "cat /root/file /data/file") == (0, "one\ntwo\n")
    house.run(f"{name}-b", "echo other > /root/file")
    assert house.run(name, "cat /root/file")[1] == "one\n"
    assert house.row(name)["status"] == "running"


def test_variables_one_by_one(house: House, name: str) -> None:
    house.create(name, egress="none", environment_vars={"A": "1"})
    env = f"/containers/{name}/env"
    assert house.api("PUT", f"{env}/B", {"value": "2"}).data == {"A": "1", "B": "2"}
    assert house.api("DELETE", f"{env}/A").data == {"B": "2"}
    assert house.api("DELETE", f"{env}/A").status == 404
    assert house.api("PUT", env, {"C": "3", "D": "4"}).data == {"C": "3", "D": "4"}
    assert house.api("PUT", env, {"1C": "3"}).status == 400
    assert house.run(name, "echo $A$C")[1] == "1\n"
    house.operate(name, "restart")
    assert house.run(name, "echo $A$C$D")[1] == "34\n"
    reader = issue(house.api, "read")
    assert reader.get(env).data == {"C": "***", "D": "***"}
    assert reader.get(f"/containers/{name}").data["environment_vars"] == {"C": "***", "D": "***"}


def test_a_token_that_is_tied_knows_of_no_other(house: House, name: str) -> None:
    mine = house.create(name, egress="none", start=False)
    house.create(f"{name}-b", egress="none", start=False)
    answer = house.api(
        "POST", "/auth/tokens", {"alias": name, "scopes": ["write"], "containers": [mine["id"]]}
    )
    tied = type(house.api)(house.api.base, answer.data["token"])
    assert tied.get(f"/containers/{name}").status == 200
    assert tied.get(f"/containers/{name}-b").status == 404
    assert tied("POST", f"/containers/{name}-b/start").status == 404
    assert [each["id"] for each in tied.get("/containers").data["containers"]] == [mine["id"]]
    assert tied("POST", "/projects/default/containers", {}).status == 403


# What is said wrongly


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a"),
        ("name", "api"),
        ("name", "a" * 24),
        ("name", "no.dots"),
        ("container_image", "nothing-of-the-kind"),
        ("port", 0),
        ("exposed_ports", [70000]),
        ("environment_vars", {"A B": "c"}),
        ("environment_vars", {"A": "nul\x00"}),
        ("volumes", [{"name": "a", "path": "relative"}]),
        ("volumes", [{"name": "a", "path": "/a/../../etc"}]),
        ("volumes", [{"name": "a", "path": "/proc/x"}]),
        ("volumes", [{"name": "a", "path": "/a"}, {"name": "a", "path": "/b"}]),
        ("memory_limit", 1),
        ("cpu_limit", 0),
        ("egress", "all"),
        ("access", "nobody"),
        ("command", []),
        ("kvm", True),
        ("bogus", 1),
    ],
)
def test_what_will_not_do_is_named(house: House, field: str, value: object) -> None:
    body = {"name": "will-not-do", "start": False, field: value}
    answer = house.api("POST", "/projects/default/containers", body)
    assert answer.status in (400, 404)
    assert field.split("_vars")[0] in answer.error
    assert house.names == []


def test_names_are_one_label_each(house: House, name: str) -> None:
    house.create(f"{name}_x", egress="none", start=False, alias="also-this")
    for other in (f"{name}-x", f"{name}_X".upper(), "Also_This"):
        answer = house.api("POST", "/projects/default/containers", {"name": other})
        assert answer.status == 409
    house.create(f"{name}-y", egress="none", start=False)
    assert house.api("PATCH", f"/containers/{name}-y", {"alias": f"{name}-x"}).status == 409
    assert house.api("PATCH", f"/containers/{name}-y", {"name": f"{name}-z"}).status == 200
    assert house.api.get(f"/containers/{name}-y").status == 404
    assert house.api.get(f"/containers/{name}-z").status == 200


def test_a_project_has_no_more_than_it_may_and_is_not_deleted_with_some(house: House) -> None:
    project = house.api("POST", "/projects", {"alias": "small", "max_containers": 1}).data
    path = f"/projects/{project['id']}/containers"
    assert house.api("POST", path, {"name": "only-one", "start": False}).status == 201
    answer = house.api("POST", path, {"start": False})
    assert answer.status == 409
    assert "max_containers" in answer.error
    assert house.api("DELETE", f"/projects/{project['id']}").status == 409
    house.delete("only-one")
    assert house.api("DELETE", f"/projects/{project['id']}").status == 200


# Images


def _tarball(folder: Path, **files: bytes) -> Path:
    path = folder / "image.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return path


def _upload(house: House, name: str, file: Path, *more: str) -> Answer:
    words = ("-T", str(file), "-H", "Expect:")
    return house.api("POST", f"/images?name={name}", None, *words, *more)


def test_an_image_is_uploaded_used_and_gone(house: House, name: str, tmp_path: Path) -> None:
    big = os.urandom(5_000_000)
    file = _tarball(tmp_path, busybox=Path("/bin/busybox").read_bytes(), big=big)
    made = _upload(house, name, file)
    assert made.status == 201, made.body
    assert made.data["status"] == "ready"
    assert _upload(house, name, file).status == 409
    command = ["/busybox", "httpd", "-f", "-p", "9000", "-h", "/"]
    house.create(name, container_image=name, egress="none", port=9000, command=command)
    assert house.get(name, "/big") == (200, big)
    assert house.api("DELETE", f"/images/{name}").status == 409
    house.delete(name)
    assert house.api("DELETE", f"/images/{name}").status == 200
    assert house.api("DELETE", f"/images/{name}").status == 404
    assert [each["name"] for each in house.api.get("/images").data["images"]] == ["busybox"]


def test_what_is_no_image_leaves_nothing(house: House, name: str, tmp_path: Path) -> None:
    whole = _tarball(tmp_path, big=os.urandom(3_000_000))
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:1_000_000])
    (tmp_path / "text").write_text("this is no archive\n" * 1000)
    (tmp_path / "empty").touch()
    for wrong in ("cut", "text", "empty"):
        assert _upload(house, name, tmp_path / wrong).status == 400
    assert _upload(house, "Not-A-Name", whole).status == 400
    reader = issue(house.api, "read")
    refused = reader("POST", f"/images?name={name}", None, "-T", str(whole))
    assert refused.status == 403
    cut = subprocess.run(
        ["curl", "-s", "-m", "0.5", "--limit-rate", "500k", "-X", "POST", "-T", str(whole)]
        + ["-H", f"Authorization: Bearer {house.api.token}"]
        + [f"{house.server.url}/api/v1/images?name={name}"],
        check=False,
    )
    assert cut.returncode == 28
    base = house.pool / f"hoody-{house.server_id}"
    _until(lambda: not list((base / "uploads").iterdir()))
    assert len(list((base / "images").iterdir())) == 1
    for source in ("127.0.0.1/x", "docker.io/UPPER", "nothing", "oci:/no/such/folder"):
        answer = house.api("POST", "/images", {"name": name, "source": source})
        assert answer.status in (400, 403), answer.body
        assert name in answer.error or "source" in answer.error
    assert len(list((base / "images").iterdir())) == 1


def test_the_making_of_an_image_is_told(house: House, name: str) -> None:
    answer = house.api(
        *("POST", "/images", {"name": name, "source": "busybox"}),
        *("-H", "Accept: text/event-stream", "-N"),
    )
    assert "event: progress" in answer.body
    assert '"status":"ready"' in answer.body.partition("event: done")[2]
    assert house.api("DELETE", f"/images/{name}").status == 200


# The gateway


def test_a_name_answers(house: House, name: str) -> None:
    row = house.create(name, egress="none", alias=f"{name}-too", exposed_ports=[9001])
    for host in (name, f"{name}-too", row["id"], name.upper()):
        status, body = house.get(host)
        assert (status, b"It runs" in body) == (200, True)
    of_service = f"{row['project_id']}-{row['id']}-http"
    assert house.get(f"{of_service}-8080.any")[0] == 200
    assert house.get(f"{of_service}-9001.any")[0] == 502
    assert house.get(f"{of_service}-22.any")[0] == 404
    assert house.get("nobody")[0] == 404
    house.operate(name, "pause")
    assert house.get(name)[0] == 503
    house.operate(name, "stop")
    assert house.get(name)[0] == 503


def test_a_request_starts_what_nobody_has_stopped(house: House, name: str) -> None:
    house.create(name, egress="none", start=False)
    assert house.row(name)["status"] == "stopped"
    with ThreadPoolExecutor(20) as many:
        answers = list(many.map(lambda _: house.get(name), range(20)))
    assert {status for status, _ in answers} == {200}
    logs = house.api.get(f"/containers/{name}/status-logs").data["logs"]
    assert [each["to_status"] for each in logs] == ["running", "stopped"]
    assert logs[0]["triggered_by"] == "request"


def test_who_has_just_been_started_is_waited_for(house: House, name: str) -> None:
    command = "sleep 1.5; exec httpd -f -p 8080 -h /var/www"
    house.create(name, egress="none", command=command)
    assert house.get(name)[0] == 200


def test_one_that_has_failed_says_why_to_who_may_know(house: House, name: str) -> None:
    house.create(name, egress="none", command="echo the secret reason; exit 4")
    house.until(name, status="failed")
    status, body = house.get(name)
    assert status == 503
    assert b"secret" not in body
    status, body = house.get(name, "/", "-H", f"Authorization: Bearer {house.api.token}")
    assert status == 503
    assert b"the secret reason" in body


def test_with_a_token_only(house: House, name: str) -> None:
    house.create(name, egress="none", access="token")
    assert house.get(name)[0] == 401
    assert house.get(name, "/", "-H", f"Authorization: Bearer {house.api.token}")[0] == 200


def test_a_request_outlives_a_server_that_is_started_again(house: House, name: str) -> None:
    house.create(name, egress="none")
    house.kill()
    house.start()
    assert house.get(name)[0] == 200


# What is in it


def test_output_comes_as_it_happens_and_last_the_exit_code(house: House, name: str) -> None:
    house.create(name, egress="none")
    with _exec(house, name, "echo one; sleep 1; echo two >&2; exit 7") as process:
        assert process.stdout is not None
        begun = time.monotonic()
        assert json.loads(process.stdout.readline()) == {"stream": "stdout", "data": "one\n"}
        assert time.monotonic() - begun < 0.9
        assert json.loads(process.stdout.readline()) == {"stream": "stderr", "data": "two\n"}
        assert json.loads(process.stdout.readline()) == {"exit_code": 7}
        assert not process.stdout.readline()


def test_a_command_may_be_somebody_elses_and_have_a_time(house: House, name: str) -> None:
    house.create(name, egress="none")
    assert house.run(name, ["id", "-u"], user="nobody")[1].strip() == "65534"
    assert house.run(name, ["id", "-g"], user="5:6")[1].strip() == "6"
    assert house.run(name, "echo $X", env={"X": "y z"})[1] == "y z\n"
    answer = house.api(
        "POST", f"/containers/{name}/exec", {"command": "id", "user": "no-such-user"}
    )
    assert answer.status == 400
    begun = time.monotonic()
    answer = house.api(
        "POST", f"/containers/{name}/exec", {"command": "sleep 60", "timeout_seconds": 0.5}
    )
    assert json.loads(answer.body.splitlines()[-1]) == {"exit_code": 124, "timed_out": True}
    assert time.monotonic() - begun < 10
    assert "sleep 60" not in house.run(name, "ps")[1]


def test_a_command_ends_with_who_listens(house: House, name: str) -> None:
    house.create(name, egress="none")
    with _exec(house, name, "exec sleep 1234") as process:
        _until(lambda: "sleep 1234" in house.run(name, "ps")[1])
        process.kill()
    _until(lambda: "sleep 1234" not in house.run(name, "ps")[1])


def test_nobody_on_the_machine_sees_what_a_command_is_told(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    bundle = Path("/run/hoody") / house.server_id / "bundles" / row["id"]
    told = {"command": ["sleep", "1237"], "env": {"A": "hunter3-x"}}
    with _exec_of(house, name, told) as process:
        _until(lambda: "sleep 1237" in house.run(name, "ps")[1])
        lines = [_read(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
        assert any(b"exec" in line and row["id"].encode() in line for line in lines)
        assert not any(b"hunter3-x" in line for line in lines if b"curl" not in line)
        orders = [path for path in bundle.glob("exec-*") if b"hunter3-x" in path.read_bytes()]
        assert [path.stat().st_mode & 0o777 for path in orders] == [0o600]
        process.kill()
    _until(lambda: not list(bundle.glob("exec-*")))


BACKGROUND = "setsid sleep 1234 >/dev/null 2>&1 & (sleep 1235 >/dev/null 2>&1 &)"


def test_who_ends_a_command_ends_all_that_it_has_begun(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    before = house.pids(row["id"])
    code, _ = house.run(name, f"{BACKGROUND}; sleep 1236", timeout_seconds=0.5)
    assert code == 124
    assert house.pids(row["id"]) == before
    with _exec(house, name, f"{BACKGROUND}; sleep 1236") as process:
        _until(lambda: len(house.pids(row["id"])) >= len(before) + 3)
        process.kill()
    _until(lambda: house.pids(row["id"]) == before)
    _until(lambda: not _groups_within(house, row["id"]))


def test_a_fork_bomb_ends_with_its_command(house: House, name: str) -> None:
    row = house.create(name, egress="none", memory_limit=768 << 20)
    before = house.pids(row["id"])
    bomb = "b() { (b) & (b) & (b) & sleep 60; }; b >/dev/null 2>&1"
    begun = time.monotonic()
    code, _ = house.run(name, bomb, timeout_seconds=2)
    assert code == 124
    assert time.monotonic() - begun < 12
    _until(lambda: house.pids(row["id"]) == before)
    assert house.run(name, "echo well")[1] == "well\n"


def test_what_a_command_leaves_running_goes_on(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    before = house.pids(row["id"])
    assert house.run(name, BACKGROUND) == (0, "")
    assert len(house.pids(row["id"])) == len(before) + 2
    assert house.api.get(f"/containers/{name}/stats").data["processes"] == len(before) + 2
    _until(lambda: not _groups_within(house, row["id"]))


def test_a_command_ends_with_the_server_that_began_it(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    before = house.pids(row["id"])
    with _exec(house, name, f"{BACKGROUND}; sleep 1236"):
        _until(lambda: len(house.pids(row["id"])) >= len(before) + 3)
        house.kill()
    house.start()
    _until(lambda: house.pids(row["id"]) == before)
    _until(lambda: not _groups_within(house, row["id"]))
    assert not list((Path("/run/hoody") / house.server_id).rglob("exec-*"))


def _groups_within(house: House, container_id: str) -> list[str]:
    found = Path("/sys/fs/cgroup").glob(f"**/hoody/{house.server_id}/{container_id}/exec-*")
    return [str(path) for path in found]


def _read(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def test_output_waits_for_who_does_not_read(house: House, name: str) -> None:
    house.create(name, egress="none")
    with _exec(house, name, "yes | head -c 50000000; echo end") as process:
        time.sleep(1)
        before = _rss(house)
        time.sleep(1)
        assert _rss(house) - before < 20_000_000
        assert process.stdout is not None
        last = b""
        size = 0
        for line in process.stdout:
            size, last = size + len(line), line
        assert json.loads(last) == {"exit_code": 0}
        assert size > 50_000_000


def test_logs_are_followed(house: House, name: str) -> None:
    house.create(name, egress="none", command=TICKS)
    url = f"{house.server.url}/api/v1/containers/{name}/logs?follow&tail=0"
    with subprocess.Popen(
        ["curl", "-sN", "-H", f"Authorization: Bearer {house.api.token}", url],
        stdout=subprocess.PIPE,
    ) as following:
        assert following.stdout is not None
        got: list[float] = []
        while len(got) < 5:
            line = following.stdout.readline()
            if line.startswith(b"data: "):
                got.append(float(line[6:]))
        following.kill()
    assert got == sorted(got)
    tail = house.api.get(f"/containers/{name}/logs?tail=2").body
    assert len(tail.splitlines()) == 2


def test_figures(house: House, name: str) -> None:
    row = house.create(name, egress="none", memory_limit=64 << 20)
    stats = house.api.get(f"/containers/{name}/stats").data
    assert stats["status"] == "running"
    assert stats["memory"]["limit"] == 64 << 20
    assert stats["memory"]["own"] > 0
    assert stats["processes"] == len(house.pids(row["id"])) > 0
    house.run(
        name,
        "dd if=/dev/urandom of=/root/random bs=1M count=3;"
        " i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done",
    )
    subprocess.run(["sync", "-f", str(house.pool)], check=True)
    later = house.api.get(f"/containers/{name}/stats").data
    assert later["cpu"]["usage_ns"] > stats["cpu"]["usage_ns"]
    assert 3 << 20 <= later["disk"]["own"] < 4 << 20
    assert later["disk"]["shared"] == stats["disk"]["shared"] > 0
    house.operate(name, "pause")
    assert house.api.get(f"/containers/{name}/stats").data["cpu"]["idle"] is True


def test_figures_of_one_that_ends_just_now(house: House, name: str) -> None:
    house.create(name, egress="none", start=False, command=["true"])
    for _ in range(5):
        house.operate(name, "start")
        status = ""
        while status not in ("stopped", "failed"):
            answer = house.api.get(f"/containers/{name}/stats")
            assert answer.status == 200, answer.body
            status = answer.data["status"]


@pytest.mark.parametrize("path", ["exec", "logs?follow"])
def test_what_is_read_slowly_ends_with_the_container(house: House, name: str, path: str) -> None:
    """Whole: a command with its exit code, and a log that is followed without an error."""
    house.create(name, egress="none", command="yes | head -c 3000000; sleep 1000")
    words = ["-d", json.dumps({"command": "yes"})] if path == "exec" else []
    url = f"{house.server.url}/api/v1/containers/{name}/{path}"
    with subprocess.Popen(
        ["curl", "-sSN", "-H", f"Authorization: Bearer {house.api.token}", *words, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as reading:
        assert reading.stdout is not None
        assert reading.stdout.read(100_000)  # and then no more: it is full up to the container
        house.delete(name)
        rest, complaint = reading.communicate(timeout=20)
    assert (reading.returncode, complaint) == (0, b"")
    if path == "exec":
        assert json.loads(rest.splitlines()[-1])["exit_code"] != 0


def test_limits_hold(house: House, name: str) -> None:
    house.create(name, egress="none", memory_limit=32 << 20, disk_limit=32 << 20)
    code, said = house.run(name, "dd if=/dev/urandom of=/root/big bs=1M count=64 && sync")
    assert code != 0
    assert "quota exceeded" in said
    code, _ = house.run(name, "tail /dev/zero")
    assert code == 137 or code == -9
    assert house.row(name)["status"] == "running"


# What is cut off


def test_a_killed_server_finds_everything_as_it_was(house: House, name: str) -> None:
    row = house.create(name, egress="none", command=TICKS)
    asleep = house.create(f"{name}-p", egress="none", command=TICKS)
    house.operate(f"{name}-p", "pause")
    house.create(f"{name}-s", egress="none", start=False)
    pids = house.pids(row["id"])
    house.kill()
    time.sleep(0.5)
    house.start()
    assert house.pids(row["id"])[:2] == pids[:2]
    assert house.row(name)["status"] == "running"
    assert house.row(f"{name}-p")["status"] == "paused"
    assert house.row(f"{name}-s")["status"] == "stopped"
    said = [float(line) for line in house.api.get(f"/containers/{name}/logs").body.split()]
    assert max(b - a for a, b in itertools.pairwise(said)) < 0.6, "it stood still"
    assert house.operate(f"{name}-p", "resume").status == 200
    assert house.run(name, "true")[0] == 0
    os.kill(pids[0], signal.SIGKILL)
    assert "signal 9" in house.until(name, status="failed")["status_reason"]
    assert house.pids(asleep["id"])


# Before it was written down that something is being done, nothing was.
ENDS: dict[str, set[str | None]] = {
    "create": {None, "running", "stopped"},
    "stop": {"stopped"},
    "delete": {None, "running"},
    "restart": {"running"},
    "start": {"running", "stopped"},
}


def test_what_a_killed_server_was_doing_is_done_again_or_undone(house: House, name: str) -> None:
    house.create(f"{name}-r", egress="none")
    slow = "trap '' TERM; while :; do sleep 0.1; done"
    for operation, body in (
        ("create", None),
        ("stop", slow),
        ("delete", None),
        ("restart", slow),
        ("start", None),
    ):
        if operation != "create":
            house.create(name, egress="none", start=operation != "start", command=body or HTTPD)
        threading.Thread(target=_ask, args=(house, name, operation), daemon=True).start()
        time.sleep(0.06 if body is None else 0.5)
        house.kill()
        house.start()
        _until(lambda ends=ENDS[operation]: _status(house, name) in ends, 20)
        if name in house.names:
            house.delete(name)
    assert house.row(f"{name}-r")["status"] == "running"


def _ask(house: House, name: str, operation: str) -> None:
    base = ["curl", "-s", "-m", "3", "-H", f"Authorization: Bearer {house.api.token}"]
    url = f"{house.server.url}/api/v1"
    words = {
        "create": ["-d", json.dumps({"name": name}), f"{url}/projects/default/containers"],
        "delete": ["-X", "DELETE", f"{url}/containers/{name}"],
    }.get(operation, ["-X", "POST", f"{url}/containers/{name}/{operation}"])
    subprocess.run([*base, *words], capture_output=True, check=False)


def _status(house: House, name: str) -> str | None:
    answer = house.api.get(f"/containers/{name}")
    return None if answer.status == 404 else str(answer.data["status"])


def test_after_a_reboot_those_come_back_that_are_to(house: House, name: str) -> None:
    """All that a reboot takes: processes, control groups, what is in /run."""
    house.create(name, egress="none", environment_vars={"A": "b"})
    house.run(name, "echo kept > /root/file")
    house.create(f"{name}-not", egress="none", autostart=False)
    house.reboot()
    house.start()
    assert house.until(name, status="running")
    logs = house.api.get(f"/containers/{name}/status-logs").data["logs"]
    assert [each["to_status"] for each in logs[:2]] == ["running", "stopped"]
    assert logs[1]["metadata"]["reason"] == "the machine was restarted"
    assert house.run(name, "cat /root/file; echo $A")[1] == "kept\nb\n"
    assert house.row(f"{name}-not")["status"] == "stopped"


def test_ids_begin_where_the_server_is_told_and_files_are_whose_they_were(
    house: House, name: str
) -> None:
    row = house.create(name, egress="none")
    assert house.run(name, "touch /mine; chown 7:7 /mine")[0] == 0
    before = _first_id(house, row["id"])
    house.operate(name, "stop")
    house.server.stop()
    house.start(f"--container-ids={4096 * 65536}")
    try:
        assert house.operate(name, "start").status == 200
        assert before < 4096 * 65536 <= _first_id(house, row["id"])
        assert house.run(name, "stat -c %u:%g /mine /")[1].split() == ["7:7", "0:0"]
    finally:
        house.server.stop()
        house.start()
    assert house.run(name, "stat -c %u /mine")[1] == "7\n"


def _first_id(house: House, container_id: str) -> int:
    return int(Path(f"/proc/{house.pids(container_id)[0]}/uid_map").read_text().split()[1])


def test_sigterm_leaves_containers_running(house: House, name: str) -> None:
    row = house.create(name, egress="none", command="exec sleep 1000")
    house.server.stop()
    pids = house.pids(row["id"])
    assert pids
    house.start()
    house.still_runs(row["id"], pids)


def test_left_overs_are_swept(house: House) -> None:
    base = house.pool / f"hoody-{house.server_id}"
    stray = base / "containers" / ("f" * 24)
    house.server.stop()
    stray.mkdir()
    subprocess.run(["btrfs", "-q", "subvolume", "create", str(stray / "root")], check=True)
    subprocess.run(["btrfs", "-q", "subvolume", "create", str(base / "images/x")], check=True)
    (Path("/run/hoody") / house.server_id / "bundles" / ("e" * 24)).mkdir(parents=True)
    house.start()
    assert not stray.exists()
    assert not (base / "images/x").exists()


def test_another_database_deletes_nothing(house: House, name: str, cluster: Postgres) -> None:
    """To it, all that is there would be what nobody knows of."""
    row = house.create(name, egress="none", command=TICKS)
    house.server.stop()
    with Server(house.data_dir, *house.options, database_option(cluster)) as stranger:
        house.server = stranger
        _until(lambda: house.part["status"] != "starting")
        assert "another database" in house.part["problem"]
    assert house.pids(row["id"])
    house.start()
    assert house.row(name)["status"] == "running"
    assert house.run(name, "true")[0] == 0


def test_where_the_files_are_gone_nothing_new_is_begun(house: House, name: str) -> None:
    house.create(name, egress="none")
    house.operate(name, "stop")
    house.server.stop()
    base = house.pool / f"hoody-{house.server_id}"
    base.rename(house.pool / "away")
    with Server(house.data_dir, *house.options) as server:
        house.server = server
        _until(lambda: house.part["status"] != "starting")
        assert "not where the containers are" in house.part["problem"]
        assert house.operate(name, "start").status == 503
        assert house.get(name)[0] == 503
        assert house.get("nobody")[0] == 404
    base.rmdir()
    (house.pool / "away").rename(base)
    house.start()
    assert house.operate(name, "start").status == 200


def _exec(house: House, name: str, command: str) -> Any:
    return _exec_of(house, name, {"command": command})


@contextlib.contextmanager
def _exec_of(
    house: House, name: str, body: Mapping[str, object]
) -> Iterator[subprocess.Popen[bytes]]:
    url = f"{house.server.url}/api/v1/containers/{name}/exec"
    with subprocess.Popen(
        ["curl", "-sN", "-H", f"Authorization: Bearer {house.api.token}"]
        + ["-d", json.dumps(body), url],
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _rss(house: House) -> int:
    said = subprocess.run(
        ["curl", "-s", f"{house.server.url}/health"], capture_output=True, check=True
    ).stdout
    return int(json.loads(said)["memory"]["rss"])


def _until_log(house: House, name: str, text: str) -> None:
    _until(lambda: text in house.api.get(f"/containers/{name}/logs").body)


def _until(true: Any, seconds: float = 10) -> None:
    late = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < late
        time.sleep(0.05)
