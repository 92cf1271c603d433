"""This process among others: its signals, its descriptors, its data directory."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from attrs import define, field
from twisted.internet.base import ReactorBase

Handler = Callable[[int, FrameType | None], Any] | int | None


@define
class Signals:
    """
    SIGTERM and SIGINT: the first does what Twisted does, which is to stop the
    services; Twisted has no use for a second one, we have.
    """

    _reactor: ReactorBase
    _again: Callable[[], None]
    _former: dict[int, Handler] = field(factory=dict, init=False)

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._former[number] = signal.getsignal(number)
            signal.signal(number, self._take)

    def restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    def _take(self, number: int, frame: FrameType | None) -> None:
        former = self._former.get(number)
        if self._reactor._stopped:
            self._reactor.callFromThread(self._again)
        elif callable(former):
            former(number, frame)


KEPT_FROM_CLIENTS = 32
"""Descriptors for containers, logs, subprocesses, and the answer that none is left."""
KEPT_FROM_CONTAINERS = 16
"""Of these, not for connections to containers."""
_PR_SET_CHILD_SUBREAPER = 36


def raise_descriptor_limit() -> int:
    """Take as many file descriptors as we may have; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@define(eq=False)
class Descriptors:
    """
    File descriptors, of which the last are kept for what else must go on.

    The kernel gives the lowest number that is free (open(2)): so that of a new one says how
    many are taken, by whatever part of us, and nobody has to count.

    @ivar limit: how many we may have; C{None} for no limit.
    @ivar promised: how many others may still take that are not to find none left.
    """

    promised: Callable[[], int]
    limit: int | None = None

    def is_for_clients(self, number: int) -> bool:
        """Whether a client's connection may have this one."""
        return self._leaves(number, KEPT_FROM_CLIENTS)

    def is_for_containers(self, number: int) -> bool:
        """
        Whether a connection to a container may; there are some more of them, or a crowd of
        clients would leave none.
        """
        return self._leaves(number, KEPT_FROM_CONTAINERS)

    def _leaves(self, number: int, count: int) -> bool:
        return self.limit is None or number < self.limit - count - self.promised()


def begin_without(secret: str, **environment: str) -> None:
    """
    Be this program again, by execve(2), without the option whose value is C{secret} and
    with more in the environment; if that is not on the command line, go on.
    """
    kept: list[str] = []
    for word in sys.orig_argv[1:]:
        if word == secret:
            kept.pop()  # the option's name
        elif not word.endswith("=" + secret):
            kept.append(word)
    if len(kept) + 1 < len(sys.orig_argv):
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(  # noqa: S606  # what we were started with
            sys.executable, [sys.orig_argv[0], *kept], {**os.environ, **environment}
        )


def adopt_orphans() -> None:
    """
    Be the parent of what our children leave behind (PR_SET_CHILD_SUBREAPER, prctl(2)): so we
    are told how a container's first process ended. To be called after daemonising.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class DataDirTaken(Exception):
    """Another server has the data directory."""


@define(eq=False)
class DataDir:
    """
    The data directory, ours alone from L{take} on, for as long as this process lives.

    @ivar path: absolute.
    """

    path: str
    _lock: int | None = field(default=None, init=False)

    @property
    def root_token(self) -> str:
        """The file that the root token is in."""
        return os.path.join(self.path, "root-token")

    @property
    def has_root_token(self) -> bool:
        """Whether some start has come as far as that."""
        return os.path.exists(self.root_token)

    @property
    def owner(self) -> int | None:
        """The user id that it belongs to, if it is there."""
        return os.stat(self.path).st_uid if os.path.exists(self.path) else None

    @property
    def journal(self) -> str:
        """The folder of events that are not in the database yet."""
        return os.path.join(self.path, "journal")

    @property
    def unfinished(self) -> str:
        """The file that says which transfers run."""
        return os.path.join(self.path, "running.json")

    @property
    def saved(self) -> str:
        """The folder that the database is saved to."""
        return os.path.join(self.path, "saved")

    @property
    def storage(self) -> Path:
        """Where the file system of containers is mounted."""
        return Path(self.path, "storage")

    @property
    def storage_image(self) -> Path:
        """The file that it is in, where no path is given."""
        return Path(self.path, "storage.btrfs")

    def server_id(self, fresh: str) -> str:
        """
        Which server this is, among those of one database.

        @param fresh: what it is to be from now on, if nothing was said before.
        """
        path = Path(self.path, "server-id")
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            new = path.with_suffix(".new")
            new.write_text(f"{fresh}\n")
            new.rename(path)
            return fresh

    def take(self) -> None:
        """
        Make it, and take it. It may have been made for us as root-only, and Postgres has
        to get through to its own folder.

        @raise DataDirTaken: with a sentence.
        """
        os.makedirs(self.path, mode=0o711, exist_ok=True)
        if os.geteuid() == 0:
            mode = stat.S_IMODE(os.stat(self.path).st_mode)
            os.chmod(self.path, mode | 0o011)  # noqa: S103  # to pass through, not to look
        lock = os.open(os.path.join(self.path, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(lock, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise DataDirTaken(
                f"Another hoody (pid {pid}) uses the data directory {self.path}; stop it, or give"
                " another --data-dir."
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, b"%d\n" % os.getpid())
        self._lock = lock

    def leave(self) -> None:
        """Let another have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def say_to_operator(text: str) -> None:
    """Say what must not be in a log."""
    out = sys.__stderr__
    if out is not None:
        out.write(text + "\n")
        out.flush()


def private(path: str, flags: int) -> int:
    """An opener of files that nobody else may read."""
    return os.open(path, flags, 0o600)
