"""
The list of attacks: each by root in a container, on what is there outside, and can be seen to
be there. Afterwards the server and the neighbours go on as if nothing had been.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from hoody.containers import machine, spec
from hoody.containers.storage import LOG_ROOM
from tests.support import poke
from tests.support.containers import House, run
from tests.support.postgres import Postgres

EPERM, EACCES, ENOENT, EBADF, EROFS, ENOSYS = 1, 13, 2, 9, 30, 38
AT_HERE = -100
MEBI = 1 << 20
NOBODY = 65534
_numbers = itertools.count()
TOOLS = [{"name": "tools", "path": "/tools"}]


@define
class Cell:
    """
    A container that something is tried in.

    @ivar row: of it.
    @ivar program: what does system calls, outside.
    """

    house: House
    row: dict[str, Any]
    program: Path

    @classmethod
    def make(cls, house: House, program: Path, name: str, **fields: Any) -> Cell:
        volumes = [*TOOLS, *fields.pop("volumes", [])]
        fields = {"egress": "none", "memory_limit": 96 * MEBI, "disk_limit": 64 * MEBI, **fields}
        cell = cls(house, house.create(name, volumes=volumes, start=False, **fields), program)
        shutil.copy(program, cell.place / "volume-tools/poke")
        answer = house.operate(name, "start")
        assert answer.status == 200, answer.body
        return cell

    @property
    def name(self) -> str:
        return str(self.row["name"])

    @property
    def place(self) -> Path:
        """What it writes to, on the host."""
        base = self.house.pool / f"hoody-{self.house.server_id}"
        return base / "containers" / str(self.row["id"]) / "state"

    @property
    def pids(self) -> list[int]:
        return self.house.pids(self.row["id"])

    def run(self, command: str | list[str], **more: object) -> tuple[int, str]:
        return self.house.run(self.name, command, **more)

    def says(self, command: str) -> str:
        return self.run(command)[1]

    def calls(self, *calls: tuple[object, ...], **more: object) -> list[tuple[int, int]]:
        """System calls, by one process inside: the result and the errno of each."""
        _, said = self.run(["/tools/poke", *poke.words(*calls)], **more)
        return poke.answers(said)

    def calls_outside(self, *calls: tuple[object, ...]) -> list[tuple[int, int]]:
        """The same by root outside."""
        return poke.answers(run(str(self.program), *poke.words(*calls)))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return poke.make(tmp_path_factory.mktemp("poke"))
    except poke.NoCompiler as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres
) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house") / "data", pool, cluster)
    try:
        yield house
    finally:
        house.close()
    assert not any(house.left.values()), house.left


@pytest.fixture(scope="module")
def neighbour(house: House, program: Path) -> Cell:
    """It answers on its port, and is asked after each attack."""
    cell = Cell.make(house, program, "neighbour")
    cell.run("echo mine > /root/file")
    return cell


@pytest.fixture(scope="module")
def cell(house: House, program: Path, neighbour: Cell) -> Cell:
    """For what leaves it as it was."""
    return Cell.make(house, program, "cell")


@pytest.fixture
def mortal(house: House, program: Path) -> Iterator[Callable[..., Cell]]:
    """Makes one for what it need not survive."""
    made: list[Cell] = []

    def make(**fields: Any) -> Cell:
        made.append(Cell.make(house, program, f"mortal{next(_numbers)}", **fields))
        return made[-1]

    try:
        yield make
    finally:
        for name in house.names:
            if name.startswith("mortal"):
                house.delete(name)


@pytest.fixture(autouse=True)
def all_goes_on(house: House, neighbour: Cell) -> Iterator[None]:
    """Server and neighbour are what they were, and answer."""
    server, pids = house.server.pid, neighbour.pids
    yield
    assert house.server.pid == server
    _until(lambda: neighbour.pids == pids)  # but for what ends just now
    assert "It runs" in _through_the_gateway(house, "neighbour")
    assert neighbour.says("cat /root/file") == "mine\n"


def _through_the_gateway(house: House, name: str) -> str:
    host = f"{name}.containers.hoody.localhost"
    return run("curl", "-sS", "-m", "5", "-H", f"Host: {host}", f"{house.server.url}/")


# System calls


NEVER = {
    # mounts
    "mount": ("*9", "*9", "*9", 0, 0),
    "umount2": ("=/nowhere", 0),
    "pivot_root": ("=/nowhere", "=/nowhere"),
    "move_mount": (-1, "=", -1, "=", 4),
    "fsopen": ("=nothing", 0),
    "fsconfig": (-1, 0, 0, 0, 0),
    "fsmount": (-1, 0, 0),
    "fspick": (AT_HERE, "=/nowhere", 0),
    "open_tree": (AT_HERE, "=/nowhere", 1),
    "mount_setattr": (AT_HERE, "=/nowhere", 0, "*32", 32),
    "quotactl": (-1, 0, 0, 0),
    "swapon": ("=/nowhere", 0),
    "swapoff": ("=/nowhere",),
    # namespaces
    "unshare": (0x7FFFFFFF,),
    "setns": (-1, 0),
    # other processes
    "ptrace": (0x4206, 0x7FFFFFFF, 0, 0),
    "process_vm_readv": (0x7FFFFFFF, 0, 0, 0, 0, 0),
    "process_vm_writev": (0x7FFFFFFF, 0, 0, 0, 0, 0),
    "kcmp": (0x7FFFFFFF, 0x7FFFFFFF, 0, 0, 0),
    "pidfd_getfd": (-1, 0, 0),
    "process_madvise": (-1, 0, 0, 0, 0),
    "move_pages": (0x7FFFFFFF, 1, 0, 0, 0, 0),
    "migrate_pages": (0x7FFFFFFF, 0, 0, 0),
    # the kernel
    "finit_module": (-1, "=", 0),
    "delete_module": (1, 0),
    "kexec_load": (0, 0, 0, 0xFFFFFFFF),
    "bpf": (-1, "*16", 16),
    "perf_event_open": ("*8", 0, -1, -1, 0xFFFFFFFF),
    "userfaultfd": (0xFFFFFFF,),
    "io_uring_setup": (0, 0),
    "io_uring_enter": (-1, 0, 0, 0, 0, 0),
    "io_uring_register": (-1, 0, 0, 0),
    "fanotify_init": (0xFFFFFFF, 0),
    "syslog": (99, 0, 0),
    "reboot": (0, 0, 0, 0),
    "acct": (1,),
    "settimeofday": (1, 0),
    "clock_settime": (99, 0),
    "vmsplice": None,
    # keys
    "add_key": (1, 1, 0, 0, 0),
    "request_key": (1, 1, 0, 0),
    "keyctl": (99999, 0, 0, 0, 0),
    # files by their numbers (shocker)
    "name_to_handle_at": (AT_HERE, "=/nowhere", 0, 0, 0),
    "open_by_handle_at": (AT_HERE, 0, 0),
    # ports
    "ioperm": (0xFFFFFFFF, 1, 1),
    "iopl": (9,),
    "modify_ldt": (99, 0, 0),
    "sethostname": ("=x", -1),
    "setdomainname": ("=x", -1),
}
"""Calls that are refused whatever they are given; with what any kernel says no to as well."""


def test_nobody_hears_these_calls(cell: Cell) -> None:
    asked = [(name, *words) for name, words in NEVER.items() if words is not None]
    outside = cell.calls_outside(*asked)
    inside = cell.calls(*asked)
    heard = [call[0] for call, (_, error) in zip(asked, outside, strict=True) if error != EPERM]
    # Outside the kernel looks at what it is given, and finds that wrong.
    assert len(heard) > len(asked) * 0.8, set(NEVER) - set(heard)
    assert {
        call[0]: got for call, got in zip(asked, inside, strict=True) if got != (-1, EPERM)
    } == {}


NEW = {
    "mount": 0x20000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}


def test_there_are_no_namespaces_within(cell: Cell) -> None:
    """With a user namespace of one's own, one has all capabilities, in half of the kernel."""
    asked = [("clone", flag | signal.SIGCHLD, 0, 0, 0, 0) for flag in NEW.values()]
    assert set(cell.calls(*asked)) == {(-1, EPERM)}
    assert cell.calls(("clone", 0x10000000 | (1 << 32) | signal.SIGCHLD, 0, 0, 0, 0)) == [
        (-1, EPERM)
    ]
    assert cell.calls(("clone3", "*88", 88)) == [(-1, ENOSYS)], "so that libraries take clone"
    for kind in ("-r", "-m", "-n", "-p", "-u", "-i"):
        assert cell.run(["unshare", kind, "true"])[0] != 0


