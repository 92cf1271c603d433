"""
What a container sees: its image, and above it what it has written, as overlayfs merges them
(Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hoody.manifests.manifest import Entry, in_order, replaced


def merged(image: Sequence[Entry], upper: Sequence[Entry]) -> list[Entry]:
    """
    One tree, in order.

    @param image: in order, as C{upper}, so that each folder comes before what is in it.
    @param upper: with the whiteouts that remove what is below.
    """
    above = [entry for entry in upper if not is_whiteout(entry)]
    below = [entry for entry in _shown(image, upper) if not is_whiteout(entry)]
    if len(below) < len(image):
        below = _regrouped(below)
    # Whiteouts share inodes with each other alone: what is above is grouped without them.
    return in_order([*below, *above])


def is_whiteout(entry: Entry) -> bool:
    return entry.mark == "whiteout" or (entry.kind == "char" and entry.device == "0:0")


def _shown(image: Iterable[Entry], upper: Iterable[Entry]) -> Iterable[Entry]:
    """Of the image, what is neither replaced nor hidden with a folder that it is in."""
    ours, closed = set(), set()
    for entry in upper:
        ours.add(entry.path)
        if entry.kind != "folder" or entry.mark == "opaque":
            closed.add(entry.path)
    for entry in image:
        path = entry.path
        if path and path.rpartition("/")[0] in closed:
            closed.add(path)
        elif path not in ours:
            yield entry


def _regrouped(entries: list[Entry]) -> list[Entry]:
    """With C{first} put right, where names of a file are no longer there."""
    firsts = {entry.first for entry in entries if entry.first}
    if not firsts:
        return entries
    now: dict[str, str] = {}
    found = []
    for entry in entries:
        if entry.first or entry.path in firsts:
            first = now.setdefault(entry.first or entry.path, entry.path)
            first = "" if first == entry.path else first
            entry = entry if entry.first == first else replaced(entry, first=first)
        found.append(entry)
    return found
