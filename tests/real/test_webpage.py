"""The page that sends and receives, in a browser."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.api import api, database_option
from tests.support.browser import OpenPage, violations
from tests.support.postgres import Postgres
from tests.support.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Dialog, Page

BROKEN = "ERR_|status of 4"
"""What the browser itself says of refusals and of connections that break."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, cluster: Postgres) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("web") / "data"
    with Server(folder, database_option(cluster)) as server:
        yield server


@pytest.fixture
def web(shared: Server) -> Iterator[Server]:
    """The server; nothing of a test may be left in it, once its pages are closed."""
    # While a path is remembered as watched there is a timer, one for all: have it now.
    got(curl(f"{shared.pipe}/first?progress", "-H", "Accept: application/json"))
    before = shared.steady()
    yield shared
    shared.settle(before)


@pytest.fixture
def page(web: Server, open_page: OpenPage) -> Page:
    return open_page(web.pipe)


def curl(url: str, *options: str) -> subprocess.Popen[bytes]:
    command = ["curl", "-sS", "--max-time", "30", *options, url]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def got(receiver: subprocess.Popen[bytes]) -> bytes:
    body, _ = receiver.communicate()
    assert receiver.returncode == 0
    return body


def url_of(page: Page) -> str:
    return page.locator("#url").inner_text()


def send_text(page: Page, text: str, path: str = "", n: int = 1) -> None:
    page.get_by_label("Or type text").fill(text)
    if path:
        page.get_by_label("Path").fill(path)
    page.get_by_label("Receivers").fill(str(n))
    page.get_by_role("button", name="Send", exact=True).click()


def comes_to(page: Page, words: str) -> None:
    """Wait until the page says so."""
    page.locator("#state", has_text=words).wait_for()


def test_who_asks_gets_what_it_can_show(web: Server) -> None:
    for path in ("", "/"):
        asked = subprocess.run(
            ["curl", "-sS", "-i", web.pipe + path], capture_output=True, text=True, check=True
        ).stdout
        assert "Content-Type: text/plain" in asked
        assert "Vary: Accept" in asked
        assert "curl -T FILE" in asked
    answer = api(web).with_token(None).get("/pipe", "-H", "Accept: text/html,*/*;q=0.8")
    assert answer.status == 200
    assert "Content-Type: text/html" in answer.headers
    assert "Vary: Accept" in answer.headers
    assert "Content-Security-Policy: default-src 'none'" in answer.headers
    assert api(web).get("/pipe/noscript").body.startswith("<!doctype html>")
    assert api(web).get("/pipe/help", "-H", "Accept: text/html").body.startswith("hoody pipe")


def test_a_large_file_arrives_as_it_is(web: Server, page: Page, tmp_path: Path) -> None:
    file, kept = tmp_path / "a large file.bin", tmp_path / "got"
    block = hashlib.shake_128(b"page").digest(1_000_000)
    file.write_bytes(block * 100)
    page.locator("#file").set_input_files(file)
    assert "a large file.bin" in page.locator("#chosen").inner_text()
    assert "95.4 MiB" in page.locator("#chosen").inner_text()
    page.get_by_role("button", name="Send", exact=True).click()
    receiver = curl(url_of(page), "-o", str(kept), "-D", str(tmp_path / "head"))
    comes_to(page, "Done")
    got(receiver)
    with file.open("rb") as sent, kept.open("rb") as received:
        digests = [hashlib.file_digest(one, "sha256").digest() for one in (sent, received)]
    assert digests[0] == digests[1]
    assert 'attachment; filename="a large file.bin"' in (tmp_path / "head").read_text()
    assert "95.4 MiB" in page.locator("#numbers").inner_text()


def test_text_goes_to_all_receivers(page: Page) -> None:
    send_text(page, "grüße\nan alle", n=2)
    assert url_of(page).endswith("?n=2")
    comes_to(page, "Waiting for 2 receivers")
    first = curl(url_of(page))
    comes_to(page, "1 of 2 receivers")
    second = curl(url_of(page), "-i")
    comes_to(page, "Done: all of them have all of it")
    assert got(first).decode() == "grüße\nan alle"
    assert b"content-type: text/plain; charset=utf-8" in got(second).lower()


