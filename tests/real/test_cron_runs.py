"""
Commands of cron that run on the server. All parts are real: users, processes, Postgres.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.api import api, database_option
from tests.support.cron_calls import Cron, eventually, fire, lives, sql
from tests.support.forgetful import Forgetful
from tests.support.postgres import Postgres, again, end, open_folder, postgres
from tests.support.server import Server

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be others")
MARK = "only-the-server-knows-this"


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, cluster: Postgres
) -> Iterator[tuple[Server, str]]:
    """With the DSN of its database."""
    option = database_option(cluster)
    folder = tmp_path_factory.mktemp("cron") / "data"
    # Signals that are ignored stay so in who is begun.
    prefix = ("/bin/sh", "-c", 'trap "" HUP PIPE; exec "$@"', "sh")
    env = {"HOODY_TEST_MARK": MARK}
    with Server(folder, option, "--cron-retry=0.3s", env=env, prefix=prefix) as server:
        yield server, option.partition("=")[2]


@pytest.fixture
def cron(server: tuple[Server, str]) -> Iterator[Cron]:
    """Nothing of a test may be left in it."""
    before = server[0].steady()
    yield Cron.of(*server)
    server[0].settle(before)
    eventually(lambda: not children(server[0]), 20)


def children(server: Server) -> list[str]:
    """Also those that have ended, and were not heard of."""
    found = []
    for path in Path(f"/proc/{server.process.pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for pid in path.read_text().split():
                found.append(Path(f"/proc/{pid}/stat").read_text()[:60])
    return found


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that all users can write to."""
    with open_folder() as folder:
        folder.chmod(0o777)
        yield folder


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def until_gate(place: Path, name: str = "gate", then: str = "true") -> str:
    """A command that says where it is, and goes on when it may."""
    return (
        f"echo $$ >>{place}/begun; until [ -e {place}/{name} ]; do sleep 0.05; done;"
        f" echo $$ >>{place}/ended; {then}"
    )


# As whom, and with what


@needs_root
@pytest.mark.parametrize("user", ["nobody", "daemon", "root"])
def test_it_runs_as_the_user_with_nothing_of_the_server(cron: Cron, user: str) -> None:
    found = pwd.getpwnam(user)
    run = cron.result(
        "id -u; id -g; id -G; pwd; ls /proc/self/fd | xargs; umask;"
        " grep -E '^(Sig(Blk|Ign)|CapEff|CapInh|CapAmb)' /proc/self/status | cut -f2 | xargs;"
        " cut -d' ' -f5,6 /proc/self/stat; echo $$ $$; env",
        user=user,
    )
    assert run["status"] == "succeeded", run
    uid, gid, groups, where, fds, mask, masks, session, own, *env = run["stdout"].splitlines()
    ids = subprocess.run(["id", "-G", user], capture_output=True, text=True, check=True).stdout
    assert (int(uid), int(gid)) == (found.pw_uid, found.pw_gid)
    assert set(groups.split()) == set(ids.split())
    home = found.pw_dir if os.path.isdir(found.pw_dir) else "/"
    assert where == home
    assert fds == "0 1 2 3", "the last is that which looks"
    assert mask == "0022"
    blocked, ignored, inherited, effective, ambient = masks.split()
    assert int(blocked, 16) == 0
    assert int(ignored, 16) & 0x7FFFFFFF == 0, "but for those that glibc has for itself"
    assert (int(inherited, 16), int(ambient, 16)) == (0, 0)
    assert (int(effective, 16) == 0) is (user != "root")
    assert session == own, "a session of its own"
    variables = dict(line.partition("=")[::2] for line in env)
    assert variables.pop("HOODY_URL") == cron.url
    assert variables.pop("PATH").endswith(":/bin")
    assert variables == {
        "HOME": found.pw_dir,
        "LOGNAME": user,
        "USER": user,
        "SHELL": "/bin/sh",
        "PWD": home,
    }
    assert MARK not in run["stdout"]


@needs_root
def test_a_user_cannot_look_at_what_another_s_run_is_told(cron: Cron, place: Path) -> None:
    entry = cron.add(until_gate(place), environment_vars={"PASSWORD": "s3cret"})
    cron.run(entry)
    [pid] = eventually(lambda: lines(place / "begun"))
    looked = cron.result(f"cat /proc/{pid}/environ; ps axeww | cat", user="nobody")
    (place / "gate").touch()
    cron.over(entry)
    assert "s3cret" not in looked["stdout"] + looked["stderr"]
    assert "Permission denied" in looked["stderr"]


