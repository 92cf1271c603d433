"""Programs that people have: each sends and receives a file whole."""

from __future__ import annotations

import ctypes
import hashlib
import http.client
import os
import select
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import treq
from pytest_twisted import ensureDeferred

from tests.support.server import Server
from tests.support.wire import Wire

DATA = hashlib.shake_128(b"a file").digest(3_000_000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a file.bin"
    path.write_bytes(DATA)
    return path


def receive_by_curl(url: str, *options: str) -> subprocess.Popen[bytes]:
    command = ["curl", "-sS", "--max-time", "30", *options, url]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


CURLS = {
    "chunked": ["-T", "-"],
    "chunked post": ["-X", "POST", "-T", "-"],
    "with a length": ["-T", "{file}"],
    "without Expect": ["-H", "Expect:", "-T", "{file}"],
    "with Expect": ["-H", "Expect: 100-continue", "-T", "{file}"],
    "by HTTP/1.0": ["--http1.0", "-T", "{file}"],
    "data": ["--data-binary", "@{file}"],
    "a form": ["-F", "field=first", "-F", "file=@{file}", "-F", "other=@{file}"],
    "a form without Expect": ["-H", "Expect:", "-F", "file=@{file}"],
}


@pytest.mark.parametrize("way", CURLS)
@pytest.mark.parametrize("http_1_0", [False, True])
@pytest.mark.parametrize("first", ["sender", "receiver"])
def test_curl(server: Server, name: str, file: Path, way: str, http_1_0: bool, first: str) -> None:
    url = f"{server.pipe}/{name}"
    options = [option.format(file=file) for option in CURLS[way]]
    send = ["curl", "-sS", "--max-time", "30", *options, url]
    old = ["--http1.0"] if http_1_0 else []
    with file.open("rb") as stdin:
        if first == "sender":
            sender = subprocess.Popen(send, stdin=stdin, stdout=subprocess.PIPE)
            server.waiting(1)
            receiver = receive_by_curl(url, *old)
        else:
            receiver = receive_by_curl(url, *old)
            server.waiting(1)
            sender = subprocess.Popen(send, stdin=stdin, stdout=subprocess.PIPE)
        got = receiver.communicate()[0]
        told = sender.communicate()[0]
    assert (sender.returncode, receiver.returncode) == (0, 0)
    assert got == DATA
    assert told.endswith(b"[INFO] Transfer complete.\n")


def test_a_form_sends_its_first_file_under_its_name(
    server: Server, name: str, file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_text("not me")
    receiver = receive_by_curl(f"{server.pipe}/{name}", "-i")
    server.waiting(1)
    form = ["-F", "a=b", "-F", f"x=@{file};type=image/svg+xml", "-F", f"y=@{other}"]
    sender = subprocess.Popen(["curl", "-sSo", "/dev/null", *form, f"{server.pipe}/{name}"])
    head, _, body = receiver.communicate()[0].partition(b"\r\n\r\n")
    assert sender.wait() == 0
    assert body == DATA
    assert b"Content-Type: text/plain\r\n" in head
    assert b'Content-Disposition: attachment; filename="a file.bin"' in head


@pytest.mark.parametrize("first", ["sender", "receiver"])
def test_a_form_without_a_file_is_400_to_it_and_500_to_its_receivers(
    server: Server, name: str, first: str
) -> None:
    with Wire(server) as receiver:
        if first == "receiver":
            receiver.get(name)
            server.waiting(1)
        sent = subprocess.run(
            ["curl", "-sS", "-i", "-F", "a=b", f"{server.pipe}/{name}"],
            check=True,
            capture_output=True,
        ).stdout
        assert sent.startswith(b"HTTP/1.1 400 ")
        assert b"[ERROR] The form has no file; send one" in sent
        if first == "receiver":
            answer = receiver.answer()
            assert answer.status == 500
            assert answer.text.startswith("[ERROR] The sender's form held no file")


def test_a_form_that_breaks_off_within_its_file_is_a_broken_body(
    server: Server, name: str
) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\nhello'
    for ending in (b"", b"\r\n--b"):
        with Wire(server) as sender, Wire(server) as receiver:
            receiver.get(name)
            server.waiting(1)
            body = part + ending
            length = len(body)
            sender.put(
                name, "Content-Type: multipart/form-data; boundary=b", f"Content-Length: {length}"
            ).send(body)
            answer = receiver.answer()
            assert not answer.whole
            assert b"[ERROR]" in sender.read_all()


def test_wget(server: Server, name: str, file: Path, tmp_path: Path) -> None:
    if shutil.which("wget") is None:
        pytest.skip("wget is missing")
    got = tmp_path / "got"
    url = f"{server.pipe}/{name}"
    receiver = subprocess.Popen(["wget", "-q", "-O", str(got), url])
    server.waiting(1)
    sent = subprocess.run(
        ["wget", "-q", "-O", "-", "--method=PUT", f"--body-file={file}", url],
        capture_output=True,
        check=True,
    )
    assert receiver.wait() == 0
    assert got.read_bytes() == DATA
    assert sent.stdout.endswith(b"[INFO] Transfer complete.\n")


def test_pythons_http_client(server: Server, name: str) -> None:
    got: list[bytes] = []

    def receive() -> None:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
        connection.request("GET", f"/api/v1/pipe/{name}")
        got.append(connection.getresponse().read())
        connection.close()

    receiver = threading.Thread(target=receive)
    receiver.start()
    server.waiting(1)
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    pieces = iter([DATA[:1000], DATA[1000:]])
    connection.request("PUT", f"/api/v1/pipe/{name}", body=pieces, encode_chunked=True)
    told = connection.getresponse().read()
    connection.close()
    receiver.join()
    assert got == [DATA]
    assert told.endswith(b"[INFO] Transfer complete.\n")


NODE = """
const [url, what] = process.argv.slice(1);
const chunks = async function* () { for (let i = 0; i < 30; i++) yield Buffer.alloc(100000, i); };
if (what === "receive") {
  const answer = await fetch(url);
  process.stdout.write(Buffer.from(await answer.arrayBuffer()));
} else {
  const answer = await fetch(url, { method: "PUT", body: chunks(), duplex: "half" });
  process.stdout.write(await answer.text());
}
"""


def test_nodes_fetch(server: Server, name: str) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is missing")
    command = ["node", "--input-type=module", "-e", NODE, "--", f"{server.pipe}/{name}"]
    receiver = subprocess.Popen([*command, "receive"], stdout=subprocess.PIPE)
    server.waiting(1)
    told = subprocess.run([*command, "send"], capture_output=True, check=True).stdout
    got = receiver.communicate()[0]
    assert got == b"".join(bytes([number]) * 100_000 for number in range(30))
    assert told.endswith(b"[INFO] Transfer complete.\n")


@ensureDeferred  # type: ignore[untyped-decorator]
async def test_treq(server: Server, name: str) -> None:
    url = f"{server.pipe}/{name}"
    receiving = treq.get(url, persistent=False)
    sending = treq.put(url, data=DATA, persistent=False)
    got = await (await receiving).content()
    told = await (await sending).text()
    assert got == DATA
    assert told.endswith("[INFO] Transfer complete.\n")


def test_netcat_style_one_shot_sender(server: Server, name: str) -> None:
    """A client that writes its request and half-closes, as C{nc -N} does."""
    with Wire(server) as receiver:
        receiver.get(name)
        server.waiting(1)
        with Wire(server) as sender:
            sender.put(name, "Content-Length: 5").send(b"hello").half_close()
            assert sender.answer().text.endswith("[INFO] Transfer complete.\n")
        assert receiver.answer().body == b"hello"


def test_many_small_messages_over_one_path(server: Server, name: str) -> None:
    """Clients in loops come back before the kernel has acknowledged the last byte."""
    rounds = 100

    def receive(got: list[bytes]) -> None:
        with Wire(server) as wire:
            for _ in range(rounds):
                got.append(wire.get(name).answer().body)

    got: list[bytes] = []
    receiver = threading.Thread(target=receive, args=(got,))
    receiver.start()
    with Wire(server) as wire:
        for number in range(rounds):
            server_says = wire.put(name, "Content-Length: 8").send(b"%08d" % number).answer()
            assert server_says.text.endswith("[INFO] Transfer complete.\n")
    receiver.join()
    assert got == [b"%08d" % number for number in range(rounds)]


def test_tls(serve_tls: Server, name: str, file: Path) -> None:
    url = f"https://localhost:{serve_tls.port}/api/v1/pipe/{name}"
    receiver = receive_by_curl(url, "-k")
    sender = subprocess.Popen(
        ["curl", "-sSk", "--max-time", "30", "-T", str(file), url], stdout=subprocess.PIPE
    )
    assert receiver.communicate()[0] == DATA
    assert sender.communicate()[0].endswith(b"[INFO] Transfer complete.\n")


@pytest.fixture
def serve_tls(tmp_path: Path) -> Iterator[Server]:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
            "-subj",
            "/CN=localhost",
        ],
        check=True,
        capture_output=True,
    )
    listen = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
    with Server(tmp_path / "data", listen=listen) as server:
        yield server