@pytest.mark.parametrize(
    "path", ['año/grüße an\'s "Büro"', "a/../b", "/x", "~/$HOME `id` [1-9]{a,b}*?&#%41+;|<>"]
)
def test_the_receivers_line_works_as_it_stands(page: Page, tmp_path: Path, path: str) -> None:
    file = tmp_path / "it's $HOME.txt"
    file.write_text("from afar")
    page.locator("#file").set_input_files(file)
    page.get_by_label("Path").fill(path)
    page.get_by_role("button", name="Send", exact=True).click()
    assert unquote(urlsplit(url_of(page)).path) == f"/api/v1/pipe/{path}"
    (tmp_path / "there").mkdir()
    line = page.locator("#line").inner_text()
    subprocess.run(["sh", "-c", line], cwd=tmp_path / "there", check=True, capture_output=True)
    assert (tmp_path / "there" / file.name).read_text() == "from afar"
    comes_to(page, "Done")


def test_what_is_shown_can_be_copied(web: Server, open_page: OpenPage) -> None:
    page = open_page(web.pipe, permissions=["clipboard-read", "clipboard-write"])
    for shown in ("line", "url"):
        page.locator(f"[data-copy={shown}]").click()
        page.locator(f"[data-copy={shown}]", has_text="Copied").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == page.locator(f"#{shown}").inner_text()


def test_a_receiver_that_breaks_off_is_told_of(web: Server, open_page: OpenPage) -> None:
    page = open_page(web.pipe, allowed=BROKEN)
    send_text(page, "x" * 1_000_000)
    comes_to(page, "Waiting for the receiver")
    with socket.create_connection((web.host, web.port)) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        path = urlsplit(url_of(page)).path
        receiver.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        receiver.recv(1000)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    comes_to(page, "It failed")
    assert "nobody is left to send to" in page.locator("#why").inner_text()
    page.get_by_role("button", name="Send again").click()
    comes_to(page, "Waiting for the receiver")
    assert got(curl(url_of(page))) == b"x" * 1_000_000
    comes_to(page, "Done")


def large_file(page: Page, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(150_000_000))
    page.locator("#file").set_input_files(tmp_path / "file")
    page.get_by_role("button", name="Send", exact=True).click()


def test_a_large_file_that_breaks_off_is_told_of(
    web: Server, open_page: OpenPage, tmp_path: Path
) -> None:
    """A browser reads no answer while it sends: it is told by the progress of the path."""
    page = open_page(web.pipe, allowed=BROKEN)
    large_file(page, tmp_path)
    comes_to(page, "Waiting for the receiver")
    receiver = curl(url_of(page), "-o", "/dev/null", "--limit-rate", "20M")
    comes_to(page, "Sending")
    page.locator("#numbers", has_text=re.compile(r"\d MiB of 143 MiB\s*\d.* MB/s")).wait_for()
    receiver.kill()
    receiver.communicate()
    comes_to(page, "It failed")
    assert "nobody is left to send to" in page.locator("#why").inner_text()


def test_what_progress_tells_is_believed(web: Server, open_page: OpenPage, tmp_path: Path) -> None:
    """A browser sends again by itself when its connection breaks: it must be stopped."""
    page = open_page(web.pipe, allowed=BROKEN)
    there = {"hasSender": True, "activeReceivers": 1, "receivers": 1}
    told = [
        ("state", {"state": "complete", "hasSender": False, "activeReceivers": 0}),
        ("done", {"state": "failed", "error": "This was another one."}),
        ("state", {"state": "waiting", **there, "activeReceivers": 0}),
        ("state", {"state": "streaming", **there}),
        ("progress", {"bytes": 75_000_000, "speed": 2_500_000, "eta": 30}),
        ("done", {"state": "failed", "error": "The receiver broke off."}),
    ]
    text = "".join(f"event: {name}\nid: 1\ndata: {json.dumps(data)}\n\n" for name, data in told)
    page.route(
        re.compile(r"\?progress$"),
        lambda route: route.fulfill(content_type="text/event-stream", body=text),
    )
    large_file(page, tmp_path)
    comes_to(page, "It failed")
    assert page.locator("#why").inner_text() == "The receiver broke off."
    assert "71.5 MiB of 143 MiB" in page.locator("#numbers").inner_text()
    web.waiting(0)


