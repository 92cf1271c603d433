"""
The bare sink: takes any upload and throws it away. Run as C{sink.py PORT}.

It copies what comes into 100 KiB of its own memory, as C{curl -o /dev/null} does,
and reads the sizes of the chunks, as curl must. So a pipe's receiver and the sink
do the same work, and what a pipe takes longer is the pipe's. MSG_TRUNC would spare
the copy, which no receiver can; measured, it is no faster than this, nor is a
larger buffer: the sending curl is what holds it up.
"""

from __future__ import annotations

import re
import socket
import sys

_BUFFER = 102400


class _Gone(Exception):
    """The client left before its body's end."""


class _Body:
    """What one connection sends, through one buffer."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._held = 0

    def head(self) -> bytes:
        """The request's head; what has come behind it is kept."""
        while (end := self._buffer.find(b"\r\n\r\n", 0, self._held)) < 0:
            self._more()
        head = bytes(self._view[:end])
        self._drop(end + 4)
        return head

    def plain(self, length: int) -> int:
        """Throw a body of so many bytes away."""
        left = length - self._held
        while left > 0:
            self._held = 0
            left -= self._more()
        return length - left

    def chunked(self) -> int:
        """Throw a chunked body away. @return: its bytes, without the framing."""
        total = at = 0
        while True:
            # Beyond what is held while a chunk's data comes: find() sees nothing then.
            end = self._buffer.find(b"\r\n", at, self._held)
            if end >= 0:
                size = int(self._buffer[at:end], 16)
                if size == 0:
                    return total
                total += size
                at = end + 2 + size + 2
            else:
                at -= self._drop(at)
                self._more()

    def rest(self) -> None:
        """Read on until the client closes: to close with bytes unread would reset."""
        self._held = 0
        try:
            while self._more():
                self._held = 0
        except (_Gone, ConnectionError):
            pass

    def _more(self) -> int:
        count = self._socket.recv_into(self._view[self._held :])
        if not count:
            raise _Gone
        self._held += count
        return count

    def _drop(self, count: int) -> int:
        count = min(count, self._held)
        self._view[: self._held - count] = bytes(self._view[count : self._held])
        self._held -= count
        return count


def _take(connection: socket.socket) -> None:
    body = _Body(connection)
    head = body.head().lower()
    if b"\r\nexpect: 100-continue" in head:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *([0-9]+)", head)
    count = body.plain(int(length[1])) if length else body.chunked()
    answer = b"%d\n" % count
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
        % (len(answer), answer)
    )
    connection.shutdown(socket.SHUT_WR)
    body.rest()


def main() -> None:
    """Serve one connection after the other, for ever."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    _take(connection)
                except (_Gone, ConnectionError):
                    pass


if __name__ == "__main__":
    main()
