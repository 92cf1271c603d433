"""A server with many cron entries, which are put where they are by SQL: that takes no time."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
from attrs import define, field

from bench.rivals import Server, hoody_with
from hoody.cron.entry import TOPIC
from hoody.store.cluster import Cluster
from hoody.store.postgres import CHANNEL

_LATE = 60.0
# The same in all but their time, as a day has it: so some are due each minute.
_CLONES = """\
INSERT INTO hoody.cron_entries SELECT (jsonb_populate_record(e, jsonb_build_object(
    'id', gen_random_uuid(), 'comment', n, 'next_fire_at', at + CASE WHEN at > now()
    THEN interval '0' ELSE interval '1 day' END, 'schedule', to_char(at, 'FMMI FMHH24 * * *')))).*
FROM hoody.cron_entries e, generate_series(1, %s) AS n,
    LATERAL (SELECT date_trunc('day', now()) + n * 7 %% 1440 * interval '1 min' AS at) AS placed
"""
_DUE = """\
UPDATE hoody.cron_entries e SET next_fire_at = to_timestamp(due.at), command = due.command
FROM unnest(%s::text[], %s::float8[], %s::text[]) AS due (comment, at, command)
WHERE e.comment = due.comment
"""
_SEEN = """\
SELECT count(*), count(*) FILTER (WHERE status <> 'running'),
    count(*) FILTER (WHERE status = 'succeeded')
FROM hoody.cron_runs WHERE scheduled_at = to_timestamp(%s)
"""


@define(eq=False)
class Book:
    """
    A data directory whose server knows entries; they are called by numbers from 1.

    @ivar entries: how many.
    """

    folder: Path
    entries: int
    settings: Sequence[str] = field(default=())

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Its server, and its database."""
        data = self.folder / "data"
        given = ["--database=", f"--data-dir={data}", *self.settings]
        with hoody_with(given, self.folder) as server:
            token = (data / "root-token").read_text().strip()
            with closing(psycopg2.connect(Cluster(str(data)).dsn())) as database:
                database.autocommit = True
                yield Opened(server, token, database)

    @classmethod
    def made(cls, folder: Path, entries: int) -> Book:
        folder.mkdir()
        folder.chmod(0o711)  # Postgres is to pass through, as a user of its own
        book = cls(folder, entries)
        with book.open() as opened:
            if entries:
                opened.fill(entries)
        return book


@define(eq=False)
class Opened:
    server: Server
    token: str
    _database: Any

    def run(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._database.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

    def fill(self, entries: int) -> None:
        fields = {"schedule": "0 0 1 1 *", "command": ":", "comment": "0", "enabled": True}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        connection.request(
            "POST",
            "/users/root/entries",
            json.dumps({**fields, "run_on": "server"}),
            {
                "Host": "cron.containers.hoody.localhost",
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
            },
        )
        answer = connection.getresponse()
        if answer.status != 201:
            raise OSError(answer.read().decode())
        self.run(_CLONES, (entries,))
        self.run("DELETE FROM hoody.cron_entries WHERE comment = '0'")
        self.run("ANALYZE hoody.cron_entries")

    def have_due(self, times: Mapping[int, float], commands: Mapping[int, str] | str) -> None:
        """
        @param times: when each of these entries is due, in seconds since 1970.
        """
        given = [commands if isinstance(commands, str) else commands[one] for one in times]
        self.run(_DUE, (list(map(str, times)), list(times.values()), given))
        self.run(f"NOTIFY {CHANNEL}, '{TOPIC}'")

    def seen(self, at: float) -> tuple[int, int, int]:
        """How many runs that were due then are claimed, are over, and went well."""
        return self.run(_SEEN, (at,))[0]

    def delays(self, times: Sequence[float]) -> list[float]:
        """How late the server says that it began what was due then, in ms."""
        at = [datetime.fromtimestamp(each, UTC) for each in times]
        sql = "SELECT start_delay_ms FROM hoody.cron_runs WHERE scheduled_at = ANY(%s)"
        late = time.monotonic() + _LATE
        while True:
            found = [row[0] for row in self.run(sql, (at,)) if row[0] is not None]
            if len(found) >= len(times):
                return found
            if time.monotonic() > late:
                raise OSError(f"of {len(times)} runs {len(found)} have begun")
            time.sleep(0.1)
