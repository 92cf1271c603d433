"""
Whether what a manifest from elsewhere says could be on a container's disk, or in an image: it
is made only then. Nothing here does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hoody.errors import CallerError
from hoody.manifests.content import EMPTY, PART
from hoody.manifests.manifest import ROOT, Entry
from hoody.manifests.names import escape, unescape
from hoody.manifests.overlay import is_whiteout
from hoody.manifests.stream import IMAGE
from hoody.manifests.walk import MOST_PATH, MOST_PATHS

MOST_ID = 65535
"""A container has so many ids (0 to that) of its own."""
_MOST_NAME, _MOST_TARGET, _MOST_SIZE = 255, 4095, 2**63 - 1
_SET_IDS = 0o6000
_DIGEST = re.compile(r"[0-9a-f]{64}")
_WHITEOUT = "0:0"
_ATTRIBUTES = re.compile(
    r"user\..+|security\.capability|system\.posix_acl_(access|default)", re.DOTALL
)
_OF_IMAGES = re.compile(r"user\.(?!overlay\.).+", re.DOTALL)


class Unsound(CallerError):
    """No container's disk can be so."""


def check(tree: str, entries: Iterable[Entry]) -> None:
    """
    @param tree: its name.
    @raise Unsound: with what is wrong.
    """
    seen: dict[str, Entry] = {}
    last, characters = None, 0
    for entry in entries:
        characters += len(entry.path)
        fault = _fault(tree, entry, seen)
        if last is not None and entry.path <= last:
            fault = "is not in order"
        elif last is None and (entry.path or entry.kind != "folder"):
            fault = "is not the top"
        elif characters > MOST_PATHS:
            fault = "is too deep"
        if fault:
            raise Unsound(f"{tree}: {entry.path[:200]!r} {fault}; no container could have it.")
        if entry.kind == "folder" or not entry.first:
            seen[entry.path] = entry
        last = entry.path


def _fault(tree: str, entry: Entry, seen: dict[str, Entry]) -> str:
    folder = seen.get(entry.path.rpartition("/")[0])
    if entry.path.startswith("/"):
        return "has a slash before it"
    if entry.path and (folder is None or folder.kind != "folder"):
        return "is in no folder"
    if entry.path and not _is_name(entry.path.rpartition("/")[2]):
        return "has no name that a file could have"
    if len(entry.path) > MOST_PATH:
        return "has too long a path"
    if not (0 <= entry.uid <= MOST_ID and 0 <= entry.gid <= MOST_ID):
        return f"belongs to somebody over {MOST_ID}"
    if not 0 <= entry.mode <= 0o7777:
        return "has no mode"
    return (
        _fault_of_kind(entry)
        or _fault_of_link(entry, seen)
        or _fault_of_attributes(tree, entry)
        or _fault_of_place(tree, entry)
    )


def _is_name(name: str) -> bool:
    raw = unescape(name)
    length = len(raw.encode("utf-8", "surrogateescape"))
    return (
        raw not in ("", ".", "..")
        and "/" not in raw
        and "\0" not in raw
        and length <= _MOST_NAME
        and escape(raw) == name
    )


def _fault_of_kind(entry: Entry) -> str:
    if entry.kind == "file":
        return _fault_of_content(entry)
    if entry.size or entry.digest or entry.zeros:
        return "has content, and is no file"
    if entry.kind == "link":
        raw = unescape(entry.target)
        length = len(raw.encode("utf-8", "surrogateescape"))
        if not 0 < length <= _MOST_TARGET or "\0" in raw or escape(raw) != entry.target:
            return "is a link to nothing"
    elif entry.target:
        return "leads somewhere, and is no link"
    if entry.kind in ("char", "block"):
        return "" if entry.kind == "char" and entry.device == _WHITEOUT else "is a device"
    return "has a device's number, and is none" if entry.device else ""


def _fault_of_content(entry: Entry) -> str:
    if entry.target or entry.device:
        return "is a file and something else"
    if not 0 <= entry.size <= _MOST_SIZE or not _DIGEST.fullmatch(entry.digest):
        return "is a file of no size, or without a digest"
    end, room = -1, entry.size // PART * PART
    for offset, length in entry.zeros:
        if offset <= end or length <= 0 or offset % PART or length % PART:
            return "has zeros where none can be"
        end = offset + length
        if end > room:
            return "has zeros behind its end"
    empty = entry.size == sum(length for _, length in entry.zeros)
    return "has a digest of something else" if empty != (entry.digest == EMPTY.digest) else ""


def _fault_of_link(entry: Entry, seen: dict[str, Entry]) -> str:
    if not entry.first:
        return ""
    first = seen.get(entry.first)
    if first is None or entry.kind == "folder" or _without_name(first) != _without_name(entry):
        return "is another name of nothing"
    return ""


def _without_name(entry: Entry) -> tuple[object, ...]:
    return (
        *(entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.digest, entry.zeros),
        *(entry.target, entry.device, entry.xattrs, entry.mark),
    )


def _fault_of_attributes(tree: str, entry: Entry) -> str:
    names = [name for name, _ in entry.xattrs]
    if names != sorted(set(names)):
        return "has attributes out of order"
    allowed = _OF_IMAGES if tree == IMAGE else _ATTRIBUTES
    for name in names:
        if not allowed.fullmatch(name) or "\0" in unescape(name):
            return f"has the attribute {name[:60]!r}"
    return ""


def _fault_of_place(tree: str, entry: Entry) -> str:
    if tree != ROOT and entry.mark:
        return "hides something, and is not above an image"
    if entry.mark and not entry.path:
        return "hides all of the image"
    if entry.mark == "opaque" and entry.kind != "folder":
        return "hides what is below, and is no folder"
    if entry.mark == "whiteout" and (entry.kind != "file" or entry.size):
        return "hides something, and has content"
    if tree == IMAGE:
        if entry.kind == "socket" or is_whiteout(entry):
            return "is a device or socket"
        if entry.kind == "file" and entry.mode & _SET_IDS:
            return "is set-user-id or set-group-id"
    return ""
