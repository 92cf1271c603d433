"""The program itself: how it is found, told, started, drained and stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hoody import __version__
from hoody.settings import Settings, declared, flag
from tests.conftest import Serve
from tests.support.server import TWISTD, Server
from tests.support.wire import Wire, fill

ROOT = Path(__file__).parents[2]


def hoody(*options: str, cwd: Path, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Start it with options that it does not survive; how it ended, and what it said."""
    done = subprocess.run(
        [TWISTD, "-n", "--pidfile=", "hoody", *options],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        timeout=30,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).decode()


def test_help_lists_every_setting(tmp_path: Path) -> None:
    status, text = hoody("--help", cwd=tmp_path)
    assert status == 0
    for attribute in declared():
        assert f"--{flag(attribute)}=" in text


def test_every_setting_of_the_design_is_there() -> None:
    wanted = (
        "listen data-dir database domain pipe-auth pipe-ttl containers storage ksm zram drain"
        " log-format"
    )
    assert set(wanted.split()) <= {flag(attribute) for attribute in declared()}


def test_settings_of_later_parts_parse_already(serve: Serve) -> None:
    server = serve(
        "--containers=off",
        "--storage=20G",
        "--ksm=off",
        "--zram=1G",
    )
    assert server.health()["status"] == "ok"
    messages = " ".join(event["message"] for event in server.events)
    assert "setting containers=off" in messages


def test_a_dsns_password_is_not_logged(serve: Serve) -> None:
    server = serve("--database=postgresql://joe:secret@127.0.0.1:1/hoody", patience=30)
    messages = " ".join(event["message"] for event in server.events)
    assert "user=joe password=***" in messages
    assert "secret" not in messages


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--pipe-ttl=soon", "--pipe-ttl: 'soon' will not do; give seconds"),
        ("--pipe-auth=maybe", "--pipe-auth: 'maybe' will not do; give one of open, token"),
        ("--max-waiting=0", "--max-waiting: '0' will not do; give a whole number"),
        ("--containers=docker", "--containers: 'docker' will not do; give one of auto, off"),
        ("--listen=nonsense:1", "--listen: 'nonsense:1' is not an endpoint"),
        ("--listen=tcp:0", "'tcp:0' can be reached from other machines; say --pipe-auth=open"),
        ("--domain=-x", "--domain: '-x' will not do; give a host name"),
        ("--no-such-thing=1", "no-such-thing"),
    ],
)
def test_a_setting_that_will_not_do_is_named_with_its_cure(
    tmp_path: Path, option: str, sentence: str
) -> None:
    status, text = hoody(option, cwd=tmp_path)
    assert status != 0
    assert sentence in text


def test_settings_come_from_the_environment_too_and_the_command_line_wins(
    tmp_path: Path,
) -> None:
    env = {"HOODY_PIPE_TTL": "7m", "HOODY_DOMAIN": "example.org"}
    with Server(tmp_path, "--domain=example.net", env=env) as server:
        messages = [event["message"] for event in server.events]
    assert "setting pipe-ttl=420.0" in messages
    assert "setting domain=example.net" in messages
    status, text = hoody(cwd=tmp_path, env={"HOODY_DRAIN": "never"})
    assert status != 0
    assert "HOODY_DRAIN: 'never' will not do" in text


def test_a_port_that_is_taken_is_said_and_ends_the_start(server: Server, tmp_path: Path) -> None:
    listen = f"--listen=tcp:{server.port}:interface=127.0.0.1"
    status, text = hoody(listen, f"--data-dir={tmp_path}", cwd=tmp_path)
    assert "cannot listen" in text
    assert status != 0