def test_the_entry_s_variables_come_after_the_user_s_and_before_what_is_given(cron: Cron) -> None:
    run = cron.result(
        'printf "%s|" "$HOME" "$PATH" "$A" "$HOODY_URL"; pwd; echo "100%%x"',
        environment_vars={
            "HOME": "/tmp",
            "PATH": "/usr/bin:/bin",
            "A": "b \"c\" $d 'e' \\ é",
            "HOODY_URL": "http://elsewhere",
        },
    )
    url = cron.url
    assert run["stdout"] == f"/tmp|/usr/bin:/bin|b \"c\" $d 'e' \\ é|{url}|/tmp\n100%%x\n"


@needs_root
def test_a_server_that_is_not_root_runs_what_is_its_own_user_s(
    cluster: Postgres, place: Path
) -> None:
    option = database_option(cluster)
    place.chmod(0o700)
    (place / "data").mkdir()
    for folder in (place, place / "data"):
        shutil.chown(folder, "daemon")
    # It may look where its own programs are, which may be a folder of root's.
    prefix = ("setpriv", "--reuid=daemon", "--regid=daemon", "--init-groups")
    look = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--")
    with Server(place / "data", option, prefix=(*prefix, *look)) as server:
        cron = Cron.of(server, option.partition("=")[2])
        assert cron.result("id -un", user="daemon")["stdout"] == "daemon\n"
        for user in ("root", "nobody"):
            run = cron.result("id -un", user=user)
            assert (run["status"], run["exit_code"], run["stdout"]) == ("failed", 126, "")
            assert run["stderr"] == (
                f"The server does not run as root, and cannot run this as {user}.\n"
            )


# How it ends, and what it says


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        ("true", 0, None),
        ("exit 7", 7, "it ended with exit code 7"),
        ("exit 255", 255, "it ended with exit code 255"),
        ("nosuchcommand", 127, "it ended with exit code 127"),
        ("if", 2, "it ended with exit code 2"),
        ("kill -9 $$", -9, "it was ended by signal 9"),
        ("kill -TERM $$", -15, "it was ended by signal 15"),
        ("kill -PIPE $$", -13, "it was ended by signal 13"),
        ("kill -9 0", -9, "it was ended by signal 9"),
    ],
)
def test_it_is_told_how_it_ended(cron: Cron, command: str, code: int, error: str | None) -> None:
    entry = cron.add(command)
    started = cron.run(entry)
    assert started["status"] == "running"
    [run] = cron.over(entry)
    assert (run["id"], run["exit_code"]) == (started["id"], code)
    assert run["status"] == ("failed" if code else "succeeded")
    assert cron.told(entry) == ["started", "failed" if code else "finished"]
    if error is not None:
        assert cron.error(entry) == error


def test_of_much_that_it_says_the_first_and_the_last_are_kept(
    cron: Cron, server: tuple[Server, str]
) -> None:
    server[0].forget_peak()
    before = server[0].resident("VmRSS")
    run = cron.result(
        "echo first; yes 0123456789 | head -c 10485760; echo last;"
        " { echo FIRST; tr '\\0' x </dev/zero | head -c 10485760; echo LAST; } >&2"
    )
    assert server[0].resident() - before < 8 << 20
    assert run["status"] == "succeeded"
    for stream, first, last in (("stdout", "first", "last"), ("stderr", "FIRST", "LAST")):
        said = run[stream]
        assert said.startswith(f"{first}\n")
        assert said.endswith(f"{last}\n")
        assert 128 << 10 <= len(said) <= (128 << 10) + 60
        left_out = 10485760 + len(f"{first}\n{last}\n") - (128 << 10)
        assert f"\n[... {left_out} bytes are left out here ...]\n" in said


def test_what_it_says_may_be_anything(cron: Cron) -> None:
    said = r"a\000b\377\303(\303\251\355\240\200\r\n\033[31m"
    run = cron.result(rf"printf '{said}'; printf '\342\202'")
    bad = "\N{REPLACEMENT CHARACTER}"
    assert run["stdout"] == f"a{bad}b{bad}{bad}(é{bad * 3}\r\n\x1b[31m{bad}"
    assert cron.result("cat /dev/urandom | head -c 300000 | tee /dev/stderr")["exit_code"] == 0


