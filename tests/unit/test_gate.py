"""The only way from skopeo to a network."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from hoody.containers.images.gate import Gate
from hoody.errors import CallerError

T = TypeVar("T")


def finished(work: Coroutine[Any, Any, T]) -> T:
    """In a thread: browsers' tests leave a loop of their own in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def _far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says everything twice."""
    data = await reader.read(100)
    writer.write(data + data)
    writer.close()


async def _ask(gate: Gate, head: bytes, more: bytes = b"") -> bytes:
    async with await asyncio.start_server(gate.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b"\r\n\r\n")
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.write(more)
        answer += await reader.read()
        writer.close()
        return answer


def gate(**known: tuple[str, int]) -> Gate:
    return Gate(frozenset({443}), 1000, known)


@pytest.mark.parametrize(
    "place",
    ["127.0.0.1:443", "localhost:443", "[::1]:443", "2130706433:443", "0x7f.1:443", "0:443",
     "169.254.169.254:443", "10.0.0.1:443", "[::ffff:10.0.0.1]:443", "[fe80::1]:443"],
)  # fmt: skip
def test_it_leads_to_no_address_of_this_network(place: str) -> None:
    one = gate()
    answer = finished(_ask(one, f"CONNECT {place} HTTP/1.1".encode()))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert "not an address of the Internet" in one.refused[0]


@pytest.mark.parametrize("place", ["8.8.8.8:80", "8.8.8.8:22", "8.8.8.8:5432"])
def test_it_leads_to_no_other_port(place: str) -> None:
    one = gate()
    assert b" 403 " in finished(_ask(one, f"CONNECT {place} HTTP/1.1".encode()))
    assert "another port" in one.refused[0]


@pytest.mark.parametrize(
    "head", [b"GET http://8.8.8.8/ HTTP/1.1", b"CONNECT a", b"", b"CONNECT a/b:443 HTTP/1.1"]
)
def test_it_is_for_tls_only(head: bytes) -> None:
    one = gate()
    assert b" 403 " in finished(_ask(one, head))
    assert one.refused == ["it does not speak TLS"]


def test_it_passes_on_what_is_said_and_counts_it() -> None:
    async def run(more: bytes) -> tuple[bytes, Gate]:
        async with await asyncio.start_server(_far, "127.0.0.1", 0) as far:
            one = gate(far=("127.0.0.1", far.sockets[0].getsockname()[1]))
            return await _ask(one, b"CONNECT far:443 HTTP/1.1", more), one

    answer, one = finished(run(b"hello"))
    assert answer == b"HTTP/1.1 200 OK\r\n\r\nhellohello"
    assert (one.count, one.refused) == (15, [])


def test_it_ends_what_is_too_much() -> None:
    async def much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(100_000))
        writer.close()

    async def run() -> Gate:
        async with await asyncio.start_server(much, "127.0.0.1", 0) as far:
            one = gate(far=("127.0.0.1", far.sockets[0].getsockname()[1]))
            answer = await _ask(one, b"CONNECT far:443 HTTP/1.1")
            assert len(answer) < 1100
            return one

    assert "larger" in finished(run()).refused[0]


def test_a_name_is_looked_at_before() -> None:
    with pytest.raises(CallerError, match="localhost leads to"):
        finished(gate().check("localhost", 443))
    finished(gate(localhost=("127.0.0.1", 1)).check("localhost", 443))
