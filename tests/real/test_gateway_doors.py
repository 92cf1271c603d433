"""Who may come in by the gateway, what of a head it passes on, and what it says itself."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from tests.support.browser import OpenPage, violations
from tests.support.gateway import PROJECT, SUFFIX, Gateway, gateway
from tests.support.origins import Accepted, Origin, origin
from tests.support.wire import Answer, Wire

_names = (f"door{number}" for number in itertools.count())
HTML = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("gateway"), connect_timeout=1, keep=0.2) as running:
        yield running


@pytest.fixture
def gate(shared: Gateway) -> Iterator[Gateway]:
    before = shared.ask("counts")
    yield shared
    shared.settle(before)


@pytest.fixture
def box() -> Iterator[Origin]:
    with origin() as one:
        yield one


@pytest.fixture
def client(gate: Gateway) -> Iterator[Wire]:
    with Wire(gate) as wire:
        yield wire


def ask(wire: Wire, host: str, *headers: str, path: str = "/", method: str = "GET") -> Wire:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]
    return wire.send("\r\n".join(lines).encode())


def served(box: Origin, *headers: str) -> str:
    """Answer whatever is asked next. @return: the head that came."""
    server = box.accept() if not box.accepted else _again(box)
    head = server.request().decode()
    server.respond("Content-Length: 2", *headers, body=b"ok")
    return head


def _again(box: Origin) -> Accepted:
    """The connection that is kept, or a new one, where it is not."""
    kept = box.accepted[-1]
    kept.socket.settimeout(0.05)
    try:
        if kept.buffer or kept.more():
            return kept
    except TimeoutError:
        pass
    finally:
        kept.socket.settimeout(10)
    return box.accept()


# Hosts


def identified(gate: Gateway, label: str) -> str:
    return str(gate.containers[label]["container_id"])


def test_a_container_is_reached_by_each_of_its_hosts(
    gate: Gateway, client: Wire, box: Origin
) -> None:
    with origin() as other:
        label = next(_names)
        host = gate.has(label, box.port, exposed=[other.port])
        container = identified(gate, label)
        long = f"{PROJECT}-{container}-http"
        for name in (
            host,
            host.upper(),
            f"{host}:1234",
            f"{host}.",
            f"{container}{SUFFIX}",
            f"{long}-{box.port}.any-server{SUFFIX}",
        ):
            ask(client, name)
            assert f"Host: {name}\r\n" in served(box)
            assert client.answer().body == b"ok"
        ask(client, f"{long}-{other.port}.s1{SUFFIX}")
        assert "X-Forwarded-Host" in served(other)
        assert client.answer().body == b"ok"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nobody", "There is no container called 'nobody.containers.d.localhost' here."),
        ("-x", "no container called"),
        ("a.b", "no container called"),
        ("a.b.c", "no container called"),
        ("{id}.s1", "no container called"),
        ("{project}-{id}-http-{port}", "no container called"),
        ("{id}-{id}-http-{port}.s1", "no container called"),
        ("{project}-{project}-http-{port}.s1", "no container called"),
        ("{project}-{id}-http-1.s1", "Port 1 of"),
        ("{project}-{id}-http-99999.s1", "Port 99999 of"),
        ("{project}-{id}-smtp-{port}.s1", "no service called 'smtp'"),
    ],
)
def test_a_host_that_leads_nowhere_is_404(
    gate: Gateway, client: Wire, box: Origin, name: str, sentence: str
) -> None:
    label = next(_names)
    gate.has(label, box.port)
    values = {"id": identified(gate, label), "project": PROJECT, "port": box.port}
    for method in ("GET", "PUT"):
        ask(client, name.format(**values) + SUFFIX, "Content-Length: 0", method=method)
        answer = client.answer()
        assert answer.status == 404
        assert answer.text.startswith("[ERROR] ")
        assert sentence in answer.text


# Headers


@pytest.mark.parametrize(
    "spoofed",
    [
        "Forwarded: for=6.6.6.6",
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-Host: 6.6.6.6",
        "X-Forwarded-Proto: 6.6.6.6",
        "X-Forwarded-Port: 6.6.6.6",
        "X-Forwarded-Prefix: 6.6.6.6",
        "X-Forwarded-User: 6.6.6.6",
        "x_forwarded_for: 6.6.6.6",
        "X-Real-IP: 6.6.6.6",
        "Proxy: 6.6.6.6",
        "Proxy-Authorization: 6.6.6.6",
        "Proxy-Connection: 6.6.6.6",
        "Keep-Alive: 6.6.6.6",
        "TE: 6.6.6.6",
        "Upgrade: 6.6.6.6",
        "Connection: close, X-Hop\r\nX-Hop: 6.6.6.6",
        "Connection: X-Forwarded-For, Forwarded, Host",
    ],
)
def test_what_only_we_can_know_is_never_taken_from_outside(
    gate: Gateway, client: Wire, box: Origin, spoofed: str
) -> None:
    host = gate.has(next(_names), box.port)
    ask(client, f"{host}:8080", spoofed)
    lines = served(box).split("\r\n")
    assert not [line for line in lines if "6.6.6.6" in line]
    said = dict(line.split(": ", 1) for line in lines[1:-2])
    assert said["Host"] == f"{host}:8080"
    assert said["X-Forwarded-For"] == "127.0.0.1"
    assert said["X-Forwarded-Host"] == f"{host}:8080"
    assert said["X-Forwarded-Proto"] == "http"
    assert said["X-Forwarded-Port"] == "8080"
    assert said["Forwarded"] == f'for=127.0.0.1;host="{host}:8080";proto=http'
    assert len(lines) - 2 == len(said) + 1, "no header is there twice"
    assert client.answer().status == 200


def test_a_container_s_hop_by_hop_headers_end_here(
    gate: Gateway, client: Wire, box: Origin
) -> None:
    ask(client, gate.has(next(_names), box.port))
    served(
        box,
        "Connection: X-Hop, close",
        "X-Hop: 1",
        "Keep-Alive: timeout=5",
        "Proxy-Authenticate: Basic",
        "Proxy-Connection: x",
        "Upgrade: h2c",
    )
    answer = client.answer()
    assert set(answer.headers) == {"content-length", "date", "x-request-id"}
    assert answer.ended == "open"


def test_a_request_id_passes_in_and_out(gate: Gateway, client: Wire, box: Origin) -> None:
    ask(client, gate.has(next(_names), box.port), "X-Request-Id: my-own")
    assert "X-Request-Id: my-own\r\n" in served(box)
    assert client.answer().headers["x-request-id"] == "my-own"


def test_our_tokens_and_cookies_never_reach_a_container(
    gate: Gateway, client: Wire, box: Origin
) -> None:
    host = gate.has(next(_names), box.port)
    _, secret = gate.ask("token/admin")
    ask(
        client,
        host,
        f"Authorization: bearer   {secret}",
        "Cookie: a=1; __Host-hoody=x; b=2;__Host-hoody-c=y",
        "Cookie: __host-HOODY-z=1",
        method="DELETE",
        path=f"/x?a=1&token={secret}&b=%20&to%6ben={secret}&cap=own",
    )
    head = served(box)
    assert client.answer().status == 200
    assert "hdy_" not in head
    assert "hoody" not in head.lower()
    assert head.startswith("DELETE /x?a=1&b=%20&cap=own HTTP/1.1\r\n")
    assert "Cookie: a=1;  b=2\r\n".replace("  ", " ") in head


def test_a_stranger_s_authorization_and_token_are_the_container_s_business(
    gate: Gateway, client: Wire, box: Origin
) -> None:
    ask(
        client,
        gate.has(next(_names), box.port),
        "Authorization: Bearer eyJ.own",
        "Cookie: a=1",
        path="/?token=own",
    )
    head = served(box)
    assert "Authorization: Bearer eyJ.own\r\n" in head
    assert "Cookie: a=1\r\n" in head
    assert head.startswith("GET /?token=own HTTP/1.1\r\n")
    assert client.answer().status == 200


def test_a_container_cannot_set_our_cookies(gate: Gateway, client: Wire, box: Origin) -> None:
    ask(client, gate.has(next(_names), box.port))
    served(
        box,
        "Set-Cookie: __Host-hoody-c=x; Path=/; Secure",
        "Set-Cookie: =__Host-hoody=x",
        "Set-Cookie: __HOST-Hoody=x",
        "Set-Cookie: own=1",
    )
    assert client.answer().headers["set-cookie"] == "own=1"


# Tokens


@pytest.fixture
def locked(gate: Gateway, box: Origin) -> str:
    return gate.has(next(_names), box.port, access="token")


def container_of(gate: Gateway, host: str) -> str:
    return identified(gate, host.removesuffix(SUFFIX))


def session(answer: Answer) -> str:
    return "Cookie: " + answer.headers["set-cookie"].partition(";")[0]


def test_a_locked_container_is_for_holders_of_a_token(
    gate: Gateway, client: Wire, locked: str, box: Origin
) -> None:
    ask(client, locked)
    answer = client.answer()
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="hoody"'
    ask(client, locked, "Authorization: Basic YTpi")
    assert client.answer().status == 401
    _, secret = gate.ask("token/read")
    ask(client, locked, f"Authorization: Bearer {secret[:-1]}{'AB'[secret[-1] == 'A']}")
    assert client.answer().status == 401
    _, weak = gate.ask("token/pipe")
    ask(client, locked, f"Authorization: Bearer {weak}")
    assert client.answer().status == 403
    assert not box.is_asked
    for scope in ("read", "write", "admin"):
        _, secret = gate.ask(f"token/{scope}")
        ask(client, locked, f"Authorization: Bearer {secret}")
        assert "hdy_" not in served(box)
        assert client.answer().body == b"ok"


def test_a_token_that_is_tied_opens_its_own_container_alone(
    gate: Gateway, client: Wire, locked: str, box: Origin
) -> None:
    other = gate.has(next(_names), box.port, access="token")
    _, secret = gate.ask(f"token/read/{container_of(gate, locked)}")
    ask(client, other, f"Authorization: Bearer {secret}")
    answer = client.answer()
    assert answer.status == 403
    assert "tied to other containers" in answer.text
    ask(client, other, path=f"/?token={secret}")
    assert client.answer().status == 403
    ask(client, locked, f"Authorization: Bearer {secret}")
    served(box)
    assert client.answer().status == 200


def test_a_token_in_the_url_opens_a_session_for_that_container_alone(
    gate: Gateway, client: Wire, locked: str, box: Origin
) -> None:
    _, secret = gate.ask("token/read")
    ask(client, locked, path=f"//evil.example/a?b=%20c&token={secret}&d")
    answer = client.answer()
    assert answer.status == 303
    assert answer.headers["location"] == "/.//evil.example/a?b=%20c&d"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-hoody-c=")
    for part in ("Path=/", "Secure", "HttpOnly", "SameSite=Lax"):
        assert part in cookie.split("; ")
    ask(client, locked, session(answer))
    assert "ookie" not in served(box)
    assert client.answer().body == b"ok"
    other = gate.has(next(_names), box.port, access="token")
    ask(client, other, session(answer))
    assert client.answer().status == 401


def test_the_console_s_session_opens_no_container_nor_the_other_way_round(
    gate: Gateway, client: Wire, locked: str
) -> None:
    token, secret = gate.ask("token/admin")
    console = gate.ask(f"session/{token}").partition("=")[2]
    ask(client, locked, f"Cookie: __Host-hoody-c={console}; __Host-hoody={console}")
    assert client.answer().status == 401
    ask(client, locked, path=f"/?token={secret}")
    mine = client.answer().headers["set-cookie"].partition(";")[0].partition("=")[2]
    assert gate.ask(f"reads/{console}") is True
    assert gate.ask(f"reads/{mine}") is False


@pytest.mark.parametrize("by_cookie", [False, True])
def test_a_token_that_is_revoked_opens_nothing_and_what_it_opened_ends(
    gate: Gateway, client: Wire, locked: str, box: Origin, by_cookie: bool
) -> None:
    token, secret = gate.ask("token/read")
    shown = f"Authorization: Bearer {secret}"
    if by_cookie:
        ask(client, locked, path=f"/?token={secret}")
        shown = session(client.answer())
    ask(client, locked, shown)
    server = box.accept()
    server.request()
    server.respond("Transfer-Encoding: chunked").chunk(b"a")
    client.read_until(b"a\r\n")
    gate.ask(f"revoke/{token}")
    assert b"0\r\n\r\n" not in client.read_all()
    server.read_all()
    with Wire(gate) as again:
        ask(again, locked, shown)
        assert again.answer().status == 401


def test_a_sibling_s_page_may_not_change_things_by_cookie(
    gate: Gateway, client: Wire, locked: str, box: Origin
) -> None:
    _, secret = gate.ask("token/read")
    ask(client, locked, path=f"/?token={secret}")
    cookie = session(client.answer())
    websocket = ["Connection: Upgrade", "Upgrade: websocket"]
    for headers, method in (
        (["Sec-Fetch-Site: same-site"], "DELETE"),
        (["Origin: http://evil.containers.d.localhost"], "DELETE"),
        (["Origin: null"], "DELETE"),
        (["Origin: http://evil.containers.d.localhost", *websocket], "GET"),
        (["Sec-Fetch-Site: cross-site", *websocket], "GET"),
    ):
        ask(client, locked, cookie, *headers, method=method)
        assert client.answer().status == 403
    assert not box.is_asked
    for headers in (["Sec-Fetch-Site: same-origin"], [f"Origin: http://{locked}"], []):
        ask(client, locked, cookie, *headers, method="DELETE")
        served(box)
        assert client.answer().status == 200


def test_wrong_tokens_cost_the_one_who_shows_them(gate: Gateway, locked: str) -> None:
    wrong = "hdy_" + "0" * 24 + "x" * 43
    statuses = []
    with Wire(gate) as client:
        for _ in range(8):
            ask(client, locked, f"Authorization: Bearer {wrong}")
            statuses.append(client.answer().status)
    assert statuses[-1] == 429


# Our own answers


@pytest.mark.parametrize(
    ("why", "title"),
    [
        ("paused", "The container is paused"),
        ("stopped", "The container is stopped"),
        ("failed", "The container has failed"),
        ("silent", "The container does not answer"),
    ],
)
def test_a_container_that_does_not_serve_says_so_as_text_and_as_a_page(
    gate: Gateway, client: Wire, box: Origin, why: str, title: str
) -> None:
    host = gate.has(next(_names), box.port, why=why)
    ask(client, host)
    answer = client.answer()
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert answer.text == f"[ERROR] {host.removesuffix(SUFFIX)} is {why}.\n"
    ask(client, host, HTML)
    is_page(client.answer(), 503, title)
    ask(client, host, HTML, "Content-Length: 0", method="POST")
    assert client.answer().status == 503
    ask(client, host, HTML, method="HEAD")
    assert client.answer(bodiless=True).status == 503


def is_page(answer: Answer, status: int, title: str) -> None:
    assert answer.status == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["vary"] == "Accept"
    assert answer.headers["cache-control"] == "no-store"
    assert f"<title>{title}</title>" in answer.text
    assert f"<h1>{title}</h1>" in answer.text


def test_the_last_words_of_one_that_failed_are_for_holders_of_a_token(
    gate: Gateway, client: Wire, box: Origin
) -> None:
    host = gate.has(next(_names), box.port, why="failed")
    other = gate.has(next(_names), box.port)
    _, tied = gate.ask(f"token/read/{container_of(gate, other)}")
    _, weak = gate.ask("token/pipe")
    _, secret = gate.ask("token/read")
    for shown in ("X: y", f"Authorization: Bearer {weak}", f"Authorization: Bearer {tied}"):
        for accept in (HTML, "Accept: */*"):
            ask(client, host, shown, accept)
            answer = client.answer()
            assert answer.status == 503
            assert "words" not in answer.text
    ask(client, host, f"Authorization: Bearer {secret}")
    assert "\n\n<last> words\nof it\n" in client.answer().text
    ask(client, host, path=f"/?token={secret}")
    ask(client, host, session(client.answer()), HTML)
    assert "&lt;last&gt; words\nof it" in client.answer().text


def test_a_page_asks_for_the_token_and_keeps_what_else_was_asked(
    gate: Gateway, client: Wire, locked: str
) -> None:
    ask(client, locked, HTML, path='/x?a="1"&b=2')
    answer = client.answer()
    is_page(answer, 401, "This needs a token")
    assert '<input type="hidden" name="a" value="&#34;1&#34;">' in answer.text
    assert 'name="token" type="password"' in answer.text
    ask(client, locked, HTML, "Content-Length: 0", method="POST")
    assert "<form" not in client.answer().text


def test_a_browser_shows_the_token_once(gate: Gateway, open_page: OpenPage, box: Origin) -> None:
    label = next(_names)
    host = gate.has(label, box.port, access="token")
    _, secret = gate.ask("token/read")
    page = open_page(f"http://{host}:{gate.port}/x?a=1", allowed="401")
    assert not violations(page)
    page.fill("#token", secret)
    answering = threading.Thread(target=served, args=(box, "Content-Type: text/plain"))
    answering.start()
    page.click("button")
    page.wait_for_url(f"http://{host}:{gate.port}/x?a=1")
    answering.join()
    assert page.inner_text("body") == "ok"


def test_unknown_and_silent_are_pages_too(gate: Gateway, client: Wire, box: Origin) -> None:
    ask(client, "nobody" + SUFFIX, HTML)
    is_page(client.answer(), 404, "No such container")
    host = gate.has(next(_names), box.port)
    box.close()
    ask(client, host, HTML)
    is_page(client.answer(), 502, "The container does not answer")


def test_an_upload_to_nobody_is_refused_and_closed(gate: Gateway, client: Wire) -> None:
    ask(client, "nobody" + SUFFIX, "Content-Length: 1000000", HTML, method="PUT")
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (404, "close")
    assert client.read_all() == b""
