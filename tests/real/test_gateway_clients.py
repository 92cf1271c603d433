"""The gateway with what people use: curl, browsers' protocols, servers as they are."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect

from hoody.protocols.answers import Chunked
from tests.support.gateway import Gateway, gateway
from tests.support.origins import (
    Accepted,
    busybox_httpd,
    free_port,
    origin,
    python_httpd,
    running,
    websocket_echo,
)

MIB = 1024 * 1024
FLAT = 24 * MIB
"""How much more memory the server may take, whatever passes."""
_names = (f"real{number}" for number in itertools.count())


@pytest.fixture(scope="module", params=[None, 1], ids=["portable", "kernel"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """What holds of answers holds whatever moves them."""
    with gateway(tmp_path_factory.mktemp("gateway"), splice=request.param, keep=0.2) as running:
        yield running


@pytest.fixture
def gate(shared: Gateway) -> Iterator[Gateway]:
    before = shared.ask("counts")
    yield shared
    shared.settle(before)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    folder.chmod(0o755)
    (folder / "small").write_bytes(b"hello\n")
    (folder / "large").write_bytes(bytes(range(256)) * (4 * 1024 * 8))
    cgi = folder / "cgi-bin"
    cgi.mkdir()
    (cgi / "env").write_text("#!/bin/sh\necho Content-Type: text/plain\necho\nenv; cat\n")
    (cgi / "env").chmod(0o755)
    return folder


def curl(gate: Gateway, host: str, path: str, *more: str, port: int | None = None) -> str:
    where = f"{host}:80:127.0.0.1:{port or gate.port}"
    command = ["curl", "-sS", "-m", "60", "--connect-to", where, *more, f"http://{host}{path}"]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode()


def test_python_s_http_server(gate: Gateway, files: Path, tmp_path: Path) -> None:
    with python_httpd(files) as port:
        host = gate.has(next(_names), port)
        assert curl(gate, host, "/small") == "hello\n"
        assert "Server: SimpleHTTP" in curl(gate, host, "/small", "-I")
        assert curl(gate, host, "/nothing", "-o", "/dev/null", "-w", "%{http_code}") == "404"
        assert curl(gate, host, "/cgi-bin", "-w", "%{redirect_url}").endswith("/cgi-bin/")
        curl(gate, host, "/large", "-o", str(tmp_path / "got"))
        assert (tmp_path / "got").read_bytes() == (files / "large").read_bytes()


@pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is not installed")
def test_busybox_httpd_and_what_its_programs_see(gate: Gateway, files: Path) -> None:
    with busybox_httpd(files) as port:
        host = gate.has(next(_names), port)
        assert curl(gate, host, "/small") == "hello\n"
        assert curl(gate, host, "/small", "-r", "1-2") == "el"
        digest = hashlib.sha256(curl_bytes(gate, host, "/large")).digest()
        assert digest == hashlib.sha256((files / "large").read_bytes()).digest()
        seen = curl(
            gate,
            host,
            "/cgi-bin/env?a=b",
            "-d",
            "the body",
            "-H",
            "X_Forwarded_For: 6.6.6.6",
            "-H",
            "Proxy: 6.6.6.6",
        )
        assert "QUERY_STRING=a=b" in seen
        assert "HTTP_X_FORWARDED_FOR=127.0.0.1" in seen
        assert "6.6.6.6" not in seen
        assert seen.endswith("the body")


def curl_bytes(gate: Gateway, host: str, path: str) -> bytes:
    where = f"{host}:80:127.0.0.1:{gate.port}"
    command = ["curl", "-sS", "-m", "60", "--connect-to", where, f"http://{host}{path}"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def test_a_websocket(gate: Gateway) -> None:
    with websocket_echo() as port:
        host = gate.has(next(_names), port)
        with (
            socket.create_connection((gate.host, gate.port)) as sock,
            connect(f"ws://{host}/", sock=sock, max_size=None) as websocket,
        ):
            for message in ("hello", b"\x00\xff", "x" * 3_000_000, ""):
                websocket.send(message)
                assert websocket.recv(10) == message
            assert websocket.ping().wait(10)


def test_a_websocket_may_be_silent_for_longer_than_any_time_out(gate: Gateway) -> None:
    """The gateway here lets idle connections be for 2 s."""
    with websocket_echo() as port:
        host = gate.has(next(_names), port)
        with (
            socket.create_connection((gate.host, gate.port)) as sock,
            connect(f"ws://{host}/", sock=sock, ping_interval=None) as websocket,
        ):
            with pytest.raises(TimeoutError):
                websocket.recv(3.5)
            websocket.send("still here")
            assert websocket.recv(10) == "still here"
            websocket.close()
            with pytest.raises(ConnectionClosedOK):
                websocket.recv(10)


def test_under_tls(gate: Gateway, files: Path, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=str(gate.folder / "cert.pem"))
    context.check_hostname = False
    with python_httpd(files) as httpd, websocket_echo() as websockets, origin() as box:
        host = gate.has(next(_names), httpd)
        where = f"{host}:443:127.0.0.1:{gate.tls_port}"
        command = ["curl", "-sSk", "-m", "60", "--connect-to", where, f"https://{host}/large"]
        got = subprocess.run(command, capture_output=True, check=True).stdout
        assert got == (files / "large").read_bytes()
        host = gate.has(next(_names), websockets)
        with (
            socket.create_connection((gate.host, gate.tls_port)) as sock,
            connect(
                f"wss://{host}/", sock=sock, ssl=context, server_hostname=host, max_size=None
            ) as websocket,
        ):
            websocket.send("x" * 3_000_000)
            assert websocket.recv(10) == "x" * 3_000_000
        answered = threading.Thread(target=_answer, args=(box.accept,))
        answered.start()
        host = gate.has(next(_names), box.port)
        where = f"{host}:443:127.0.0.1:{gate.tls_port}"
        command = ["curl", "-sSk", "-m", "60", "--connect-to", where, f"https://{host}/"]
        seen = subprocess.run(command, capture_output=True, check=True).stdout.decode()
        answered.join()
        assert "X-Forwarded-Proto: https\r\n" in seen
        assert "X-Forwarded-Port: 443\r\n" in seen
        assert f'for=127.0.0.1;host="{host}";proto=https\r\n' in seen


HAPROXY = """
global
    maxconn 100
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout tunnel 30s
frontend plain
    bind 127.0.0.1:{port}
    default_backend plain
