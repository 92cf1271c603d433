"""The pure parts of how images are made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoody.containers.images import confinement, references
from hoody.containers.images.budget import Budget, Notes, shown
from hoody.containers.images.busybox import is_static
from hoody.containers.images.debian import Debian
from hoody.containers.images.oci import Wishes, wishes
from hoody.containers.images.orders import (
    MOST_SKIPPED,
    Image,
    Limits,
    Line,
    Order,
    read_line,
    read_order,
    write,
)
from hoody.containers.images.tree import parts_of
from hoody.errors import CallerError, Forbidden, HoodyError

REGISTRIES = ["docker.io", "registry.example:5000"]
DIGEST = "sha256:" + "a" * 64


class TestOrders:
    def test_they_go_there_and_back(self) -> None:
        order = Order(kind="archive", into="/a", file="/b", limits=Limits(bytes=5))
        assert read_order(write(order)) == order
        for line in (
            Line(progress="a"),
            Line(error="b", status=400),
            Line(done=Image(command=("a",), size=1, entries=2, skipped=("x",))),
        ):
            assert read_line(write(line)) == line

    def test_a_line_is_as_the_server_expects_it(self) -> None:
        assert write(Line(progress="a")) == b'{"progress":"a"}\n'

    @pytest.mark.parametrize(
        "raw", [b"", b"[]", b'{"kind": "busybox"}', b'{"kind": "x", "into": "/"}',
                b'{"kind": "busybox", "into": "/a", "files": 1}']
    )  # fmt: skip
    def test_what_is_no_order_is_refused(self, raw: bytes) -> None:
        with pytest.raises(msgspec.MsgspecError):
            read_order(raw)


class TestReferences:
    @pytest.mark.parametrize(
        ("text", "whole"),
        [
            ("docker.io/library/alpine:3.20", "docker.io/library/alpine:3.20"),
            ("docker.io/a", "docker.io/a:latest"),
            ("docker.io:443/a", "docker.io/a:latest"),
            (f"docker.io/a-b/c__d@{DIGEST}", f"docker.io/a-b/c__d@{DIGEST}"),
            ("registry.example:5000/x.y:T_.-", "registry.example:5000/x.y:T_.-"),
        ],
    )
    def test_they_are_read(self, text: str, whole: str) -> None:
        assert str(references.read(text, REGISTRIES)) == whole

    @pytest.mark.parametrize(
        "text",
        ["", "alpine", "docker.io", "docker.io/", "docker.io/A", "docker.io/a:", "docker.io/a@x",
         f"docker.io/a:b@{DIGEST}", "docker.io/a b", "docker.io/a\n", "docker.io/../a",
         "docker.io/a/../b", "docker.io//a", "user@docker.io/a", "docker.io:0/a",
         "docker.io:99999/a", "https://docker.io/a", "[::1]/a", "-x.io/a",
         "docker.io/a:" + "t" * 129,
         "docker.io/-a", "--insecure/a", "docker.io/" + "a" * 300, "docker.iö/a"],
    )  # fmt: skip
    def test_what_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(CallerError, match=r"such as docker.io/library/alpine"):
            references.read(text, REGISTRIES)

    @pytest.mark.parametrize(
        "host", ["evil.example", "docker.io.evil.example", "docker.io:5000", "registry.example"]
    )
    def test_other_registries_are_refused(self, host: str) -> None:
        with pytest.raises(Forbidden, match=r"allowed: docker.io, registry.example:5000"):
            references.read(f"{host}/a", REGISTRIES)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "223.255.255.1"])
def test_addresses_of_the_internet(address: str) -> None:
    assert references.is_public(address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.255.0.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
     "169.254.169.254", "100.64.0.1", "100.127.255.255", "0.0.0.0", "0.1.2.3", "224.0.0.1",
     "239.1.1.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::", "::1",
     "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "fec0::1", "2001:db8::1",
     "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1",
     "64:ff9b:1::a00:1", "2002:7f00:1::", "2001:0:1::", "::127.0.0.1"],
)  # fmt: skip
def test_addresses_of_this_machine_or_its_network(address: str) -> None:
    assert not references.is_public(address)


class TestNames:
    def test_slashes_and_dots_say_nothing(self) -> None:
        assert parts_of(b"./a//b/./c/") == parts_of(b"/a/b/c") == [b"a", b"b", b"c"]
        assert parts_of(b"./") == parts_of(b"/") == parts_of(b"") == []
        assert parts_of(b"..a/b..") == [b"..a", b"b.."]

    @given(st.binary(max_size=30))
    def test_none_leads_up(self, name: bytes) -> None:
        try:
            parts = parts_of(name)
        except CallerError:
            assert b".." in name or b"\0" in name
            return
        assert not {b"", b".", b".."} & set(parts)

    def test_they_are_shown_short_and_harmless(self) -> None:
        assert shown(b"caf\xc3\xa9") == "café"
        assert shown(b"a\x1b[2J\n\xff") == "a\\u001b[2J\\u000a\\xff"
        assert len(shown(b"x" * 4000)) == 100


def test_notes_are_few() -> None:
    notes = Notes()
    for number in range(100):
        notes.add(f"what {number}", b"x")
        notes.add(f"what {number}", b"y")
    told = notes.told()
    assert len(told) == MOST_SKIPPED
    assert told[0] == "x: what 0 (and 1 more)"
    assert told[-1] == "and 81 more kinds"


def test_a_budget_is_spent_to_its_last_byte() -> None:
    budget = Budget(Limits(bytes=10, entries=1))
    budget.take_file(10)
    budget.take_entry()
    with pytest.raises(CallerError):
        budget.take_file(1)
    with pytest.raises(CallerError):
        budget.take_entry()


class TestWishes:
    @pytest.mark.parametrize(
        "place",
        ["/proc/self/fd/7", "/proc", "//proc/1", "/srv/../proc/self", "proc/self", "/sys/x"],
    )
    def test_nothing_begins_in_what_is_the_systems(self, place: str) -> None:
        with pytest.raises(CallerError, match="WorkingDir"):
            wishes(Wishes(working_dir=place))
        assert wishes(Wishes(working_dir="/process")).working_dir == "/process"

    def test_what_an_image_does_not_say_is_left_open(self) -> None:
        found = wishes(Wishes(entrypoint=[], working_dir="", user=""))
        assert (found.command, found.port, found.working_dir, found.user) == (None,) * 4

    @pytest.mark.parametrize(
        ("ports", "port"),
        [
            ({"80/tcp": {}}, 80),
            ({"80": {}}, 80),
            ({"53/udp": {}}, None),
            ({"0/tcp": {}, "65536/tcp": {}, "x/tcp": {}, "8080/TCP": {}}, 8080),
            ({"999999999999": {}}, None),
        ],
    )
    def test_the_port_is_the_first_for_tcp(
        self, ports: dict[str, dict[str, str]], port: int | None
    ) -> None:
        assert wishes(Wishes(exposed_ports=ports)).port == port

    def test_a_nul_is_in_no_command(self) -> None:
        for config in (Wishes(cmd=["a\0"]), Wishes(env=["A=\0"]), Wishes(user="\0")):
            with pytest.raises(CallerError, match="NUL"):
                wishes(config)


class TestStatic:
    def test_a_program_that_needs_libraries_is_known(self) -> None:
        assert not is_static(Path("/bin/ls").read_bytes())

    def test_busybox_is_static(self) -> None:
        try:
            program = Path("/bin/busybox").read_bytes()
        except FileNotFoundError:
            pytest.skip("needs busybox-static")
        said = subprocess.run(["/bin/busybox", "--list"], capture_output=True, check=True).stdout
        assert is_static(program)
        assert b"httpd" in said

    @given(st.binary(max_size=200))
    def test_what_is_no_program_is_none(self, data: bytes) -> None:
        is_static(b"\x7fELF\x02\x01" + data)
        assert not is_static(data)


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        ({"suite": "--help"}, "suite"),
        ({"suite": "bookworm\n"}, "suite"),
        ({"packages": ("curl", "--x")}, "packages"),
        ({"packages": ("a,b",)}, "packages"),
        ({"packages": ("curl=1",)}, "packages"),
        ({"packages": ("?not(x)",)}, "packages"),
        ({"packages": ("ab",) * 201}, "packages"),
        ({"mirror": "file:///etc"}, "mirror"),
        ({"mirror": "http://a/ main"}, "mirror"),
        ({"mirror": "deb http://a b c"}, "mirror"),
    ],
)
def test_what_debian_is_asked_for_is_checked(order: dict[str, object], sentence: str) -> None:
    whole = msgspec.convert({"kind": "debian", "into": "/nowhere", **order}, Order)
    with pytest.raises(CallerError, match=sentence):
        Debian(whole, print).prepare()


def test_who_is_not_root_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(HoodyError, match="only be made by root"):
        confinement.require_root()
