"""
Where a root file system is made of what others have written: behind walls of the kernel's.

Checks of names are for good error sentences. What keeps an archive from what is outside is
that there is no outside: this process has a mount namespace of its own, in which nothing is
mounted but the new root, no network, and no capability but those to own and change files
there. See mount_namespaces(7), pivot_root(2), capabilities(7).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal

from hoody.errors import HoodyError, Unavailable

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWNET = 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS = 1, 4, 8
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_SYS_PIVOT_ROOT = {"x86_64": 155, "i686": 217, "armv7l": 218}
# CAP_CHOWN; CAP_DAC_OVERRIDE, to fill folders that are read-only; CAP_FOWNER, for the modes
# and times of what belongs to others; CAP_FSETID, to keep the setgid bit of folders.
_KEPT = (0, 1, 3, 4)
_USER = 65533
"""Nobody else's, we hope: who has our uid could be sent signals."""
_MEMORY = 1024**3
_OPEN_FILES = 256

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int | None) -> None:
    """
    Be killed when who started us ends.

    @param parent: its pid, as it says itself: it may have ended before we were heard of.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != (os.getppid() if parent is None else parent):
        raise SystemExit(1)


def require_root() -> None:
    if os.geteuid() != 0:
        raise HoodyError(
            "Images can only be made by root: their files belong to many users. Run the server"
            " as root, as containers need it anyway."
        )


def enter(descriptor: int) -> None:
    """
    Have a directory as the root, and nothing else, for good. Files that are open stay so,
    but not C{descriptor} itself: by C{..} it would lead out.

    Whatever is not imported yet cannot be any more.
    """
    unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
    mount(None, "/", _MS_REC | _MS_PRIVATE)  # what is mounted here is mounted here only
    # By its name: what was opened before belongs to the mounts that were here before.
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    mount(path, path, _MS_BIND)
    os.chdir(path)
    if not os.path.samestat(os.stat("."), os.fstat(descriptor)):
        raise HoodyError("The folder of an image was moved while it was made; try again.")
    os.close(descriptor)
    flags = _MS_REMOUNT | _MS_BIND | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    mount(None, ".", flags)
    number = _SYS_PIVOT_ROOT.get(os.uname().machine, 41)  # 41 in all newer ones
    _check(_libc.syscall(number, b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")
    os.umask(0)
    parent = os.getppid()
    _drop()
    # The kernel forgets this when a process becomes somebody else (prctl(2)).
    die_with_parent(parent)


def _drop() -> None:
    for name, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, _MEMORY),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        hard = resource.getrlimit(name)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(name, (least, least))
    _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl")
    for capability in range(64):
        # EINVAL behind the last that this kernel knows.
        if capability not in _KEPT:
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    # Root without capabilities may still send signals to all that is root's.
    _check(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl")
    os.setgroups([])
    os.setresgid(_USER, _USER, _USER)
    os.setresuid(_USER, _USER, _USER)
    kept = sum(1 << capability for capability in _KEPT)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Effective, permitted, inheritable; the upper 32 likewise.
    sets = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)
    _check(_libc.capset(header, sets), "capset")
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def set_network(descriptor: int) -> None:
    """Go into the network namespace that a file of C{/proc/PID/ns} stands for."""
    _check(_libc.setns(descriptor, CLONE_NEWNET), "setns")


def mount(source: str | None, target: str, flags: int) -> None:
    what = None if source is None else os.fsencode(source)
    _check(_libc.mount(what, os.fsencode(target), None, ctypes.c_ulong(flags), None), "mount")


def _check(answer: int, what: str) -> None:
    if answer < 0:
        number = ctypes.get_errno()
        raise Unavailable(
            f"This machine does not let images be made: {what}: {os.strerror(number)}. Run the"
            " server as root, outside of other containers or in a privileged one."
        )
