"""
What containers reach from inside: the Internet by NAT, and nothing that is near.

Each container with C{egress = "nat"} has a pair of virtual interfaces (veth(4)): C{eth0}
inside, one of ours on the host. The host's end has no address; each end is told where the
other is, so nobody asks (no ARP) and nobody can be lied to. The rules (L{Filters}) stand once
for all. C{egress = "none"} needs nothing of this: there is only C{lo}.

While there is a container of this kind the machine forwards packets
(C{net.ipv4.ip_forward}): that is a setting of the whole machine. We switch it on when the
first one comes, and leave it on: others may have come to count on it.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv4Network
from typing import Any, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from hoody.containers.network import netlink
from hoody.containers.network.filters import Filters
from hoody.containers.network.netlink import Netlink, NetlinkError
from hoody.containers.network.rulewatch import RuleWatch
from hoody.containers.network.within import in_a_new_one, within
from hoody.errors import Unavailable
from hoody.later import in_thread

T = TypeVar("T")

BLOCK = IPv4Network("198.18.0.0/15")
"""
Set aside for measuring routers (RFC 2544): never on the Internet, seldom at home, and
large enough for a container of each number.
"""
INSIDE = "eth0"
_FORWARDING = "/proc/sys/net/ipv4/ip_forward"
_NFT_SECONDS = 20
_REPAIR_SECONDS = 0.3
_READY_SECONDS, _READY_LOOKS = 2.0, 10000
_GET_NFT = "install nftables (as root: apt-get install nftables)"

_log = Logger(namespace="hoody.egress")


@frozen
class Addresses:
    """
    @ivar own: the container's.
    @ivar gateway: what it sends everything to. It is nobody's address, and the same for all.
    """

    own: IPv4Address
    gateway: IPv4Address


class _NftFailed(Exception):
    """nft(8) was not content; its own words."""


@define(eq=False)
class Egress:
    """
    @ivar tag: tells this server's interfaces and rules from those of others on the same
        machine: one to eight lower-case letters and digits.
    @ivar block: where containers have their addresses from. Servers that share a machine
        have to have one each.
    @ivar forbidden: more networks that no container may reach.
    @ivar connections: how many a container may have at a time; C{rate}: begin in a second.
    """

    _reactor: Any
    tag: str
    block: IPv4Network = BLOCK
    forbidden: tuple[IPv4Network, ...] = ()
    connections: int = 4096
    rate: int = 500
    filters: Filters = field(init=False)
    _prepares: DeferredLock = field(factory=DeferredLock, init=False)
    _prepared: bool = field(default=False, init=False)
    _watch: RuleWatch | None = field(default=None, init=False)
    _touches: int = field(default=0, init=False)
    _again: Any = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if not (0 < len(self.tag) <= 8 and self.tag.isascii() and self.tag.isalnum()):
            raise ValueError("a tag is one to eight letters and digits")
        # A name may have 15 bytes (IFNAMSIZ): what follows is a number of four digits.
        self.filters = Filters(
            table=f"hoody_{self.tag}",
            links=f"hy{self.tag}-",
            block=self.block,
            forbidden=self.forbidden,
            connections=self.connections,
            rate=self.rate,
            mark="hoody " + secrets.token_hex(8),
        )

    async def lacks(self) -> list[str]:
        """What this machine needs before containers can have NAT, each with the cure."""
        return await in_thread(self._reactor, lambda: _look_for_lacks(self.filters))

    async def prepare(self) -> None:
        """
        Have our rules as they should be, whatever is there, and keep them so until
        L{close}. They are needed while there are containers with a way out: so at each
        start of the server, before all else here.

        @raise Unavailable: if it cannot be.
        """
        if self._watch is None:
            self._keep_watch()
        await self._set_rules()

    async def _set_rules(self) -> None:
        await self._prepares.acquire()
        try:
            touches = self._touches
            await self._do("set up the firewall", lambda: _nft(self.filters.text()))
            # What another did meanwhile may have come behind ours.
            self._prepared = touches == self._touches
        finally:
            self._prepares.release()

    def close(self) -> None:
        """Look after nothing any more; what is there stays, for the containers that live on."""
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        if self._again is not None and self._again.active():
            self._again.cancel()
        self._again = None

    async def connect(self, namespace: int, number: int) -> Addresses:
        """
        Give a container its way out; if it has one, a new one. About 1.5 ms.

        @param namespace: a descriptor of its network namespace; not needed after this.
        @param number: its own on this server: 0 to 65535.
        @raise Unavailable: if it cannot be; then nothing is left of it.
        """
        addresses = self.addresses(number)
        if not self._prepared:
            await self.prepare()
        await self._do(
            "connect the container to the Internet",
            lambda: self._connect(namespace, number, addresses),
        )
        return addresses

    def addresses(self, number: int) -> Addresses:
        """What the container of that number has."""
        if not 0 <= number < min(65536, self.block.num_addresses - 3):
            raise Unavailable(f"There is no address in {self.block} for container {number}.")
        return Addresses(own=self.block[number + 2], gateway=self.block[1])

    async def disconnect(self, number: int) -> None:
        """
        Take it away, if it is there. It also goes with the container's namespace, and so is
        gone soonest: to remove one by hand takes the kernel some 15 ms.

        @raise Unavailable: if it cannot be.
        """
        await self._do("disconnect the container", lambda: _remove([self._link_name(number)]))

    async def sweep(self, numbers_in_use: Collection[int]) -> None:
        """Take away those of all other containers, as a server that was killed left them."""
        kept = {self._link_name(number) for number in numbers_in_use}
        await self._do("clean up", lambda: _remove(sorted(set(self._links().values()) - kept)))

    async def remove_all(self) -> None:
        """Have nothing of ours on this machine, but that it forwards packets."""
        self.close()
        await self.sweep(())
        await self._prepares.acquire()  # a repair may be under way
        try:
            self._prepared = False
            await self._do("remove the firewall", lambda: _nft(self.filters.removal()))
        finally:
            self._prepares.release()

    def traffic(self) -> dict[int, int]:
        """
        How many bytes have gone in and out of each container so far, by its number. To be called
        from a thread, and not often: it looks at all there are.
        """
        prefix = self.filters.links
        found = {}
        with open("/proc/thread-self/net/dev", encoding="ascii") as table:
            for line in table:
                name, _, figures = line.strip().partition(":")
                if name.startswith(prefix):
                    columns = figures.split()
                    found[int(name[len(prefix) :], 16)] = int(columns[0]) + int(columns[8])
        return found

    async def _do(self, what: str, work: Callable[[], T]) -> T:
        """
        @param what: that the server does by it, for the sentence.
        @raise Unavailable: whatever goes wrong.
        """
        try:
            return await in_thread(self._reactor, work)
        except (OSError, ValueError, subprocess.SubprocessError, _NftFailed) as error:
            _log.error("cannot {what}: {error!r}", what=what, error=error)
            raise Unavailable(f"The server could not {what}: {_in_words(error)}.") from error

    def _keep_watch(self) -> None:
        watch = RuleWatch(self._reactor, self.filters.table, self.filters.mark, self._touched)
        try:
            watch.start()
        except OSError as error:
            _log.error("cannot watch the firewall: {error}", error=error)
        else:
            self._watch = watch

    def _touched(self) -> None:
        _log.error("somebody else has changed the firewall's rules for containers")
        self._touches += 1
        self._prepared = False
        if self._again is None:
            self._again = self._reactor.callLater(0, self._repair)

    def _repair(self) -> None:
        # Until this has come back, and a moment more, no other change starts one: so a
        # program that fights us cannot have us do nothing else.
        repairing = Deferred.fromCoroutine(self._set_rules())
        repairing.addErrback(lambda _: None)  # it is in the log
        repairing.addBoth(self._repaired)

    def _repaired(self, _: object) -> None:
        if self._prepared:
            _log.info("the firewall's rules for containers are there again")
        if self._watch is not None:
            pause = _REPAIR_SECONDS if self._prepared else 5 * _REPAIR_SECONDS
            self._again = self._reactor.callLater(pause, self._look_again)

    def _look_again(self) -> None:
        self._again = None
        if not self._prepared:
            self._again = self._reactor.callLater(0, self._repair)

    def _links(self) -> dict[int, str]:
        """Our interfaces on the host, by their index."""
        return {
            index: name
            for index, name in socket.if_nameindex()
            if name.startswith(self.filters.links)
        }

    def _link_name(self, number: int) -> str:
        return f"{self.filters.links}{number:x}"

    def _connect(self, namespace: int, number: int, addresses: Addresses) -> None:
        name = self._link_name(number)
        _forward()
        with Netlink.of_this_thread() as host, within(namespace, _open_inside) as inside:
            here, there = _macs(number)
            pair = netlink.veth(name, here, INSIDE, there, namespace)
            try:
                host.do(pair)
            except NetlinkError as error:
                if error.errno != errno.EEXIST:
                    raise
                _remove([name])
                host.do(pair)
            try:
                made = host.link(name)
                _without_ipv6(name)
                self._furnish_host(host, made.index, addresses, there)
                self._furnish_inside(inside, made.peer, addresses, here)
                _until_ready(host, name)
            except BaseException:
                _remove([name])
                raise

    def _furnish_host(self, host: Netlink, index: int, addresses: Addresses, there: bytes) -> None:
        host.do(
            netlink.up(index, arp=False),
            netlink.neighbour(index, addresses.own, there),
            netlink.route(IPv4Network(addresses.own), index),
        )

    def _furnish_inside(
        self, inside: Netlink, index: int, addresses: Addresses, here: bytes
    ) -> None:
        everything = IPv4Network("0.0.0.0/0")
        inside.do(
            netlink.up(netlink.LOOPBACK),
            netlink.up(index),
            netlink.address(index, addresses.own),
            netlink.neighbour(index, addresses.gateway, here),
            netlink.route(IPv4Network(addresses.gateway), index),
            netlink.route(everything, index, addresses.gateway, addresses.own),
            # The rules drop it without a word; so programs need not wait for their time-outs.
            *map(netlink.unreachable, self.filters.unreachable),
        )


def _in_words(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.filename == "nft":
        return f"there is no nft; {_GET_NFT}"
    words = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return words.rstrip(".")


def _nft(text: str) -> None:
    """Have nft(8) do it, as one transaction."""
    done = subprocess.run(
        ["nft", "-f", "-"],  # noqa: S607  # where the machine has it
        input=text,
        capture_output=True,
        text=True,
        timeout=_NFT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise _NftFailed("nft: " + (done.stderr.strip().splitlines() or ["no reason given"])[0])


def _forward() -> None:
    with open(_FORWARDING, "r+", encoding="ascii") as setting:
        if setting.read().strip() == "0":
            setting.seek(0)
            setting.write("1")
            _log.warn("this machine forwards packets from now on (net.ipv4.ip_forward=1)")


def _macs(number: int) -> tuple[bytes, bytes]:
    """
    The hardware addresses of the host's end and of the container's: made up, and said so
    (bit 2 of the first byte). Given from the start, or udev would change them later.
    """
    tail = number.to_bytes(2, "big")
    return b"\x02hy\x01" + tail, b"\x02hy\x00" + tail


def _open_inside() -> Netlink:
    # Before there is an interface: it would have an address of its own at once.
    _without_ipv6("default")
    return Netlink.of_this_thread()


def _without_ipv6(name: str) -> None:
    try:
        with open(
            f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w", encoding="ascii"
        ) as setting:
            setting.write("1")
    except FileNotFoundError:
        pass  # a kernel without it


def _until_ready(host: Netlink, name: str) -> None:
    # The kernel does this by itself, in a fraction of a millisecond: nobody tells us when.
    for _ in range(_READY_LOOKS):
        if host.link(name).is_ready:
            return
        time.sleep(_READY_SECONDS / _READY_LOOKS)
    raise TimeoutError(errno.ETIMEDOUT, f"{name} does not become ready")


def _remove(names: list[str]) -> None:
    if not names:
        return
    with Netlink.of_this_thread() as host:
        for error in host.attempt([netlink.delete(name) for name in names]):
            if error is not None and error.errno != errno.ENODEV:
                raise error


def _look_for_lacks(filters: Filters) -> list[str]:
    if os.geteuid():
        return ["the server is not root; containers can only be connected by root"]
    found = []
    if shutil.which("nft") is None:
        found.append(f"there is no nft; {_GET_NFT}")
    found += in_a_new_one(lambda: _try_out(filters, nft=not found))
    if not found:
        found += _other_firewalls(filters.links)
    return found


def _try_out(filters: Filters, *, nft: bool) -> list[str]:
    """In a namespace that nobody else is in."""
    found = []
    try:
        with Netlink.of_this_thread() as here:
            descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                here.do(netlink.veth("a", b"\x02hy\0\0\0", "b", b"\x02hy\0\0\1", descriptor))
            finally:
                os.close(descriptor)
    except OSError as error:
        found.append(
            f"the kernel makes no veth interfaces ({_in_words(error)}); try: modprobe veth"
        )
    try:
        if nft:
            _nft(filters.text())
    except (OSError, subprocess.SubprocessError, _NftFailed) as error:
        found.append(
            f"the kernel does not take the firewall's rules ({_in_words(error)}); it needs"
            " nf_tables with nat, masq, fib, ct, connlimit and limit (Debian's has them; try:"
            " modprobe -a nf_tables nft_masq nft_fib_inet nft_connlimit nft_limit)"
        )
    return found


def _other_firewalls(links: str) -> list[str]:
    """Those that drop what is forwarded by default (Docker's, ufw's) and do not know us."""
    found = []
    for family, table, chain in _dropping_chains():
        rules = _ask_nft("list", "chain", family, table, chain)
        # Docker's own chain is asked first, and left alone when Docker starts again.
        if links not in rules and links not in _ask_nft(
            "list", "chain", family, table, "DOCKER-USER"
        ):
            found.append(
                f"another firewall (table {family} {table}, chain {chain}) drops what is"
                f" forwarded; try: nft insert rule {family} {table} {chain} iifname"
                f" '\"{links}*\"' accept; nft insert rule {family} {table} {chain} oifname"
                f" '\"{links}*\"' ct state established,related accept"
            )
    return found


def _dropping_chains() -> list[tuple[str, str, str]]:
    listed = json.loads(_ask_nft("-j", "list", "chains") or "{}").get("nftables", [])
    return [
        (chain["family"], chain["table"], chain["name"])
        for chain in (entry.get("chain", {}) for entry in listed)
        if chain.get("hook") == "forward"
        and chain.get("policy") == "drop"
        and chain["family"] in ("ip", "inet")
    ]


def _ask_nft(*words: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["nft", *words],  # noqa: S607  # where the machine has it
        capture_output=True,
        text=True,
        timeout=_NFT_SECONDS,
        check=False,
    )
    return done.stdout
