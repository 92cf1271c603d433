"""The page of a pipe that is being watched, in a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.support.browser import OpenPage, violations
from tests.support.server import Server
from tests.support.wire import Wire

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # Heartbeats come sooner so; a shell's line ends with the first that nobody takes.
    with Server(tmp_path_factory.mktemp("dashboard") / "data", "--stream-timeout=4s") as server:
        yield server


def url(server: Server, path: str, more: str = "") -> str:
    return f"{server.pipe}/{path}?progress{more}"


@contextmanager
def running(
    server: Server, path: str, query: str = ""
) -> Iterator[tuple[Wire, subprocess.Popen[bytes]]]:
    """One that runs; its receiver is curl, which reads all that comes."""
    receiver = subprocess.Popen(["curl", "-s", "-o", "/dev/null", f"{server.pipe}/{path}"])
    try:
        with Wire(server) as sender:
            sender.put(path + query, "Transfer-Encoding: chunked")
            sender.read_line("[INFO] Streaming to 1 receiver(s)...")
            yield sender, receiver
    finally:
        receiver.kill()
        receiver.wait()


def finish(sender: Wire) -> None:
    sender.last_chunk()
    sender.read_line("[INFO] Transfer complete.")


def fact(page: Page, name: str) -> str:
    return page.locator(f"[data-fact={name}] dd").inner_text().replace("\n", " ").strip()


def is_in(page: Page, state: str) -> None:
    """Return when it shows this state."""
    page.locator(f"#board[data-state={state}]").wait_for()


def says(page: Page, element: str, text: str) -> None:
    """Return when this is to be read there."""
    page.locator(element, has_text=re.compile(text)).wait_for()


def test_all_that_becomes_of_a_pipe_is_seen_without_a_reload(
    shared: Server, name: str, open_page: OpenPage
) -> None:
    page = open_page(url(shared, name), width=390, height=844)
    page.evaluate("window.same = true")
    says(page, "#link", "Live")
    assert page.inner_text("h1") == name
    assert page.title() == f"Nobody here · {name}"
    with running(shared, name, "?size=4M&digest=sha256") as (sender, _):
        is_in(page, "streaming")
        sender.chunk(b"x" * 2**20)
        says(page, "#headline", r"^25\.0%$")
        assert page.title() == f"25% · {name}"
        assert "stroke-dasharray%3D%2225%20100" in str(page.get_attribute("#icon", "href"))
        assert page.get_attribute("#bar", "value") == "25"
        assert fact(page, "bytes") == "1.00 MiB of 4.00 MiB"
        assert re.fullmatch(r"[0-9.]+ MB/s", fact(page, "speed"))
        assert fact(page, "receivers") == "1 of 1"
        says(page, "[data-fact=eta]", "until")
        says(page, "[data-fact=elapsed]", "0:00:0[1-9]")
        for _ in range(3):
            sender.chunk(b"x" * 2**20)
            time.sleep(0.8)
        page.locator("#plot").wait_for()
        finish(sender)
    is_in(page, "complete")
    assert page.title() == f"Done · {name}"
    assert page.inner_text("#headline") == "Done"
    says(page, "#sentence", r"4\.00 MiB in \d")
    assert fact(page, "digest").startswith("sha256:")
    assert page.evaluate("window.same")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_without_a_total_the_bar_says_only_that_it_goes_on(
    shared: Server, name: str, open_page: OpenPage
) -> None:
    page = open_page(url(shared, name))
    with running(shared, name) as (sender, _):
        sender.chunk(b"x" * 5000)
        says(page, "#headline", "^4.88 KiB$")
        assert page.get_attribute("#bar", "value") is None
        assert page.title() == f"On its way · {name}"
        assert fact(page, "eta") == "\N{EN DASH}"
        finish(sender)
    is_in(page, "complete")


def test_who_waits_and_for_whom_is_said(shared: Server, name: str, open_page: OpenPage) -> None:
    page = open_page(url(shared, name))
    with Wire(shared) as receiver, Wire(shared) as sender:
        receiver.get(f"{name}?n=3")
        says(page, "#sentence", "^1 receiver here; the sender is still to come.$")
        sender.put(f"{name}?n=3", "Content-Length: 1")
        says(page, "#sentence", "^The sender is here; 2 receivers still to come.$")
        assert fact(page, "receivers") == "1 of 3"
    is_in(page, "idle")


def test_a_failure_says_why_and_how_far_it_came(
    shared: Server, name: str, open_page: OpenPage
) -> None:
    page = open_page(url(shared, name))
    with running(shared, name, "?size=8000") as (sender, receiver):
        sender.chunk(b"x" * 2000)
        says(page, "#headline", r"^25\.0%$")
        receiver.kill()
        sender.read_all()
    is_in(page, "failed")
    says(page, "#sentence", "The receiver broke off")
    assert fact(page, "bytes") == "1.95 KiB of 7.81 KiB"
    assert page.title() == f"Failed · {name}"


@pytest.mark.parametrize("state", ["idle", "waiting", "streaming", "complete", "failed"])
def test_the_page_says_the_same_with_and_without_scripts(
    shared: Server, name: str, open_page: OpenPage, state: str
) -> None:
    with stage(shared, name, state):
        pages = [
            open_page(url(shared, name), javascript=javascript, timezone_id="UTC", locale="en-GB")
            for javascript in (True, False)
        ]
        says(pages[0], "#link", "Live")
        words = [
            [
                page.title(),
                *(
                    " ".join(page.inner_text(part).split())
                    for part in ("#headline", "#sentence", "dl")
                ),
            ]
            for page in pages
        ]
        # Times go on, and dates are said as a place says them.
        plain = [
            re.sub(
                r"[0-9:]{7}|\d\d/\d\d/\d{4}|\d{4}-\d\d-\d\d|[0-9.]+ MB/s| UTC|\d+ (s|min|h)\b",
                "",
                " ".join(one),
            )
            for one in words
        ]
        assert plain[0].split() == plain[1].split()
        refreshes = pages[1].locator("noscript meta[http-equiv=refresh]").count()
        assert refreshes == (state in ("idle", "waiting", "streaming"))


@contextmanager
def stage(server: Server, path: str, state: str) -> Iterator[None]:
    """Bring a path into a state."""
    if state == "waiting":
        with Wire(server) as receiver:
            receiver.get(f"{path}?n=2")
            server.waiting(1)
            yield
    elif state == "idle":
        yield
    else:
        with running(server, path, "?size=9000") as (sender, receiver):
            sender.chunk(b"x" * 3000)
            time.sleep(0.5)
            if state == "complete":
                finish(sender)
            elif state == "failed":
                receiver.kill()
                sender.read_all()
            yield


def test_it_is_right_without_scripts_and_refreshes_itself(
    shared: Server, name: str, open_page: OpenPage
) -> None:
    page = open_page(url(shared, name), javascript=False)
    assert page.inner_text("#headline") == "Nobody here yet"
    with running(shared, name, "?size=4000") as (sender, _):
        sender.chunk(b"x" * 1000)
        says(page, "#headline", r"^25\.0%$")
        finish(sender)
    says(page, "#headline", "^Done$")


def test_it_finds_the_server_again_after_a_restart(
    tmp_path: Path, name: str, open_page: OpenPage
) -> None:
    first = Server(tmp_path)
    page = open_page(url(first, name), allowed="ERR_")
    says(page, "#link", "Live")
    first.stop()
    says(page, "#link", "trying to reach the server")
    with Server(tmp_path, listen=f"tcp:{first.port}:interface=127.0.0.1") as second:
        says(page, "#link", "Live")
        with running(second, name) as (sender, _):
            is_in(page, "streaming")
            finish(sender)
        is_in(page, "complete")


def test_it_does_not_give_up_as_a_browser_does_after_a_503(
    shared: Server, name: str, open_page: OpenPage
) -> None:
    page = open_page(url(shared, name), allowed="503")
    refused: list[str] = []

    def refuse(route: Route) -> None:
        """Two streams, as a proxy in front of a server that is not there."""
        if route.request.resource_type == "eventsource" and len(refused) < 2:
            refused.append(route.request.url)
            route.fulfill(status=503)
        else:
            route.continue_()

    page.route(re.compile("progress"), refuse)
    page.reload()
    says(page, "#link", "trying to reach the server")
    says(page, "#link", "Live")
    assert len(refused) == 2


def test_the_embedded_page_may_be_in_a_frame_and_the_whole_one_not(
    shared: Server, name: str, open_page: OpenPage
) -> None:
    def policy(more: str, server: Server = shared) -> str:
        said = subprocess.run(
            ["curl", "-si", "-H", "Accept: text/html", url(server, name, more)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = re.search("(?i)^content-security-policy: .*frame-ancestors (.*)$", said, re.M)
        assert found is not None
        return found[1].strip()

    assert (policy(""), policy("&embed=1")) == ("'none'", "*")
    page = open_page(url(shared, name, "&embed=1"), width=360, height=300)
    assert page.locator("details, footer").count() == 0
    frame = open_page(f"{shared.pipe}/help")
    frame.set_content(f'<iframe src="{url(shared, name, "&embed=1")}"></iframe>')
    frame.frame_locator("iframe").locator("#headline").wait_for()


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("state", ["idle", "streaming", "complete", "failed"])
def test_axe_finds_nothing(
    shared: Server, name: str, open_page: OpenPage, state: str, colours: str
) -> None:
    with stage(shared, name, state):
        page = open_page(url(shared, name), width=390, height=844, colours=colours)
        page.locator("summary").click()
        assert violations(page) == []


def test_a_screen_reader_is_told_of_changes_and_not_of_every_number(
    shared: Server, name: str, open_page: OpenPage
) -> None:
    page = open_page(url(shared, name))
    page.evaluate(
        """() => {
            window.said = [];
            for (const live of document.querySelectorAll("[role=status], [aria-live]")) {
                new MutationObserver(() => window.said.push(live.textContent))
                    .observe(live, { childList: true, characterData: true, subtree: true });
            }
        }"""
    )
    says(page, "#link", "Live")
    with running(shared, name, "?size=9000") as (sender, _):
        for _ in range(6):
            sender.chunk(b"x" * 1000)
            time.sleep(0.3)
        finish(sender)
    is_in(page, "complete")
    assert len(page.evaluate("window.said")) <= 6


def test_numbers_do_not_make_the_layout_jump(
    shared: Server, name: str, open_page: OpenPage
) -> None:
    page = open_page(url(shared, name), width=390, height=844)
    with running(shared, name, "?size=2000000") as (sender, _):
        boxes = set()
        for size in (1, 1000, 99_000, 900_000):
            sender.chunk(b"x" * size)
            time.sleep(0.35)
            boxes.add(json.dumps(page.locator(".card").bounding_box()))
        finish(sender)
    # It grows once, when there is a speed to be drawn.
    assert len(boxes) <= 2


def test_it_says_so_when_the_server_hangs(tmp_path: Path, name: str, open_page: OpenPage) -> None:
    """To a browser, a stream in which nothing comes is a stream like any other."""
    with Server(tmp_path, "--stream-timeout=4s") as server:
        page = open_page(url(server, name), allowed="ERR_")
        says(page, "#link", "Live")
        time.sleep(2)
        assert page.inner_text("#link") == "Live"
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            says(page, "#link", "trying to reach the server")
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        says(page, "#link", "Live")


def test_it_says_so_when_the_phone_has_no_net(
    shared: Server, name: str, open_page: OpenPage
) -> None:
    page = open_page(url(shared, name), allowed="ERR_")
    says(page, "#link", "Live")
    page.context.set_offline(True)
    says(page, "#link", "trying to reach the server")
    page.context.set_offline(False)
    says(page, "#link", "Live")


@pytest.mark.parametrize("how", ["complete", "failed"])
def test_the_ready_lines_work_as_they_stand(
    shared: Server, name: str, open_page: OpenPage, how: str
) -> None:
    path = f'{name}/it\'s & "more" | $HOME'
    encoded = quote(path)
    with running(shared, encoded) as (sender, _):
        finish(sender)  # the end of another night, which no bot is to tell of
    page = open_page(url(shared, encoded))
    page.locator("summary").click()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    lines = []
    for button in page.locator("[data-copy]").all():
        button.click()
        lines.append(str(page.evaluate("navigator.clipboard.readText()")))
    assert lines == page.locator("pre").all_inner_texts()
    slack = {**os.environ, "SLACK": f"{shared.pipe}/{name}-slack"}
    told = subprocess.Popen(["curl", "-si", slack["SLACK"]], stdout=subprocess.PIPE, text=True)
    bots = [
        subprocess.Popen(
            ["sh", "-c", line], stdout=subprocess.PIPE, text=True, env=slack, process_group=0
        )
        for line in lines
    ]
    events, once, _, pager = bots
    try:
        assert json.loads(once.communicate(timeout=10)[0])["state"] == "complete"
        time.sleep(1)
        with running(shared, encoded, "?size=3000") as (sender, receiver):
            sender.chunk(b"x" * 1000)
            time.sleep(0.5)
            if how == "complete":
                finish(sender)
            else:
                receiver.kill()
                sender.read_all()
        head, _, message = told.communicate(timeout=20)[0].partition("\n\n")
        assert "content-type: application/json" in head.lower()
        ending = " is done: 1000 bytes in " if how == "complete" else " broke off: "
        assert json.loads(message)["text"].startswith(path + ending)
        assert pager.communicate(timeout=20)[0].startswith(f'page somebody: {{"state": "{how}"')
    finally:
        for bot in bots:
            with suppress(ProcessLookupError):
                os.killpg(bot.pid, signal.SIGKILL)
    assert f'"state":"{how}"' in events.communicate()[0].partition("event: progress")[2]
