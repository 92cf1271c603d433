"""This machine's Python as an image: the same program inside and outside, and no network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
"""The distribution's, where there is one."""
_ASK = (
    "import json, sys, sysconfig as s; print(json.dumps([sys.executable, s.get_path('stdlib')]))"
)
_LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "site-packages", "dist-packages", "ensurepip"}
_LIBRARY = re.compile(r"(/\S+) \(0x")


def make(archive: Path) -> None:
    """A tarball of the interpreter, its library, and what both are linked with."""
    done = subprocess.run([PYTHON, "-I", "-c", _ASK], capture_output=True, check=True)
    program, library = (Path(text) for text in json.loads(done.stdout))
    with tarfile.open(archive, "w") as file:
        file.add(program.resolve(), "usr/bin/python3")
        for path in sorted(_needed(program.resolve(), library)):
            file.add(path.resolve(), str(path)[1:], filter=_of_root)
        file.add(library, str(library)[1:], filter=_of_root)


def _of_root(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if _LEFT_OUT & set(entry.name.split("/")):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _needed(program: Path, library: Path) -> set[Path]:
    """Shared libraries, by the names under which they are looked for."""
    binaries = [program, *library.glob("lib-dynload/*.so")]
    return {path for binary in binaries for path in _linked(binary)}


def _linked(binary: Path) -> list[Path]:
    done = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
    return [Path(match[1]) for match in _LIBRARY.finditer(done.stdout)]
