"""What an OCI runtime is told of a container (OCI runtime specification 1.0.2)."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any

from attrs import frozen

from hoody.containers.container import Container

RANGE = 65536
"""How many user ids a container has for itself."""
FIRST_ID = 1 << 20
"""Where the ranges begin, if nobody says: above what systems give to people and services."""
INIT = "/dev/init"
"""Where the small program stands that reaps and passes on signals, as a first process must."""
PIDS = 1024
OPEN_FILES = 65536
MEMORY = 1 << 30
"""Bytes of memory for a container that says nothing of it."""

_CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP"),
        *("SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "AUDIT_WRITE"),
    )
]
_MASKED = [
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys"),
    *("/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list"),
    *("/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"),
]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@frozen(kw_only=True)
class Surroundings:
    """
    What the machine gives.

    @ivar bundle: the runtime's folder for this container.
    @ivar cgroup: its path below the root of each hierarchy.
    @ivar init: the program that is to be the first process, or C{None}.
    @ivar files: what stands at paths inside, read-only, by their paths here.
    @ivar environment: what every container finds in it.
    @ivar open_files: how many it may have.
    @ivar first_id: where the range of its ids begins, as the host sees them.
    """

    bundle: str
    cgroup: str
    init: str | None
    files: dict[str, str]
    environment: dict[str, str]
    open_files: int
    first_id: int


def specification(container: Container, around: Surroundings) -> dict[str, Any]:
    """What stands in C{config.json}."""
    mapping = [
        {"containerID": 0, "hostID": around.first_id, "size": RANGE},
    ]
    return {
        "ociVersion": "1.0.2",
        "hostname": container.host_label,
        "root": {"path": f"{around.bundle}/rootfs", "readonly": False},
        "process": {
            "terminal": False,
            "user": {"uid": container.user_id, "gid": container.group_id},
            "args": _arguments(container, around),
            "env": environment(container, around),
            "cwd": container.working_dir,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
            "noNewPrivileges": True,
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "hard": around.open_files, "soft": around.open_files},
                {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
            ],
        },
        "mounts": [*_mounts(), *_given_mounts(container, around)],
        "linux": {
            "namespaces": [
                {"type": kind}
                for kind in ("user", "pid", "mount", "uts", "ipc", "cgroup", "network")
            ],
            "uidMappings": mapping,
            "gidMappings": mapping,
            "cgroupsPath": around.cgroup,
            "resources": _resources(container),
            "seccomp": seccomp(),
            "maskedPaths": _MASKED,
            "readonlyPaths": _READ_ONLY,
        },
    }


def environment(container: Container, around: Surroundings) -> list[str]:
    """Of the image first, then ours, then what was said of this container."""
    words = {
        "PATH": PATH.partition("=")[2],
        "HOME": "/root" if container.user_id == 0 else "/",
        **container.image_environment,
        **around.environment,
        **container.environment_vars,
    }
    return [f"{name}={value}" for name, value in words.items()]


def _arguments(container: Container, around: Surroundings) -> list[str]:
    command = list(container.run)
    return [INIT, "--", *command] if around.init else command


def _mounts() -> list[dict[str, Any]]:
    strict = ["nosuid", "noexec", "nodev"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": strict},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=64k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        },
        {
            "destination": "/dev/shm",  # noqa: S108  # the container's own
            "type": "tmpfs",
            "source": "shm",
            "options": [*strict, "mode=1777", "size=64m"],
        },
        {
            "destination": "/dev/mqueue",
            "type": "mqueue",
            "source": "mqueue",
            "options": strict,
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*strict, "ro"]},
        {
            "destination": "/run",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=755", "size=16m"],
        },
    ]


def _given_mounts(container: Container, around: Surroundings) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {
            "destination": volume.path,
            "type": "bind",
            "source": f"{around.bundle}/volume-{volume.name}",
            "options": ["bind", "nosuid", "nodev"],
        }
        for volume in container.volumes
    ]
    files = dict(around.files)
    if around.init:
        files[INIT] = around.init
    mounts += [
        {
            "destination": inside,
            "type": "bind",
            "source": source,
            "options": ["bind", "ro", "nosuid", "nodev"],
        }
        for inside, source in files.items()
    ]
    return mounts


def _resources(container: Container) -> dict[str, Any]:
    memory = container.memory_limit or MEMORY
    found: dict[str, Any] = {
        "devices": [{"allow": False, "access": "rwm"}],
        "memory": {"limit": memory},
        "pids": {"limit": PIDS},
        "cpu": {"shares": 1024},
    }
    if container.cpu_limit is not None:
        found["cpu"] |= {"period": 100_000, "quota": round(container.cpu_limit * 100_000)}
    return found


@lru_cache
def seccomp() -> dict[str, Any]:
    """What the kernel does not do for a container, whoever asks in it."""
    text = resources.files("hoody.containers").joinpath("seccomp.json").read_text("utf-8")
    profile: dict[str, Any] = json.loads(text)
    return profile
