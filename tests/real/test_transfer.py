"""A container moves between two servers as one stream, by curl and a pipe."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hoody.manifests.manifest import Entry
from hoody.manifests.stream import Header, Item, Reader, TreeHead, Writer
from tests.support.api import Answer, issue
from tests.support.containers import House, another_block, mounted, pool, run
from tests.support.images import folder, member, symlink
from tests.support.layouts import Layout
from tests.support.postgres import Postgres

__all__ = ["pool"]

# What overlayfs has a way of its own for, and what else a disk can have
BUSY = r"""
set -e
rm /etc/shells; rm -r /var/www; mkdir /var/www; echo mine > /var/www/other
mkdir -p /srv/deep/deeper; echo one > /srv/deep/deeper/file; ln -s nowhere /srv/link
echo odd > "$(printf '/srv/a\nb\377\\')"; mkfifo /srv/fifo
echo linked > /srv/first; ln /srv/first /srv/second; chown 5:6 /srv/first; chmod 4711 /srv/first
truncate -s 1000000000000 /srv/sparse
echo y | dd of=/srv/sparse bs=1M seek=5000 conv=notrunc 2>/dev/null
dd if=/dev/urandom of=/srv/large bs=1M count=3 2>/dev/null; cp /srv/large /srv/copy
mkdir /srv/empty; chmod 1777 /srv/empty; touch -h -d '2001-01-01 00:00:00' /srv/first /srv/link
"""
TREE = "cd / && find bin srv var data -exec stat -c '%n %F %a %u %g %s %Y' {} + | sort"


@pytest.fixture(scope="module")
def houses(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres
) -> Iterator[tuple[House, House]]:
    place = tmp_path_factory.mktemp("transfer")
    one = House(place / "one", pool, cluster)
    try:
        other = House(place / "other", pool, cluster, another_block())
        try:
            yield one, other
        finally:
            other.close()
    finally:
        one.close()


@pytest.fixture
def one(houses: tuple[House, House]) -> Iterator[House]:
    yield houses[0]
    houses[0].nothing_is_left()


@pytest.fixture
def other(houses: tuple[House, House]) -> Iterator[House]:
    yield houses[1]
    houses[1].nothing_is_left()


def snapshot(house: House, name: str) -> dict[str, Any]:
    answer = house.api("POST", f"/containers/{name}/snapshots", {})
    assert answer.status == 200, answer.body
    taken: dict[str, Any] = answer.data["snapshot"]
    return taken


def export(house: House, container: str, name: str, query: str = "") -> bytes:
    done = subprocess.run(
        [
            *("curl", "-sS", "-m", "60", "-H", f"Authorization: Bearer {house.api.token}"),
            f"{house.api.base}/containers/{container}/snapshots/{name}/export{query}",
        ],
        capture_output=True,
        check=True,
    )
    return done.stdout


def bring(house: House, data: bytes, query: str = "", *more: str) -> Answer:
    """As C{curl -T -} does."""
    done = subprocess.run(
        [
            *("curl", "-sS", "-m", "60", "-T", "-", "-D", "-", "-H", "Expect:", *more),
            *("-H", f"Authorization: Bearer {house.api.token}"),
            f"{house.api.base}/projects/default/containers/import{query}",
        ],
        input=data,
        capture_output=True,
        check=True,
    )
    head, _, body = done.stdout.decode().replace("\r", "").partition("\n\n")
    return Answer(int(head.split()[1]), head, body)


def busy(house: House, name: str, **fields: object) -> dict[str, Any]:
    house.create(name, volumes=[{"name": "data", "path": "/data"}], **fields)
    assert house.run(name, f"{BUSY}\necho kept > /data/file; mkdir /data/sub") == (0, "")
    return snapshot(house, name)


def images(house: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = house.api.get("/images?limit=100").data["images"]
    return found


def test_a_container_moves_by_a_pipe_with_all_that_it_has(one: House, other: House) -> None:
    fields: dict[str, object] = {
        "command": ["sleep", "1000"],
        "environment_vars": {"SECRET": "s"},
        "comment": "mine",
        "exposed_ports": [9000],
        "memory_limit": 64 << 20,
        "egress": "none",
    }
    taken = busy(one, "app", **fields)
    _, before = one.run("app", TREE)
    pipe = f"{one.server.url}/api/v1/pipe/move"
    script = (
        f"curl -sS {one.api.base}/containers/app/snapshots/{taken['name']}/export"
        f" -H 'Authorization: Bearer {one.api.token}' | curl -sS -T - {pipe} &\n"
        f"curl -sS {pipe} | curl -sS -T - -X POST"
        f" '{other.api.base}/projects/default/containers/import?name=moved'"
        f" -H 'Authorization: Bearer {other.api.token}'; wait"
    )
    said = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True)
    line = next(each for each in said.stdout.splitlines() if each.startswith("{"))
    row = json.loads(line)["data"]
    assert row["status"] == "running"
    assert row["snapshot_count"] == 1
    for name, value in fields.items():
        assert row[name] == value
    assert other.run("moved", TREE) == (0, before)
    assert other.run("moved", "cat /data/file /srv/second") == (0, "kept\nlinked\n")
    found = other.api.get("/containers/moved/snapshots").data["snapshots"]
    assert [(each["name"], each["digest"]) for each in found] == [(taken["name"], taken["digest"])]
    verified = other.api.get(f"/containers/moved/snapshots/{taken['name']}/verify").data
    assert verified["valid"]
    events = other.api.get(f"/events?container_id={row['id']}").data["events"]
    created = next(each for each in events if each["event_type"] == "container.created")
    assert created["data"]["digest"] == taken["digest"]
    assert created["data"]["imported"] == "app"


# What a stream has, and what need not come with it


def test_an_image_that_is_there_already_is_used(one: House, other: House) -> None:
    one.create("app")
    taken = snapshot(one, "app")
    before = images(other)
    row = bring(other, export(one, "app", taken["name"])).data
    assert row["name"] == "app"
    assert row["container_image"] == "busybox"
    assert images(other) == before
    small = export(one, "app", taken["name"], "?image=false")
    assert len(small) < 10_000
    assert bring(other, small, "?name=again").status == 201


def test_an_image_that_is_not_there_comes_along(one: House, other: House) -> None:
    upload(one, "mine", "of one")
    upload(other, "mine", "of other")
    one.create("app", container_image="mine", command="echo x > /file; exec sleep 1000")
    one.until("app", status="running")
    taken = snapshot(one, "app")
    small = export(one, "app", taken["name"], "?image=false")
    refused = bring(other, small)
    assert refused.status == 409
    assert "?image=true" in refused.error
    assert "sha256:" in refused.error
    assert [each["name"] for each in images(other)] == ["busybox", "mine"]
    row = bring(other, export(one, "app", taken["name"])).data
    assert row["container_image"] == "mine-2"
    assert other.run("app", "cat /of-the-image /bin/link") == (0, "of oneof one")
    made = other.api.get("/images/mine-2").data
    assert (made["source"], made["status"]) == ("import", "ready")
    assert made["config"]["command"] == ["/bin/busybox", "sleep", "77"]
    assert bring(other, small, "?name=again").data["container_image"] == "mine-2"
    for name in ("app", "again"):
        other.delete(name)
    one.delete("app")
    for house, names in ((one, ["mine"]), (other, ["mine", "mine-2"])):
        for name in names:
            assert house.api("DELETE", f"/images/{name}").status == 200


def upload(house: House, name: str, text: str) -> None:
    """An image with busybox, and a configuration of its own."""
    busybox = Path("/bin/busybox").read_bytes()
    members = [
        folder("bin"),
        member("bin/busybox", busybox, mode=0o755),
        symlink("bin/sh", "busybox"),
        symlink("bin/cat", "busybox"),
        symlink("bin/sleep", "busybox"),
        symlink("bin/link", "/of-the-image"),
        member("of-the-image", text.encode()),
    ]
    layout = Layout().add(members, config={"Cmd": ["/bin/busybox", "sleep", "77"]})
    path = house.data_dir / "archive.tar"
    path.write_bytes(layout.archive())
    send = ("-H", "Expect:", "--data-binary", f"@{path}")
    done = house.api("POST", f"/images?name={name}", None, *send)
    assert done.status == 201, done.body


def test_of_a_snapshot_that_the_other_has_only_what_differs_is_sent(
    one: House, other: House
) -> None:
    first = busy(one, "app")
    changes = (
        "echo new > /srv/new; rm /srv/copy /etc/profile; cat /srv/large /bin/busybox > /srv/x"
    )
    assert one.run("app", f"{changes}; echo more >> /data/file") == (0, "")
    second = snapshot(one, "app")
    whole, delta = (
        export(one, "app", second["name"], query) for query in ("", f"?base={first['name']}")
    )
    assert len(delta) < len(whole) - (3 << 20)
    refused = bring(other, delta)
    assert refused.status == 409
    assert first["digest"] in refused.error
    assert "export this one without ?base=" in refused.error
    assert bring(other, export(one, "app", first["name"]), "?name=base").status == 201
    assert bring(other, delta, "?name=delta").status == 201
    other.delete("base")
    _, before = one.run("app", TREE)
    assert other.run("delta", TREE) == (0, before)
    assert other.run("delta", "md5sum < /srv/x") == one.run("app", "md5sum < /srv/x")
    found = other.api.get(f"/containers/delta/snapshots/{second['name']}/verify").data
    assert found["valid"]
    assert found["digest"] == second["digest"]


# acl(5), in the form of linux/posix_acl_xattr.h: u::rw-,u:7:r--,g::r--,m::r--,o::---
ACCESS_LIST = struct.pack(
    "<I" + "HHI" * 5,
    *(2, 1, 6, 2**32 - 1, 2, 4, 7, 4, 4, 2**32 - 1, 16, 4, 2**32 - 1, 32, 0, 2**32 - 1),
)


def test_attributes_move_too_and_what_comes_next_is_read_in_parts(
    one: House, other: House
) -> None:
    made = one.create("app", volumes=[{"name": "data", "path": "/data"}])
    one.run("app", "echo x > /data/file")
    file = one.base / "containers" / made["id"] / "state/volume-data/file"
    os.setxattr(file, "user.mine", b"\x00v")
    os.setxattr(file, "system.posix_acl_access", ACCESS_LIST)
    taken = snapshot(one, "app")
    row = bring(other, export(one, "app", taken["name"])).data
    moved = other.base / "containers" / row["id"] / "state/volume-data/file"
    assert {name: os.getxattr(moved, name) for name in os.listxattr(moved)} == {
        name: os.getxattr(file, name) for name in os.listxattr(file)
    }
    assert snapshot(other, "app")["parent"] == taken["name"]


def test_one_that_is_not_to_be_started_stands_still(one: House, other: House) -> None:
    one.create("app")
    data = export(one, "app", snapshot(one, "app")["name"])
    assert bring(other, data, "?start=false&name=still").data["status"] == "stopped"
    assert other.get("still")[0] == 200  # by a request


def test_a_snapshot_of_before_a_volume_was_there_moves(one: House, other: House) -> None:
    one.create("app")
    taken = snapshot(one, "app")
    volumes = [{"name": "late", "path": "/late"}]
    assert one.api("PATCH", "/containers/app", {"volumes": volumes}).status == 200
    row = bring(other, export(one, "app", taken["name"])).data
    assert row["volumes"] == volumes
    assert other.run("app", "echo x > /late/file") == (0, "")


# What is refused


def test_a_stream_that_is_not_as_it_was_sent_leaves_nothing(one: House, other: House) -> None:
    data = export(one, "app", busy(one, "app")["name"])
    before = images(other)
    cut = bring(other, data[: len(data) // 2])
    assert cut.status == 400
    assert "cut" in cut.error
    place = len(data) - 1000
    flipped = bring(other, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert flipped.status == 400
    assert "not what was sent" in flipped.error
    assert bring(other, b"PK" + data).status == 400
    assert images(other) == before
    other.nothing_is_left()
    until(lambda: not list((other.base / "uploads").iterdir()))  # it may be large
    assert len(list((other.base / "images").iterdir())) == len(before)


def remade(data: bytes, change: Callable[[Header, dict[str, list[Item]]], Header]) -> bytes:
    """A stream that is whole, by somebody who means ill."""
    reader = Reader(io.BytesIO(data))
    reader.head()
    contents = [(each, list(reader.content(each))) for each in reader.contents]
    header = change(reader.header, reader.trees)
    counted = tuple(
        TreeHead(name=name, entries=len(items)) for name, items in reader.trees.items()
    )
    out = io.BytesIO()
    writer = Writer(out.write)
    header = msgspec.structs.replace(header, trees=counted)
    writer.head(header, reader.trees, reader.contents)
    for content, parts in contents:
        writer.content(content, parts)
    writer.end()
    return out.getvalue()


def _other_digest(header: Header, _: object) -> Header:
    head = msgspec.structs.replace(header.snapshot, digest=f"sha256:{'0' * 64}")
    return msgspec.structs.replace(header, snapshot=head)


def _other_mode(header: Header, trees: dict[str, list[Item]]) -> Header:
    trees["root"][-1] = _changed(trees["root"][-1], mode=0o700)
    return header


def _way_out(header: Header, trees: dict[str, list[Item]]) -> Header:
    trees["root"].append(_changed(trees["root"][-1], path="zz/../../../../../../x"))
    return header


def _device(header: Header, trees: dict[str, list[Item]]) -> Header:
    entry = Entry("zz", "block", 0o666, 0, 0, device="8:0")
    trees["root"].append(Item(0, entry))
    return header


def _by_a_link(header: Header, trees: dict[str, list[Item]]) -> Header:
    link = Entry("zz", "link", 0o777, 0, 0, target="/tmp")
    below = Entry("zz/evil", "fifo", 0o777, 0, 0)
    trees["root"] += [Item(0, link), Item(0, below)]
    return header


def _other_image(header: Header, trees: dict[str, list[Item]]) -> Header:
    trees["image"][-1] = _changed(trees["image"][-1], uid=9)
    head = msgspec.structs.replace(header.image, digest=f"sha256:{'5' * 64}")
    return msgspec.structs.replace(header, image=head)


def _settings(header: Header, _: object) -> Header:
    wrong = {**header.container, "volumes": [{"name": "x", "path": "/proc"}]}
    return msgspec.structs.replace(header, container=wrong)


def _changed(item: Item, **fields: Any) -> Item:
    return Item(item.mtime, msgspec.structs.replace(item.entry, **fields))


EVIL = [
    (_other_digest, "what came is sha256:"),
    (_other_mode, "what came is sha256:"),
    (_way_out, "no container could have it"),
    (_device, "no container could have it"),
    (_by_a_link, "no container could have it"),
    (_other_image, "image is not what it is said to be"),
    (_settings, "is the system's"),
]


def test_what_is_whole_and_yet_not_what_it_says_leaves_nothing(one: House, other: House) -> None:
    one.create("app")
    one.run("app", "echo x > /zy")
    data = export(one, "app", snapshot(one, "app")["name"])
    before = images(other)
    for change, sentence in EVIL:
        refused = bring(other, remade(data, change))
        assert refused.status == 400, refused.body
        assert sentence in refused.error
    assert images(other) == before
    other.nothing_is_left()
    assert len(list((other.base / "images").iterdir())) == len(before)


def test_what_cannot_be_is_said_before_anything_is_sent(one: House, other: House) -> None:
    other.create("app")
    for query, status in (("?name=app", 409), ("?name=a/b", 400), ("?start=perhaps", 400)):
        answer = bring(other, bytes(1 << 20), query, "-H", "Expect: 100-continue")
        assert answer.status == status, answer.body
    assert other.api("POST", "/projects/nope/containers/import", "x").status == 404
    assert other.api("POST", "/projects/default/containers/import").status == 400
    one.create("app")
    data = export(one, "app", snapshot(one, "app")["name"])
    taken = bring(other, data)
    assert taken.status == 409
    assert "?name=" in taken.error


def test_to_export_takes_the_right_to_write_and_to_import_that_to_all(
    one: House, other: House
) -> None:
    made, neighbour = one.create("app"), one.create("neighbour")
    taken = snapshot(one, "app")
    path = f"/containers/app/snapshots/{taken['name']}/export"
    assert issue(one.api, "read", "snapshot").get(path).status == 403
    assert issue(one.api, "write", containers=[neighbour["id"]]).get(path).status == 404
    tied = issue(one.api, "write", containers=[made["id"]])
    done = subprocess.run(
        ["curl", "-sS", "-H", f"Authorization: Bearer {tied.token}", tied.base + path],
        capture_output=True,
        check=True,
    )
    import_path = "/projects/default/containers/import"
    assert Reader(io.BytesIO(done.stdout)).header.container["name"] == "app"
    assert tied("POST", import_path, "x").status == 403
    assert issue(one.api, "read")("PUT", import_path, "x").status == 403
    assert one.api.with_token(None)("POST", import_path, "x").status == 401
    assert one.api.get(f"{path}?base=nope").status == 404
    assert one.api.get("/containers/app/snapshots/nope/export").status == 404


# What goes wrong on the way


def test_an_import_is_told_of_as_it_goes(one: House, other: House) -> None:
    data = export(one, "app", busy(one, "app")["name"])
    answer = bring(other, data, "", "-H", "Accept: text/event-stream")
    assert answer.status == 200
    assert "event: progress" in answer.body
    done = answer.body.partition("event: done\ndata: ")[2].splitlines()[0]
    assert json.loads(done)["name"] == "app"
    told = bring(other, data, "?name=cut", "-H", "Accept: text/event-stream")
    assert "event: done" in told.body
    other.delete("cut")
    refused = bring(other, data[:-1], "?name=cut", "-H", "Accept: text/event-stream")
    assert '"statusCode":400' in refused.body.partition("event: error\n")[2]


def forged(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A stream that is right but for what its head says."""
    first, head, rest = data.split(b"\n", 2)
    said = json.loads(head)
    at = rest.index(b"\nsum ") + 1
    body, behind = rest[:at], rest[at + len("sum ") + 64 + 1 :]
    contents = behind[: said["size"]]
    change(said)
    begun = b"%s\n%s\n%s" % (first, json.dumps(said).encode(), body)
    sum_of_it = hashlib.sha256(begun)
    seal = hashlib.sha256(sum_of_it.digest())
    for line in body.splitlines()[len(body.splitlines()) - said["contents"] :]:
        seal.update(bytes.fromhex(json.loads(line)[0]))
    ends = sum_of_it.hexdigest().encode(), seal.hexdigest().encode()
    return b"%ssum %s\n%send %s\n" % (begun, ends[0], contents, ends[1])


