"""The gateway where file descriptors are few."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers import House
from tests.support.postgres import Postgres
from tests.support.wire import Answer, Wire

LIMIT = 160
KEPT = 64
"""Of these, more than are kept from connections."""
REFUSALS = {"No connection is left for this", "All connections are taken"}
REQUEST = b"GET /cgi-bin/wait HTTP/1.1\r\nHost: slow.containers.hoody.localhost\r\n\r\n"
SLOW = r"""
mkdir -p /www/cgi-bin
cat > /www/cgi-bin/wait <<END
#!/bin/sh
while [ ! -e /go ]; do sleep 0.1; done
printf 'Content-Type: text/plain\r\n\r\nok'
END
chmod +x /www/cgi-bin/wait
exec httpd -f -p 8080 -h /www
"""
"""Answers when it is let."""


@pytest.fixture
def house(tmp_path: Path, pool: Path, cluster: Postgres) -> Iterator[House]:
    few = ["prlimit", f"--nofile={LIMIT}:{LIMIT}"]
    house = House(tmp_path / "data", pool, cluster, prefix=few)
    try:
        yield house
    finally:
        house.close()


def test_who_comes_when_descriptors_run_out_is_told_and_who_is_there_goes_on(
    house: House,
) -> None:
    house.create("slow", command=SLOW, egress="none")
    before = house.server.steady()
    with contextlib.ExitStack() as stack:

        def come() -> Wire:
            return stack.enter_context(Wire(house.server))

        wires = [come() for _ in range(LIMIT - KEPT - house.server.health()["fds"])]
        for wire in wires:
            wire.send(REQUEST)
        told, waiting = answers(wires)
        # Which of the two it is depends on how many connections to Postgres there are just now.
        assert told
        assert {said_of(answer) for answer in told} <= REFUSALS
        assert len(waiting) > 10
        late, unheard = answers([come().send(REQUEST) for _ in range(15)])
        assert {said_of(answer) for answer in late} <= REFUSALS
        assert not unheard
        assert house.server.health()["fds"] <= LIMIT - 12
        for wire in set(wires) - set(waiting):
            wire.close()
        assert house.run("slow", "touch /go")[0] == 0
        for wire in waiting:
            assert wire.answer().body == b"ok"
    house.server.settle(before)
    assert house.get("slow", "/cgi-bin/wait") == (200, b"ok")


def answers(wires: list[Wire]) -> tuple[list[Answer], list[Wire]]:
    """What some were told, and who was told nothing, once nothing more comes."""
    told, waiting = [], list(wires)
    while readable := select.select([wire.socket for wire in waiting], [], [], 1)[0]:
        for wire in [wire for wire in waiting if wire.socket in readable]:
            waiting.remove(wire)
            told.append(wire.answer())
    return told, waiting


def said_of(answer: Answer) -> str:
    """Of one that was refused for a while."""
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    return answer.text.removeprefix("[ERROR] ").partition(";")[0]
