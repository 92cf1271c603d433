"""What becomes of requests to containers when the server is told to stop."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hoody.pipes.rendezvous import DRAINING
from tests.support.containers import House
from tests.support.postgres import Postgres
from tests.support.wire import Wire

ENDED = (0, -signal.SIGTERM, -signal.SIGINT)
"""How twistd ends that was told to."""
HOST = "slow.containers.hoody.localhost"
SLOW = r"""
mkdir -p /www/cgi-bin
program() { cat > /www/cgi-bin/$1; chmod +x /www/cgi-bin/$1; }
program begun <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\nfirst,'; sleep 1.5; printf 'last'
END
program later <<'END'
#!/bin/sh
sleep 1.5; printf 'Content-Type: text/plain\r\n\r\nfirst,last'
END
program endless <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\nfirst,'; exec sleep 60
END
program events <<'END'
#!/bin/sh
printf 'Content-Type: text/event-stream\r\n\r\nfirst,'; exec sleep 60
END
program tunnel <<'END'
#!/bin/sh
printf 'HTTP/1.1 101 Well\r\nConnection: upgrade\r\nUpgrade: it\r\n\r\nfirst,'; exec sleep 60
END
while :; do nc -l -p 81 -e /www/cgi-bin/tunnel; done &
exec httpd -f -p 8080 -h /www
"""


@pytest.fixture(scope="module")
def slow(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres
) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house") / "data", pool, cluster)
    try:
        house.create("slow", command=SLOW, egress="none", exposed_ports=[81])
        yield house
    finally:
        house.close()


@pytest.fixture
def house(slow: House) -> Iterator[House]:
    """One that may be stopped."""
    yield slow
    if slow.server.process.poll() is not None:
        slow.start()


def ask(house: House, program: str, host: str = HOST, *headers: str) -> Wire:
    head = [f"GET /cgi-bin/{program} HTTP/1.1", f"Host: {host}", *headers, "", ""]
    return Wire(house.server).send("\r\n".join(head).encode())


def test_answers_come_to_their_end_and_what_has_none_is_cut(house: House) -> None:
    row = house.row("slow")
    upgraded = f"{row['project_id']}-{row['id']}-http-81.any.containers.hoody.localhost"
    endless = [
        ask(house, "events"),
        ask(house, "", upgraded, "Connection: upgrade", "Upgrade: it"),
    ]
    begun, later = ask(house, "begun"), ask(house, "later")
    for wire in (*endless, begun):
        while b"first," not in wire.buffer:
            assert wire.more()
    house.server.signal()
    for wire in endless:
        wire.read_all()
    began = time.monotonic()
    for wire in (begun, later):
        answer = wire.answer()
        assert answer.status == 200
        assert answer.body == b"first,last"
        assert answer.whole
    # They had something to wait for, when the others had been cut.
    assert time.monotonic() - began > 0.5
    assert house.server.process.wait(3) in ENDED


def test_who_comes_then_is_told_and_a_second_signal_ends_all(house: House) -> None:
    wire = ask(house, "endless")
    while b"first," not in wire.buffer:
        assert wire.more()
    idle = Wire(house.server).send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    assert idle.answer().status == 404
    house.server.signal()
    house.server.wait_for(lambda event: "answer(s) of containers may go on" in event["message"])
    late = idle.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()).answer()
    assert late.status == 503
    assert late.text == f"[ERROR] {DRAINING}\n"
    assert late.headers["connection"] == "close"
    assert house.server.process.poll() is None
    house.server.signal(signal.SIGINT)
    assert not wire.answer().whole
    assert house.server.process.wait(3) in ENDED


def test_an_answer_is_waited_for_no_longer_than_all_else(house: House) -> None:
    house.server.stop()
    house.start("--drain=500ms")
    done = subprocess.Popen(
        ["curl", "-sN", f"http://{HOST}:{house.server.port}/cgi-bin/endless"],
        stdout=subprocess.PIPE,
    )
    assert done.stdout is not None
    assert done.stdout.read(6) == b"first,"
    house.server.signal()
    assert done.wait(3) == 18  # a transfer that is not whole
    done.stdout.close()
    assert house.server.process.wait(3) in ENDED
