"""A connection to Postgres whose socket has gone before it."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from attrs import define
from twisted.internet import reactor as installed
from twisted.internet.epollreactor import EPollReactor

from hoody.store.links import _Connection

reactor: Any = installed


@define(eq=False)
class Pollable:
    """As psycopg2's."""

    number: int
    closed: int = 0

    def fileno(self) -> int:
        return self.number

    def close(self) -> None:
        self.closed = 1

    def poll(self) -> int:
        return 0


@pytest.mark.parametrize("writes", [False, True])
def test_a_socket_that_libpq_has_closed_is_forgotten(writes: bool) -> None:
    assert isinstance(reactor, EPollReactor)
    connection = _Connection(reactor)
    ours, theirs = socket.socketpair()
    number = ours.detach()
    connection._connection = Pollable(number)
    reactor.addReader(connection)
    if writes:
        reactor.addWriter(connection)
    os.close(number)
    connection._connection.number = -1
    connection.close()
    theirs.close()
    assert number not in reactor._selectables
    assert number not in reactor._reads
    assert number not in reactor._writes
