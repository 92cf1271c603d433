"""The gateway, byte by byte, between scripted clients and scripted servers."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.gateway import Gateway, gateway
from tests.support.origins import Accepted, Origin, origin
from tests.support.wire import Wire

MIB = 1024 * 1024
_names = (f"box{number}" for number in itertools.count())


@pytest.fixture(scope="module", params=[None, 1], ids=["portable", "kernel"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """What holds of answers holds whatever moves them."""
    with gateway(
        tmp_path_factory.mktemp("gateway"), splice=request.param, connect_timeout=1, keep=0.2
    ) as running:
        yield running


@pytest.fixture
def gate(shared: Gateway) -> Iterator[Gateway]:
    """Nothing of a test may be left in it."""
    before = shared.ask("counts")
    yield shared
    shared.settle(before)


@pytest.fixture
def box() -> Iterator[Origin]:
    with origin() as one:
        yield one


@pytest.fixture
def host(gate: Gateway, box: Origin) -> str:
    """The host under which C{box} is reached."""
    return gate.has(next(_names), box.port)


@pytest.fixture
def client(gate: Gateway, host: str) -> Iterator[Wire]:
    with Wire(gate) as wire:
        yield wire


def ask(
    wire: Wire, host: str, *headers: str, first: str = "GET / HTTP/1.1", body: bytes = b""
) -> Wire:
    return wire.send("\r\n".join([first, f"Host: {host}", *headers, "", ""]).encode() + body)


# Requests and answers


def test_a_request_and_its_answer_pass_as_they_are(client: Wire, host: str, box: Origin) -> None:
    first = "PATCH /a%2Fb//c?d=%20&e;f HTTP/1.1"
    ask(client, host, "Content-Length: 5", "X-Own: a, b", "ETag: é", first=first, body=b"hello")
    server = box.accept()
    head = server.request().split(b"\r\n")
    assert head[0] == first.encode()
    assert head[1] == f"Host: {host}".encode()
    assert b"X-Own: a, b" in head
    assert "ETag: é".encode() in head
    assert server.read_until(b"hello") == b"hello"
    server.respond("Content-Length: 2", "Server: own", "X-A: 1", "X-A: 2", body=b"ok")
    answer = client.answer()
    assert (answer.status, answer.body, answer.whole) == (200, b"ok", True)
    assert answer.headers["x-a"] == "1, 2"
    assert answer.headers["server"] == "own"
    assert set(answer.headers) == {"server", "x-a", "content-length", "date", "x-request-id"}


@pytest.mark.parametrize(
    "target", ["/", "/?", "/?a", "/a?b?c=/#d", "/%00%0a%ff", "/..//./", "//x"]
)
def test_a_target_is_passed_as_it_came(client: Wire, host: str, box: Origin, target: str) -> None:
    ask(client, host, first=f"GET {target} HTTP/1.1")
    server = box.accept()
    assert server.request().startswith(f"GET {target} HTTP/1.1\r\n".encode())
    server.respond("Content-Length: 0")
    assert client.answer().status == 200


@pytest.mark.parametrize("status", ["200 Fine by me", "299 Odd", "404 Not Here", "599 "])
def test_status_and_reason_are_the_container_s(
    client: Wire, host: str, box: Origin, status: str
) -> None:
    ask(client, host)
    server = box.accept()
    server.request()
    server.respond("Content-Length: 0", "Date: then", "X-Request-Id: its", status=status)
    line = client.read_until(b"\r\n").strip().decode()
    assert line.startswith(f"HTTP/1.1 {status}".strip())
    rest = client.read_until(b"\r\n\r\n")
    assert b"Date: then\r\n" in rest
    assert b"X-Request-Id: its\r\n" in rest


@pytest.mark.parametrize(
    ("method", "headers"),
    [("GET", []), ("POST", ["Content-Length: 0"]), ("DELETE", []), ("BREW", [])],
)
def test_a_request_without_a_body_gets_none(
    client: Wire, host: str, box: Origin, method: str, headers: list[str]
) -> None:
    ask(client, host, *headers, first=f"{method} / HTTP/1.1")
    server = box.accept()
    head = server.request()
    assert head.startswith(method.encode())
    assert b"Transfer-Encoding" not in head
    assert (b"Content-Length: 0" in head) == bool(headers)
    server.respond(status="204 No Content")
    assert client.answer(bodiless=True).status == 204


def test_options_of_the_whole_server_passes(client: Wire, host: str, box: Origin) -> None:
    ask(client, host, first="OPTIONS * HTTP/1.1")
    server = box.accept()
    assert server.request().startswith(b"OPTIONS * HTTP/1.1\r\n")
    server.respond("Content-Length: 0")
    assert client.answer().status == 200


def test_an_absolute_target_says_the_host(client: Wire, host: str, box: Origin) -> None:
    ask(client, "other.example", first=f"GET http://{host}:80/x?y HTTP/1.1")
    server = box.accept()
    head = server.request()
    assert head.startswith(f"GET /x?y HTTP/1.1\r\nHost: {host}:80\r\n".encode())
    server.respond("Content-Length: 0")
    assert client.answer().status == 200


def test_connect_is_refused(client: Wire, host: str) -> None:
    ask(client, host, first=f"CONNECT {host}:80 HTTP/1.1")
    assert client.answer().status == 501


def test_the_whole_server_is_for_options_only(client: Wire, host: str, box: Origin) -> None:
    ask(client, host, first="GET * HTTP/1.1")
    assert client.answer().status == 400
    assert not box.is_asked


@pytest.mark.parametrize("said", ["close", "Close, TE"])
def test_a_client_that_wants_to_close_is_closed(
    client: Wire, host: str, box: Origin, said: str
) -> None:
    ask(client, host, f"Connection: {said}")
    server = box.accept()
    assert b"close" not in server.request().lower()
    server.respond("Content-Length: 2", body=b"ok")
    answer = client.answer()
    assert (answer.body, answer.headers["connection"]) == (b"ok", "close")
    assert client.read_all() == b""


@pytest.mark.parametrize("status", ["200 OK", "404 No"])
def test_head_has_a_length_and_no_body(client: Wire, host: str, box: Origin, status: str) -> None:
    ask(client, host, first="HEAD / HTTP/1.1")
    server = box.accept()
    server.request()
    server.respond("Content-Length: 1000", status=status)
    assert client.answer(bodiless=True).headers["content-length"] == "1000"
    ask(client, host, first="HEAD / HTTP/1.1")
    server.request()
    server.respond("Transfer-Encoding: chunked", status=status)
    assert "content-length" not in client.answer(bodiless=True).headers


def test_not_modified_has_no_body(client: Wire, host: str, box: Origin) -> None:
    ask(client, host)
    server = box.accept()
    server.request()
    server.respond("Content-Length: 1000", "ETag: x", status="304 Not Modified")
    assert client.answer(bodiless=True).headers["etag"] == "x"
    ask(client, host)
    server.request()
    server.respond("Content-Length: 2", body=b"ok")
    assert client.answer().body == b"ok"


# Bodies


def test_a_body_of_chunks_is_framed_anew_both_ways(client: Wire, host: str, box: Origin) -> None:
    ask(client, host, "Transfer-Encoding: chunked", first="PUT / HTTP/1.1")
    client.send(b"5;ext=1\r\nhello\r\n")
    server = box.accept()
    head = server.request()
    assert b"Transfer-Encoding: chunked\r\n" in head
    assert b"Content-Length" not in head
    assert server.read_until(b"hello\r\n") == b"5\r\nhello\r\n"
    client.last_chunk()
    assert server.read_until(b"0\r\n\r\n") == b"0\r\n\r\n"
    server.respond("Transfer-Encoding: chunked").send(b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    answer = client.answer()
    assert (answer.body, answer.whole) == (b"abcde", True)
    assert "content-length" not in answer.headers


def test_trailers_pass_both_ways_but_those_that_would_lie(
    client: Wire, host: str, box: Origin
) -> None:
    ask(client, host, "Transfer-Encoding: chunked", "Trailer: X-Sum", "TE: trailers, deflate")
    client.chunk(b"a").send(b"0\r\nX-Sum: 1\r\nHost: evil\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
    server = box.accept()
    head = server.request()
    assert b"Trailer: X-Sum\r\n" in head
    assert b"TE: trailers\r\n" in head
    assert server.read_until(b"\r\n\r\n") == b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"
    server.respond("Transfer-Encoding: chunked", "Trailer: X-Sum")
    server.send(b"1\r\nb\r\n0\r\nX-Sum: 2\r\nSet-Cookie: a=b\r\nContent-Length: 5\r\n\r\n")
    answer = client.answer()
    assert (answer.body, answer.headers["trailer"]) == (b"b", "X-Sum")
    assert client.trailers == b"X-Sum: 2\r\n"


def test_a_malformed_trailer_of_the_client_is_not_passed(
    client: Wire, host: str, box: Origin
) -> None:
    ask(client, host, "Transfer-Encoding: chunked", first="PUT / HTTP/1.1")
    server = box.accept()
    server.request()
    client.send(b"0\r\nX Y: 1\r\n\r\n")
    assert client.answer().status == 400
    assert server.read_all() == b""


def test_a_body_that_ends_with_the_connection_ends_in_chunks(
    client: Wire, host: str, box: Origin
) -> None:
    ask(client, host)
    server = box.accept()
    server.request()
    server.respond(body=b"abc").close()
    answer = client.answer()
    assert (answer.body, answer.whole) == (b"abc", True)
    assert answer.headers["transfer-encoding"] == "chunked"


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Connection: close"])
def test_an_http_1_0_client_gets_no_chunks(
    client: Wire, host: str, box: Origin, framing: str
) -> None:
    ask(client, host, first="GET / HTTP/1.0")
    server = box.accept()
    assert server.request().startswith(b"GET / HTTP/1.1\r\n")
    server.respond(framing)
    if "chunked" in framing:
        server.chunk(b"abc").last_chunk()
    else:
        server.send(b"abc").close()
    answer = client.answer()
    assert (answer.body, answer.ended) == (b"abc", "closed")
    assert "transfer-encoding" not in answer.headers
    assert answer.headers["connection"] == "close"


def test_an_http_1_0_client_sees_a_broken_answer_as_broken(
    client: Wire, host: str, box: Origin
) -> None:
    ask(client, host, first="GET / HTTP/1.0")
    server = box.accept()
    server.request()
    server.respond("Transfer-Encoding: chunked").chunk(b"abc")
    client.read_until(b"abc")
    server.close()
    client.read_all()
    assert client.ended == "reset"


def test_events_pass_at_once(client: Wire, host: str, box: Origin) -> None:
    ask(client, host, "Accept: text/event-stream")
    server = box.accept()
    server.request()
    server.respond("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
    client.read_until(b"\r\n\r\n")
    for number in range(20):
        event = b"data: %d\n\n" % number
        began = time.monotonic()
        server.chunk(event)
        client.read_until(event + b"\r\n")
        assert time.monotonic() - began < 0.5
    server.last_chunk()
    client.read_until(b"0\r\n\r\n")


def test_both_ways_at_once(client: Wire, host: str, box: Origin) -> None:
    """A server may answer while it still reads: an echo."""
    ask(client, host, "Transfer-Encoding: chunked", first="POST / HTTP/1.1")
    server = box.accept()
    server.request()
    server.respond("Transfer-Encoding: chunked")
    client.head()
    for number in range(10):
        client.chunk(b"ping%d" % number)
        server.read_until(b"ping%d\r\n" % number)
        server.chunk(b"pong%d" % number)
        client.read_until(b"pong%d\r\n" % number)
    client.last_chunk()
    server.read_until(b"0\r\n\r\n")
    server.last_chunk()
    client.read_until(b"0\r\n\r\n")


# Before the answer


def test_the_container_asks_for_the_body_not_we(client: Wire, host: str, box: Origin) -> None:
    ask(client, host, "Content-Length: 5", "Expect: 100-continue", first="PUT / HTTP/1.1")
    server = box.accept()
    assert b"Expect: 100-continue\r\n" in server.request()
    client.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.more()
    client.socket.settimeout(10)
    server.respond(status="100 Continue")
    assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hello")
    server.read_until(b"hello")
    server.respond("Content-Length: 0")
    assert client.answer().status == 200


def test_a_refusal_instead_of_100_reaches_the_client(client: Wire, host: str, box: Origin) -> None:
    ask(client, host, "Content-Length: 5", "Expect: 100-continue", first="PUT / HTTP/1.1")
    server = box.accept()
    server.request()
    server.respond("Content-Length: 2", status="417 No", body=b"no")
    answer = client.answer()
    assert (answer.status, answer.body, answer.headers["connection"]) == (417, b"no", "close")


def test_early_hints_pass_and_their_end_is_not_the_answer_s(
    client: Wire, host: str, box: Origin
) -> None:
    ask(client, host)
    server = box.accept()
    server.request()
    server.respond("Link: </a>; rel=preload", "Connection: X-Hop", "X-Hop: 1", status="103 Early")
    first = client.read_until(b"\r\n\r\n")
    assert first == b"HTTP/1.1 103 Early\r\nLink: </a>; rel=preload\r\n\r\n"
    server.respond("Content-Length: 2", body=b"ok")
    assert client.answer().body == b"ok"


def test_an_http_1_0_client_gets_no_interim_answer(client: Wire, host: str, box: Origin) -> None:
    ask(client, host, first="GET / HTTP/1.0")
    server = box.accept()
    server.request()
    server.respond(status="103 Early").respond("Content-Length: 2", body=b"ok")
    assert client.answer().status == 200


# One connection, many requests


def test_many_requests_of_one_connection_go_to_different_hosts(
    gate: Gateway, client: Wire, host: str, box: Origin
) -> None:
    with origin() as other:
        hosts = {host: box, gate.has(next(_names), other.port): other}
        wires: dict[str, Accepted] = {}
        for number in range(10):
            name = list(hosts)[number % 2]
            ask(client, name.upper() + ":8080", first=f"GET /{number} HTTP/1.1")
            server = wires.get(name) or wires.setdefault(name, hosts[name].accept())
            assert server.request().startswith(b"GET /%d HTTP" % number)
            server.respond("Content-Length: 1", body=b"%d" % number)
            assert client.answer().body == b"%d" % number


def test_pipelined_requests_are_answered_in_order(
    gate: Gateway, client: Wire, host: str, box: Origin
) -> None:
    with origin() as other:
        second = gate.has(next(_names), other.port)
        ask(client, host, "Content-Length: 1", first="PUT /1 HTTP/1.1", body=b"x")
        ask(client, second, first="GET /2 HTTP/1.1")
        ask(client, host, first="GET /3 HTTP/1.1")
        server = box.accept()
        server.request()
        assert not other.is_asked
        server.respond("Content-Length: 1", body=b"1")
        two = other.accept()
        assert two.request().startswith(b"GET /2")
        two.respond("Content-Length: 1", body=b"2")
        server.read_until(b"GET /3")
        server.request()
        server.respond("Content-Length: 1", body=b"3")
        assert [client.answer().body for _ in range(3)] == [b"1", b"2", b"3"]


def test_a_kept_connection_that_is_closed_is_made_anew(
    client: Wire, host: str, box: Origin
) -> None:
    ask(client, host)
    first = box.accept()
    first.request()
    first.respond("Content-Length: 1", body=b"1")
    assert client.answer().body == b"1"
    ask(client, host)
    first.request()
    first.close()
    second = box.accept()
    second.request()
    second.respond("Content-Length: 1", body=b"2")
    assert client.answer().body == b"2"


def test_what_may_not_be_said_twice_gets_a_connection_of_its_own(
    client: Wire, host: str, box: Origin
) -> None:
    ask(client, host)
    first = box.accept()
    first.request()
    first.respond("Content-Length: 0")
    client.answer()
    ask(client, host, "Content-Length: 1", first="POST / HTTP/1.1", body=b"x")
    second = box.accept()
    second.request()
    second.close()
    assert client.answer().status == 502
    assert not box.is_asked


def test_a_connection_on_which_more_came_than_the_answer_is_not_used_again(
    client: Wire, host: str, box: Origin
) -> None:
    ask(client, host)
    first = box.accept()
    first.request()
    first.respond("Content-Length: 1", body=b"1HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert client.answer().body == b"1"
    ask(client, host)
    second = box.accept()
    second.request()
    second.respond("Content-Length: 1", body=b"2")
    assert client.answer().body == b"2"


# Pace


def test_a_slow_client_holds_back_the_container(client: Wire, host: str, box: Origin) -> None:
    ask(client, host)
    server = box.accept()
    server.request()
    server.respond("Content-Length: 1000000000")
    sent = pushed(server)
    assert sent < 40 * MIB
    while sent > 0:
        assert client.more()
        sent -= len(client.buffer)
        client.buffer = b""


def test_a_connection_whose_answer_was_taken_slowly_is_as_good_as_any(
    client: Wire, host: str, box: Origin
) -> None:
    body = b"x" * 12 * MIB
    ask(client, host)
    ask(client, host, first="GET /next HTTP/1.1")
    server = box.accept()
    server.request()
    sending = threading.Thread(
        target=server.respond, args=(f"Content-Length: {len(body)}",), kwargs={"body": body}
    )
    sending.start()
    time.sleep(0.3)
    assert client.answer().body == body
    sending.join()
    assert server.request().startswith(b"GET /next")
    server.respond("Content-Length: 2", body=b"ok")
    assert client.answer().body == b"ok"


@pytest.mark.parametrize("headers", [["Connection: close"], []])
def test_a_container_is_closed_with_good_manners(
    client: Wire, host: str, box: Origin, headers: list[str]
) -> None:
    ask(client, host)
    server = box.accept()
    server.request()
    server.respond("Content-Length: 2", *headers, body=b"ok")
    assert client.answer().body == b"ok"
    assert server.read_all() == b""
    assert server.ended == "closed"


def test_a_slow_container_holds_back_the_client(client: Wire, host: str, box: Origin) -> None:
    ask(client, host, "Content-Length: 1000000000", first="PUT / HTTP/1.1")
    server = box.accept()
    server.request()
    sent = pushed(client)
    assert sent < 40 * MIB
    got = len(server.buffer)
    while got < sent:
        server.buffer = b""
        assert server.more()
        got += len(server.buffer)


def pushed(wire: Wire) -> int:
    """Send until the peer takes no more. @return: bytes."""
    wire.socket.settimeout(0.7)
    sent = 0
    try:
        while sent < 500 * MIB:
            sent += wire.socket.send(b"x" * 65536)
    except TimeoutError:
        return sent
    finally:
        wire.socket.settimeout(wire.timeout)
    raise AssertionError("nothing ever pushed back")


# Losses


def test_a_client_that_leaves_before_the_answer_takes_the_container_s_connection_along(
    client: Wire, host: str, box: Origin
) -> None:
    ask(client, host)
    server = box.accept()
    server.request()
    client.close()
    assert server.read_all() == b""


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_in_mid_download_takes_it_along(
    client: Wire, host: str, box: Origin, how: str
) -> None:
    ask(client, host)
    server = box.accept()
    server.request()
    server.respond("Content-Length: 1000000000", body=b"x" * 1000)
    client.read_until(b"x")
    getattr(client, how)()
    with pytest.raises(OSError):
        for _ in range(10_000):
            server.send(b"x" * 65536)
            time.sleep(0.001)


def test_a_client_that_leaves_while_it_does_not_read_takes_it_along(
    client: Wire, host: str, box: Origin
) -> None:
    ask(client, host)
    server = box.accept()
    server.request()
    server.respond("Content-Length: 1000000000")
    pushed(server)
    client.reset()
    server.read_all()
    assert server.ended in ("closed", "reset")


def test_a_client_that_leaves_in_mid_upload_takes_it_along(
    client: Wire, host: str, box: Origin
) -> None:
    ask(client, host, "Content-Length: 1000", first="PUT / HTTP/1.1", body=b"x")
    server = box.accept()
    server.request()
    server.read_until(b"x")
    client.close()
    assert server.read_all() == b""


def test_a_body_that_is_none_takes_it_along(client: Wire, host: str, box: Origin) -> None:
    ask(client, host, "Transfer-Encoding: chunked", first="PUT / HTTP/1.1")
    server = box.accept()
    server.request()
    client.send(b"nonsense\r\n")
    assert client.answer().status == 400
    assert server.read_all() == b""


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Content-Length: 10"], b"abc"),
        (["Transfer-Encoding: chunked"], b"3\r\nabc\r\n"),
        (["Transfer-Encoding: chunked"], b"3\r\nabc\r\n0\r\n"),
    ],
)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_answer_that_is_cut_short_is_seen_to_be(
    client: Wire, host: str, box: Origin, headers: list[str], body: bytes, how: str
) -> None:
    ask(client, host)
    server = box.accept()
    server.request()
    server.respond(*headers, body=body)
    client.read_until(b"abc")
    getattr(server, how)()
    rest = client.read_all()
    assert client.ended in ("closed", "reset")
    assert b"0\r\n\r\n" not in rest


def test_a_reset_is_no_clean_end_of_a_body_without_length(
    client: Wire, host: str, box: Origin
) -> None:
    ask(client, host)
    server = box.accept()
    server.request()
    server.respond(body=b"abc")
    client.read_until(b"abc")
    server.reset()
    assert b"0\r\n\r\n" not in client.read_all()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_container_that_breaks_off_before_its_answer_is_502(
    client: Wire, host: str, box: Origin, how: str
) -> None:
    ask(client, host, "Content-Length: 1", first="POST / HTTP/1.1", body=b"x")
    server = box.accept()
    server.request()
    getattr(server, how)()
    assert client.answer().status == 502


def test_a_container_that_breaks_off_in_mid_upload_is_502(
    client: Wire, host: str, box: Origin
) -> None:
    ask(client, host, "Content-Length: 1000000000", first="PUT / HTTP/1.1", body=b"x" * 100)
    server = box.accept()
    server.request()
    server.reset()
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (502, "close")


def test_an_early_answer_reaches_a_client_that_still_sends(
    client: Wire, host: str, box: Origin
) -> None:
    ask(client, host, "Content-Length: 1000000000", first="PUT / HTTP/1.1")
    server = box.accept()
    server.request()
    sent = pushed(client)
    assert sent
    body = b"too large" * 1000
    server.respond(f"Content-Length: {len(body)}", status="413 Too Large", body=body)
    server.close()  # with much unread: a reset
    answer = client.answer()
    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    assert answer.body == body


# What is not HTTP, or is HTTP in two ways


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\rContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000,
        b"HTTP/2 200 OK\r\n\r\n",
    ],
)
def test_an_answer_that_is_none_is_502(
    client: Wire, host: str, box: Origin, answer: bytes
) -> None:
    ask(client, host, "Content-Length: 1", first="POST / HTTP/1.1", body=b"x")
    server = box.accept()
    server.request()
    try:
        server.send(answer)
    except OSError:
        pass  # it has heard enough
    assert client.answer().status == 502
    server.read_all()
    assert server.ended in ("closed", "reset")


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Content-Length: 5, 5"],
        ["Transfer-Encoding : chunked"],
        ["X: a\nTransfer-Encoding: chunked"],
        ["Content-Length: 0x5"],
    ],
)
def test_a_request_that_can_be_read_in_two_ways_reaches_nobody(
    client: Wire, host: str, box: Origin, headers: list[str]
) -> None:
    body = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    ask(client, host, *headers, first="POST / HTTP/1.1", body=body)
    assert client.answer().status in (400, 501)
    assert not box.is_asked


def test_a_framing_header_under_another_name_is_not_passed(
    client: Wire, host: str, box: Origin
) -> None:
    odd = ["Content_Length: 3", "Transfer_Encoding: chunked", "X_Forwarded_For: 6.6.6.6"]
    ask(client, host, "Content-Length: 5", *odd, first="POST / HTTP/1.1", body=b"hello")
    server = box.accept()
    head = server.request().lower()
    assert b"_" not in head
    assert head.count(b"content-length") == 1
    server.respond("Content-Length: 0")
    assert client.answer().status == 200


def test_a_header_folded_by_the_client_is_one_line(client: Wire, host: str, box: Origin) -> None:
    ask(client, host, "X-A: b\r\n\tTransfer-Encoding: chunked")
    server = box.accept()
    assert b"X-A: b Transfer-Encoding: chunked\r\n" in server.request()
    server.respond("Content-Length: 0")
    assert client.answer().status == 200


# Upgrades


def upgraded(client: Wire, host: str, box: Origin, early: bytes = b"") -> Accepted:
    ask(client, host, "Connection: keep-alive, Upgrade", "Upgrade: echo/1", body=early)
    server = box.accept()
    head = server.request()
    assert b"Connection: Upgrade\r\n" in head
    assert b"Upgrade: echo/1\r\n" in head
    server.respond(
        "Upgrade: echo/1", "Connection: Upgrade", status="101 Switching", body=b"welcome"
    )
    answer = client.head()
    assert (answer.status, answer.headers["upgrade"]) == (101, "echo/1")
    assert answer.headers["connection"] == "Upgrade"
    client.read_until(b"welcome")
    return server


def test_an_upgrade_is_a_tunnel(client: Wire, host: str, box: Origin) -> None:
    server = upgraded(client, host, box, early=b"early")
    server.read_until(b"early")
    for number in range(100):
        client.send(b"\x00ping%d\r\n\r\n" % number)
        server.read_until(b"\x00ping%d\r\n\r\n" % number)
        server.send(b"\xffpong%d" % number)
        client.read_until(b"\xffpong%d" % number)


def test_a_tunnel_s_half_closes_are_passed_on(client: Wire, host: str, box: Origin) -> None:
    server = upgraded(client, host, box)
    client.send(b"last words").half_close()
    assert server.read_all() == b"last words"
    server.send(b"answer").close()
    assert client.read_all() == b"answer"
    assert client.ended == "closed"


def test_and_the_other_way_round(client: Wire, host: str, box: Origin) -> None:
    server = upgraded(client, host, box)
    server.send(b"last words").half_close()
    assert client.read_all() == b"last words"
    client.send(b"answer").close()
    assert server.read_all() == b"answer"


def test_a_tunnel_holds_back_whoever_is_too_quick(client: Wire, host: str, box: Origin) -> None:
    server = upgraded(client, host, box)
    for sender, receiver in ((client, server), (server, client)):
        sent = pushed(sender)
        assert sent < 40 * MIB
        got = len(receiver.buffer)
        while got < sent:
            receiver.buffer = b""
            assert receiver.more()
            got += len(receiver.buffer)
        receiver.buffer = b""


@pytest.mark.parametrize("full", [False, True])
def test_a_tunnel_that_breaks_on_one_side_breaks_on_the_other(
    gate: Gateway, host: str, box: Origin, full: bool
) -> None:
    for client_breaks in (True, False):
        with Wire(gate) as client:
            server = upgraded(client, host, box)
            one, other = (client, server) if client_breaks else (server, client)
            if full:
                pushed(one)
            one.reset()
            other.read_all()
            assert other.ended == "reset"


def test_an_upgrade_that_is_refused_is_an_answer_as_any(
    client: Wire, host: str, box: Origin
) -> None:
    ask(client, host, "Connection: Upgrade", "Upgrade: echo/1")
    server = box.accept()
    server.request()
    server.respond("Upgrade: other/2", "Content-Length: 2", status="426 Upgrade", body=b"no")
    answer = client.answer()
    assert (answer.status, answer.body, answer.headers["upgrade"]) == (426, b"no", "other/2")
    ask(client, host)
    server.request()
    server.respond("Content-Length: 0")
    assert client.answer().status == 200


def test_http_2_is_not_upgraded_to(client: Wire, host: str, box: Origin) -> None:
    more = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"]
    ask(client, host, *more)
    server = box.accept()
    head = server.request().lower()
    assert b"upgrade" not in head
    assert b"http2-settings" not in head
    server.respond("Content-Length: 0")
    assert client.answer().status == 200


# What does not answer


def test_a_port_on_which_nothing_listens_is_502(gate: Gateway, client: Wire, host: str) -> None:
    with origin() as gone:
        port = gone.port
    ask(client, gate.has(next(_names), port))
    answer = client.answer()
    assert answer.status == 502
    assert f"nothing listens on its port {port}" in answer.text
    ask(client, gate.has(next(_names), port), "Content-Length: 5", first="PUT / HTTP/1.1")
    assert client.answer().headers["connection"] == "close"


def test_a_port_that_never_accepts_is_504(gate: Gateway, client: Wire, host: str) -> None:
    with socket.socket() as full, socket.socket() as one, socket.socket() as two:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filling in (one, two):
            filling.setblocking(False)
            filling.connect_ex(full.getsockname())
        ask(client, gate.has(next(_names), full.getsockname()[1]))
        answer = client.answer()
    assert answer.status == 504
    assert "did not take the connection within 1 s" in answer.text


def test_a_client_that_leaves_while_we_connect_leaves_nothing(gate: Gateway, host: str) -> None:
    with socket.socket() as full, socket.socket() as one, socket.socket() as two:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filling in (one, two):
            filling.setblocking(False)
            filling.connect_ex(full.getsockname())
        with Wire(gate) as client:
            ask(client, gate.has(next(_names), full.getsockname()[1]))
            time.sleep(0.2)
        before = gate.ask("counts")
        assert before["visits"] - before["ended"] <= 1


def test_visits_are_told_what_happens(gate: Gateway, client: Wire, host: str, box: Origin) -> None:
    before = gate.ask("counts")
    ask(client, host)
    server = box.accept()
    server.request()
    now = gate.ask("counts")
    assert now["visits"] == before["visits"] + 1
    assert (now["answered"], now["ended"]) == (before["answered"], before["ended"])
    server.respond("Transfer-Encoding: chunked").chunk(b"a")
    client.read_until(b"a\r\n")
    now = gate.ask("counts")
    assert (now["answered"], now["ended"]) == (before["answered"] + 1, before["ended"])
    assert now["moved"] > before["moved"]
    server.last_chunk()
    client.read_until(b"0\r\n\r\n")
    assert gate.ask("counts")["ended"] == before["ended"] + 1
