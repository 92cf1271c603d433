"""
What is asked of the process that makes an image's root file system, and what it answers.

One JSON object on its stdin; lines of JSON on its stdout, of which the last says how it
ended. Nothing here does anything: the server imports it too.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["busybox", "debian", "archive", "layout", "registry"]

MOST_BYTES = 32 * 1024**3
MOST_ENTRIES = 2_000_000
MOST_SKIPPED = 20
"""So many notes are told; a last one says how many more there are."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    @ivar bytes: of all files together, holes counted as if they were filled.
    @ivar entries: of the archive, or of all layers together.
    """

    bytes: int = MOST_BYTES
    entries: int = MOST_ENTRIES


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    For tests alone: a registry on this machine, without a certificate that anybody trusts.

    @ivar hosts: names that lead to C{[address, port]}, whatever that is.
    """

    hosts: dict[str, tuple[str, int]]


class Order(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """
    @ivar into: an existing, empty directory, which becomes the root file system.
    @ivar parent: the pid of who asks; with its end all of it ends. The one that started the
        process, if left out.
    @ivar seconds: how long it may take to be fetched, and again to be unpacked.
    @ivar file: of an C{archive}: what was uploaded.
    @ivar layout: of a C{layout}: its folder, and C{:REF} where it has several images.
    @ivar reference: of a C{registry}: C{HOST/REPOSITORY}, with C{:TAG} or C{@sha256:...}.
    @ivar registries: the hosts that it may name, with C{:PORT} where that is not 443.
    @ivar suite: of a C{debian}, as C{packages} (beside those that are always there) and
        C{mirror} (else Debian's own).
    """

    kind: Kind
    into: str
    parent: int | None = None
    limits: Limits = Limits()
    seconds: float = 1800
    file: str | None = None
    layout: str | None = None
    reference: str | None = None
    registries: tuple[str, ...] = ()
    suite: str = "bookworm"
    packages: tuple[str, ...] = ()
    mirror: str | None = None
    rehearsal: Rehearsal | None = None


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """
    What an image says of how it wants to be run; C{None} where it says nothing.

    @ivar user: a name or a number, with C{:GROUP} or without, as the image has it.
    """

    command: tuple[str, ...] | None = None
    port: int | None = None
    environment_vars: dict[str, str] = {}
    working_dir: str | None = None
    user: str | None = None


class Image(Defaults, frozen=True, kw_only=True):
    """
    A root file system that is ready.

    @ivar size: bytes of its files, each counted once, holes as if they were filled.
    @ivar entries: files, folders and links, the root too.
    @ivar skipped: what was left out or made harmless.
    """

    size: int
    entries: int
    skipped: tuple[str, ...] = ()


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One line of the answer: C{progress}, or the last one, C{done} or C{error}.

    @ivar progress: a sentence, at most a few each second.
    @ivar error: a sentence that says what was wrong, and the cure; then nothing in C{into}
        is worth keeping.
    @ivar status: with C{error}: the HTTP status that says by whose doing: 4xx by what was
        asked for or uploaded, 5xx by this machine or the network.
    """

    progress: str | None = None
    done: Image | None = None
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