def test_a_proxy_protocol_listener(tmp_path: Path, name: str, mover: str) -> None:
    with Server(tmp_path / "data", mover, listen="haproxy:tcp:0:interface=127.0.0.1") as server:
        with Wire(server) as receiver, Wire(server) as sender:
            for wire in (receiver, sender):
                wire.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 80\r\n")
            receiver.get(name)
            sender.put(name, "Content-Length: 5").send(b"hello")
            assert receiver.answer().body == b"hello"
            assert sender.answer().text.endswith("[INFO] Transfer complete.\n")
        event = server.wait_for(lambda event: event.get("method") == "PUT")
        assert event["client"] == "192.0.2.1"


class Deaf:
    """A receiver over TLS whose kernel throws away all that comes, from one moment on."""

    def __init__(self, server: Server) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.socket = context.wrap_socket(socket.create_connection((server.host, server.port), 10))

    def stop_listening(self) -> None:
        drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
        program = struct.pack("HL", 1, ctypes.addressof(drop_all))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


SO_ATTACH_FILTER = 26  # socket(7); Python has no name for it


def test_under_tls_too_only_what_was_acknowledged_is_complete(
    serve_tls: Server, name: str
) -> None:
    receiver = Deaf(serve_tls)
    url = f"https://localhost:{serve_tls.port}/api/v1/pipe/{name}"
    with receiver.socket:
        receiver.socket.sendall(f"GET /api/v1/pipe/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        command = ["curl", "-skN", "-T", "-", url]
        sender = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert sender.stdin
        assert sender.stdout
        assert receiver.socket.recv(4) == b"HTTP"
        receiver.stop_listening()
        sender.stdin.write(b"hello")
        sender.stdin.close()
        told = b""
        while b"Upload complete." not in told:
            told += os.read(sender.stdout.fileno(), 1000)
        assert not select.select([sender.stdout], [], [], 0.5)[0]
        assert b"Transfer complete." not in told
    assert b"Transfer complete." not in sender.stdout.read()
    sender.stdout.close()
    sender.wait()
