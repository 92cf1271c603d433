"""Cron as its clients see it: every route, code and host, and who may do what."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Answer, Api, api, database_option, in_an_hour, issue, name
from tests.support.containers import House
from tests.support.postgres import Postgres
from tests.support.server import Server

ENTRY = {
    *("id", "type", "user", "name", "comment", "schedule", "schedule_human", "command"),
    *("timezone", "enabled", "overlap", "timeout_seconds", "retries", "start_deadline_seconds"),
    *("environment_vars", "container_id", "run_on", "scopes", "expires_at", "expired"),
    *("next_run_at", "last_run", "version", "created_at", "updated_at"),
}
RUN = {
    *("id", "entry_id", "version", "status", "scheduled_at", "started_at", "finished_at"),
    *("start_delay_ms", "duration_ms", "exit_code", "stdout", "stderr", "attempt", "server_id"),
}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
NOBODY = "00000000-0000-4000-8000-000000000000"
YEARLY = {"schedule": "@yearly", "command": "true"}


def at(server: Server, host: str, token: str | None) -> Api:
    """Who asks under a host of the server's domain."""
    return Api(f"http://{host}.hoody.localhost:{server.port}", token)


def failure(answer: Answer, status: int, code: str) -> str:
    """What it says that was refused."""
    assert answer.status == status, answer.body
    said = answer.json
    assert set(said) == {"code", "message", "details"}
    assert said["code"] == code
    assert "X-Request-Id: " in answer.headers
    assert "Content-Type: application/json" in answer.headers
    return str(said["message"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, cluster: Postgres) -> Iterator[Server]:
    """A server without containers."""
    folder = tmp_path_factory.mktemp("cron") / "data"
    with Server(folder, database_option(cluster), "--wrong-tokens=5") as server:
        yield server


@pytest.fixture
def root(shared: Server) -> Api:
    return api(shared)


@pytest.fixture
def cron(shared: Server, root: Api) -> Api:
    return at(shared, "cron.containers", root.token)


def make(cron: Api, user: str = "root", **fields: Any) -> dict[str, Any]:
    answer = cron("POST", f"/users/{user}/entries", {**YEARLY, **fields})
    assert answer.status == 201, answer.body
    row: dict[str, Any] = answer.json
    return row


# Entries


def test_an_entry_lives_its_life(cron: Api) -> None:
    made = make(cron, name="nightly", schedule="55 2 * * *", comment="pre-migration snapshot")
    assert set(made) == ENTRY
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made["id"])
    assert made["schedule_human"] == "At 02:55"
    assert re.fullmatch(TIME, made["created_at"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT02:55:00Z", made["next_run_at"])
    assert made["last_run"] is None
    assert made["container_id"] is None
    assert (made["type"], made["run_on"], made["timezone"]) == ("managed", "server", "UTC")
    assert (made["scopes"], made["version"]) == (["snapshot", "pipe"], 1)
    path = f"/users/root/entries/{made['id']}"
    assert cron.get(path).json == made
    for number, method in enumerate(("PATCH", "PUT"), 2):
        changed = cron(method, path, {"name": method, "enabled": method == "PUT"})
        assert changed.status == 200
        assert (changed.json["name"], changed.json["version"]) == (method, number)
        assert (changed.json["next_run_at"] is None) == (method == "PATCH")
    versions = cron.get(f"{path}/versions").json
    assert [each["name"] for each in versions["versions"]] == ["PUT", "PATCH", "nightly"]
    assert all(set(each) == ENTRY for each in versions["versions"])
    fires = cron.get(f"{path}/next?count=3").json["next"]
    assert len(fires) == 3
    assert all(fire.endswith("T02:55:00Z") for fire in fires)
    assert len(cron.get(f"{path}/next").json["next"]) == 5
    assert cron("DELETE", path).json == {"deleted": True}
    for gone in (cron.get(path), cron("DELETE", path), cron.get(f"{path}/next")):
        assert "/users/root/entries" in failure(gone, 404, "ENTRY_NOT_FOUND")
    assert cron.get(f"{path}/versions").json == versions
    assert cron.get(f"{path}/runs").json == {"runs": [], "total": 0, "page": 1, "limit": 20}


def test_an_expiry_is_set_and_taken_away(cron: Api) -> None:
    later = in_an_hour()
    made = make(cron, expires_at=later)
    assert (made["expires_at"], made["expired"]) == (later, False)
    path = f"/users/root/entries/{made['id']}"
    for given in ({"clear_expiration": True}, {"expires_at": None}):
        assert cron("PATCH", path, given).json["expires_at"] is None
        assert cron("PATCH", path, {"expires_at": later}).json["expires_at"] == later
    both = cron("PATCH", path, {"expires_at": later, "clear_expiration": True})
    failure(both, 400, "INVALID_EXPIRES_AT")


def test_a_list_comes_in_pages(cron: Api) -> None:
    for _ in range(3):
        make(cron, "nobody")
    said = cron.get("/users/nobody/entries?limit=2").json
    assert set(said) == {"user", "entries", "total", "page", "limit"}
    assert (said["user"], said["total"], said["page"], said["limit"]) == ("nobody", 3, 1, 2)
    rest = cron.get("/users/nobody/entries/?limit=2&page=2").json["entries"]
    assert len({each["id"] for each in said["entries"] + rest}) == 3
    times = [each["created_at"] for each in said["entries"] + rest]
    assert times == sorted(times)
    backwards = cron.get("/users/nobody/entries?sort_by=created_at&sort_order=desc").json[
        "entries"
    ]
    assert [each["created_at"] for each in backwards] == times[::-1]
    for key in ("updated_at", "name", "next_run_at"):
        assert cron.get(f"/users/nobody/entries?sort_by={key}").json["total"] == 3
    failure(cron.get("/users/nobody/entries?sort_by=command"), 400, "INVALID_PAGINATION")
    assert cron.get("/users/nobody/entries?page=9").json["entries"] == []
    assert cron.get("/users/somebody-else/entries").json["total"] == 0
    assert cron.get("/users/nobody/entries?limit=200").status == 200


def test_it_runs_when_it_is_asked_to(shared: Server, cron: Api) -> None:
    made = make(cron, command='echo "as $(id -un)"; echo no >&2; exit 3', enabled=False)
    path = f"/users/root/entries/{made['id']}"
    answer = cron("POST", f"{path}/run")
    assert answer.status == 202
    assert set(answer.json) == RUN
    assert (answer.json["entry_id"], answer.json["version"]) == (made["id"], 1)
    assert answer.json["status"] == "running"
    run = over(cron, path)
    assert run["id"] == answer.json["id"]
    assert (run["status"], run["exit_code"], run["attempt"]) == ("failed", 3, 1)
    assert (run["stdout"], run["stderr"]) == ("as root\n", "no\n")
    assert cron.get(path).json["last_run"] == run
    listed = cron.get("/users/root/entries?limit=200").json["entries"]
    [last] = [each["last_run"] for each in listed if each["id"] == made["id"]]
    assert last == {**run, "stdout": "", "stderr": ""}


def over(cron: Api, path: str) -> dict[str, Any]:
    """The last run of an entry, as soon as it is."""
    for _ in range(200):
        page = cron.get(f"{path}/runs?limit=1").json
        assert set(page) == {"runs", "total", "page", "limit"}
        run: dict[str, Any] = page["runs"][0]
        assert set(run) == RUN
        if run["status"] != "running":
            return run
        subprocess.run(["sleep", "0.05"], check=True)
    raise AssertionError(run)


BAD = [
    ({"schedule": "0 0 30 2 *"}, "INVALID_SCHEDULE", "never comes"),
    ({"schedule": "0 55 2 * * *"}, "INVALID_SCHEDULE", "6 fields"),
    ({"schedule": "@reboot"}, "INVALID_SCHEDULE", "@reboot"),
    ({"schedule": 5}, "INVALID_SCHEDULE", "expected str"),
    ({"schedule": None}, "INVALID_SCHEDULE", "schedule"),
    ({"command": "a\nb"}, "INVALID_COMMAND", "one line"),
    ({"command": ""}, "INVALID_COMMAND", "/bin/sh"),
    ({"command": "x" * 4097}, "INVALID_COMMAND", "4096"),
    ({"command": "curl $SNAP_URL"}, "INVALID_COMMAND", "container_id"),
    ({"comment": "x" * 501}, "INVALID_COMMENT", "500"),
    ({"comment": 5}, "INVALID_COMMENT", "expected"),
    ({"name": "x" * 121}, "INVALID_NAME", "120"),
    ({"timezone": "Mars/Olympus"}, "INVALID_TIMEZONE", "IANA"),
    ({"expires_at": "2020-01-01T00:00:00Z"}, "EXPIRES_IN_PAST", "past"),
    ({"expires_at": "tomorrow"}, "INVALID_EXPIRES_AT", "2026-05-04T02:55:08Z"),
    ({"expires_at": "2099-01-01T00:00:00"}, "INVALID_EXPIRES_AT", "time zone"),
    ({"container_id": "nobody"}, "INVALID_CONTAINER", "no container"),
    ({"run_on": "container"}, "INVALID_CONTAINER", "container_id"),
    ({"run_on": "moon"}, "INVALID_CONTAINER", "container, server"),
    ({"timeout_seconds": 0}, "INVALID_BODY", ">= 1"),
    ({"timeout_seconds": 604801}, "INVALID_BODY", "604800"),
    ({"retries": 11}, "INVALID_BODY", "10"),
    ({"start_deadline_seconds": 86401}, "INVALID_BODY", "86400"),
    ({"enabled": "yes"}, "INVALID_BODY", "expected bool"),
    ({"overlap": "maybe"}, "INVALID_BODY", "allow, queue, skip"),
    ({"environment_vars": {"1A": "x"}}, "INVALID_BODY", "1A"),
    ({"environment_vars": {"A": "\x00"}}, "INVALID_BODY", "NUL"),
    (
        {"environment_vars": {"A": 5}},
        "INVALID_BODY",
        "one of its values will not do; expected str",
    ),
    ({"scopes": ["admin"]}, "INVALID_BODY", "admin"),
    ({"scopes": ["all"]}, "INVALID_BODY", "snapshot"),
    ({"color": "red"}, "INVALID_BODY", '"color" is no field'),
]


@pytest.mark.parametrize(("given", "code", "sentence"), BAD, ids=range(len(BAD)))
def test_what_will_not_do_is_refused_by_its_code(
    cron: Api, given: dict[str, Any], code: str, sentence: str
) -> None:
    before = cron.get("/users/root/entries").json["total"]
    answer = cron("POST", "/users/root/entries", {**YEARLY, **given})
    assert sentence in failure(answer, 400, code)
    assert answer.json["details"] == {"field": next(iter(given))}
    assert cron.get("/users/root/entries").json["total"] == before
    entry = make(cron)
    answer = cron("PATCH", f"/users/root/entries/{entry['id']}", given)
    assert sentence in failure(answer, 400, code)
    assert cron.get(f"/users/root/entries/{entry['id']}").json == entry


def test_what_is_missing_is_named(cron: Api) -> None:
    assert "schedule is missing" in failure(
        cron("POST", "/users/root/entries", {"command": "true"}), 400, "INVALID_SCHEDULE"
    )
    assert "command is missing" in failure(
        cron("POST", "/users/root/entries", {"schedule": "@daily"}), 400, "INVALID_COMMAND"
    )


@pytest.mark.parametrize("body", ["{", "[]", "5", "schedule=@daily", "\x07"])
def test_what_is_no_json_is_refused(cron: Api, body: str) -> None:
    answer = cron("POST", "/users/root/entries", body)
    failure(answer, 400, "INVALID_BODY")
    assert answer.json["details"] is None


@pytest.mark.parametrize(
    "query", ["page=0", "page=x", "limit=0", "limit=201", "limit=-1", "page=%00"]
)
def test_a_page_that_cannot_be(cron: Api, query: str) -> None:
    for path in ("/users/root/entries", f"/users/root/entries/{NOBODY}/runs", "/crontab"):
        answer = cron.get(f"{path}?{query}")
        failure(answer, 400, "INVALID_PAGINATION")
        assert answer.json["details"] == {"field": query.partition("=")[0]}
    path = f"/users/root/entries/{NOBODY}/next?count=101"
    failure(cron.get(path), 400, "INVALID_PAGINATION")


@pytest.mark.parametrize("user", ["-x", "a%20b", "%00", "x" * 33, "a%0Ab", "%C3%A9"])
def test_a_user_that_nobody_can_be_called(cron: Api, user: str) -> None:
    for answer in (
        cron.get(f"/users/{user}/entries"),
        cron("POST", f"/users/{user}/entries", YEARLY),
        cron.get(f"/users/{user}/crontab"),
    ):
        failure(answer, 400, "INVALID_USER")


def test_an_unknown_user_is_not_found(cron: Api) -> None:
    said = failure(cron("POST", "/users/not-here/entries", YEARLY), 404, "USER_NOT_FOUND")
    assert said == "There is no user not-here on this server; give one of its system's users."


@pytest.mark.parametrize("entry", [NOBODY, "x", "%00", "..%2f", "a" * 2000])
def test_an_unknown_entry_is_not_found(cron: Api, entry: str) -> None:
    path = f"/users/root/entries/{entry}"
    for answer in (
        cron.get(path),
        cron("PATCH", path, {}),
        cron("DELETE", path),
        cron("POST", f"{path}/run"),
        cron.get(f"{path}/runs"),
        cron.get(f"{path}/next"),
        cron.get(f"{path}/versions"),
    ):
        if "%2f" in entry:
            assert answer.status == 404
        else:
            failure(answer, 404, "ENTRY_NOT_FOUND")


def test_parts_of_a_path_may_be_encoded(cron: Api) -> None:
    made = make(cron)
    encoded = made["id"].replace("-", "%2D")
    assert cron.get(f"/users/r%6Fot/entries/{encoded}/").json == made
    assert cron.get(f"/users/root/entries/{made['id'].upper()}").json == made


def test_a_body_over_1_mib_is_too_large(cron: Api, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b" " * (1 << 20) + b"{}")
    for path, method in (("/users/root/entries", "POST"), ("/users/root/crontab", "PUT")):
        for more in ((), ("-H", "Transfer-Encoding: chunked")):
            answer = cron(method, path, f"@{tmp_path}/large", *JSON, "-H", "Expect:", *more)
            assert "1 MiB" in failure(answer, 413, "PAYLOAD_TOO_LARGE")


def test_wrong_methods_and_paths(cron: Api) -> None:
    answer = cron("DELETE", "/users/root/entries")
    failure(answer, 405, "METHOD_NOT_ALLOWED")
    assert re.search(r"(?m)^Allow: .*GET.*POST", answer.headers)
    failure(cron("POST", "/crontab", {}), 405, "METHOD_NOT_ALLOWED")
    for path in ("/", "/users", "/users/root", "/api/v1/containers", "/metrics", "/users/%FF/x"):
        answer = cron.get(path)
        assert answer.json["code"] in ("NOT_FOUND", "BAD_REQUEST"), path
        assert answer.status in (404, 400)


# Who may


def test_without_a_token_nobody_may(shared: Server, cron: Api) -> None:
    anybody = cron.with_token(None)
    for answer in (
        anybody.get("/users/root/entries"),
        anybody("POST", "/users/root/entries", YEARLY),
        anybody.get("/crontab"),
    ):
        failure(answer, 401, "UNAUTHORIZED")
        assert "WWW-Authenticate: Bearer" in answer.headers
    assert anybody.get("/health").json["status"] == "ok"
    wrong = cron.with_token("hdy_" + "0" * 24 + "x" * 43)
    codes = {wrong.get("/crontab").json["code"] for _ in range(8)}
    assert codes == {"UNAUTHORIZED", "TOO_MANY_REQUESTS"}


def test_nor_what_they_say_in_what_a_run_said(root: Api, cron: Api) -> None:
    made = make(cron, command='echo "1 $KEY"; echo "$KEY" >&2', environment_vars={"KEY": "secret"})
    path = f"/users/root/entries/{made['id']}"
    cron("PATCH", path, {"environment_vars": {"KEY": "another"}})
    cron("PATCH", path, {"environment_vars": {"KEY": "secret"}})
    assert cron("POST", f"{path}/run").status == 202
    late = time.monotonic() + 20
    while cron.get(path).json["last_run"]["status"] == "running":
        assert time.monotonic() < late
    for scope, said in (("read", "***"), ("cron", "secret")):
        reader = cron.with_token(issue(root, scope).token)
        [run] = reader.get(f"{path}/runs").json["runs"]
        assert (run["stdout"], run["stderr"]) == (f"1 {said}\n", f"{said}\n")
        assert reader.get(path).json["last_run"] == run


def test_who_may_read_sees_all_but_what_variables_say(root: Api, cron: Api) -> None:
    made = make(cron, environment_vars={"KEY": "secret"})
    path = f"/users/root/entries/{made['id']}"
    text = "KEY=secret\n@yearly true\n"
    assert cron("PUT", "/users/nobody/crontab", {"crontab": text}, *JSON).status == 200
    for scopes, masked in ((["read"], True), (["cron"], False), (["write"], False)):
        reader = cron.with_token(issue(root, *scopes).token)
        row = reader.get(path).json
        assert row["environment_vars"] == {"KEY": "***" if masked else "secret"}
        listed = reader.get("/users/root/entries?limit=200").json["entries"]
        assert row in listed
        [version] = reader.get(f"{path}/versions").json["versions"]
        assert version["environment_vars"] == row["environment_vars"]
        seen = reader.get("/users/nobody/crontab").body + reader.get("/crontab").body
        assert ("secret" in seen) is not masked
        for sub in ("runs", "next"):
            assert reader.get(f"{path}/{sub}").status == 200
    assert cron("PUT", "/users/nobody/crontab", {"crontab": ""}, *JSON).status == 200
    for scopes in (["read"], ["write"], ["pipe"]):
        reader = cron.with_token(issue(root, *scopes).token)
        for answer in (
            reader("POST", "/users/root/entries", YEARLY),
            reader("PATCH", path, {}),
            reader("DELETE", path),
            reader("POST", f"{path}/run"),
            reader("PUT", "/users/root/crontab", {"crontab": ""}, *JSON),
        ):
            assert "this needs cron" in failure(answer, 403, "FORBIDDEN")
    stranger = cron.with_token(issue(root, "pipe").token)
    assert "read or cron" in failure(stranger.get(path), 403, "FORBIDDEN")


def test_what_runs_on_the_server_is_for_admins(root: Api, cron: Api) -> None:
    made = make(cron)
    path = f"/users/root/entries/{made['id']}"
    holder = cron.with_token(issue(root, "cron").token)
    for answer in (
        holder("POST", "/users/root/entries", YEARLY),
        holder("PATCH", path, {"name": "x"}),
        holder("DELETE", path),
        holder("POST", f"{path}/run"),
        holder("PUT", "/users/nobody/crontab", {"crontab": "@yearly true\n"}, *JSON),
    ):
        assert "needs admin" in failure(answer, 403, "FORBIDDEN")
    assert holder.get(path).json == made


# Crontabs

JSON = ("-H", "Content-Type: application/json")


def test_a_crontab_comes_and_goes(cron: Api) -> None:
    text = "# mine\nA=1\n@yearly one 100%\n\n5 4 1 1 *  two\n"
    kept = text.replace("*  two", "* two")
    answer = cron("PUT", "/users/daemon/crontab", {"crontab": text}, *JSON)
    assert answer.json == {"user": "daemon", "crontab": kept, "removed_expired": 0}
    assert cron.get("/users/daemon/crontab/").json == {"user": "daemon", "crontab": kept}
    rows = cron.get("/users/daemon/entries").json["entries"]
    assert {each["type"] for each in rows} == {"raw"}
    made = make(cron, "daemon", name="managed")
    with_it = f"{kept}# hoody:{made['id']} managed\n@yearly true\n"
    assert cron.get("/users/daemon/crontab").json["crontab"] == with_it
    page = cron.get("/crontab?limit=200").json
    assert set(page) == {"items", "total", "page", "limit"}
    assert {"user": "daemon", "crontab": with_it} in page["items"]
    assert page["total"] == len(page["items"])
    edited = with_it.replace("@yearly true", "@monthly true").replace("@yearly one 100%\n", "")
    said = cron("PUT", "/users/daemon/crontab", {"crontab": edited}, *JSON).json
    assert said["crontab"] == edited
    after = cron.get("/users/daemon/entries").json["entries"]
    assert [(each["command"], each["version"]) for each in after] in (
        [("two", 1), ("true", 2)],
        [("true", 2), ("two", 1)],
    )
    assert {each["id"] for each in after} <= {each["id"] for each in [*rows, made]}
    assert cron("PUT", "/users/daemon/crontab", {"crontab": ""}, *JSON).json["crontab"] == ""
    assert cron.get("/users/daemon/entries").json["total"] == 0


def test_a_crontab_that_cannot_be_changes_nothing(cron: Api) -> None:
    path = "/users/bin/crontab"
    assert cron("PUT", path, {"crontab": "@yearly x\n"}, *JSON).status == 200
    for text, status, code, line in (
        ("@daily y\n61 * * * * x\n", 400, "INVALID_SCHEDULE", 2),
        ("@daily\n", 400, "INVALID_COMMAND", 1),
        ("@daily $CONTAINER_ID\n", 400, "INVALID_COMMAND", 1),
        ("CRON_TZ=x\n", 400, "INVALID_TIMEZONE", 1),
        ("MAIL TO=x\n", 400, "INVALID_SCHEDULE", 1),
        (f"@daily y\n# hoody:{NOBODY}\n@daily z\n", 404, "ENTRY_NOT_FOUND", 2),
    ):
        answer = cron("PUT", path, {"crontab": text}, *JSON)
        assert f"Line {line}: " in failure(answer, status, code)
        assert answer.json["details"]["line"] == line
    large = {"crontab": "#" * (256 << 10) + "\n"}
    body = json.dumps(large)
    done = subprocess.run(
        ["curl", "-sS", "-X", "PUT", cron.base + path, *JSON, "-d", "@-"]
        + ["-H", f"Authorization: Bearer {cron.token}"],
        input=body,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["code"] == "PAYLOAD_TOO_LARGE"
    answer = cron("PUT", path, {"crontab": 5}, *JSON)
    failure(answer, 400, "INVALID_BODY")
    assert answer.json["details"] == {"field": "crontab"}
    assert cron.get(path).json["crontab"] == "@yearly x\n"
    assert cron("PUT", path, {"crontab": ""}, *JSON).status == 200


def test_a_crontab_is_put_as_json_and_nothing_else(cron: Api) -> None:
    path = "/users/root/crontab"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp"):
        for body in ({"crontab": ""}, "@daily x"):
            answer = cron("PUT", path, body, "-H", f"Content-Type: {kind}")
            assert kind in failure(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    before = cron.get(path).json["crontab"]
    kind = "Content-Type: Application/JSON; charset=utf-8"
    assert cron("PUT", path, {"crontab": before}, "-H", kind).status == 200
    assert cron("PUT", path, {"crontab": before}, "-H", "Content-Type:").status == 200
    # Everything else is read as what it is, whatever it says.
    assert cron("POST", "/users/root/entries", YEARLY).status == 201


def test_a_crontab_that_is_put_several_times_at_once_is_there_once(cron: Api) -> None:
    path = "/users/mail/crontab"
    body = {"crontab": "".join(f"@yearly echo {number}\n" for number in range(20))}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: cron("PUT", path, body, *JSON), range(6)))
    assert [answer.status for answer in answers] == [200] * 6
    assert cron.get("/users/mail/entries").json["total"] == 20
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: cron("PUT", path, {"crontab": ""}, *JSON), range(6)))
    assert cron.get("/users/mail/entries").json["total"] == 0
    assert "mail" not in [each["user"] for each in cron.get("/crontab?limit=200").json["items"]]