def test_it_listens_in_several_places(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Server(tmp_path / "data", f"--listen=unix:{path}") as server:
        server.wait_for(lambda event: event["message"].startswith(f"listening on {path}"))
        curl = ["curl", "-s", "--unix-socket", str(path), "http://localhost/api/v1/pipe/a"]
        receiver = subprocess.Popen(curl, stdout=subprocess.PIPE)
        server.waiting(1)
        sent = subprocess.run([*curl, "-T", "-"], input=b"hi", capture_output=True, check=True)
        assert receiver.communicate()[0] == b"hi"
        assert sent.stdout.endswith(b"[INFO] Transfer complete.\n")


@pytest.mark.parametrize(
    "program", [[TWISTD, "-n", "--pidfile="], [sys.executable, "-m", "twisted"]]
)
def test_twistd_and_python_m_twisted_find_the_plugin(tmp_path: Path, program: list[str]) -> None:
    said = subprocess.run(
        [*program, "hoody", "--version"], cwd=tmp_path, capture_output=True, check=True
    )
    assert said.stdout.decode().strip() == f"hoody {__version__}"


def test_a_wheel_and_a_checkout_have_the_plugin(tmp_path: Path) -> None:
    checkout, wheel = tmp_path / "checkout", tmp_path / "wheel"
    subprocess.run(["cp", "-r", "--", *map(str, _sources()), _made(checkout)], check=True)
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    build = [sys.executable, "-m", "pip", "-q", "wheel", "--no-deps", "-w", str(wheel)]
    subprocess.run([*build, str(checkout)], check=True, capture_output=True)
    installed = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "-q", "install", "--no-deps", "--target"]
    subprocess.run([*install, str(installed), *map(str, wheel.glob("*.whl"))], check=True)
    assert (installed / "twisted/plugins/hoody_plugin.py").exists()
    assert not (installed / "twisted/__init__.py").exists()
    assert not (installed / "twisted/plugins/__init__.py").exists()
    find = (
        "from twisted.plugin import getPlugins\n"
        "from twisted.application.service import IServiceMaker\n"
        "import hoody\n"
        "assert [p for p in getPlugins(IServiceMaker) if p.tapname == 'hoody']\n"
        "print(hoody.__file__)\n"
    )
    for place in (checkout, installed):
        env["PYTHONPATH"] = str(place)
        found = subprocess.run(
            [sys.executable, "-c", find], env=env, cwd=tmp_path, capture_output=True, check=True
        )
        assert found.stdout.decode().startswith(str(place))


