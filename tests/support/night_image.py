"""
A Debian container with something to lose: a Postgres with over 200 MB in it, a web server that
says what the database says, and curl. Made of files from this machine's Debian packages, and
without a network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support import postgres_image
from tests.support.containers import House
from tests.support.rollback import until

PORT = 8080
ROWS = 110_000
"""Of C{entries}, with 1920 characters each that differ in all of them."""
LEAST_BYTES = 200 * 1000 * 1000
"""What the database then has, and more."""
NEEDED = "/usr/bin/busybox", "/usr/bin/curl"
"""Of Debian's packages busybox-static (or busybox) and curl."""
_MORE = ("/bin/cat", "/bin/date", "/bin/ls", "/bin/rm", "/etc/os-release", "/etc/debian_version")
_PLACE = "srv/www"
_FRONT = """\
#!/bin/sh
# What stands in for a page there is not: how many entries there are.
if said=$({psql} 'SELECT count(*) FROM entries' 2>&1); then
    printf 'Content-Type: text/plain\\r\\n\\r\\n%s\\n' "$said"
else
    printf 'Status: 503 Service Unavailable\\r\\nContent-Type: text/plain\\r\\n\\r\\n%s\\n' "$said"
fi
"""
_FILL = """\
#!/bin/sh
until {ready}; do sleep 0.1; done
{psql} "
    SET client_min_messages = warning;
    CREATE TABLE IF NOT EXISTS entries AS
    SELECT n AS id, (
        SELECT string_agg(encode(sha512((n || '.' || part || random())::bytea), 'hex'), '')
        FROM generate_series(1, 15) AS part
    ) AS said
    FROM generate_series(1, {rows}) AS n"
"""


def lack() -> str | None:
    """Why there can be none here, or C{None}."""
    missing = [path for path in NEEDED if not Path(path).exists()]
    return f"{', '.join(missing)} is missing" if missing else None


def make(archive: Path, programs: Path) -> None:
    """@param programs: the folder of the Postgres server's."""
    words = {
        "psql": f"{programs}/psql -h /tmp -U postgres -XAtqc",
        "ready": f"{programs}/pg_isready -q -h /tmp -U postgres",
        "rows": ROWS,
    }
    files = {
        f"{_PLACE}/cgi-bin/index.cgi": (_FRONT.format(**words), 0o755),
        "usr/local/bin/fill": (_FILL.format(**words), 0o755),
    }
    postgres_image.make(archive, programs, (*NEEDED, *_MORE), files)


def command(programs: Path) -> str:
    """What a container of it runs; whatever is not Postgres is no child of that."""
    beside = f" busybox httpd -p {PORT} -h /{_PLACE}; (fill &);"
    return postgres_image.command(programs, beside)


def fields(programs: Path) -> dict[str, Any]:
    """For C{House.create}, but for the image's name."""
    return {
        "command": command(programs),
        "port": PORT,
        "volumes": [{"name": "data", "path": "/data"}],
        "egress": "none",
    }


def upload(house: House, archive: Path, name: str = "night") -> None:
    answer = house.api(
        *("POST", f"/images?name={name}", None, "-T", str(archive)),
        *("-H", "Expect:", "-m", "100"),
    )
    assert answer.status == 201, answer.body


def answers(house: House, label: str, rows: int = ROWS, seconds: float = 90) -> None:
    """Return when the front says so many: the database is up, and has them."""
    wanted = (200, b"%d\n" % rows)
    try:
        until(lambda: house.get(label) == wanted, seconds)
    except AssertionError as error:
        said = house.api.get(f"/containers/{label}/logs?tail=20").body
        raise AssertionError(f"it answers {house.get(label)!r}; {said}") from error


def ask(house: House, name: str, programs: Path, query: str) -> str:
    """What the database in it says."""
    words = [f"{programs}/psql", "-h", "/tmp", "-U", "postgres", "-XAtqc", query]
    code, said = house.run(name, words)
    assert code == 0, said
    return said.strip()


def size(house: House, name: str, programs: Path) -> int:
    """Bytes of the database."""
    return int(ask(house, name, programs, "SELECT pg_database_size(current_database())"))
