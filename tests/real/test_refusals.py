"""What is not a request, not a pipe, or not now: each gets its status and sentence."""

from __future__ import annotations

import contextlib
import resource
import time

import pytest

from tests.conftest import Serve
from tests.support.server import Server
from tests.support.wire import Answer, Wire

PIPE = "/api/v1/pipe"


def ask(server: Server, data: bytes) -> Answer:
    with Wire(server) as wire:
        return wire.send(data).answer()


def is_refusal(answer: Answer, status: int, sentence: str) -> None:
    assert answer.status == status
    assert answer.whole
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-request-id"]
    assert answer.text.startswith("[ERROR] ")
    assert answer.text.count("\n") == 1
    assert sentence in answer.text


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        *((f"n={n}", "n must be a whole number from 1 to 256") for n in ("0", "-1", "257")),
        *((f"n={n}", "n must be a whole number from 1 to 256") for n in ("abc", "1.5", "")),
        ("n=1&n=1", "n is given 2 times"),
        ("size=huge", "size: give bytes"),
        ("digest=md5", "digest must be sha256"),
    ],
)
def test_a_bad_field_is_named(server: Server, name: str, query: str, sentence: str) -> None:
    with Wire(server) as sender:
        answer = sender.put(f"{name}?{query}", "Content-Length: 3").send(b"abc").answer()
        assert answer.headers["connection"] == "close"
        assert sender.read_all() == b""
    is_refusal(answer, 400, sentence)
    if not query.startswith(("size", "digest")):
        with Wire(server) as receiver:
            is_refusal(receiver.get(f"{name}?{query}").answer(), 400, sentence)


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("a%00b", 400, "control character or a backslash"),
        ("a\\b", 400, "control character or a backslash"),
        ("a%5cb", 400, "control character or a backslash"),
        ("%ff", 400, "not UTF-8"),
        ("x" * 1025, 414, "Path too long (max 1024 characters)"),
        ("%C3%A9" * 1025, 414, "Path too long"),
        ("HELP", 400, "The path /help is reserved"),
        ("Version/", 400, "The path /version is reserved"),
        ("health.", 400, "The path /health is reserved"),
        ("", 400, "The path / is reserved"),
        ("..", 400, "The path / is reserved"),
        ("favicon.ico", 400, "The path /favicon.ico is reserved"),
    ],
)
def test_a_path_that_cannot_be(server: Server, path: str, status: int, sentence: str) -> None:
    with Wire(server) as sender:
        is_refusal(sender.put(path, "Content-Length: 0").answer(), status, sentence)


@pytest.mark.parametrize("path", ["a/../b", "a//b", "%E2%82%AC", "x" * 1024, "%C3%A9" * 1024])
def test_a_path_that_can_be(server: Server, path: str) -> None:
    with Wire(server) as sender, Wire(server) as receiver:
        receiver.get(path)
        sender.put(path, "Content-Length: 2").send(b"ok")
        assert receiver.answer().body == b"ok"


def test_a_url_may_be_typed_as_it_is_read(server: Server, name: str) -> None:
    """curl sends what stands behind the question mark as it was typed, in UTF-8."""
    with Wire(server) as sender, Wire(server) as receiver:
        receiver.get(f"{name}-é?filename=été.pdf")
        sender.put(f"{name}-%C3%A9", "Content-Length: 2").send(b"ok")
        disposition = receiver.answer().headers["content-disposition"]
        assert disposition.endswith("filename*=UTF-8''%C3%A9t%C3%A9.pdf")


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("Content-Range: bytes 0-1/2", "Content-Range: a pipe has no parts"),
        (f"X-Piping: {'x' * 8193}", "X-Piping is over 8 KiB"),
        ("Content-Type: multipart/form-data", "needs a boundary"),
    ],
)
def test_a_senders_header_that_cannot_be(
    server: Server, name: str, header: str, sentence: str
) -> None:
    with Wire(server) as sender:
        answer = sender.put(name, "Content-Length: 3", header).send(b"abc").answer()
        is_refusal(answer, 400, sentence)


