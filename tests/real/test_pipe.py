"""The contract's lines about pipes, one by one, with curl and with bare sockets."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.support.server import Server
from tests.support.wire import Wire, fill

STORY = [
    "[INFO] Waiting for 1 receiver(s) to connect...",
    "[INFO] A receiver was connected.",
    "[INFO] Streaming to 1 receiver(s)...",
    "[INFO] Upload complete.",
    "[INFO] Transfer complete.",
]


def curl(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = ["curl", "-sS", "--max-time", "60", *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=False)


def curl_later(*arguments: str) -> subprocess.Popen[bytes]:
    command = ["curl", "-sS", "--max-time", "60", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("method", [["-T", "-"], ["-X", "POST", "--data-binary", "@-"]])
def test_receiver_first_by_put_and_by_post(server: Server, name: str, method: list[str]) -> None:
    receiver = curl_later(f"{server.pipe}/{name}")
    server.waiting(1)
    sent = curl(*method, f"{server.pipe}/{name}", data=b"hello")
    assert receiver.communicate()[0] == b"hello"
    assert sent.stdout.decode().splitlines() == [
        STORY[0],
        "[INFO] 1 receiver(s) already connected.",
        *STORY[2:],
    ]


def test_sender_first_is_told_as_it_happens_while_its_body_is_held_back(
    server: Server, name: str
) -> None:
    with Wire(server) as sender, Wire(server) as receiver:
        sender.put(name, "Transfer-Encoding: chunked")
        sender.read_line(STORY[0])
        held = fill(sender)
        receiver.get(name)
        for line in STORY[1:3]:
            sender.read_line(line)
        ending = threading.Thread(target=sender.last_chunk)
        ending.start()
        answer = receiver.answer()
        ending.join()
        assert (answer.status, len(answer.body)) == (200, held)
        for line in STORY[3:]:
            sender.read_line(line)


def test_nothing_of_a_body_is_read_before_the_start_but_one_read(
    server: Server, name: str
) -> None:
    with Wire(server) as sender:
        sender.put(name, f"Content-Length: {1 << 40}").send(b"x" * 1000)
        sender.read_line(STORY[0])
        before = server.resident("VmRSS")
        sent = fill(sender)
        assert sent < 32 << 20, "only the kernel's buffers should have taken any"
        assert server.resident("VmRSS") - before < 2 << 20
        sender.reset()


@pytest.mark.parametrize("n", [2, 5, 16])
def test_n_receivers_get_the_same_bytes(server: Server, name: str, n: int, tmp_path: Path) -> None:
    url = f"{server.pipe}/{name}?n={n}"
    files = [tmp_path / str(number) for number in range(n)]
    receivers = [curl_later("-o", str(file), url) for file in files]
    server.waiting(n)
    data = hashlib.shake_128(b"bytes").digest(5 << 20)
    sent = curl("-T", "-", url, data=data)
    assert [receiver.wait() for receiver in receivers] == [0] * n
    assert [file.read_bytes() == data for file in files] == [True] * n
    assert sent.stdout.endswith(b"[INFO] Transfer complete.\n")


def test_256_receivers(server: Server, name: str) -> None:
    receivers = [Wire(server).get(f"{name}?n=256") for _ in range(256)]
    server.waiting(256)
    sent = curl("-T", "-", f"{server.pipe}/{name}?n=256", data=b"to all of you")
    assert b"[INFO] Transfer complete." in sent.stdout
    assert {receiver.answer().body for receiver in receivers} == {b"to all of you"}
    for receiver in receivers:
        receiver.close()


def test_the_slowest_of_three_paces_the_sender(server: Server, name: str) -> None:
    with Wire(server) as sender, Wire(server) as lazy:
        eager = [curl_later("-o", "/dev/null", f"{server.pipe}/{name}?n=3") for _ in range(2)]
        lazy.get(f"{name}?n=3")
        server.waiting(3)
        sender.put(f"{name}?n=3", "Transfer-Encoding: chunked")
        sent = fill(sender)
        assert sent < 64 << 20
        lazy.reset()
        sender.read_until(b"broke off after being sent")
        sender.last_chunk()
        assert b"Only 2 of 3 receivers got everything." in sender.read_all()
        assert [receiver.wait() for receiver in eager] == [0, 0]


def test_a_length_is_passed_on(server: Server, name: str) -> None:
    with Wire(server) as sender, Wire(server) as receiver:
        receiver.get(name)
        sender.put(name, "Content-Length: 5").send(b"hello")
        answer = receiver.answer()
        assert (answer.body, answer.headers["content-length"]) == (b"hello", "5")
        assert "transfer-encoding" not in answer.headers


def test_an_empty_body_is_a_transfer_too(server: Server, name: str) -> None:
    with Wire(server) as sender, Wire(server) as receiver:
        receiver.get(name)
        sender.put(name, "Content-Length: 0")
        assert sender.answer().text.endswith(STORY[4] + "\n")
        assert receiver.answer().body == b""


def test_receivers_get_the_senders_headers_and_ours(server: Server, name: str) -> None:
    with Wire(server) as sender, Wire(server) as receiver:
        receiver.get(f"{name}?download", "Origin: https://page.example")
        sender.put(
            name,
            "Content-Length: 2",
            "Content-Type: text/html; charset=utf-8",
            'Content-Disposition: inline; filename="../é.html"',
            "X-Piping: one",
            "X-Hoody-Pipe: two",
            "X-Other: three",
        ).send(b"ok")
        headers = receiver.answer().headers
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["content-disposition"].startswith('attachment; filename="_.html"')
    assert (headers["x-piping"], headers["x-hoody-pipe"]) == ("one", "two")
    assert "x-other" not in headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "sandbox"
    assert headers["x-robots-tag"] == "none"
    assert headers["cache-control"] == "no-store"
    assert headers["access-control-allow-origin"] == "https://page.example"
    assert {"X-Piping", "X-Hoody-Pipe"} <= set(
        headers["access-control-expose-headers"].split(", ")
    )
    assert headers["x-request-id"]


def test_a_filename_is_asked_for_by_the_receiver(server: Server, name: str) -> None:
    with Wire(server) as sender, Wire(server) as receiver:
        receiver.get(f"{name}?filename=%F0%9F%90%98%0D%0AX%22..%2F.sql")
        sender.put(name, "Content-Length: 2").send(b"ok")
        assert receiver.answer().headers["content-disposition"] == (
            "attachment; filename=\"_X__..sql\"; filename*=UTF-8''%F0%9F%90%98X%22...sql"
        ).replace("_X__..sql", "_X_...sql")


def test_a_digest_goes_to_both_sides(server: Server, name: str) -> None:
    digest = hashlib.sha256(b"hello")
    with Wire(server) as sender, Wire(server) as receiver:
        receiver.get(name)
        sender.put(f"{name}?digest=sha256", "Content-Length: 5").send(b"hello")
        answer = receiver.answer()
        assert answer.headers["trailer"] == "Repr-Digest"
        assert "content-length" not in answer.headers
        expected = b"Repr-Digest: sha-256=:%s:" % base64.b64encode(digest.digest())
        assert receiver.trailers.strip() == expected
        assert f"[INFO] Digest: sha256={digest.hexdigest()}\n" in sender.answer().text


def test_a_body_may_be_read_from_where_its_sender_stopped_sending(
    server: Server, name: str
) -> None:
    """A sender that half-closes after its whole body, held in the kernel, has not left."""
    with Wire(server) as sender, Wire(server) as receiver:
        sender.put(name, "Content-Length: 3000000")
        sender.read_line(STORY[0])
        sender.send(b"x" * 3_000_000).half_close()
        time.sleep(0.3)
        answer = receiver.get(name).answer()
        assert (len(answer.body), answer.whole) == (3_000_000, True)
        sender.read_line(STORY[4])


def test_expect_is_answered_when_the_sender_is_accepted(server: Server, name: str) -> None:
    with Wire(server) as sender, Wire(server) as receiver:
        sender.put(name, "Content-Length: 5", "Expect: 100-continue")
        assert sender.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert sender.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
        receiver.get(name)
        sender.send(b"hello")
        assert receiver.answer().body == b"hello"


def test_expect_is_never_answered_when_the_sender_is_refused(server: Server, name: str) -> None:
    with Wire(server) as sender:
        sender.put(f"{name}?n=0", "Content-Length: 5", "Expect: 100-continue")
        data = sender.read_all()
    assert data.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"100 Continue" not in data


def test_an_http_1_0_sender_gets_all_its_lines_at_the_end_with_a_length(
    server: Server, name: str
) -> None:
    with Wire(server) as sender, Wire(server) as receiver:
        sender.put(name, "Content-Length: 5", version="1.0").send(b"hello")
        server.waiting(1)
        receiver.get(name)
        answer = sender.answer()
    assert answer.text.splitlines() == STORY
    assert int(answer.headers["content-length"]) == len(answer.body)


def test_an_http_1_0_receiver_reads_to_the_end_of_the_connection(
    server: Server, name: str
) -> None:
    with Wire(server) as sender, Wire(server) as receiver:
        receiver.get(name, version="1.0")
        server.waiting(1)
        sender.put(name, "Transfer-Encoding: chunked").chunk(b"hello").last_chunk()
        answer = receiver.answer()
        assert (answer.body, answer.ended) == (b"hello", "closed")
        assert "transfer-encoding" not in answer.headers
        sender.read_line(STORY[4])


def test_connections_are_kept_for_one_transfer_after_another(server: Server, name: str) -> None:
    with Wire(server) as sender, Wire(server) as receiver:
        for number in range(20):
            receiver.get(f"{name}-{number % 2}")
            sender.put(f"{name}-{number % 2}", "Content-Length: 5").send(b"%05d" % number)
            assert receiver.answer().body == b"%05d" % number
            assert sender.answer().whole


def test_a_request_pipelined_behind_an_upload_is_answered_after_it(
    server: Server, name: str
) -> None:
    with Wire(server) as sender, Wire(server) as receiver:
        sender.put(name, "Content-Length: 5").send(b"hello")
        sender.get("version")
        receiver.get(name)
        assert receiver.answer().body == b"hello"
        assert sender.answer().text.splitlines()[-1] == STORY[4]
        assert sender.answer().text.startswith("hoody ")


def test_each_party_has_its_time(serve: Serve, name: str) -> None:
    server = serve("--pipe-ttl=600ms", "--waiting-note=200ms")
    with Wire(server) as sender, Wire(server) as receiver, Wire(server) as old:
        sender.put(name, "Transfer-Encoding: chunked").chunk(b"x")
        receiver.get(f"{name}-other")
        old.put(f"{name}-old", "Content-Length: 1", version="1.0").send(b"x")
        answer = sender.answer()
        assert answer.status == 200
        assert answer.text.count("[INFO] Still waiting...\n") == 2
        assert answer.text.splitlines()[-1].startswith("[ERROR] Not all receivers came within")
        assert (answer.whole, answer.ended) == (False, "closed")
        refusal = receiver.answer()
        assert (refusal.status, refusal.whole) == (408, True)
        assert refusal.text.startswith("[ERROR] Nothing was sent here within 0.6 s")
        assert old.answer().status == 408
    with Wire(server) as again, Wire(server) as receiver:
        again.put(name, "Content-Length: 1").send(b"x")
        assert receiver.get(name).answer().body == b"x"


def test_a_quiet_transfer_lives(serve: Serve, name: str) -> None:
    server = serve("--pipe-ttl=300ms", "--peer-timeout=1", "--idle-timeout=300ms")
    with Wire(server) as sender, Wire(server) as receiver:
        sender.put(name, "Transfer-Encoding: chunked")
        receiver.get(name)
        sender.read_line(STORY[2])
        time.sleep(3)
        sender.chunk(b"at last").last_chunk()
        assert receiver.answer().body == b"at last"


def test_a_receiver_that_lives_but_does_not_read_is_not_taken_for_dead(
    serve: Serve, name: str
) -> None:
    """As a psql that builds an index: its window is closed, its kernel answers."""
    server = serve("--peer-timeout=2")
    with Wire(server) as sender, Wire(server) as receiver:
        receiver.get(name)
        sender.put(name, "Transfer-Encoding: chunked")
        sent = fill(sender)
        time.sleep(4.5)
        ending = threading.Thread(target=sender.last_chunk)
        ending.start()
        answer = receiver.answer()
        ending.join()
        assert (len(answer.body), answer.whole) == (sent, True)


def test_a_browser_that_asks_first_is_let_in(server: Server, name: str) -> None:
    with Wire(server) as wire:
        wire.put(
            name,
            "Origin: https://page.example",
            "Access-Control-Request-Method: PUT",
            "Access-Control-Request-Private-Network: true",
            method="OPTIONS",
        )
        answer = wire.answer()
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD, POST, PUT, OPTIONS"
    assert answer.headers["access-control-allow-headers"] == (
        "Content-Type, Content-Disposition, Authorization, X-Piping, X-Hoody-Pipe,"
        " Last-Event-ID, Range"
    )
    assert answer.headers["access-control-max-age"] == "86400"
    assert "access-control-allow-private-network" not in answer.headers


def test_private_networks_are_a_setting(serve: Serve, name: str) -> None:
    server = serve("--private-network=on")
    with Wire(server) as wire:
        wire.put(name, "Access-Control-Request-Private-Network: true", method="OPTIONS")
        assert wire.answer().headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize(
    ("path", "start"), [("help", "hoody pipe:"), ("version", "hoody 0"), ("robots.txt", "User")]
)
def test_pages_stand_among_the_pipes(server: Server, path: str, start: str) -> None:
    for dressed in (path, path.upper(), path + "/", path + "."):
        got = curl(f"{server.pipe}/{dressed}")
        assert got.stdout.decode().startswith(start)
    head = curl("-I", f"{server.pipe}/{path}").stdout
    assert head.startswith(b"HTTP/1.1 200 OK")


def test_health_says_how_the_server_is(server: Server) -> None:
    for url in (f"{server.url}/health", f"{server.pipe}/health"):
        health = json.loads(curl(url).stdout)
        assert health["status"] == "ok"
        assert health["service"] == "hoody"
        assert health["pid"] == server.pid
        assert health["ip"] == "127.0.0.1"
        assert health["memory"]["rss"] > 1 << 20
        assert health["started"].endswith("Z")
        assert health["parts"]["pipes"]["status"] == "ok"


def test_a_pipe_is_the_same_on_every_host(server: Server, name: str) -> None:
    hosts = ["pipe.hoody.localhost", "PIPE.Hoody.Localhost:80", "api.hoody.localhost"]
    for host in hosts:
        receiver = curl_later("-H", f"Host: {host}", f"{server.url}/api/v1/pipe/{name}")
        server.waiting(1)
        curl("-T", "-", f"{server.pipe}/{name}", data=b"hello")
        assert receiver.communicate()[0] == b"hello"
    receiver = curl_later("-H", f"Host: {hosts[0]}", f"{server.url}/{name}")
    server.waiting(1)
    curl("-T", "-", f"{server.pipe}/{name}", data=b"short")
    assert receiver.communicate()[0] == b"short"


def test_an_unknown_container_is_404_in_text_and_in_html(server: Server) -> None:
    host = "Host: nobody.containers.hoody.localhost"
    text = curl("-i", "-H", host, server.url).stdout
    assert text.startswith(b"HTTP/1.1 404 Not Found")
    assert b"[ERROR] There is no container called" in text
    page = curl("-i", "-H", host, "-H", "Accept: text/html", server.url).stdout
    assert b"Content-Type: text/html" in page


def test_what_is_not_there_is_an_envelope_under_the_api(server: Server) -> None:
    answer = json.loads(curl(f"{server.url}/api/v1/nothing").stdout)
    assert (answer["statusCode"], answer["error"]) == (404, "Not Found")
    assert answer["message"]


def test_an_encoded_slash_is_a_slash(server: Server, name: str) -> None:
    receiver = curl_later(f"{server.pipe}/{name}/a/caf%C3%A9")
    server.waiting(1)
    curl("-T", "-", f"{server.pipe}/{name}%2Fa%2Fcaf%c3%a9", data=b"hello")
    assert receiver.communicate()[0] == b"hello"


def test_a_request_id_of_the_clients_is_kept_if_it_is_a_sane_one(server: Server) -> None:
    with Wire(server) as wire:
        wire.get("version", "X-Request-Id: abc-123")
        assert wire.answer().headers["x-request-id"] == "abc-123"
        wire.get("version", "X-Request-Id: a b")
        assert wire.answer().headers["x-request-id"] != "a b"