def test_sockets_are_those_of_the_internet_and_of_this_container(cell: Cell) -> None:
    kinds = {"alg": (38, 5), "vsock": (40, 1), "packet": (17, 3), "bluetooth": (31, 3)}
    kinds |= {"tipc": (30, 1), "xdp": (44, 3), "key": (15, 3), "can": (29, 3), "rds": (21, 5)}
    asked = [("socket", family, kind, 0) for family, kind in kinds.values()]
    # A family is a number of 32 bits: what stands before that is not looked at.
    asked += [("socket", family | (1 << 32), kind, 0) for family, kind in kinds.values()]
    assert any(result >= 0 for result, _ in cell.calls_outside(*asked)), "there are some"
    assert set(cell.calls(*asked)) == {(-1, EPERM)}
    for family in (socket.AF_INET, socket.AF_INET6):
        raw = ("socket", int(family), int(socket.SOCK_RAW), 255)
        assert cell.calls_outside(raw)[0][0] >= 0
        assert cell.calls(raw) == [(-1, EPERM)]


def test_the_other_two_ways_to_call_are_shut(cell: Cell) -> None:
    """What of old programs: 32 bits, and x32, have other numbers."""
    if os.uname().machine != "x86_64":
        pytest.skip("of x86_64 alone")
    getpid, mount = 20, 21
    assert cell.calls(("getpid",))[0][0] > 0
    for number in (getpid, mount):
        code, said = cell.run(["/tools/poke", "int80", str(number), "0", "0", "0"])
        assert code in (159, -31) or poke.answers(said)[0][0] == -1, (code, said)
    code, said = cell.run(["/tools/poke", str(0x40000000 + 39)])
    assert code in (159, -31) or poke.answers(said)[0][0] == -1, (code, said)


def test_addresses_stay_random(cell: Cell) -> None:
    assert cell.calls(("personality", 0x0040000)) == [(-1, EPERM)]  # ADDR_NO_RANDOMIZE
    assert cell.calls(("personality", 0x0100000)) == [(-1, EPERM)]  # MMAP_PAGE_ZERO
    assert cell.calls(("personality", 0xFFFFFFFF))[0] == (0, 0)