# Hosts


def test_it_is_there_by_its_path_under_other_hosts(shared: Server, root: Api, cron: Api) -> None:
    made = make(cron)
    path = f"/users/root/entries/{made['id']}"
    for base in (
        shared.url,
        f"http://localhost:{shared.port}",
        f"http://hoody.localhost:{shared.port}",
    ):
        here = Api(base, root.token)
        assert here.get(path).json == made
        assert here.get("/crontab/").status == 200
        failure(here.get("/users"), 404, "NOT_FOUND")
        failure(here.with_token(None).get(path), 401, "UNAUTHORIZED")
        failure(here("PUT", path, "x" * 10), 400, "INVALID_BODY")
        assert here.get("/userss").status == 404
        assert "code" not in here.get("/userss").body
    upper = Api(f"http://CRON.Containers.Hoody.LOCALHOST:{shared.port}", root.token)
    assert upper.get(path).json == made
    assert at(shared, "api", root.token).get(path).status == 404
    assert at(shared, "pipe", root.token)("HEAD", path, None, "-I").status == 405


def test_it_describes_itself(shared: Server, cron: Api) -> None:
    document = cron.with_token(None).get("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    described = {
        (path, method.upper()) for path, methods in document["paths"].items() for method in methods
    }
    one = "/users/{user}/entries/{entry}"
    assert described == {
        *(("/users/{user}/entries", method) for method in ("GET", "POST")),
        *((one, method) for method in ("GET", "PATCH", "PUT", "DELETE")),
        (f"{one}/run", "POST"),
        *((f"{one}/{sub}", "GET") for sub in ("runs", "next", "versions")),
        *(("/users/{user}/crontab", method) for method in ("GET", "PUT")),
        *((path, "GET") for path in ("/crontab", "/health", "/openapi.json")),
    }
    schemas = document["components"]["schemas"]
    assert set(schemas["EntryRow"]["properties"]) == ENTRY
    assert set(schemas["RunRow"]["properties"]) == RUN
    assert set(schemas["CronFailure"]["properties"]) == {"code", "message", "details"}
    assert schemas["NewEntry"]["additionalProperties"] is False
    assert schemas["NewEntry"]["properties"]["command"]["maxLength"] == 4096
    created = document["paths"]["/users/{user}/entries"]["post"]["responses"]
    assert created["201"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/EntryRow"
    }
    whole = Api(shared.url, None).get("/openapi.json").json["paths"]
    assert set(document["paths"]) <= set(whole)
    for reference in re.findall(r"#/components/schemas/(\w+)", json.dumps(document)):
        assert reference in schemas


