"""
Where containers live: a btrfs that was given, or one in an image file of our own.

All of it is called from threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from attrs import define, field
from twisted.logger import Logger

from hoody.containers import btrfs, logs
from hoody.errors import Unavailable

OPTIONS = "compress=zstd:1,noatime,discard=async"
LEAST = 256 * 1024 * 1024
"""Bytes that an image file has at least: btrfs makes none that is smaller than half of it."""
PART = 2
"""Of what is free, an image file of no given size takes at most one part in so many."""


_log = Logger(namespace="hoody.containers")

ROOT, VOLUME = "root", "volume-"
STATE, NEXT, SNAPSHOTS = "state", "next", "snapshots"
"""
What is in a container's folder: the subvolumes that it writes to, those that are about to take
their place, and those that are kept.
"""
BASE = "base-"
"""Of a state: the record of the snapshot that it goes on from, whose id follows."""
LOG_ROOM = 64 << 20
"""
Bytes that a container's log has on the disk at most: far more than is kept of it
(L{logs.MOST}), and is only come to by who writes that much between two looks at it.
"""
LOG_LEEWAY = 16 << 20
"""Room in which a log that has come to its end is made short."""

DEEP = 256
"""Folders within each other that are looked into when files are counted."""
TRIES = 5
"""How often it is tried to remove what others are writing to, or removing, too."""


class NoStorage(Unavailable):
    """There is no place for containers."""


def trouble(error: OSError) -> Unavailable:
    """What to tell who wanted something of it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(
            "The disk for containers is full; delete some, or images, or give it more room."
        )
    if error.errno == errno.EROFS:
        return Unavailable(
            "The file system for containers can only be read just now; the kernel's log says why."
        )
    return Unavailable(f"The file system for containers does not do it: {error.strerror}.")