def test_it_offers_no_memory_to_be_merged(cell: Cell) -> None:
    """It could find out by the time that a write takes what others have in theirs (KSM)."""
    merge, mergeable, dontneed, no_new_privs = 67, 12, 4, 39
    for high in (0, 1 << 32, 1 << 63):  # the kernel looks at 32 bits
        assert cell.calls(("prctl", high | merge, 1)) == [(-1, EPERM)]
        assert cell.calls(("madvise", 0, 4096, high | mergeable)) == [(-1, EPERM)]
    mapped, given_back = cell.calls(
        ("mmap", 0, 4096, 3, 0x22, -1), ("madvise", "@0", 4096, dontneed)
    )
    assert mapped[0] > 0
    assert given_back == (0, 0)
    assert cell.calls(("prctl", no_new_privs, 0, 0, 0, 0)) == [(1, 0)]
    # Its first process was given no leave, either.
    assert "ksm_merge_any: no" in Path(f"/proc/{cell.pids[0]}/ksm_stat").read_text()


# Rights


def test_capabilities_are_those_that_are_meant(cell: Cell) -> None:
    numbers = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6}
    numbers |= {"SETUID": 7, "SETPCAP": 8, "NET_BIND_SERVICE": 10, "SYS_CHROOT": 18}
    numbers |= {"AUDIT_WRITE": 29, "SETFCAP": 31}
    assert {f"CAP_{name}" for name in numbers} == set(spec._CAPABILITIES)
    meant = f"{sum(1 << number for number in numbers.values()):016x}"
    for who in ("1", "self"):
        found = _fields(cell.says(f"cat /proc/{who}/status"))
        assert {found[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {meant}
        assert {found["CapInh"], found["CapAmb"]} == {"0" * 16}
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    somebody = _fields(cell.run("cat /proc/self/status", user="nobody")[1])
    assert {somebody[name] for name in ("CapPrm", "CapEff", "CapAmb")} == {"0" * 16}


def test_root_inside_is_nobody_outside(cell: Cell, neighbour: Cell) -> None:
    ranges = []
    for each in (cell, neighbour):
        with _exec(each, "exec sleep 20"):
            _until(lambda each=each: "sleep" in each.says("ps"))
            ids = {
                int(word)
                for pid in each.pids
                for kind in ("Uid", "Gid")
                for word in _fields(Path(f"/proc/{pid}/status").read_text())[kind].split()
            }
        assert len(ids) == 1, "it is root who runs there"
        ranges.append(ids.pop())
        mapping = Path(f"/proc/{each.pids[0]}/uid_map").read_text().split()
        assert [int(word) for word in mapping] == [0, ranges[-1], spec.RANGE]
        assert Path(f"/proc/{each.pids[0]}/gid_map").read_text().split() == mapping
    assert min(ranges) >= spec.FIRST_ID
    assert abs(ranges[0] - ranges[1]) >= spec.RANGE


def test_all_namespaces_are_its_own(cell: Cell, neighbour: Cell) -> None:
    def namespaces(pid: int | str) -> dict[str, str]:
        kinds = ("user", "pid", "mnt", "uts", "ipc", "cgroup", "net")
        return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds}

    here, one, other = namespaces("self"), namespaces(cell.pids[0]), namespaces(neighbour.pids[0])
    for kind in here:
        assert len({here[kind], one[kind], other[kind]}) == 3, kind
    with _exec(cell, "exec sleep 21"):
        _until(lambda: "sleep 21" in cell.says("ps"))
        assert namespaces(cell.pids[-1]) == one


def test_a_set_user_id_program_gives_nothing(cell: Cell) -> None:
    said = cell.says(
        "cp /bin/busybox /root/busybox; chmod 4755 /root/busybox; chmod 755 /root;"
        " stat -c '%a %u' /root/busybox"
    )
    assert said == "4755 0\n"
    assert cell.run(["/root/busybox", "id", "-u"], user="nobody") == (0, f"{NOBODY}\n")
    assert cell.run(["/root/busybox", "touch", "/root/x"], user="nobody")[0] != 0


def test_nobody_outside_comes_to_what_is_root_inside(cell: Cell) -> None:
    """On the disk its owner is the host's root, and its bit is set."""
    cell.run("cp /bin/busybox /root/busybox; chmod 4755 /root/busybox; chmod 755 /root")
    there = cell.place / "root/upper/root/busybox"
    status = there.stat()
    assert (status.st_uid, status.st_mode & 0o7777) == (0, 0o4755)
    assert subprocess.run([str(there), "id"], capture_output=True, check=False).returncode == 0
    pid = cell.pids[0]
    for path in (there, Path(f"/proc/{pid}/root/root/busybox"), Path(f"/proc/{pid}/cwd")):
        assert os.path.lexists(path)
        assert _as_nobody("ls", str(path)).returncode != 0
        assert _as_nobody(str(path), "id").returncode != 0


def test_what_it_was_told_is_no_secret_shared_with_the_host(
    house: House, mortal: Callable[..., Cell]
) -> None:
    own = mortal(environment_vars={"PASSWORD": "hunter2-x"})
    state = Path("/run/hoody") / house.server_id
    telling = [
        path
        for path in state.rglob("*")
        if path.is_file() and own.row["id"] in str(path) and b"hunter2-x" in path.read_bytes()
    ]
    assert telling, "the runtime has to be told"
    for path in telling:
        assert _as_nobody("cat", str(path)).returncode != 0, path


# The host's files


def test_a_file_of_root_outside_is_nowhere(cell: Cell, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of root")
    secret.chmod(0o644)
    tmp_path.chmod(0o755)
    found = cell.says(f"cat {secret} /proc/1/root{secret} /proc/self/root/../../../{secret} 2>&1")
    assert "of root" not in found
    assert found.count("No such file") == 3
    # A thousand levels up is still the container.
    up = "../" * 1300
    assert cell.says(f"cd /; ls {up} | head -3") == cell.says("ls / | head -3")
    # chroot(2) is allowed, and leads no further out (with a descriptor of outside it would).
    cell.run("mkdir -p /tmp/jail")
    answers = cell.calls(
        *(("open", "=/", 0x10000, 0), ("chroot", "=/tmp/jail"), ("fchdir", "@0")),
        *(("chroot", f"={up}"), ("open", f"={secret}", 0, 0), ("open", "=/bin/sh", 0, 0)),
    )
    assert [result >= 0 for result, _ in answers] == [True, True, True, True, False, True]


def test_mounts_show_only_what_was_given(cell: Cell) -> None:
    lines = [line.split() for line in cell.says("cat /proc/self/mounts").splitlines()]
    kinds = {"overlay", "proc", "tmpfs", "devpts", "mqueue", "sysfs", "devtmpfs", "btrfs"}
    files = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/dev/init"}
    for device, place, kind, options, *_ in lines:
        assert kind in kinds or place in files, (device, place, kind)
        if place in files:
            assert "ro" in options.split(",")
        if kind == "devtmpfs":
            assert place.startswith(("/dev/", "/proc/"))
    for path in files:
        assert cell.run(f"echo x >> {path}")[0] != 0
        assert cell.run(["rm", "-f", path])[0] != 0
    assert cell.run("echo x > /bin/busybox-x && ls -l /bin/busybox-x")[0] == 0, "its own it may"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/proc/sys/kernel/core_pattern", "|/bin/sh"),
        ("/proc/sys/kernel/modprobe", "/bin/sh"),
        ("/proc/sys/kernel/hotplug", "/bin/sh"),
        ("/proc/sys/kernel/panic", "1"),
        ("/proc/sys/vm/overcommit_memory", "1"),
        ("/proc/sys/vm/drop_caches", "1"),
        ("/proc/sys/fs/file-max", "1"),
        ("/proc/sys/net/ipv4/ip_forward", "1"),
        ("/proc/sysrq-trigger", "h"),
        ("/proc/irq/default_smp_affinity", "1"),
        ("/proc/1/oom_score_adj", "-1000"),
        ("/proc/self/uid_map", "0 0 1"),
        ("/proc/self/setgroups", "allow"),
        ("/proc/timer_list", None),
        ("/proc/kcore", None),
        ("/proc/kmsg", None),
        ("/proc/kallsyms", None),
        ("/proc/keys", None),
        ("/proc/kpageflags", None),
        ("/proc/slabinfo", None),
        ("/proc/1/mem", None),
        ("/sys/kernel/uevent_helper", "/bin/sh"),
        ("/sys/power/state", "mem"),
        ("/sys/kernel/mm/ksm/run", "1"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "never"),
        ("/sys/class/net/lo/mtu", "1"),
        ("/sys/firmware", None),
        ("/sys/kernel/debug", None),
        ("/sys/kernel/tracing", None),
        ("/sys/kernel/security", None),
    ],
)
def test_the_kernels_own_files(cell: Cell, path: str, text: str | None) -> None:
    """Nothing is written; what would tell is empty, or zeros."""
    there = Path(path)
    if not there.exists():
        pytest.skip("this kernel has none")
    before = _text(there) if text is not None and path.startswith("/proc/sys") else None
    if text is not None:
        assert cell.run(f"echo '{text}' > {path}")[0] != 0
        assert cell.run(f"rm -f {path}; mv /bin/sh {path}")[0] != 0
        if before is not None:
            assert _text(there) == before
        return
    if there.is_dir():
        assert cell.says(f"ls -A {path} 2>/dev/null") == ""
        return
    said = cell.says(f"head -c 4096 {path} 2>/dev/null")
    if path == "/proc/kallsyms":
        assert {line.split()[0].strip("0") for line in said.splitlines()[:-1]} <= {""}
    else:
        assert said == ""


