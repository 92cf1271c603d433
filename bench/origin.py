"""
What stands in for a container: answers small requests, sends as much as it is asked for,
and takes any upload. Run as C{origin.py PORT}.

A thread a connection, and sendfile(2) for what is large, so that it is not what is measured.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
import threading

_SMALL = b"x" * 1024
_PIECE = 64 * 1024 * 1024


def _serve(connection: socket.socket, zeros: int) -> None:
    """One request after the other: C{/small}, C{/BYTES}, or a C{PUT} with a length."""
    buffer = bytearray(256 * 1024)
    data = b""
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            while b"\r\n\r\n" not in data:
                more = connection.recv(65536)
                if not more:
                    return
                data += more
            head, _, data = data.partition(b"\r\n\r\n")
            length = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
            if length is not None:
                if b"\r\nexpect" in head.lower():
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                left, data = int(length[1]) - len(data), b""
                while left > 0:
                    left -= connection.recv_into(buffer) or left
            size = re.match(rb"GET /(\d+)", head)
            if size is None:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + _SMALL)
            else:
                left = int(size[1])
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
                while left:
                    left -= os.sendfile(connection.fileno(), zeros, 0, min(left, _PIECE))


def _attend(connection: socket.socket, zeros: int) -> None:
    try:
        _serve(connection, zeros)
    except ConnectionError:
        pass


def main() -> None:
    """Serve for ever."""
    with tempfile.TemporaryFile() as file:
        file.truncate(_PIECE)
        with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128) as listener:
            while True:
                connection, _ = listener.accept()
                threading.Thread(
                    target=_attend, args=(connection, file.fileno()), daemon=True
                ).start()


if __name__ == "__main__":
    main()
