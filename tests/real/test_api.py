"""The container API as its clients see it: projects, tokens, the envelope."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from twisted.internet.task import Clock

from hoody.audit.feed import Feed
from hoody.auth.keyring import Keyring
from hoody.auth.suspects import Suspects
from hoody.containers.fleet import Fleet
from hoody.containers.workshop import Workshop
from hoody.cron.crontabs import Crontabs
from hoody.cron.entries import Entries
from hoody.cron.looking import Looking as CronLooking
from hoody.pipes.watching import Watches
from hoody.resources import pages
from hoody.resources.api.catalogue import catalogue
from hoody.resources.api.containers import ContainersFace
from hoody.resources.api.cron import CronFace
from hoody.resources.api.events import EventsFace
from hoody.resources.api.images import ImagesFace
from hoody.resources.api.inside import InsideFace
from hoody.resources.api.ledger import LedgerFace
from hoody.resources.api.moving import MovingFace
from hoody.resources.api.snapshots import SnapshotsFace
from hoody.resources.guard import Guard, PipeGuard
from hoody.resources.progress import ProgressFace
from hoody.snapshots.catalogue import Catalogue
from hoody.snapshots.looking import Looking
from hoody.snapshots.moving import Moving
from hoody.snapshots.taking import Taking
from hoody.store.memory import MemoryStore
from tests.conftest import Serve
from tests.support.api import Api, api, database_option, in_an_hour, issue, name
from tests.support.postgres import Postgres
from tests.support.server import Server


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, cluster: Postgres) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("api") / "data"
    with Server(folder, database_option(cluster), "--wrong-tokens=5") as server:
        yield server


@pytest.fixture
def root(shared: Server) -> Api:
    return api(shared)


# Projects

ROW = {
    "id",
    "user_id",
    "alias",
    "color",
    "max_containers",
    "max_snapshots",
    "snapshot_retention_days",
    "idle_timeout_seconds",
    "dense",
    "created_at",
    "updated_at",
}


def test_a_project_default_is_there_from_the_start(root: Api) -> None:
    data = root.get("/projects/default").data
    assert data["alias"] == "default"
    assert data["idle_timeout_seconds"] == 900
    assert data["snapshot_retention_days"] is None


def test_a_project_lives_its_life(root: Api) -> None:
    alias = name()
    made = root("POST", "/projects/", {"alias": alias, "color": "#ff8800", "max_snapshots": 7})
    assert made.status == 201
    assert set(made.data) == ROW
    assert re.fullmatch("[0-9a-f]{24}", made.data["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", made.data["created_at"])
    path = f"/projects/{made.data['id']}"
    for method in ("PATCH", "PUT"):
        changed = root(method, path, {"max_snapshots": None, "idle_timeout_seconds": 5})
        assert changed.status == 200
        assert changed.data["max_snapshots"] is None
        assert changed.data["color"] == "#ff8800"
    assert root.get(path).data == changed.data
    assert root.get(f"/projects/{alias.upper()}").data["id"] == made.data["id"]
    listed = root.get("/projects?limit=100&sort_by=alias&sort_order=asc").data
    assert made.data["id"] in [one["id"] for one in listed["projects"]]
    assert set(listed["pagination"]) == {"total", "page", "limit", "totalPages"}
    assert root("DELETE", path).status == 200
    assert root.get(path).status == 404
    assert root("DELETE", path).status == 404


def test_a_list_comes_in_pages(root: Api) -> None:
    aliases = sorted(name() for _ in range(3))
    for alias in aliases:
        root("POST", "/projects", {"alias": alias})
    found = []
    total = root.get("/projects?limit=2").data["pagination"]["total"]
    for page in range(1, -(-total // 2) + 1):
        data = root.get(f"/projects/?limit=2&page={page}&sort_by=alias&sort_order=asc").data
        assert data["pagination"] == {
            "total": total,
            "page": page,
            "limit": 2,
            "totalPages": -(-total // 2),
        }
        found += [one["alias"] for one in data["projects"]]
    assert len(found) == len(set(found)) == total
    assert found == sorted(found)
    assert set(aliases) <= set(found)
    assert root.get("/projects?page=999").data["projects"] == []


BAD_PROJECTS = [
    ({}, "alias is missing"),
    ({"alias": 5}, "alias: 5 will not do; expected str, got int"),
    ({"alias": ""}, 'alias: "" will not do'),
    ({"alias": "a" * 101}, "length <= 100"),
    ({"alias": "a/b"}, 'alias: "a/b" will not do'),
    ({"alias": " a"}, "leave out the spaces"),
    ({"alias": "a\u0000b"}, "will not do"),
    ({"alias": "0123456789abcdef01234567"}, "taken for an id"),
    ({"alias": "a", "max_containers": "3"}, 'max_containers: "3" will not do; expected int'),
    ({"alias": "a", "max_containers": True}, "max_containers: true will not do"),
    ({"alias": "a", "max_snapshots": -1}, "max_snapshots: -1 will not do; expected int >= 0"),
    ({"alias": "a", "snapshot_retention_days": 0}, "snapshot_retention_days: 0 will not do"),
    ({"alias": "a", "idle_timeout_seconds": None}, "idle_timeout_seconds: null will not do"),
    ({"alias": "a", "dense": "yes"}, 'dense: "yes" will not do; expected bool'),
    ({"alias": "a", "colour": "red"}, '"colour" is no field of this; known are: alias, color'),
    ("[]", "The body will not do: expected object, got array"),
    ("{", "The body is not JSON"),
    ("\udcff", "send a JSON object"),
]


@pytest.mark.parametrize(("body", "sentence"), BAD_PROJECTS)
def test_what_will_not_do_is_refused_by_name_value_and_cure(
    root: Api, body: object, sentence: str
) -> None:
    before = root.get("/projects").data["pagination"]["total"]
    if body == "\udcff":
        answer = root("POST", "/projects", None, "--data-binary", b"\xff".decode("latin-1"))
        assert answer.status == 400
        return
    answer = root("POST", "/projects", body)
    assert answer.status == 400
    assert sentence in answer.error
    assert root.get("/projects").data["pagination"]["total"] == before


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("page=0", 'page: "0" will not do; expected int >= 1'),
        ("limit=101", "limit"),
        ("limit=ten", 'limit: "ten" will not do; expected int'),
        ("sort_by=dense", 'sort_by: "dense" will not do; give one of alias, created_at'),
        ("sort_order=up", "give one of asc, desc"),
    ],
)
def test_a_bad_page_is_refused(root: Api, query: str, sentence: str) -> None:
    answer = root.get(f"/projects?{query}")
    assert answer.status == 400
    assert sentence in answer.error


def test_what_a_query_says_that_we_do_not_know_is_let_pass(root: Api) -> None:
    assert root.get("/projects?realm_id=x&page=").status == 200


def test_two_projects_of_one_alias_cannot_be(root: Api) -> None:
    alias = name()
    assert root("POST", "/projects", {"alias": alias}).status == 201
    again = root("POST", "/projects", {"alias": alias.upper()})
    assert again.status == 409
    assert "choose another alias" in again.error
    other = root("POST", "/projects", {"alias": name()}).data["id"]
    assert root("PATCH", f"/projects/{other}", {"alias": alias}).status == 409


def test_the_default_project_stays(root: Api) -> None:
    assert root("DELETE", "/projects/default").status == 409
    assert root("PATCH", "/projects/default", {"alias": "other"}).status == 409
    assert root("PATCH", "/projects/default", {"color": "blue"}).status == 200


def test_a_body_over_1_mib_is_refused(root: Api, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b" " * (1024 * 1024 + 1))
    answer = root("POST", "/projects", f"@{tmp_path}/large", "-H", "Expect:")
    assert answer.status == 400
    assert "over 1 MiB" in answer.error


# Envelope


def test_an_unknown_path_and_a_wrong_method_are_said_in_the_envelope(root: Api) -> None:
    assert root.get("/nowhere").status == 404
    wrong = root("PATCH", "/projects")
    assert wrong.status == 405
    assert "Allow: GET, HEAD, OPTIONS, POST" in wrong.headers
    assert wrong.error


def test_every_answer_has_a_request_id_which_the_audit_knows(root: Api) -> None:
    answer = root("POST", "/projects", {"alias": name()}, "-H", "X-Request-Id: my-very-own")
    assert "X-Request-Id: my-very-own" in answer.headers
    event = root.get("/events?event_type=project.created&limit=1").data["events"][0]
    assert event["request_id"] == "my-very-own"


def test_answers_are_for_nobody_else_to_keep(root: Api) -> None:
    assert "Cache-Control: no-store" in root.get("/projects").headers


# Tokens


def test_nobody_gets_in_without_a_token(root: Api) -> None:
    for path in ("/projects", "/events", "/auth/tokens", "/projects/default"):
        answer = root.with_token(None).get(path)
        assert answer.status == 401
        assert 'WWW-Authenticate: Bearer realm="hoody"' in answer.headers
        assert "root-token" in answer.error


def test_the_root_token_is_in_a_file_that_only_the_owner_reads(shared: Server) -> None:
    file = shared.data_dir / "root-token"
    assert file.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"hdy_[0-9a-f]{24}[\w-]{43}\n", file.read_text())


def test_a_token_is_shown_once_and_listed_without_its_secret(root: Api) -> None:
    alias = name()
    made = root("POST", "/auth/tokens", {"alias": alias})
    assert made.status == 201
    secret = made.data["token"]
    assert made.data["scopes"] == ["read"]
    assert made.data["containers"] is None
    listed = root.get("/auth/tokens?limit=100")
    rows = {one["alias"]: one for one in listed.data["tokens"]}
    assert rows[alias] == {k: v for k, v in made.data.items() if k != "token"}
    assert secret not in listed.body
    assert "digest" not in listed.body
    assert root.with_token(secret).get("/projects").status == 200


def test_a_token_may_do_what_its_scopes_say(root: Api) -> None:
    reader, writer = issue(root, "read"), issue(root, "write")
    assert reader.get("/projects").status == 200
    refused = reader("POST", "/projects", {"alias": name()})
    assert refused.status == 403
    assert "scopes read; this needs write" in refused.error
    assert writer("POST", "/projects", {"alias": name()}).status == 201
    assert writer.get("/projects").status == 200  # who may change may look
    assert writer.get("/auth/tokens").status == 403
    assert issue(root, "cron").get("/projects").status == 403
    assert issue(root, "pipe", "snapshot").get("/events").status == 403


def test_dense_is_for_admins(root: Api) -> None:
    writer = issue(root, "write")
    assert writer("POST", "/projects", {"alias": name(), "dense": True}).status == 403
    made = root("POST", "/projects", {"alias": name(), "dense": True}).data
    assert writer("PATCH", f"/projects/{made['id']}", {"dense": False}).status == 403
    assert writer("PATCH", f"/projects/{made['id']}", {"dense": True}).status == 200  # as it is


def test_a_token_that_is_tied_to_containers_is_for_nothing_else(root: Api) -> None:
    tied = issue(root, "read", "write", containers=["a" * 24])
    refused = tied.get("/projects")
    assert refused.status == 403
    assert "tied to containers" in refused.error
    assert tied.get("/events").data["events"] == []
    assert tied.get(f"/events?container_id={'b' * 24}").status == 403


def test_a_revoked_token_is_worth_nothing_at_once(root: Api) -> None:
    made = root("POST", "/auth/tokens", {"alias": name()}).data
    holder = root.with_token(made["token"])
    assert holder.get("/projects").status == 200
    assert root("DELETE", f"/auth/tokens/{made['id']}").status == 200
    assert holder.get("/projects").status in (401, 429)
    assert root("DELETE", f"/auth/tokens/{made['id']}").status == 404


def test_the_root_token_is_not_revoked_over_the_wire(root: Api) -> None:
    listed = root.get("/auth/tokens?limit=100").data["tokens"]
    identity = next(one["id"] for one in listed if one["root"])
    refused = root("DELETE", f"/auth/tokens/{identity}")
    assert refused.status == 409
    assert "hoody token reset" in refused.error


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"scopes": ["read"]}, "alias is missing"),
        ({"alias": "x", "scopes": []}, "scopes"),
        ({"alias": "x", "scopes": ["all"]}, "give one of admin, cron, pipe, read"),
        ({"alias": "x", "containers": ["nope"]}, 'containers[0]: "nope" will not do'),
        ({"alias": "x\n"}, "will not do; give 1 to 100 characters without control characters"),
        (
            {"alias": "x", "expires_at": "tomorrow"},
            'expires_at: "tomorrow" will not do; give a time such as 2026-05-04T02:55:08Z',
        ),
        ({"alias": "x", "expires_at": "9999-12-31T23:59:59-12:00"}, "a year of 1971 to 2999"),
        ({"alias": "x", "expires_at": "2020-01-01T00:00:00Z"}, "is past; give a later"),
        ({"alias": "x", "expires_at": "2090-01-01T00:00:00"}, "no time zone; end it with Z"),
    ],
)
def test_a_bad_token_is_not_issued(root: Api, body: object, sentence: str) -> None:
    answer = root("POST", "/auth/tokens", body)
    assert answer.status == 400
    assert sentence in answer.error


def test_a_wrong_token_costs_its_address_and_nobody_with_a_right_one(root: Api) -> None:
    wrong = root.with_token("hdy_" + "0" * 24 + "x" * 43)
    statuses = [wrong.get("/projects").status for _ in range(12)]
    assert statuses[-1] == 429
    assert "Retry-After" in wrong.get("/projects").headers
    assert root.get("/projects").status == 200
    assert root.with_token(None).get("/projects").status == 401


def test_a_mangled_token_is_a_wrong_one(root: Api) -> None:
    assert root.token is not None
    for mangled in (root.token[:-1], root.token + "a", root.token.swapcase(), "x", root.token[4:]):
        assert root.with_token(mangled).get("/projects").status in (401, 429)


def test_a_token_that_has_expired_is_worth_nothing(serve: Serve, cluster: Postgres) -> None:
    server = serve(database_option(cluster))
    root = api(server)
    now = root("POST", "/projects", {"alias": "now"}).data["created_at"][:19]
    body = {"alias": "short", "expires_at": f"{now}Z"}
    assert root("POST", "/auth/tokens", body).status == 400
    soon = subprocess.run(
        ["date", "-u", "-d", "+2 seconds", "+%Y-%m-%dT%H:%M:%SZ"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    short = root.with_token(
        root("POST", "/auth/tokens", {"alias": "short", "expires_at": soon}).data["token"]
    )
    assert short.get("/projects").status == 200
    while short.get("/projects").status == 200:
        pass
    assert short.get("/projects").status == 401
    row = next(one for one in root.get("/auth/tokens").data["tokens"] if one["alias"] == "short")
    assert row["expired"] is True


def test_times_are_told_in_utc_however_they_were_given(root: Api) -> None:
    body = {"alias": name(), "expires_at": "2090-01-01T00:00:00+02:00"}
    made = root("POST", "/auth/tokens", body)
    assert made.data["expires_at"] == "2089-12-31T22:00:00Z"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/projects/%00", 404),
        ("DELETE", "/auth/tokens/a%0a", 404),
        ("GET", "/events?resource_type=%00", 400),
        ("GET", f"/events?container_id={'a' * 24}%0a", 400),
    ],
)
def test_what_no_name_can_have_is_not_looked_for(
    root: Api, method: str, path: str, status: int
) -> None:
    assert root(method, path).status == status


def test_json_may_be_nested_as_deep_as_it_likes_and_is_only_refused(root: Api) -> None:
    answer = root("POST", "/projects", "[" * 100_000)
    assert answer.status == 400
    assert "nested too deep" in answer.error


def test_a_read_waits_for_no_writer(shared: Server, root: Api, cluster: Postgres) -> None:
    alias = name()
    made = root("POST", "/projects", {"alias": alias}).data
    dsn = next(e["message"] for e in shared.events if "setting database=" in e["message"])
    import psycopg2

    holder = psycopg2.connect(dsn.partition("database=")[2])
    try:
        holder.cursor().execute(
            f"SELECT * FROM hoody.projects WHERE id = '{made['id']}' FOR UPDATE"
        )
        assert root.get(f"/projects/{alias}").status == 200
        assert root("PATCH", f"/projects/{alias}", {"color": "red"}).status == 503
    finally:
        holder.close()


# Capability URLs


def test_a_capability_url_bears_one_right_on_one_resource(root: Api) -> None:
    reader = issue(root, "read", "write")
    signed = reader(
        "POST",
        "/auth/capabilities",
        {"right": "read", "resource": "/api/v1/projects", "expires_at": "2090-01-01T00:00:00Z"},
    )
    assert signed.status == 400  # over a year
    signed = reader(
        "POST",
        "/auth/capabilities",
        {"right": "read", "resource": "/api/v1/projects", "expires_at": in_an_hour()},
    )
    assert signed.status == 201
    path = signed.data["url"].partition("/api/v1")[2]
    anybody = root.with_token(None)
    assert anybody.get(path).status == 200
    assert anybody("POST", path, {"alias": name()}).status == 403
    assert anybody.get(path.replace("/projects", "/events")).status == 403
    assert anybody.get(path[:-1]).status in (401, 429)
    refused = anybody("POST", "/auth/capabilities" + path.partition("/projects")[2], {})
    assert refused.status == 403


def test_a_capability_is_worth_no_more_than_the_token_by_whose_grace_it_is(root: Api) -> None:
    made = root("POST", "/auth/tokens", {"alias": name(), "scopes": ["read"]}).data
    holder = root.with_token(made["token"])
    wanted = {"right": "write", "resource": "/api/v1/projects", "expires_at": in_an_hour()}
    assert holder("POST", "/auth/capabilities", wanted).status == 403
    wanted["right"] = "admin"
    assert root("POST", "/auth/capabilities", wanted).status == 400
    wanted["right"] = "read"
    path = holder("POST", "/auth/capabilities", wanted).data["url"].partition("/api/v1")[2]
    assert root.with_token(None).get(path).status == 200
    root("DELETE", f"/auth/tokens/{made['id']}")
    assert root.with_token(None).get(path).status in (401, 429)


# Pages


def test_a_token_in_the_url_of_a_page_becomes_a_session(root: Api, tmp_path: Path) -> None:
    anybody = root.with_token(None)
    answer = anybody.get(f"/events?limit=5&token={root.token}", "-H", "Accept: text/html")
    assert answer.status == 303
    assert "Location: /api/v1/events?limit=5\n" in answer.headers + "\n"
    cookie = next(line for line in answer.headers.splitlines() if line.startswith("Set-Cookie"))
    for part in ("__Host-hoody=", "Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age="):
        assert part in cookie
    assert root.token is not None
    assert root.token[28:] not in cookie
    jar = ["-H", f'Cookie: prefs={{"a": 1}}; {cookie.partition(": ")[2].partition(";")[0]}; b c=d']
    page = anybody.get("/events", "-H", "Accept: text/html", *jar)
    assert page.status == 200
    assert "<h1>What happened</h1>" in page.body
    assert "Referrer-Policy: no-referrer" in page.headers


def test_a_token_in_the_url_of_anything_else_is_not_taken(root: Api) -> None:
    refused = root.with_token(None)("GET", f"/projects?token={root.token}")
    assert refused.status == 401
    assert "Authorization: Bearer" in refused.error


def test_a_change_by_cookie_needs_the_pages_own_word(root: Api) -> None:
    anybody = root.with_token(None)
    answer = anybody.get(f"/events?token={root.token}", "-H", "Accept: text/html")
    cookie = re.search(r"__Host-hoody=[^;]+", answer.headers)
    assert cookie is not None
    jar = ["-b", cookie[0]]
    page = anybody.get("/events", "-H", "Accept: text/html", *jar)
    found = re.search(r'<meta name="csrf-token" content="([0-9a-f]+)">', page.body)
    assert found is not None
    csrf, same = ["-H", f"X-CSRF-Token: {found[1]}"], ["-H", "Sec-Fetch-Site: same-origin"]
    host = root.base.partition("//")[2].partition("/")[0]

    def create(*more: str) -> int:
        return anybody("POST", "/projects", {"alias": name()}, *jar, *more).status

    assert create() == 403
    assert create(*same) == 403
    assert create(*csrf) == 403
    assert create(*csrf, "-H", "Sec-Fetch-Site: same-site") == 403
    assert create(*csrf, "-H", "Origin: http://evil.example") == 403
    other = found[1][:-1] + ("1" if found[1].endswith("0") else "0")
    assert create("-H", f"X-CSRF-Token: {other}", *same) == 403
    assert create(*csrf, *same) == 201
    assert create(*csrf, "-H", f"Origin: http://{host}") == 201


# Pipes


def test_pipes_for_holders_of_a_token(serve: Serve, cluster: Postgres) -> None:
    server = serve(database_option(cluster), "--pipe-auth=token")
    root = api(server)
    pipe = Api(root.base + "/pipe", None)
    assert pipe.get("/a").status == 401
    assert pipe("PUT", "/a", "x").status == 401
    assert pipe.get("/help").status == 200
    assert pipe.with_token(issue(root, "read").token).get("/a").status == 403
    holder = pipe.with_token(issue(root, "pipe").token)
    receiver = subprocess.Popen(
        ["curl", "-sS", "-H", f"Authorization: Bearer {holder.token}", f"{pipe.base}/a"],
        stdout=subprocess.PIPE,
    )
    assert "Transfer complete" in holder("PUT", "/a", "all is well").body
    assert receiver.communicate(timeout=10)[0] == b"all is well"
    signed = issue(root, "read", "pipe")(
        "POST",
        "/auth/capabilities",
        {"right": "pipe", "resource": "/api/v1/pipe/b", "expires_at": in_an_hour()},
    )
    receiver = subprocess.Popen(["curl", "-sS", signed.data["url"]], stdout=subprocess.PIPE)
    path = signed.data["url"].partition("/pipe")[2]
    assert "Transfer complete" in pipe("PUT", path, "by grace").body
    assert receiver.communicate(timeout=10)[0] == b"by grace"


# What describes it


def routes() -> set[tuple[str, str]]:
    """Of the program's own routers."""
    store, clock = MemoryStore(), Clock()
    keyring = Keyring(store, clock)
    guard = Guard(keyring, Suspects(1))
    containers = ContainersFace(
        store, cast(Fleet, None), cast(Catalogue, None), "hoody.localhost", "box"
    )
    operations = catalogue(
        store,
        keyring,
        EventsFace(store, Feed(), guard, clock),
        containers,
        InsideFace(store, cast(Fleet, None), containers),
        SnapshotsFace(
            store,
            cast(Catalogue, None),
            cast(Taking, None),
            cast(Looking, None),
            containers,
        ),
        MovingFace(store, cast(Catalogue, None), cast(Moving, None), containers, guard),
        ImagesFace(store, cast(Fleet, None), cast(Workshop, None)),
        LedgerFace(cast(Fleet, None), lambda _: 0, "d"),
        CronFace(
            cast(Entries, None), cast(CronLooking, None), cast(Crontabs, None), b".containers.d"
        ),
    )
    server = pages.server_pages(
        lambda _: {}, metrics=bytes, guard=guard, needs_token=False, operations=operations
    )
    cron = pages.cron_pages(
        lambda _: {}, guard=guard, operations=[each for each in operations if each.bare]
    )
    pipe_guard = PipeGuard(guard, is_open=True)
    progress = ProgressFace(cast(Watches, None), store, clock, pipe_guard, 1, "*")
    piped = pages.pipe_pages(lambda _: {}, ttl=1, guard=pipe_guard, progress=progress)
    found = set()
    for prefix, router in (("", server), ("", cron), ("/api/v1/pipe", piped)):
        for rule in router.url_map.iter_rules():
            path = prefix + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(rule))
            path = path.replace("/pipe/progress", "/pipe/{path}")  # of any name, with ?progress
            found |= {(path, method) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return found


def test_every_route_is_in_openapi_json(root: Api) -> None:
    document = Api(root.base.removesuffix("/api/v1"), None).get("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    described = {
        (path, method.upper()) for path, methods in document["paths"].items() for method in methods
    }
    found = routes()
    assert len(found) > 15
    assert not found - described
    assert described - found == {("/api/v1/pipe/{path}", method) for method in ("POST", "PUT")}


def test_openapi_json_is_valid_and_says_what_is_answered(root: Api) -> None:
    document = Api(root.base.removesuffix("/api/v1"), None).get("/openapi.json").json
    schemas = document["components"]["schemas"]
    assert set(schemas["ProjectRow"]["properties"]) == ROW
    assert schemas["NewProject"]["additionalProperties"] is False
    text = json.dumps(document)
    for reference in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', text):
        assert reference in schemas
    names = [
        one["operationId"]
        for methods in document["paths"].values()
        for one in methods.values()
        if "operationId" in one
    ]
    assert len(names) == len(set(names)) >= 10


def test_prometheus_reads_the_metrics(shared: Server, root: Api) -> None:
    root.get("/projects")
    page = Api(root.base.removesuffix("/api/v1"), None).get("/metrics")
    assert page.status == 200
    assert "Content-Type: text/plain" in page.headers
    for line in (
        'hoody_requests_total{area="api",method="GET",status="200"}',
        "hoody_database_up 1.0",
        "hoody_reactor_latency_seconds_count",
        "hoody_pipes_waiting 0.0",
        "process_resident_memory_bytes",
    ):
        assert line in page.body, line
