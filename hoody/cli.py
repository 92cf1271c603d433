"""C{hoody}: what an operator does on the machine itself, besides C{twistd hoody}."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react

from hoody.auth.keyring import Keyring
from hoody.errors import DatabaseAway, HoodyError, Unavailable
from hoody.process import DataDir, DataDirTaken
from hoody.settings import Settings
from hoody.store import databases
from hoody.store.migrations import SchemaRefused
from hoody.tap import Options

USAGE = """\
usage: hoody token reset [--data-dir DIR] [--database DSN]

Replaces the root token, on the machine that hoody runs on, whether it runs or
not; prints the new one, and keeps it in DIR/root-token. Give the options that
the server was given, or the same HOODY_... variables.

The server itself is started by: twistd hoody (--help lists its options)
"""
_PATIENCE = 60.0


def main(arguments: Sequence[str] | None = None) -> None:
    """The program."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:2] != ["token", "reset"] or "--help" in given:
        asked = not given or "--help" in given or given == ["help"]
        (sys.stdout if asked else sys.stderr).write(USAGE)
        sys.exit(0 if asked else 2)
    options = Options(program="hoody token reset")
    options.parseOptions(given[2:])
    options.hide_secrets()
    react(_started(reset_token, options.settings))


def _started(
    work: Callable[[ReactorBase, Settings], Any], settings: Settings
) -> Callable[[Any], Deferred[None]]:
    async def run(reactor: ReactorBase) -> None:
        try:
            await work(reactor, settings)
        except (HoodyError, DataDirTaken) as error:
            sys.stderr.write(f"{getattr(error, 'sentence', error)}\n")
            raise SystemExit(1) from None

    return lambda reactor: ensureDeferred(run(reactor))


async def reset_token(reactor: ReactorBase, settings: Settings) -> None:
    """
    Replace the root token.

    @raise DatabaseAway: if it cannot be.
    """
    data_dir = DataDir(settings.data_dir)
    owner = data_dir.owner
    if owner not in (None, os.geteuid()):
        raise Unavailable(
            f"The data directory {data_dir.path} belongs to user {owner}; run this as that user."
        )
    try:
        data_dir.take()
        runs = False
    except DataDirTaken:
        runs = True

    async def nothing() -> None:
        """The server furnishes what it needs."""

    refusals: list[SchemaRefused] = []
    database = databases.make(
        reactor,
        settings,
        data_dir,
        furnish=nothing,
        refused=refusals.append,
        somebody_elses=runs,
    )
    database.start()
    try:
        try:
            await database.ready(_PATIENCE)
        except DatabaseAway:
            if refusals:
                raise refusals[0] from None
            raise
        secret = await Keyring(database, reactor).reset_root(data_dir.root_token)
    finally:
        await database.stop()
        data_dir.leave()
    sys.stdout.write(secret + "\n")
