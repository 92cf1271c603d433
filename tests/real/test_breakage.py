"""Peers that break off, at every moment, in every way."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.support.server import Server
from tests.support.wire import Wire, fill

Ending = Callable[[Wire], object]


def fin(wire: Wire) -> None:
    wire.close()


def rst(wire: Wire) -> None:
    wire.reset()


ENDS = pytest.mark.parametrize("end", [fin, rst])
SEED = 20260504


@ENDS
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 3000000"])
def test_a_sender_that_dies_at_a_random_byte_leaves_a_broken_body(
    server: Server, name: str, end: Ending, version: str, framing: str
) -> None:
    chance = random.Random(f"{SEED} {end} {version} {framing}")
    chunked = "chunked" in framing
    body = chance.randbytes(3_000_000)
    for _ in range(6):
        cut = chance.choice([0, 1, chance.randrange(100), chance.randrange(len(body))])
        sent = b"%x\r\n%s\r\n" % (len(body), body) if chunked else body
        with Wire(server) as receiver:
            receiver.get(name, version=version)
            server.waiting(1)
            sender = Wire(server)
            sender.put(name, framing)
            sender.read_line("[INFO] Streaming to 1 receiver(s)...")
            sending = threading.Thread(target=_send_then, args=(sender, sent[:cut], end))
            sending.start()
            answer = receiver.answer()
            sending.join()
        assert answer.status == 200
        assert not answer.whole
        assert body.startswith(answer.body)


def _send_then(sender: Wire, data: bytes, end: Ending) -> None:
    with contextlib.suppress(OSError):
        sender.send(data)
    end(sender)


@ENDS
def test_a_sender_that_dies_while_it_waits_frees_its_place(
    server: Server, name: str, end: Ending
) -> None:
    for sent in (b"", b"5\r\nhel", b"5\r\nhello\r\n", b"5\r\nhello\r\n0\r\n\r\n"):
        sender = Wire(server)
        sender.put(name, "Transfer-Encoding: chunked").send(sent)
        sender.read_line("[INFO] Waiting for 1 receiver(s) to connect...")
        end(sender)
        server.waiting(0)


def test_a_killed_curl_frees_its_place(server: Server, name: str) -> None:
    """Its body stands in the kernel, cut off; its end has been heard all the same."""
    sender = subprocess.Popen(
        ["curl", "-sN", "-T", "-", f"{server.pipe}/{name}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert sender.stdin is not None
    assert sender.stdout is not None
    sender.stdin.write(b"x" * 20_000)
    sender.stdin.flush()
    server.waiting(1)
    assert sender.stdout.readline().startswith(b"[INFO] Waiting")
    time.sleep(0.3)
    sender.send_signal(signal.SIGKILL)
    sender.communicate()
    server.waiting(0)


def test_a_killed_sender_whose_kernel_still_has_its_bytes_is_noticed_with_the_next_note(
    serve: Serve, name: str
) -> None:
    """Its end stands behind bytes that nobody takes; but it answers a line with a reset."""
    server = serve("--waiting-note=500ms")
    with Wire(server) as sender:
        sender.put(name, "Transfer-Encoding: chunked")
        sender.read_line("[INFO] Waiting for 1 receiver(s) to connect...")
        fill(sender, seconds=0.2)
    server.waiting(0)


def test_whoever_comes_behind_a_killed_sender_finds_its_place_free(
    server: Server, name: str
) -> None:
    """At the second attempt: the first is what makes the server ask."""
    with Wire(server) as dead:
        dead.put(name, "Transfer-Encoding: chunked")
        dead.read_line("[INFO] Waiting for 1 receiver(s) to connect...")
        fill(dead, seconds=0.2)
    with Wire(server) as refused:
        refused.put(name, "Content-Length: 2").send(b"hi")
        assert refused.answer().status == 400
    server.waiting(0)
    with Wire(server) as sender:
        sender.put(name, "Content-Length: 2").send(b"hi")
        sender.read_line("[INFO] Waiting for 1 receiver(s) to connect...")


@pytest.mark.parametrize("size", [0, 3, 20_000])
def test_a_killed_curl_with_a_whole_file_frees_its_place(
    server: Server, name: str, size: int, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * size)
    sender = subprocess.Popen(
        ["curl", "-sN", "-T", str(file), f"{server.pipe}/{name}"], stdout=subprocess.PIPE
    )
    server.waiting(1)
    time.sleep(0.2)
    sender.kill()
    sender.communicate()
    server.waiting(0)


@ENDS
@pytest.mark.parametrize("n", [1, 3])
def test_a_receiver_that_dies_before_the_start_frees_its_place(
    server: Server, name: str, end: Ending, n: int
) -> None:
    with Wire(server) as sender:
        sender.put(f"{name}?n={n}", "Transfer-Encoding: chunked")
        others = [Wire(server).get(f"{name}?n={n}") for _ in range(n - 1)]
        server.waiting(n)
        for receiver in others[:1]:
            end(receiver)
            sender.read_line("[INFO] A receiver left before the start; 1 still connected.")
        others[:1] = [Wire(server).get(f"{name}?n={n}") for _ in others[:1]]
        server.waiting(n)
        others.append(Wire(server).get(f"{name}?n={n}"))
        sender.read_line(f"[INFO] Streaming to {n} receiver(s)...")
        sender.chunk(b"hello").last_chunk()
        for receiver in others:
            assert receiver.answer().body == b"hello"
            receiver.close()


@ENDS
def test_an_only_receiver_that_dies_alone_leaves_nothing(
    server: Server, name: str, end: Ending
) -> None:
    receiver = Wire(server).get(name)
    server.waiting(1)
    end(receiver)
    server.wait_until(lambda counts: counts.paths == 0)


@ENDS
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("moment", ["at the start", "after some bytes"])
def test_when_all_receivers_die_the_sender_is_told_and_closed(
    server: Server, name: str, end: Ending, n: int, moment: str
) -> None:
    with Wire(server) as sender:
        receivers = [Wire(server).get(f"{name}?n={n}") for _ in range(n)]
        server.waiting(n)
        sender.put(f"{name}?n={n}", "Transfer-Encoding: chunked")
        sender.read_line(f"[INFO] Streaming to {n} receiver(s)...")
        if moment == "after some bytes":
            sender.chunk(b"hello")
            for receiver in receivers:
                receiver.read_until(b"hello")
        for receiver in receivers:
            end(receiver)
        told = sender.read_all().decode()
        assert sender.ended == "closed"
    assert "broke off; nobody is left to send to.\n" in told
    assert told.rstrip("\r\n").splitlines()[-1].startswith("[ERROR]")
    assert "\r\n0\r\n" not in told, "the answer must not look whole"


@ENDS
def test_the_others_go_on_when_one_of_three_dies(server: Server, name: str, end: Ending) -> None:
    with Wire(server) as sender:
        receivers = [Wire(server).get(f"{name}?n=3") for _ in range(3)]
        server.waiting(3)
        sender.put(f"{name}?n=3", "Transfer-Encoding: chunked")
        sender.chunk(b"hello")
        for receiver in receivers:
            receiver.read_until(b"hello\r\n")
        end(receivers.pop(1))
        sender.read_line("; 2 left.")
        sender.chunk(b"world").last_chunk()
        for receiver in receivers:
            assert receiver.read_until(b"0\r\n\r\n") == b"5\r\nworld\r\n0\r\n\r\n"
            receiver.close()
        assert b"[ERROR] Only 2 of 3 receivers got everything.\n" in sender.read_all()


def test_curl_fails_on_both_sides_of_a_broken_transfer(server: Server, name: str) -> None:
    """What a script sees: an exit code."""
    receiver = subprocess.Popen(["curl", "-s", f"{server.pipe}/{name}"], stdout=subprocess.PIPE)
    server.waiting(1)
    sender = subprocess.Popen(
        ["curl", "-sN", "-T", "-", f"{server.pipe}/{name}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert sender.stdin is not None
    sender.stdin.write(b"x" * 200_000)
    sender.stdin.flush()
    server.wait_until(lambda counts: counts.running == 1)
    sender.kill()
    sender.communicate()
    receiver.communicate()
    assert receiver.returncode == 18  # CURLE_PARTIAL_FILE

    receiver = subprocess.Popen(["curl", "-s", f"{server.pipe}/{name}"], stdout=subprocess.PIPE)
    server.waiting(1)
    upload = f"cat /dev/zero | curl -sN -T - {server.pipe}/{name}"
    sender = subprocess.Popen(["sh", "-c", upload], stdout=subprocess.PIPE)
    server.wait_until(lambda counts: counts.running == 1)
    receiver.kill()
    receiver.communicate()
    told = sender.communicate()[0]
    assert sender.returncode != 0
    assert b"[ERROR] The receiver broke off" in told


def test_no_other_transfer_notices(server: Server, name: str) -> None:
    with Wire(server) as steady, Wire(server) as reader:
        reader.get(f"{name}-steady")
        steady.put(f"{name}-steady", "Transfer-Encoding: chunked")
        reader.head()
        for number in range(30):
            with Wire(server) as sender, Wire(server) as receiver:
                receiver.get(name)
                sender.put(name, "Transfer-Encoding: chunked").chunk(b"x" * 10_000)
                (sender if number % 2 else receiver).reset()
            steady.chunk(b"%04d" % number)
            assert reader.read_until(b"\r\n%04d\r\n" % number)
            server.wait_until(lambda counts: counts.running == 1)
        steady.last_chunk()
        assert reader.read_until(b"0\r\n\r\n")


def test_a_sender_that_resets_after_its_whole_body_has_sent_it(server: Server, name: str) -> None:
    """A client that does not read its answer closes with a reset; its bytes are here."""
    with Wire(server) as receiver:
        receiver.get(name)
        sender = Wire(server)
        sender.put(name, "Content-Length: 3000000")
        sender.read_line("[INFO] Streaming to 1 receiver(s)...")
        sender.send(b"x" * 3_000_000)
        time.sleep(0.5)
        sender.close()  # with the lines that came since unread
        answer = receiver.answer()
        assert (len(answer.body), answer.whole) == (3_000_000, True)


def test_a_receiver_that_never_reads_beside_one_that_does(server: Server, name: str) -> None:
    with Wire(server) as sender, Wire(server) as stalled, Wire(server) as reader:
        stalled.get(f"{name}?n=2")
        reader.get(f"{name}?n=2")
        server.waiting(2)
        sender.put(f"{name}?n=2", "Transfer-Encoding: chunked")
        before = server.resident("VmRSS")
        reading = threading.Thread(target=reader.read_all)
        reading.start()
        fill(sender)
        assert server.resident("VmRSS") - before < 4 << 20
        assert server.counts().running == 1
        stalled.reset()
        sender.last_chunk()
        sender.read_all()
        reader.socket.shutdown(2)
        reading.join()


@pytest.mark.parametrize("size", [5_000, 30_000])
@pytest.mark.parametrize("megabytes", [0.5, 2, 2.5, 2.75, 3, 3.25, 3.5, 4, 6])
def test_a_sender_that_has_sent_all_and_hangs_up_needs_not_wait_for_a_slow_receiver(
    server: Server, name: str, megabytes: float, size: int
) -> None:
    """Wherever the last bytes are by then: in its kernel, in ours, or in a pipe of ours."""
    chunk = b"%x\r\n%s\r\n" % (size, b"x" * size)
    chunks = int(megabytes * 1e6) // size
    with Wire(server, timeout=30) as receiver, Wire(server, timeout=30) as sender:
        receiver.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        receiver.get(name)
        sender.put(name, "Transfer-Encoding: chunked").read_until(b"[INFO] Streaming")
        sent = threading.Thread(
            target=lambda: sender.send(chunk * chunks).last_chunk().half_close()
        )
        sent.start()
        time.sleep(0.3)
        answer = receiver.answer()
        sent.join()
        assert len(answer.body) == chunks * size
        assert answer.whole
        assert b"Transfer complete." in sender.read_until(b"0\r\n\r\n")


@pytest.mark.parametrize("tiny", [0, 40, 40_000])
def test_what_comes_behind_a_body_is_the_next_request_s(
    server: Server, name: str, tiny: int
) -> None:
    """Also if all of it was read at once, and the body ends in chunks of one byte."""
    data = random.Random(1).randbytes(300_000)
    with Wire(server) as first, Wire(server) as second, Wire(server) as sender:
        first.get(f"{name}-1")
        second.get(f"{name}-2")
        server.waiting(2)
        sender.put(f"{name}-1", "Transfer-Encoding: chunked").read_until(b"[INFO] Streaming")
        body = b"1388\r\n" + b"x" * 5000 + b"\r\n" + b"1\r\ny\r\n" * tiny + b"0\r\n\r\n"
        head = (
            f"PUT /api/v1/pipe/{name}-2 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        sent = threading.Thread(target=lambda: sender.send(body + head.encode() + data))
        sent.start()
        assert first.answer().body == b"x" * 5000 + b"y" * tiny
        assert second.answer().body == data
        sent.join()


def test_a_reset_right_behind_the_receivers_end_is_noticed(server: Server, name: str) -> None:
    """Reading shows the end alone then, and the reset was seen before."""
    body = bytes(200_000)
    for _ in range(5):
        with Wire(server) as sender, Wire(server) as receiver:
            receiver.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            receiver.get(name)
            server.waiting(1)
            sender.put(name, f"Content-Length: {len(body)}").send(body)
            sender.read_line("[INFO] Upload complete.")
            server.process.send_signal(signal.SIGSTOP)
            receiver.half_close()
            receiver.reset()
            server.process.send_signal(signal.SIGCONT)
            assert b"[ERROR]" in sender.read_all()
