"""Root file systems of images, and archives that mean no good."""

from __future__ import annotations

import gzip
import os
import socket
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hoody.containers.images.budget import Notes
from hoody.containers.images.survey import survey
from tests.support.images import (
    Workshop,
    dangers,
    folder,
    hard_link,
    member,
    portrait,
    symlink,
    tarred,
)

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for files of other users"),
]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    """Whatever is made here, its neighbours stay as they were."""
    workshop = Workshop(tmp_path)
    outside = [tmp_path / "canary", tmp_path / "pool"]
    before = [portrait(place, workshop.into) for place in outside]
    yield workshop
    assert [portrait(place, workshop.into) for place in outside] == before
    assert not dangers(workshop.into)


class TestBusybox:
    def test_it_has_a_web_server_for_its_default_command(self, shop: Workshop) -> None:
        image = shop.done(shop.run(kind="busybox"))
        assert image.command == ("httpd", "-f", "-v", "-p", "8080", "-h", "/var/www")
        assert image.port == 8080
        assert os.readlink(shop.path("/usr/sbin/httpd")) == "/bin/busybox"
        assert "It runs" in shop.path("/var/www/index.html").read_text()
        assert stat.S_IMODE(shop.path("/tmp").stat().st_mode) == 0o1777
        assert stat.S_IMODE(shop.path("/root").stat().st_mode) == 0o700
        assert "nobody:x:65534" in shop.path("/etc/passwd").read_text()

    def test_it_is_the_same_every_time(self, tmp_path: Path) -> None:
        trees = []
        for name in ("one", "two"):
            shop = Workshop(tmp_path / name)
            shop.done(shop.run(kind="busybox"))
            status = {
                path.removeprefix(os.fsencode(shop.into)): os.lstat(path)
                for path in shop.everything()
            }
            trees.append(
                {
                    name: (s.st_mode, s.st_mtime_ns, s.st_uid, s.st_size)
                    for name, s in status.items()
                }
            )
        assert trees[0] == trees[1]

    def test_its_programs_run_in_it(self, shop: Workshop) -> None:
        shop.done(shop.run(kind="busybox"))
        shell = ["chroot", str(shop.into), "/bin/sh", "-c", "id -un; ls /var/www"]
        said = subprocess.run(shell, capture_output=True, check=True, text=True).stdout
        assert said == "root\nindex.html\n"


class TestUpload:
    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
    def test_a_tarball_becomes_the_root_as_it_is(self, shop: Workshop, mode: str) -> None:
        image = shop.image(
            folder(".", mode=0o750, uid=3, gid=4, mtime=5),
            folder("./bin", mode=0o555, mtime=1_000_000),
            member("./bin/tool", b"#!/bin/sh\n", mode=0o751, uid=12, gid=65535, mtime=77.25),
            symlink("./bin/other", "tool"),
            hard_link("./bin/third", "./bin/tool"),
            member("./bin/pipe", type=tarfile.FIFOTYPE, mode=0o600),
            member(b"./caf\xe9", b"x"),
            mode=mode,
        )
        root, tool = shop.into.stat(), shop.path("bin/tool").stat()
        assert (stat.S_IMODE(root.st_mode), root.st_uid, root.st_gid) == (0o750, 3, 4)
        assert root.st_mtime == 5
        assert (stat.S_IMODE(tool.st_mode), tool.st_uid, tool.st_gid) == (0o751, 12, 65535)
        assert tool.st_mtime == 77.25
        assert tool.st_ino == shop.path("bin/third").stat().st_ino
        assert stat.S_IMODE(shop.path("bin").stat().st_mode) == 0o555
        assert shop.path("bin").stat().st_mtime == 1_000_000
        assert os.readlink(shop.path("bin/other")) == "tool"
        assert shop.path("bin/pipe").is_fifo()
        assert os.path.exists(os.fsencode(shop.into) + b"/caf\xe9")
        assert (image.command, image.port, image.skipped) == (None, None, ())
        assert image.size == 11
        assert image.entries == 1 + len(list(shop.everything()))

    def test_what_the_runtime_mounts_on_is_there(self, shop: Workshop) -> None:
        shop.image(member("a/b/hello", b"hi", uid=5))
        owned = {name: os.lstat(name).st_uid for name in shop.everything()}
        assert sorted(set(owned.values())) == [0, 5]
        assert stat.S_IMODE(shop.path("a/b").stat().st_mode) == 0o755
        assert stat.S_IMODE(shop.into.stat().st_mode) == 0o755
        for name in ("proc", "sys", "dev", "run", "tmp", "etc"):
            assert shop.path(name).is_dir()
        assert shop.path("etc/resolv.conf").read_bytes() == b""


