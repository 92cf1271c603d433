"""
Peers that vanish without a word: no FIN, no reset, packets lost from one
moment on. Sixty seconds by default; here the setting makes two of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.networks import Cable, cable
from tests.support.server import TWISTD

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"
    ),
]

TIMEOUT = 2
# The setting, a round of looks, and what a busy machine takes.
PATIENCE = TIMEOUT * 2 + 4


@pytest.fixture
def net(tmp_path: Path, mover: str) -> Iterator[Net]:
    with cable() as made:
        net = Net(made, tmp_path, mover)
        try:
            yield net
        finally:
            net.stop()


class Net:
    """A server on one end; what runs here looks at it from its own side."""

    def __init__(self, made: Cable, tmp_path: Path, *options: str) -> None:
        self.cable = made
        self.url = f"http://{made.address}:8080/api/v1/pipe"
        self.started: list[subprocess.Popen[bytes]] = []
        self.start(
            made.server,
            TWISTD,
            "-n",
            "--pidfile=",
            "hoody",
            f"--listen=tcp:8080:interface={made.address}",
            "--listen=tcp:8081:interface=127.0.0.1",
            "--pipe-auth=open",
            f"--data-dir={tmp_path / 'data'}",
            f"--peer-timeout={TIMEOUT}",
            *options,
        )
        deadline = time.monotonic() + 20
        while self.look() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def start(self, namespace: str, *command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def here(self, *command: str) -> subprocess.Popen[bytes]:
        """Runs beside the server, where the cable does not matter."""
        return self.start(self.cable.server, *command)

    def there(self, *command: str) -> subprocess.Popen[bytes]:
        return self.start(self.cable.client, *command)

    def look(self) -> dict[str, int] | None:
        """The server's own counts."""
        command = ["ip", "netns", "exec", self.cable.server, "curl", "-s"]
        answer = subprocess.run(
            [*command, "http://127.0.0.1:8081/health"], capture_output=True, check=False
        )
        if answer.returncode != 0:
            return None
        parts = json.loads(answer.stdout)["parts"]
        return {**parts["pipes"], **parts["reactor"]}

    def wait_until(self, key: str, number: int, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while (counts := self.look() or {}).get(key) != number:
            assert time.monotonic() < deadline, counts
            time.sleep(0.1)

    def stop(self) -> None:
        for process in reversed(self.started):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def test_a_waiting_receiver_that_vanishes_frees_its_place(net: Net) -> None:
    net.there("curl", "-s", f"{net.url}/a")
    net.wait_until("waiting", 1)
    net.cable.pull()
    net.wait_until("waiting", 0, PATIENCE)


def test_a_waiting_sender_that_vanishes_frees_its_place(net: Net) -> None:
    net.there("sh", "-c", f"yes | curl -sN -T - {net.url}/a")
    net.wait_until("waiting", 1)
    net.cable.pull()
    net.wait_until("waiting", 0, PATIENCE)


def test_a_sender_that_vanishes_breaks_its_receiver(net: Net) -> None:
    receiver = net.here("curl", "-s", "-o", "/dev/null", f"{net.url}/a")
    net.wait_until("waiting", 1)
    net.there("sh", "-c", f"(echo begin; sleep 60) | curl -sN -T - {net.url}/a")
    net.wait_until("running", 1)
    net.cable.pull()
    assert receiver.wait(PATIENCE) == 18
    net.wait_until("running", 0)


def test_a_receiver_that_vanishes_while_bytes_flow_ends_the_sender(net: Net) -> None:
    net.there("curl", "-s", "-o", "/dev/null", "--limit-rate", "1M", f"{net.url}/a")
    net.wait_until("waiting", 1)
    sender = net.here("sh", "-c", f"cat /dev/zero | curl -sN -T - {net.url}/a")
    net.wait_until("running", 1)
    time.sleep(0.5)
    net.cable.pull()
    assert sender.wait(PATIENCE) != 0
    assert sender.stdout is not None
    told = sender.stdout.read()
    assert f"it has not answered for {TIMEOUT} s".encode() in told
    assert b"[ERROR] The receiver broke off" in told


def test_a_receiver_that_vanishes_with_its_window_closed_is_found_too(net: Net) -> None:
    receiver = net.there("sh", "-c", f"curl -s {net.url}/a | sleep 60")
    net.wait_until("waiting", 1)
    sender = net.here("sh", "-c", f"cat /dev/zero | curl -sN -T - {net.url}/a")
    net.wait_until("running", 1)
    time.sleep(3 * TIMEOUT)
    assert receiver.poll() is None
    assert (net.look() or {})["running"] == 1, "it lives, and merely does not read"
    net.cable.pull()
    assert sender.wait(PATIENCE) != 0
    net.wait_until("running", 0)


def test_others_go_on_when_one_of_three_vanishes(net: Net) -> None:
    others = [net.here("curl", "-s", "-o", "/dev/null", f"{net.url}/a?n=3") for _ in range(2)]
    net.there("curl", "-s", "-o", "/dev/null", f"{net.url}/a?n=3")
    net.wait_until("waiting", 3)
    # Long enough to be found, and then to go on.
    feed = "for i in $(seq 16); do head -c 1M /dev/zero; sleep 0.5; done"
    sender = net.here("sh", "-c", f"({feed}) | curl -sN -T - '{net.url}/a?n=3'")
    net.wait_until("running", 1)
    net.cable.pull()
    assert [other.wait(60) for other in others] == [0, 0]
    assert sender.stdout is not None
    told = sender.stdout.read()
    assert b"; 2 left.\n" in told
    assert b"[ERROR] Only 2 of 3 receivers got everything.\n" in told
