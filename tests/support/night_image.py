"""
A shop: its orders in a Postgres, and a front that says what is in there, made of this machine's
own Debian packages, so that the test needs no network.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support import postgres_image

PORT = 8080
MEGABYTES = 200
"""That the database has at least."""
_ROWS = 220_000
_FRONT = """#!/bin/sh
echo "Content-Type: text/plain"
echo
exec {programs}/psql -XAtq -h /tmp -U postgres -c \\
    "SELECT count(*) || ' orders, ' || coalesce(sum(amount), 0) FROM orders" postgres 2>&1
"""
_MADE = (
    "CREATE TABLE orders AS SELECT n AS id, n % 100 AS amount,"
    " repeat(md5(n::text), 28) AS note"
    f" FROM generate_series(1, {_ROWS}) AS n"
)
ORDERS = f"{_ROWS} orders, {sum(n % 100 for n in range(1, _ROWS + 1))}"
"""What the front says when all is well."""
MIGRATION = "BEGIN; UPDATE orders SET amount = amount * 100; DROP TABLE customers; COMMIT"


def make(archive: Path, programs: Path) -> None:
    """@param programs: the folder of Postgres'."""
    more = [Path(found) for each in ("curl", "busybox") if (found := shutil.which(each))]
    assert len(more) == 2
    front = _FRONT.format(programs=programs).encode()
    postgres_image.make(archive, programs, more, {"srv/www/cgi-bin/orders": front})


def command(programs: Path) -> str:
    """What a container of it runs."""
    front = f"{shutil.which('busybox')} httpd -p {PORT} -h /srv/www"
    return f"{front}; {postgres_image.command(programs)}"


def filled(programs: Path) -> str:
    """What makes the database in it; it says how many bytes that has."""
    psql = f"{programs}/psql -XAtq -v ON_ERROR_STOP=1 -h /tmp -U postgres"
    size = "SELECT pg_database_size('postgres')"
    return f'{psql} -c "{_MADE}" -c CHECKPOINT -c "{size}" postgres'