def test_stop_ends_it_on_both_sides(web: Server, page: Page, tmp_path: Path) -> None:
    send_text(page, "never mind", n=2)
    receiver = curl(url_of(page))
    comes_to(page, "1 of 2 receivers")
    page.get_by_role("button", name="Stop").click()
    comes_to(page, "Stopped")
    receiver.kill()
    receiver.communicate()
    web.waiting(0)
    page.get_by_role("button", name="Send something else").click()
    assert page.get_by_label("Or type text").input_value() == ""


WRONG = [
    ("Path", "", "The path is empty"),
    ("Path", "./..", "The path is empty"),
    ("Path", "Help/", "The path help is reserved"),
    ("Path", "a\\b", "backslash"),
    ("Path", "a\x7fb", "control character"),
    ("Path", "x" * 1025, "too long"),
    ("Receivers", "0", "from 1 to 256"),
    ("Receivers", "257", "from 1 to 256"),
    ("Receivers", "1.5", "from 1 to 256"),
]


def test_what_cannot_be_sent_is_refused_with_a_sentence(page: Page) -> None:
    page.get_by_label("Or type text").fill("x")
    for field, value, sentence in WRONG:
        page.get_by_label(field).fill(value)
        page.get_by_role("button", name="Send", exact=True).click()
        assert sentence in page.get_by_role("alert").inner_text()
        assert page.get_by_label(field).evaluate("field => field === document.activeElement")
        page.get_by_label(field).fill("7")
        assert page.locator("#problem").inner_text() == ""


def test_nothing_is_not_sent(page: Page) -> None:
    page.get_by_role("button", name="Send", exact=True).click()
    assert "Choose a file" in page.get_by_role("alert").inner_text()


def test_the_servers_refusal_is_shown(web: Server, open_page: OpenPage, name: str) -> None:
    page = open_page(web.pipe, allowed=BROKEN)
    first = curl(f"{web.pipe}/{name}", "-d", "first")
    web.waiting(1)
    send_text(page, "second", path=name)
    comes_to(page, "It failed")
    assert "A sender is on this path already" in page.locator("#why").inner_text()
    first.kill()
    first.communicate()


def test_a_file_is_dropped(page: Page) -> None:
    drop = """names => {
        const data = new DataTransfer();
        for (const name of names) data.items.add(new File(["dropped"], name));
        const how = { dataTransfer: data, bubbles: true, cancelable: true };
        document.getElementById("drop").dispatchEvent(new DragEvent("drop", how));
    }"""
    page.evaluate(drop, ["one.txt", "two.txt"])
    assert "One file at a time" in page.get_by_role("alert").inner_text()
    page.evaluate(drop, ["one.txt"])
    page.get_by_role("button", name="Send", exact=True).click()
    assert got(curl(url_of(page))) == b"dropped"
    comes_to(page, "Done")


def test_it_receives(web: Server, page: Page, tmp_path: Path, name: str) -> None:
    page.get_by_label("Receive", exact=True).check()
    page.get_by_label("Path").fill(f"{name}/ö")
    with page.expect_download() as download:
        page.get_by_role("button", name="Receive").click()
        (tmp_path / "report.txt").write_text("all is well")
        sender = curl(
            f"{web.pipe}/{name}/%C3%B6", "-F", f"file=@{tmp_path / 'report.txt'};type=text/html"
        )
    assert download.value.suggested_filename == "report.txt"
    assert Path(download.value.path()).read_text() == "all is well"
    assert b"Transfer complete." in got(sender)