def test_one_that_closes_its_output_goes_on(cron: Cron) -> None:
    run = cron.result("echo a; exec >&- 2>&-; sleep 0.7; exit 3")
    assert (run["stdout"], run["exit_code"]) == ("a\n", 3)
    assert run["duration_ms"] >= 700


def test_it_reads_nothing(cron: Cron) -> None:
    assert cron.result("cat; wc -c")["stdout"].strip() == "0"


def test_it_ends_with_its_command_whoever_holds_its_output_open(
    cron: Cron, server: tuple[Server, str]
) -> None:
    """And who that is goes on, and is heard of when it ends, as we are its parent then."""
    run = cron.result("{ sleep 600; } & echo $!")
    assert run["status"] == "succeeded"
    assert run["duration_ms"] < 10_000
    pid = int(run["stdout"])
    assert lives(pid)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), 20)


def test_what_it_leaves_in_the_background_is_heard_of_when_it_ends(
    cron: Cron, server: tuple[Server, str]
) -> None:
    run = cron.result(
        "i=0; while [ $i -lt 20 ]; do (setsid sleep 0.2 >/dev/null 2>&1 &); i=$((i+1)); done"
    )
    assert run["status"] == "succeeded"
    eventually(lambda: not children(server[0]), 20)


# Too long


def test_after_its_time_it_is_asked_to_end(cron: Cron) -> None:
    entry = cron.add("trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done")
    assert cron.ask("PATCH", entry, "", {"timeout_seconds": 1}).status == 200
    cron.run(entry)
    [run] = cron.over(entry)
    assert (run["status"], run["exit_code"], run["stdout"]) == ("timed_out", 0, "bye\n")
    assert 1000 <= run["duration_ms"] < 5000
    assert cron.error(entry) == "it took longer than 1 s"


STUBBORN = "trap '' TERM; sh -c 'echo $PPID' >>{}/pids; while :; do sleep 0.05; done"


@pytest.mark.parametrize("is_leader", [True, False], ids=["the command", "what it began"])
def test_who_does_not_end_then_is_ended(cron: Cron, place: Path, is_leader: bool) -> None:
    """All of its processes, be it that the command itself has ended."""
    stubborn = STUBBORN.format(place)
    last = stubborn if is_leader else f"echo $$ >>{place}/pids; exec sleep 600"
    entry = cron.add(f"({stubborn}) & (({stubborn}) & exec sleep 600) & {last}", timeout_seconds=1)
    cron.run(entry)
    eventually(lambda: len(lines(place / "pids")) == 3)
    group = os.getpgid(int(lines(place / "pids")[0]))
    members = subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True)
    assert len(members.stdout.split()) >= 4
    [run] = cron.over(entry)
    assert run["status"] == "timed_out"
    assert run["exit_code"] == (-9 if is_leader else -15)
    eventually(lambda: [pid for pid in map(int, members.stdout.split()) if lives(pid)] == [], 1)
    assert 5900 <= run["duration_ms"] < 15_000


# Again


def test_a_failure_is_tried_again_later_and_later(cron: Cron, place: Path) -> None:
    entry = cron.add(f"date +%s.%N >>{place}/times; exit 1", retries=2)
    fire(cron.dsn, entry)
    runs = cron.over(entry, 3)
    assert [run["attempt"] for run in runs] == [1, 2, 3]
    assert [run["status"] for run in runs] == ["failed"] * 3
    assert len({run["scheduled_at"] for run in runs}) == 1
    first, second, third = map(float, lines(place / "times"))
    assert second - first >= 0.29
    assert third - second >= 0.59
    time.sleep(1.5)  # a fourth would have come after 1.2
    assert len(cron.runs(entry)) == 3
    assert cron.told(entry) == ["started", "failed"] * 3


def test_what_succeeds_is_not_tried_again(cron: Cron, place: Path) -> None:
    entry = cron.add(f"echo x >>{place}/tries; [ $(wc -l <{place}/tries) = 2 ]", retries=5)
    cron.run(entry)
    runs = cron.over(entry, 2)
    assert [run["status"] for run in runs] == ["failed", "succeeded"]


