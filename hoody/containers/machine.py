"""What this machine has for containers, and what it lacks."""

from __future__ import annotations

import os
import shutil
import sys

from hoody.containers.cgroups import Hierarchies

_FOLDERS = ":/usr/local/sbin:/usr/sbin:/sbin"


def program(name: str) -> str | None:
    """Where a program is, in the folders of administrators, too."""
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + _FOLDERS)


def choose_runtime(wanted: str, hierarchies: Hierarchies) -> str | None:
    """
    The OCI runtime to use.

    @param wanted: C{runc}, C{crun}, or C{auto}: crun is the quicker one, but does not come
        to terms with control groups of both versions at once.
    @return: its path, or C{None} if it is not there.
    """
    names = [wanted]
    if wanted == "auto":
        names = ["crun", "runc"] if hierarchies.is_pure else ["runc"]
    return next((path for name in names if (path := program(name))), None)


def lack(wanted: str, given_storage: bool, hierarchies: Hierarchies) -> str | None:
    """What is missing, with the cure, as a sentence; C{None} if nothing is."""
    if wanted == "off":
        return "they were switched off by --containers=off."
    if not sys.platform.startswith("linux"):
        return "they need Linux."
    if os.geteuid() != 0:
        return "they need root; start the server as root."
    missing = []
    if choose_runtime(wanted, hierarchies) is None:
        missing.append("crun" if wanted == "crun" else "runc")
    if not given_storage and program("mkfs.btrfs") is None:
        missing.append("btrfs-progs")
    if missing:
        return f"{' and '.join(missing)} is missing; apt-get install {' '.join(missing)}"
    controllers = hierarchies.lacks()
    if controllers:
        return (
            f"control groups lack {', '.join(controllers)}; mount them, or have the machine"
            " start with them."
        )
    return None
