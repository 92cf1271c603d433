"""What we lean on of SO_RCVLOWAT, and of what a transport keeps."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.task import Clock

from hoody.protocols.coalescing import BULK, LOW_WATER, LULL, Coalescing
from hoody.protocols.promptness import Promptness

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends of a TCP connection; the first is ours."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def low_water(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


def readable(sock: socket.socket) -> bool:
    poll = select.epoll()
    with poll:
        poll.register(sock, select.EPOLLIN)
        return bool(poll.poll(0.2))


def test_the_kernel_wakes_nobody_below_the_low_water_mark_but_at_the_end(pair: Pair) -> None:
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1000)
    theirs.send(b"x" * 999)
    assert not readable(ours)
    assert ours.recv(10) == b"x" * 10
    theirs.send(b"x" * 11)
    assert readable(ours)
    assert len(ours.recv(2000)) == 1000
    theirs.send(b"x")
    theirs.close()
    assert readable(ours)


def test_the_mark_is_raised_while_much_comes_and_only_then(pair: Pair) -> None:
    ours, _ = pair
    clock = Clock()
    coalescing = Coalescing(ours, clock.callLater)
    coalescing.passed(BULK - 1)
    assert low_water(ours) == 1
    coalescing.passed(BULK)
    assert low_water(ours) == LOW_WATER
    for _ in range(5):
        coalescing.passed(LOW_WATER)
        clock.advance(LULL)
        assert low_water(ours) == LOW_WATER
    coalescing.passed(LOW_WATER - 1)
    clock.advance(LULL)
    assert low_water(ours) == 1
    assert not clock.getDelayedCalls()


def test_bytes_below_the_mark_wait_for_two_looks_at_most(pair: Pair) -> None:
    ours, theirs = pair
    clock = Clock()
    coalescing = Coalescing(ours, clock.callLater)
    coalescing.passed(LOW_WATER)
    coalescing.passed(LOW_WATER)
    theirs.send(b"the last of it, for now")
    for _ in range(2):
        assert not readable(ours)
        clock.advance(LULL)
    assert readable(ours)


@pytest.mark.parametrize("closed", [False, True])
def test_in_the_end_nothing_is_left_of_it(pair: Pair, closed: bool) -> None:
    ours, _ = pair
    clock = Clock()
    coalescing = Coalescing(ours, clock.callLater)
    coalescing.passed(BULK)
    if closed:
        ours.close()
    coalescing.end()
    coalescing.end()
    assert not clock.getDelayedCalls()
    if not closed:
        assert low_water(ours) == 1


class Descriptor(FileDescriptor):
    """A transport over one end of C{pair}."""

    connected = 1

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.sock = sock

    def getHandle(self) -> socket.socket:
        return self.sock

    def startWriting(self) -> None:
        """There is no reactor here."""


def test_what_can_be_sent_is_sent_at_once(pair: Pair) -> None:
    ours, theirs = pair
    assert Promptness(Descriptor(ours)).write((b"5\r\n", b"hello", b"\r\n")) == ()
    assert theirs.recv(100) == b"5\r\nhello\r\n"


def test_what_was_written_before_goes_before(pair: Pair) -> None:
    ours, _ = pair
    descriptor = Descriptor(ours)
    descriptor.write(b"first")
    assert Promptness(descriptor).write((b"then", b"this")) == (b"then", b"this")


def test_what_the_kernel_does_not_take_is_given_back_in_order(pair: Pair) -> None:
    ours, theirs = pair
    pieces = tuple(bytes([number]) * 1_000_000 for number in range(20))
    rest = Promptness(Descriptor(ours)).write(pieces)
    assert rest
    ours.shutdown(socket.SHUT_WR)
    sent = b"".join(iter(lambda: theirs.recv(1_000_000), b""))
    assert sent + b"".join(rest) == b"".join(pieces)


def test_a_connection_that_is_gone_is_left_to_the_transport(pair: Pair) -> None:
    ours, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    promptness = Promptness(Descriptor(ours))
    promptness.write((b"x",))
    assert promptness.write((b"y",)) == (b"y",)