# Several at once


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow"])
def test_one_that_is_due_while_it_runs(cron: Cron, place: Path, overlap: str) -> None:
    entry = cron.add(until_gate(place), overlap=overlap)
    for count in (1, 2, 3):
        fire(cron.dsn, entry)
        eventually(lambda count=count: len(cron.runs(entry)) == count)  # type: ignore[misc]
    at_once = 3 if overlap == "allow" else 1
    eventually(lambda: len(lines(place / "begun")) == at_once)
    statuses = [run["status"] for run in cron.runs(entry)]
    assert statuses == ["running"] + ["skipped" if overlap == "skip" else "running"] * 2
    (place / "gate").touch()
    runs = cron.over(entry, 3)
    assert len(lines(place / "ended")) == (1 if overlap == "skip" else 3)
    times = [(run["started_at"], run["finished_at"]) for run in runs if run["started_at"]]
    if overlap == "queue":
        assert all(one[1] <= two[0] for one, two in itertools.pairwise(times))
    assert cron.told(entry).count("skipped") == (2 if overlap == "skip" else 0)


def test_no_more_run_at_once_than_may(tmp_path: Path, cluster: Postgres) -> None:
    option = database_option(cluster)
    with Server(tmp_path / "data", option, "--cron-runs=2") as server:
        cron = Cron.of(server, option.partition("=")[2])
        entries = [cron.add(f"echo + >>{tmp_path}/n; sleep 0.3; echo - >>{tmp_path}/n")]
        entries += [cron.add(f"echo + >>{tmp_path}/n; sleep 0.3; echo - >>{tmp_path}/n")]
        entries += [cron.add(f"echo + >>{tmp_path}/n; exec sleep 1", timeout_seconds=1)]
        entries += [cron.add(f"echo + >>{tmp_path}/n; sleep 0.3; echo - >>{tmp_path}/n")]
        fire(cron.dsn, *entries)
        runs = [cron.over(entry)[0] for entry in entries]
    going = [(run["started_at"], run["finished_at"]) for run in runs]
    at_once = [sum(a <= each[0] < b for a, b in going) for each in going]
    assert max(at_once) == 2, going
    assert all(run["status"] in ("succeeded", "timed_out") for run in runs)


# Changed, deleted


def test_a_run_is_of_the_version_that_was_due(cron: Cron, place: Path) -> None:
    entry = cron.add(until_gate(place, then="echo one"))
    cron.run(entry)
    eventually(lambda: lines(place / "begun"))
    assert cron.ask("PATCH", entry, "", {"command": "echo two"}).json["version"] == 2
    (place / "gate").touch()
    [run] = cron.over(entry)
    assert (run["version"], run["stdout"]) == (1, "one\n")
    cron.run(entry)
    run = cron.over(entry, 2)[-1]
    assert (run["version"], run["stdout"]) == (2, "two\n")
    assert [each["data"]["version"] for each in cron.events(entry)] == [1, 1, 2, 2]


def test_one_whose_entry_is_deleted_goes_on_to_its_end_and_is_the_last(
    cron: Cron, place: Path
) -> None:
    entry = cron.add(until_gate(place, then="echo done; exit 1"), retries=3)
    cron.run(entry)
    eventually(lambda: lines(place / "begun"))
    assert cron.ask("DELETE", entry).json == {"deleted": True}
    assert cron.ask("POST", entry, "/run").status == 404
    (place / "gate").touch()
    [run] = cron.over(entry)
    assert (run["status"], run["stdout"]) == ("failed", "done\n")
    time.sleep(0.8)  # after 0.3 it would be tried again
    assert len(cron.runs(entry)) == 1
    assert cron.told(entry) == ["started", "failed"]


# The server ends


def test_what_a_killed_server_had_claimed_is_lost_and_not_run_again(
    tmp_path: Path, cluster: Postgres
) -> None:
    """One that ran, and one that had not begun."""
    option = database_option(cluster)
    dsn = option.partition("=")[2]
    server = Server(tmp_path / "data", option, "--cron-runs=1", "--cron-retry=0.3s")
    cron = Cron.of(server, dsn)
    first = cron.add(until_gate(tmp_path), retries=2)
    fire(dsn, first)
    [pid] = eventually(lambda: lines(tmp_path / "begun"))
    second = cron.add(f"echo second >>{tmp_path}/begun", retries=2)
    fire(dsn, second)
    eventually(lambda: len(cron.runs(second)) == 1)
    server.process.kill()
    server.process.wait()
    with Server(tmp_path / "data", option, "--cron-retry=0.3s") as server:
        cron = Cron.of(server, dsn)
        [began], [never] = cron.over(first), cron.over(second)
        for run in (began, never):
            assert (run["status"], run["exit_code"]) == ("lost", None)
            assert run["finished_at"] is not None
        assert began["started_at"] is not None
        assert never["started_at"] is None
        assert cron.told(first) == ["started", "failed"]
        assert cron.told(second) == ["failed"]
        assert cron.error(first) == "the server was killed while it ran"
        assert cron.error(second) == "the server was killed before it began"
        time.sleep(0.8)  # after 0.3 a failure would be tried again
        assert cron.over(first) == [began]
        assert cron.over(second) == [never]
        assert lines(tmp_path / "begun") == [pid]
        cron.run(second)  # what was lost is in nobody's way
        assert cron.over(second, 2)[-1]["status"] == "succeeded"
    (tmp_path / "gate").touch()
    eventually(lambda: not lives(int(pid)))