@define(eq=False)
class Storage:
    """
    @ivar mount: where it is to be, in the data directory.
    @ivar image: the file that it is in, where no path is given.
    @ivar given: a path of a btrfs, or C{None}.
    @ivar size: of the image file; C{None} for a part of what is free.
    @ivar root: where it is, once it has been prepared.
    @ivar limits: whether subvolumes can be limited.
    @ivar is_simple: whether by who wrote it first (L{btrfs.count_simply}): only then several
        subvolumes can have one limit together. Where each reference counts, the file system
        gives up counting when one in a group is copied.
    """

    mount: Path
    image: Path
    given: Path | None
    size: int | None
    root: Path = field(init=False)
    limits: bool = field(default=False, init=False)
    is_simple: bool = field(default=False, init=False)
    _image_sizes: dict[str, int] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.root = self.given or self.mount

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def containers(self) -> Path:
        return self.root / "containers"

    @property
    def manifests(self) -> Path:
        return self.root / "manifests"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    def prepare(self, database: str, *, is_new: bool) -> None:
        """
        Have it mounted, with its folders. It may have been so for long.

        @param database: the identity of the one that knows what is in it: to another, all of
            it would be what nobody knows of.
        @param is_new: whether that knows of nothing in it.
        @raise NoStorage: with what is missing, and how to get it.
        """
        try:
            if self.given is None:
                if not is_new:
                    self._expect_image()
                self._mount()
            elif not self.given.is_dir() or not btrfs.is_btrfs(self.given):
                raise NoStorage(f"--storage={self.given} is no btrfs; give the path of one.")
            self.root.mkdir(mode=0o700, exist_ok=True)
            self._recognise(database, is_new)
            self._make_folders()
            self._count()
        except FileNotFoundError as error:
            raise NoStorage(
                f"{error.filename} is missing; as root: apt-get install btrfs-progs mount"
            ) from error
        except subprocess.CalledProcessError as error:
            said = (error.stderr or b"").decode("utf-8", "replace").strip()
            raise NoStorage(
                f"{Path(error.cmd[0]).name} failed: {said or error.returncode}."
            ) from error
        except subprocess.TimeoutExpired as error:
            raise NoStorage(
                f"{Path(error.cmd[0]).name} took more than {error.timeout:g} s; start the server"
                " again when the disk is less busy."
            ) from error
        except OSError as error:
            raise NoStorage(f"{error.filename or self.root}: {error.strerror}.") from error

    def _expect_image(self) -> None:
        if not os.path.ismount(self.mount) and not (self.image.exists() or self._mark.exists()):
            raise NoStorage(
                f"{self.image} is missing, in which the containers are that the database knows"
                " of; put it back, and start the server again."
            )

    @property
    def _mark(self) -> Path:
        return self.root / "database"

    def _recognise(self, database: str, is_new: bool) -> None:
        """@raise NoStorage: if this is not the one that the database knows."""
        try:
            found = self._mark.read_text().strip()
        except FileNotFoundError:
            if not is_new:
                raise NoStorage(
                    f"{self.root} is not where the containers are that the database knows of;"
                    " mount what was there before, and start the server again."
                ) from None
            self._mark.write_text(f"{database}\n")
            return
        if found != database:
            raise NoStorage(
                f"{self.root} belongs to another database than this; start the server with that"
                f" one, or, to have its containers deleted by this, remove {self._mark}."
            )

    def _mount(self) -> None:
        self.mount.mkdir(mode=0o700, exist_ok=True)
        if os.path.ismount(self.mount):
            return
        if btrfs.is_btrfs(self.mount.parent) and self.size is None and not self.image.exists():
            return  # the data directory is on one already
        if not self.image.exists():
            self._make_image()
        _run("mount", "-t", "btrfs", "-o", OPTIONS, self._loop_device(), str(self.mount))

    def _make_image(self) -> None:
        free = shutil.disk_usage(self.image.parent).free
        size = self.size or max(free // PART, LEAST)
        if size < LEAST:
            raise NoStorage(f"--storage={size} is too small; give at least 256M.")
        fresh = self.image.with_suffix(".new")
        with fresh.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(size)
        _run("mkfs.btrfs", "-q", "-L", "hoody", str(fresh))
        fresh.rename(self.image)

    def _loop_device(self) -> str:
        """
        The image's, made if there is none: to attach one twice succeeds, and destroys it.
        """
        for device in self._loop_devices():
            return device
        said = _run(
            "losetup", "--find", "--show", "--nooverlap", "--direct-io=on", str(self.image)
        )
        return said.decode().strip()

    def _make_folders(self) -> None:
        for folder in (self.images, self.containers, self.uploads, self.manifests):
            folder.mkdir(mode=0o700, exist_ok=True)
        for left_over in self.uploads.iterdir():
            left_over.unlink()

    def _count(self) -> None:
        """
        Count what each takes: on a file system of our own always, on another, be it given or
        that of the data directory, if it does: it would no longer mount on older kernels.
        """
        probe = self.containers / ".probe"
        if self.given is None and os.path.ismount(self.mount):
            with contextlib.suppress(OSError):
                btrfs.count_simply(self.root)
        self.limits = False
        # A file system that is full is one to be tidied up, not one to do without.
        with contextlib.suppress(OSError):
            if not btrfs.is_subvolume(probe):
                btrfs.create(probe)
            try:
                btrfs.limit(probe, LEAST)
                self.limits = True
                mode = btrfs.groups(self.root) / "mode"
                self.is_simple = mode.exists() and mode.read_text().strip() == "squota"
            finally:
                btrfs.delete(probe)
        with contextlib.suppress(OSError):
            if self.limits:
                self._remove_stale_groups()

    def flush(self) -> None:
        """
        Write out what is in memory only: what is taken of it behind that has less to wait for.
        """
        btrfs.flush(self.root)

    def unmount(self) -> None:
        """Undo L{prepare}, where nothing is in it: for tests, and for who goes for good."""
        if self.given is None and os.path.ismount(self.mount):
            _run("umount", str(self.mount))
            for device in self._loop_devices():
                _run("losetup", "-d", device)

    def _loop_devices(self) -> list[str]:
        said = _run("losetup", "--noheadings", "--output", "NAME", "-j", str(self.image))
        return said.decode().split()

    # Images

    def image_path(self, image_id: str) -> Path:
        return self.images / image_id

    def begin_image(self, image_id: str) -> Path:
        """An empty subvolume, to be filled."""
        path = self.image_path(image_id)
        btrfs.create(path)
        return path

    def seal_image(self, image_id: str) -> None:
        """It is whole: for all, and for ever the same."""
        btrfs.seal(self.image_path(image_id))

    def image_manifest(self, image_id: str) -> Path:
        """What is in it; made when the first snapshot needs it."""
        return self.manifests / image_id

    def remove_image(self, image_id: str) -> None:
        self.image_manifest(image_id).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            btrfs.delete(self.image_path(image_id))

    # Containers

    def container_path(self, container_id: str) -> Path:
        return self.containers / container_id

    def state_path(self, container_id: str) -> Path:
        """Where the subvolumes are that it writes to; all of them change places together."""
        return self.container_path(container_id) / STATE

    def make_container(self, container_id: str, volumes: Iterable[str], most: int | None) -> None:
        """What a container writes goes into a subvolume of its own, and is all that is in it."""
        self._make_folder(container_id)
        root = self.state_path(container_id) / ROOT
        btrfs.create(root)
        (root / "upper").mkdir(mode=0o755)
        (root / "work").mkdir(mode=0o700)
        for volume in volumes:
            self.make_volume(container_id, volume)
        self.limit_container(container_id, most)

    def copy_container(
        self,
        source_id: str,
        container_id: str,
        most: int | None,
        snapshot_id: str | None = None,
        volumes: Iterable[str] = (),
    ) -> None:
        """
        As L{make_container}, with all that another has, whose blocks it shares.

        @param snapshot_id: of the snapshot whose content it is to have; else it is what that
            other has now.
        @param volumes: that it has in any case.
        """
        self._make_folder(container_id)
        source = self.state_path(source_id)
        if snapshot_id is not None:
            source = self.snapshot_path(source_id, snapshot_id)
        clone(source, self.state_path(container_id))
        for volume in volumes:
            self.make_volume(container_id, volume)
        self.limit_container(container_id, most)

    def _make_folder(self, container_id: str) -> None:
        self.container_path(container_id).mkdir(mode=0o700)
        self.state_path(container_id).mkdir(mode=0o700)
        self.make_log(container_id)

    def make_volume(self, container_id: str, volume: str) -> None:
        """There may be one already: what no longer is on a container's list is kept."""
        path = self.state_path(container_id) / f"{VOLUME}{volume}"
        if not path.exists():
            btrfs.create(path)

    def reshape(
        self, container_id: str, volumes: Iterable[str], most: int | None, *, limit: bool
    ) -> None:
        """
        Have these volumes, too.

        @param limit: whether there is another limit, or something that it must hold for, too.
        @raise NoStorage: as L{limit_container}.
        """
        for volume in volumes:
            self.make_volume(container_id, volume)
        if limit and (self.limits or most is not None):
            self.limit_container(container_id, most)

    def limit_container(self, container_id: str, most: int | None) -> None:
        """
        Let a container have so many bytes, in its root and all volumes together; where nothing
        but each reference is counted, in each of them.

        @raise NoStorage: if there is to be a limit, and nothing counts.
        """
        if not self.limits and most is not None:
            self._count()  # it may have been full before
        if not self.limits:
            if most is not None:
                raise NoStorage(
                    "disk_limit needs a file system with quotas; as root: btrfs quota enable"
                    f" {self.root}"
                )
            return
        if self.is_simple:
            group = self._group(container_id)
            btrfs.make_group(self.root, group)
            for subvolume in self._all_subvolumes(container_id):
                with _unless_gone(subvolume):
                    btrfs.join(subvolume, group)
            btrfs.limit(self.root, most, group)
        else:
            self.limit_each(self.state_path(container_id), most)

    def limit_each(self, state: Path, most: int | None) -> None:
        """Let each of its subvolumes have so many bytes, where they can have none together."""
        if self.limits and not self.is_simple:
            for subvolume in subvolumes(state):
                btrfs.limit(subvolume, most)

    def seal(self, container_id: str, state: Path) -> None:
        """
        Let nobody change any more what is in a state. One that has all the room that it may
        takes no change, this one neither: so it has more for that moment.
        """
        for subvolume in subvolumes(state):
            try:
                btrfs.seal(subvolume)
            except OSError as error:
                if error.errno != errno.EDQUOT:
                    raise
                self._unlimit(container_id, subvolume)
                btrfs.seal(subvolume)
        self.join_group(container_id, state)

    def _unlimit(self, container_id: str, subvolume: Path) -> None:
        if self.is_simple:
            btrfs.leave(subvolume, self._group(container_id))
        else:
            btrfs.limit(subvolume.parent, None, btrfs.identity(subvolume))

    def join_group(self, container_id: str, state: Path) -> None:
        """
        What is in a state that is new counts together with all else that is the container's,
        where that can be; newer kernels see to it by themselves. Its other states are left
        alone: snapshots may be being deleted just now.
        """
        if self.is_simple:
            group = self._group(container_id)
            for subvolume in subvolumes(state):
                btrfs.join(subvolume, group)

    def _group(self, container_id: str) -> int:
        """Named after what is there as long as the container is: what it writes to changes."""
        return btrfs.group_above(btrfs.identity(self._output(container_id)))

    def remove_container(self, container_id: str) -> None:
        """
        All of it; what is gone already is no matter, nor what somebody else removes just now,
        as snapshots.
        """
        path = self.container_path(container_id)
        if path.exists():
            if self.is_simple and self._output(container_id).exists():
                with contextlib.suppress(OSError):  # a full disk takes no such change
                    self._ungroup(container_id)
            for folder in self._state_folders(container_id):
                remove_state(folder)
            for each in path.iterdir():
                if btrfs.is_subvolume(each):
                    _remove_subvolume(each)
            _remove_tree(path)
        if self.limits:
            self._remove_stale_groups()

    def _ungroup(self, container_id: str) -> None:
        group = self._group(container_id)
        for subvolume in self._all_subvolumes(container_id):
            btrfs.leave(subvolume, group)
        btrfs.remove_group(self.root, group)

    def _remove_stale_groups(self) -> None:
        btrfs.remove_stale_groups(self.root, above=self.given is None)

    def _state_folders(self, container_id: str) -> list[Path]:
        """Those of what it writes to, of what may be about to take its place, of snapshots."""
        path = self.container_path(container_id)
        kept = path / SNAPSHOTS
        found = [path / STATE, path / NEXT, *(sorted(kept.iterdir()) if kept.exists() else ())]
        return [folder for folder in found if folder.is_dir()]

    def _all_subvolumes(self, container_id: str) -> list[Path]:
        found = []
        for folder in self._state_folders(container_id):
            with _unless_gone(folder):
                found += subvolumes(folder)
        return found

    def taken_by(self, container_id: str, image_id: str) -> tuple[int, int]:
        """
        Bytes on disk that a container has for itself, and those of its image. Its snapshots are
        among them where each block is counted once.
        """
        own = self._counted_together(container_id)
        if own is None:
            own = sum(self._taken(each) for each in subvolumes(self.state_path(container_id)))
        if image_id not in self._image_sizes:
            self._image_sizes[image_id] = self._taken(self.image_path(image_id))
        return own, self._image_sizes[image_id]

    def _taken(self, subvolume: Path) -> int:
        """As it is counted, or, where nothing is, by a walk over all files."""
        counted = self._counted(subvolume)
        return taken(subvolume) if counted is None else counted

    def _counted_together(self, container_id: str) -> int | None:
        if not self.is_simple:
            return None
        group = f"1_{btrfs.identity(self._output(container_id))}"
        with contextlib.suppress(OSError):
            return int((btrfs.groups(self.root) / group / "referenced").read_text())
        return None

    def _counted(self, subvolume: Path) -> int | None:
        if not self.limits:
            return None
        groups = btrfs.groups(subvolume)
        with contextlib.suppress(OSError):  # an older kernel does not show it
            if int((groups / "inconsistent").read_text()) == 0:
                return int((groups / f"0_{btrfs.identity(subvolume)}/referenced").read_text())
        return None

    # Snapshots

    def snapshots_path(self, container_id: str) -> Path:
        return self.container_path(container_id) / SNAPSHOTS

    def snapshot_path(self, container_id: str, snapshot_id: str) -> Path:
        return self.snapshots_path(container_id) / snapshot_id

    # What containers say

    def log_file(self, container_id: str) -> Path:
        return self._output(container_id) / "log"

    def _output(self, container_id: str) -> Path:
        return self.container_path(container_id) / "output"

    def make_log(self, container_id: str) -> None:
        """Have a place for it, in a subvolume of its own: the file system itself bounds it."""
        output = self._output(container_id)
        if not output.exists():
            btrfs.create(output)
            if self.limits:
                btrfs.limit(output, LOG_ROOM)

    def trim_logs(self, container_ids: Iterable[str]) -> bool:
        """
        Forget the beginnings of those logs that are too long.

        @return: whether there was one.
        """
        trimmed = False
        for container_id in container_ids:
            with contextlib.suppress(OSError):  # it says nothing yet, or is no more
                trimmed |= self._trim_log(container_id)
        return trimmed

    def _trim_log(self, container_id: str) -> bool:
        file, output = self.log_file(container_id), self._output(container_id)
        trimmed = False
        try:
            trimmed = logs.trim_if_long(file)
        except OSError as error:
            if error.errno != errno.EDQUOT:
                raise
        counted = self._counted(output)
        if counted is None or counted < LOG_ROOM // 2:
            return trimmed
        # What was given back are parts of extents, which count until all of each is. To give
        # back takes some room as well, and counts when it is committed.
        btrfs.limit(output, LOG_ROOM + LOG_LEEWAY)
        try:
            logs.rewrite(file)
            btrfs.commit(output)
        finally:
            btrfs.limit(output, LOG_ROOM)
        return True

    # Both

    def sweep(self, images: set[str], containers: set[str]) -> list[str]:
        """Remove what nobody knows of. @return: what that was."""
        gone = []
        for path in self.containers.iterdir():
            if path.name not in containers and _removed(self.remove_container, path):
                gone.append(f"containers/{path.name}")
        for path in self.images.iterdir():
            if path.name not in images and _removed(self.remove_image, path):
                gone.append(f"images/{path.name}")
        return gone


def subvolumes(state: Path) -> list[Path]:
    """Those of a state: the root, and the volumes."""
    return sorted(
        each
        for each in state.iterdir()
        if each.name.startswith((ROOT, VOLUME)) and btrfs.is_subvolume(each)
    )


def clone(source: Path, target: Path, *, read_only: bool = False) -> None:
    """Have in C{target}, which is made if need be, all that is in another state now."""
    found = subvolumes(source)
    if source / ROOT not in found:
        number = errno.ENOENT  # it is being deleted, beginning with that
        raise FileNotFoundError(number, os.strerror(number), str(source))
    target.mkdir(mode=0o700, exist_ok=True)
    for subvolume in found:
        btrfs.snapshot(subvolume, target / subvolume.name, read_only=read_only)
    for base in source.glob(f"{BASE}*"):
        os.link(base, target / base.name)


def remove_state(folder: Path) -> None:
    """
    What is shared with others stays theirs. It may be gone, or half gone, already, and somebody
    else may be removing it: all that counts is that it is not there behind this.
    """
    with _unless_gone(folder):
        for each in subvolumes(folder):
            with _unless_gone(each):
                _remove_subvolume(each)
        _remove_tree(folder)


def _remove_tree(folder: Path) -> None:
    """Somebody who reads it may be writing down what is in it, or be removing it, too."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
            return
    with _unless_gone(folder):
        shutil.rmtree(folder)


@contextlib.contextmanager
def _unless_gone(path: Path) -> Iterator[None]:
    """What cannot be done since this is not there any more need not be done."""
    try:
        yield
    except OSError:
        if path.exists():
            raise


def _remove_subvolume(path: Path) -> None:
    """
    With whatever is in it: should another be there, that goes first; and on a disk that is
    full, where to delete takes room as well, it is emptied, which makes some.
    """
    try:
        btrfs.delete(path)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            btrfs.delete_within(path)
            btrfs.delete(path)
        elif error.errno == errno.ENOSPC:
            for each in path.iterdir():
                shutil.rmtree(each, ignore_errors=True)
            btrfs.commit(path)
            btrfs.delete(path)
        else:
            raise


def _removed(remove: Callable[[str], None], path: Path) -> bool:
    """One that cannot be removed is left for the next start: it is in nobody's way."""
    try:
        remove(path.name)
    except OSError as error:
        _log.error("cannot remove {path}: {reason}", path=str(path), reason=error.strerror)
        return False
    return True


def taken(path: Path) -> int:
    """
    Bytes on disk of all that is below, without what hard links count twice.

    A container may be changing it meanwhile, to its advantage: so each folder is opened from
    the one above, and no link is followed. Of what is deeper than L{DEEP} nobody looks.
    """
    total, seen = 0, set()
    above = [_Folder.open(path)]
    try:
        while above:
            name = above[-1].next
            if name is None:
                above.pop().close()
                continue
            with contextlib.suppress(OSError):  # it has gone by now
                status = os.lstat(name, dir_fd=above[-1].descriptor)
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
                if stat.S_ISDIR(status.st_mode) and len(above) < DEEP:
                    above.append(_Folder.open(name, above[-1].descriptor))
    finally:
        for folder in above:
            folder.close()
    return total


@define
class _Folder:
    descriptor: int
    _names: list[str]

    @classmethod
    def open(cls, path: Path | str, within: int | None = None) -> _Folder:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, dir_fd=within)
        try:
            return cls(descriptor, os.listdir(descriptor))
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def next(self) -> str | None:
        return self._names.pop() if self._names else None

    def close(self) -> None:
        os.close(self.descriptor)


def _run(*words: str) -> bytes:
    # In a thread, and of words of our own.
    return subprocess.run(words, check=True, capture_output=True, timeout=60).stdout  # noqa: S603
