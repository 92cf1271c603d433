"""Cron as its clients have it; and fires that nobody has to wait a minute for."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
from attrs import define

from tests.support.api import Answer, Api, api
from tests.support.containers import House
from tests.support.server import Server

NEVER = "0 0 29 2 *"
"""A schedule that no test lives to see."""


def eventually(wanted: Callable[[], Any], seconds: float = 30) -> Any:
    """What it says, as soon as that is true."""
    late = time.monotonic() + seconds
    while not (found := wanted()):
        assert time.monotonic() < late, found
        time.sleep(0.03)
    return found


def lives(pid: int) -> bool:
    """Whether it runs; what has ended, and was not heard of, does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def sql(dsn: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as do:
        do.execute(query, values or None)
        return do.fetchall() if do.description else []


def fire(dsn: str, *entries: str, within: float = 0) -> None:
    """Have them be due in so many seconds, all at once, as if that were what they say."""
    sql(
        dsn,
        "UPDATE hoody.cron_entries SET next_fire_at = now() + make_interval(secs => %s)"
        " WHERE id = ANY(%s); NOTIFY hoody, 'cron'",
        *(within, list(entries)),
    )


@define(eq=False)
class Cron:
    """
    A client of one server.

    @ivar url: of the server.
    @ivar user: whose entries those are that it makes.
    """

    url: str
    api: Api
    dsn: str
    user: str = "root"

    @property
    def _entries(self) -> Api:
        return Api(self.url, self.api.token)

    @classmethod
    def of(cls, server: Server, dsn: str) -> Cron:
        return cls(server.url, api(server), dsn)

    @classmethod
    def of_house(cls, house: House) -> Cron:
        return cls.of(house.server, house.dsn)

    def make(self, command: str, **fields: object) -> Answer:
        user = fields.pop("user", self.user)
        body = {"schedule": NEVER, "command": command, **fields}
        return self._entries("POST", f"/users/{user}/entries", body)

    def add(self, command: str, **fields: object) -> str:
        answer = self.make(command, **fields)
        assert answer.status == 201, answer.body
        return str(answer.json["id"])

    def _path(self, entry: str) -> str:
        [(user,)] = sql(
            self.dsn,
            'SELECT "user" FROM hoody.cron_entry_versions WHERE id = %s LIMIT 1',
            entry,
        )
        return f"/users/{user}/entries/{entry}"

    def ask(self, method: str, entry: str, what: str = "", body: object = None) -> Answer:
        return self._entries(method, self._path(entry) + what, body)

    def run(self, entry: str) -> dict[str, Any]:
        """By hand."""
        answer = self.ask("POST", entry, "/run")
        assert answer.status == 202, answer.body
        run: dict[str, Any] = answer.json
        return run

    def runs(self, entry: str) -> list[dict[str, Any]]:
        """Oldest first."""
        answer = self.ask("GET", entry, "/runs?limit=200")
        assert answer.status == 200, answer.body
        found: list[dict[str, Any]] = answer.json["runs"]
        return found[::-1]

    def over(self, entry: str, count: int = 1, seconds: float = 30) -> list[dict[str, Any]]:
        """So many runs, as soon as they are there and over."""

        def found() -> list[dict[str, Any]] | None:
            runs = self.runs(entry)
            is_over = len(runs) >= count and all(run["status"] != "running" for run in runs)
            return runs if is_over else None

        runs: list[dict[str, Any]] = eventually(found, seconds)
        assert len(runs) == count, runs
        return runs

    def result(self, command: str, **fields: object) -> dict[str, Any]:
        """Of one run of a command."""
        entry = self.add(command, **fields)
        self.run(entry)
        [run] = self.over(entry)
        return run

    def events(self, entry: str) -> list[dict[str, Any]]:
        """Of its runs, oldest first."""
        answer = self.api.get("/events?resource_type=cron_run&limit=500&sort_order=asc")
        events: list[dict[str, Any]] = answer.data["events"]
        return [each for each in events if each["data"].get("entry_id") == entry]

    def told(self, entry: str) -> list[str]:
        return [each["event_type"].removeprefix("cron.run.") for each in self.events(entry)]

    def error(self, entry: str) -> str:
        """Of the only one that has failed."""
        [error] = [each["data"]["error"] for each in self.events(entry) if "error" in each["data"]]
        return str(error)