class TestWaysOut:
    @pytest.mark.parametrize("name", ["../escaped", "a/../../escaped", "/../escaped", ".."])
    def test_dots_are_refused(self, shop: Workshop, name: str) -> None:
        assert "'..'" in shop.refused(folder("a"), member(name, b"x"))

    def test_absolute_names_are_names_within(self, shop: Workshop) -> None:
        there = shop.canary / "new"
        shop.image(member(str(there), b"x"), member(f"//{shop.canary}/file", b"y"))
        assert shop.path(str(there)).read_bytes() == b"x"
        assert shop.path(str(shop.canary / "file")).read_bytes() == b"y"

    @pytest.mark.parametrize("up", ["", "../../../../../../../../../.."])
    def test_a_link_leads_nowhere_but_within(self, shop: Workshop, up: str) -> None:
        target = f"{up}{shop.canary}"
        image = shop.image(
            symlink("way", target),
            member("way/file", b"evil"),
            member("way/new", b"evil"),
            folder("way/deep", mode=0o700, uid=7),
            symlink("way2", f"{target}/deep/shadow"),
            member("way2", b"evil"),
        )
        assert shop.path(str(shop.canary / "file")).read_bytes() == b"evil"
        assert shop.path("way").is_symlink()
        assert shop.path("way2").read_bytes() == b"evil"
        assert any("where it leads to" in note for note in image.skipped)

    def test_a_link_to_where_nothing_is_makes_it_within(self, shop: Workshop) -> None:
        shop.image(symlink("var", "/gone/../else"), member("var/x", b"1"))
        assert shop.path("else/x").read_bytes() == b"1"

    def test_links_in_circles_are_refused(self, shop: Workshop) -> None:
        said = shop.refused(symlink("a", "b"), symlink("b", "a"), member("a/x", b"1"))
        assert "circle" in said

    def test_hard_links_reach_only_what_came_before(self, shop: Workshop) -> None:
        for target in (str(shop.canary / "file"), "missing", "/etc/shadow", "d"):
            said = Workshop(shop.place / target.replace("/", "_")).refused(
                folder("d"), hard_link("x", target)
            )
            assert "hard link" in said
        assert "'..'" in shop.refused(hard_link("x", f"../../..{shop.canary}/file"))

    def test_a_hard_link_to_a_link_is_one_more_link(self, shop: Workshop) -> None:
        target = str(shop.canary / "file")
        shop.image(symlink("way", target), hard_link("x", "way"), member("x", b"evil"))
        assert shop.path("x").read_bytes() == b"evil"
        assert os.readlink(shop.path("way")) == target

    @pytest.mark.parametrize("name", ["a\0b", "x" * 256, "/".join(["x" * 200] * 21)])
    def test_names_that_no_file_can_have_are_refused(self, shop: Workshop, name: str) -> None:
        headers = {"path": name}
        assert "name" in shop.refused(member("x", pax_headers=headers))

    def test_links_to_names_that_no_file_can_have_are_refused(self, shop: Workshop) -> None:
        for number, target in enumerate(("", "x" * 5000)):
            assert Workshop(shop.place / str(number)).refused(symlink("a", target))

    def test_a_path_that_grows_by_links_comes_to_an_end(self, shop: Workshop) -> None:
        members = [folder("/".join(["d" * 200] * 10)), symlink("s", "/".join(["d" * 200] * 10))]
        assert shop.refused(*members, folder("s/" + "/".join(["e" * 200] * 10)))