def test_control_groups_are_out_of_reach(cell: Cell) -> None:
    """Neither raised limits nor a release_agent, which the host's root would run."""
    assert "cgroup" not in {
        line.split()[2]
        for line in cell.says("mount -t x; cat /proc/mounts").splitlines()
        if len(line.split()) > 2
    }
    for kind in ("cgroup", "cgroup2"):
        assert cell.run(f"mkdir -p /tmp/cg; mount -t {kind} -o memory none /tmp/cg")[0] != 0
        assert cell.run(["mount", "-t", kind, "none", "/tmp/cg"])[0] != 0
    assert cell.says("ls -A /sys/fs/cgroup") == ""
    for line in cell.says("cat /proc/self/cgroup").splitlines():
        place = line.rpartition(":")[2]
        assert place == "/" or place.startswith("/exec-"), "where it is, it is not told"
    assert cell.says("find / -xdev -name release_agent") == ""
    assert cell.run("ulimit -n 1048576")[0] != 0


# Devices


def test_devices_are_the_harmless_ones(cell: Cell) -> None:
    disk = os.stat(cell.house.data_dir).st_dev
    wanted = {
        "the disk": (0o60600, os.major(disk), os.minor(disk)),
        "loop": (0o60600, 7, 0),
        "kmsg": (0o20600, 1, 11),
        "mem": (0o20600, 1, 1),
        "port": (0o20600, 1, 4),
        "loop-control": (0o20600, 10, 237),
        "btrfs-control": (0o20600, 10, 234),
        "kvm": (0o20600, 10, 232),
        "fuse": (0o20600, 10, 229),
        "tun": (0o20600, 10, 200),
        "vhost-vsock": (0o20600, 10, 241),
        "userfaultfd": (0o20600, 10, 126),
        "even null": (0o20666, 1, 3),
    }
    for folder in ("/tmp", "/dev", "/dev/shm", "/run", "/tools"):  # inside
        asked = [
            ("mknod", f"={folder}/node", mode, (major << 8) | (minor & 0xFF))
            for mode, major, minor in wanted.values()
        ]
        assert set(cell.calls(*asked)) == {(-1, EPERM)}
    there = set(cell.says("cd /dev; find . -type c -o -type b").split())
    assert there <= {
        *(f"./{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")),
        "./pts/ptmx",
    }
    # One that stands in its files, however it came there, opens nothing.
    node = cell.place / "volume-tools/node"
    os.mknod(node, 0o60666, disk)
    above = cell.place / "root/upper/node"
    os.mknod(above, 0o20666, os.makedev(1, 11))
    try:
        assert cell.calls(("open", "=/tools/node", 0, 0)) == [(-1, EACCES)]
        assert cell.calls(("open", "=/node", 0, 0))[0][1] in (EACCES, EPERM)
    finally:
        node.unlink()
        above.unlink()