def test_the_metrics_and_the_audit_know_of_it(shared: Server, root: Api, cron: Api) -> None:
    alias = name()
    made = make(cron, name=alias)
    cron("PATCH", f"/users/root/entries/{made['id']}", {"command": "false"})
    cron("DELETE", f"/users/root/entries/{made['id']}")
    events = root.get("/events?resource_type=cron_entry&limit=3").data["events"]
    assert [(each["event_type"], each["data"]["alias"]) for each in events] == [
        ("cron.entry.deleted", alias),
        ("cron.entry.updated", alias),
        ("cron.entry.created", alias),
    ]
    assert events[0]["actor"] == "root"
    page = Api(shared.url, None).get("/metrics").body
    assert 'hoody_requests_total{area="cron",method="POST",status="201"}' in page


# With containers


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres
) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house") / "data", pool, cluster)
    try:
        house.create("app", alias="front", egress="none", start=False)
        house.create("web", egress="none", start=False)
        yield house
    finally:
        house.close()


@pytest.fixture
def indoors(house: House) -> Api:
    return at(house.server, "cron.containers", house.api.token)


def own(house: House, label: str, service: str = "cron-0", project: str | None = None) -> str:
    """A container's own host, less the domain."""
    row = house.row(label)
    return f"{project or row['project_id']}-{row['id']}-{service}.any.containers"


