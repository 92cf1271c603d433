"""Snapshots: taken, put back, told apart, and gone without a trace. All parts are real."""

from __future__ import annotations

import fcntl
import itertools
import json
import re
import struct
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support import rollback
from tests.support.api import Api, in_an_hour, issue
from tests.support.containers import House, run
from tests.support.postgres import Postgres
from tests.support.rollback import (
    Readers,
    Visitors,
    ask,
    compared,
    drop,
    events,
    folder,
    is_tidy,
    kept,
    listed,
    names,
    noise,
    page,
    put_back,
    restore,
    started,
    take,
    told,
    undos,
    until,
    verified,
    write,
)
from tests.support.server import Server

MIB = 1 << 20
FICLONERANGE = 0x4020940D
DIGEST = re.compile("sha256:[0-9a-f]{64}")
DATA = [{"name": "data", "path": "/data"}]


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres
) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house") / "data", pool, cluster, "--sweep=0.5")
    try:
        yield house
    finally:
        house.close()


@pytest.fixture(autouse=True)
def nothing_is_left(house: House) -> Iterator[None]:
    """What a test has made is deleted, and then there is nothing any more."""
    yield
    for name in house.names:
        for each in listed(house, name):
            if each["pinned"]:
                drop(house, name, each["name"])
    house.nothing_is_left()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"c{abs(hash(request.node.name)) % 10**8}"


# Taking