def test_a_service_worker_is_refused(server: Server, name: str) -> None:
    with Wire(server) as wire:
        is_refusal(wire.get(name, "Service-Worker: script").answer(), 400, "service worker")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "name", "GET, POST, PUT, OPTIONS"),
        ("PATCH", "name", "GET, POST, PUT, OPTIONS"),
        ("HEAD", "name", "GET, POST, PUT, OPTIONS"),
        ("DELETE", "help", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_is_405_with_allow(
    server: Server, method: str, path: str, allowed: str
) -> None:
    with Wire(server) as wire:
        answer = wire.put(path, method=method).answer(bodiless=method == "HEAD")
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


def test_beside_the_pipes_a_wrong_method_is_405_and_a_wrong_path_404(server: Server) -> None:
    with Wire(server) as wire:
        wire.send(b"DELETE /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        wire.send(b"DELETE /api/v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.answer().status == 404


def test_places_that_are_taken(server: Server, name: str) -> None:
    with Wire(server) as sender, Wire(server) as other, Wire(server) as receiver:
        sender.put(name, "Transfer-Encoding: chunked")
        sender.read_line("[INFO] Waiting for 1 receiver(s) to connect...")
        is_refusal(other.get(f"{name}?n=2").answer(), 400, "waits with n=1, you came with n=2")
        answer = other.put(name, "Content-Length: 1").send(b"x").answer()
        is_refusal(answer, 400, "A sender is on this path already")
        receiver.get(name)
        sender.read_line("[INFO] Streaming to 1 receiver(s)...")
        with Wire(server) as late:
            is_refusal(late.get(name).answer(), 400, "A transfer is running on this path")
        sender.last_chunk()
        assert receiver.answer().whole
    with Wire(server) as first, Wire(server) as second:
        first.get(name)
        server.waiting(1)
        is_refusal(second.get(name).answer(), 400, "All 1 receiver(s) of this path are there")


HOST = b"Host: localhost\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status", "sentence"),
    [
        (b"nonsense\r\n\r\n", 400, "malformed"),
        (b"GET /health HTTP/1.1\r\n\r\n", 400, "needs one Host header"),
        (b"GET /health HTTP/1.1\r\n" + HOST * 2 + b"\r\n", 400, "needs one Host header"),
        (b"GET /health HTTP/1.1\nHost: localhost\n\n", 400, "bare line feed"),
        (b"GET /health HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", 400, "malformed"),
        (b"GET /health HTTP/1.1\r\n" + HOST + b"No colon\r\n\r\n", 400, "malformed"),
        (b"GET /health HTTP/1.1\r\n" + HOST + b"A b: c\r\n\r\n", 400, "malformed"),
        (b"GET /health HTTP/3.0\r\n" + HOST + b"\r\n", 505, "Only HTTP/1.1 and HTTP/1.0"),
        (b"GET health HTTP/1.1\r\n" + HOST + b"\r\n", 400, "must begin with a slash"),
        (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400, "target * is for OPTIONS"),
    ],
)
def test_what_is_no_request(
    server: Server, request_bytes: bytes, status: int, sentence: str
) -> None:
    is_refusal(ask(server, request_bytes), status, sentence)


def test_an_absolute_target_is_a_request(server: Server) -> None:
    target = b"GET http://x.containers.hoody.localhost/ HTTP/1.1\r\n" + HOST + b"\r\n"
    assert ask(server, target).status == 404
    assert ask(server, b"GET http://localhost/health HTTP/1.1\r\n" + HOST + b"\r\n").status == 200


@pytest.mark.parametrize(
    ("headers", "status", "sentence"),
    [
        (["Content-Length: 5", "Content-Length: 5"], 400, "given twice"),
        (["Content-Length: 5", "Content-Length: 6"], 400, "given twice"),
        (["Content-Length: 5", "Transfer-Encoding: chunked"], 400, "given twice"),
        (["Transfer-Encoding: chunked", "Content-Length: 5"], 400, "given twice"),
        (["Content-Length: 5, 5"], 400, "one decimal number"),
        (["Content-Length: -5"], 400, "one decimal number"),
        (["Content-Length: +5"], 400, "one decimal number"),
        ([f"Content-Length: {'9' * 5000}"], 400, "one decimal number"),
        (["Transfer-Encoding: gzip, chunked"], 501, "only chunked is supported"),
        (["Transfer-Encoding: xchunked"], 501, "only chunked is supported"),
    ],
)
def test_a_body_whose_length_is_in_doubt_is_not_begun(
    server: Server, name: str, headers: list[str], status: int, sentence: str
) -> None:
    with Wire(server) as receiver:
        receiver.get(name)
        server.waiting(1)
        with Wire(server) as sender:
            answer = sender.put(name, *headers).send(b"5\r\nhello\r\n0\r\n\r\n").answer()
            is_refusal(answer, status, sentence)
            assert sender.read_all() == b""
        assert server.counts().waiting == 1


