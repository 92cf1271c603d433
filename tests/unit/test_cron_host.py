"""Commands on the server that cannot be begun."""

from __future__ import annotations

import pwd
import threading
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread

from hoody.cron import host
from hoody.cron.host import HostCommand
from hoody.errors import CannotRun
from tests.support.stores import awaits


@awaits
async def test_users_that_are_looked_up_for_ever_keep_nobody_from_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enough = threading.Event()

    def hang(_: str) -> Any:
        enough.wait(20)
        raise KeyError

    monkeypatch.setattr(pwd, "getpwnam", hang)
    monkeypatch.setattr(host, "LOOK_UP_SECONDS", 0.3)
    try:
        begun = [
            ensureDeferred(HostCommand.begin(reactor, "ada", "true", {}, lambda *_: None))
            for _ in range(32)
        ]
        assert await deferToThread(lambda: "there").addTimeout(5, reactor) == "there"
        for each in begun:
            with pytest.raises(CannotRun, match="too long"):
                await each
    finally:
        enough.set()
