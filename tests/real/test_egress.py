"""
What containers reach from inside, in network namespaces of the kernel: one plays the
Internet, one the host, some the containers. The machine's own network is not touched.

What must not be reached is first shown to be there, without our rules.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import statistics
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from attrs import define, field

from tests.support.namespaces import Broken, Namespace, Server

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("nft")),
        reason="needs root, iproute2 and nftables",
    ),
]

PORT = 7000
IP_PKTINFO = 8  # linux/in.h
PUBLIC = ("8.8.8.8", "1.1.1.1")
HOST = "93.184.216.10"
OF_THE_HOST = (HOST, "151.101.1.10", "10.0.0.5")
NEAR = (
    "0.1.2.3",
    "10.9.9.9",
    "100.64.0.9",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.9.9",
    "172.31.255.9",
    "192.0.0.9",
    "192.0.2.9",
    "192.88.99.9",
    "192.168.9.9",
    "198.18.200.9",
    "198.51.100.9",
    "203.0.113.9",
    "240.0.0.9",
)
MORE = "44.1.2.3"
"""Forbidden by a setting."""
FIRST, SECOND = 0, 65535
ADDRESSES = {FIRST: "198.18.0.2", SECOND: "198.19.0.1"}
PATIENCE = 0.3


class Service:
    """Answers on all addresses of a namespace, by TCP and UDP, with the address of who asks."""

    def __init__(self, where: Namespace) -> None:
        self.heard: list[bytes] = []
        self._tcp, self._udp = where.do(self._open)
        self._end, self._told = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _open(self) -> tuple[socket.socket, socket.socket]:
        # IPv6 sockets take both; an answer to a datagram goes out from where it came in.
        tcp = socket.create_server(
            ("", PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=200
        )
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        udp.bind(("", PORT))
        return tcp, udp

    def _run(self) -> None:
        held = []
        while True:
            sources = [self._tcp.fileno(), self._udp.fileno(), self._end]
            ready = select.select(sources, [], [])[0]
            if self._end in ready:
                break
            if self._tcp.fileno() in ready:
                one, peer = self._tcp.accept()
                one.sendall(peer[0].encode().removeprefix(b"::ffff:"))
                held.append(one)
            if self._udp.fileno() in ready:
                data, ancillary, _, peer = self._udp.recvmsg(2048, 256)
                self.heard.append(data)
                info = ancillary[0][2]
                mine = (socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + info[4:8] + bytes(4))
                with contextlib.suppress(OSError):
                    self._udp.sendmsg([peer[0].encode()], [mine], 0, peer)
        for one in held:
            one.close()

    def close(self) -> None:
        os.write(self._told, b"x")
        self._thread.join()
        for descriptor in (self._end, self._told):
            os.close(descriptor)
        self._tcp.close()
        self._udp.close()


@define
class Net:
    world: Namespace
    host: Namespace
    containers: dict[int, Namespace]
    common: list[Server] = field(factory=list)
    servers: list[Server] = field(factory=list)
    services: list[Service] = field(factory=list)

    def server(self, *, new: bool = False, **more: Any) -> Server:
        """One that all tests share, unless it is to be C{new} or different."""
        if not (new or more):
            if not self.common:
                self.common.append(self.server(new=True))
                self.servers.clear()
            return self.common[0]
        inside = [container.descriptor for container in self.containers.values()]
        self.servers.append(Server(self.host, inside, **more))
        return self.servers[-1]

    def service(self, where: Namespace) -> Service:
        self.services.append(Service(where))
        return self.services[-1]

    def connect(self, server: Server, *numbers: int) -> None:
        """All of them, without what inside only spares programs the waiting."""
        for number in numbers or tuple(self.containers):
            server.do("connect", self.containers[number].descriptor, number)
            self.containers[number].run("ip", "route", "flush", "type", "unreachable")

    def without_rules(self, server: Server) -> None:
        """Keep the server from having them again."""
        server.do("close")
        self.host.run("nft", "flush", "ruleset")

    def links(self) -> int:
        return self.host.run("ip", "-o", "link").count(": hy")

    def tidy(self) -> None:
        for service in self.services:
            service.close()
        for server in self.servers:
            if server.process.poll() is None:
                server.stop()
        self.services.clear()
        self.servers.clear()
        for server in self.common:
            server.do("remove_all")
        self.host.script(
            "nft flush ruleset; ip -o link | grep -o 'hy[^@]*' | xargs -rn1 ip link del;"
            " ip link set uplink mtu 1500; ip route flush cache"
        )
        for container in self.containers.values():
            container.run("ip", "route", "flush", "type", "unreachable")

    def close(self) -> None:
        self.tidy()
        for server in self.common:
            server.stop()
        for namespace in (self.world, self.host, *self.containers.values()):
            namespace.close()


@pytest.fixture(scope="module")
def whole_net() -> Iterator[Net]:
    made = Net(
        Namespace.make(),
        Namespace.make(),
        {FIRST: Namespace.make(), SECOND: Namespace.make()},
    )
    try:
        addresses = "".join(
            f"ip addr add {address}/32 dev lo\n" for address in (*PUBLIC, *NEAR, MORE)
        )
        for namespace in (made.world, made.host):
            namespace.script(
                "for one in all default; do echo 0 >/proc/sys/net/ipv4/conf/$one/rp_filter; done"
            )
        made.world.script(
            "ip link add cable type veth peer name uplink netns"
            f" /proc/{os.getpid()}/fd/{made.host.descriptor}\n"
            f"ip addr add 93.184.216.1/24 dev cable\nip link set cable up\n{addresses}"
            f"ip route add 198.18.0.0/15 via {HOST}\n"
        )
        made.host.script(
            f"ip addr add {HOST}/24 dev uplink; ip link set uplink up\n"
            "ip addr add 151.101.1.10/32 dev lo; ip addr add 10.0.0.5/32 dev lo\n"
            "ip route add default via 93.184.216.1"
        )
        yield made
    finally:
        made.close()


@pytest.fixture
def net(whole_net: Net) -> Iterator[Net]:
    """What a test did is undone, so that the next finds it as new."""
    try:
        yield whole_net
    finally:
        whole_net.tidy()


def reached(
    where: Namespace,
    addresses: Iterable[str],
    kind: int = socket.SOCK_STREAM,
    *,
    surely: Iterable[str] = (),
) -> dict[str, str]:
    """
    Which of them answer, and what they say.

    @param surely: those whose answers are waited for, as long as a busy machine takes.
    """

    def ask(address: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        with contextlib.suppress(OSError):
            made.connect((address, PORT))
        with contextlib.suppress(OSError):
            if kind == socket.SOCK_DGRAM:
                made.send(b"asked " + address.encode())
        return made

    asked = {address: where.do(partial(ask, address)) for address in addresses}
    answers: dict[str, str] = {}
    began = time.monotonic()
    while waiting := {one: sock for one, sock in asked.items() if one not in answers}:
        patience = PATIENCE if set(surely) <= set(answers) else 5
        left = began + patience - time.monotonic()
        if left <= 0:
            break
        ready = select.select(list(waiting.values()), [], [], left)[0]
        for address, sock in waiting.items():
            if sock in ready:
                try:
                    answers[address] = sock.recv(100).decode()
                except OSError:
                    asked.pop(address).close()
    for sock in asked.values():
        sock.close()
    return answers


def assert_only(
    expected: Iterable[str],
    where: Namespace,
    addresses: Iterable[str],
    kind: int = socket.SOCK_STREAM,
) -> None:
    """Of all C{addresses} those are reached, and no others."""
    assert set(reached(where, addresses, kind, surely=expected)) == set(expected)


@pytest.fixture(params=[socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def kind(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_the_internet_is_reached_at_once_and_sees_the_host(net: Net, kind: int) -> None:
    server = net.server()
    net.service(net.world)
    for number in net.containers:
        server.do("connect", net.containers[number].descriptor, number)
        began = time.perf_counter()
        answers = reached(net.containers[number], PUBLIC, kind, surely=PUBLIC)
        assert answers == dict.fromkeys(PUBLIC, HOST)
        print(f"the first answer after {1000 * (time.perf_counter() - began):.1f} ms")


def test_not_even_the_first_datagram_is_lost(net: Net) -> None:
    server = net.server()
    net.service(net.world)
    for _ in range(20):
        server.do("connect", net.containers[FIRST].descriptor, FIRST)
        assert_only(PUBLIC, net.containers[FIRST], PUBLIC, socket.SOCK_DGRAM)


def test_what_is_near_is_not_reached(net: Net, kind: int) -> None:
    server = net.server(forbidden=[MORE])
    net.connect(server)
    net.service(net.world)
    net.service(net.host)
    net.service(net.containers[SECOND])
    near = (*NEAR, MORE, *OF_THE_HOST, ADDRESSES[SECOND])
    container = net.containers[FIRST]

    assert_only(PUBLIC, container, (*near, *PUBLIC), kind)

    net.without_rules(server)
    assert_only(near, container, near, kind)

    server.do("prepare")
    assert_only(PUBLIC, container, (*near, *PUBLIC), kind)


def test_programs_inside_are_told_at_once_what_they_cannot_reach(net: Net) -> None:
    server = net.server()
    server.do("connect", net.containers[FIRST].descriptor, FIRST)

    def attempt(address: str) -> None:
        with socket.socket() as sock:
            sock.settimeout(PATIENCE)
            sock.connect((address, PORT))

    for address in set(NEAR):
        with pytest.raises(OSError, match=r"No route to host|Network is unreachable"):
            net.containers[FIRST].do(partial(attempt, address))


def test_nobody_reaches_a_container_from_outside(net: Net, kind: int) -> None:
    server = net.server()
    net.connect(server)
    net.service(net.containers[FIRST])
    own = ADDRESSES[FIRST]

    for outside in (net.world, net.host, net.containers[SECOND]):
        assert_only((), outside, [own], kind)
    net.without_rules(server)
    for outside in (net.world, net.host, net.containers[SECOND]):
        assert_only({own}, outside, [own], kind)


def datagram(source: str, target: str, payload: bytes) -> bytes:
    """IPv4 and UDP heads; the kernel fills in the sums that matter (raw(7))."""
    udp = struct.pack("!HHHH", PORT, PORT, 8 + len(payload), 0) + payload
    return (
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
        + socket.inet_aton(source)
        + socket.inet_aton(target)
        + udp
    )


def test_a_container_speaks_with_its_own_address_only(net: Net) -> None:
    server = net.server()
    net.connect(server)
    world = net.service(net.world)
    sources = ("9.9.9.9", ADDRESSES[SECOND], "198.18.7.7", HOST, "10.0.0.77", "198.18.0.1")
    raw = net.containers[FIRST].do(
        lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    )

    def heard(*sources: str) -> set[bytes]:
        world.heard.clear()
        for source in sources:
            raw.sendto(datagram(source, PUBLIC[0], source.encode()), (PUBLIC[0], 0))
        time.sleep(PATIENCE / 2)
        return set(world.heard)

    with raw:
        assert heard(*sources, ADDRESSES[FIRST]) == {ADDRESSES[FIRST].encode()}
        net.without_rules(server)
        # The kernel itself drops what seems to come from the host's own addresses.
        assert heard(*sources) == {source.encode() for source in sources if source != HOST}


def test_the_host_hears_no_multicast_broadcast_or_ipv6(net: Net) -> None:
    server = net.server()
    net.connect(server, FIRST)
    link = "hytest-0"
    net.service(net.host)

    def listen() -> socket.socket:
        index = socket.if_nametoindex(link)
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(
            socket.IPPROTO_IP,
            socket.IP_ADD_MEMBERSHIP,
            struct.pack("=4s4si", socket.inet_aton("224.0.0.251"), bytes(4), index),
        )
        made.bind(("", 5353))
        made.settimeout(PATIENCE / 2)
        return made

    def shout() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            for everybody in ("224.0.0.251", "255.255.255.255"):
                sock.sendto(everybody.encode(), (everybody, 5353))

    def heard() -> set[bytes]:
        net.containers[FIRST].do(shout)
        found = set()
        with contextlib.suppress(TimeoutError):
            while True:
                found.add(listener.recv(100))
        return found

    ipv6 = (
        "echo 0 >/proc/sys/net/ipv6/conf/{0}/disable_ipv6\n"
        "ip addr add 2606:4700::{1}/64 dev {0} nodad"
    )
    assert "inet6" not in net.containers[FIRST].run("ip", "addr", "show", "dev", "eth0")
    assert "inet6" not in net.host.run("ip", "addr", "show", "dev", link)
    with net.host.do(listen) as listener:
        assert heard() == set()
        # As if somebody had switched it on, at both ends.
        net.host.script(ipv6.format(link, 1))
        net.containers[FIRST].script(ipv6.format("eth0", 2))
        net.host.script(f"ip neigh add 2606:4700::2 dev {link} lladdr 02:68:79:00:00:00")
        net.containers[FIRST].script("ip neigh add 2606:4700::1 dev eth0 lladdr 02:68:79:01:00:00")
        assert_only((), net.containers[FIRST], ["2606:4700::1"])
        net.without_rules(server)
        assert heard() == {b"224.0.0.251", b"255.255.255.255"}
        assert_only({"2606:4700::1"}, net.containers[FIRST], ["2606:4700::1"])


def test_a_narrow_way_is_found_out(net: Net) -> None:
    server = net.server()
    net.connect(server, FIRST)
    net.host.run("ip", "link", "set", "uplink", "mtu", "1280")

    def send() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
            sock.connect((PUBLIC[0], PORT))
            with contextlib.suppress(OSError):
                for _ in range(20):
                    sock.send(bytes(1400))
                    time.sleep(0.02)
            return sock.getsockopt(socket.IPPROTO_IP, 14)  # IP_MTU

    assert net.containers[FIRST].do(send) == 1280


def test_a_container_has_so_many_connections_and_no_more(net: Net) -> None:
    server = net.server(connections=20)
    net.connect(server)
    net.service(net.world)

    def attempts() -> list[socket.socket]:
        made = []
        for _ in range(40):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex((PUBLIC[0], PORT))
            made.append(one)
        return made

    open_now = net.containers[FIRST].do(attempts)
    time.sleep(PATIENCE / 2)
    connected = select.select(open_now, [], [], 0)[0]
    assert len(connected) == 20
    assert_only((), net.containers[FIRST], [PUBLIC[1]])
    assert_only({PUBLIC[1]}, net.containers[SECOND], [PUBLIC[1]])
    for one in open_now:
        one.close()


def test_a_container_begins_so_many_connections_a_second(net: Net) -> None:
    server = net.server(rate=5)
    net.connect(server)
    world = net.service(net.world)

    def storm() -> None:
        for number in range(100):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"%d" % number, (PUBLIC[0], PORT))

    net.containers[FIRST].do(storm)
    time.sleep(0.2)
    assert 20 <= len(world.heard) <= 25
    assert_only({PUBLIC[1]}, net.containers[SECOND], [PUBLIC[1]])


def test_connecting_and_disconnecting_again_is_no_error(net: Net) -> None:
    server = net.server()
    net.service(net.world)
    server.do("disconnect", FIRST)
    for _ in range(2):
        net.connect(server, FIRST)
        assert_only(PUBLIC, net.containers[FIRST], PUBLIC)
    net.connect(server, SECOND)
    for _ in range(2):
        server.do("disconnect", FIRST)
    assert net.links() == 1
    assert_only((), net.containers[FIRST], PUBLIC)
    assert_only(PUBLIC, net.containers[SECOND], PUBLIC)


def test_what_fails_leaves_nothing(net: Net) -> None:
    server = net.server()
    inside = net.containers[FIRST].descriptor
    own = net.host.do(lambda: os.open("/proc/thread-self/ns/net", os.O_RDONLY))
    other = Server(net.host, [inside, own])
    net.servers.append(other)
    with pytest.raises(Broken, match="the server's own network namespace"):
        other.do("connect", own, FIRST)
    os.close(own)
    with pytest.raises(Broken, match=r"Bad file descriptor|Invalid argument"):
        server.do("connect", 99, FIRST)
    with pytest.raises(Broken, match="no address"):
        server.do("connect", inside, 65536)
    net.containers[FIRST].run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "x")
    with pytest.raises(Broken, match="File exists"):
        server.do("connect", inside, FIRST)
    net.containers[FIRST].run("ip", "link", "del", "eth0")
    # Somebody else has the address: another server with the same block.
    net.host.run("ip", "route", "add", f"{ADDRESSES[FIRST]}/32", "dev", "uplink")
    with pytest.raises(Broken, match="File exists"):
        server.do("connect", inside, FIRST)
    assert net.links() == 0
    net.host.run("ip", "route", "del", f"{ADDRESSES[FIRST]}/32", "dev", "uplink")
    net.connect(server, FIRST)


def test_after_a_kill_all_is_swept_but_what_is_in_use(net: Net) -> None:
    server = net.server(new=True)
    net.service(net.world)
    net.connect(server)
    other = net.server(tag="test2", block="172.20.0.0/16")
    more = [Namespace.make() for _ in range(8)]
    late = Server(net.host, [one.descriptor for one in more])
    net.servers.append(late)
    late.do("prepare")
    for number, one in enumerate(more, 1):
        late.send("connect", one.descriptor, number)
    late.stop(signal.SIGKILL)  # in the middle of it
    server.stop(signal.SIGKILL)
    elsewhere = Namespace.make()
    yet_another = Server(net.host, [elsewhere.descriptor], tag="te")
    net.servers.append(yet_another)
    yet_another.do("sweep", [])
    assert net.links() >= 2

    again = net.server(new=True)
    again.do("prepare")
    again.do("sweep", [FIRST])
    assert net.links() == 1
    assert_only(PUBLIC, net.containers[FIRST], PUBLIC)
    net.connect(again, SECOND)
    assert_only(PUBLIC, net.containers[SECOND], PUBLIC)
    again.do("remove_all")
    assert net.links() == 0
    assert "hoody_test " not in net.host.run("nft", "list", "tables") + " "
    other.do("remove_all")
    for one in (*more, elsewhere):
        one.close()


def test_many_rounds_leave_nothing_and_do_not_slow_down(net: Net) -> None:
    server = net.server()
    server.do("prepare")
    before = net.host.run("nft", "list", "ruleset"), net.links()
    connecting: list[float] = []
    disconnecting: list[float] = []
    inside = net.containers[FIRST].descriptor
    for number in range(200):
        for times, answer in (
            (connecting, server.ask("connect", inside, number)),
            (disconnecting, server.ask("disconnect", number)),
        ):
            assert "error" not in answer, answer
            times.append(answer["seconds"])
    assert (net.host.run("nft", "list", "ruleset"), net.links()) == before
    assert "eth0" not in net.containers[FIRST].run("ip", "route")
    early, late = statistics.median(connecting[:50]), statistics.median(connecting[-50:])
    print(f"to connect: {1000 * statistics.median(connecting):.2f} ms in the median,", end=" ")
    print(f"{1000 * max(connecting):.2f} at most;", end=" ")
    print(f"to disconnect: {1000 * statistics.median(disconnecting):.2f} ms")
    assert late < 3 * early + 0.001


def test_it_goes_with_the_container_s_namespace(net: Net) -> None:
    server = net.server()
    gone = Namespace.make()
    with contextlib.closing(gone):
        short = Server(net.host, [gone.descriptor])
        short.do("connect", gone.descriptor, 7)
        short.stop()
        assert net.links() == 1
    end = time.monotonic() + 5
    while net.links() and time.monotonic() < end:
        time.sleep(0.01)
    assert net.links() == 0
    server.do("disconnect", 7)


def test_what_goes_through_is_counted(net: Net) -> None:
    server = net.server()
    net.service(net.world)
    net.connect(server)
    before = server.do("traffic")
    reached(net.containers[SECOND], PUBLIC, surely=PUBLIC)
    after = server.do("traffic")
    assert set(before) == set(after) == {str(FIRST), str(SECOND)}
    assert after[str(SECOND)] - before[str(SECOND)] > 500
    assert after[str(FIRST)] == before[str(FIRST)]


def test_the_machine_is_left_alone_until_the_first_container_comes(net: Net) -> None:
    server = net.server(new=True)
    forwarding = ("cat", "/proc/sys/net/ipv4/ip_forward")
    net.host.script("echo 0 >/proc/sys/net/ipv4/ip_forward")
    assert server.do("lacks") == []
    server.do("prepare")
    server.do("prepare")
    assert net.host.run(*forwarding).strip() == "0"
    net.connect(server, FIRST)
    assert net.host.run(*forwarding).strip() == "1"


def test_a_firewall_that_would_drop_it_is_named(net: Net) -> None:
    server = net.server()
    net.host.run(
        "nft",
        "add table ip filter; add chain ip filter FORWARD"
        " { type filter hook forward priority 0; policy drop; }",
    )
    (lack,) = server.do("lacks")
    assert "table ip filter, chain FORWARD" in lack
    net.service(net.world)
    net.connect(server, FIRST)
    assert_only((), net.containers[FIRST], PUBLIC)
    for cure in lack.split("try: ")[1].split("; "):
        net.host.script(cure)
    assert_only(PUBLIC, net.containers[FIRST], PUBLIC)
    assert server.do("lacks") == []


def test_rules_that_another_takes_away_come_back(net: Net) -> None:
    server = net.server()
    net.connect(server, FIRST)
    net.service(net.host)
    net.service(net.world)
    rules = net.host.run("nft", "list", "ruleset")
    elsewhere = "table inet elsewhere"
    for harm in (
        "flush ruleset",
        f"add {elsewhere}; delete {elsewhere}; delete table inet hoody_test",
        "flush chain inet hoody_test of_a_container",
        "insert rule inet hoody_test of_a_container accept",
        "delete element inet hoody_test unreachable { 10.0.0.0/8 }",
    ):
        began = time.monotonic()
        net.host.run("nft", harm)
        while net.host.run("nft", "list", "ruleset") != rules:
            assert time.monotonic() - began < 5, harm
        print(f"after {1000 * (time.monotonic() - began):.0f} ms they were there again: {harm}")
        assert_only(PUBLIC, net.containers[FIRST], (*PUBLIC, *OF_THE_HOST, "10.9.9.9"))
    # Our own changes are no reason to begin again.
    time.sleep(0.5)
    server.do("prepare")
    made = net.host.run("nft", "-a", "list", "tables")
    time.sleep(0.5)
    assert net.host.run("nft", "-a", "list", "tables") == made


def test_without_nft_there_is_a_sentence(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    server = net.server(new=True)
    assert "apt-get install nftables" in server.do("lacks")[0]
    with pytest.raises(Broken, match="apt-get install nftables"):
        server.do("connect", net.containers[FIRST].descriptor, FIRST)
    assert "hytest" not in str(net.host.do(socket.if_nameindex))
