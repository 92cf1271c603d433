"""
The files of a Postgres of our own, and what can be done about them: make, start, look
whether it runs. All of it blocks, and is for threads.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import closing
from enum import Enum, auto
from pathlib import Path
from typing import Any

import psycopg2
from attrs import frozen

from hoody.errors import NoPostgres
from hoody.store import programs
from hoody.store.programs import Programs

ROLE = "hoody"
SUPERUSER = "postgres"
SOCKET_PATH_LIMIT = 107
"""Bytes that a unix socket's path may have (unix(7), less its end)."""
_PORT = 5432
_INITDB_SECONDS = 120
_BUSY = re.compile("starting up|shutting down|recovery|too many|connection slots")
_LOG_LIMIT = 10 * 1024 * 1024
_WAY_IN = (
    "the system user that Postgres runs as must be able to pass through the folders above"
    " (chmod o+x), or give another --data-dir"
)
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "50",
    "shared_buffers": "32MB",
    # One server, no replicas: less to write.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A client that was killed must not keep its locks until its query ends.
    "client_connection_check_interval": "2s",
}


class Answer(Enum):
    """
    Of one that was asked for a connection: it may recover from a crash, and say so, for
    as long as that takes; to kill it then would make it begin anew.
    """

    READY = auto()
    BUSY = auto()
    NONE = auto()