def test_it_is_used_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("button", name="Receive").is_visible()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    page.keyboard.press("Tab")
    page.keyboard.type("by hand")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("keys/only")
    page.keyboard.press("Enter")
    comes_to(page, "Waiting for the receiver")
    assert page.evaluate("document.activeElement.id") == "stop"
    page.keyboard.press("Enter")
    comes_to(page, "Stopped")
    assert page.evaluate("document.activeElement.id") == "again"
    page.keyboard.press("Enter")
    assert got(curl(url_of(page))) == b"by hand"
    comes_to(page, "Done")


def test_leaving_while_it_runs_is_asked_about(page: Page) -> None:
    send_text(page, "x")
    comes_to(page, "Waiting for the receiver")
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    page.close(run_before_unload=True)
    while not asked:
        page.wait_for_timeout(20)
    assert asked == ["beforeunload"]
    page.get_by_role("button", name="Stop").click()


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_in_any_state(
    web: Server, open_page: OpenPage, tmp_path: Path, colours: str, width: int
) -> None:
    page = open_page(web.pipe, colours=colours, width=width, allowed=BROKEN)

    def check() -> None:
        assert not violations(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    check()
    page.get_by_label("Receive", exact=True).check()
    check()
    page.get_by_role("button", name="Receive").click()
    assert page.get_by_role("alert").inner_text()
    check()
    page.get_by_label("Send", exact=True).check()
    (tmp_path / ("long name " * 10)).write_text("x")
    page.locator("#file").set_input_files(tmp_path / ("long name " * 10))
    check()
    page.get_by_role("button", name="Send", exact=True).click()
    comes_to(page, "Waiting")
    check()
    page.get_by_role("button", name="Stop").click()
    check()
    page.get_by_role("button", name="Send again").click()
    comes_to(page, "Waiting")
    web.waiting(1)
    other = curl(url_of(page), "-d", "x")
    other.communicate()
    got(curl(url_of(page)))
    comes_to(page, "Done")
    check()
    holder = curl(url_of(page), "-d", "x")
    web.waiting(1)
    page.get_by_role("button", name="Send again").click()
    comes_to(page, "It failed")
    check()
    holder.kill()
    holder.communicate()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_in_the_plain_page(
    web: Server, open_page: OpenPage, colours: str
) -> None:
    page = open_page(f"{web.pipe}/noscript", colours=colours, width=390, allowed="status of 400")
    assert not violations(page)
    page.goto(f"{web.pipe}/noscript?path={'long' * 50}&n=2")
    assert not violations(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.goto(f"{web.pipe}/noscript?path=help&n=2")
    assert page.get_by_role("alert").inner_text()
    assert not violations(page)


# Without scripts


@pytest.fixture
def plain(web: Server, open_page: OpenPage) -> Page:
    """What the page itself offers without scripts leads to the plain one."""
    return open_page(web.pipe, javascript=False, width=390)


def test_a_file_goes_by_a_plain_form(plain: Page, tmp_path: Path) -> None:
    (tmp_path / "grüße.txt").write_text("by a form")
    plain.get_by_label("Path").fill("a form's/ü")
    plain.get_by_label("Receivers").fill("2")
    plain.get_by_role("button", name="Go on").click()
    assert plain.get_by_label("Path").input_value() == "a form's/ü"
    line = plain.locator("#line").inner_text()
    other = curl(url_of(plain), "-i")
    shown = subprocess.Popen(["sh", "-c", line], cwd=tmp_path, stderr=subprocess.DEVNULL)
    plain.get_by_label("File", exact=True).set_input_files(tmp_path / "grüße.txt")
    plain.get_by_role("button", name="Send the file").click()
    plain.frame_locator("iframe").get_by_text("Transfer complete.").wait_for()
    assert b"filename*=UTF-8''gr%C3%BC%C3%9Fe.txt" in got(other)
    assert shown.wait(10) == 0
    assert (tmp_path / "file").read_text() == "by a form"


def test_text_goes_by_a_plain_form(plain: Page) -> None:
    plain.get_by_role("button", name="Go on").click()
    receiver = curl(url_of(plain), "-i")
    plain.get_by_label("Text", exact=True).fill("grüße\nohne Skript")
    plain.get_by_role("button", name="Send the text").click()
    plain.frame_locator("iframe").get_by_text("Transfer complete.").wait_for()
    head, _, body = got(receiver).partition(b"\r\n\r\n")
    assert body.decode() == "grüße\r\nohne Skript"
    assert b"Content-Type: text/plain; charset=utf-8" in head
    assert b"\r\nContent-Disposition:" not in head


def test_a_plain_link_receives(web: Server, plain: Page, name: str) -> None:
    plain.get_by_label("Path").fill(name)
    plain.get_by_role("button", name="Go on").click()
    sender = curl(f"{web.pipe}/{name}", "-d", "plainly")
    with plain.expect_download() as download:
        plain.get_by_role("link", name="Receive it").click()
    assert Path(download.value.path()).read_text() == "plainly"
    assert b"Transfer complete." in got(sender)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("path=HELP", "reserved"),
        ("path=.", "empty"),
        ("path=a%5Cb", "backslash"),
        ("path=" + "x" * 1025, "too long"),
        ("path=x&n=0", "from 1 to 256"),
        ("path=%3Cscript%3E&n=%22%3E", "from 1 to 256"),
    ],
)
def test_the_plain_page_refuses_with_a_sentence(web: Server, query: str, sentence: str) -> None:
    answer = api(web).get(f"/pipe/noscript?{query}")
    assert answer.status == 400
    assert "Content-Type: text/html" in answer.headers
    assert sentence in answer.body
    assert "<script" not in answer.body