@pytest.mark.parametrize(
    "body",
    [
        b"FFFFFFFFFFFFFFFFF\r\n",
        b"-5\r\nhello\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"zz\r\n",
        b"0x5\r\nhello\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"5;\x00\r\nhello\r\n0\r\n\r\n",
        b"5" * 2000,
        b"0\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
    ],
)
def test_a_malformed_chunk_breaks_the_transfer_and_says_so(
    server: Server, name: str, body: bytes
) -> None:
    for first in (b"", b"3\r\nabc\r\n"):
        with Wire(server) as receiver, Wire(server) as sender:
            receiver.get(name)
            server.waiting(1)
            sender.put(name, "Transfer-Encoding: chunked")
            sender.read_line("[INFO] Streaming to 1 receiver(s)...")
            sender.send(first + body)
            assert not receiver.answer().whole
            assert b"[ERROR]" in (told := sender.read_all())
            assert b"not chunked as RFC 9112" in told


def test_a_malformed_chunk_is_told_to_a_sender_that_waits(server: Server, name: str) -> None:
    with Wire(server) as sender:
        head = f"PUT {PIPE}/{name} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        # In one piece: what comes later is not read before the transfer starts.
        sender.send(head.encode() + b"zz\r\n")
        told = sender.read_all()
    assert b"[ERROR] The body is not chunked" in told
    assert server.counts().waiting == 0


def test_extensions_and_trailers_are_read_and_not_passed_on(server: Server, name: str) -> None:
    with Wire(server) as receiver, Wire(server) as sender:
        receiver.get(name)
        sender.put(name, "Transfer-Encoding: chunked")
        sender.send(b'5;a=b;c="d"\r\nhello\r\n0\r\nX-Trailer: secret\r\n\r\n')
        receiver.head()
        assert receiver.read_until(b"0\r\n\r\n") == b"5\r\nhello\r\n0\r\n\r\n"
        sender.read_line("[INFO] Transfer complete.")


def test_a_body_longer_than_its_length_ends_where_it_said(server: Server, name: str) -> None:
    with Wire(server) as receiver, Wire(server) as sender:
        receiver.get(name)
        sender.put(name, "Content-Length: 5").send(b"hello and more\r\n\r\n")
        assert receiver.answer().body == b"hello"
        assert sender.answer().text.endswith("[INFO] Transfer complete.\n")
        is_refusal(sender.answer(), 400, "malformed")


def test_a_body_shorter_than_its_length_is_broken(server: Server, name: str) -> None:
    with Wire(server) as receiver, Wire(server) as sender:
        receiver.get(name)
        sender.put(name, "Content-Length: 10").send(b"hello")
        sender.read_line("[INFO] Streaming to 1 receiver(s)...")
        sender.half_close()
        answer = receiver.answer()
        assert (answer.body, answer.whole) == (b"hello", False)
        assert b"[ERROR] The sender broke off: its body stopped before its end" in (
            sender.read_all()
        )


def test_a_request_pipelined_behind_a_refused_upload_is_not_answered(
    server: Server, name: str
) -> None:
    smuggled = f"GET {PIPE}/version HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    for headers, body in (
        (["Content-Length: 5"], b"hello"),
        ([f"Content-Length: {len(smuggled)}"], b""),
        (["Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n"),
        (["Content-Length: 5", "Content-Length: 6"], b"hello"),
    ):
        with Wire(server) as wire:
            wire.put(f"{name}?n=0", *headers).send(body + smuggled)
            data = wire.read_all()
        assert data.count(b"HTTP/1.1 ") == 1
        assert data.startswith(b"HTTP/1.1 400 ")


def test_a_refusal_is_read_by_a_client_that_goes_on_sending(server: Server, name: str) -> None:
    """It is read on for a while, so that no reset destroys the answer."""
    with Wire(server) as wire:
        wire.put(f"{name}?n=0", "Content-Length: 900000")
        for _ in range(9):
            wire.send(b"x" * 100_000)
            time.sleep(0.02)
        assert wire.answer().status == 400
        assert wire.read_all() == b""
        assert wire.ended == "closed"


def test_a_refused_client_that_never_stops_is_cut(server: Server, name: str) -> None:
    with Wire(server) as wire:
        wire.put(f"{name}?n=0", "Transfer-Encoding: chunked")
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 128 << 20:
                wire.chunk(b"x" * 65536)
                sent += 65536
        assert sent < 128 << 20


