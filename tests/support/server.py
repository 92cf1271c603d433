"""The server as a process of its own, and what it says of itself."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from attrs import evolve, frozen

TWISTD = os.path.join(os.path.dirname(sys.executable), "twistd")


@frozen
class Counts:
    """What must be as it was when everything is over."""

    fds: int
    timers: int
    connections: int
    paths: int
    transfers: int
    waiting: int
    running: int


class Server:
    """
    @ivar events: what the server has logged so far, parsed.
    """

    def __init__(
        self,
        data_dir: Path,
        *options: str,
        prefix: Sequence[str] = (),
        interface: str = "127.0.0.1",
        listen: str | None = None,
        env: dict[str, str] | None = None,
        patience: float = 20,
    ) -> None:
        self.data_dir = data_dir
        self.host = interface
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._prefix = list(prefix)
        command = [
            *prefix,
            TWISTD,
            "-n",
            "--pidfile=",
            "hoody",
            f"--listen={listen or f'tcp:0:interface={interface}'}",
            f"--data-dir={data_dir}",
            "--log-format=json",
            *options,
        ]
        data_dir.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=data_dir,
            env={**os.environ, **(env or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        listening = self.wait_for(
            lambda event: "port" in event and "listening" in event["message"], patience
        )
        self.port = int(listening["port"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"message": line.decode("utf-8", "replace").rstrip()}
            with self._changed:
                self.events.append(event)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, wanted: Any, seconds: float = 20) -> dict[str, Any]:
        """The first event for which C{wanted} is true, now or soon."""
        deadline = time.monotonic() + seconds
        seen = 0
        with self._changed:
            while True:
                for event in self.events[seen:]:
                    if wanted(event):
                        return event
                seen = len(self.events)
                left = deadline - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._reader.is_alive()):
                    messages = "\n".join(event["message"] for event in self.events[-30:])
                    raise AssertionError(f"the event did not come; the last ones:\n{messages}")
                self._changed.wait(min(left, 0.2))

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def pipe(self) -> str:
        """The URL that pipes' names are put behind."""
        return f"{self.url}/api/v1/pipe"

    @property
    def pid(self) -> int:
        return int(self.health()["pid"])

    def health(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        try:
            connection.request("GET", "/health")
            return cast(dict[str, Any], json.loads(connection.getresponse().read()))
        finally:
            connection.close()

    def counts(self) -> Counts:
        health = self.health()
        pipes, reactor = health["parts"]["pipes"], health["parts"]["reactor"]
        return Counts(
            # Connections to the database come and go as they are wanted: libpq has a descriptor
            # of each, and so have we.
            fds=health["fds"] - 2 * health["parts"]["database"]["connections"],
            timers=reactor["timers"],
            connections=reactor["connections"],
            **{key: pipes[key] for key in ("paths", "transfers", "waiting", "running")},
        )

    def steady(self) -> Counts:
        """The counts, when nothing moves."""
        counts = self.counts()
        while counts != (again := self.counts()):
            counts = again
        return counts

    def wait_until(self, wanted: Any, seconds: float = 10) -> Counts:
        """The counts, as soon as C{wanted} is true of them."""
        deadline = time.monotonic() + seconds
        while not wanted(counts := self.counts()):
            assert time.monotonic() < deadline, f"still {counts}"
            time.sleep(0.02)
        return counts

    def waiting(self, number: int) -> None:
        """Return when so many senders and receivers wait."""
        self.wait_until(lambda counts: counts.waiting == number)

    def settle(self, before: Counts) -> None:
        """Return when nothing is left of what was not there C{before}."""

        def settled(counts: Counts) -> bool:
            # A connection to the database may have been in the making C{before}.
            same = evolve(counts, fds=before.fds, timers=before.timers) == before
            return same and counts.fds <= before.fds and counts.timers <= before.timers

        self.wait_until(settled)

    def resident(self, what: str = "VmHWM") -> int:
        """Bytes of memory: VmRSS now, VmHWM the most since L{forget_peak}."""
        with open(f"/proc/{self.pid}/status") as status:
            for line in status:
                if line.startswith(what):
                    return int(line.split()[1]) * 1024
        raise AssertionError(f"no {what}")

    def forget_peak(self) -> None:
        with open(f"/proc/{self.pid}/clear_refs", "w") as clear:
            clear.write("5")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        """End it, hard if need be."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                self.process.send_signal(number)
                try:
                    self.process.wait(3)
                except subprocess.TimeoutExpired:
                    continue
        self._reader.join(5)
        if self.process.stdout:
            self.process.stdout.close()
        broken = [event["traceback"] for event in self.events if "traceback" in event]
        assert not broken, broken[0]
