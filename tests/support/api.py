"""A client of the container API: curl, as an operator has it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from attrs import frozen

from tests.support.postgres import Postgres
from tests.support.server import Server


@frozen
class Answer:
    status: int
    headers: str
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        """What is in the envelope of an answer that is well."""
        answer = self.json
        assert set(answer) == {"statusCode", "message", "data"}, answer
        assert answer["statusCode"] == self.status < 300
        return answer["data"]

    @property
    def error(self) -> str:
        """The sentence in the envelope of one that is not."""
        answer = self.json
        assert {"statusCode", "error", "message"} <= set(answer), answer
        assert answer["statusCode"] == self.status >= 400
        return str(answer["message"])


@frozen
class Api:
    """A client with a token; curl, as an operator has it."""

    base: str
    token: str | None

    def __call__(self, method: str, path: str, body: object = None, *more: str) -> Answer:
        command = ["curl", "-sS", "-m", "20", "-X", method, "-D", "-", *more]
        if self.token is not None:
            command += ["-H", f"Authorization: Bearer {self.token}"]
        if body is not None:
            command += ["-d", body if isinstance(body, str) else json.dumps(body)]
        done = subprocess.run(
            [*command, self.base + path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        head, _, rest = done.stdout.replace("\r", "").partition("\n\n")
        return Answer(int(head.split()[1]), head, rest)

    def get(self, path: str, *more: str) -> Answer:
        return self("GET", path, None, *more)

    def with_token(self, token: str | None) -> Api:
        return Api(self.base, token)


def api(server: Server) -> Api:
    token = (server.data_dir / "root-token").read_text().strip()
    return Api(f"http://{server.host}:{server.port}/api/v1", token)


_databases = iter(range(10**6))


def database_option(cluster: Postgres) -> str:
    """A database that nobody else uses, so that its root token is ours."""
    name = f"api{next(_databases)}"
    cluster.run("createdb", name)
    return f"--database={cluster.dsn(name)}"


_names = iter(range(10**6))


def name() -> str:
    return f"name-{next(_names)}"


def issue(root: Api, *scopes: str, **more: object) -> Api:
    body = {"alias": name(), "scopes": list(scopes), **more}
    return root.with_token(root("POST", "/auth/tokens", body).data["token"])


def in_an_hour() -> str:
    return subprocess.run(
        ["date", "-u", "-d", "+1 hour", "+%Y-%m-%dT%H:%M:%SZ"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
