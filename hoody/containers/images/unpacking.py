"""Entries of archives become files: of one archive, or of layer upon layer."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from hoody.containers.images.budget import Budget, Notes, shown
from hoody.containers.images.streams import Source
from hoody.containers.images.tar import Archive, Entry, Kind
from hoody.containers.images.tree import Attributes, Tree, parts_of
from hoody.errors import CallerError

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."


@define
class Unpacking:
    """@ivar say: is told how far it has come, as often as it likes."""

    tree: Tree
    budget: Budget
    notes: Notes
    say: Callable[[str], None]
    _count: int = field(default=0, init=False)

    def archive(self, source: Source) -> None:
        """A tarball of the whole root."""
        archive = Archive(source)
        for entry in archive:
            self._look(entry)
            self._put(archive, entry)
        self.tree.leave()

    def layer(self, source: Source) -> None:
        """
        What changed since the layer below (image-spec, layer.md). Removals concern what is
        below only, wherever in the layer they stand: so what it brings itself is remembered.
        """
        archive = Archive(source)
        brought: set[bytes] = set()
        for entry in archive:
            parts = self._look(entry)
            last = parts[-1] if parts else b""
            if last == _OPAQUE:
                self.tree.empty(parts[:-1], brought)
            elif last.startswith(_AUFS):
                pass  # of aufs's own, who invented this
            elif last.startswith(_WHITEOUT):
                name = last.removeprefix(_WHITEOUT)
                if name in (b"", b".", b".."):
                    raise CallerError(
                        f"{shown(entry.name)}: it says that something is removed which cannot be;"
                        " make the image anew."
                    )
                self.tree.hide([*parts[:-1], name], brought)
            else:
                path = self._put(archive, entry)
                if path is not None:
                    brought.add(path)
        self.tree.leave()

    def _look(self, entry: Entry) -> list[bytes]:
        self.budget.take_entry()
        self._count += 1
        if self._count % 100 == 0:
            self.say(f"{self._count} entries unpacked")
        return parts_of(entry.name)

    def _put(self, archive: Archive, entry: Entry) -> bytes | None:
        """Where it is, if it is kept."""
        parts = parts_of(entry.name)
        attributes = Attributes(
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime=entry.mtime,
            xattrs=entry.xattrs,
        )
        if entry.kind is Kind.DIRECTORY:
            return self.tree.folder(parts, attributes)
        if not parts:
            raise CallerError(f"{shown(entry.name)}: the root itself can only be a folder.")
        if entry.kind is Kind.FILE:
            self.budget.take_file(entry.size)
            return self.tree.file(parts, attributes, entry.size, archive.data(entry))
        if entry.kind is Kind.SYMLINK:
            return self.tree.symlink(parts, entry.target, attributes)
        if entry.kind is Kind.LINK:
            return self.tree.link(parts, parts_of(entry.target))
        if entry.kind is Kind.FIFO:
            return self.tree.fifo(parts, attributes)
        if entry.kind is Kind.DEVICE:
            self.notes.add("a device was left out; every container has the usual ones", entry.name)
        else:
            self.notes.add("it is of a kind that is not known here, and was left out", entry.name)
        return None