def test_on_the_pipes_own_host_urls_are_short(web: Server, open_page: OpenPage) -> None:
    home = f"http://pipe.hoody.localhost:{web.port}"
    page = open_page(home)
    send_text(page, "short", path="a b")
    assert url_of(page) == f"{home}/a%20b"
    assert got(curl(url_of(page))) == b"short"
    comes_to(page, "Done")
    page.get_by_role("link", name="Without JavaScript").click()
    page.get_by_label("Path").fill("/a")
    page.get_by_role("button", name="Go on").click()
    assert url_of(page) == f"{home}/%2Fa"
    assert page.url.startswith(f"{home}/noscript")


# For holders of a token


@pytest.fixture
def closed(tmp_path: Path, cluster: Postgres) -> Iterator[Server]:
    with Server(tmp_path / "data", "--pipe-auth=token", database_option(cluster)) as server:
        yield server


def test_with_a_token(closed: Server, open_page: OpenPage) -> None:
    server = closed
    token = api(server).token
    page = open_page(server.pipe, allowed=BROKEN)
    assert not violations(page)
    send_text(page, "a secret")
    comes_to(page, "It failed")
    assert "token" in page.locator("#why").inner_text().lower()
    page.get_by_role("button", name="Send something else").click()
    page.get_by_label("Token").fill(str(token))
    send_text(page, "a secret")
    comes_to(page, "Waiting for the receiver")
    line = page.locator("#line").inner_text().partition(" > ")[0]
    done = subprocess.run(
        ["sh", "-c", line], env={"TOKEN": str(token)}, capture_output=True, check=True
    )
    assert done.stdout == b"a secret"
    comes_to(page, "Done")
    page.get_by_role("button", name="Send something else").click()
    page.get_by_label("Receive", exact=True).check()
    assert "token" in page.locator("#form").inner_text()
    assert not page.get_by_role("button", name="Receive").is_visible()
    page.goto(f"{server.pipe}/noscript?path=x")
    assert page.locator("input[type=file]").count() == 0
    assert "Bearer $TOKEN" in page.locator("#line").inner_text()
    page.close()
