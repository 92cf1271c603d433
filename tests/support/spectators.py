"""Reading what a pipe's spectators are told."""

from __future__ import annotations

import json
import re
import socket
from typing import Any, Self

from attrs import frozen

from tests.support.server import Server
from tests.support.wire import Wire


@frozen
class Told:
    """One server-sent event."""

    id: str
    name: str
    data: dict[str, Any]


class Spectator:
    """One open stream; C{head} is that of its answer."""

    def __init__(
        self, server: Server, path: str, *headers: str, seconds: float = 10, buffer: int = 0
    ) -> None:
        self.wire = Wire(server, timeout=seconds)
        if buffer:
            self.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.wire.get(f"{path}?progress", "Accept: text/event-stream", *headers)
        self.head = self.wire.head()
        self.comments = 0
        self._text = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()

    def next(self) -> Told:
        """The next event."""
        while True:
            lines = self._block().decode().splitlines()
            fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
            self.comments += len([line for line in lines if line.startswith(":")])
            if "data" in fields:
                return Told(fields["id"], fields["event"], json.loads(fields["data"]))

    def until(self, name: str, **wanted: object) -> list[Told]:
        """All up to the next of this name that says this."""
        told = [self.next()]
        while told[-1].name != name or any(told[-1].data[k] != v for k, v in wanted.items()):
            told.append(self.next())
        return told

    def rest(self) -> list[Told]:
        """All up to the stream's end."""
        told = []
        while True:
            try:
                told.append(self.next())
            except EOFError:
                return told

    def _block(self) -> bytes:
        while b"\n\n" not in self._text:
            self._text += self._chunk()
        block, _, self._text = self._text.partition(b"\n\n")
        return block

    def _chunk(self) -> bytes:
        wire = self.wire
        while (match := re.match(rb"([0-9a-fA-F]+)\r\n", wire.buffer)) is None or len(
            wire.buffer
        ) < match.end() + int(match[1], 16) + 2:
            if not wire.more():
                raise EOFError(wire.ended)
        size = int(match[1], 16)
        if size == 0:
            raise EOFError("whole")
        chunk = wire.buffer[match.end() : match.end() + size]
        wire.buffer = wire.buffer[match.end() + size + 2 :]
        return chunk
