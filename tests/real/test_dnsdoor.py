"""
Names, asked for inside a network namespace that plays a container, answered by a resolver
on loopback in another that plays the host.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from attrs import define, field
from twisted.names.dns import A, Message, Query, Record_A, RRHeader

from hoody.containers.network.questions import REFUSED, SERVER_FAILURE
from hoody.containers.network.resolvers import framed, unframed
from tests.support.namespaces import Broken, Namespace, Server

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"
    ),
]

RESOLVER, SECOND_RESOLVER = "127.0.0.53", "127.0.0.54"
ADDRESS = "93.184.216.34"
DOOR = ("127.0.0.1", 53)

Reply = Callable[[Message, bool], list[bytes]]


def answered(message: Message, *addresses: str, code: int = 0, cut: bool = False) -> bytes:
    made = Message(id=message.id, answer=1, recDes=1, recAv=1, rCode=code, trunc=cut, maxSize=0)
    made.queries = message.queries
    name = message.queries[0].name.name
    made.answers = [RRHeader(name, A, payload=Record_A(address)) for address in addresses]
    return bytes(made.toStr())


def truthful(message: Message, tcp: bool) -> list[bytes]:
    return [answered(message, ADDRESS)]


class Resolver:
    """Answers as it is told to, by UDP and TCP."""

    def __init__(self, host: Namespace, address: str = RESOLVER) -> None:
        self.reply: Reply = truthful
        self.asked: list[tuple[str, bool]] = []
        self.ports: list[int] = []
        self._udp = host.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._udp.bind((address, 53))
        self._tcp = host.do(lambda: socket.create_server((address, 53)))
        self._connections: list[socket.socket] = []
        self._end, self._told = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        sources = [self._udp.fileno(), self._tcp.fileno(), self._end]
        while self._end not in (ready := select.select(sources, [], [])[0]):
            if self._udp.fileno() in ready:
                data, sender = self._udp.recvfrom(65535)
                self.ports.append(sender[1])
                for one in self._replies(data, tcp=False):
                    with contextlib.suppress(OSError):
                        self._udp.sendto(one, sender)
            if self._tcp.fileno() in ready:
                connection, _ = self._tcp.accept()
                self._connections.append(connection)
                connection.settimeout(5)
                with contextlib.suppress(EOFError, OSError):  # of a test that is over
                    for one in self._replies(read_framed(connection), tcp=True):
                        connection.sendall(framed(one))

    def _replies(self, data: bytes, *, tcp: bool) -> list[bytes]:
        message = Message()
        message.fromStr(data)
        self.asked.append((str(message.queries[0].name), tcp))
        return self.reply(message, tcp)

    def forget(self) -> None:
        self.reply = truthful
        self.asked.clear()
        self.ports.clear()

    def close(self) -> None:
        os.write(self._told, b"x")
        self._thread.join()
        os.close(self._end)
        os.close(self._told)
        for one in (self._udp, self._tcp, *self._connections):
            one.close()


def read_framed(connection: socket.socket, read: bytearray | None = None) -> bytes:
    """@param read: what was read before, and is kept for the next time."""
    read = bytearray() if read is None else read
    while (message := unframed(read)) is None:
        data = connection.recv(65536)
        if not data:
            raise EOFError
        read += data
    return message


@define
class Net:
    host: Namespace
    container: Namespace
    server: Server
    resolver: Resolver
    resolv_conf: Path
    more: list[Resolver] = field(factory=list)

    def udp(self) -> socket.socket:
        made = self.container.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.settimeout(8)
        made.connect(DOOR)
        return made

    def tcp(self) -> socket.socket:
        return self.container.do(lambda: socket.create_connection(DOOR, 8))

    def descriptors(self, at_most: int = 0) -> int:
        """How many the server has open; when there are no more than that, or too long."""
        end = time.monotonic() + 2
        while True:
            found = int(self.server.do("busy")[1])
            if found <= at_most or not at_most or time.monotonic() > end:
                return found
            time.sleep(0.01)

    def ask(self, data: bytes, *, tcp: bool = False) -> Message:
        with self.tcp() if tcp else self.udp() as sock:
            sock.sendall(framed(data) if tcp else data)
            answer = read_framed(sock) if tcp else sock.recv(65535)
        message = Message()
        message.fromStr(answer)
        return message


def question(name: str = "example.org", number: int = 4711, kind: int = A) -> bytes:
    made = Message(id=number, recDes=1)
    made.queries = [Query(name.encode(), kind)]
    return bytes(made.toStr())


def addresses(message: Message) -> list[str]:
    return [cast(Record_A, answer.payload).dottedQuad() for answer in message.answers]


@pytest.fixture(scope="module")
def host_and_container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    resolv_conf = tmp_path_factory.mktemp("host") / "resolv.conf"
    host, container = Namespace.make(), Namespace.make()
    server = Server(host, [container.descriptor], resolv_conf=str(resolv_conf))
    made = Net(host, container, server, Resolver(host), resolv_conf)
    try:
        # With its first port Twisted opens a descriptor that it keeps, for when there are no more.
        server.do("open_door", container.descriptor, 1)
        server.do("close_door", 1)
        yield made
    finally:
        made.resolver.close()
        made.server.stop()
        host.close()
        container.close()


@pytest.fixture
def net(host_and_container: Net) -> Iterator[Net]:
    """The door is new for each test, and nothing may be left of it."""
    made = host_and_container
    made.resolv_conf.write_text(f"nameserver {RESOLVER}\n")
    made.resolver.forget()
    before = made.descriptors()
    made.server.do("open_door", made.container.descriptor, 1)
    try:
        yield made
        made.server.do("close_door", 1)
        assert made.descriptors(before) <= before
    finally:
        for resolver in made.more:
            resolver.close()
        made.more.clear()


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_names_are_resolved(net: Net, tcp: bool) -> None:
    for number in (1, 65535):
        answer = net.ask(question("example.org", number), tcp=tcp)
        assert answer.id == number
        assert addresses(answer) == [ADDRESS]
    assert net.resolver.asked == [("example.org", tcp)] * 2


def test_a_truncated_answer_is_asked_for_again_by_tcp(net: Net) -> None:
    many = [f"93.184.{number >> 8}.{number & 255}" for number in range(900)]

    def reply(message: Message, tcp: bool) -> list[bytes]:
        return [answered(message, *many)] if tcp else [answered(message, cut=True)]

    net.resolver.reply = reply
    assert net.ask(question()).trunc == 1
    assert addresses(net.ask(question(), tcp=True)) == many


def test_a_stream_brings_many_answers_in_their_order(net: Net) -> None:
    with net.tcp() as sock:
        sock.sendall(b"".join(framed(question(f"host{n}.example", n)) for n in range(50)))
        read = bytearray()
        for number in range(50):
            assert int.from_bytes(read_framed(sock, read)[:2], "big") == number


def test_what_is_not_the_answer_is_not_believed(net: Net) -> None:
    def reply(message: Message, tcp: bool) -> list[bytes]:
        wrong = Message(id=message.id, answer=1)
        wrong.queries = [Query(b"elsewhere.example", A)]
        other = Message(id=message.id ^ 1, answer=1)
        other.queries = message.queries
        garbage = [b"", b"\0", b"\xff" * 400, bytes(wrong.toStr()), bytes(other.toStr())]
        return [*garbage, answered(message, ADDRESS)]

    net.resolver.reply = reply
    assert addresses(net.ask(question())) == [ADDRESS]


def test_garbage_from_inside_is_not_answered_and_does_no_harm(net: Net) -> None:
    with net.udp() as sock:
        for garbage in (b"", b"x", bytes(11), b"\xff" * 512, os.urandom(4000), bytes(60000)):
            with contextlib.suppress(OSError):
                sock.send(garbage)
    for garbage in (b"\0\0", b"\xff\xff", b"\0\5hello", framed(b"\xff" * 100), b"\0"):
        with net.tcp() as sock:
            sock.sendall(garbage)
            if garbage != b"\0":
                with contextlib.suppress(ConnectionResetError):
                    assert sock.recv(100) == b""
    assert addresses(net.ask(question())) == [ADDRESS]
    assert net.resolver.asked == [("example.org", False)]


def test_whole_zones_are_not_handed_out(net: Net) -> None:
    assert net.ask(question(kind=252), tcp=True).rCode == REFUSED
    assert net.resolver.asked == []


def test_nobody_can_foresee_the_numbers_we_ask_with(net: Net) -> None:
    seen = []

    def reply(message: Message, tcp: bool) -> list[bytes]:
        seen.append(message.id)
        return truthful(message, tcp)

    net.resolver.reply = reply
    for _ in range(20):
        net.ask(question(number=1))
    assert len(set(seen)) > 15
    assert len(set(net.resolver.ports)) > 15


def test_a_silent_resolver_comes_to_an_end(net: Net) -> None:
    net.resolver.reply = lambda message, tcp: []
    before = net.descriptors()
    began = time.monotonic()
    assert net.ask(question()).rCode == SERVER_FAILURE
    assert 2 < time.monotonic() - began < 4
    assert len(net.resolver.asked) == 3
    assert net.descriptors(before) == before


def test_no_resolver_at_all_is_told_at_once(net: Net) -> None:
    net.resolv_conf.write_text("nameserver 127.0.0.77\n")
    for tcp in (False, True):
        began = time.monotonic()
        assert net.ask(question(), tcp=tcp).rCode == SERVER_FAILURE
        assert time.monotonic() - began < 0.6


def test_the_next_resolver_is_asked_and_remembered(net: Net) -> None:
    net.resolver.reply = lambda message, tcp: []
    net.more.append(Resolver(net.host, SECOND_RESOLVER))
    net.resolv_conf.write_text(f"nameserver {RESOLVER}\nnameserver {SECOND_RESOLVER}\n")
    assert addresses(net.ask(question())) == [ADDRESS]
    began = time.monotonic()
    assert addresses(net.ask(question())) == [ADDRESS]
    assert time.monotonic() - began < 0.6
    assert len(net.resolver.asked) == 1


def test_one_that_cannot_is_not_the_last_word(net: Net) -> None:
    net.resolver.reply = lambda message, tcp: [answered(message, code=REFUSED)]
    assert net.ask(question()).rCode == REFUSED
    net.more.append(Resolver(net.host, SECOND_RESOLVER))
    net.resolv_conf.write_text(f"nameserver {RESOLVER}\nnameserver {SECOND_RESOLVER}\n")
    assert addresses(net.ask(question())) == [ADDRESS]


def flood(net: Net, data: bytes, seconds: float) -> int:
    """From several threads at once; how many were sent."""
    sent = []

    def run() -> None:
        count, end = 0, time.monotonic() + seconds
        with net.udp() as sock:
            while time.monotonic() < end:
                for _ in range(100):
                    with contextlib.suppress(OSError):
                        sock.send(data)
                        count += 1
        sent.append(count)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(sent)


@pytest.mark.parametrize("data", [b"", question()], ids=["empty", "questions"])
def test_a_flood_costs_the_server_next_to_nothing(net: Net, data: bytes) -> None:
    before = net.server.do("busy")
    count = flood(net, data, 0.5)
    after = net.server.do("busy")
    print(f"{count} datagrams took {after[0] - before[0]} ms")
    assert count > 5000
    assert len(net.resolver.asked) <= 400
    assert after[0] - before[0] < 600
    assert after[1] - before[1] <= 64
    time.sleep(0.5)
    assert addresses(net.ask(question())) == [ADDRESS]


def test_connections_are_few_and_do_not_stay(net: Net) -> None:
    before = net.descriptors()
    idle = [net.tcp() for _ in range(16)]
    assert net.descriptors(before + 16) <= before + 16
    assert addresses(net.ask(question())) == [ADDRESS]
    for one in idle:
        one.close()
    assert addresses(net.ask(question(), tcp=True)) == [ADDRESS]
    with net.tcp() as sock:  # asks and does not read
        sock.settimeout(0.2)
        with pytest.raises((TimeoutError, ConnectionError)):
            while True:
                sock.sendall(framed(question()))


def test_it_closes_for_good_and_opens_again(net: Net) -> None:
    net.resolver.reply = lambda message, tcp: []
    before = net.descriptors()
    with net.tcp() as stream, net.udp() as sock:
        stream.sendall(framed(question()))
        sock.send(question())
        while len(net.resolver.asked) < 2:
            time.sleep(0.01)
        net.server.do("close_door", 1)
        with contextlib.suppress(ConnectionResetError):
            assert stream.recv(100) == b""
    assert net.descriptors(before - 1) < before
    with pytest.raises(ConnectionRefusedError):
        net.tcp()
    net.resolver.reply = truthful
    net.server.do("open_door", net.container.descriptor, 1)
    assert addresses(net.ask(question())) == [ADDRESS]


def test_after_a_kill_it_opens_again(net: Net) -> None:
    with net.tcp() as stream:
        stream.sendall(framed(question()))
        read_framed(stream)
        net.server.stop(signal.SIGKILL)
        net.server = Server(net.host, [net.container.descriptor], resolv_conf=str(net.resolv_conf))
        net.server.do("open_door", net.container.descriptor, 1)
    assert addresses(net.ask(question())) == [ADDRESS]


def test_a_taken_port_is_told_and_leaves_nothing_open(net: Net) -> None:
    net.server.do("close_door", 1)
    before = net.descriptors()
    taken = net.container.do(lambda: socket.create_server(DOOR))
    with taken, pytest.raises(Broken, match=r"127\.0\.0\.1 port 53 there: Address already in use"):
        net.server.do("open_door", net.container.descriptor, 1)
    assert net.descriptors(before) == before
    net.server.do("open_door", net.container.descriptor, 1)
