"""A container: what is known of it, and what it may be called."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Any

from attrs import field, frozen

PORT = 8080
"""The main port of a container that says nothing of it."""
DOOR_PORT = 1008
"""
The port inside where the server listens for the container's own programs. Unassigned by IANA;
and below 1024, so that inside, too, it takes the right to bind such ports to sit on it while
no server is there.
"""
RESERVED = frozenset({"api", "pipe", "cron", "containers"})
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_IDENTITY = re.compile(r"[0-9a-f]{24}")


class Status(StrEnum):
    """As the contract has them."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    FAILED = "failed"
    COPYING = "copying"
    DELETING = "deleting"


IDLE = "idle"
"""Why a container stands still to whom nobody has come for a while."""
MANUAL = "manual"
"""Why a container does not run whom somebody has stopped or paused."""


@frozen
class Volume:
    """
    @ivar name: one DNS label.
    @ivar path: absolute, where it is inside.
    """

    name: str
    path: str


@frozen(kw_only=True)
class Incarnation:
    """
    One run of a container, found again by whoever comes after us.

    @ivar pid: of its first process, as the host sees it.
    @ivar started: when that began, in clock ticks since boot (proc(5), stat, 22): a pid
        alone may be another's by now.
    @ivar boot: the machine's boot that this is of.
    @ivar network: the inode of its network namespace.
    """

    pid: int
    started: int
    boot: str
    network: int


@frozen(kw_only=True)
class Container:
    """
    @ivar name: and C{alias}: as they were given; L{label} is how hosts have them.
    @ivar command: what was asked for; C{None} for what the image does by itself.
    @ivar status_reason: C{manual}, or why it failed.
    @ivar pending: the operation that is being done, if one is.
    @ivar last_used_snapshot: the name of the one that was put back last.
    @ivar number: which range of user ids, and which addresses, are its own on its server.
    @ivar incarnation: of the run that is, or was last.
    @ivar image_config: what the image says of itself, as of when this was created.
    """

    id: str
    project_id: str
    server_id: str
    name: str
    alias: str | None = None
    color: str | None = None
    comment: str | None = None
    container_image: str
    image_id: str
    image_config: dict[str, Any] = field(factory=dict)
    command: tuple[str, ...] | None = None
    port: int = PORT
    exposed_ports: tuple[int, ...] = ()
    environment_vars: dict[str, str] = field(factory=dict)
    volumes: tuple[Volume, ...] = ()
    ssh_public_key: str | None = None
    autostart: bool = True
    idle_timeout_seconds: int | None = None
    access: str = "public"
    egress: str = "nat"
    memory_limit: int | None = None
    disk_limit: int | None = None
    cpu_limit: float | None = None
    status: Status = Status.CREATING
    status_reason: str | None = None
    pending: str | None = None
    idle_since: datetime | None = None
    last_activity_at: datetime | None = None
    wake_count: int = 0
    last_wake_ms: float | None = None
    source_container_id: str | None = None
    last_used_snapshot: str | None = None
    number: int
    incarnation: Incarnation | None = None
    created_at: datetime
    updated_at: datetime

    @property
    def host_label(self) -> str:
        """What it is called in host names."""
        return label(self.name)

    @property
    def run(self) -> tuple[str, ...]:
        """What is run in it."""
        return self.command or tuple(self.image_config.get("command") or ()) or ("/bin/sh",)

    @property
    def image_environment(self) -> dict[str, str]:
        return dict(self.image_config.get("environment_vars") or {})

    @property
    def working_dir(self) -> str:
        return str(self.image_config.get("working_dir") or "/")

    @property
    def user_id(self) -> int:
        return _number(self.image_config.get("user"), 0)

    @property
    def group_id(self) -> int:
        return _number(self.image_config.get("user"), 1)

    @property
    def ports(self) -> frozenset[int]:
        """Those that may be reached from outside."""
        return frozenset((self.port, *self.exposed_ports))

    @property
    def labels(self) -> dict[str, str]:
        """What it answers to, each with what that is."""
        found = {self.id: "id", label(self.name): "name"}
        if self.alias is not None:
            found.setdefault(label(self.alias), "alias")
        return found


def _number(user: object, place: int) -> int:
    """Of C{uid:gid}; names are looked up when the image is made."""
    parts = str(user or "0").split(":")
    text = parts[place] if place < len(parts) else "0"
    return int(text) if text.isdigit() else 0


def label(name: str) -> str:
    """How a host name has it."""
    return name.lower().replace("_", "-")


def fault_of(name: str, least: int = 3) -> str | None:
    """What is wrong with a name, as the end of a sentence; C{None} if nothing is."""
    if not least <= len(name) <= 63:
        return f"give {least} to 63 characters"
    if not _LABEL.fullmatch(label(name)):
        return (
            "give letters, digits, - and _, with a letter or digit first and last, as it is a"
            " part of a host name"
        )
    if label(name) in RESERVED:
        return "that is a host of our own; choose another"
    if _IDENTITY.fullmatch(label(name)):
        return "it could be taken for an id; choose another"
    return None
