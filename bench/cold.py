"""What is done otherwise for a server that is seldom asked: it is started when somebody comes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define

from bench.house import run_well
from bench.python_image import PYTHON
from bench.rivals import free_port
from bench.wire import Wrong

_LATE = 20.0
# Of http.server, with a socket that is there already (sd_listen_fds(3)).
_ACTIVATED = """\
import http.server, socket, sys
server = http.server.ThreadingHTTPServer(
    ("", 0), http.server.SimpleHTTPRequestHandler, bind_and_activate=False
)
server.socket = socket.socket(fileno=int(sys.argv[1]))
server.server_name, server.server_port = "localhost", 0
server.serve_forever()
"""


def first_byte(port: int, host: str) -> tuple[float, bytes]:
    """Seconds from the first step to the first byte of the answer, and how that begins."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        return _answer(connection, host, began)


def _answer(connection: socket.socket, host: str, began: float) -> tuple[float, bytes]:
    connection.settimeout(30)
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    begin = connection.recv(65536)
    seconds = time.perf_counter() - began
    if begin[9:12] != b"200":
        raise Wrong(f"{host}: {begin[:200]!r}")
    while connection.recv(65536):
        pass
    return seconds, begin


def activated(folder: Path) -> float:
    """As systemd does it: it listens, and starts the server when a client has come."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began = time.perf_counter()
        with socket.create_connection(listener.getsockname(), 30) as connection:
            number = listener.fileno()
            server = subprocess.Popen(
                [PYTHON, "-c", _ACTIVATED, str(number)],
                pass_fds=[number],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                return _answer(connection, "localhost", began)[0]
            finally:
                server.kill()
                server.wait()


@define(eq=False)
class Bundle:
    """
    For C{runc run}: a container without a network of its own, from the same files.

    @ivar folder: where its configuration is.
    """

    folder: Path
    port: int

    @classmethod
    @contextmanager
    def made(cls, folder: Path, root: Path, command: Sequence[str]) -> Iterator[Bundle]:
        """@param command: in which C{PORT} stands for that."""
        folder.mkdir()
        port = free_port()
        run_well("runc", "spec", "-b", str(folder))
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config["root"] = {"path": str(root), "readonly": True}
        config["process"]["terminal"] = False
        config["process"]["args"] = [word.replace("PORT", str(port)) for word in command]
        namespaces = config["linux"]["namespaces"]
        config["linux"]["namespaces"] = [one for one in namespaces if one["type"] != "network"]
        path.write_text(json.dumps(config))
        bundle = cls(folder, port)
        try:
            yield bundle
        finally:
            bundle._delete()

    @property
    def _name(self) -> str:
        return f"hoody-bench-{os.getpid()}-{self.port}"

    def first_byte(self) -> float:
        """Seconds from its start, and asked as soon as somebody listens."""
        began = time.perf_counter()
        run = subprocess.Popen(
            ["runc", "run", "-b", str(self.folder), self._name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while True:
                try:
                    connection = socket.create_connection(("127.0.0.1", self.port), 30)
                except ConnectionRefusedError:
                    if time.perf_counter() - began > _LATE or run.poll() is not None:
                        raise
                    time.sleep(0.001)
                else:
                    with connection:
                        return _answer(connection, "localhost", began)[0]
        finally:
            self._delete()
            run.wait()

    def _delete(self) -> None:
        subprocess.run(["runc", "delete", "-f", self._name], capture_output=True, check=False)
