"""Clients that mean no good, or do not know better: what one can do, it does to itself."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.support.server import Server
from tests.support.wire import Wire

MIB = 1 << 20


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xb0\x80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/v1/pipe/help HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a b\r\n\r\n",
    ],
)
def test_what_is_not_utf8_is_answered(server: Server, request_bytes: bytes) -> None:
    with Wire(server) as wire:
        assert wire.send(request_bytes).answer().status == 400


def test_receivers_pipelined_on_one_path_each_have_their_turn(serve: Serve, name: str) -> None:
    server = serve("--pipe-ttl=300ms")
    request = f"GET /api/v1/pipe/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with Wire(server) as wire:
        wire.send(request * 3)
        assert [wire.answer().status for _ in range(3)] == [408] * 3


def test_a_receiver_pipelined_behind_one_that_a_form_failed_keeps_no_place(
    server: Server, name: str
) -> None:
    request = f"GET /api/v1/pipe/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    for _ in range(3):
        with Wire(server) as receiver, Wire(server) as sender:
            receiver.send(request * 2)
            server.waiting(1)
            sender.put(name, "Content-Type: multipart/form-data; boundary=b", "Content-Length: 9")
            sender.send(b"--b--\r\n\r\n")
            assert sender.answer().status == 400
            assert receiver.answer().status == 500
            server.waiting(1)
        server.waiting(0)


def test_a_half_close_behind_many_last_chunks_frees_its_place(server: Server, name: str) -> None:
    with Wire(server) as wire:
        wire.put(name, "Transfer-Encoding: chunked").send(b"20000\r\n" + b"0\r\n" * 23000)
        wire.half_close()
        server.waiting(0)


def test_who_sends_but_does_not_read_is_not_read_from(server: Server, name: str) -> None:
    """A stalled receiver that sends on, and one that asks again and again without reading."""
    with Wire(server) as sender, Wire(server) as receiver:
        receiver.get(name)
        sender.put(name, f"Content-Length: {1 << 40}")
        sender.read_line("[INFO] Streaming to 1 receiver(s)...")
        push(sender, b"x" * MIB)
        before = server.resident("VmRSS")
        assert push(receiver, b"x" * MIB) < 64 * MIB
        assert server.resident("VmRSS") - before < 8 * MIB
        receiver.reset()
        sender.reset()
    with Wire(server) as wire:
        before = server.resident("VmRSS")
        request = b"GET /api/v1/pipe/help HTTP/1.1\r\nHost: x\r\n\r\n"
        assert push(wire, request * 1000) < 64 * MIB
        assert server.resident("VmRSS") - before < 16 * MIB
        wire.reset()


def push(wire: Wire, data: bytes) -> int:
    """Send until nothing is taken for a second; how much was."""
    wire.socket.settimeout(1)
    sent = 0
    with contextlib.suppress(TimeoutError, ConnectionError):
        while sent < 200 * MIB:
            sent += wire.socket.send(data)
    return sent


def test_many_requests_in_one_segment_let_others_through(server: Server, name: str) -> None:
    many = 1500
    request = f"GET /api/v1/pipe/version?{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with Wire(server) as wire, Wire(server) as other:
        wire.send(request * many)
        assert wire.answer().status == 200
        other.get(f"help?{name}").answer()
        for _ in range(many - 1):
            assert wire.answer().status == 200

    def order() -> list[str]:
        targets = (str(event.get("target", "")) for event in server.events)
        return [target for target in targets if target.endswith(name)]

    server.wait_for(lambda _: len(order()) == many + 1)
    assert "help" not in order()[-1], "it had to wait for all of them"


def test_a_request_behind_a_small_body_is_answered(server: Server) -> None:
    with Wire(server) as wire:
        first = b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
        wire.send(first + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [wire.answer().status for _ in range(2)] == [200, 200]


def test_requests_before_a_half_close_are_all_answered(server: Server) -> None:
    with Wire(server) as wire:
        wire.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 3).half_close()
        assert [wire.answer().status for _ in range(3)] == [200] * 3
        assert wire.read_all() == b""


def test_an_idle_client_that_has_not_read_its_answers_is_cut(serve: Serve) -> None:
    server = serve("--idle-timeout=300ms")
    with Wire(server) as wire:
        push(wire, b"GET /api/v1/pipe/help HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        server.wait_until(lambda counts: counts.connections == 1)


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Server]:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-nodes", "-newkey", "ec"]
    curve = ["-pkeyopt", "ec_paramgen_curve:prime256v1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", *subject, *curve, *files], check=True, capture_output=True
    )
    listen = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
    with Server(tmp_path / "data", "--idle-timeout=500ms", listen=listen) as server:
        yield server


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUT /api/v1/pipe/a?n=0 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
    ],
)
def test_idle_and_refused_tls_connections_are_closed(tls: Server, data: bytes) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection((tls.host, tls.port), 10)
    with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
        if data:
            wrapped.sendall(data)
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            while wrapped.recv(65536):
                pass


def test_http_1_0_over_tls(tls: Server, name: str) -> None:
    command = ["curl", "-sk", "--http1.0", f"https://localhost:{tls.port}/api/v1/pipe/version"]
    assert subprocess.run(command, capture_output=True, check=True).stdout.startswith(b"hoody ")


def test_a_tls_sender_whose_receiver_breaks_off_is_closed(tls: Server, name: str) -> None:
    url = f"https://localhost:{tls.port}/api/v1/pipe/{name}"
    receiver = subprocess.Popen(["curl", "-sk", "--limit-rate", "1k", "-o", "/dev/null", url])
    sender = subprocess.Popen(
        f"head -c 20M /dev/zero | curl -sk -T - {url}", shell=True, stdout=subprocess.PIPE
    )
    time.sleep(1.5)
    receiver.kill()
    receiver.wait()
    assert b"[ERROR]" in sender.communicate(timeout=20)[0]
    assert sender.returncode != 0


PART = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\nhello'


def test_a_form_malformed_behind_its_file_is_told_so(server: Server, name: str) -> None:
    body = PART + b"\r\n--b\r\nno colon\r\n\r\n"
    with Wire(server) as sender, Wire(server) as receiver:
        receiver.get(name)
        server.waiting(1)
        sender.put(name, "Content-Type: multipart/form-data; boundary=b", "Content-Length: 999")
        sender.send(body)
        assert receiver.answer().body == b"hello"
        assert b"[ERROR]" in sender.read_all()


def test_a_form_cut_within_its_file_while_it_waits_is_told_so(server: Server, name: str) -> None:
    with Wire(server) as sender:
        head = f"PUT /api/v1/pipe/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PART)}\r\n"
        sender.send(
            head.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + PART
        )
        assert b"[ERROR] The form ends within its file" in sender.read_all()
    server.waiting(0)


def test_a_forms_file_keeps_its_charset(server: Server, name: str) -> None:
    part = PART.replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain; charset=koi8-r\r\n\r\n")
    body = part + b"\r\n--b--\r\n"
    with Wire(server) as sender, Wire(server) as receiver:
        receiver.get(name)
        content_type = "Content-Type: multipart/form-data; boundary=b"
        sender.put(name, content_type, f"Content-Length: {len(body)}").send(body)
        assert receiver.answer().headers["content-type"] == "text/plain; charset=koi8-r"


def test_a_small_sender_that_half_closes_waits_and_one_that_closes_does_not(
    server: Server, name: str
) -> None:
    """In one segment and in two; the difference shows by a line that a closed one resets."""
    head = f"PUT /api/v1/pipe/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n".encode()
    for pieces in ([head + b"hello"], [head, b"hello"]):
        with Wire(server) as sender, Wire(server) as receiver:
            for piece in pieces:
                sender.send(piece)
                time.sleep(0.1)
            sender.half_close()
            time.sleep(0.3)
            assert receiver.get(name).answer().body == b"hello"
            assert sender.answer().text.endswith("[INFO] Transfer complete.\n")
        with Wire(server) as sender:
            for piece in pieces:
                sender.send(piece)
                time.sleep(0.1)
        server.waiting(0)


def test_an_upload_to_nowhere_is_refused_before_it_is_sent(server: Server) -> None:
    for path, status in (("/nothing", 404), ("/health", 405), ("/api/v1/nothing", 404)):
        with Wire(server) as wire:
            wire.send(
                f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
                "Expect: 100-continue\r\n\r\n".encode()
            )
            answer = wire.answer()
            assert (answer.status, answer.headers["connection"]) == (status, "close")


def test_a_unix_receiver_that_leaves_without_reading_is_no_success(
    tmp_path: Path, name: str, mover: str
) -> None:
    path = tmp_path / "socket"
    with Server(tmp_path / "data", mover, f"--listen=unix:{path}") as server:
        server.wait_for(lambda event: event["message"].startswith(f"listening on {path}"))
        receiver = socket.socket(socket.AF_UNIX)
        receiver.connect(str(path))
        receiver.sendall(f"GET /api/v1/pipe/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        server.waiting(1)
        with Wire(server) as sender:
            sender.put(name, "Content-Length: 5").send(b"hello")
            sender.read_line("[INFO] Upload complete.")
            time.sleep(0.3)
            receiver.close()
            assert b"Transfer complete." not in sender.read_all()


def test_who_took_part_in_a_pipe_and_half_closes_later_is_answered_like_others(
    server: Server, name: str
) -> None:
    with Wire(server) as receiver, Wire(server) as sender:
        receiver.get(name)
        sender.put(name, "Content-Length: 5").send(b"hello")
        assert receiver.answer().body == b"hello"
        assert sender.answer().status == 200
        for wire in (sender, receiver):
            wire.get("version").half_close()
            assert wire.answer().status == 200


@pytest.mark.parametrize("before", [0, 3])
def test_a_peer_that_hangs_up_on_a_kept_connection_is_noticed(
    server: Server, name: str, before: int
) -> None:
    """Its first pipe or its fourth: a waiting receiver that leaves is one no more."""
    with Wire(server) as receiver, Wire(server) as sender:
        for number in range(before):
            receiver.get(f"{name}-{number}")
            sender.put(f"{name}-{number}", "Content-Length: 5").send(b"hello")
            assert receiver.answer().body == b"hello"
            assert sender.answer().status == 200
        sender.put(name, "Transfer-Encoding: chunked").chunk(b"x" * 1000)
        server.waiting(1)
        sender.close()
        server.waiting(0)


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_an_urgent_byte_does_not_stop_a_pipe(server: Server, name: str, framing: str) -> None:
    """splice(2) does not go past one; recv(2) leaves it out (tcp(7))."""
    data = b"x" * 100_000
    head = "Transfer-Encoding: chunked" if framing == "chunked" else "Content-Length: 200000"
    with Wire(server) as receiver, Wire(server) as sender:
        receiver.get(name)
        sender.put(name, head).read_until(b"[INFO] Streaming")
        for last in (False, True):
            if framing == "chunked":
                sender.send(b"%x\r\n" % len(data))
            sender.send(data[:50_000])
            sender.socket.send(b"!", socket.MSG_OOB)
            sender.send(data[50_000:] + (b"\r\n" if framing == "chunked" else b""))
            if last and framing == "chunked":
                sender.last_chunk()
        answer = receiver.answer()
        assert answer.body == data * 2
        assert answer.whole


def test_a_sender_that_changes_its_file_while_it_is_sent_cannot_change_framing(
    server: Server, name: str, tmp_path: Path
) -> None:
    """
    Over loopback sendfile(2) sends the pages of the file themselves, and the
    kernel's mover passes them on: what is written to the file later arrives.
    """
    chunk = b"%06x\r\n%s\r\n" % (60_000, b"x" * 60_000)
    path = tmp_path / "file"
    path.write_bytes(chunk * 100)
    with Wire(server) as receiver, Wire(server) as sender, path.open("r+b") as file:
        receiver.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        receiver.get(name)
        sender.put(name, "Transfer-Encoding: chunked").read_until(b"[INFO] Streaming")
        receiver.read_until(b"\r\n\r\n")
        sender.socket.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            sender.socket.sendfile(file)
        file.seek(0)
        file.write(b"0\r\n\r\nSMUGGLED" * (len(chunk) * 100 // 13))
        file.flush()
        sender.half_close()
        raw = receiver.buffer + receiver.read_all()
    while size := re.match(rb"(?:\r\n)?([0-9a-f]+)\r\n", raw):
        assert int(size[1], 16) > 0
        raw = raw[size.end() + int(size[1], 16) :]
    assert len(raw) < 20  # else what stands between two chunks is no size line
