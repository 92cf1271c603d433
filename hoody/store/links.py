"""
Connections to Postgres: txpostgres's, fenced.

What is fenced: a cancelled Deferred of txpostgres raises, and one that waits
may wait for ever; here a caller may go at any time, and the connection is
cleaned behind it. A connection that died idle raises into the reactor; here it
is told to whoever keeps it.

Private names of txpostgres used here, as of 1.7: none but that
C{Connection.doRead} raises when an idle connection dies, which
L{tests.contract.test_store} would notice.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import psycopg2
import psycopg2.extensions
from attrs import define, field, frozen
from twisted.internet.base import ReactorBase
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure
from txpostgres import txpostgres

from hoody.errors import DatabaseAway

Rows = list[tuple[Any, ...]]

STATEMENT_TIMEOUT = 10
"""Seconds after which the server gives a statement up that nobody waits for any more."""
OPTIONS = (
    f"-c search_path=hoody -c statement_timeout={STATEMENT_TIMEOUT}s"
    f" -c idle_in_transaction_session_timeout={STATEMENT_TIMEOUT}s -c timezone=UTC"
)


CONNECT_SECONDS = 5.0
"""How long a connection may take to come about; libpq has no limit of its own here."""
_WORDS = (
    ("refused", "the connection was refused"),
    ("no such file", "its socket is not there"),
    ("timeout", "it did not answer in time"),
    ("timed out", "it did not answer in time"),
    ("too late", "it did not answer in time"),
    ("too many", "it has no connection left"),
    ("connection slots", "it has no connection left"),
    ("authentication", "it does not let us in"),
    ("does not exist", "it does not let us in"),
    ("permission denied", "it does not let us in"),
    ("starting up", "it is starting"),
    ("recovery", "it is starting"),
    ("shutting down", "it is stopping"),
    ("administrator command", "it is stopping"),
    ("translate host name", "its host has no address"),
    ("name or service", "its host has no address"),
)

_log = Logger(namespace="hoody.database")


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a log."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def in_words(error: BaseException) -> str:
    """
    What an error of libpq means. What it says itself is for the log alone: it has
    hosts and roles in it.
    """
    said = str(error).lower()
    for part, words in _WORDS:
        if part in said:
            return words
    return "the connection was lost"


@define(eq=False)
class _Watched:
    """
    A descriptor of our own for a connection's socket.

    libpq closes its own when a connection dies. The reactor would go on to watch that number,
    which is somebody else's next: theirs would not be watched, or no longer.
    """

    _reactor: Any
    _number: int = field(default=-1, init=False)
    _socket: int = field(default=-1, init=False)

    def number(self, connection: Any) -> int:
        """@return: -1 if it is closed, as reactors know it."""
        if connection.closed:
            return -1
        try:
            theirs = connection.fileno()
            socket_of = os.fstat(theirs).st_ino
        except OSError:
            return self._number
        if socket_of != self._socket:  # it tries another address
            self.forget()
            self._number, self._socket = os.dup(theirs), socket_of
        return self._number

    def forget(self) -> None:
        """Whoever was watched by it is no longer."""
        if self._number < 0:
            return
        for remove in (self._reactor.removeReader, self._reactor.removeWriter):
            remove(_Numbered(self._number))
        os.close(self._number)
        self._number = self._socket = -1


@frozen
class _Numbered:
    """Whatever the reactor watches under a number."""

    _number: int

    def fileno(self) -> int:
        return self._number


class _Cursor(txpostgres.Cursor):  # type: ignore[misc]
    def __init__(self, cursor: Any, connection: _Connection) -> None:
        super().__init__(cursor, connection)
        self._watched = connection.watched

    def fileno(self) -> int:
        return self._watched.number(self.pollable())


class _Connection(txpostgres.Connection):  # type: ignore[misc]
    """
    @ivar died: called when it is found dead while nothing is asked of it.
    @ivar watched: what the reactor watches of it, and of its cursors.
    """

    cursorFactory = _Cursor
    died: Callable[[], None]

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.watched = _Watched(reactor)

    def fileno(self) -> int:
        return self.watched.number(self.pollable())

    def doRead(self) -> None:
        try:
            super().doRead()
        except Exception:
            self.died()


async def resolved(dsn: str) -> dict[str, Any]:
    """
    What a DSN says, with host names looked up: libpq would hold the reactor
    while it does so.

    @raise psycopg2.ProgrammingError: if it is none.
    """
    words: dict[str, Any] = psycopg2.extensions.parse_dsn(dsn)
    host = words.get("host", "")
    if host and "hostaddr" not in words and host[0] not in "/@" and "," not in host:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            found = await deferToThread(
                socket.getaddrinfo, host, words.get("port"), type=socket.SOCK_STREAM
            )
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
            words["host"] = ",".join([host] * len(addresses))
            words["hostaddr"] = ",".join(addresses)
    words["options"] = f"{words.get('options', '')} {OPTIONS}".strip()
    words.setdefault("application_name", "hoody")
    return words


@define(eq=False)
class Link:
    """
    One connection: one question at a time.

    @ivar late: until when what is asked may take, by CLOCK_MONOTONIC.
    @ivar usable: whether more may be asked.
    @ivar on_death: called once, when it dies while nothing is asked of it.
    """

    _reactor: ReactorBase
    _connection: _Connection
    late: float = field(default=float("inf"), init=False)
    usable: bool = field(default=True, init=False)
    on_death: Callable[[], None] | None = field(default=None, init=False)
    _waiting: Deferred[Any] | None = field(default=None, init=False)
    _running: Deferred[Any] | None = field(default=None, init=False)
    _quiet: list[Deferred[None]] = field(factory=list, init=False)

    @classmethod
    async def open(cls, reactor: ReactorBase, dsn: str) -> Link:
        """@raise DatabaseAway: if it cannot be."""
        connection = _Connection(reactor)
        link = cls(reactor, connection)
        connection.died = link._found_dead
        late = None
        try:
            words = await resolved(dsn)
            coming = connection.connect(**words)
            late = reactor.callLater(CONNECT_SECONDS, link.close)
            await coming
        except (psycopg2.Error, OSError, ConnectionClosed, txpostgres.UnexpectedPollResult) as e:
            _log.debug("no connection: {reason}", reason=first_line(e))
            link.close()
            overdue = late is not None and not late.active()
            raise DatabaseAway("it did not answer in time" if overdue else in_words(e)) from e
        finally:
            if late is not None and late.active():
                late.cancel()
        return link

    def run(self, sql: str, values: Sequence[object] | dict[str, object] = ()) -> Deferred[Rows]:
        """
        Ask.

        @return: the rows, if there are any. It may be cancelled; what was asked is
            then finished behind the caller's back.
        @raise DatabaseAway: if Postgres went, or took too long.
        @raise psycopg2.Error: what it says to the question itself.
        """
        waiting: Deferred[Rows] = Deferred()
        if not self.usable or self._connection.closed or self._running is not None:
            waiting.errback(DatabaseAway("the connection was lost"))
            return waiting
        self._waiting = waiting
        cursor = self._connection.cursor()
        self._running = cursor.execute(sql, values or None)  # may be over already
        self._running.addCallback(lambda _: cursor.fetchall() if cursor.description else [])
        self._running.addBoth(self._answered, waiting)
        return waiting

    def look(self) -> None:
        """Give up what takes too long."""
        if self._waiting is not None and monotonic() > self.late:
            waiting, self._waiting, self.usable = self._waiting, None, False
            if not waiting.called:
                waiting.errback(DatabaseAway("it did not answer in time"))
            self.close()

    async def quiet(self) -> None:
        """Wait for the end of what is being asked, whoever asked it."""
        if self._running is not None:
            done: Deferred[None] = Deferred()
            self._quiet.append(done)
            await done

    def on_notify(self, observer: Callable[[str], None]) -> None:
        """Have C{observer} called with the payload of each NOTIFY."""
        self._connection.addNotifyObserver(lambda notify: observer(notify.payload))

    def close(self) -> None:
        self.usable = False
        if self._connection.pollable() is None:
            return
        self._connection.close()
        self._connection.watched.forget()

    def _answered(self, result: Any, waiting: Deferred[Any]) -> None:
        self._running = self._waiting = None
        quiet, self._quiet = self._quiet, []
        try:
            if isinstance(result, Failure):
                result = self._understood(result)
        finally:  # nobody is to wait for ever
            for done in quiet:
                done.callback(None)
            if not waiting.called:
                waiting.callback(result)  # a Failure goes down the errbacks

    def _understood(self, failure: Failure) -> Failure:
        error = failure.value
        assert error is not None
        if isinstance(error, CancelledError):
            # So txpostgres calls a question that Postgres itself gave up: it took too long.
            return Failure(DatabaseAway("it did not answer in time"))
        if self.usable and not self._connection.closed:
            if not isinstance(error, (psycopg2.OperationalError, ConnectionClosed)):
                return failure  # of the question, not of the connection
            return Failure(DatabaseAway(in_words(error)))
        self.close()
        return Failure(DatabaseAway(in_words(error)))

    def _found_dead(self) -> None:
        self.close()
        told, self.on_death = self.on_death, None
        if told is not None:
            told()
