"""
The canonical text of what is on a container's disk, and its digest. Nothing here does I/O.

All servers come to one digest, so the text is fixed to the byte. It is UTF-8; each line ends
with a line feed; fields are separated by tabs. For each tree, by name (C{root}, then
C{volume-NAME}), there is a line C{tree}, NAME, and a line for each entry, sorted by path, as
C{LC_ALL=C sort} sorts the paths. An entry's fields are:

 1. its path, from the tree's top, without a slash before it; that of the top itself is empty;
 2. its kind: C{file}, C{folder}, C{link}, C{char}, C{block}, C{fifo} or C{socket};
 3. its mode's lower 12 bits, in octal digits without leading zeros;
 4. its uid, and 5. its gid, in decimal digits, as they are inside the container;
 6. of a file: the digest of its content, see L{hoody.manifests.content}; of a link: where it
    leads to; of a device: C{MAJOR:MINOR}; else empty;
 7. of a file: its size in bytes; else empty;
 8. of a file: the runs of zeros that its digest leaves out, C{OFFSET+LENGTH}, by commas; often
    empty;
 9. of a file with several names in this tree: the first of these, in the sorted order; empty
    for that first one itself;
10. and on: each extended attribute but C{trusted.overlay.*}, sorted by name: C{NAME=VALUE},
    the value in small hexadecimal digits.

Paths, targets of links, names of attributes and of trees are escaped, see
L{hoody.manifests.names}. There is no time and no number of an inode in it, and nothing of how
the disk holds it: holes, sharing, compression, or which layer of the overlay it is in.

The digest is C{sha256:} and the SHA-256 of all that, in small hexadecimal digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from itertools import islice
from operator import attrgetter
from typing import Literal

import msgspec

Kind = Literal["file", "folder", "link", "char", "block", "fifo", "socket"]
Mark = Literal["", "opaque", "whiteout"]

ROOT, VOLUME = "root", "volume-"
"""The name of the tree that is a container's root, and the beginning of a volume's."""

_AT_ONCE = 4096
"""Lines of text that are put together before they are digested: several at once are quicker."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """
    One name in a tree. All text in it is escaped (L{hoody.manifests.names}).

    @ivar path: from the tree's top, whose own is empty.
    @ivar mode: its lower 12 bits.
    @ivar size: of a file, in bytes; of others 0.
    @ivar digest: of a file's content, without what C{zeros} says, by offset and length.
    @ivar target: of a link.
    @ivar device: C{MAJOR:MINOR}, of one.
    @ivar first: the first path, in sorted order, of the same file; empty if this is it.
    @ivar mark: what overlayfs means by it, where it does not show by itself
        (Documentation/filesystems/overlayfs.rst): a folder that hides what is below, or an
        attribute that makes a whiteout of an empty file.
    @ivar inode: its number, by which what has not changed is known again. This and C{mark}
        are not digested.
    """

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int = 0
    digest: str = ""
    zeros: tuple[tuple[int, int], ...] = ()
    target: str = ""
    device: str = ""
    first: str = ""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    mark: Mark = ""
    inode: int = 0


def line(entry: Entry) -> str:
    """What is digested of an entry, with its line feed."""
    what = entry.digest or entry.target or entry.device
    size = entry.size if entry.kind == "file" else ""
    more = _more(entry) if entry.zeros or entry.first or entry.xattrs else "\t"
    head = f"{entry.path}\t{entry.kind}\t{entry.mode:o}\t{entry.uid}\t{entry.gid}"
    return f"{head}\t{what}\t{size}\t{more}\n"


def _more(entry: Entry) -> str:
    zeros = ",".join(f"{offset}+{length}" for offset, length in entry.zeros)
    xattrs = [f"{name}={value.hex()}" for name, value in sorted(entry.xattrs)]
    return "\t".join([zeros, entry.first, *xattrs])


def digest(trees: Mapping[str, Iterable[Entry]]) -> str:
    """
    @param trees: by name, each sorted as L{in_order} does; the root as L{merged
        <hoody.manifests.overlay.merged>}.
    """
    found = sha256()
    for name in sorted(trees):
        found.update(f"tree\t{name}\n".encode())
        lines = map(line, trees[name])
        while part := "".join(islice(lines, _AT_ONCE)):
            found.update(part.encode())
    return f"sha256:{found.hexdigest()}"


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    # The order of code points is that of the bytes of UTF-8.
    return sorted(entries, key=attrgetter("path"))


def grouped(entries: Iterable[Entry]) -> list[Entry]:
    """
    In order, with C{first} put right: of one tree, where C{inode} says what is the same file.
    """
    firsts: dict[int, str] = {}
    found = []
    for entry in in_order(entries):
        first = "" if entry.kind == "folder" else firsts.setdefault(entry.inode, entry.path)
        first = "" if first == entry.path else first
        found.append(entry if entry.first == first else replaced(entry, first=first))
    return found


def replaced(entry: Entry, **fields: str) -> Entry:
    """One that differs in these."""
    return msgspec.structs.replace(entry, **fields)
