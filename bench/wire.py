"""A small HTTP client on a bare socket: its own time must not be what is measured."""

from __future__ import annotations

import re
import socket
from types import TracebackType
from typing import Protocol, Self

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_TIMEOUT = 30


class Wrong(Exception):
    """An answer that is not what it has to be; the run is none."""


def request(method: str, path: str, *headers: str, host: str = "127.0.0.1") -> bytes:
    """A request's head, with what curl would send, too."""
    common = (f"Host: {host}", "User-Agent: curl/7.88.1", "Accept: */*")
    return "\r\n".join([f"{method} {path} HTTP/1.1", *common, *headers, "", ""]).encode()


class Listening(Protocol):
    """Whatever can be connected to."""

    @property
    def port(self) -> int: ...


class Connection:
    """A connection that is kept; where the server closes, the next request opens another."""

    def __init__(self, server: Listening) -> None:
        self._address = ("127.0.0.1", server.port)
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._left = 0
        self._chunked = False
        self._closes = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it; a request may still follow, on another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, data: bytes) -> None:
        """A request, or more of one."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, _TIMEOUT)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._buffer = b""
        self._socket.sendall(data)

    def status(self) -> int:
        """Read the next answer's head."""
        head = b"HTTP/1.1 1"
        while head.startswith(b"HTTP/1.1 1"):
            head = self._until(b"\r\n\r\n")
        length = _LENGTH.search(head)
        self._chunked = _CHUNKED.search(head) is not None
        if not self._chunked and length is None:
            raise Wrong(f"an answer without an end: {head!r}")
        self._left = int(length[1]) if length else 0
        self._closes = _CLOSE.search(head) is not None
        return int(head[9:12])

    def piece(self) -> bytes:
        """As much of the body as is there, at least a byte; nothing at its end."""
        if not self._left and self._chunked:
            # The line behind a chunk's data is empty.
            self._left = int(self._until(b"\r\n") or self._until(b"\r\n"), 16)
            if not self._left:
                self._until(b"\r\n")
                self._chunked = False
        if not self._left:
            if self._closes:
                self.close()
            return b""
        if not self._buffer:
            self._more()
        data, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._left -= len(data)
        return data

    def answer(self) -> tuple[int, bytes]:
        """Read the next answer. @return: its status and its whole body."""
        return self.status(), b"".join(iter(self.piece, b""))

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._more()
        data, _, self._buffer = self._buffer.partition(end)
        return data

    def _more(self) -> None:
        assert self._socket is not None
        data = self._socket.recv(65536)
        if not data:
            raise Wrong(f"the server closed amid an answer, after {self._buffer!r}")
        self._buffer += data
