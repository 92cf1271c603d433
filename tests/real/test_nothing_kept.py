"""Bytes are in flight, never at rest."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.support.server import Server

MARK = f"neither here nor there {os.getpid()}"  # of nobody else on this machine
MIB = 1 << 20


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(300 * MIB, id="300 MiB"),
        pytest.param(8192 * MIB, id="8 GiB", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_memory_stays_flat_and_no_byte_is_found_on_disk(
    tmp_path: Path, name: str, mover: str, size: int, framing: str
) -> None:
    with Server(tmp_path / "data", mover) as server:
        _warm_up(server)
        stamp = tmp_path / "stamp"
        stamp.touch()
        server.forget_peak()
        before = server.resident("VmRSS")
        receiver = subprocess.Popen(
            f"curl -sS {server.pipe}/{name} | tail -c 1000000 | sha256sum",
            shell=True,
            stdout=subprocess.PIPE,
        )
        server.waiting(1)
        length = f"-H 'Content-Length: {size}' -H 'Transfer-Encoding:'" * (framing == "length")
        sender = subprocess.Popen(
            f"yes '{MARK}' | head -c {size} | curl -sS {length} -T - {server.pipe}/{name}",
            shell=True,
            stdout=subprocess.PIPE,
        )
        server.wait_until(lambda counts: counts.running == 1)
        time.sleep(1)
        assert _files_with_the_mark(server, stamp) == []
        told = sender.communicate()[0]
        digest = receiver.communicate()[0]
        assert told.endswith(b"[INFO] Transfer complete.\n")
        assert digest == subprocess.check_output(
            f"yes '{MARK}' | head -c {size} | tail -c 1000000 | sha256sum", shell=True
        )
        assert server.resident("VmHWM") - before <= 8 * MIB
        assert _files_with_the_mark(server, stamp) == []


def _warm_up(server: Server) -> None:
    """Let the allocator have what it takes for one transfer of any size."""
    receiver = subprocess.Popen(["curl", "-sS", "-o", "/dev/null", f"{server.pipe}/warm"])
    server.waiting(1)
    line = f"head -c 20M /dev/zero | curl -sS -T - {server.pipe}/warm"
    subprocess.run(line, shell=True, check=True, capture_output=True)
    receiver.wait()


def _files_with_the_mark(server: Server, stamp: Path) -> list[str]:
    """
    Files with bytes of the body: written since C{stamp} where temporary files
    go or where the server keeps its own, or open in the server, deleted or not.
    """
    folders = [str(server.data_dir), tempfile.gettempdir(), "/var/tmp"]
    find = ["find", *folders, "-xdev", "-type", "f", "-newer", str(stamp)]
    candidates = subprocess.run(find, capture_output=True, check=False).stdout.decode().split("\n")
    opened = Path(f"/proc/{server.pid}/fd")
    candidates += [str(fd) for fd in opened.iterdir() if _is_file(fd)]
    found = []
    for candidate in filter(None, candidates):
        grep = subprocess.run(["grep", "-qF", MARK, candidate], check=False, capture_output=True)
        if grep.returncode == 0:
            found.append(candidate)
    return found


def _is_file(descriptor: Path) -> bool:
    try:
        return os.readlink(descriptor).startswith("/") and descriptor.is_file()
    except OSError:
        return False
