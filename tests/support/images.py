"""Archives of all sorts, and the process that makes images of them."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attrs import define, field

from hoody.containers.images.orders import Image, Line, read_line

PROGRAM = [sys.executable, "-m", "hoody.containers.images"]
Member = tuple[tarfile.TarInfo, bytes]


def member(name: str | bytes, data: bytes = b"", **attributes: Any) -> Member:
    """An entry; a regular file unless C{type} says otherwise."""
    info = tarfile.TarInfo(os.fsdecode(name))
    info.size = len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, data


def folder(name: str, **attributes: Any) -> Member:
    return member(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **attributes})


def symlink(name: str, target: str) -> Member:
    return member(name, type=tarfile.SYMTYPE, linkname=target, mode=0o777)


def hard_link(name: str, target: str) -> Member:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def tarred(members: Iterable[Member], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
    """@param mode: C{w}, C{w:gz}, C{w:bz2} or C{w:xz}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=form) as archive:  # type: ignore[call-overload]
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@define
class Workshop:
    """
    A place to make images in, with neighbours that nothing may be done to.

    @ivar into: what becomes the root.
    """

    place: Path
    into: Path = field(init=False)
    canary: Path = field(init=False)
    lines: list[Line] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.into = self.place / "pool" / "image.new"
        self.into.mkdir(parents=True)
        self.canary = self.place / "canary"
        (self.canary / "deep").mkdir(parents=True)
        (self.canary / "file").write_text("as it was")
        (self.canary / "deep" / "shadow").write_text("as it was")
        (self.canary / "link").symlink_to("file")

    def run(self, **order: Any) -> Line:
        """The last line of the answer."""
        raw = json.dumps({"into": str(self.into), **order}).encode()
        done = subprocess.run(PROGRAM, input=raw, capture_output=True, timeout=110, check=False)
        assert not done.stderr, done.stderr.decode()
        self.lines = [read_line(line) for line in done.stdout.splitlines()]
        last = self.lines[-1]
        assert all(line.progress for line in self.lines[:-1])
        assert done.returncode == (0 if last.done else 1)
        assert (last.done is None) != (last.error is None)
        return last

    def upload(self, archive: bytes, **order: Any) -> Line:
        path = self.place / "upload"
        path.write_bytes(archive)
        return self.run(kind="archive", file=str(path), **order)

    def image(self, *members: Member, mode: str = "w", **order: Any) -> Image:
        """Of an archive that will do."""
        return self.done(self.upload(tarred(members, mode), **order))

    def refused(self, *members: Member, **order: Any) -> str:
        """The sentence, of one that will not."""
        line = self.upload(tarred(members), **order)
        assert line.status == 400
        assert line.error
        return line.error

    def done(self, line: Line) -> Image:
        assert line.done is not None, line.error
        return line.done

    def path(self, name: str) -> Path:
        return self.into / name.lstrip("/")

    def used(self) -> int:
        """Bytes of the disk."""
        return sum(os.lstat(path).st_blocks * 512 for path in self.everything())

    def everything(self) -> Iterable[bytes]:
        for top, folders, files in os.walk(os.fsencode(self.into)):
            for name in folders + files:
                yield os.path.join(top, name)


def portrait(place: Path, without: Path) -> dict[str, tuple[Any, ...]]:
    """All that could have been changed below a folder."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(place.rglob("*")):
        if path == without or without in path.parents:
            continue
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        times = status.st_mtime_ns, status.st_ctime_ns
        owner = status.st_uid, status.st_gid, status.st_nlink
        found[str(path)] = (status.st_mode, owner, times, content)
    return found


def dangers(root: Path) -> list[str]:
    """What must be in no image: devices, sockets, files that give somebody else's rights."""
    found = []
    for top, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(top, name)
            mode = os.lstat(path).st_mode
            armed = stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID)
            odd = stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode)
            known = os.listxattr(path, follow_symlinks=False)
            if armed or odd or any(not key.startswith("user.") for key in known):
                found.append(path)
    return found
