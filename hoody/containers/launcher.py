"""
A program of its own, run just before the runtime: makes a container's root file system in
a mount namespace that goes with it, so that nothing is left in the host's mounts, and
becomes the runtime.

It is run by path, without site, and needs of Python's library only what is quick to import:
who comes to a container that has stopped waits for this, and C{json}, C{signal} and C{typing}
took as long as all the rest of it::

    python -I -S launcher.py < PLAN
    python -I -S launcher.py COMMAND [ARGUMENT...]

PLAN is marshalled, as L{main} reads it. The second form runs a command in a dense container.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_NOSUID, MS_NODEV = 0x2, 0x4
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV = 0x1, 0x2, 0x4
_MOUNT_ATTR_IDMAP = 0x100000
_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP = 28, 1 << 2
_SIGKILL = 9
_PR_SET_PDEATHSIG, _PR_SET_MEMORY_MERGE = 1, 67
_ADDR_NO_RANDOMIZE, _PERSONALITY_NOW = 0x0040000, 0xFFFFFFFF

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def _system_call(number: int, what: str, *arguments: Any) -> int:
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *words), what)


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), flags, os.fsencode(data)
    )
    _checked(result, target)


def user_namespace(base: int, size: int) -> int:
    """A descriptor of a user namespace whose ids are those from C{base} on."""
    ready, entered = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _checked(_libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0), "prctl")
            _checked(_libc.unshare(CLONE_NEWUSER), "unshare")
            os.write(entered, b"y")
            while True:
                time.sleep(60)
        finally:
            os._exit(1)
    os.close(entered)
    try:
        if os.read(ready, 1) != b"y":
            raise OSError("no user namespace could be made")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(f"0 {base} {size}")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.kill(pid, _SIGKILL)
        os.waitpid(pid, 0)


def mount_mapped(source: str, target: str, namespace: int, *, read_only: bool) -> None:
    """
    Have C{source} at C{target}, whose owners there are those of the namespace: on disk they
    stay as they are inside, and a copy of the files needs no chown.
    """
    tree = _system_call(
        _OPEN_TREE,
        source,
        _AT_FDCWD,
        ctypes.c_char_p(os.fsencode(source)),
        _OPEN_TREE_CLONE | os.O_CLOEXEC,
    )
    flags = _MOUNT_ATTR_IDMAP | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV
    flags |= _MOUNT_ATTR_RDONLY if read_only else 0
    attributes = struct.pack("QQQQ", flags, 0, 0, namespace)
    _system_call(
        _MOUNT_SETATTR,
        source,
        tree,
        ctypes.c_char_p(b""),
        _AT_EMPTY_PATH,
        ctypes.c_char_p(attributes),
        len(attributes),
    )
    _system_call(
        _MOVE_MOUNT,
        target,
        tree,
        ctypes.c_char_p(b""),
        _AT_FDCWD,
        ctypes.c_char_p(os.fsencode(target)),
        _MOVE_MOUNT_F_EMPTY_PATH,
    )
    os.close(tree)


def mount_overlay(lower: str, own: str, target: str, base: int) -> None:
    """
    The image below, the container's own above.

    An idmapped upper is writable only where who mounts has an id that is mapped there: so
    it is done as root of the container's range (else the mount turns read-only, EOVERFLOW).

    What is above says by itself what it is: it refers to nothing below by a path (C{redirect_dir})
    nor for content (C{metacopy}), as a snapshot of it could not be told from what they mean.
    """
    _checked(_libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "prctl")
    os.setresgid(base, base, 0)
    os.setresuid(base, base, 0)
    try:
        options = f"lowerdir={lower},upperdir={own}/upper,workdir={own}/work"
        options += ",metacopy=off,redirect_dir=nofollow"
        mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV, options)
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        _checked(_libc.prctl(_PR_SET_SECUREBITS, 0, 0, 0, 0), "prctl")


def be_dense() -> None:
    """
    Have the kernel merge equal memory of this and of all that comes of it (Linux 6.7 or later;
    for others it is as it was). With addresses that are all the same, much more is equal.

    The runtime cannot be told: of C{linux.personality} it takes no flags, and runc has none of
    it before 1.2.
    """
    _libc.prctl(_PR_SET_MEMORY_MERGE, 1, 0, 0, 0)
    now = _checked(_libc.personality(ctypes.c_ulong(_PERSONALITY_NOW)), "personality")
    _checked(_libc.personality(ctypes.c_ulong(now | _ADDR_NO_RANDOMIZE)), "personality")


def main(plan: dict[str, Any]) -> None:
    """
    C{parent}: the server's pid, with which it ends; C{bundle}: the runtime's folder; C{image}
    and C{own}: subvolumes; C{volumes}: their paths by name; C{base} and C{size}: the range of
    ids; C{dense}: whether equal memory is to be merged; C{log}: where output goes; C{command}:
    the runtime's.
    """
    bundle, base, size = plan["bundle"], plan["base"], plan["size"]
    _checked(_libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
    # First: where nothing can be written, this says so best. (By our own mount: the host's can
    # be taken away.)
    log = os.open(plan["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    namespace = user_namespace(base, size)
    places = {"lower": plan["image"], "own": plan["own"]}
    places |= {f"volume-{name}": path for name, path in plan["volumes"].items()}
    for name, source in places.items():
        os.makedirs(f"{bundle}/{name}", exist_ok=True)
        mount_mapped(source, f"{bundle}/{name}", namespace, read_only=name == "lower")
    os.makedirs(f"{bundle}/rootfs", exist_ok=True)
    mount_overlay(f"{bundle}/lower", f"{bundle}/own", f"{bundle}/rootfs", base)
    if plan["dense"]:
        be_dense()
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # Else it would make a container behind the back of the server that comes next. Not earlier:
    # who takes another user id loses this.
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != plan["parent"]:
        sys.exit(1)
    os.execv(plan["command"][0], plan["command"])  # noqa: S606  # the runtime


if __name__ == "__main__":
    try:
        if sys.argv[1:]:
            be_dense()
            os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606  # the runtime
        main(marshal.load(sys.stdin.buffer))  # noqa: S302  # of the server
    except OSError as error:
        print(f"its root cannot be made: {error.strerror or error}", file=sys.stderr)
        sys.exit(125)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(125)
