"""A client that sends and reads bytes as a test says, and no others."""

from __future__ import annotations

import re
import socket
import struct
import time
from types import TracebackType
from typing import Protocol, Self

from attrs import frozen


@frozen
class Answer:
    """
    @ivar ended: how the connection was after it: C{"open"} (its own end was
        seen), C{"closed"} or C{"reset"}.
    @ivar whole: whether its own framing says that it is complete.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool
    ended: str

    @property
    def text(self) -> str:
        return self.body.decode()


class Listening(Protocol):
    """Whatever can be connected to."""

    host: str
    port: int


class Wire:
    """One connection."""

    def __init__(self, server: Listening, timeout: float = 10) -> None:
        self.host = server.host
        self.socket = socket.create_connection((server.host, server.port), timeout)
        self.timeout = timeout
        self.buffer = b""
        self.pending = b""
        self.ended = "open"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, data: bytes) -> Self:
        data, self.pending = self.pending + data, b""
        self.socket.sendall(data)
        return self

    def put(self, name: str, *headers: str, method: str = "PUT", version: str = "1.1") -> Self:
        """The head of an upload."""
        lines = [f"{method} /api/v1/pipe/{name} HTTP/{version}", "Host: localhost", *headers]
        return self.send("\r\n".join([*lines, "", ""]).encode())

    def get(self, name: str, *headers: str, version: str = "1.1") -> Self:
        return self.put(name, *headers, method="GET", version=version)

    def chunk(self, data: bytes) -> Self:
        return self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def last_chunk(self) -> Self:
        return self.send(b"0\r\n\r\n")

    def more(self) -> bool:
        """Read some; C{False} at the end."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            self.ended = "reset"
            return False
        if not data:
            self.ended = "closed"
            return False
        self.buffer += data
        return True

    def read_until(self, wanted: bytes) -> bytes:
        """Everything up to and with C{wanted}."""
        while wanted not in self.buffer:
            assert self.more(), f"{self.ended} after {self.buffer!r}"
        head, _, self.buffer = self.buffer.partition(wanted)
        return head + wanted

    def read_all(self) -> bytes:
        """Everything up to the connection's end."""
        while self.more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def head(self) -> Answer:
        """The next answer's head; its body is left to be read."""
        lines = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return Answer(int(lines[0].split()[1]), headers, b"", False, self.ended)

    def answer(self, *, bodiless: bool = False) -> Answer:
        """The next answer, as much of it as comes."""
        head = self.head()
        if bodiless:
            return head
        if head.headers.get("transfer-encoding") == "chunked":
            body, whole = self._chunks()
        elif "content-length" in head.headers:
            length = int(head.headers["content-length"])
            while len(self.buffer) < length and self.more():
                pass
            body, self.buffer = self.buffer[:length], self.buffer[length:]
            whole = len(body) == length
        else:
            body = self.read_all()
            whole = self.ended == "closed"
        return Answer(head.status, head.headers, body, whole, self.ended)

    def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        while True:
            while (match := re.match(rb"([0-9A-Fa-f]+)\r\n", self.buffer)) is None:
                if not self.more():
                    return body, False
            size = int(match[1], 16)
            if size == 0:
                while b"\r\n\r\n" not in self.buffer:
                    if not self.more():
                        return body, False
                self.trailers = self.buffer[match.end() : self.buffer.index(b"\r\n\r\n") + 2]
                self.buffer = self.buffer.partition(b"\r\n\r\n")[2]
                return body, True
            while len(self.buffer) < match.end() + size + 2:
                if not self.more():
                    return body + self.buffer[match.end() :], False
            body += self.buffer[match.end() : match.end() + size]
            self.buffer = self.buffer[match.end() + size + 2 :]

    def read_line(self, wanted: str) -> None:
        """Return when a sender has been told this line."""
        self.read_until(wanted.encode() + b"\n")

    def half_close(self) -> Self:
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def reset(self) -> None:
        """End with a RST, as a killed program with unread data does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


def fill(wire: Wire, data: bytes = b"x" * 65536, seconds: float = 1.0) -> int:
    """
    Send whole chunks until the peer takes no more.

    @return: bytes of body sent, with those of the last chunk that did not fit;
        they go out with the next L{Wire.send}.
    """
    framed = b"%x\r\n%s\r\n" % (len(data), data)
    wire.socket.settimeout(seconds)
    sent = 0
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            sent += len(data)
            wire.pending = framed
            while wire.pending:
                wire.pending = wire.pending[wire.socket.send(wire.pending) :]
    except TimeoutError:
        return sent
    finally:
        wire.socket.settimeout(wire.timeout)
    raise AssertionError("nothing ever pushed back")