def test_the_readme_s_line_works_as_it_stands(house: House) -> None:
    line = (
        """curl -X POST cron.containers.hoody.localhost:8080/users/root/entries"""
        """ -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" -d"""
        """ '{ "container_id": "app", "schedule": "55 2 * * *", "command": "curl -X POST"""
        """ $SNAP_URL -d '\\''{\\"alias\\":\\"rollback-point\\",\\"expiry\\":7}'\\''","""
        """ "comment": "pre-migration snapshot" }'"""
    ).replace(":8080", f":{house.server.port}")
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        check=True,
        env={"TOKEN": house.api.token or "", "PATH": "/usr/bin:/bin"},
    )
    row = json.loads(done.stdout)
    assert set(row) == ENTRY
    assert row["container_id"] == house.row("app")["id"]
    assert row["run_on"] == "container"
    assert row["command"] == (
        """curl -X POST $SNAP_URL -d '{"alias":"rollback-point","expiry":7}'"""
    )
    assert row["schedule_human"] == "At 02:55"


def test_whom_a_container_knows_may_have_entries_in_it(house: House, indoors: Api) -> None:
    for user in ("root", "4711"):
        assert make(indoors, user, container_id="front")["container_id"] == house.row("app")["id"]
    answer = indoors("POST", "/users/stranger/entries", {**YEARLY, "container_id": "app"})
    said = failure(answer, 404, "USER_NOT_FOUND")
    assert "The container 'app' knows no user stranger" in said
    house.create("writes", command="echo alice:x:5:5::/:/bin/sh >> /etc/passwd; exec sleep 999")
    try:
        house.until("writes", status="running")
        for _ in range(100):
            answer = indoors("POST", "/users/alice/entries", {**YEARLY, "container_id": "writes"})
            if answer.status == 201:
                break
        assert answer.status == 201, answer.body
        assert indoors.get("/users/alice/entries").json["total"] == 1
    finally:
        house.delete("writes")
    assert indoors.get("/users/alice/entries").json["total"] == 0


