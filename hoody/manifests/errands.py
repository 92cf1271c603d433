"""What the processes are asked that move a snapshot to another server, or make one of a stream."""

from __future__ import annotations

from typing import Any

import msgspec

from hoody.manifests.stream import ImageHead, SnapshotHead


class Leaving(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What is asked of C{export}, besides its trees and image: the stream goes to stdout, and what
    else there is to say to stderr.

    @ivar container: the settings that go with it.
    @ivar image: without its digest and size, which the process finds out.
    @ivar snapshot: whose record is C{record}, with the checksum C{record_sha256}.
    @ivar base: the record of the snapshot whose content is not to be sent, and C{base_digest}.
    @ivar with_image: whether the image comes along.
    """

    container: dict[str, Any]
    image: ImageHead
    snapshot: SnapshotHead
    record: str
    record_sha256: str
    base: str | None = None
    base_digest: str | None = None
    with_image: bool = True


class Below(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image of this server: its id, its subvolume, and where its record is, or will be."""

    id: str
    image: str
    image_manifest: str


class Beside(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A snapshot that has what a stream leaves out: its trees, its record, and its image."""

    trees: dict[str, str]
    record: str
    below: Below


class Arriving(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What is asked of C{import}.

    @ivar file: the stream, whole.
    @ivar into: the container's state, with a subvolume for each of the stream's trees.
    @ivar images: those that there are.
    @ivar fresh: what is to become of the image if none of these is it; not there yet.
    @ivar base: what the stream's header asks for.
    """

    file: str
    into: str
    images: tuple[Below, ...]
    fresh: Below
    base: Beside | None = None


class Arrived(msgspec.Struct, frozen=True, kw_only=True, tag="import", tag_field="kind"):
    """@ivar image: the id of the one that it is above."""

    image: str


class Left(msgspec.Struct, frozen=True, kw_only=True, tag="export", tag_field="kind"):
    """@ivar bytes_sent: of content."""

    bytes_sent: int