@frozen
class Account:
    """The system user that Postgres runs as; C{None}s for our own."""

    uid: int | None
    gid: int | None

    @property
    def popen(self) -> dict[str, Any]:
        """For L{subprocess}."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: str) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def account() -> Account:
    """
    Postgres refuses to run as root, and is right: find somebody else for it,
    or make one.
    """
    if os.geteuid() != 0:
        return Account(None, None)
    for name in ("postgres", "hoody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    useradd = shutil.which("useradd")
    if useradd is None:
        raise NoPostgres("it must not run as root, and there is no useradd to make a user with")
    made = subprocess.run(  # noqa: S603
        [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "hoody"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode and "already exists" not in made.stderr:
        raise NoPostgres(f"useradd hoody: {made.stderr.strip()}")
    entry = pwd.getpwnam("hoody")
    return Account(entry.pw_uid, grp.getgrgid(entry.pw_gid).gr_gid)


def socket_folder(data_dir: str) -> str:
    """Where its socket is: under the data directory, unless that would be too long a path."""
    folder = os.path.join(data_dir, "run")
    if len(os.fsencode(f"{folder}/.s.PGSQL.{_PORT}")) <= SOCKET_PATH_LIMIT:
        return folder
    short = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return os.path.join(tempfile.gettempdir(), f"hoody-{os.geteuid()}-{short}")


@frozen
class Cluster:
    """
    The files of one Postgres, and what can be done about them. All of it blocks.

    @ivar data_dir: the server's data directory, absolute.
    """

    data_dir: str

    @property
    def folder(self) -> str:
        return os.path.join(self.data_dir, "postgres")

    @property
    def sockets(self) -> str:
        return socket_folder(self.data_dir)

    def dsn(self, user: str = ROLE, database: str = ROLE) -> str:
        return psycopg2.extensions.make_dsn(
            host=self.sockets, port=_PORT, user=user, dbname=database
        )

    def programs(self) -> Programs:
        """
        Those that this cluster can be run with.

        @raise NoPostgres: if there are none.
        """
        version = Path(self.folder, "PG_VERSION")
        made_by = int(version.read_text()) if version.exists() else None
        found = programs.find(made_by)
        if found is None and made_by is not None:
            raise NoPostgres(
                f"{self.folder} is of Postgres {made_by}, whose programs are not there; install"
                f" them (as root: apt-get install postgresql-{made_by})"
            )
        if found is None:
            raise NoPostgres(f"no Postgres was found; {programs.HOW_TO_GET}")
        return found

    def prepare(self) -> tuple[Programs, Account]:
        """Make it if it is not there; a start that was cut off leaves nothing half-made."""
        found, user = self.programs(), account()
        found = self._reachable(found, user)
        os.makedirs(self.sockets, mode=0o700, exist_ok=True)
        entry = os.lstat(self.sockets)
        if entry.st_uid not in (os.geteuid(), user.uid) or os.path.islink(self.sockets):
            raise NoPostgres(f"{self.sockets} belongs to somebody else; remove it")
        user.own(self.sockets)
        if not os.path.exists(os.path.join(self.folder, "PG_VERSION")):
            self._make(found, user)
        self._write_access()
        return found, user

    def _make(self, found: Programs, user: Account) -> None:
        fresh = self.folder + ".new"
        shutil.rmtree(fresh, ignore_errors=True)
        os.mkdir(fresh, 0o700)
        user.own(fresh)
        done = subprocess.run(  # noqa: S603
            [
                found.path("initdb"),
                f"--pgdata={fresh}",
                f"--username={SUPERUSER}",
                "--auth=peer",
                "--encoding=UTF8",
                "--locale=C",
            ],
            capture_output=True,
            text=True,
            cwd="/",
            timeout=_INITDB_SECONDS,
            check=False,
            **user.popen,
        )
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).removeprefix("initdb: error: ")
            cure = f"; {_WAY_IN}" if "Permission denied" in said else ""
            raise NoPostgres(f"initdb: {said}{cure}")
        os.rename(fresh, self.folder)

    def _reachable(self, found: Programs, user: Account) -> Programs:
        """
        A wheel may lie where the user that Postgres runs as may not look: under
        C{/root}, say. Then we take a copy.
        """
        probe = [found.path("postgres"), "--version"]
        try:
            subprocess.run(probe, capture_output=True, check=True, cwd="/", **user.popen)  # noqa: S603
            return found
        except (PermissionError, subprocess.CalledProcessError):
            pass
        copy = os.path.join(self.data_dir, f"postgres-{found.major}")
        if not os.path.exists(copy):
            shutil.rmtree(copy + ".new", ignore_errors=True)
            shutil.copytree(Path(found.folder).parent, copy + ".new", symlinks=True)
            os.chmod(copy + ".new", 0o755)  # noqa: S103  # programs that everybody may read
            os.rename(copy + ".new", copy)
        return Programs(os.path.join(copy, "bin"), found.major)

    def _write_access(self) -> None:
        """Who may come in: we, by who we are to the kernel (peer), and nobody else."""
        us = pwd.getpwuid(os.geteuid()).pw_name
        self._write("pg_hba.conf", "local all all peer map=hoody\n")
        self._write("pg_ident.conf", f'hoody "{us}" {ROLE}\nhoody "{us}" {SUPERUSER}\n')

    def _write(self, name: str, text: str) -> None:
        path = os.path.join(self.folder, name)
        with open(path, "r+" if os.path.exists(path) else "w") as file:
            file.truncate()
            file.write(text)

    def running(self) -> int | None:
        """
        The pid of the Postgres that runs on these files, if one does. A pid file that
        is left from another boot, or whose number is somebody else's now, is removed.
        """
        path = os.path.join(self.folder, "postmaster.pid")
        try:
            with open(path) as file:
                pid = int(file.readline())
        except (FileNotFoundError, ValueError):
            pid = 0
        if self._is_here(pid):
            return pid
        for stale in (path, os.path.join(self.sockets, f".s.PGSQL.{_PORT}.lock")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(stale)
        return None

    def _is_here(self, pid: int) -> bool:
        """Whether a process is a Postgres that works on these files."""
        try:
            here = os.path.realpath(f"/proc/{pid}/cwd") == os.path.realpath(self.folder)
            return here and Path(f"/proc/{pid}/comm").read_text().startswith("postgres")
        except OSError:
            return False

    def answers(self, seconds: float) -> Answer:
        """Whether it can be talked to, waiting that long."""
        late = time.monotonic() + seconds
        while True:
            try:
                with closing(psycopg2.connect(self.dsn(SUPERUSER, "postgres"), connect_timeout=2)):
                    return Answer.READY
            except psycopg2.Error as error:
                if time.monotonic() > late:
                    return Answer.BUSY if _BUSY.search(str(error)) else Answer.NONE
            time.sleep(0.03)

    def tidy(self) -> None:
        """Remove what is not under the data directory."""
        if self.sockets != os.path.join(self.data_dir, "run"):
            with contextlib.suppress(OSError):
                os.rmdir(self.sockets)

    def end(self, pid: int) -> None:
        """
        End what runs and does not answer, and its children: one that hangs as well would
        keep the shared memory from the next.
        """
        children = _children(pid)
        for number, seconds in ((signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            late = time.monotonic() + seconds
            while self.running() == pid and time.monotonic() < late:
                time.sleep(0.05)
        for child in children:
            if self._is_here(child):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)

    def launch(self, found: Programs, user: Account) -> subprocess.Popen[bytes]:
        """Start it, in a session of its own: a Ctrl-C is for us, and we stop it last."""
        log = os.path.join(self.data_dir, "postgres.log")
        if os.path.exists(log) and os.path.getsize(log) > _LOG_LIMIT:
            os.replace(log, log + ".1")
        settings = [
            word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")
        ]
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return subprocess.Popen(  # noqa: S603
                [found.path("postgres"), "-D", self.folder, "-k", self.sockets, *settings],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                cwd="/",
                start_new_session=True,
                **user.popen,
            )
        finally:
            os.close(descriptor)

    def furnish(self) -> None:
        """Our role and database in it, whatever an interrupted start has left of them."""
        dsn = self.dsn(SUPERUSER, "postgres")
        with closing(psycopg2.connect(dsn, connect_timeout=5)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (ROLE,))
                if not cursor.fetchall():
                    cursor.execute(f"CREATE ROLE {ROLE} LOGIN")
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (ROLE,))
                if not cursor.fetchall():
                    cursor.execute(f"CREATE DATABASE {ROLE} OWNER {ROLE}")


def _children(pid: int) -> list[int]:
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
