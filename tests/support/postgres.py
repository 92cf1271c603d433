"""A real Postgres of a test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen


def folder() -> Path | None:
    """Where the server's programs are; Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    return Path(program).parent if program else None


@frozen
class Postgres:
    """
    @ivar bin: where its programs are.
    @ivar env: what makes every client program speak to it.
    """

    bin: Path
    env: dict[str, str]

    def run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(self.bin / program), *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def dsn(self, database: str) -> str:
        return f"host={self.env['PGHOST']} user={self.env['PGUSER']} dbname={database}"

    def ask(self, database: str, query: str) -> str:
        return self.run("psql", "-XAtqc", query, database).strip()


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that the user which Postgres runs as can get to; pytest's are for one user."""
    folder = Path(tempfile.mkdtemp(prefix="hoody-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres(directory: Path) -> Iterator[Postgres]:
    """Starts it under C{directory}, never as root, and ends it."""
    programs = folder()
    assert programs is not None
    data = directory / "data"
    directory.mkdir(parents=True, exist_ok=True)
    other: dict[str, str] = {}
    if os.geteuid() == 0:
        shutil.chown(directory, "postgres")
        other = {"user": "postgres"}
    subprocess.run(
        [str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "-N"],
        check=True,
        capture_output=True,
        cwd="/",
        **other,  # type: ignore[call-overload]
    )
    server = subprocess.Popen(
        [
            str(programs / "postgres"),
            "-D",
            str(data),
            "-k",
            str(directory),
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "max_wal_size=4GB",
        ],
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **other,  # type: ignore[call-overload]
    )
    env = {
        **os.environ,
        "PGHOST": str(directory),
        "PGUSER": "postgres",
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    found = Postgres(programs, env)
    try:
        deadline = time.monotonic() + 30
        while subprocess.run(
            [str(programs / "pg_isready"), "-q"], env=env, check=False
        ).returncode:
            assert time.monotonic() < deadline, "Postgres did not start"
            time.sleep(0.1)
        yield found
    finally:
        server.terminate()
        server.wait(30)


def end(running: Postgres) -> None:
    """At once, as when it is killed."""
    _control(running, "stop", "-m", "immediate")


def again(ended: Postgres) -> None:
    """Start it, and wait until it answers."""
    options = f"-k {ended.env['PGHOST']} -c listen_addresses= -c fsync=off"
    _control(ended, "start", "-o", options, "-l", os.devnull)


def _control(running: Postgres, *words: str) -> None:
    other = {"user": "postgres"} if os.geteuid() == 0 else {}
    subprocess.run(
        [str(running.bin / "pg_ctl"), "-D", f"{running.env['PGHOST']}/data", "-w", *words],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        **other,  # type: ignore[call-overload]
    )
