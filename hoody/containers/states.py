"""
What is done on the disk to the state of one container as a whole: kept, put back, forgotten.
All of it is called from threads, while nothing else is done to that container; to forget a
snapshot alone may come at any time.

A snapshot is put back in one step, the exchange of two folders (renameat2(2),
RENAME_EXCHANGE): before it all is as it was, behind it all is as it was then. What has to be
written down of it lies in the folder that is exchanged, so that whoever starts next finds it
exactly where it took place.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from attrs import define

from hoody.containers import btrfs
from hoody.containers.storage import (
    BASE,
    NEXT,
    VOLUME,
    Storage,
    clone,
    remove_state,
)

_RETURNED = "returned"
"""In a state: what is to be written down of how it came back."""
RECORD = "record"
"""In a snapshot: what is in it; made when it has been read."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@define(eq=False)
class States:
    """@ivar storage: where they are."""

    storage: Storage

    # Kept

    def keep(self, container_id: str, snapshot_id: str) -> int:
        """
        Have a snapshot of what a container has now; nothing is left of one that fails.

        @return: which state that was, for L{goes_on_from}: the inode number of its folder.
        """
        state = self.storage.state_path(container_id)
        self.storage.snapshots_path(container_id).mkdir(mode=0o700, exist_ok=True)
        path = self.storage.snapshot_path(container_id, snapshot_id)
        try:
            clone(state, path, read_only=True)
            self.storage.join_group(container_id, path)
        except BaseException:
            with contextlib.suppress(OSError):
                remove_state(path)
            raise
        return state.stat().st_ino

    def goes_on_from(self, container_id: str, snapshot_id: str, state: int) -> None:
        """
        That snapshot has been read: whoever reads the next one of this state need not read
        again what has not changed since.

        @param state: as L{keep} said; if it is another one by now, nothing happens.
        """
        record = self.storage.snapshot_path(container_id, snapshot_id) / RECORD
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        # By a descriptor: it may change places just now.
        folder = os.open(self.storage.state_path(container_id), flags)
        try:
            if os.fstat(folder).st_ino != state:
                return
            older = [name for name in os.listdir(folder) if name.startswith(BASE)]
            os.link(record, f"{BASE}{snapshot_id}", dst_dir_fd=folder)
            for name in older:
                os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)

    def base_of(self, folder: Path) -> Path | None:
        """The record that a state or a snapshot goes on from."""
        return max(folder.glob(f"{BASE}*"), default=None)

    def base_id(self, folder: Path) -> str | None:
        """The id of the snapshot that it goes on from."""
        base = self.base_of(folder)
        return None if base is None else base.name.removeprefix(BASE)

    def forget(self, container_id: str, snapshot_id: str) -> None:
        """
        It may be gone, or half gone, already. Whatever else is done to the container goes on
        beside this, be it that all of it is deleted.
        """
        remove_state(self.storage.snapshot_path(container_id, snapshot_id))

    def known(self, container_id: str) -> set[str]:
        """The ids of all snapshots that there are files of."""
        with contextlib.suppress(FileNotFoundError):
            return set(os.listdir(self.storage.snapshots_path(container_id)))
        return set()

    # Put back

    def prepare(
        self,
        container_id: str,
        snapshot_id: str,
        volumes: list[str],
        most: int | None,
        note: bytes,
    ) -> None:
        """
        Make what is to take the place of the state. A volume that was not there then is empty.

        @param most: see L{Storage.limit_container}.
        @param note: kept with it, see L{returned}.
        """
        self.drop(container_id)
        self.settle(container_id)  # what an earlier one may have left
        path = self._next(container_id)
        source = self.storage.snapshot_path(container_id, snapshot_id)
        clone(source, path)
        for volume in volumes:
            if not (path / f"{VOLUME}{volume}").exists():
                btrfs.create(path / f"{VOLUME}{volume}")
        self._go_on_from(path, source)
        self.storage.join_group(container_id, path)
        self.storage.limit_each(path, most)
        with (path / _RETURNED).open("wb") as file:
            file.write(note)
            file.flush()
            os.fsync(file.fileno())  # else the exchange could be on the disk sooner

    def _go_on_from(self, path: Path, source: Path) -> None:
        record = source / RECORD
        if record.exists():
            for each in path.glob(f"{BASE}*"):
                each.unlink()
            os.link(record, path / f"{BASE}{source.name}")

    def exchange(self, container_id: str) -> None:
        """What was prepared is the state from now on, and what was the state is beside it."""
        one, other = self.storage.state_path(container_id), self._next(container_id)
        library = ctypes.CDLL(None, use_errno=True)
        result = library.renameat2(
            *(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
        )
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(one))

    def returned(self, container_id: str) -> bytes | None:
        """The note of an exchange that has taken place, until L{settle}."""
        with contextlib.suppress(FileNotFoundError):
            return (self.storage.state_path(container_id) / _RETURNED).read_bytes()
        return None

    def keep_replaced(self, container_id: str, undo_id: str) -> None:
        """What was replaced is a snapshot from now on. It may be one already."""
        replaced = self._next(container_id)
        if not replaced.exists():
            return
        self.storage.seal(container_id, replaced)
        self.storage.snapshots_path(container_id).mkdir(mode=0o700, exist_ok=True)
        replaced.rename(self.storage.snapshot_path(container_id, undo_id))

    def settle(self, container_id: str) -> None:
        """All has been written down."""
        note = self.storage.state_path(container_id) / _RETURNED
        if note.exists():  # else a disk that can only be read says that it cannot be removed
            note.unlink()

    def drop(self, container_id: str) -> None:
        """Forget what was prepared, if anything was."""
        remove_state(self._next(container_id))

    def _next(self, container_id: str) -> Path:
        return self.storage.container_path(container_id) / NEXT
