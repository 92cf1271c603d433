"""What is read of snapshots on a btrfs, above which overlayfs was really mounted."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hoody.containers import btrfs
from hoody.manifests.record import load
from tests.support.containers import mounted, pool, run
from tests.support.snapshots import Disk, said

__all__ = ["pool"]

MEBI = 1 << 20
FICLONE = 0x40049409


@pytest.fixture
def disk(pool: Path) -> Iterator[Disk]:
    with _disk(pool / "disk", 1_000_000) as disk:
        yield disk


@contextlib.contextmanager
def _disk(place: Path, base: int) -> Iterator[Disk]:
    disk = Disk(place, base)
    try:
        disk.furnish(_image)
        yield disk
    finally:
        disk.remove()


def _image(top: Path) -> None:
    for folder in ("etc", "etc/deep", "usr", "usr/lib", "tmp"):
        (top / folder).mkdir()
    (top / "etc/passwd").write_text("root")
    (top / "etc/deep/config").write_text("of the image")
    (top / "usr/lib/large").write_bytes(b"image" * MEBI)
    (top / "usr/program").write_text("program")
    os.link(top / "usr/program", top / "usr/another-name")
    os.link(top / "usr/program", top / "usr/third-name")
    (top / "usr/link").symlink_to("program")
    os.chown(top / "etc/passwd", 7, 8)
    (top / "tmp").chmod(0o1777)


# struct vfs_cap_data (linux/capability.h): CAP_NET_BIND_SERVICE; and an ACL (acl(5)) for user 5.
# The kernel writes both with ids in them.
CAPABILITY = "0100000200040000" + "00" * 12
ACL = "0200000001000600ffffffff020007000500000004000600ffffffff10000700ffffffff"
ACL += "20000400ffffffff"
SET = 'python3 -c \'import os; os.setxattr("{}", "{}", bytes.fromhex("{}"))\''

# Everything that overlayfs has a way of its own for
BUSY = f"""
rm etc/passwd; rm -r etc/deep; mkdir etc/deep; echo new > etc/deep/new
mv usr/lib usr/moved
rm usr/another-name
chown 5:6 usr/link -h; mkfifo fifo; echo x > tmp/x; ln tmp/x tmp/y; ln -s x tmp/s
truncate -s 1T tmp/sparse; echo y | dd of=tmp/sparse bs=1M seek=5000 conv=notrunc 2>/dev/null
printf z > $'tmp/a\\nb\\xff\\\\'
{SET.format("tmp/x", "user.mine", "00ff")}
{SET.format("tmp/x", "system.posix_acl_access", ACL)}
{SET.format("usr/program", "security.capability", CAPABILITY)}
touch -d 2001-01-01 tmp/x
"""


def test_the_digest_is_of_what_a_container_sees_on_whatever_file_system_it_is(
    disk: Disk, tmp_path: Path
) -> None:
    """And whatever range of user ids it has there, and whenever that is."""
    disk.run(BUSY)
    (disk.data / "file").write_text("of a volume")
    disk.snapshot("one")
    with mounted(tmp_path, 1 << 30) as other, _disk(other / "disk", 7_000_000) as second:
        for command in BUSY.strip().splitlines():
            second.run(command)
        (second.data / "file").write_text("of a volume")
        second.snapshot("one")
        assert second.scan("one")["digest"] == disk.scan("one")["digest"]
        second.run("chown 1:0 tmp/x")
        second.snapshot("two")
        assert second.scan("two", "one")["digest"] != disk.scan("one", into="m")["digest"]


def test_the_digest_is_the_same_if_all_of_it_is_in_the_image(pool: Path, disk: Disk) -> None:
    disk.run(BUSY)
    disk.snapshot("one")
    copy = Disk(pool / "copy", 3_000_000)
    try:
        shutil.rmtree(copy.live / "root/upper")
        merge = (
            f"mount -t overlay overlay -o lowerdir={disk.live}/root/upper:{disk.image}"
            f" {disk.place}/bundle && cp -a --reflink=never {disk.place}/bundle/. {copy.image}/"
            f" && mkdir {copy.live}/root/upper"
        )
        run("unshare", "-m", "sh", "-ec", merge)
        btrfs.seal(copy.image)
        copy.snapshot("one")
        assert copy.scan("one")["digest"] == disk.scan("one")["digest"]
    finally:
        copy.remove()


@pytest.mark.parametrize(
    "change",
    [
        "touch etc/passwd",
        "echo other > etc/passwd; printf root > etc/passwd",
        "chmod 700 etc; chmod 755 etc",
        "touch made; rm made",
        "rm usr/link; ln -s program usr/link",
        "cp -a etc/deep d; rm -r etc/deep; mv d etc/deep",
        "rm -r tmp; mkdir tmp; chmod 1777 tmp",
    ],
)
def test_what_comes_to_the_same_has_the_same_digest(disk: Disk, change: str) -> None:
    disk.snapshot("one")
    disk.run(change)
    disk.snapshot("two")
    disk.scan("one")
    before, after = disk.scan("one"), disk.scan("two", "one")
    assert after["digest"] == before["digest"]
    assert disk.diff("one", "two")["totals"] == {"added": 0, "changed": 0, "removed": 0}


def test_differences_are_those_a_container_sees(disk: Disk) -> None:
    disk.snapshot("one")
    disk.run(BUSY)
    disk.snapshot("two")
    disk.scan("one")
    disk.scan("two", "one")
    found = disk.diff("one", "two")
    paths = {kind: [each["path"] for each in found[kind]] for kind in found["totals"]}
    assert paths == {
        "added": [
            *("etc/deep/new", "fifo", "tmp/a\\x0ab\\xff\\x5c", "tmp/s", "tmp/sparse", "tmp/x"),
            *("tmp/y", "usr/moved", "usr/moved/large"),
        ],
        "changed": ["usr/link", "usr/program", "usr/third-name"],
        "removed": ["etc/deep/config", "etc/passwd", "usr/another-name", "usr/lib"]
        + ["usr/lib/large"],
    }
    assert found["removed"][0] == {"tree": "root", "path": "etc/deep/config", "size": 12}
    pages = [disk.diff("one", "two", offset=offset, limit=5) for offset in range(0, 20, 5)]
    assert [sum(len(page[kind]) for kind in paths) for page in pages] == [5, 5, 5, 2]
    assert all(page["totals"] == found["totals"] for page in pages)


# Increments


def _map(top: Path) -> None:
    with (top / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[70_000:70_003] = b"new"


def _punch(top: Path) -> None:
    run("fallocate", "--punch-hole", "--offset=8192", "--length=4096", str(top / "file"))


def _clone(top: Path) -> None:
    with (top / "file").open("r+b") as file, (top / "other").open("rb") as other:
        fcntl.ioctl(file, FICLONE, other.fileno())


def _replace(top: Path) -> None:
    (top / "fresh").write_bytes(b"other content")
    (top / "fresh").replace(top / "file")


def _old_times(top: Path) -> None:
    """Which says nothing: anybody can."""
    status = (top / "file").stat()
    with (top / "file").open("r+b") as file:
        file.write(b"new")
    os.utime(top / "file", ns=(status.st_atime_ns, status.st_mtime_ns))


def _in_place(top: Path) -> None:
    with (top / "nocow").open("r+b") as file:
        file.write(b"in place")


def _exchange(top: Path) -> None:
    for old, new in (("file", "third"), ("other", "file"), ("third", "other")):
        (top / old).rename(top / new)


def _device(top: Path) -> None:
    (top / "file").unlink()
    os.mknod(top / "file", 0o20644, os.makedev(1, 3))


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda top: None,
    "a mapped write": _map,
    "truncate": lambda top: os.truncate(top / "file", 5000),
    "truncate to more": lambda top: os.truncate(top / "file", 9 * MEBI),
    "a hole": _punch,
    "mode": lambda top: (top / "file").chmod(0o600),
    "owner": lambda top: os.chown(top / "file", 9, 9),
    "owner of a folder": lambda top: os.chown(top / "folder", 9, 9),
    "an attribute": lambda top: os.setxattr(top / "file", "user.a", b"b"),
    "an attribute less": lambda top: os.removexattr(top / "other", "user.old"),
    "a new name": lambda top: (top / "file").rename(top / "renamed"),
    "a folder's new name": lambda top: (top / "folder").rename(top / "renamed"),
    "another name": lambda top: os.link(top / "file", top / "another"),
    "a name less": lambda top: (top / "two").unlink(),
    "names exchanged": _exchange,
    "another file in its place": _replace,
    "another's content": _clone,
    "other content at the same times": _old_times,
    "in place": _in_place,
    "removed": lambda top: (top / "file").unlink(),
    "a folder moved into another": lambda top: (top / "folder").rename(top / "empty/folder"),
    "a subvolume": lambda top: btrfs.create(top / "inner"),
    "a device in place of a file": _device,
}


def _fill(top: Path) -> None:
    for name in ("file", "other", "folder/inner"):
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_bytes(os.urandom(200_000))
    os.setxattr(top / "other", "user.old", b"")
    (top / "nocow").touch()
    run("chattr", "+C", str(top / "nocow"))
    (top / "nocow").write_bytes(bytes(50_000))
    os.link(top / "other", top / "two")
    (top / "empty").mkdir()


def _same_as_anew(disk: Disk, name: str, base: str) -> int:
    """@return: the bytes that were read."""
    incremental, full = disk.scan(name, base), disk.scan(name, into="full")
    assert incremental["digest"] == full["digest"]
    records = [load(disk.place / name / each) for each in ("manifest", "full")]
    assert records[0].trees == records[1].trees
    if not (disk.place / name / "manifest").samefile(disk.place / base / "manifest"):
        assert records[0].header == records[1].header
    return int(incremental["bytes_read"])


@pytest.mark.parametrize("name", CHANGES)
def test_reading_what_has_changed_finds_what_reading_all_does(disk: Disk, name: str) -> None:
    """The same whether it is the container that was changed, or a restored copy of it."""
    _fill(disk.data)
    disk.snapshot("one")
    first = disk.scan("one")
    CHANGES[name](disk.data)
    disk.snapshot("two")
    read = _same_as_anew(disk, "two", "one")
    assert read <= 9 * MEBI
    if name in ("nothing", "a folder moved into another", "a subvolume"):
        # The kernel may have written an inode once more that was written just before.
        disk.snapshot("again")
        assert disk.scan("again", "two")["bytes_read"] == 0
    assert (disk.scan("two", "one")["digest"] == first["digest"]) == (name == "nothing")
    changed = disk.scan("two", "one")["digest"]
    if name != "a subvolume":
        disk.restore("one")
        CHANGES[name](disk.data)
        disk.snapshot("three")
        assert _same_as_anew(disk, "three", "one") <= 9 * MEBI
        assert disk.scan("three", "one")["digest"] == changed


def test_writes_just_before_and_after_are_told_apart(disk: Disk) -> None:
    """In one transaction with the snapshot, or the next."""
    # What was written before is not to be written once more meanwhile, as the kernel may.
    run("btrfs", "filesystem", "sync", str(disk.data))
    descriptor = os.open(disk.data / "file", os.O_RDWR | os.O_CREAT)
    try:
        for number in range(12):
            os.pwrite(descriptor, b"%4d" % number * 2000, 0)
            if number % 2:
                os.fsync(descriptor)
            disk.snapshot(f"s{number}")
            os.pwrite(descriptor, b"after", 0)
    finally:
        os.close(descriptor)
    disk.scan("s0")
    for number in range(1, 12):
        assert _same_as_anew(disk, f"s{number}", f"s{number - 1}") == 8000


def test_what_is_no_base_is_not_taken_for_one(disk: Disk) -> None:
    """States that have parted since have the same numbers for different things."""
    _fill(disk.data)
    disk.snapshot("one")
    (disk.data / "file").write_text("one way")
    disk.snapshot("two")
    disk.restore("one")
    (disk.data / "new").write_text("another way")
    disk.snapshot("three")
    disk.scan("two")
    assert _same_as_anew(disk, "three", "two") > 400_000
    disk.scan("one")
    assert _same_as_anew(disk, "three", "one") == len("another way")
    disk.scan("three")
    assert _same_as_anew(disk, "one", "three") > 400_000, "time goes one way"
    (disk.place / "one/manifest").write_text("no record")
    assert _same_as_anew(disk, "three", "one") > 400_000


def test_the_size_of_a_delta_is_what_was_written_since(disk: Disk) -> None:
    disk.run("touch usr/lib/large")
    disk.snapshot("one")
    assert disk.scan("one")["size"] < 4096, "the image's own blocks are shared"
    (disk.data / "noise").write_bytes(os.urandom(3 * MEBI))
    (disk.data / "zeros").write_bytes(bytes(64 * MEBI))
    disk.run(f"head -c {2 * MEBI} /dev/urandom > tmp/noise; cp --reflink=always tmp/noise a")
    disk.snapshot("two")
    assert 5 * MEBI <= disk.scan("two", "one")["size"] < 8 * MEBI
    assert 5 * MEBI <= disk.scan("two")["size"] < 8 * MEBI
    (disk.data / "little").write_text("x")
    disk.snapshot("three")
    assert disk.scan("three", "two")["size"] == 1


def test_a_sparse_file_of_any_size_is_read_at_once(disk: Disk) -> None:
    with (disk.data / "huge").open("wb") as file:
        file.truncate(2**63 - 4096)
    disk.snapshot("one")
    assert disk.scan("one")["bytes_read"] < 8 * MEBI


# To verify


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    run("btrfs", "property", "set", "-f", "-ts", str(path), "ro", "false")
    try:
        yield
        run("sync", "-f", str(path))
    finally:
        run("btrfs", "property", "set", "-ts", str(path), "ro", "true")


def _flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_one_bit_is_enough_to_be_found(disk: Disk) -> None:
    _fill(disk.data)
    disk.run(BUSY)
    disk.snapshot("one")
    scanned = disk.scan("one")
    found = disk.verify("one", scanned)
    assert found["valid"]
    assert found["digest"] == scanned["digest"]
    volume = disk.place / "one/volume-data"
    with _writable(volume):
        _flip(volume / "file", 123_456)
    found = disk.verify("one", scanned)
    assert not found["valid"]
    problem = {"tree": "volume-data", "path": "file", "problem": "content differs"}
    assert found["mismatches"] == [problem]
    assert found["digest"] != scanned["digest"]


def test_what_is_not_as_it_was_is_named(disk: Disk) -> None:
    _fill(disk.data)
    disk.snapshot("one")
    scanned = disk.scan("one")
    volume = disk.place / "one/volume-data"
    with _writable(volume):
        os.chown(volume / "file", 4, 4)
        (volume / "folder/inner").unlink()
        (volume / "extra").touch()
        (volume / "nocow").chmod(0o4755)
    with _writable(disk.image):
        (disk.image / "usr/link").unlink()
    found = disk.verify("one", scanned)["mismatches"]
    assert [(each["tree"], each["path"], each["problem"]) for each in found] == [
        ("volume-data", "extra", "was not there"),
        ("volume-data", "file", "owner differs"),
        ("volume-data", "folder/inner", "is missing"),
        ("volume-data", "nocow", "mode differs"),
        ("image", "usr/link", "is missing"),
    ]


@pytest.mark.parametrize("place", [3, 200, -70, -30])
def test_one_bit_of_the_record_is_found(disk: Disk, place: int) -> None:
    disk.run(BUSY)
    disk.snapshot("one")
    scanned = disk.scan("one")
    record = disk.place / "one/manifest"
    _flip(record, place % record.stat().st_size)
    found = disk.verify("one", scanned)
    assert [each["path"] for each in found["mismatches"]] == ["manifest"]
    assert found["digest"] == scanned["digest"], "the snapshot itself is as it was"


# What containers may come up with


def test_folders_that_are_too_deep_are_refused_in_a_sentence(disk: Disk) -> None:
    dig = "import os\nfor _ in range({}): os.mkdir('d'); os.chdir('d')"
    (disk.data / "a").mkdir()
    run("env", "-C", str(disk.data / "a"), "python3", "-c", dig.format(10_000))
    disk.snapshot("one")
    assert disk.scan("one")["entries"] > 10_000
    (disk.data / "b").mkdir()
    run("env", "-C", str(disk.data / "b"), "python3", "-c", dig.format(100_000))
    disk.snapshot("two")
    lines = said(disk.order("two", kind="scan", into=str(disk.place / "two/manifest")))
    assert lines[-1]["status"] == 400
    assert "deep" in lines[-1]["error"]
    assert not (disk.place / "two/manifest").exists()


def test_what_can_still_change_is_refused(disk: Disk) -> None:
    order = {"kind": "scan", "image": str(disk.image), "image_manifest": str(disk.cache)}
    lines = said({**order, "trees": {"root": str(disk.live / "root")}, "into": "/dev/null"})
    assert lines[-1]["status"] == 500
    assert "read-only" in lines[-1]["error"]


def test_a_snapshot_that_was_written_to_is_no_base(disk: Disk) -> None:
    """Nor does it stand in the way of those that come after it."""
    _fill(disk.data)
    disk.snapshot("one")
    volume = disk.place / "one/volume-data"
    with _writable(volume):
        _flip(volume / "file", 5)
    disk.scan("one")
    disk.snapshot("two")
    assert _same_as_anew(disk, "two", "one") > 400_000
