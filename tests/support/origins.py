"""Servers as they may be in a container: real ones, and one that does as a test says."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.support.wire import Wire


class Accepted(Wire):
    """What somebody connected to us for; the test is the server."""

    def __init__(self, accepted: socket.socket, timeout: float = 10) -> None:
        self.socket = accepted
        self.socket.settimeout(timeout)
        self.timeout = timeout
        self.buffer = b""
        self.pending = b""
        self.ended = "open"

    def request(self) -> bytes:
        """The next request's head."""
        return self.read_until(b"\r\n\r\n")

    def respond(self, *headers: str, status: str = "200 OK", body: bytes = b"") -> Self:
        lines = [f"HTTP/1.1 {status}", *headers, "", ""]
        return self.send("\r\n".join(lines).encode() + body)


class Origin:
    """A port on which the test answers, connection by connection."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(10)
        self.port = int(self.listener.getsockname()[1])
        self.accepted: list[Accepted] = []

    def accept(self) -> Accepted:
        self.accepted.append(Accepted(self.listener.accept()[0]))
        return self.accepted[-1]

    @property
    def is_asked(self) -> bool:
        """Whether one more has connected within a moment."""
        self.listener.settimeout(0.2)
        try:
            self.accept()
        except TimeoutError:
            return False
        finally:
            self.listener.settimeout(10)
        return True

    def close(self) -> None:
        self.listener.close()
        for wire in self.accepted:
            wire.close()


@contextmanager
def origin() -> Iterator[Origin]:
    one = Origin()
    try:
        yield one
    finally:
        one.close()


def free_port() -> int:
    """One on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """A server process, once it listens."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, command
                try:
                    process.wait(0.05)
                except subprocess.TimeoutExpired:
                    pass
        yield port
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def python_httpd(folder: Path) -> Iterator[int]:
    port = free_port()
    where = ["--bind", "127.0.0.1", "--directory", str(folder)]
    with running([sys.executable, "-m", "http.server", str(port), *where], port) as port:
        yield port


@contextmanager
def busybox_httpd(folder: Path) -> Iterator[int]:
    port = free_port()
    with running(
        ["busybox", "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", str(folder)], port
    ) as port:
        yield port


_ECHO = """
import asyncio, sys
from websockets.asyncio.server import serve

async def echo(connection):
    async for message in connection:
        await connection.send(message)

async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=None, ping_interval=None):
        await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""


@contextmanager
def websocket_echo() -> Iterator[int]:
    port = free_port()
    with running([sys.executable, "-c", _ECHO, str(port)], port) as port:
        yield port
