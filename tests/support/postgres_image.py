"""This machine's Postgres as an image: the same programs inside and outside, and no network."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tests.support.images import folder as in_tar
from tests.support.images import member

PROGRAMS = "/bin/sh", "/usr/bin/setpriv", "/usr/bin/mkdir", "/usr/bin/chown", "/usr/bin/sleep"
USED = "postgres", "initdb", "psql", "pgbench", "pg_isready", "pg_amcheck"
LOADED = "plpgsql", "dict_snowball", "amcheck"
_PASSWD = b"root:x:0:0::/:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\n"
_GROUP = b"root:x:0:\npostgres:x:70:\n"
_LIBRARY = re.compile(r"(/\S+) \(0x")
_LEFT_OUT = re.compile(r"/(bitcode|pgxs|man|doc|locale|llvmjit\S*)(/|$)")
SETTINGS = (
    *("listen_addresses=", "unix_socket_directories=/tmp", "shared_buffers=16MB"),
    *(
        "max_wal_size=64MB",
        "checkpoint_timeout=30s",
        "jit=off",
        "timezone=UTC",
        "log_timezone=UTC",
    ),
)


def make(
    archive: Path,
    programs: Path,
    more: Sequence[Path] = (),
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """
    @param programs: the folder of the server's.
    @param more: programs, and
    @param files: scripts by their names without a slash first, that are to be in it, too.
    """
    version = programs.parent
    share = Path("/usr/share/postgresql") / version.name
    with tarfile.open(archive, "w") as file:
        for name in ("tmp", "var", "var/wal", "var/lib", "var/lib/postgresql", "data"):
            info, _ = in_tar(name, mode=0o777)
            file.addfile(info)
        for name, content in (("etc/passwd", _PASSWD), ("etc/group", _GROUP)):
            info, _ = member(name, content, mode=0o644)
            file.addfile(info, io.BytesIO(content))
        for name, content in files.items():
            for parent in reversed(Path(name).parents[:-1]):
                info, _ = in_tar(str(parent), mode=0o755)
                file.addfile(info)
            info, _ = member(name, content, mode=0o755)
            file.addfile(info, io.BytesIO(content))
        binaries = [*map(Path, PROGRAMS), *more, *_binaries(version)]
        for path in [*binaries, *sorted(_needed(binaries))]:
            file.add(path.resolve(), str(path)[1:], filter=_of_root)
        for path in (share, Path("/usr/share/zoneinfo/UTC")):
            file.add(path.resolve(), str(path)[1:], filter=_of_root)


def command(programs: Path) -> str:
    """
    What a container of it runs: its data in a volume, its log of changes in the root, so that
    a snapshot of both is of no use unless it is of one instant.
    """
    settings = " ".join(f"-c {each}" for each in SETTINGS)
    made = f"{programs}/initdb -D /data/db -X /var/wal/log -U postgres -A trust -E UTF8"
    return (
        "mkdir -p /data/db; chown 70:70 /data/db /var/wal;"
        " as='setpriv --reuid=70 --regid=70 --clear-groups';"
        f" [ -e /data/db/PG_VERSION ] || $as {made} --locale=C || exit 1;"
        f" exec $as {programs}/postgres -D /data/db {settings}"
    )


def _binaries(version: Path) -> list[Path]:
    return [version / "bin" / each for each in USED] + [
        version / "lib" / f"{each}.so" for each in LOADED
    ]


def _needed(binaries: list[Path]) -> set[Path]:
    """Shared libraries, by the names under which they are looked for."""
    words = ["ldd", *map(str, binaries)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return {Path(found) for found in _LIBRARY.findall(done.stdout)}


def _of_root(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if _LEFT_OUT.search(f"/{entry.name}"):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