def test_64_kib_of_headers_are_too_many(server: Server) -> None:
    for headers in (
        ["X: " + "x" * 1000] * 70,
        ["X: " + "x" * 70_000],
        ["X: y"] * 600,
    ):
        with Wire(server) as wire:
            try:
                wire.get("version", *headers)
            except OSError:
                pass
            assert wire.answer().status == 431
    with Wire(server) as wire:
        assert wire.get("version", *["X: " + "x" * 1000] * 60).answer().status == 200


def test_a_url_of_64_kib_is_too_long(server: Server) -> None:
    assert ask(server, b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n").status == 414


def test_a_head_sent_byte_by_byte_is_late(serve: Serve) -> None:
    server = serve("--head-timeout=500ms")
    with Wire(server) as wire:
        began = time.monotonic()
        for byte in f"GET {PIPE}/version HTTP/1.1\r\n".encode():
            wire.send(bytes([byte]))
            time.sleep(0.05)
            if time.monotonic() - began > 0.7:
                break
        is_refusal(wire.answer(), 408, "not complete within 0.5 s")
        assert wire.read_all() == b""


def test_a_connection_that_says_nothing_is_closed_without_a_word(serve: Serve) -> None:
    server = serve("--idle-timeout=300ms")
    with Wire(server) as wire:
        assert wire.read_all() == b""
    with Wire(server) as wire:
        assert wire.get("version").answer().status == 200
        assert wire.read_all() == b""


def test_an_ordinary_body_over_1_mib_is_refused(server: Server) -> None:
    for framing in ("Content-Length: 2000000", "Transfer-Encoding: chunked"):
        with Wire(server) as wire:
            wire.send(f"GET /health HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
            try:
                for _ in range(2000 if "chunked" in framing else 0):
                    wire.chunk(b"x" * 1000)
            except OSError:
                pass
            answer = wire.answer()
        assert answer.status == 400
        assert "over 1 MiB" in answer.text


def test_caps_are_429_with_retry_after(serve: Serve, name: str) -> None:
    server = serve("--max-waiting=3", "--max-running=1")
    wires = [Wire(server).get(f"{name}-{number}") for number in range(3)]
    server.waiting(3)
    with Wire(server) as over:
        answer = over.get(f"{name}-4").answer()
        is_refusal(answer, 429, "3 senders and receivers wait already")
        assert int(answer.headers["retry-after"]) > 0
        answer = over.put(f"{name}-5", "Content-Length: 1").send(b"x").answer()
        assert answer.status == 429
    with Wire(server) as running, Wire(server) as second:
        running.put(f"{name}-0", "Transfer-Encoding: chunked")
        running.read_line("[INFO] Streaming to 1 receiver(s)...")
        answer = second.put(f"{name}-1", "Content-Length: 1").send(b"x").answer()
        is_refusal(answer, 429, "1 pipes run already")
        running.last_chunk()
    for wire in wires:
        wire.close()


def test_when_descriptors_run_out_who_comes_is_told_and_who_is_there_goes_on(
    serve: Serve, name: str
) -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 400, "this test needs some itself"
    server = serve(prefix=["prlimit", "--nofile=100:100"])
    sender, receiver = Wire(server), Wire(server)
    receiver.get(name)
    sender.put(name, "Transfer-Encoding: chunked")
    sender.read_line("[INFO] Streaming to 1 receiver(s)...")
    crowd: list[Wire] = []
    told = 0
    for _ in range(300):
        wire = Wire(server)
        crowd.append(wire)
        try:
            answer = wire.get("version").answer()
        except (OSError, AssertionError):
            continue  # past even the descriptors kept for telling
        if answer.status == 503:
            told += 1
            assert "All connections are taken" in answer.text
            assert answer.headers["connection"] == "close"
            assert int(answer.headers["retry-after"]) > 0
    assert told > 10
    sender.chunk(b"still here").last_chunk()
    assert receiver.answer().body == b"still here"
    assert server.health()["parts"]["pipes"]["status"] == "ok"
    for wire in [*crowd, sender, receiver]:
        wire.close()


def test_pipes_for_token_holders_are_closed_to_others(serve: Serve, name: str) -> None:
    server = serve("--pipe-auth=token")
    with Wire(server) as wire:
        answer = wire.get(name).answer()
        is_refusal(answer, 401, "This needs a token; send Authorization: Bearer")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert wire.put(name, "Content-Length: 1").send(b"x").answer().status == 401
    with Wire(server) as wire:
        assert wire.get("help").answer().status == 200
