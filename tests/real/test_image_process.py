"""The process that makes images: its walls, its end, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hoody.containers.images.orders import read_line
from tests.real.test_images import pytestmark as needs_root
from tests.real.test_images import shop
from tests.support.images import PROGRAM, Workshop, member, tarred
from tests.support.layouts import Layout

__all__ = ["shop"]

pytestmark = needs_root

# What an archive could not do if all checks of names were gone.
PRISONER = """
import os, socket, sys
from hoody.containers.images import confinement
canary, into, port = sys.argv[1:]
socket.create_connection(("127.0.0.1", int(port)), 1).close()
file = os.open(canary + "/file", os.O_RDONLY)
confinement.die_with_parent(None)
descriptor = os.open(into, os.O_RDONLY | os.O_DIRECTORY)
confinement.enter(descriptor)
os.write(1, os.pread(file, 100, 0) + b"\\n")
up = "/.." * 50
ways = {
    "absolute": lambda: open(canary + "/file", "w"),
    "dots": lambda: open(up + canary + "/file", "w"),
    "descriptor": lambda: os.open("../canary/file", os.O_WRONLY, dir_fd=descriptor),
    "proc": lambda: os.listdir("/proc/1"),
    "device": lambda: os.mknod("/null", 0o20666, os.makedev(1, 3)),
    "chroot": lambda: os.chroot("/"),
    "unshare": lambda: confinement.unshare(confinement.CLONE_NEWNS),
    "mount": lambda: confinement.mount(None, "/", 32),
    "user": lambda: os.setuid(0),
    "signal": lambda: os.kill(os.getppid(), 0),
    "capability": lambda: os.setxattr("/", "security.capability", bytes(20)),
    "trusted": lambda: os.setxattr("/", "trusted.overlay.opaque", b"y"),
    "network": lambda: socket.create_connection(("127.0.0.1", int(port)), 1),
}
for name, way in ways.items():
    try:
        way()
    except Exception:
        continue
    print("escaped by", name)
names = os.listdir("/")
print(names, [os.path.samestat(os.stat("/"), os.stat("/.."))])
"""


@contextlib.contextmanager
def running(shop: Workshop, order: dict[str, object]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"into": str(shop.into), **order}).encode())
    process.stdin.close()
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def long_upload(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """An archive that takes some time."""
    path = tmp_path_factory.mktemp("long") / "upload"
    head = tarfile.TarInfo("x" * 8)
    with path.open("wb") as file:
        for number in range(40_000):
            head.name = f"{number % 100}/{number}"
            file.write(head.tobuf(tarfile.USTAR_FORMAT))
        file.write(bytes(1024))
    return {"kind": "archive", "file": str(path)}


def first_progress(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert read_line(process.stdout.readline()).progress


def mounts() -> list[str]:
    """But for those of tests that run beside this one."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    own = f"/popen-{os.environ.get('PYTEST_XDIST_WORKER', '')}/"
    return [line for line in lines if "/popen-gw" not in line or own in line]