@pytest.mark.parametrize("may_end", [True, False])
def test_when_the_server_stops_what_runs_may_end_and_is_then_ended(
    tmp_path: Path, cluster: Postgres, may_end: bool
) -> None:
    option = database_option(cluster)
    dsn = option.partition("=")[2]
    drain = "--drain=20s" if may_end else "--drain=0.3s"
    server = Server(tmp_path / "data", option, drain)
    cron = Cron.of(server, dsn)
    first = cron.add(until_gate(tmp_path))
    # What hears of it, and what does not.
    second = cron.add(f"({STUBBORN.format(tmp_path)}) & {until_gate(tmp_path)}")
    for entry in (first, second):
        cron.run(entry)
    eventually(lambda: len(lines(tmp_path / "begun")) == 2 and lines(tmp_path / "pids"))
    pids = [int(pid) for pid in lines(tmp_path / "begun") + lines(tmp_path / "pids")]
    server.signal()
    if may_end:
        server.wait_for(lambda event: "SIGTERM" in event["message"])
        # Commands ask the API, as long as they run.
        subprocess.run(["curl", "-sS", f"{server.url}/health"], check=True, capture_output=True)
        (tmp_path / "gate").touch()
    assert server.process.wait(20) == -signal.SIGTERM
    server.stop()
    with Server(tmp_path / "data", option) as server:
        cron = Cron.of(server, dsn)
        for entry in (first, second):
            [run] = cron.over(entry)
            if may_end:
                assert (run["status"], run["exit_code"]) == ("succeeded", 0)
                assert cron.told(entry) == ["started", "finished"]
            else:
                assert (run["status"], run["exit_code"]) == ("failed", -15)
                assert cron.told(entry) == ["started", "failed"]
                assert cron.error(entry) == "the server was stopped"
    if may_end:
        os.kill(pids.pop(), signal.SIGKILL)  # what is left in the background is left alone
    eventually(lambda: not any(map(lives, pids)), 1)


# Several servers


@pytest.mark.parametrize("count", [2, pytest.param(5, marks=pytest.mark.long)])
def test_several_servers_of_one_database_run_each_fire_once(
    tmp_path: Path, cluster: Postgres, count: int
) -> None:
    option = database_option(cluster)
    dsn = option.partition("=")[2]
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(Server(tmp_path / f"data{number}", option))
            for number in range(count)
        ]
        token = Cron.of(servers[0], dsn).api.token  # every server accepts it
        crons = [Cron(each.url, api(servers[0]).with_token(token), dsn) for each in servers]
        entries: dict[str, Cron] = {}
        for cron in crons:
            for _ in range(10):
                name = f"{len(entries)}"
                entries[cron.add(f"echo {name} >>{tmp_path}/ran")] = cron
        for times in (1, 2):
            fire(dsn, *entries)
            for entry, cron in entries.items():
                runs = cron.over(entry, times)
                own = (tmp_path / f"data{crons.index(cron)}" / "server-id").read_text().strip()
                assert {(run["status"], run["server_id"]) for run in runs} == {("succeeded", own)}
            ran = sorted(lines(tmp_path / "ran"), key=int)
            assert ran == [str(n) for n in range(len(entries)) for _ in range(times)]
        for answer in (crons[1].ask("POST", next(iter(entries)), "/run"),):
            assert answer.status == 421, answer.body
            assert "runs on the server" in answer.json["message"]


# Postgres goes


@pytest.fixture(scope="module")
def fragile() -> Iterator[Postgres]:
    """A Postgres that is ended, and started again."""
    with open_folder() as made, postgres(made / "postgres") as running:
        yield running
        end(running)