def test_a_container_s_own_host_is_about_that_container(house: House, indoors: Api) -> None:
    here = at(house.server, own(house, "web"), house.api.token)
    web = house.row("web")["id"]
    elsewhere = make(indoors, container_id="app")
    made = make(here)
    assert (made["container_id"], made["run_on"]) == (web, "container")
    assert make(here, container_id="web")["container_id"] == web
    failure(
        here("POST", "/users/root/entries", {**YEARLY, "container_id": "app"}),
        400,
        "INVALID_CONTAINER",
    )
    rows = here.get("/users/root/entries").json["entries"]
    assert {each["container_id"] for each in rows} == {web}
    path = f"/users/root/entries/{elsewhere['id']}"
    failure(here.get(path), 404, "ENTRY_NOT_FOUND")
    failure(here("DELETE", path), 404, "ENTRY_NOT_FOUND")
    text = "# of web\n@yearly curl $SNAP_URL\n"
    said = here("PUT", "/users/root/crontab", {"crontab": text}, *JSON)
    assert said.json == {"user": "root", "crontab": text, "removed_expired": 0}
    assert here.get("/crontab").json["items"] == [{"user": "root", "crontab": text}]
    assert indoors.get(path).status == 200
    assert here.get("/health").status == here.get("/openapi.json").status == 200
    failure(here.get("/api/v1/containers"), 404, "NOT_FOUND")
    nobody = at(house.server, own(house, "web", project="0" * 24), house.api.token)
    assert "no container" in failure(nobody.get("/users/root/entries"), 404, "NOT_FOUND")
    failure(nobody("POST", "/users/root/entries", YEARLY), 404, "NOT_FOUND")
    other = at(house.server, own(house, "web", "smtp-0"), house.api.token).get("/")
    assert "no service called 'smtp'" in other.body


