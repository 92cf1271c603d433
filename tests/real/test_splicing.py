"""What is particular to the kernel's mover: when it is chosen, what it takes, who waits for it."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread

import pytest

from tests.support.server import Server
from tests.support.wire import Wire

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """As it comes: its mover is its own choice."""
    with Server(tmp_path_factory.mktemp("splicing") / "data") as server:
        before = server.counts()
        yield server
        server.settle(before)


def moved(server: Server, name: str) -> dict[str, int]:
    """The event that says how much went how."""
    return server.wait_for(lambda event: event.get("path") == name and "spliced" in event)


def transfer(server: Server, name: str, size: int, *options: str, receive: str = "-s") -> None:
    source = ["head", "-c", str(size), "/dev/zero"]
    receiver = subprocess.Popen(
        [
            "curl",
            "-sS",
            receive,
            "-o",
            "/dev/null",
            "-w",
            "%{size_download}",
            f"{server.pipe}/{name}",
        ],
        stdout=subprocess.PIPE,
    )
    with subprocess.Popen(source, stdout=subprocess.PIPE) as zeros:
        command = ["curl", "-sS", *(options or ("-T", "-")), f"{server.pipe}/{name}"]
        subprocess.run(command, stdin=zeros.stdout, check=True, capture_output=True)
    assert receiver.communicate()[0] == b"%d" % size


def test_the_kernel_moves_nearly_all_of_a_chunked_body(server: Server, name: str) -> None:
    transfer(server, name, 40 * MIB)
    assert moved(server, name)["spliced"] > 32 * MIB


def test_and_of_one_with_a_length(server: Server, name: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as sparse:
        sparse.truncate(40 * MIB)
    transfer(server, name, 40 * MIB, "-T", str(file))
    assert moved(server, name)["spliced"] > 39 * MIB


def test_a_small_body_is_not_worth_it(server: Server, name: str) -> None:
    transfer(server, name, 100_000)
    assert moved(server, name)["spliced"] == 0


@pytest.mark.parametrize("old", ["sender", "receiver"])
def test_http_1_0_is_not_for_it(server: Server, name: str, tmp_path: Path, old: str) -> None:
    file = tmp_path / "file"
    with file.open("wb") as sparse:
        sparse.truncate(MIB)
    options = ["-T", str(file), *(["-0"] if old == "sender" else [])]
    transfer(server, name, MIB, *options, receive="-0" if old == "receiver" else "-s")
    assert moved(server, name)["spliced"] == 0


@pytest.mark.parametrize(
    "options", [["-F", "file=@-;filename=x"], ["-T", "-", "--url-query", "digest=sha256"]]
)
def test_nor_is_a_body_that_we_must_see(server: Server, name: str, options: list[str]) -> None:
    transfer(server, name, MIB, *options)
    assert moved(server, name)["spliced"] == 0


def test_it_can_be_switched_off(tmp_path: Path, name: str) -> None:
    with Server(tmp_path / "data", "--splice=off") as server:
        transfer(server, name, 4 * MIB)
        assert moved(server, name)["spliced"] == 0


def test_a_unix_socket_has_it_too(tmp_path: Path, name: str) -> None:
    path = tmp_path / "socket"
    with Server(tmp_path / "data", f"--listen=unix:{path}") as server:
        transfer(server, name, 4 * MIB, "-T", "-", "--unix-socket", str(path))
        assert moved(server, name)["spliced"] > 2 * MIB


def test_so_has_a_listener_behind_haproxy(tmp_path: Path, name: str) -> None:
    with Server(tmp_path / "data", listen="haproxy:tcp:0:interface=127.0.0.1") as server:
        options = ["-T", "-", "--haproxy-protocol"]
        transfer(server, name, 4 * MIB, *options, receive="--haproxy-protocol")
        assert moved(server, name)["spliced"] > 2 * MIB


def kernel_pipes(server: Server) -> dict[str, int]:
    """Each pipe that the server has open, and its capacity in bytes."""
    capacities = {}
    folder = f"/proc/{server.process.pid}/fd"
    for number in os.listdir(folder):
        target = os.readlink(f"{folder}/{number}")
        if target.startswith("pipe:") and int(number) > 2:
            with open(f"{folder}/{number}", "wb", buffering=0) as pipe:
                capacities[target] = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
    return capacities


def test_kernel_pipes_are_capped_as_a_whole_and_who_gets_none_is_served_all_the_same(
    serve_one: Server, name: str
) -> None:
    before = kernel_pipes(serve_one)
    with ExitStack() as wires:
        running = []
        for number in range(200):
            path = f"{name}-{number}?n={16 if number < 2 else 1}"
            receivers = [
                wires.enter_context(Wire(serve_one)) for _ in range(16 if number < 2 else 1)
            ]
            for receiver in receivers:
                receiver.get(path)
            sender = wires.enter_context(Wire(serve_one)).put(path, "Transfer-Encoding: chunked")
            sender.read_until(b"[INFO] Streaming")
            sender.chunk(b"first")
            for receiver in receivers:
                receiver.read_until(b"first\r\n")
            running.append((sender, receivers))
        taken = [size for pipe, size in kernel_pipes(serve_one).items() if pipe not in before]
        assert 64 < len(taken) < 2 * 200
        assert 48 * MIB < sum(taken) <= 64 * MIB
        assert serve_one.health()["parts"]["pipes"]["kernel_pipes"] == len(taken)
        for sender, receivers in running:
            sender.chunk(b"second").last_chunk()
            for receiver in receivers:
                receiver.read_until(b"second\r\n0\r\n\r\n")


@pytest.fixture
def serve_one(tmp_path: Path) -> Iterator[Server]:
    """A server that splices from the first byte on."""
    with Server(tmp_path / "data", "--splice=0") as server:
        before = server.counts()
        yield server
        server.settle(before)
        assert server.health()["parts"]["pipes"]["kernel_pipes"] == 0


class Greedy:
    """A transfer that takes all it gets. @ivar moved: bytes so far, framing included."""

    def __init__(self, server: Server, name: str) -> None:
        self.moved = 0
        self._receiver = Wire(server).get(name)
        self._sender = Wire(server).put(name, "Content-Length: 1000000000000")
        self._sender.read_until(b"[INFO] Streaming")
        self._threads = [Thread(target=self._send), Thread(target=self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        data = bytes(MIB)
        with suppress(OSError):
            while True:
                self._sender.socket.sendall(data)

    def _receive(self) -> None:
        room = bytearray(MIB)
        with suppress(OSError):
            while count := self._receiver.socket.recv_into(room):
                self.moved += count

    def stop(self) -> None:
        self._sender.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._sender.close()
        self._receiver.close()


def test_a_greedy_transfer_does_not_starve_fifty_slow_ones(server: Server, name: str) -> None:
    rounds = 20
    with ExitStack() as stack:
        pipes = []
        for number in range(50):
            receiver = stack.enter_context(Wire(server)).get(f"{name}-{number}")
            sender = stack.enter_context(Wire(server))
            sender.put(f"{name}-{number}", "Transfer-Encoding: chunked")
            sender.read_until(b"[INFO] Streaming")
            pipes.append((sender, receiver))
        greedy = Greedy(server, name)
        try:
            while greedy.moved < 64 * MIB:
                time.sleep(0.01)
            start = greedy.moved
            for _ in range(rounds):
                for sender, _ in pipes:
                    sender.chunk(b"x")
                for _, receiver in pipes:
                    receiver.read_until(b"x\r\n")
            assert 0 < greedy.moved - start < rounds * 64 * MIB
        finally:
            greedy.stop()
        for sender, receiver in pipes:
            sender.last_chunk()
            receiver.read_until(b"0\r\n\r\n")


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_nothing_is_left_when_one_is_killed_in_full_flow(
    server: Server, name: str, who: str
) -> None:
    before = server.counts()
    zeros = subprocess.Popen(["cat", "/dev/zero"], stdout=subprocess.PIPE)
    receiver = subprocess.Popen(["curl", "-sN", "-o", "/dev/null", f"{server.pipe}/{name}"])
    sender = subprocess.Popen(
        ["curl", "-sN", "-T", "-", f"{server.pipe}/{name}"],
        stdin=zeros.stdout,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while not server.health()["parts"]["pipes"]["kernel_pipes"]:
            assert time.monotonic() < deadline
        time.sleep(0.5)
        (sender if who == "sender" else receiver).kill()
        event = moved(server, name)
        assert event["spliced"] > 0
        assert event["error"]
        server.settle(before)
    finally:
        for process in (sender, receiver, zeros):
            process.kill()
            process.wait()
    assert server.health()["parts"]["pipes"]["kernel_pipes"] == 0