@pytest.mark.parametrize(
    ("part", "field", "value", "said"),
    [
        ("snapshot", "created_at", "0001-01-01T00:00:00+14:00", "at no time"),
        ("snapshot", "created_at", "9999-12-31T23:59:59-14:00", "at no time"),
        ("snapshot", "name", "snap-9999-99-99-999999", "none is called"),
        ("snapshot", "comment", "c" * 501, "comment"),
        ("container", "comment", "c" * 501, "comment"),
        ("container", "environment_vars", {"A" * 300: ""}, "environment_vars"),
        ("container", "environment_vars", {f"K{n}": "v" for n in range(250000)}, "too long"),
    ],
)
def test_a_head_that_none_could_have_sent_is_refused(
    one: House, other: House, part: str, field: str, value: object, said: str
) -> None:
    data = export(one, "app", busy(one, "app")["name"])

    def change(head: dict[str, Any]) -> None:
        head[part][field] = value

    refused = bring(other, forged(data, change), "?name=forged")
    assert refused.status == 400
    assert said in refused.error
    assert other.names == []
    assert bring(other, forged(data, lambda head: None), "?name=honest").status == 201


def test_an_export_is_told_of_to_who_asks_for_events(one: House) -> None:
    """And the one who takes the bytes is not slowed by it, nor told of anything else."""
    taken = busy(one, "app")
    path = f"/containers/app/snapshots/{taken['name']}/export"
    watching = subprocess.Popen(
        [
            *("curl", "-sSN", "-m", "20", "-H", f"Authorization: Bearer {one.api.token}"),
            *("-H", "Accept: text/event-stream", one.api.base + path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    assert watching.stdout.readline().startswith("retry")
    data = export(one, "app", taken["name"])
    told = watching.communicate()[0]
    done = json.loads(told.partition("event: done\ndata: ")[2].splitlines()[0])
    assert done["name"] == taken["name"]
    assert done["digest"] == Reader(io.BytesIO(data)).header.snapshot.digest
    assert 0 <= done["bytes"] < len(data)


def exports(house: House) -> list[int]:
    """The processes that send snapshots for it; others read some whenever it is time to."""
    found = []
    for path in Path(f"/proc/{house.server.process.pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            for pid in path.read_text().split():
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                    if b"hoody.manifests" in words and b"export" in words:
                        found.append(int(pid))
    return found


def until(wanted: Callable[[], object]) -> None:
    late = time.monotonic() + 20
    while not wanted():
        assert time.monotonic() < late
        time.sleep(0.01)


def test_who_does_not_read_is_waited_for_and_who_leaves_ends_it(one: House) -> None:
    one.create("app")
    one.run("app", "dd if=/dev/urandom of=/large bs=1M count=64 2>/dev/null")
    taken = snapshot(one, "app")
    connection = socket.create_connection((one.server.host, one.server.port))
    connection.sendall(
        f"GET /api/v1/containers/app/snapshots/{taken['name']}/export HTTP/1.1\r\n"
        f"Host: x\r\nAuthorization: Bearer {one.api.token}\r\n\r\n".encode()
    )
    assert b"200 OK" in connection.recv(100)
    (pid,) = exports(one)
    written = ""

    def writes_no_more() -> bool:
        nonlocal written
        before, written = written, Path(f"/proc/{pid}/io").read_text()
        time.sleep(0.5)
        return "pipe" in Path(f"/proc/{pid}/wchan").read_text() and written == before

    until(writes_no_more)
    refused = one.api("DELETE", f"/containers/app/snapshots/{taken['name']}")
    assert refused.status == 409
    assert Path(f"/proc/{pid}/io").read_text() == written
    assert int(written.split("wchar: ")[1].split()[0]) < 32 << 20
    connection.close()
    until(lambda: not exports(one))
    assert one.api("DELETE", f"/containers/app/snapshots/{taken['name']}").status == 200


def test_an_export_that_fails_midway_is_never_taken_for_whole(one: House) -> None:
    made = one.create("app")
    one.run("app", "dd if=/dev/urandom of=/large bs=1M count=4 2>/dev/null")
    taken = snapshot(one, "app")
    (kept,) = (one.base / "containers" / made["id"] / "snapshots").iterdir()
    run("btrfs", "property", "set", str(kept / "root"), "ro", "false")
    with (kept / "root/upper/large").open("r+b") as file:
        file.write(b"otherwise")
    run("btrfs", "property", "set", str(kept / "root"), "ro", "true")
    url = f"{one.api.base}/containers/app/snapshots/{taken['name']}/export"
    done = subprocess.run(
        ["curl", "-sS", "-H", f"Authorization: Bearer {one.api.token}", url],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 18  # CURLE_PARTIAL_FILE
    (kept / "record").write_bytes(b"")
    answer = one.api.get(f"/containers/app/snapshots/{taken['name']}/export")
    assert answer.status == 503
    assert "checksum is another" in answer.error


def test_a_server_that_is_killed_while_it_imports_leaves_nothing(one: House, other: House) -> None:
    one.create("app")
    one.run("app", "dd if=/dev/urandom of=/large bs=1M count=100 2>/dev/null")
    data = export(one, "app", snapshot(one, "app")["name"])
    before = images(other)
    url = f"{other.api.base}/projects/default/containers/import"
    with subprocess.Popen(
        ["curl", "-sS", "-T", "-", "-H", f"Authorization: Bearer {other.api.token}", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as curl:
        assert curl.stdin is not None
        curl.stdin.write(data)
        curl.stdin.close()
        until(lambda: list((other.base / "containers").glob("*/state/root/upper/large")))
        other.kill()
        assert curl.wait() != 0
    other.start()
    assert other.names == []
    assert images(other) == before
    other.nothing_is_left()
    assert not list((other.base / "uploads").iterdir())
    assert len(list((other.base / "images").iterdir())) == len(before)


def test_a_disk_that_is_full_is_said_and_nothing_is_left_on_it(
    one: House, cluster: Postgres, tmp_path: Path
) -> None:
    one.create("app")
    one.run("app", "dd if=/dev/urandom of=/large bs=1M count=180 2>/dev/null")
    data = export(one, "app", snapshot(one, "app")["name"])
    with mounted(tmp_path, 400 << 20) as small:
        full = House(tmp_path / "data", small, cluster, another_block())
        try:
            answer = bring(full, data)
            assert answer.status == 503, answer.body
            assert "full" in answer.error
            full.nothing_is_left()
            until(lambda: not list((full.base / "uploads").iterdir()))
        finally:
            full.close()