# Limits


def test_a_fork_bomb_stays_in_its_pot(mortal: Callable[..., Cell]) -> None:
    fuse = "b() { (b) & (b) & (b) & sleep 60; }; (sleep 0.3; b) & exec sleep 1000"
    bomb = mortal(memory_limit=768 * MEBI, command=fuse)
    limit = _limit(bomb, "pids.max")
    assert limit == spec.PIDS
    most = 0
    late = time.monotonic() + 10
    while most < limit * 0.95 and time.monotonic() < late:
        # The kernel's figure: a list of pids is read in pieces, while some end and others begin.
        most = max(most, _limit(bomb, "pids.current"))
    assert limit * 0.5 < most <= limit
    assert bomb.house.row(bomb.name)["status"] == "running"
    run("true")  # there is room outside
    begun = time.monotonic()
    assert bomb.house.operate(bomb.name, "force-stop").status == 200
    assert time.monotonic() - begun < 10
    assert not bomb.pids


def test_a_memory_bomb_kills_only_itself(mortal: Callable[..., Cell]) -> None:
    bomb = mortal(memory_limit=64 * MEBI)
    limit = _limit(bomb, "memory.limit_in_bytes", "memory.max")
    assert limit == 64 * MEBI
    assert bomb.run(["/tools/poke", "eat", str(16 * MEBI)])[0] == 0, "it does eat"
    first = bomb.pids[0]
    assert bomb.run(["/tools/poke", "eat", str(256 * MEBI)])[0] in (137, -9)
    # Many small ones are as one.
    eaters = "for i in $(seq 20); do /tools/poke eat 8000000 -- nanosleep %0100000000000000 & done"
    bomb.run(f"{eaters}; wait")
    # What is in file systems of memory counts.
    for path in ("/dev/shm", "/run"):  # inside
        bomb.run(f"dd if=/dev/zero of={path}/x bs=1M count=200 2>/dev/null")
    peak = _limit(bomb, "memory.max_usage_in_bytes", "memory.peak")
    assert peak <= limit
    # The kernel chooses who is killed; if it is the first process, that is said.
    if first not in bomb.pids:
        failed = bomb.house.until(bomb.name, status="failed")
        assert "signal 9" in failed["status_reason"]


def test_a_disk_filler_is_stopped(mortal: Callable[..., Cell]) -> None:
    filler = mortal(disk_limit=24 * MEBI, volumes=[{"name": "data", "path": "/data"}])
    pool = filler.house.pool
    before = shutil.disk_usage(pool).free
    for folder in ("/root", "/data"):
        code, said = filler.run(f"dd if=/dev/urandom of={folder}/big bs=1M count=48 && sync")
        assert code != 0
        assert "quota" in said
        # Folders and empty files take room, too, and room that is only set aside.
        code, _ = filler.run(
            [
                "/tools/poke",
                *poke.words(
                    ("open", f"={folder}/room", 0o101, 420), ("fallocate", "@0", 0, 0, 1 << 30)
                ),
            ]
        )
        assert code == 0
    run("sync", "-f", str(pool))
    assert before - shutil.disk_usage(pool).free < 100 * MEBI


def test_no_subvolume_within_a_volume(mortal: Callable[..., Cell]) -> None:
    """It would have a limit of its own: none; and a volume with one in it is not deleted."""
    own = mortal(volumes=[{"name": "data", "path": "/data"}])
    create, snapshot, create_v2, snapshot_v2 = 0x5000940E, 0x50009401, 0x50009418, 0x50009417
    argument = "%" + (bytes(8) + b"within").hex().ljust(4096 * 2, "0")
    made = [
        own.calls(("open", "=/data", 0x10000, 0), ("ioctl", "@0", request, argument))[1]
        for request in (create, snapshot, create_v2, snapshot_v2)
    ]
    assert not (own.place / "volume-data/within").exists()
    assert set(made) == {(-1, EPERM)}
    own.house.delete(own.name)
    assert not own.place.parent.exists()


def test_a_processor_hog_leaves_the_rest(mortal: Callable[..., Cell]) -> None:
    hog = mortal(cpu_limit=0.2, command="for i in 1 2 3 4; do while :; do :; done & done; wait")
    _until(lambda: len(hog.pids) >= 5)

    def used() -> int:
        stats = hog.house.api.get(f"/containers/{hog.name}/stats").data
        return int(stats["cpu"]["usage_ns"])

    time.sleep(0.3)
    before, begun = used(), time.monotonic()
    time.sleep(1)
    part = (used() - before) / 1e9 / (time.monotonic() - begun)
    assert 0.1 < part < 0.35


def test_open_files_have_an_end(cell: Cell) -> None:
    most = int(cell.says("ulimit -Hn"))
    assert most <= spec.OPEN_FILES
    dup = 32 if os.uname().machine == "x86_64" else 23
    assert cell.calls(("repeat", most + 10, dup, 0))[0][0] == most - 3


