"""
What is asked of the process that reads snapshots, and what it answers.

One JSON object on its stdin; lines of JSON on its stdout, of which the last says how it
ended. Nothing here does anything: the server imports it too.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from hoody.manifests.differences import Difference
from hoody.manifests.errands import Arrived, Arriving, Leaving, Left
from hoody.manifests.verification import Mismatch

Kind = Literal["scan", "verify", "diff", "share", "export", "import"]

RATE = 64 << 20
"""Bytes a second that a sweep compares at most."""


class Side(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of two snapshots: the paths of its record and of its image's, and the image itself."""

    record: str
    image: str
    image_manifest: str


class Order(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """
    Of all kinds:

    @ivar parent: the pid of who asks; with its end all of it ends. The one that started the
        process, if left out.

    Of C{scan}, C{verify} and C{export}:

    @ivar image: the image's subvolume.
    @ivar image_manifest: where the image's record is, or will be.
    @ivar trees: read-only subvolumes, C{root} and C{volume-NAME}.

    Of C{scan}:

    @ivar base: the record of an earlier snapshot of the container, or of that which it was
        restored to. What is damaged, missing or none of these only costs time.
    @ivar into: where the record is written, whole or not at all.

    Of C{verify}:

    @ivar record: what C{into} was; with the C{digest} and C{record_sha256} of that scan.

    Of C{diff}:

    @ivar before: with C{after}; C{offset} and C{limit} count all differences, by tree and path.

    Of C{share}:

    @ivar storage: where the containers, images and records of this server are.
    @ivar rate: bytes a second that are compared, at most.

    @ivar leaving: of C{export}; C{arriving}: of C{import}.
    """

    kind: Kind
    parent: int | None = None
    image: str = ""
    image_manifest: str = ""
    trees: dict[str, str] = {}
    base: str | None = None
    into: str = ""
    record: str = ""
    digest: str = ""
    record_sha256: str = ""
    before: Side | None = None
    after: Side | None = None
    offset: int = 0
    limit: int = 1000
    storage: str = ""
    rate: int = RATE
    leaving: Leaving | None = None
    arriving: Arriving | None = None


class Scanned(msgspec.Struct, frozen=True, kw_only=True, tag="scan", tag_field="kind"):
    """
    @ivar digest: C{sha256:...}, of what the container sees (L{hoody.manifests.manifest}).
    @ivar record_sha256: of the record, as its last line has it.
    @ivar size: bytes on disk, compressed, written since the base, or since the image.
    @ivar entries: of all trees, the image's not counted.
    @ivar bytes_read: of files.
    """

    digest: str
    record_sha256: str
    size: int
    entries: int
    bytes_read: int


class Verified(msgspec.Struct, frozen=True, kw_only=True, tag="verify", tag_field="kind"):
    """
    @ivar digest: what it is now.
    @ivar mismatches: at most L{hoody.manifests.verification.MOST}.
    @ivar entries: as the container sees them.
    """

    valid: bool
    digest: str
    mismatches: tuple[Mismatch, ...]
    entries: int
    bytes_read: int


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    added: int
    changed: int
    removed: int


class Compared(msgspec.Struct, frozen=True, kw_only=True, tag="diff", tag_field="kind"):
    """@ivar totals: how many there are, on all pages."""

    added: tuple[Difference, ...]
    changed: tuple[Difference, ...]
    removed: tuple[Difference, ...]
    totals: Totals


class Saving(msgspec.Struct, frozen=True, kw_only=True):
    """
    Bytes on the disk that a container would take more if none of its files shared blocks with
    an equal one of another, or of an image, or of its own.

    @ivar kept: in all that there is of it, its snapshots too, each file counted once.
    @ivar now: in what it has now.
    """

    kept: int
    now: int


class Shared(msgspec.Struct, frozen=True, kw_only=True, tag="share", tag_field="kind"):
    """
    @ivar compared: bytes that were, since they did not share their blocks yet.
    @ivar shared: of these, those that do from now on.
    @ivar savings: of all that share, since when ever, by container.
    """

    compared: int
    shared: int
    savings: dict[str, Saving]


Done = Scanned | Verified | Compared | Shared | Arrived | Left


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """
    @ivar sentence: what is being done.
    @ivar done: bytes read so far.
    @ivar total: bytes to be read, at most; C{None} if nobody knows.
    """

    sentence: str
    done: int
    total: int | None


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One line of the answer: C{progress}, at most four each second, or the last one, C{done} or
    C{error}.

    @ivar error: a sentence that says what was wrong.
    @ivar status: with C{error}: the HTTP status that says by whose doing.
    """

    progress: Progress | None = None
    done: Done | None = None
    error: str | None = None
    status: int | None = None


def read_order(raw: bytes) -> Order:
    """@raise msgspec.ValidationError, msgspec.DecodeError: with a sentence."""
    return msgspec.json.decode(raw, type=Order)


def read_line(raw: bytes) -> Line:
    return msgspec.json.decode(raw, type=Line)


def write(value: Order | Line) -> bytes:
    """As a line, with its end."""
    return msgspec.json.encode(value) + b"\n"