def test_who_is_tied_to_a_container_has_its_entries(house: House, indoors: Api) -> None:
    app, web = house.row("app")["id"], house.row("web")["id"]
    tied = indoors.with_token(issue(house.api, "cron", containers=[app]).token)
    own_entry = make(tied, container_id="app", environment_vars={"A": "1"})
    other = make(indoors, container_id="web")
    rows = tied.get("/users/root/entries?limit=200").json["entries"]
    assert {each["container_id"] for each in rows} == {app}
    path = f"/users/root/entries/{other['id']}"
    for answer in (tied.get(path), tied("PATCH", path, {}), tied("POST", f"{path}/run")):
        failure(answer, 404, "ENTRY_NOT_FOUND")
    failure(tied("POST", "/users/root/entries", YEARLY), 403, "FORBIDDEN")
    body = {**YEARLY, "container_id": web}
    failure(tied("POST", "/users/root/entries", body), 400, "INVALID_CONTAINER")
    failure(
        tied("POST", "/users/root/entries", {**body, "container_id": app, "run_on": "server"}),
        403,
        "FORBIDDEN",
    )
    failure(tied("PUT", "/users/root/crontab", {"crontab": ""}, *JSON), 403, "FORBIDDEN")
    listed = tied.get("/users/root/crontab").json["crontab"]
    assert own_entry["id"] in listed
    assert other["id"] not in listed
    there = at(house.server, own(house, "web"), tied.token)
    failure(there.get("/users/root/entries"), 404, "NOT_FOUND")
    body = {**YEARLY, "container_id": "app", "scopes": ["write"]}
    failure(tied("POST", "/users/root/entries", body), 403, "FORBIDDEN")