def _sources() -> list[Path]:
    names = ["hoody", "twisted", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"]
    return [ROOT / name for name in names]


def _made(path: Path) -> str:
    path.mkdir()
    return str(path)


@pytest.mark.needs_root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a namespace without a network")
@pytest.mark.skipif(not (ROOT / ".venv/prepared").exists(), reason="script/server has not run yet")
def test_a_second_start_needs_no_network() -> None:
    command = ["unshare", "--net", str(ROOT / "script/server"), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.stdout.strip() == f"hoody {__version__}", done.stderr


def test_one_access_event_a_request(tmp_path: Path, name: str) -> None:
    with Server(tmp_path) as server:
        with Wire(server) as wire:
            wire.get("version?a=b&token=s3cret", "User-Agent: me", "X-Request-Id: id-1").answer()
            wire.put("help", "Content-Length: 3").send(b"abc").answer()
        with Wire(server) as wire:
            wire.get(name)
            server.waiting(1)
        event = server.wait_for(lambda event: event.get("request_id") == "id-1")
        assert event["method"] == "GET"
        assert event["target"] == "/api/v1/pipe/version?a=b&token=***"
        assert (event["status"], event["client"], event["user_agent"]) == (200, "127.0.0.1", "me")
        assert event["outcome"] == "whole"
        assert event["duration_ms"] >= 0
        assert event["time"].endswith("Z")
        server.wait_for(lambda event: event.get("status") == 400 and event["sent"] > 0)
        lost = server.wait_for(lambda event: event.get("target", "").endswith(name))
        assert (lost["status"], lost["outcome"]) == (499, "lost")
        time.sleep(0.2)
        seen = [event for event in server.events if event.get("name") == "hoody.access"]
        ids = [event["request_id"] for event in seen]
        assert len(ids) == len(set(ids))
        assert "s3cret" not in json.dumps(server.events)


def test_a_pipes_end_is_logged(tmp_path: Path, name: str) -> None:
    with Server(tmp_path) as server:
        with Wire(server) as sender, Wire(server) as receiver:
            receiver.get(name)
            sender.put(name, "Content-Length: 3").send(b"abc")
            assert receiver.answer().body == b"abc"
        event = server.wait_for(lambda event: event.get("bytes") == 3)
        assert (event["path"], event["receivers"], event["error"]) == (name, 1, None)


def test_text_logs_are_one_line_an_event(tmp_path: Path) -> None:
    out = tmp_path / "log"
    with out.open("wb") as log:
        process = subprocess.Popen(
            [
                TWISTD,
                "-n",
                "--pidfile=",
                "hoody",
                "--listen=tcp:0:interface=127.0.0.1",
                f"--data-dir={tmp_path / 'data'}",
            ],
            stdout=log,
            cwd=tmp_path,
        )
        try:
            deadline = time.monotonic() + 20
            while b"listening on" not in out.read_bytes():
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            process.terminate()
            process.wait(10)
    lines = out.read_text().splitlines()
    assert all("#" in line and "[" in line for line in lines), lines


def test_sigterm_lets_running_pipes_end_and_takes_no_new_ones(serve: Serve, name: str) -> None:
    server = serve()
    waiting = Wire(server).get(f"{name}-waiting")
    sender, receiver = Wire(server), Wire(server)
    receiver.get(name)
    sender.put(name, "Transfer-Encoding: chunked")
    sender.read_line("[INFO] Streaming to 1 receiver(s)...")
    server.signal(signal.SIGTERM)
    answer = waiting.answer()
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    with Wire(server) as late:
        answer = late.get(f"{name}-late").answer()
        assert (answer.status, answer.text[:37]) == (503, "[ERROR] The server is about to stop; ")
        assert late.get("health").answer().status == 200
    sender.chunk(b"the rest").last_chunk()
    assert receiver.answer().body == b"the rest"
    sender.read_line("[INFO] Transfer complete.")
    server.process.wait(5)
    for wire in (waiting, sender, receiver):
        wire.close()


def test_what_runs_longer_than_drain_is_cut_and_told_so(serve: Serve, name: str) -> None:
    server = serve("--drain=500ms")
    with Wire(server) as sender, Wire(server) as receiver:
        receiver.get(name)
        sender.put(name, "Transfer-Encoding: chunked").chunk(b"hello")
        sender.read_line("[INFO] Streaming to 1 receiver(s)...")
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert b"[ERROR] The server is about to stop" in sender.read_all()
        assert 0.4 < time.monotonic() - began < 4
        assert not receiver.answer().whole
        server.process.wait(10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_cuts_at_once(serve: Serve, name: str, number: int) -> None:
    # Whoever is started in the background by a shell inherits that Ctrl-C is ignored.
    server = serve(prefix=["env", "--default-signal=INT"])
    with Wire(server) as sender, Wire(server) as receiver:
        receiver.get(name)
        sender.put(name, "Transfer-Encoding: chunked")
        sender.read_line("[INFO] Streaming to 1 receiver(s)...")
        fill(sender)
        server.signal(number)
        server.wait_for(lambda event: "signal again to cut them" in event["message"])
        server.signal(number)
        server.process.wait(10)
        assert not receiver.answer().whole


def test_an_idle_server_stops_at_once(serve: Serve) -> None:
    server = serve()
    began = time.monotonic()
    server.signal(signal.SIGTERM)
    server.process.wait(5)
    assert time.monotonic() - began < 3


def test_kill_9_leaves_receivers_a_broken_body_and_the_next_start_is_well(
    tmp_path: Path, name: str, mover: str
) -> None:
    with Server(tmp_path, mover) as server, Wire(server) as sender, Wire(server) as receiver:
        receiver.get(name)
        sender.put(name, "Transfer-Encoding: chunked").chunk(b"hello")
        receiver.read_until(b"hello")
        server.signal(signal.SIGKILL)
        server.process.wait()
        assert b"0\r\n\r\n" not in receiver.read_all()
        assert receiver.ended in ("closed", "reset")
    with Server(tmp_path) as server:
        assert server.health()["status"] == "ok"


def test_what_blocks_the_reactor_is_reported(tmp_path: Path) -> None:
    """The switch is tried on a server that is made to block."""
    program = (
        "import sys, time\n"
        "from twisted.internet import reactor\n"
        "from hoody.blocking import BlockingWatch\n"
        "def the_culprit(): time.sleep(0.5)\n"
        "def report(seconds, stack): print(stack); reactor.callFromThread(reactor.stop)\n"
        "watch = BlockingWatch(reactor, 0.05, report)\n"
        "reactor.callWhenRunning(watch.start)\n"
        "reactor.callLater(0.3, the_culprit)\n"
        "reactor.callLater(5, reactor.stop)\n"
        "reactor.run()\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert b"the_culprit" in said.stdout
    with Server(tmp_path, "--debug-blocking=50ms") as server:
        assert server.health()["status"] == "ok"


def test_the_defaults_are_those_of_the_contract() -> None:
    defaults = Settings()
    assert defaults.listen == ("tcp:8080:interface=127.0.0.1",)
    assert (defaults.pipe_ttl, defaults.waiting_note, defaults.peer_timeout) == (300, 25, 60)
    assert (defaults.form_timeout, defaults.head_timeout, defaults.drain) == (30, 30, 30)
    assert (defaults.max_waiting, defaults.max_waiting_per_address) == (1000, 100)
    assert (defaults.max_running, defaults.max_spectators, defaults.max_watched_paths) == (
        1000,
        50,
        500,
    )