def ends(pid: int) -> bool:
    """Within some seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [one for child in map(int, children) for one in (child, *descendants(child))]


class TestWalls:
    def test_there_is_no_way_out_even_without_checks(self, shop: Workshop) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            places = [str(shop.canary), str(shop.into), str(server.getsockname()[1])]
            said = subprocess.run(
                [sys.executable, "-c", PRISONER, *places],
                capture_output=True,
                text=True,
                check=False,
            )
        assert said.stdout == "as it was\n[] [True]\n", said.stderr

    def test_while_it_unpacks_it_has_nothing_else(
        self, shop: Workshop, long_upload: dict[str, object]
    ) -> None:
        with running(shop, long_upload) as process:
            first_progress(process)
            process.send_signal(signal.SIGSTOP)
            proc = Path(f"/proc/{process.pid}")
            status = dict(
                line.split(":\t", 1) for line in (proc / "status").read_text().splitlines()
            )
            for kind in ("CapEff", "CapPrm", "CapBnd"):
                assert int(status[kind], 16) == 0b11011
            for kind in ("CapInh", "CapAmb"):
                assert int(status[kind], 16) == 0
            assert status["NoNewPrivs"].strip() == "1"
            assert set(status["Uid"].split() + status["Gid"].split()) == {"65533"}
            assert not status["Groups"].strip()
            assert len((proc / "mountinfo").read_text().splitlines()) == 1
            for kind in ("mnt", "net", "ipc", "uts"):
                ours, theirs = (
                    os.readlink(f"/proc/self/ns/{kind}"),
                    os.readlink(proc / "ns" / kind),
                )
                assert ours != theirs
            open_files = [os.readlink(path) for path in (proc / "fd").iterdir()]
            assert not any(path.startswith(str(shop.into)) for path in open_files)


class TestEnds:
    def test_a_kill_leaves_nothing_but_a_part(
        self, shop: Workshop, long_upload: dict[str, object]
    ) -> None:
        before = mounts()
        with running(shop, long_upload) as process:
            first_progress(process)
            process.kill()
            process.wait()
            assert process.stdout is not None
            assert b"done" not in process.stdout.read()
        assert mounts() == before
        assert 0 < len(list(shop.everything())) < 40_000

    def test_it_ends_with_its_parent(self, shop: Workshop, long_upload: dict[str, object]) -> None:
        order = json.dumps({"into": str(shop.into), **long_upload})
        code = (
            "import subprocess, sys, time\n"
            f"p = subprocess.Popen({PROGRAM!r}, stdin=subprocess.PIPE)\n"
            "print(p.pid, flush=True)\n"
            f"p.stdin.write({order!r}.encode()); p.stdin.close(); time.sleep(60)\n"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            first_progress(parent)
            parent.kill()
            assert ends(pid)

    def test_it_does_not_begin_for_a_parent_that_is_gone(self, shop: Workshop) -> None:
        raw = json.dumps({"kind": "busybox", "into": str(shop.into), "parent": 2**22 - 1})
        done = subprocess.run(PROGRAM, input=raw.encode(), capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
        assert not os.listdir(shop.into)
        shop.done(shop.run(kind="busybox", parent=os.getpid()))

    @pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
    def test_skopeo_ends_with_it(self, shop: Workshop) -> None:
        before = mounts()
        with socket.create_server(("127.0.0.1", 0)) as silent:
            order: dict[str, object] = {
                "kind": "registry",
                "reference": "registry.test/a",
                "registries": ["registry.test"],
                "rehearsal": {"hosts": {"registry.test": ["127.0.0.1", silent.getsockname()[1]]}},
            }
            with running(shop, order) as process:
                silent.settimeout(20)
                connection, _ = silent.accept()
                known = descendants(process.pid)
                assert any(b"skopeo" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in known)
                process.kill()
                process.wait()
                assert all(ends(pid) for pid in known)
                connection.close()
        assert mounts() == before

    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
    def test_an_upload_that_was_cut_off_is_refused(self, shop: Workshop, mode: str) -> None:
        raw = tarred([member(f"f{n}", os.urandom(2000)) for n in range(20)], mode)
        line = shop.upload(raw[: 512 * (len(raw) // 1024)])
        assert line.status == 400
        assert "cut off" in (line.error or "")

    def test_layers_that_were_cut_off_are_refused(self, shop: Workshop) -> None:
        raw = Layout().add([member("x", os.urandom(100_000))]).archive("w:gz")
        assert "cut off" in (shop.upload(raw[: len(raw) // 2]).error or "")

    @pytest.mark.parametrize("option", ["size=1m", "nr_inodes=30"])
    def test_a_full_disk_is_said(self, shop: Workshop, option: str) -> None:
        with disk(shop.into, option):
            raw = tarred([member(f"f{n}", os.urandom(50_000)) for n in range(40)])
            line = shop.upload(raw)
            assert line.status == 503
            assert "disk for images is full" in (line.error or "")

    def test_a_full_disk_is_said_of_what_is_spooled_too(self, shop: Workshop) -> None:
        raw = Layout().add([member("x", os.urandom(3_000_000))]).archive("w:gz")
        with disk(shop.into, "size=1m"):
            assert shop.upload(raw).status == 503

    def test_what_takes_too_long_is_ended(
        self, shop: Workshop, long_upload: dict[str, object]
    ) -> None:
        line = shop.run(**long_upload, seconds=0.2)
        assert line.status == 503
        assert "longer than 0 s" in (line.error or "")

    def test_memory_has_an_end(self, shop: Workshop) -> None:
        # An xz that asks for a dictionary of 1.5 GiB (xz-file-format, 5.3.1).
        raw = subprocess.run(
            ["xz", "--lzma2=preset=0,dict=1536MiB", "-c"],
            input=tarred([member("x", b"1")]),
            capture_output=True,
            check=False,
        )
        if raw.returncode:
            pytest.skip("needs the memory to make one")
        line = shop.upload(raw.stdout)
        assert line.status == 400
        assert "damaged" in (line.error or "")


@contextlib.contextmanager
def disk(place: Path, options: str) -> Iterator[None]:
    """A small one."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


class TestOrders:
    @pytest.mark.parametrize("raw", [b"", b'{"kind": "archive"}', b"\xff"])
    def test_what_is_no_order_is_answered_all_the_same(self, raw: bytes) -> None:
        done = subprocess.run(PROGRAM, input=raw, capture_output=True, check=False)
        assert done.returncode == 1
        assert "The order is none" in (read_line(done.stdout).error or "")
        assert not done.stderr

    def test_into_must_be_an_empty_folder(self, shop: Workshop) -> None:
        (shop.place / "way").symlink_to(shop.canary)
        for path in (shop.canary, shop.place / "way", "/nowhere"):
            line = shop.run(kind="busybox", into=str(path))
            assert line.status == 500
            assert (line.error or "").startswith("into: ")

    def test_what_a_kind_needs_is_named(self, shop: Workshop) -> None:
        for kind, name in (("archive", "file"), ("layout", "layout"), ("registry", "reference")):
            assert name in (shop.run(kind=kind, registries=["a.b"]).error or "")

    def test_an_upload_that_is_nothing_is_refused(self, shop: Workshop) -> None:
        for number, raw in enumerate((b"", b"hello", os.urandom(5000))):
            line = Workshop(shop.place / str(number)).upload(raw)
            assert line.status == 400


@pytest.mark.long
@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="needs mmdebstrap")
def test_debian_is_made(shop: Workshop) -> None:
    before = mounts()
    image = shop.done(shop.run(kind="debian", packages=["iputils-ping"]))
    assert any("packages" in (line.progress or "") for line in shop.lines)
    assert image.command == ("sleep", "infinity")
    check = "curl --version && test -x /bin/ps && test -e /etc/ssl/certs/ca-certificates.crt"
    subprocess.run(["chroot", shop.into, "sh", "-c", check], check=True, capture_output=True)
    assert shop.path("/etc/resolv.conf").read_bytes() == b""
    assert shop.path("/etc/hostname").read_bytes() == b""
    assert mounts() == before
    line = Workshop(shop.place / "n").run(kind="debian", packages=["no-such-package-anywhere"])
    assert line.status == 400
    assert "no-such-package-anywhere" in (line.error or "")