def test_by_its_own_door_a_container_comes_to_cron(house: House) -> None:
    row = house.create("inside", egress="none", command="sleep 1000")
    try:
        token = issue(house.api, "cron", containers=[row["id"]]).token
        auth = f'--header "Authorization: Bearer {token}"'
        body = json.dumps({**YEARLY, "container_id": row["id"]})
        status, said = house.run(
            "inside",
            f"wget -qO- {auth} --post-data '{body}' \"$HOODY_URL/users/root/entries\"",
        )
        assert status == 0, said
        assert json.loads(said)["container_id"] == row["id"]
        status, said = house.run("inside", 'wget -qO- "$HOODY_URL/users/root/entries" 2>&1')
        assert (status, "401" in said) == (1, True)
    finally:
        house.delete("inside")


def test_it_runs_in_its_container(house: House, indoors: Api) -> None:
    made = make(indoors, container_id="web", command="cat /etc/hostname; echo $CONTAINER_ID")
    path = f"/users/root/entries/{made['id']}"
    assert indoors("POST", f"{path}/run").status == 202
    run = over(indoors, path)
    assert (run["status"], run["exit_code"]) == ("succeeded", 0), run
    assert house.row("web")["id"] in run["stdout"]


# Several servers


@pytest.fixture(scope="module")
def other(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the same database, without containers of its own."""
    with Server(tmp_path_factory.mktemp("other") / "data", f"--database={house.dsn}") as server:
        yield server


def test_what_runs_on_a_server_is_changed_and_run_there(
    house: House, other: Server, indoors: Api
) -> None:
    stranger = at(other, "cron.containers", house.api.token)
    made = make(indoors, "nobody")
    path = f"/users/nobody/entries/{made['id']}"
    assert stranger.get(path).json == made
    for answer in (
        stranger("PATCH", path, {"name": "x"}),
        stranger("DELETE", path),
        stranger("POST", f"{path}/run"),
        stranger("PUT", "/users/nobody/crontab", {"crontab": ""}, *JSON),
    ):
        assert house.server_id in failure(answer, 421, "MISDIRECTED")
    assert indoors("DELETE", path).status == 200


def test_entries_of_a_container_are_everybody_s_but_run_where_it_is(
    house: House, other: Server, indoors: Api
) -> None:
    stranger = at(other, "cron.containers", house.api.token)
    made = make(stranger, "4712", container_id="app")
    path = f"/users/4712/entries/{made['id']}"
    assert stranger("PATCH", path, {"name": "x"}).json["version"] == 2
    assert indoors.get(path).json["name"] == "x"
    assert indoors("PATCH", path, {"name": "y"}).json["version"] == 3
    failure(stranger("POST", f"{path}/run"), 421, "MISDIRECTED")
    here = at(other, own(house, "app"), house.api.token)
    assert here.get(path).json["name"] == "y"
    answer = stranger(
        "POST", "/users/root/entries", {**YEARLY, "container_id": "app", "run_on": "server"}
    )
    failure(answer, 421, "MISDIRECTED")
    assert stranger("DELETE", path).json == {"deleted": True}