def test_a_log_fills_no_disk(mortal: Callable[..., Cell]) -> None:
    """Neither by random data, which nothing compresses, nor so that it never says a word again."""
    noise = "head -c 2000000 /dev/urandom | base64 > /run/noise; i=0"
    more = "while [ $i -lt 400 ]; do cat /run/noise 2>/dev/null; i=$((i+1)); done"
    last = "echo; until echo the last word; do sleep 0.1; done 2>/dev/null"
    loud = mortal(command=f"{noise}; {more}; {last}; sleep 1000")
    pool = loud.house.pool
    before, most = shutil.disk_usage(pool).free, 0

    def ended() -> bool:
        nonlocal most
        most = max(most, before - shutil.disk_usage(pool).free)
        return "the last word" in loud.house.api.get(f"/containers/{loud.name}/logs?tail=1").body

    _until(ended, 30)
    assert (loud.place.parent / "output/log").stat().st_size > 32 * MEBI, "there was much"
    # Another may be written before what was given back is committed.
    assert most < 3 * LOG_ROOM


# The network


def test_the_servers_loopback_is_not_its_own(cell: Cell) -> None:
    port = cell.house.server.port
    assert run("curl", "-sS", f"http://127.0.0.1:{port}/health")
    for address in ("127.0.0.1", "[::1]", "0.0.0.0", "localhost"):
        assert cell.run(f"timeout 2 wget -qO- http://{address}:{port}/health")[0] != 0
    assert set(cell.says("ls /sys/class/net").split()) == {"lo"}
    assert cell.says("cat /proc/net/route | wc -l") == "1\n"


