"""
What leaves a container, what must not: the rules, as nft(8) reads them.

They know containers by the names of their interfaces, and a container's address by the
route to it: so they stand once for all containers, and none of them comes or goes with one.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network

from attrs import field, frozen

NOT_THE_INTERNET = tuple(
    map(
        IPv4Network,
        (
            # What IANA's registry of special-purpose addresses has (RFC 6890), with
            # multicast and what is reserved.
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",  # the metadata, with the credentials, of most clouds' machines
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            # Azure's own, a public address that only leads to the machine's own platform.
            "168.63.129.16/32",
        ),
    )
)


def _disjoint(networks: Sequence[IPv4Network]) -> tuple[IPv4Network, ...]:
    """Without those that are in another."""
    return tuple(
        one
        for one in dict.fromkeys(networks)
        if not any(one != other and one.subnet_of(other) for other in networks)
    )


@frozen(kw_only=True)
class Filters:
    """
    @ivar table: the name of our table.
    @ivar links: what the names of our interfaces begin with.
    @ivar block: what containers have their addresses from.
    @ivar forbidden: more that they must not reach.
    @ivar connections: how many one container may have at a time.
    @ivar mark: by which it can be told who has made them.
    @ivar rate: how many it may begin in a second; four times as many at once.
    """

    table: str
    links: str
    block: IPv4Network
    forbidden: tuple[IPv4Network, ...] = field(default=())
    connections: int = 4096
    rate: int = 500
    mark: str = "hoody"

    @property
    def unreachable(self) -> tuple[IPv4Network, ...]:
        """All that containers must not reach, whatever machine they are on."""
        return _disjoint((*NOT_THE_INTERNET, self.block, *self.forbidden))

    def removal(self) -> str:
        """To have them gone, whether they are there or not."""
        return f"table inet {self.table}\ndelete table inet {self.table}\n"

    def text(self) -> str:
        """
        To have them, instead of what may be there: one transaction. What the kernel knows
        of connections is not touched.
        """
        networks = ", ".join(map(str, self.unreachable))
        return f"""{self.removal()}
table inet {self.table} {{
    comment "{self.mark}"

    set unreachable {{
        type ipv4_addr
        flags interval
        auto-merge
        elements = {{ {networks} }}
    }}
    set connected {{
        type ipv4_addr
        size 65536
        flags dynamic
    }}
    set connecting {{
        type ipv4_addr
        size 65536
        flags dynamic, timeout
        timeout 1m
    }}

    # Before the kernel takes note of a connection (conntrack is at -200), so that what is
    # refused cannot fill its tables, and before anybody's rules lead it elsewhere.
    chain departing {{
        type filter hook prerouting priority raw; policy accept;
        iifname "{self.links}*" jump of_a_container
    }}
    chain of_a_container {{
        meta nfproto != ipv4 drop
        ip saddr != {self.block} drop
        # The way back to the sender is not the way that it came: not its own address.
        fib saddr . iif oif missing drop
        ip daddr @unreachable drop
        # The host's own addresses, broadcasts, and what the host has no way to.
        fib daddr type != unicast drop
    }}

    chain passing {{
        type filter hook forward priority filter; policy accept;
        oifname "{self.links}*" jump to_a_container
        iifname "{self.links}*" jump from_a_container
    }}
    chain to_a_container {{
        tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
        ct state established, related accept
        drop
    }}
    chain from_a_container {{
        # Once more: another's rules may have changed where it goes.
        ip daddr @unreachable drop
        # What belongs to no connection would leave with the container's own address.
        ct state invalid drop
        tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
        ct state new update @connecting {{ ip saddr limit rate over {self.rate}/second \
burst {4 * self.rate} packets }} drop
        ct state new add @connected {{ ip saddr ct count over {self.connections} }} drop
    }}

    chain for_the_host {{
        type filter hook input priority filter; policy accept;
        iifname "{self.links}*" drop
    }}
    # The host says nothing to containers but why a packet did not get through, and
    # how small it must be.
    chain of_the_host {{
        type filter hook output priority filter; policy accept;
        oifname "{self.links}*" jump errors_only
    }}
    chain errors_only {{
        icmp type {{ destination-unreachable, time-exceeded, parameter-problem }} accept
        drop
    }}

    chain masked {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {self.block} oifname != "{self.links}*" masquerade
    }}
}}
"""