def test_while_postgres_is_away_fires_are_late_or_missed_and_ends_are_kept(
    tmp_path: Path, fragile: Postgres
) -> None:
    option = database_option(fragile)
    dsn = option.partition("=")[2]
    with Server(tmp_path / "data", option) as server:
        cron = Cron.of(server, dsn)
        ending = cron.add(until_gate(tmp_path, then="echo bye; exit 3"))
        late = cron.add(f"echo late >>{tmp_path}/ran")
        missed = cron.add(f"echo missed >>{tmp_path}/ran", start_deadline_seconds=1)
        cron.run(ending)
        [pid] = eventually(lambda: lines(tmp_path / "begun"))
        eventually(lambda: cron.told(ending) == ["started"])
        began = time.time()
        fire(dsn, late, missed, within=2)
        end(fragile)
        assert time.time() < began + 2, "it was away before they were due"
        (tmp_path / "gate").touch()
        eventually(lambda: not lives(int(pid)))
        ended = time.time()
        time.sleep(max(0, began + 4 - time.time()))  # over the deadline
        again(fragile)
        [run] = cron.over(ending)
        assert (run["status"], run["exit_code"], run["stdout"]) == ("failed", 3, "bye\n")
        finished = datetime.fromisoformat(run["finished_at"]).timestamp()
        assert finished == pytest.approx(ended, abs=1)
        assert cron.told(ending) == ["started", "failed"]
        [run] = cron.over(late)
        assert run["status"] == "succeeded"
        assert 1500 <= run["start_delay_ms"] < 30_000
        assert cron.told(late) == ["started", "finished"]
        [run] = cron.over(missed)
        assert (run["status"], run["started_at"]) == ("missed", None)
        assert cron.told(missed) == ["missed"]
        assert lines(tmp_path / "ran") == ["late"]


def until_over(dsn: str, entries: int, times: int) -> None:
    query = "SELECT count(*), count(DISTINCT entry_id) FROM hoody.cron_runs WHERE status <> "
    wanted = [(entries * times, entries)]
    eventually(lambda: sql(dsn, f"{query} 'running'") == wanted)


@pytest.mark.parametrize("rounds", [3, pytest.param(25, marks=pytest.mark.long)])
def test_postgres_is_killed_as_fires_are_claimed(
    tmp_path: Path, fragile: Postgres, rounds: int
) -> None:
    option = database_option(fragile)
    dsn = option.partition("=")[2]
    chance = random.Random(rounds)
    with Server(tmp_path / "data", option) as server:
        cron = Cron.of(server, dsn)
        entries = [cron.add(f"echo {n} >>{tmp_path}/ran", timeout_seconds=60) for n in range(50)]
        for times in range(1, rounds + 1):
            fire(dsn, *entries)
            time.sleep(chance.uniform(0, 0.15))
            end(fragile)
            again(fragile)
            until_over(dsn, 50, times)
            ran = Counter(lines(tmp_path / "ran"))
            assert ran == {str(n): times for n in range(50)}
        statuses = sql(dsn, "SELECT status, count(*) FROM hoody.cron_runs GROUP BY status")
        assert statuses == [("succeeded", 50 * rounds)]


@pytest.mark.parametrize(
    "forgotten", [b"INSERT INTO cron_runs", b"cron.run.started", b"cron.run.finished"]
)
def test_postgres_goes_just_when_it_has_written(
    tmp_path: Path, cluster: Postgres, forgotten: bytes
) -> None:
    """That a run is claimed, begins, or is over; and nobody hears of that."""
    option = database_option(cluster)
    dsn = option.partition("=")[2]
    with Forgetful(Path(cluster.env["PGHOST"])) as postgres:
        through = option.replace(cluster.env["PGHOST"], str(postgres.folder))
        with Server(tmp_path / "data", through) as server:
            cron = Cron.of(server, dsn)
            entry = cron.add(f"echo x >>{tmp_path}/ran")
            ways = [lambda: fire(dsn, entry), lambda: hand(cron, entry)]
            for times, begin in enumerate(ways, 1):
                postgres.forget(forgotten)
                begin()
                runs = cron.over(entry, times)
                assert postgres.forgot == times
                assert [run["status"] for run in runs] == ["succeeded"] * times
                assert cron.told(entry) == ["started", "finished"] * times
                assert lines(tmp_path / "ran") == ["x"] * times


def hand(cron: Cron, entry: str) -> None:
    assert cron.ask("POST", entry, "/run").status in (202, 503)