def test_sockets_without_a_name_in_the_file_system(cell: Cell) -> None:
    """Abstract ones are of a network namespace."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("\0hoody-attack")
        listening.listen()
        address = "%" + (b"\x01\x00\0hoody-attack").hex()
        asked = (("socket", 1, 1, 0), ("connect", "@0", address, 15))
        assert cell.calls_outside(*asked)[1] == (0, 0)
        assert cell.calls(*asked)[1][0] == -1
    assert "hoody-attack" not in cell.says("cat /proc/net/unix")


def test_the_databases_socket(cell: Cell) -> None:
    words = dict(word.split("=", 1) for word in os.environ["HOODY_DATABASE"].split())
    path = Path(words["host"]) / ".s.PGSQL.5432"
    assert path.is_socket()
    address = "%" + (b"\x01\x00" + os.fsencode(path)).hex()
    asked = (("socket", 1, 1, 0), ("connect", "@0", address, len(os.fsencode(path)) + 2))
    assert cell.calls_outside(*asked)[1] == (0, 0)
    assert cell.calls(*asked)[1] == (-1, ENOENT)
    for command in (["env"], ["cat", "/proc/1/environ"], ["cat", "/proc/1/cmdline"]):
        assert words["host"] not in cell.run(command)[1]


def test_its_network_is_not_its_to_change(cell: Cell) -> None:
    for command in (
        "ip link set lo down",
        "ip link add dummy0 type dummy",
        "ip link set lo netns 1",
        "ip addr add 10.9.8.7/24 dev lo",
        "ip route add default via 127.0.0.1",
    ):
        assert cell.run(command)[0] != 0, command
    assert "UP" in cell.says("ip link show lo")


def test_neighbours_do_not_reach_each_other(mortal: Callable[..., Cell]) -> None:
    """By their addresses, which each has on the host; nor does any reach the host by its own."""
    if machine.program("nft") is None:
        pytest.skip("nft is missing: there is no way out then")
    one, other = mortal(egress="nat"), mortal(egress="nat")
    address = other.says("ip -4 -o addr show scope global").split()[3].partition("/")[0]
    _until(lambda: "It runs" in other.says("timeout 2 wget -qO- http://127.0.0.1:8080/"))
    assert ":::8080" in other.says("netstat -ltn"), "it listens on all that it has"
    assert one.run(f"timeout 2 wget -qO- http://{address}:8080/")[0] != 0
    with socket.create_server(("0.0.0.0", 0)) as listening:
        port = listening.getsockname()[1]
        gates = one.says("ip route | cut -d' ' -f3").split()
        hosts = {*gates, *run("hostname", "-I").split(), "127.0.0.1"}
        for host in hosts:
            assert one.run(f"nc -w 1 {host} {port} </dev/null")[0] != 0, host
        listening.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listening.accept()
    for command in ("ip link set eth0 netns 1", "ip addr add 198.18.0.99/32 dev eth0"):
        assert one.run(command)[0] != 0


# Processes


def test_nobody_outside_is_seen_or_signalled(cell: Cell, neighbour: Cell) -> None:
    sleeping = subprocess.Popen(["sleep", "1000"])
    try:
        assert Path(f"/proc/{sleeping.pid}").exists()
        victims = [sleeping.pid, cell.house.server.pid, *neighbour.pids]
        seen = {int(word) for word in cell.says("ls /proc").split() if word.isdigit()}
        assert len(seen) < 10
        # Numbers are given anew when they have come to their end, inside and outside.
        victims = [pid for pid in victims if pid not in seen]
        assert victims
        asked: list[tuple[object, ...]] = [("kill", pid, 9) for pid in victims]
        asked += [("pidfd_open", pid, 0) for pid in victims]
        for result, error in cell.calls(*asked):
            assert (result, error) in ((-1, 3), (-1, EPERM))
        cell.calls(("kill", -1, signal.SIGCONT))
        assert sleeping.poll() is None
    finally:
        sleeping.kill()
        sleeping.wait()


def test_nothing_of_the_servers_is_open_in_it(cell: Cell) -> None:
    first = cell.says("cd /proc/1/fd; for i in *; do echo $i $(readlink $i); done")
    assert sorted(line.split()[0] for line in first.splitlines()) == ["0", "1", "2"]
    assert "0 /dev/null" in first
    mine = cell.says(
        "cd /proc/$$/fd; for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13; do [ -e $i ] && echo $i; done"
    )
    assert [word for word in mine.split() if int(word) < 10] == ["0", "1", "2"]
    for pid in cell.pids:
        for each in Path(f"/proc/{pid}/fd").iterdir():
            goal = os.readlink(each)
            assert goal == "/dev/null" or goal.endswith("/log") or "socket:[" in goal, goal
    assert cell.calls(("open", "=/dev/tty", 2, 0))[0][0] == -1, "no terminal of anybody's"


def test_its_variables_are_the_ones_that_were_meant(cell: Cell) -> None:
    assert os.environ["HOODY_DATABASE"]
    first = set(cell.says("tr '\\0' '\\n' < /proc/1/environ | cut -d= -f1").split())
    assert first <= {"PATH", "HOME", *cell.row["environment_vars"]} | {
        name for name in first if name.startswith("HOODY_") and "DATABASE" not in name
    }
    mine = set(cell.says("env | cut -d= -f1").split())
    assert mine <= first | {"PWD", "SHLVL", "OLDPWD", "TERM"}


def test_its_log_is_not_its_to_take(cell: Cell) -> None:
    """It has a descriptor of a file that lies outside, to write to its end."""
    for request in (0x40086602, 0x401C5820):  # FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR
        assert cell.calls(("open", "=/proc/1/fd/1", 1, 0), ("ioctl", "@0", request, "*64"))[0][
            1
        ] in (EACCES, ENOENT)
    assert cell.calls(("open", "=/proc/1/fd/1", 0, 0))[0][0] == -1
    assert cell.calls(("open", "=/proc/1/fd/1", 2, 0))[0][0] == -1


def test_the_runtime_is_not_overwritten(cell: Cell) -> None:
    """CVE-2019-5736: what is run in it is the runtime for a moment."""
    runtime = shutil.which("runc", path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert runtime is not None
    before = hashlib.sha256(Path(runtime).read_bytes()).hexdigest()
    cell.run("printf '#!/proc/self/exe\\n' > /root/evil; chmod 755 /root/evil")
    with _exec(
        cell,
        "while :; do for p in /proc/[0-9]*; do l=$(readlink $p/exe); case $l in *runc*|*memfd*)"
        " echo found $l; (echo evil > $p/exe) 2>/dev/null && echo wrote;; esac; done; done",
    ) as watching:
        for _ in range(6):
            cell.run(["/root/evil"], timeout_seconds=3)
        watching.kill()
        said = watching.communicate()[0].decode()
    assert "wrote" not in said
    assert hashlib.sha256(Path(runtime).read_bytes()).hexdigest() == before
    assert cell.run("true")[0] == 0


# What the server does with what is in it


@pytest.mark.parametrize(
    "lie",
    [
        "echo 0 --cap CAP_SYS_ADMIN; echo 0",
        "echo -1; echo 0",
        "echo 99999999999999999999; echo 0",
        "echo --root=/; echo 0",
        "exec yes",
        "sleep 1000 & echo 0; echo 0",
    ],
)
def test_exec_asks_a_container_that_lies(mortal: Callable[..., Cell], lie: str) -> None:
    """Who is nobody? Its sh is its own, and so are all its programs."""
    liar = mortal()
    script = f"#!/bin/busybox sh\n{lie}\n"
    cut = ["/bin/busybox", "sh", "-c", 'rm /bin/sh; printf %s "$0" >/bin/sh; chmod 755 /bin/sh']
    assert liar.run([*cut, script])[0] == 0
    process = liar.house.server
    process.forget_peak()
    before, begun = process.resident(), time.monotonic()
    answer = liar.house.api(
        "POST",
        f"/containers/{liar.name}/exec",
        {"command": ["/bin/busybox", "cat", "/proc/self/status"], "user": "nobody"},
    )
    assert answer.status == 400, answer.body
    assert "nobody in the container" in answer.error
    assert time.monotonic() - begun < 9
    assert process.resident() - before < 30 * MEBI


SECRET = "the host's own"


@pytest.mark.parametrize(
    "planted",
    [
        ("/etc/passwd", "{secret}"),
        ("/etc", "{folder}"),
        ("/data", "/"),
        ("/data", "../../../../../../../../{folder}"),
        ("/tools/sub", "{folder}"),
    ],
)
def test_links_that_were_planted_lead_nowhere_outside(
    mortal: Callable[..., Cell], tmp_path: Path, planted: tuple[str, str]
) -> None:
    """Not by a restart, a command, a copy, a look at logs or figures, nor by the end of it."""
    secret = tmp_path / "secret"
    secret.write_text(f"root:x:0:0:{SECRET}:/:/bin/sh\n")
    secret.chmod(0o644)
    before = _portrait(tmp_path)
    own = mortal(
        volumes=[{"name": "sub", "path": "/tools/sub"}, {"name": "data", "path": "/data"}]
    )
    # While it runs it has mounts there: it is done to its files as they are on the disk.
    own.house.operate(own.name, "stop")
    upper = own.place / "root/upper"
    inside, goal = planted
    at = upper / inside[1:]
    if inside.startswith("/tools/"):
        at = own.place / "volume-tools" / inside[7:]
    if at.is_dir() and not at.is_symlink():
        shutil.rmtree(at)
    at.unlink(missing_ok=True)
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(goal.format(secret=secret, folder=tmp_path))
    house = own.house
    started = house.operate(own.name, "start")
    said = started.body
    if started.status == 200:
        said += own.says("cat /etc/passwd /etc/group /data/secret /root/secret /var/secret 2>&1")
        said += own.says("echo written > /data/new; echo written > /tools/sub/new; ls /data")
        answer = house.api(
            "POST", f"/containers/{own.name}/exec", {"command": ["id"], "user": "nobody"}
        )
        said += answer.body
    for path in ("logs", "stats"):
        answer = house.api.get(f"/containers/{own.name}/{path}")
        assert answer.status == 200
        said += answer.body
    copied = house.api("POST", f"/containers/{own.name}/copy", {"name": f"{own.name}-b"})
    said += copied.body
    assert SECRET not in said
    for name in (own.name, f"{own.name}-b"):
        if name in house.names:
            house.delete(name)
    assert _portrait(tmp_path) == before


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        *(("proc", kind) for kind in ("link", "host", "file")),
        *(("dev", kind) for kind in ("link", "host", "fifo")),
        *(("sys", "host"), ("run", "host"), ("etc/hosts", "fifo")),
        *(("etc/resolv.conf", kind) for kind in ("host", "folder")),
    ],
)
def test_mount_points_that_are_something_else(
    mortal: Callable[..., Cell], tmp_path: Path, place: str, kind: str
) -> None:
    """It starts, all its own in its place, or it does not and says so."""
    target = tmp_path / "target"
    target.write_text("as it was")
    before = _portrait(tmp_path)
    own = mortal()
    own.house.operate(own.name, "stop")
    at = own.place / "root/upper" / place
    at.parent.mkdir(exist_ok=True)
    shutil.rmtree(at) if at.is_dir() else at.unlink(missing_ok=True)
    {
        "link": lambda: at.symlink_to("/tmp"),
        "host": lambda: at.symlink_to(target if "." in place else tmp_path),
        "folder": at.mkdir,
        "file": lambda: at.write_text("x"),
        "fifo": lambda: os.mkfifo(at),
    }[kind]()
    begun = time.monotonic()
    answer = own.house.operate(own.name, "start")
    assert time.monotonic() - begun < 10
    if answer.status == 200:
        found = own.says("cat /proc/mounts; echo 1 >/proc/sys/kernel/panic; ls /sys/fs/cgroup /")
        assert "proc /proc proc rw,nosuid,nodev,noexec" in found or place == "proc"
        assert "/proc/sys proc ro" in found
        assert own.run("echo 1 > /proc/sys/kernel/panic")[0] != 0
    else:
        assert answer.status == 503
        assert own.row["name"] in answer.error
    assert _portrait(tmp_path) == before


def test_a_list_of_users_that_never_ends(mortal: Callable[..., Cell]) -> None:
    """The runtime reads it, inside: one that waits for ever, and one without an end."""
    own = mortal()
    own.run("rm /etc/passwd; mkfifo /etc/passwd")
    begun = time.monotonic()
    answer = own.house.api(
        "POST", f"/containers/{own.name}/exec", {"command": ["true"], "timeout_seconds": 1}
    )
    assert json.loads(answer.body.splitlines()[-1])["exit_code"] == 124
    assert time.monotonic() - begun < 8
    assert own.house.operate(own.name, "force-stop").status == 200
    assert not own.pids


def test_deep_folders_and_odd_names_are_counted_and_deleted(mortal: Callable[..., Cell]) -> None:
    own = mortal()
    own.run(
        "cd /root; i=0; while [ $i -lt 1500 ]; do mkdir d && cd d || break; i=$((i+1)); done;"
        ' cd /root; touch "$(printf "a\nb")" "$(printf "\377\376")" "$(seq -s x 60)" "; rm -rf x"'
    )
    answer = own.house.api.get(f"/containers/{own.name}/stats")
    assert answer.status == 200, answer.body
    own.house.delete(own.name)
    assert not own.place.parent.exists()


def _portrait(place: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that could have been changed below a folder."""
    return {
        str(path): (
            path.lstat().st_mode,
            path.lstat().st_uid,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(place.rglob("*"))
    }


# Helpers


def _fields(text: str) -> dict[str, str]:
    return {
        name: rest.strip() for name, _, rest in (line.partition(":") for line in text.splitlines())
    }


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text("utf-8", "replace")
    return ""


def _limit(cell: Cell, *names: str) -> int:
    """What stands in a file of its control group."""
    root = Path("/sys/fs/cgroup")
    for hierarchy in (root, *root.iterdir()):
        for name in names:
            place = hierarchy / "hoody" / cell.house.server_id / str(cell.row["id"]) / name
            if place.exists():
                return int(place.read_text())
    raise AssertionError(f"there is no {names}")


def _as_nobody(*words: str) -> subprocess.CompletedProcess[bytes]:
    """What an unprivileged user of the host gets."""
    try:
        return subprocess.run(
            words, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False
        )
    except PermissionError:
        return subprocess.CompletedProcess(words, 126)


@contextlib.contextmanager
def _exec(cell: Cell, command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that goes on meanwhile."""
    url = f"{cell.house.server.url}/api/v1/containers/{cell.name}/exec"
    body = json.dumps({"command": command, "timeout_seconds": 30})
    with subprocess.Popen(
        ["curl", "-sN", "-H", f"Authorization: Bearer {cell.house.api.token}", "-d", body, url],
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _until(true: Any, seconds: float = 10) -> None:
    late = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < late
        time.sleep(0.05)
