"""What happened: filtered, paged, followed, and as a story."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.conftest import Serve
from tests.support.api import Api, api, database_option, issue, name
from tests.support.postgres import Postgres
from tests.support.server import Server
from tests.support.wire import Wire

EVENT = {
    "id",
    "ts",
    "event_type",
    "actor",
    "resource_type",
    "resource_id",
    "container_id",
    "project_id",
    "data",
    "duration_ms",
    "request_id",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, cluster: Postgres) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("events") / "data"
    with Server(folder, database_option(cluster)) as server:
        yield server


@pytest.fixture
def root(shared: Server) -> Api:
    return api(shared)


def project(root: Api) -> dict[str, Any]:
    return dict(root("POST", "/projects", {"alias": name()}).data)


def test_an_event_says_what_when_who_and_by_which_request(root: Api) -> None:
    made = project(root)
    root("PATCH", f"/projects/{made['id']}", {"color": "red", "dense": False})
    root("DELETE", f"/projects/{made['id']}")
    data = root.get(f"/events?project_id={made['id']}").data
    assert set(data["pagination"]) == {"total", "page", "limit", "totalPages"}
    events = data["events"]
    assert [one["event_type"] for one in events] == [
        "project.deleted",
        "project.updated",
        "project.created",
    ]
    for one in events:
        assert set(one) == EVENT
        assert re.fullmatch("[0-9a-f]{24}", one["id"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", one["ts"])
        assert one["actor"] == "root"
        assert (one["resource_type"], one["resource_id"]) == ("project", made["id"])
        assert one["data"]["alias"] == made["alias"]
    assert events[1]["data"]["changed"] == ["color"]
    assert [one["id"] for one in events] == sorted((one["id"] for one in events), reverse=True)


def test_what_changes_nothing_is_no_event(root: Api) -> None:
    made = project(root)
    root("PATCH", f"/projects/{made['id']}", {"alias": made["alias"]})
    root("POST", "/projects", {"alias": made["alias"]})
    root("POST", "/projects", {"alias": ""})
    assert root.get(f"/events?project_id={made['id']}").data["pagination"]["total"] == 1


def test_who_did_it_is_the_token_that_was_used(root: Api) -> None:
    writer = issue(root, "write")
    made = project(writer)
    tokens = root.get("/auth/tokens?limit=1").data["tokens"]
    (event,) = root.get(f"/events?project_id={made['id']}").data["events"]
    assert event["actor"] == tokens[0]["alias"]


def test_every_filter_may_be_given(root: Api) -> None:
    first, second = project(root), project(root)
    issue(root, "read")

    def found(query: str) -> list[str]:
        return [
            one["resource_id"] for one in root.get(f"/events?limit=500&{query}").data["events"]
        ]

    assert found(f"project_id={first['id']}") == [first["id"]]
    assert first["id"] in found("event_type=project.created,project.deleted")
    assert first["id"] not in found("event_type=token.created")
    assert second["id"] in found("resource_type=project")
    assert second["id"] not in found("resource_type=token")
    assert found(f"container_id={'a' * 24}") == []
    since = second["created_at"].replace("+", "%2B")
    assert first["id"] not in found(f"since={since}")
    assert second["id"] in found(f"since={since}")
    assert second["id"] not in found(f"until={since}")
    assert first["id"] in found(f"until={since}")


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("event_type=project.exploded", "event_type: 'project.exploded' will not do; give one of"),
        ("since=yesterday", 'since: "yesterday" will not do'),
        ("since=2026-01-01T00:00:00", "has no time zone; end it with Z"),
        ("limit=501", "limit"),
        ("project_id=x", 'project_id: "x" will not do'),
    ],
)
def test_a_filter_that_will_not_do_is_refused(root: Api, query: str, sentence: str) -> None:
    answer = root.get(f"/events?{query}")
    assert answer.status == 400
    assert sentence in answer.error


def test_events_come_in_pages_of_up_to_500(root: Api) -> None:
    made = project(root)
    for number in range(4):
        root("PATCH", f"/projects/{made['id']}", {"max_containers": number})
    ids = []
    for page in (1, 2, 3):
        data = root.get(f"/events?project_id={made['id']}&limit=2&page={page}").data
        assert data["pagination"] == {"total": 5, "page": page, "limit": 2, "totalPages": 3}
        ids += [one["id"] for one in data["events"]]
    assert len(set(ids)) == 5
    assert root.get("/events?limit=500").status == 200


def test_a_pipe_that_is_over_is_told_of(root: Api, shared: Server) -> None:
    path = name()
    with Wire(shared) as receiver, Wire(shared) as sender:
        receiver.get(path)
        sender.put(path, "Content-Length: 5")
        sender.send(b"hello")
        assert sender.answer().whole
    with Wire(shared) as receiver, Wire(shared) as sender:
        receiver.get(path)
        sender.put(path, "Content-Length: 500").read_until(b"[INFO] Streaming")
        sender.reset()
        receiver.read_all()
    events: list[dict[str, Any]] = []
    while len(events) < 2:
        found = root.get("/events?resource_type=pipe&limit=100").data["events"]
        events = [one for one in found if one["resource_id"] == path]
    failed, completed = events
    assert (completed["event_type"], failed["event_type"]) == ("pipe.completed", "pipe.failed")
    assert completed["data"]["bytes"] == 5
    assert completed["duration_ms"] >= 0
    assert completed["actor"] == "request"
    assert failed["data"]["error"]


# Followed


class Follower:
    """curl -N on the events."""

    def __init__(self, root: Api, query: str = "", *more: str) -> None:
        self.process = subprocess.Popen(
            [
                "curl",
                "-sS",
                "-N",
                "-i",
                "-H",
                f"Authorization: Bearer {root.token}",
                *more,
                f"{root.base}/events?follow{query}",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.head = self._until("\n\n")
        self._until("retry: 2000\n")

    def _until(self, end: str) -> str:
        assert self.process.stdout is not None
        text = ""
        while not text.endswith(end):
            line = self.process.stdout.readline()
            assert line, text
            text += line
        return text

    def next(self) -> tuple[str, dict[str, Any]]:
        """The next event: its id on the wire, and what it says."""
        while True:
            lines = [line for line in self._until("\n\n").split("\n") if line[:1] != ":"]
            if lines[0].startswith("id: ") and lines[1]:
                return lines[0][4:], json.loads(lines[1].removeprefix("data: "))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@contextmanager
def following(root: Api, query: str = "", *more: str) -> Iterator[Follower]:
    follower = Follower(root, query, *more)
    try:
        yield follower
    finally:
        follower.stop()


def test_who_follows_is_told_what_happens_from_now_on(root: Api) -> None:
    project(root)
    with following(root) as follower:
        assert "Content-Type: text/event-stream" in follower.head
        assert "X-Accel-Buffering: no" in follower.head
        made = project(root)
        identity, event = follower.next()
    assert event["project_id"] == made["id"]
    assert set(event) == EVENT
    assert event["id"] == identity


def test_who_follows_is_told_only_what_fits(root: Api) -> None:
    with following(root, "&event_type=token.created") as follower:
        project(root)
        issue(root, "read")
        assert follower.next()[1]["event_type"] == "token.created"


def test_who_asks_for_an_event_stream_gets_one(root: Api) -> None:
    done = subprocess.run(
        ["curl", "-sN", "-m", "1", "-i", "-H", f"Authorization: Bearer {root.token}"]
        + ["-H", "Accept: text/event-stream", f"{root.base}/events"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "text/event-stream" in done.stdout


def test_since_brings_what_came_before(root: Api) -> None:
    made = project(root)
    with following(root, f"&since={made['created_at']}") as follower:
        assert follower.next()[1]["project_id"] == made["id"]


def test_who_comes_back_is_told_all_that_he_missed_and_nothing_twice(root: Api) -> None:
    with following(root) as follower:
        project(root)
        last, _ = follower.next()
    missed = [project(root)["id"] for _ in range(3)]
    with following(root, "", "-H", f"Last-Event-ID: {last}") as follower:
        assert [follower.next()[1]["project_id"] for _ in range(3)] == missed
        later = project(root)
        assert follower.next()[1]["project_id"] == later["id"]


def test_who_is_cut_off_before_anything_has_happened_misses_nothing_either(root: Api) -> None:
    project(root)
    with following(root) as follower:
        here = follower._until("\n\n").split("\n")[0].removeprefix("id: ")
    made = project(root)
    with following(root, "", "-H", f"Last-Event-ID: {here}") as follower:
        assert follower.next()[1]["project_id"] == made["id"]


def test_an_id_of_another_database_is_taken_for_now(root: Api) -> None:
    with following(root, "", "-H", f"Last-Event-ID: {'f' * 24}") as follower:
        made = project(root)
        assert follower.next()[1]["project_id"] == made["id"]


def test_a_stream_ends_with_the_token_that_it_was_for(root: Api) -> None:
    made = root("POST", "/auth/tokens", {"alias": name()}).data
    with following(root.with_token(made["token"])) as follower:
        root("DELETE", f"/auth/tokens/{made['id']}")
        project(root)
        assert follower.process.stdout is not None
        rest = follower.process.stdout.read()  # to its end
    assert "project.created" not in rest


def test_a_follower_is_told_although_the_database_was_busy_when_it_happened(
    root: Api, shared: Server
) -> None:
    dsn = next(e["message"] for e in shared.events if "setting database=" in e["message"])
    with following(root) as follower:
        holder = psycopg2.connect(dsn.partition("database=")[2])
        try:
            cursor = holder.cursor()
            cursor.execute("LOCK TABLE hoody.events IN ACCESS EXCLUSIVE MODE")
            insert = (
                "INSERT INTO hoody.events (ts, event_type, actor, resource_type, resource_id,"
                " data) VALUES (now(), 'token.created', 'x', 'token', 'slow', '{}')"
            )
            cursor.execute(f"NOTIFY hoody, 'events'; {insert}")
            other = psycopg2.connect(dsn.partition("database=")[2])
            other.autocommit = True
            other.cursor().execute("NOTIFY hoody, 'events'")
            other.close()
            follower._until(": the database is away\n")
            holder.commit()
        finally:
            holder.close()
        assert follower.next()[1]["resource_id"] == "slow"


def test_a_last_event_id_that_is_none_is_refused(root: Api) -> None:
    answer = root.get("/events?follow", "-H", "Last-Event-ID: 17")
    assert answer.status == 400
    assert "Last-Event-ID" in answer.error


def test_nothing_is_missed_over_a_restart_of_the_server(serve: Serve, cluster: Postgres) -> None:
    option = database_option(cluster)
    server = serve(option)
    root = api(server)
    with following(root) as follower:
        project(root)
        last, _ = follower.next()
        made = project(root)
        server.process.kill()
        server.process.wait()
    again = serve(option)
    both = Api(f"http://{again.host}:{again.port}/api/v1", root.token)
    with following(both, "", "-H", f"Last-Event-ID: {last}") as follower:
        assert follower.next()[1]["project_id"] == made["id"]
        later = project(both)
        assert follower.next()[1]["project_id"] == later["id"]


def test_a_follower_who_does_not_read_costs_nobody_else_anything(
    root: Api, shared: Server, cluster: Postgres
) -> None:
    """Some 30 MB for each, far more than the kernel keeps for one who does not read."""
    database = next(e["message"] for e in shared.events if "setting database=" in e["message"])
    with Wire(shared) as stalled, following(root) as follower:
        stalled.send(
            f"GET /api/v1/events?follow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {root.token}"
            "\r\n\r\n".encode()
        )
        stalled.read_until(b"id: ")
        shared.forget_peak()
        before = shared.resident("VmHWM")
        cluster.ask(
            re.search(r"dbname=(\w+)", database)[1],  # type: ignore[index]
            "INSERT INTO hoody.events (ts, event_type, actor, resource_type, resource_id, data)"
            " SELECT now(), 'pipe.completed', 'x', 'pipe', n::text,"
            " jsonb_build_object('error', repeat('x', 1200)) FROM generate_series(1, 20000) n;"
            " NOTIFY hoody, 'events'",
        )
        told = [follower.next()[1]["resource_id"] for _ in range(20_000)]
        assert told == [str(n) for n in range(1, 20_001)]
        assert shared.resident("VmHWM") - before < 16 * 1024 * 1024


def test_a_drained_server_ends_its_streams_well(serve: Serve, cluster: Postgres) -> None:
    server = serve(database_option(cluster))
    with following(api(server)) as follower:
        server.process.terminate()
        assert follower.process.wait(10) == 0
    assert server.process.wait(10) in (0, -signal.SIGTERM)


# The page


def page(root: Api, query: str = "") -> str:
    answer = root.get(f"/events{query}", "-H", "Accept: text/html,application/xhtml+xml")
    assert answer.status == 200
    assert "Content-Security-Policy: default-src 'none'" in answer.headers
    return answer.body


def test_the_page_tells_the_story(root: Api) -> None:
    made = project(root)
    root("PATCH", f"/projects/{made['id']}", {"color": "red"})
    text = page(root, f"?project_id={made['id']}")
    assert f"Project {made['alias']} was created" in text
    assert "its color" in text
    assert "by root" in text
    assert re.search(r"<h2>\w+day, \d{1,2} \w+ \d{4}</h2>", text)
    assert re.search(r'<time datetime="[\dT:-]+Z">\d\d:\d\d:\d\d</time>', text)
    assert "2 events" in text


def test_a_page_loads_nothing_from_elsewhere_and_runs_nothing_that_was_slipped_in(
    root: Api,
) -> None:
    alias = f"<script>alert(1)<\\{name()}>"
    made = root("POST", "/projects", {"alias": alias}).data
    text = page(root, f"?project_id={made['id']}")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert not re.findall(r'(?:src|href)="(?!data:|\?)', text)


def test_pages_are_linked_older_and_newer(root: Api) -> None:
    made = project(root)
    for number in range(4):
        root("PATCH", f"/projects/{made['id']}", {"max_containers": number})
    query = f"?project_id={made['id']}&limit=2"
    first = page(root, query)
    assert "page 1 of 3" in first
    assert "Newer" not in first
    older = re.search(r'href="(\?[^"]+)" rel="next"', first)
    assert older is not None
    second = page(root, older[1].replace("&amp;", "&"))
    assert "page 2 of 3" in second
    assert "Newer" in second


# Retention, and size


def test_what_is_older_than_the_retention_goes(tmp_path: Path, cluster: Postgres) -> None:
    option = database_option(cluster)
    database = option.rpartition("dbname=")[2]
    with Server(tmp_path / "data", option):
        pass
    cluster.ask(
        database,
        "INSERT INTO hoody.events (ts, event_type, actor, resource_type, resource_id, data)"
        " SELECT now() - n * interval '1 day', 'pipe.completed', 'x', 'pipe', 'x', '{}'"
        " FROM generate_series(1, 20) n",
    )
    with Server(tmp_path / "data", option, "--event-retention=10d", "--sweep=200ms"):
        count = "SELECT count(*) FROM hoody.events WHERE event_type = 'pipe.completed'"
        while cluster.ask(database, count) != "9":
            pass


@pytest.mark.long
def test_a_filtered_page_of_a_million_events_uses_an_index(
    tmp_path: Path, cluster: Postgres
) -> None:
    option = database_option(cluster)
    database = option.rpartition("dbname=")[2]
    with Server(tmp_path / "data", option) as server:
        cluster.ask(
            database,
            "INSERT INTO hoody.events (ts, event_type, actor, resource_type, resource_id,"
            " container_id, project_id, data) SELECT '2026-01-01'::timestamptz + n * interval"
            " '1 second', (ARRAY['container.woken', 'container.paused', 'cron.run.started',"
            " 'pipe.completed'])[n % 4 + 1], 'idle timer', 'container', n::text,"
            " lpad(to_hex(n % 1000), 24, '0'), lpad(to_hex(n % 50), 24, '0'),"
            ' \'{"alias": "app"}\' FROM generate_series(1, 1000000) n; ANALYZE hoody.events',
        )
        for where in (
            f"container_id = '{7:024x}'",
            f"project_id = '{7:024x}'",
            "event_type = ANY(ARRAY['container.woken'])",
            "ts >= '2026-01-12' AND ts < '2026-01-12T00:10:00Z'",
            f"container_id = '{7:024x}' AND event_type = ANY(ARRAY['cron.run.started'])",
        ):
            plan = cluster.ask(
                database,
                f"EXPLAIN SELECT * FROM hoody.events WHERE {where} ORDER BY seq DESC LIMIT 20",
            )
            assert "Index" in plan, plan
            assert "Seq Scan" not in plan, plan
            if where.startswith("event_type"):
                continue  # a quarter of all: to count those, the table is read
            counting = f"EXPLAIN SELECT count(*) FROM hoody.events WHERE {where}"
            assert "Index" in cluster.ask(database, counting)
        root = api(server)
        answer = root.get(f"/events?container_id={7:024x}&limit=20")
        assert answer.data["pagination"]["total"] == 1000
        assert len(answer.data["events"]) == 20
        assert root.get("/events?limit=500").data["pagination"]["total"] > 1_000_000