def test_the_line_of_the_story_takes_one(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    line = (
        f"curl -sS -X POST api.hoody.localhost:{house.server.port}/api/v1/containers/$ID/snapshots"
        ' -H "Authorization: Bearer $TOKEN" -d \'{"alias": "rollback-point", "expiry": 7}\''
    )
    env = {"ID": row["id"], "TOKEN": str(house.api.token)}
    done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["statusCode"] == 200
    data = answer["data"]
    assert (data["container_id"], data["project_id"]) == (row["id"], row["project_id"])
    taken = data["snapshot"]
    assert taken["name"] == f"snap-{taken['created_at'][:10]}"
    assert taken["alias"] == "rollback-point"
    assert days(taken) == 7
    assert listed(house, name) == [taken]
    assert house.row(name)["snapshot_count"] == 1


def days(row: dict[str, Any]) -> float | None:
    """After how many it goes."""
    if row["expires_at"] is None:
        return None
    until_then = moment(row["expires_at"]) - moment(row["created_at"])
    return until_then / 86400


def moment(text: str) -> float:
    said = run("date", "-u", "-d", text, "+%s.%N")
    return float(said)


def test_a_row_says_all_of_it(house: House, name: str) -> None:
    house.create(name, egress="none")
    row = take(house, name, comment="before the migration")
    assert set(row) == {
        *("name", "alias", "pinned", "comment", "created_at", "created_by", "expires_at"),
        *("last_used_at", "stateful", "consistency", "size", "digest", "parent"),
        *("duration_ms", "pause_ms"),
    }
    assert row["comment"] == "before the migration"
    assert row["created_by"] == "root"
    assert row["stateful"] is row["pinned"] is False
    assert row["consistency"] == "frozen"
    assert DIGEST.fullmatch(row["digest"])
    assert row["parent"] is row["alias"] is row["expires_at"] is row["last_used_at"] is None
    assert 0 < row["pause_ms"] < row["duration_ms"]


def test_the_names_are_of_the_day_and_then_of_the_second(house: House, name: str) -> None:
    house.create(name, egress="none", start=False)
    with ThreadPoolExecutor(3) as at_once:
        for _ in range(2):
            list(at_once.map(lambda _: take(house, name), range(3)))
    rows = listed(house, name)[::-1]
    assert len({each["name"] for each in rows}) == 6
    days_, seconds = set(), defaultdict(set)
    for each in rows:
        day = f"snap-{each['created_at'][:10]}"
        days_.add(day)
        # Of those that are taken at once, any may be the first that is written down.
        if each["name"] != day:
            seconds[f"{day}-{each['created_at'][11:19].replace(':', '')}"].add(each["name"])
    assert {each["name"] for each in rows} >= days_
    for second, given in seconds.items():
        numbered = {f"{second}-{number}" for number in range(2, len(given) + 1)}
        assert given == {second} | numbered
    assert house.row(name)["snapshot_count"] == 6


@pytest.mark.parametrize("before", ["running", "asleep", "paused", "stopped"])
def test_whatever_it_does_it_goes_on_doing_that(house: House, name: str, before: str) -> None:
    row = house.create(name, egress="none", idle_timeout_seconds=1 if before == "asleep" else 0)
    write(house, name, "old")
    if before == "asleep":
        house.until(name, status="paused", status_reason="idle")
    elif before in ("paused", "stopped"):
        house.operate(name, {"paused": "pause", "stopped": "stop"}[before])
    was, pids = house.row(name), house.pids(row["id"])
    taken = take(house, name)
    assert DIGEST.fullmatch(taken["digest"])
    assert taken["consistency"] == ("stopped" if before == "stopped" else "frozen")
    assert (taken["pause_ms"] > 0) == (before == "running")
    now = house.row(name)
    same = ("status", "status_reason", "idle_since", "wake_count")
    assert {key: now[key] for key in same} == {key: was[key] for key in same}
    house.still_runs(row["id"], pids)
    assert verified(house, name, taken["name"])["valid"]
    copy(house, name, f"{name}-b", taken["name"])
    assert page(house, f"{name}-b") == "old"
    assert house.row(name)["status"] == was["status"]


def copy(house: House, name: str, to: str, snapshot: str) -> dict[str, Any]:
    body = {"name": to, "source_snapshot": snapshot}
    answer = house.api("POST", f"/containers/{name}/copy", body)
    assert answer.status == 201, answer.body
    row: dict[str, Any] = answer.data
    return row


def test_an_alias_moves_to_the_newest_that_is_given_it(house: House, name: str) -> None:
    house.create(name, egress="none", start=False)
    first = take(house, name, alias="point")
    second = take(house, name, alias="point")
    assert {each["name"]: each["alias"] for each in listed(house, name)} == {
        first["name"]: None,
        second["name"]: "point",
    }
    third = take(house, name, alias="point", replace=True)
    assert names(house, name) == [third["name"], first["name"]]
    drop(house, name, third["name"])
    pinned = take(house, name, alias="point", pinned=True)
    last = take(house, name, alias="point", replace=True)
    assert {each["name"]: each["alias"] for each in listed(house, name)} == {
        last["name"]: "point",
        pinned["name"]: None,
        first["name"]: None,
    }
    is_tidy(house, name)


def test_an_alias_is_given_and_taken_later_too(house: House, name: str) -> None:
    row = house.create(name, egress="none", start=False)
    first, second = (take(house, name)["name"] for _ in range(2))
    own = f"/containers/{name}/snapshots"
    for method, snapshot, alias in (
        ("PATCH", first, "a b"),
        ("PUT", "a%20b", "point"),
        ("PATCH", second, "point"),
        ("PUT", "point", None),
    ):
        answer = house.api(method, f"{own}/{snapshot}/alias", {"alias": alias})
        assert answer.status == 200, answer.body
        assert answer.data["snapshot"]["alias"] == alias
        with_it = [each["name"] for each in listed(house, name) if each["alias"] is not None]
        assert with_it == ([answer.data["snapshot"]["name"]] if alias else [])
    renamed = [each for each in events(house, row["id"]) if "renamed" in each["event_type"]]
    assert [(each["data"]["was"], each["data"]["alias"]) for each in renamed] == [
        (None, "a b"),
        ("a b", "point"),
        (None, "point"),
        ("point", None),
    ]


def test_how_long_it_is_kept_is_said_or_its_project_s_policy(house: House, name: str) -> None:
    answer = house.api(*("POST", "/projects", {"alias": f"p{name}", "snapshot_retention_days": 3}))
    project = answer.data["id"]
    made = house.api(
        "POST", f"/projects/{project}/containers", {"name": name, "egress": "none", "start": False}
    )
    assert made.status == 201, made.body
    assert days(take(house, name)) == 3
    assert days(take(house, name, expiry=1)) == 1
    assert days(take(house, name, expiry=3650)) == 3650
    pinned = take(house, name, pinned=True)
    assert pinned["pinned"] is True
    assert days(pinned) is None
    house.api("PATCH", f"/projects/{project}", {"snapshot_retention_days": None})
    assert days(take(house, name)) is None
    assert house.api("DELETE", f"/containers/{name}?force=true").status == 200
    until(lambda: house.api("DELETE", f"/projects/{project}").status == 200)


def test_a_capability_url_takes_one_without_a_header(house: House, name: str) -> None:
    row = house.create(name, egress="none", start=False)
    path = f"/api/v1/containers/{row['id']}/snapshots"
    body = {"right": "snapshot", "resource": path, "expires_at": in_an_hour()}
    url = house.api("POST", "/auth/capabilities", body).data["url"]
    for command in (
        ["curl", "-sS", "-X", "POST", url, "-d", '{"alias":"rollback-point"}'],
        ["curl", "-sS", "-X", "POST", url],
    ):
        done = subprocess.run(command, capture_output=True, check=True)
        assert json.loads(done.stdout)["statusCode"] == 200, done.stdout
    assert [each["alias"] for each in listed(house, name)] == [None, "rollback-point"]
    other = url.replace(row["id"], "0" * 24)
    done = subprocess.run(["curl", "-sS", "-X", "POST", other], capture_output=True, check=True)
    assert json.loads(done.stdout)["statusCode"] in (401, 403)


def test_who_may_what(house: House, name: str) -> None:
    row = house.create(name, egress="none", start=False)
    other = house.create(f"{name}-b", egress="none", start=False)
    own = f"/containers/{name}/snapshots"
    changing: list[tuple[str, str, object]] = [
        ("POST", own, {"alias": "mine"}),
        ("PATCH", f"{own}/mine/alias", {"alias": "mine"}),
        ("PATCH", f"{own}/mine", None),
        ("PUT", f"{own}/mine", None),
        ("DELETE", f"{own}/mine", None),
    ]
    root = house.api
    for each in (
        issue(root, "snapshot"),
        issue(root, "write"),
        issue(root, "snapshot", containers=[row["id"]]),
    ):
        for method, path, body in changing:
            answer = each(method, path, body)
            assert answer.status == 200, (method, path, answer.body)
    take(house, name, alias="mine")
    before = names(house, name)
    reader = issue(root, "read")
    for path in (own, f"{own}/mine/verify", f"{own}/mine/diff/{before[-1]}"):
        assert reader.get(path).status == 200
    tied = issue(root, "snapshot", "read", containers=[other["id"]])
    for client, status in (
        (reader, 403),
        (issue(root, "pipe", "cron"), 403),
        (root.with_token(None), 401),
        (tied, 404),
    ):
        for method, path, body in changing:
            assert client(method, path, body).status == status
    assert names(house, name) == before
    assert tied.get(own).status == 404


# Refusals


WRONG: list[tuple[object, str]] = [
    ({"alias": ""}, "alias"),
    ({"alias": "a" * 101}, "alias: .*1 to 100"),
    ({"alias": "a/b"}, "alias: .*slashes"),
    ({"alias": "a\x07b"}, "alias: .*control"),
    ({"alias": " a"}, "alias: .*spaces"),
    ({"alias": ".."}, "alias: .*URLs"),
    ({"alias": "now"}, "alias: .*choose another"),
    ({"alias": "snap-2026-05-04"}, "alias: .*choose another"),
    ({"alias": "undo-2026-05-04-010203-2"}, "alias: .*choose another"),
    ({"alias": 3}, "alias"),
    ({"expiry": 0}, "expiry"),
    ({"expiry": 3651}, "expiry"),
    ({"expiry": 1.5}, "expiry"),
    ({"expiry": "7"}, "expiry"),
    ({"replace": True}, "replace: .*give the alias"),
    ({"replace": "yes", "alias": "a"}, "replace"),
    ({"pinned": 1}, "pinned"),
    ({"pinned": True, "expiry": 1}, "expiry: .*pinned.*leave out"),
    ({"comment": "a" * 501}, "comment"),
    ({"comment": "a\x00b"}, "comment"),
    ({"name": "mine"}, "name"),
    ("[]", ""),
    ("{", "JSON"),
]


def test_what_cannot_be_asked_for_is_named_with_the_cure(house: House, name: str) -> None:
    house.create(name, egress="none", start=False)
    for body, says in WRONG:
        answer = house.api("POST", f"/containers/{name}/snapshots", body)
        assert answer.status == 400, (body, answer.body)
        assert re.search(says, answer.error), answer.error
    assert listed(house, name) == []
    assert house.row(name)["snapshot_count"] == 0
    is_tidy(house, name)


def test_a_restore_has_no_body_and_an_alias_only_one_field(house: House, name: str) -> None:
    house.create(name, egress="none", start=False)
    taken = take(house, name)["name"]
    own = f"/containers/{name}/snapshots/{taken}"
    wrong_bodies: list[object] = [{"alias": "a"}, {"volumes": []}, "[]", "null", "no JSON"]
    for method in ("PATCH", "PUT"):
        for body in wrong_bodies:
            answer = house.api(method, own, body)
            assert answer.status == 400, answer.body
        for wrong in (None, {}, {"alias": "now"}, {"alias": "a", "pinned": True}, {"alias": 1}):
            answer = house.api(method, f"{own}/alias", wrong)
            assert answer.status == 400, answer.body
            assert "alias" in answer.error or "pinned" in answer.error
        assert put_back(house, name, taken, method).status == 200
        assert house.api(method, own, {}).status == 200
    assert undos(house, name) == names(house, name)[:4]


def test_what_is_not_there_is_said_and_where_to_look(house: House, name: str) -> None:
    house.create(name, egress="none", start=False)
    taken = take(house, name)["name"]
    own = f"/containers/{name}/snapshots"
    asked: list[tuple[str, str, object]] = [
        ("PATCH", f"{own}/none", None),
        ("PUT", f"{own}/none", None),
        ("DELETE", f"{own}/none", None),
        ("PATCH", f"{own}/none/alias", {"alias": "a"}),
        ("GET", f"{own}/none/verify", None),
        ("GET", f"{own}/none/diff/{taken}", None),
        ("GET", f"{own}/{taken}/diff/none", None),
        ("POST", f"/containers/{name}/copy", {"source_snapshot": "none"}),
    ]
    for method, path, body in asked:
        answer = house.api(method, path, body)
        assert answer.status == 404, answer.body
        assert "none" in answer.error
        assert own in answer.error
    assert house.api("POST", "/containers/nobody/snapshots").status == 404
    assert house.api("PATCH", f"{own}/..%2f{taken}").status == 404
    assert house.api("GET", f"{own}/{taken}").status == 405
    assert names(house, name) == [taken]


def test_there_are_as_many_as_there_may_be_and_a_restore_is_never_refused(
    house: House, name: str
) -> None:
    project = house.api("POST", "/projects", {"alias": f"p{name}", "max_snapshots": 2}).data["id"]
    path = f"/projects/{project}/containers"
    made = house.api("POST", path, {"name": name, "egress": "none"})
    assert made.status == 201, made.body
    write(house, name, "old")
    first = take(house, name, alias="point")
    take(house, name)
    write(house, name, "new")
    answer = ask(house, name)
    assert answer.status == 409
    assert "max_snapshots" in answer.error
    assert "delete one" in answer.error
    restore(house, name, "point")
    assert page(house, name) == "old"
    said = house.api.get(f"/containers/{name}/snapshots").data
    assert (said["snapshot_count"], said["max_snapshots"]) == (2, 2)
    assert len(said["snapshots"]) == 3
    assert ask(house, name).status == 409
    take(house, name, alias="point", replace=True)
    assert first["name"] not in names(house, name)
    is_tidy(house, name)
    house.delete(name)
    until(lambda: house.api("DELETE", f"/projects/{project}").status == 200)


def test_of_another_server_s_container_it_is_said_whose_it_is(
    house: House, name: str, tmp_path: Path
) -> None:
    house.create(name, egress="none", start=False)
    taken = take(house, name)["name"]
    own = f"/containers/{name}/snapshots"
    with Server(tmp_path / "data", f"--database={house.dsn}") as other:
        api = Api(f"{other.url}/api/v1", house.api.token)
        for method, path, body in (
            ("POST", own, None),
            ("PATCH", f"{own}/{taken}", None),
            ("PUT", f"{own}/{taken}", None),
            ("DELETE", f"{own}/{taken}", None),
            ("PUT", f"{own}/{taken}/alias", {"alias": "a"}),
            ("GET", f"{own}/{taken}/diff/now", None),
            ("GET", f"{own}/{taken}/verify", None),
        ):
            answer = api(method, path, body)
            assert answer.status == 421, answer.body
            assert house.server_id in answer.error
    assert names(house, name) == [taken]


# What is in them


def test_equal_content_has_the_same_digest_whenever_it_was_taken(house: House, name: str) -> None:
    house.create(name, egress="none", volumes=DATA)
    write(house, name, "old")
    house.run(name, "echo one > /data/file; touch -d @1000000000 /data/file /data; sync")
    first, again = take(house, name), take(house, name)
    assert again["digest"] == first["digest"]
    assert (again["size"], again["parent"]) == (0, first["name"])
    house.run(name, "echo two > /data/file")
    other = take(house, name)
    assert other["digest"] != first["digest"]
    house.run(name, "echo one > /data/file; touch -d @1000000000 /data/file /data")
    assert take(house, name)["digest"] == first["digest"]
    house.operate(name, "restart")
    assert take(house, name)["digest"] == first["digest"]
    restore(house, name, other["name"])
    assert take(house, name)["digest"] == other["digest"]
    copy(house, name, f"{name}-b", first["name"])
    assert take(house, f"{name}-b")["digest"] == first["digest"]


def test_the_size_is_what_was_written_since_the_one_before(house: House, name: str) -> None:
    house.create(name, egress="none", volumes=DATA)
    first = take(house, name)
    noise(house, name, "/data/noise", 5 * MIB)
    room = disk(house, name)
    grown = take(house, name)
    assert grown["parent"] == first["name"]
    assert abs(grown["size"] - 5 * MIB) < MIB // 4
    assert disk(house, name) - room < MIB // 4 + 5 * MIB, "nothing is copied"
    for _ in range(3):
        same = take(house, name)
        assert same["size"] == 0
        assert same["digest"] == grown["digest"]
    assert disk(house, name) - room < MIB // 4 + 5 * MIB
    noise(house, name, "/root/noise", 2 * MIB)
    assert abs(take(house, name)["size"] - 2 * MIB) < MIB // 4


def disk(house: House, name: str) -> int:
    """Bytes that it has for itself, snapshots and all."""
    run("btrfs", "filesystem", "sync", str(house.pool))
    own: int = house.api.get(f"/containers/{name}/stats").data["disk"]["own"]
    return own


def test_what_two_differ_in_is_told_page_by_page(house: House, name: str) -> None:
    house.create(name, egress="none", volumes=DATA)
    house.run(name, "cd /data; echo 1 > stays; echo 1 > changes; echo 1 > goes; echo 1 > /root/r")
    before = take(house, name, alias="before")["name"]
    house.run(name, "cd /data; echo 22 > changes; rm goes; echo 333 > comes; rm /root/r")
    whole = {
        "added": [{"path": "/data/comes", "size": 4}],
        "changed": [{"path": "/data/changes", "size": 3}],
        "removed": [{"path": "/data/goes", "size": 2}, {"path": "/root/r", "size": 2}],
    }

    def differ(before: str, after: str, query: str = "") -> dict[str, Any]:
        found = compared(house, name, before, after, query)
        pages = found.pop("pagination")
        assert pages["total"] == 4
        for kind in ("added", "changed", "removed"):
            found[kind] = [each for each in found[kind] if each["path"] not in ("/data", "/root")]
        return found

    assert sorted_(differ("before", "now")) == whole
    after = take(house, name, alias="after")["name"]
    assert sorted_(differ(before, after)) == sorted_(differ("before", "after")) == whole
    back = differ("after", "before")
    assert [each["path"] for each in back["removed"]] == ["/data/comes"]
    pages = [differ("before", "after", f"?limit=1&page={number}") for number in range(1, 6)]
    assert [sum(map(len, each.values())) for each in pages] == [1, 1, 1, 1, 0]
    together = {kind: [e for p in pages for e in p[kind]] for kind in whole}
    assert sorted_(together) == whole
    nothing = compared(house, name, "after", "now")
    assert nothing["pagination"]["total"] == 0
    for wrong in ("page=0", "limit=0", "limit=1001"):
        path = f"/containers/{name}/snapshots/before/diff/after?{wrong}"
        answer = house.api.get(path)
        assert answer.status == 400
        assert wrong.partition("=")[0] in answer.error
    is_tidy(house, name)


def sorted_(found: dict[str, Any]) -> dict[str, Any]:
    return {kind: sorted(some, key=lambda each: each["path"]) for kind, some in found.items()}


def test_to_look_wakes_nobody(house: House, name: str) -> None:
    row = house.create(name, egress="none", idle_timeout_seconds=1)
    taken = take(house, name)["name"]
    was = house.until(name, status="paused", status_reason="idle")
    compared(house, name, taken, "now")
    assert verified(house, name, taken)["valid"]
    now = house.row(name)
    assert (now["status"], now["wake_count"]) == ("paused", was["wake_count"])
    assert house.pids(row["id"])


def test_one_bit_that_has_flipped_is_found(house: House, name: str) -> None:
    row = house.create(name, egress="none", volumes=DATA)
    noise(house, name, "/data/noise", MIB)
    write(house, name, "old")
    taken = take(house, name)
    assert verified(house, name, taken["name"]) == {
        "valid": True,
        "digest": taken["digest"],
        "mismatches": [],
    }
    [place] = kept(house, row["id"])
    for tree, file, path in (
        ("volume-data", "noise", "/data/noise"),
        ("root", f"upper{rollback.PAGE}", rollback.PAGE),
    ):
        flip(place / tree, file)
        found = verified(house, name, taken["name"])
        assert found["valid"] is False
        assert found["digest"] != taken["digest"]
        assert path in [each["path"] for each in found["mismatches"]]
        flip(place / tree, file)
        assert verified(house, name, taken["name"])["digest"] == taken["digest"]


def flip(subvolume: Path, file: str) -> None:
    """One bit, in the middle."""
    run("btrfs", "property", "set", "-ts", str(subvolume), "ro", "false")
    try:
        raw = bytearray((subvolume / file).read_bytes())
        raw[len(raw) // 2] ^= 1
        with (subvolume / file).open("r+b") as opened:
            opened.write(raw)
    finally:
        run("btrfs", "property", "set", "-ts", str(subvolume), "ro", "true")


# Putting back


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_what_runs_comes_back_running_as_it_was_then(house: House, name: str, method: str) -> None:
    row = house.create(name, egress="nat", volumes=DATA, environment_vars={"A": "b"})
    write(house, name, "old")
    house.run(name, "echo old > /data/file; echo > /root/goes")
    taken = take(house, name, alias="point")
    write(house, name, "new")
    house.run(name, "echo new > /data/file; echo > /root/comes; rm /root/goes")
    house.api("PUT", f"/containers/{name}/env/A", {"value": "c"})
    house.api("PATCH", f"/containers/{name}", {"comment": "changed", "memory_limit": 64 * MIB})
    pids = house.pids(row["id"])
    answer = put_back(house, name, "point", method)
    assert answer.status == 200, answer.body
    assert answer.data["snapshot"]["name"] == taken["name"]
    assert name in answer.data["message"]
    now = house.row(name)
    assert now["status"] == "running"
    assert now["last_used_snapshot"] == taken["name"]
    assert (now["comment"], now["memory_limit"]) == ("changed", 64 * MIB)
    assert not set(house.pids(row["id"])) & set(pids)
    assert page(house, name) == "old"
    assert house.run(name, 'cat /data/file; ls /root; echo "$A"')[1] == "old\ngoes\nc\n"
    [undo] = undos(house, name)
    rows = {each["name"]: each for each in listed(house, name)}
    assert rows[taken["name"]]["last_used_at"] is not None
    assert abs((days(rows[undo]) or 0) - 1) < 0.01
    assert rows[undo]["created_by"] == "root"
    assert now["snapshot_count"] == 1
    restore(house, name, undo)
    assert page(house, name) == "new"
    assert house.run(name, "cat /data/file; ls /root")[1] == "new\ncomes\n"
    assert house.row(name)["last_used_snapshot"] == undo
    assert len(undos(house, name)) == 2
    is_tidy(house, name)


@pytest.mark.parametrize("before", ["asleep", "paused", "stopped", "failed"])
def test_others_are_stopped_and_started_by_the_next_request(
    house: House, name: str, before: str
) -> None:
    row = house.create(name, egress="none", idle_timeout_seconds=1 if before == "asleep" else 0)
    write(house, name, "old")
    taken = take(house, name)["name"]
    write(house, name, "new")
    if before == "asleep":
        house.until(name, status="paused", status_reason="idle")
    elif before == "failed":
        house.run(name, "kill -9 1; killall -9 httpd")
        house.until(name, status="failed")
    else:
        house.operate(name, {"paused": "pause", "stopped": "stop"}[before])
    restore(house, name, taken)
    now = house.row(name)
    assert (now["status"], now["status_reason"]) == ("stopped", "idle")
    assert not house.pids(row["id"])
    assert page(house, name) == "old"
    assert house.row(name)["status"] == "running"
    restore(house, name, undos(house, name)[0])
    assert page(house, name) == "new"


def test_a_volume_that_was_added_since_is_there_and_empty(house: House, name: str) -> None:
    house.create(name, egress="none", volumes=DATA)
    house.run(name, "echo old > /data/file")
    taken = take(house, name)["name"]
    more = [*DATA, {"name": "more", "path": "/more"}]
    assert house.api("PATCH", f"/containers/{name}", {"volumes": more}).status == 200
    house.operate(name, "restart")
    house.run(name, "echo new > /more/file")
    restore(house, name, taken)
    assert house.run(name, "cat /data/file; ls -a /more")[1] == "old\n.\n..\n"
    assert house.run(name, "touch /more/file")[0] == 0
    restore(house, name, undos(house, name)[0])
    assert house.run(name, "cat /more/file")[1] == "new\n"


def test_who_comes_meanwhile_is_held_and_not_refused(house: House, name: str) -> None:
    house.create(name, egress="none")
    write(house, name, "old")
    taken = take(house, name)["name"]
    write(house, name, "new")
    with Visitors(house, name) as visitors:
        for snapshot in (taken, None, taken):
            visitors.until_more()
            restore(house, name, snapshot or undos(house, name)[0])
        visitors.until_more()
    assert {status for status, _ in visitors.answers} == {200}
    assert {said for _, said in visitors.answers} == {"old", "new"}


def test_what_stands_in_a_copy_is_what_was_there_then(house: House, name: str) -> None:
    house.create(name, egress="none", volumes=DATA)
    write(house, name, "old")
    house.run(name, "echo old > /data/file")
    taken = take(house, name, alias="point")
    write(house, name, "new")
    made = copy(house, name, f"{name}-b", "point")
    assert made["source_container_id"] == house.row(name)["id"]
    assert page(house, f"{name}-b") == "old"
    assert house.run(f"{name}-b", "cat /data/file")[1] == "old\n"
    assert page(house, name) == "new"
    assert listed(house, f"{name}-b") == []
    assert listed(house, name)[0]["last_used_at"] is not None
    house.delete(name)
    assert page(house, f"{name}-b") == "old"
    assert DIGEST.fullmatch(taken["digest"])


def test_one_that_has_all_the_room_that_it_may_is_put_back(house: House, name: str) -> None:
    house.create(name, egress="none", disk_limit=24 * MIB)
    write(house, name, "old")
    taken = take(house, name)["name"]
    house.run(name, "dd if=/dev/urandom of=/root/big bs=1M count=64; sync")
    full = take(house, name)
    restore(house, name, taken)
    assert page(house, name) == "old"
    assert house.run(name, "ls /root")[1] == ""
    assert undos(house, name), "what it had is kept"
    assert drop(house, name, full["name"]).status == 200
    assert drop(house, name, undos(house, name)[0]).status == 200

    def has_room() -> bool:
        run("btrfs", "filesystem", "sync", str(house.pool))  # what was deleted counts until then
        return house.run(name, "dd if=/dev/urandom of=/root/some bs=1M count=8; sync")[0] == 0

    until(has_room)


def test_a_subvolume_within_a_volume_is_in_nobody_s_way(house: House, name: str) -> None:
    """It may not make one; who works on the server may."""
    row = house.create(name, egress="none", volumes=DATA)
    taken = take(house, name)["name"]
    own = folder(house, row["id"]) / "state/volume-data/inner"
    run("btrfs", "subvolume", "create", str(own))
    (own / "file").write_text("inner")
    take(house, name)
    restore(house, name, taken)
    undo = undos(house, name)[0]
    assert verified(house, name, undo)["valid"]
    restore(house, name, undo)
    for each in names(house, name):
        assert drop(house, name, each).status == 200
    is_tidy(house, name)


# Read, and gone


def expire(house: House, container_id: str, snapshot: str) -> None:
    """Its time is over."""
    asked = (
        "UPDATE hoody.snapshots SET expires_at = now() - interval '1 second'"
        f" WHERE container_id = '{container_id}' AND name = '{snapshot}'"
    )
    run("psql", house.dsn, "-qc", asked)


def test_those_whose_time_is_over_go_and_the_pinned_stay(house: House, name: str) -> None:
    row = house.create(name, egress="none", start=False)
    first = take(house, name, expiry=1)["name"]
    pinned = take(house, name, pinned=True)["name"]
    last = take(house, name, expiry=1)["name"]
    for each in (pinned, first):
        expire(house, row["id"], each)
    until(lambda: names(house, name) == [last, pinned])
    is_tidy(house, name)
    [expired] = [each for each in events(house, row["id"]) if "expired" in each["event_type"]]
    assert expired["data"]["name"] == expired["resource_id"] == first
    assert expired["actor"] == "expiry"
    restore(house, name, last)
    undo = undos(house, name)[0]
    expire(house, row["id"], undo)
    until(lambda: undo not in names(house, name))
    assert verified(house, name, pinned)["valid"]


def test_what_is_being_used_is_not_deleted(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    bystander = house.create(f"{name}-b", egress="none", start=False)
    taken, swept = (take(house, each)["name"] for each in (name, f"{name}-b"))
    own = f"/containers/{name}/snapshots"
    with Readers(house, row["id"]) as readers:
        asking = started(house, "GET", f"{own}/{taken}/verify")
        until(lambda: readers.held)
        answer = drop(house, name, taken)
        assert answer.status == 409
        assert taken in answer.error
        assert "being used" in answer.error
        expire(house, row["id"], taken)
        reading = started(house, "POST", own)
        until(lambda: len(readers.held) == 2)
        other = names(house, name)[0]
        assert drop(house, name, other).status == 409, "it is one, though it is still being read"
        expire(house, bystander["id"], swept)
        until(lambda: names(house, f"{name}-b") == [])
        assert names(house, name) == [other, taken]
    said, _ = asking.communicate()
    assert json.loads(said)["data"]["valid"] is True
    said, _ = reading.communicate()
    assert DIGEST.fullmatch(json.loads(said)["data"]["snapshot"]["digest"])
    until(lambda: names(house, name) == [other])
    is_tidy(house, name)


def test_one_that_was_not_read_when_it_was_taken_is_read_later(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    taken = take(house, name)["name"]
    asked = (
        "UPDATE hoody.snapshots SET digest = NULL, record = NULL, size = NULL"
        f" WHERE container_id = '{row['id']}'"
    )
    digest = listed(house, name)[0]["digest"]
    run("psql", house.dsn, "-qc", asked)
    until(lambda: listed(house, name)[0]["digest"] == digest)
    assert verified(house, name, taken)["valid"]


def test_a_client_that_has_gone_takes_nothing_with_it(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    own = f"/containers/{name}/snapshots"
    with Readers(house, row["id"]) as readers:
        asking = started(house, "POST", own)
        until(lambda: readers.held)
        asking.kill()
        asking.wait()
    until(lambda: [each["digest"] is not None for each in listed(house, name)] == [True])
    is_tidy(house, name)


# Told as it goes


def test_what_takes_a_while_is_told_as_it_goes(house: House, name: str) -> None:
    house.create(name, egress="none")
    own = f"/containers/{name}/snapshots"
    for method, path, field in (
        ("POST", own, "snapshot"),
        ("GET", f"{own}/{{}}/verify", "valid"),
        ("PATCH", f"{own}/{{}}", "success"),
        ("PUT", f"{own}/{{}}", "success"),
    ):
        taken = names(house, name)[-1:]
        said = told(house, method, path.format(*taken))
        assert [event for event, _ in said[:-1]] == ["progress"] * (len(said) - 1)
        assert all(each["message"] for _, each in said[:-1])
        assert said[-1][0] == "done"
        assert said[-1][1][field]
    [(event, data)] = told(house, "PATCH", f"{own}/none")[-1:]
    assert event == "error"
    assert data["statusCode"] == 404
    assert "none" in data["message"]


# With the container


def test_with_the_container_all_of_them_go_but_not_while_one_is_pinned(
    house: House, name: str
) -> None:
    row = house.create(name, egress="none", volumes=DATA)
    taken = take(house, name)["name"]
    pinned = take(house, name, pinned=True)["name"]
    restore(house, name, taken)
    place = folder(house, row["id"])
    assert len(kept(house, row["id"])) == 3
    answer = house.api("DELETE", f"/containers/{name}")
    assert answer.status == 409
    assert pinned in answer.error
    assert "force=true" in answer.error
    assert house.row(name)["status"] == "running"
    answer = house.api("DELETE", f"/containers/{name}?force=true")
    assert answer.status == 200, answer.body
    assert not place.exists()
    query = f"SELECT count(*) FROM hoody.snapshots WHERE container_id = '{row['id']}'"
    assert run("psql", house.dsn, "-Atqc", query).strip() == "0"


def test_all_that_happens_to_them_is_told(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    issued = issue(house.api, "write")
    own = f"/containers/{name}/snapshots"
    taken = issued("POST", own, {"alias": "point"}).data["snapshot"]["name"]
    assert issued("PUT", f"{own}/point/alias", {"alias": "other"}).status == 200
    assert issued("PATCH", f"{own}/other").status == 200
    undo = undos(house, name)[0]
    assert issued("DELETE", f"{own}/{undo}").status == 200
    issued("POST", own, {"alias": "other", "replace": True})
    expire(house, row["id"], names(house, name)[0])
    until(lambda: names(house, name) == [])
    said = events(house, row["id"])
    assert [each["event_type"].rpartition(".")[2] for each in said[:4]] == [
        *("created", "renamed", "restored", "deleted"),
    ]
    assert sorted(each["event_type"].rpartition(".")[2] for each in said[4:]) == [
        *("created", "deleted", "expired"),
    ]
    assert said.pop()["actor"] == "expiry"
    for each in said:
        assert each["actor"].startswith("name-"), each
        assert each["resource_type"] == "snapshot"
        assert each["container_id"] == row["id"]
        assert each["project_id"] == row["project_id"]
        assert each["data"]["container"] == name
        assert each["duration_ms"] > 0
        assert each["request_id"]
    assert said[0]["resource_id"] == said[2]["resource_id"] == taken
    assert said[2]["data"]["undo"] == undo == said[3]["resource_id"]


# Two at once


def test_of_two_at_once_neither_is_half_done(house: House, name: str) -> None:
    """Either one waits for the other, or is told to come again."""
    house.create(name, egress="none", volumes=DATA)
    write(house, name, "old")
    house.run(name, "echo old > /data/file")
    old = take(house, name, alias="old", pinned=True)["name"]
    write(house, name, "new")
    house.run(name, "echo new > /data/file")
    new = take(house, name, alias="new", pinned=True)["name"]
    own = f"/containers/{name}"
    calls: dict[str, tuple[str, str, object]] = {
        "create": ("POST", f"{own}/snapshots", None),
        "alias": ("POST", f"{own}/snapshots", {"alias": "third", "replace": True}),
        "old": ("PATCH", f"{own}/snapshots/{old}", None),
        "new": ("PUT", f"{own}/snapshots/{new}", None),
        "third": ("PATCH", f"{own}/snapshots/third", None),
        "delete": ("DELETE", f"{own}/snapshots/third", None),
        "diff": ("GET", f"{own}/snapshots/{old}/diff/now", None),
        "stop": ("POST", f"{own}/stop", None),
        "restart": ("POST", f"{own}/restart", None),
        "pause": ("POST", f"{own}/pause", None),
    }
    together = (
        *("alias alias old", "old new restart", "third delete", "old delete diff create"),
        *("new pause", "old stop new create alias third delete"),
    )
    for some in together:
        ask(house, name, alias="third")
        asked = [calls[each] for each in some.split()]
        with ThreadPoolExecutor(len(asked)) as at_once:
            answers = list(at_once.map(lambda each: house.api(*each), asked))
        for each, answer in zip(some.split(), answers, strict=True):
            fine = (200, 409, 404) if each in ("third", "delete") else (200, 409)
            assert answer.status in fine, (some, each, answer.body)
        is_tidy(house, name)
        house.operate(name, "resume")
        house.operate(name, "start")
        content = page(house, name)
        assert content in ("old", "new")
        assert house.run(name, "cat /data/file")[1].strip() == content, some
    for each in names(house, name)[::4]:
        found = verified(house, name, each)
        assert found["valid"], (each, found)


# What a container does to its neighbours


def test_files_that_share_their_blocks_with_each_other_keep_nobody_waiting(
    house: House, name: str
) -> None:
    """Terabytes to read, which take nothing on the disk: it would be hours."""
    row = house.create(name, egress="none", volumes=DATA)
    noise(house, name, "/data/a", 32 * MIB)
    upper = house.base / "containers" / row["id"] / "state" / "volume-data" / "a"
    with upper.open("r+b") as file:  # as one inside does by FICLONERANGE, in fewer steps
        while upper.stat().st_size < 64 << 30:
            size = upper.stat().st_size
            fcntl.ioctl(file, FICLONERANGE, struct.pack("qQQQ", file.fileno(), 0, size, size))
    taken = take(house, name)
    assert taken["digest"] is None
    assert house.run(name, "rm /data/a") == (0, "")
    assert take(house, name)["digest"] is not None
    restore(house, name, taken["name"])
    assert house.run(name, "stat -c %s /data/a")[1] == f"{64 << 30}\n"


def test_a_container_that_is_deleted_is_read_no_more(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    with Readers(house, row["id"]) as readers:
        asking = started(house, "POST", f"/containers/{name}/snapshots")
        until(lambda: readers.alive)
        path = f"/containers/{name}"
        assert "being used" in house.api("DELETE", path).error
        assert house.api("DELETE", f"{path}?force=true").status == 200
        assert "has just been deleted" in asking.communicate()[0].decode()
        # They stand still, and so end by force alone.
        until(lambda: not readers.alive)


def test_the_record_of_what_has_not_changed_is_there_once(house: House, name: str) -> None:
    row = house.create(name, egress="none")
    for _ in range(3):
        take(house, name)
    write(house, name, "another")
    take(house, name)
    records = [each / "record" for each in kept(house, row["id"])]
    assert len({each.stat().st_ino for each in records}) == 2
    for each in listed(house, name):
        assert verified(house, name, each["name"])["valid"]


def test_to_look_at_what_has_changed_till_now_takes_the_right_to_snapshots(
    house: House, name: str
) -> None:
    """It has the container stand still."""
    house.create(name, egress="none")
    taken = take(house, name)["name"]
    reader = issue(house.api, "read")
    path = f"/containers/{name}/snapshots/{taken}/diff"
    assert reader.get(f"{path}/{taken}").status == 200
    assert "needs snapshot" in reader.get(f"{path}/now").error


def test_the_days_name_is_not_given_to_another_of_that_day(house: House, name: str) -> None:
    house.create(name, egress="none")
    first, second = take(house, name), take(house, name)
    drop(house, name, first["name"])
    third = take(house, name)
    assert third["name"] not in (first["name"], second["name"])
    assert third["parent"] == second["name"]


def test_many_at_once_of_one_container_are_all_taken(house: House, name: str) -> None:
    house.create(name, egress="none")

    def again(number: int) -> list[int]:
        fields = {"alias": f"w{number}", "replace": True}
        return [ask(house, name, **fields).status for _ in range(6)]

    with ThreadPoolExecutor(4) as pool:
        assert set(itertools.chain(*pool.map(again, range(4)))) == {200}
