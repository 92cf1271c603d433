"""What we lean on of pipe(7), splice(2) and tee(2)."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hoody.protocols import kernelpipes
from hoody.protocols.kernelpipes import LEAST, MEMORY, MOST, KernelPipe, KernelPipes

pytestmark = pytest.mark.skipif(kernelpipes.lack() is not None, reason="the kernel cannot")


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def pipes() -> Iterator[KernelPipes]:
    pipes = KernelPipes(MEMORY, 1000)
    yield pipes
    assert (pipes.memory, pipes.pipes, pipes.open) == (MEMORY, 1000, 0)


def test_bytes_go_in_and_out_in_order_and_are_counted(
    pipes: KernelPipes, sockets: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = sockets
    taken = pipes.take(3)
    theirs.send(b"world")
    taken[0].put(b"hello ")
    assert taken[0].fill(ours.fileno(), 100) == 5
    for pipe in taken[1:]:
        taken[0].copy_to(pipe)
    assert [pipe.level for pipe in taken] == [11, 11, 11]
    taken[0].drain(ours.fileno())
    assert theirs.recv(100) == b"hello world"
    assert taken[1].read() == taken[2].read() == b"hello world"
    assert [pipe.level for pipe in taken] == [0, 0, 0]
    pipes.give_back(taken)


def test_some_can_be_read_and_the_rest_moved_and_looked_at(pipes: KernelPipes) -> None:
    first, second = pipes.take(2)
    first.put(b"framing and data")
    assert first.read(7) == b"framing"
    assert first.move_to(second, 5) == 5
    assert first.peek() == b"data"
    assert first.read() == b"data"
    assert second.peek() == second.read() == b" and "
    assert first.peek() == b""
    pipes.give_back([first, second])


def test_a_full_pipe_takes_no_more_and_nothing_is_lost(pipes: KernelPipes) -> None:
    first, second = pipes.take(2)
    while second.level < second.capacity:
        second.put(b"x" * 4096)
    first.put(b"data")
    with pytest.raises(BlockingIOError):
        second.put(b"x")
    with pytest.raises(BlockingIOError):
        first.move_to(second, 4)
    assert first.read() == b"data"
    pipes.give_back([first, second])


def test_nothing_there_and_the_end_are_told_apart(
    pipes: KernelPipes, sockets: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = sockets
    (pipe,) = pipes.take(1)
    with pytest.raises(BlockingIOError):
        pipe.fill(ours.fileno(), 10)
    theirs.close()
    with pytest.raises(EOFError):
        pipe.fill(ours.fileno(), 10)
    pipes.give_back([pipe])


def test_a_pipe_without_a_slot_left_copies_whole_into_an_empty_one(pipes: KernelPipes) -> None:
    """Small packets take a slot each, so it is full long before its capacity is."""
    first, second = pipes.take(2)
    data = os.urandom(MOST)
    server = socket.create_server(("127.0.0.1", 0))
    with (
        server,
        socket.create_connection(server.getsockname()) as theirs,
        server.accept()[0] as ours,
    ):
        ours.setblocking(False)
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        refused = False
        while not refused:
            theirs.send(data[first.level : first.level + 100])
            try:
                first.fill(ours.fileno(), 100)
            except BlockingIOError:
                refused = True
    assert 100 < first.level < MOST
    first.copy_to(second)
    level = first.level
    assert second.read() == first.read() == data[:level]
    pipes.give_back([first, second])


def test_together_they_never_keep_more_than_their_share(pipes: KernelPipes) -> None:
    taken = []
    while more := pipes.take(1):
        taken += more
    assert taken[0].capacity == MOST
    assert taken[-1].capacity == LEAST
    assert sum(pipe.capacity for pipe in taken) <= MEMORY
    assert len(taken) > 100
    assert pipes.take(1) == []
    pipes.give_back(taken)


@pytest.mark.parametrize(
    ("count", "capacity"), [(1, MOST), (4, MOST), (16, MOST // 4), (256, LEAST)]
)
def test_many_receivers_get_smaller_ones_of_one_size(
    pipes: KernelPipes, count: int, capacity: int
) -> None:
    taken = pipes.take(count)
    assert {pipe.capacity for pipe in taken} == {capacity}
    pipes.give_back(taken)


def test_without_room_for_all_there_is_none() -> None:
    assert KernelPipes(MEMORY, 3).take(4) == []
    assert KernelPipes(LEAST - 1, 3).take(1) == []


def test_without_descriptors_there_is_none_and_nothing_is_left(pipes: KernelPipes) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 6, hard))
    try:
        assert pipes.take(8) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


SCRIPT = """
import os
from hoody.protocols.kernelpipes import KernelPipe, KernelPipes
os.setgroups([])
os.setresuid(65534, 65534, 65534)
held = [KernelPipe.open(1 << 20) for _ in range(70)]
assert held[-1].capacity < 1 << 16, held[-1].capacity
pipes = KernelPipes(64 << 20, 1000)
print(pipes.take(2), pipes.open, pipes.memory)
"""


@pytest.mark.needs_root
def test_a_user_who_has_had_enough_of_the_kernel_s_memory_gets_none() -> None:
    """The limit is /proc/sys/fs/pipe-user-pages-soft; root has none."""
    command = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stdout == f"[] 0 {64 << 20}\n", run.stderr


def test_one_can_be_closed_with_bytes_in_it() -> None:
    pipe = KernelPipe.open(LEAST)
    pipe.put(b"abc")
    pipe.close()
