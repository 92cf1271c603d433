"""What is said of a container, by clients and to them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from hoody.resources.api.operations import Pagination, Paging
from hoody.resources.api.projects import Color, Seconds
from hoody.resources.api.reading import whole

Name = Annotated[
    str,
    Meta(
        max_length=63,
        description="3 to 63 letters, digits, - and _, a letter or digit first and last",
    ),
]
Alias = Annotated[
    str,
    Meta(
        max_length=63,
        description="1 to 63 letters, digits, - and _, a letter or digit first and last",
    ),
]
ImageName = Annotated[
    str, Meta(min_length=1, max_length=63, pattern=whole(r"[^\x00]*"), description="an image")
]
Port = Annotated[int, Meta(ge=1, le=65535)]
Ports = Annotated[list[Port], Meta(max_length=64)]
Word = Annotated[
    str,
    Meta(
        max_length=131072,
        pattern=whole(r"[^\x00]*"),
        description="a text without NUL",
    ),
]
Command = Annotated[list[Word], Meta(min_length=1, max_length=1024)]
Script = Annotated[
    str,
    Meta(
        # No pattern: msgspec 0.22.0 frees it too often, in a schema of "this or a list".
        min_length=1,
        max_length=131072,
        description="a command for /bin/sh -c, or a list of words",
    ),
]
_NO_NUL = whole(r"[^\x00]*")
Text = Annotated[str, Meta(max_length=500, pattern=_NO_NUL, description="a text without NUL")]
Key = Annotated[str, Meta(max_length=65536, pattern=_NO_NUL, description="a text without NUL")]
Memory = Annotated[int, Meta(ge=8 << 20, le=1 << 50, description="bytes, at least 8 MiB")]
Disk = Annotated[
    int,
    Meta(
        ge=16 << 20,
        le=1 << 60,
        description=(
            "bytes, at least 16 MiB, that its root and all its volumes may take together, as"
            " compressed; what a copy shares counts for the one that wrote it. With less than"
            " there is, nothing is lost: it can write again when enough has been deleted"
        ),
    ),
]
Cores = Annotated[float, Meta(ge=0.01, le=4096, description="cores")]
Access = Literal["public", "token"]
Egress = Literal["nat", "none"]


class VolumeForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A folder that is the container's own, and outlives what is above its image."""

    name: Annotated[
        str,
        Meta(
            pattern=whole("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"),
            description="1 to 63 lower-case letters, digits and -",
        ),
    ]
    path: Annotated[
        str,
        Meta(
            max_length=1024,
            pattern=whole(r"/[^\x00-\x1f\x7f]+"),
            description="an absolute path inside, such as /data",
        ),
    ]


Volumes = Annotated[
    list[VolumeForm],
    Meta(
        max_length=32,
        description=(
            "at most 32; one that is no longer named is kept, with all that is in it, and found"
            " again when it is named again; all are deleted with the container"
        ),
    ),
]
Ignored = Any


class NewContainer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A container that is to be; what is not said is made up, or as usual."""

    name: Name | None = None
    alias: Alias | None = None
    container_image: ImageName = "busybox"
    command: Command | Script | None = None
    port: Port | None = None
    exposed_ports: Ports = []
    environment_vars: dict[str, Word] = {}
    volumes: Volumes = []
    ssh_public_key: Key | None = None
    comment: Text | None = None
    color: Color | None = None
    autostart: bool = True
    idle_timeout_seconds: Seconds | None = None
    access: Access = "public"
    egress: Egress = "nat"
    memory_limit: Memory | None = None
    disk_limit: Disk | None = None
    cpu_limit: Cores | None = None
    start: bool = True
    kvm: bool = False
    server_id: Ignored = None
    ai: Ignored = None
    hoody_kit: Ignored = None
    dev_kit: Ignored = None
    ramdisk: Ignored = None
    cache: Ignored = None
    cache_image: Ignored = None
    prespawn: Ignored = None
    bypass_prespawn: Ignored = None
    realm_ids: Ignored = None


class ContainerChange(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """
    What can be said of a container; what is left out stays. Command, ports inside,
    environment, volumes and limits of memory and CPU count from its next start.
    """

    name: Name | UnsetType = UNSET
    alias: Alias | UnsetType | None = UNSET
    command: Command | Script | UnsetType | None = UNSET
    port: Port | UnsetType = UNSET
    exposed_ports: Ports | UnsetType = UNSET
    environment_vars: dict[str, Word] | UnsetType = UNSET
    volumes: Volumes | UnsetType = UNSET
    ssh_public_key: Key | UnsetType | None = UNSET
    comment: Text | UnsetType | None = UNSET
    color: Color | UnsetType | None = UNSET
    autostart: bool | UnsetType = UNSET
    idle_timeout_seconds: Seconds | UnsetType | None = UNSET
    access: Access | UnsetType = UNSET
    egress: Egress | UnsetType = UNSET
    memory_limit: Memory | UnsetType | None = UNSET
    disk_limit: Disk | UnsetType | None = UNSET
    cpu_limit: Cores | UnsetType | None = UNSET


class Copy(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`source_snapshot`, by name or alias: what it is to have; else what the source has now."""

    target_project_id: Text | None = None
    name: Name | None = None
    source_snapshot: Text | None = None


class Deletion(msgspec.Struct, kw_only=True):
    """`force`: though a snapshot is pinned."""

    force: bool = False


class ContainerRow(msgspec.Struct, kw_only=True):
    id: str
    project_id: str
    project_alias: str
    server_id: str
    server_name: str
    user_id: str
    realm_ids: list[str]
    name: str
    alias: str | None
    color: str | None
    container_image: str
    command: list[str] | None
    port: int
    exposed_ports: list[int]
    status: str
    status_reason: str | None
    idle_since: datetime | None
    last_activity_at: datetime | None
    wake_count: int
    last_wake_ms: float | None
    environment_vars: dict[str, str]
    volumes: list[VolumeForm]
    ssh_public_key: str | None
    ssh_hostname: str
    comment: str | None
    autostart: bool
    idle_timeout_seconds: int | None
    access: str
    egress: str
    memory_limit: int | None
    disk_limit: int | None
    cpu_limit: float | None
    snapshot_count: int
    last_used_snapshot: str | None
    source_container_id: str | None
    url: str
    created_at: datetime
    updated_at: datetime


class ContainerPage(msgspec.Struct, kw_only=True):
    containers: list[ContainerRow]
    pagination: Pagination


class ContainerPaging(Paging, kw_only=True):
    sort_by: Literal["name", "alias", "status", "created_at", "updated_at"] = "created_at"


class Operated(msgspec.Struct, kw_only=True):
    operation: str
    container_id: str
    project_id: str
    status: str


class TransitionRow(msgspec.Struct, kw_only=True):
    id: int
    from_status: str
    to_status: str
    transition_time: datetime
    duration_ms: float
    triggered_by: str
    metadata: dict[str, Any]


class TransitionPage(msgspec.Struct, kw_only=True):
    logs: list[TransitionRow]
    pagination: Pagination