class TestHarm:
    def test_devices_are_left_out(self, shop: Workshop) -> None:
        image = shop.image(
            member("dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            member("disk", type=tarfile.BLKTYPE, devmajor=8, devminor=0, mode=0o666),
            member("whiteout", type=tarfile.CHRTYPE),
        )
        assert not shop.path("disk").exists()
        assert image.skipped == (
            "dev/null: a device was left out; every container has the usual ones (and 2 more)",
        )

    def test_bits_that_give_rights_are_taken_away(self, shop: Workshop) -> None:
        image = shop.image(
            member("su", b"x", mode=0o6755),
            hard_link("su2", "su"),
            folder("mail", mode=0o7775, gid=8),
        )
        assert stat.S_IMODE(shop.path("su").stat().st_mode) == 0o755
        assert stat.S_IMODE(shop.path("mail").stat().st_mode) == 0o3775
        assert image.skipped[0] == "/su: its setuid or setgid bit was taken away (and 1 more)"

    def test_attributes_are_kept_that_mean_nothing_to_the_kernel(self, shop: Workshop) -> None:
        capability = b"\x01\x00\x00\x02\xff\xff\xff\xff\x00\x00\x00\x00" + b"\xff" * 8
        headers = {
            "SCHILY.xattr.user.mine": "yes",
            "SCHILY.xattr.user.overlay.opaque": "y",
            "SCHILY.xattr.trusted.overlay.opaque": "y",
            "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
            "SCHILY.xattr.security.selinux": "x",
            "SCHILY.xattr.system.posix_acl_access": "x",
        }
        image = shop.image(member("x", b"1", pax_headers=headers))
        assert os.listxattr(shop.path("x")) == ["user.mine"]
        assert len(image.skipped) == 5

    def test_owners_that_no_container_has_become_nobody(self, shop: Workshop) -> None:
        members = [member("x", uid=65536), member("y", gid=2**31), member("z", uid=-5)]
        line = shop.upload(tarred(members, form=tarfile.GNU_FORMAT))
        assert "owner" in shop.done(line).skipped[0]
        assert (shop.path("x").stat().st_uid, shop.path("y").stat().st_gid) == (65534, 65534)
        assert shop.path("z").stat().st_uid == 65534

    def test_times_that_no_file_can_have_are_no_trouble(self, shop: Workshop) -> None:
        members = [member("x", mtime=2**62), member("y", mtime=-(2**40))]
        shop.done(shop.upload(tarred(members, form=tarfile.GNU_FORMAT)))
        assert shop.path("y").stat().st_mtime == 0

    def test_mount_points_are_true_folders_and_files(self, shop: Workshop) -> None:
        outside = str(shop.canary)
        image = shop.image(
            symlink("proc", outside),
            symlink("sys", "/"),
            member("dev", b"a file"),
            symlink("run", "../../.."),
            symlink("tmp", "proc"),
            symlink("etc", f"{outside}/deep"),
        )
        for name in ("proc", "sys", "dev", "run", "tmp", "etc"):
            assert shop.path(name).is_dir()
            assert not shop.path(name).is_symlink()
        assert len(image.skipped) == 1
        assert "(and 5 more)" in image.skipped[0]

    def test_mounted_files_are_no_links(self, shop: Workshop) -> None:
        shop.image(
            symlink("etc/resolv.conf", str(shop.canary / "file")),
            folder("etc/hosts"),
            member("etc/hosts/a", b"1"),
            member("etc/hostname", b"mine"),
        )
        assert shop.path("etc/resolv.conf").lstat().st_mode == stat.S_IFREG | 0o644
        assert shop.path("etc/hosts").is_file()
        assert shop.path("etc/hostname").read_bytes() == b"mine"


class TestReplacing:
    def test_later_entries_take_the_place_of_earlier_ones(self, shop: Workshop) -> None:
        outside = str(shop.canary)
        shop.image(
            folder("a"),
            member("a/b/c", b"1"),
            member("a", b"file over folder"),
            symlink("l", outside),
            folder("l", mode=0o711),
            member("l/file", b"folder over link"),
            member("f", b"1"),
            folder("f"),
            member("f/x", b"folder over file"),
            symlink("s", f"{outside}/file"),
            member("s", b"file over link", mode=0o600),
            hard_link("h", "s"),
            member("h", b"file over hard link"),
            folder("m", mtime=9),
            member("m/x", b"1"),
            symlink("t", "m/x"),
            symlink("m/x", outside),
        )
        assert shop.path("a").read_bytes() == b"file over folder"
        assert shop.path("l/file").read_bytes() == b"folder over link"
        assert shop.path("f/x").read_bytes() == b"folder over file"
        assert shop.path("s").read_bytes() == b"file over link"
        assert shop.path("h").read_bytes() == b"file over hard link"
        assert shop.path("m").stat().st_mtime == 9

    def test_a_file_is_no_folder(self, shop: Workshop) -> None:
        assert "no folder" in shop.refused(member("a", b"1"), member("a/b", b"2"))

    def test_the_root_is_a_folder(self, shop: Workshop) -> None:
        for number, way in enumerate((symlink("./", str(shop.canary)), member(".", b"x"))):
            assert "root" in Workshop(shop.place / str(number)).refused(way)
        assert "hard link" in shop.refused(hard_link("x", "."))


class TestMuch:
    def test_more_bytes_than_allowed_are_refused(self, shop: Workshop) -> None:
        said = shop.refused(
            *(member(f"f{n}", b"x" * 300_000) for n in range(10)), limits={"bytes": 1_000_000}
        )
        assert "more than 977 KiB" in said
        assert shop.used() < 1_100_000

    def test_more_entries_than_allowed_are_refused(self, shop: Workshop) -> None:
        said = shop.refused(*(member(f"{n}") for n in range(101)), limits={"entries": 100})
        assert "more than 100 entries" in said

    def test_a_bomb_of_zeros_is_refused_and_takes_no_disk(self, shop: Workshop) -> None:
        bomb = tarred([member("zeros", bytes(200_000_000))], "w:gz")
        assert len(bomb) < 300_000
        line = shop.upload(bomb, limits={"bytes": 100_000_000})
        assert line.status == 400
        assert shop.used() < 100_000
        image = shop.done(Workshop(shop.place / "b").upload(bomb))
        assert image.size == 200_000_000

    def test_zeros_are_holes(self, shop: Workshop) -> None:
        shop.image(member("zeros", bytes(20_000_000)), mode="w:gz")
        assert shop.path("zeros").stat().st_size == 20_000_000
        assert shop.used() < 100_000

    def test_a_bomb_that_becomes_no_file_is_refused(self, shop: Workshop) -> None:
        bomb = tarred([member("x", bytes(50_000_000), type=b"Z")], "w:gz")
        line = shop.upload(bomb, limits={"bytes": 1_000_000, "entries": 10})
        assert "more than" in (line.error or "")

    def test_a_bomb_within_bombs_is_refused(self, shop: Workshop) -> None:
        raw = b"".join(gzip.compress(bytes(1_000_000)) for _ in range(60))
        head = tarred([member("x", b"1")])[:1024]
        line = shop.upload(
            gzip.compress(head) + gzip.compress(bytes(1024)) + raw,
            limits={"bytes": 1_000_000, "entries": 10},
        )
        assert "more than" in (line.error or "")


def test_the_last_look_makes_harmless_what_came_by_other_ways(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    for name, mode in (("su", 0o4755), ("wall", 0o2755), ("ping", 0o755), ("ls", 0o755)):
        (root / "bin" / name).write_bytes(b"12345")
        os.chown(root / "bin" / name, 0, 5)
        (root / "bin" / name).chmod(mode)
    capability = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
    os.setxattr(root / "bin" / "ping", "security.capability", capability)
    os.link(root / "bin" / "ls", root / "ls")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "white", stat.S_IFCHR, 0)
    os.mknod(root / "disk", stat.S_IFBLK | 0o666, os.makedev(8, 0))
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    assert len(dangers(root)) == 7
    notes = Notes()
    found = survey(notes, os.fsencode(root))
    assert not dangers(root)
    assert (found.size, found.entries) == (20, 8)
    assert (root / "bin" / "su").stat().st_gid == 5
    assert len(notes.told()) == 2