backend plain
    server one 127.0.0.1:{plain}
frontend proxied
    bind 127.0.0.1:{proxied}
    default_backend proxied
backend proxied
    server one 127.0.0.1:{behind} send-proxy
"""


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed")
def test_behind_haproxy(gate: Gateway, files: Path, tmp_path: Path) -> None:
    ports = {"port": free_port(), "proxied": free_port()}
    config = tmp_path / "haproxy.cfg"
    config.write_text(HAPROXY.format(**ports, plain=gate.port, behind=gate.haproxy_port))
    command = ["haproxy", "-db", "-f", str(config)]
    with (
        running(command, ports["port"]),
        python_httpd(files) as httpd,
        websocket_echo() as websockets,
        origin() as box,
    ):
        host = gate.has(next(_names), httpd)
        for port in ports.values():
            assert curl(gate, host, "/small", port=port) == "hello\n"
            curl(gate, host, "/large", "-o", str(tmp_path / "got"), port=port)
            assert (tmp_path / "got").read_bytes() == (files / "large").read_bytes()
            with (
                socket.create_connection(("127.0.0.1", port)) as sock,
                connect(f"ws://{gate.has(next(_names), websockets)}/", sock=sock) as websocket,
            ):
                websocket.send("through two")
                assert websocket.recv(10) == "through two"
        # By the PROXY protocol we know whose it is; by a header we believe nothing.
        host = gate.has(next(_names), box.port)
        for port in ports.values():
            answered = threading.Thread(target=_answer, args=(box.accept,))
            answered.start()
            spoofed = ["-H", "X-Forwarded-For: 6.6.6.6", "--interface", "127.0.0.2"]
            seen = curl(gate, host, "/", *spoofed, port=port)
            answered.join()
            expected = "127.0.0.2" if port == ports["proxied"] else "127.0.0.1"
            assert f"X-Forwarded-For: {expected}\r\n" in seen


def _answer(accept: Callable[[], Accepted]) -> None:
    server = accept()
    head = server.request()
    server.respond(f"Content-Length: {len(head)}", "Connection: close", body=head)


# Large streams


def _pass_up_and_down(gate: Gateway, size: int, length: bool) -> None:
    """Echo C{size} bytes, drawn from one piece, and watch the memory."""
    piece = bytes(range(256)) * 4096
    count = size // len(piece)
    for up in (True, False):
        with origin() as box:
            host = gate.has(next(_names), box.port)
            gate.forget_peak()
            before = gate.resident("VmRSS")
            with socket.create_connection((gate.host, gate.port), 30) as client:
                head = f"{'PUT' if up else 'GET'} / HTTP/1.1\r\nHost: {host}\r\n"
                framing = f"Content-Length: {count * len(piece)}\r\n"
                framing = framing if length else "Transfer-Encoding: chunked\r\n"
                client.sendall(f"{head}{framing if up else ''}\r\n".encode())
                server = box.accept()
                server.request()
                if not up:
                    server.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n".encode())
                source, sink = (client, server.socket) if up else (server.socket, client)
                sent = threading.Thread(target=_send, args=(source, piece, count, length))
                sent.start()
                got = server.buffer if up else b""
                total = _content(sink, got, count * len(piece), length, skip_head=not up)
                sent.join()
                assert total == count * len(piece)
                if up:
                    server.respond("Content-Length: 0")
                    assert client.recv(100).startswith(b"HTTP/1.1 200")
            assert gate.resident() - before < FLAT


def _send(sock: socket.socket, piece: bytes, count: int, length: bool) -> None:
    framed = piece if length else b"%x\r\n%b\r\n" % (len(piece), piece)
    for _ in range(count):
        sock.sendall(framed)
    if not length:
        sock.sendall(b"0\r\n\r\n")


def _content(
    sock: socket.socket, buffer: bytes, wanted: int, length: bool, *, skip_head: bool
) -> int:
    """How much content comes; of chunks, what stands between them is taken out."""
    while skip_head and b"\r\n\r\n" not in buffer:
        buffer += sock.recv(65536)
    if skip_head:
        buffer = buffer.partition(b"\r\n\r\n")[2]
    if length:
        total = len(buffer)
        while total < wanted:
            data = sock.recv(MIB)
            assert data
            total += len(data)
        return total
    body, total = Chunked(), 0
    if buffer:
        total += len(body.feed(buffer))
    while not body.ended:
        data = sock.recv(MIB)
        assert data
        total += len(body.feed(data))
    return total


@pytest.mark.parametrize("length", [True, False], ids=["length", "chunks"])
def test_large_streams_pass_with_flat_memory(gate: Gateway, length: bool) -> None:
    _pass_up_and_down(gate, 200 * MIB, length)


@pytest.mark.long
def test_10_gb_pass_with_flat_memory(gate: Gateway) -> None:
    _pass_up_and_down(gate, 10 * 1024 * MIB, True)
