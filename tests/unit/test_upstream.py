"""A connection to a container, without a socket."""

from __future__ import annotations

import pytest
from attrs import define, field
from twisted.internet.testing import StringTransport

from hoody.protocols.answers import AnswerHead, Body
from hoody.protocols.upstream import Upstream


class Transport(StringTransport):
    def setTcpNoDelay(self, enabled: bool) -> None:
        """As the real one has it."""

    def unregisterProducer(self) -> None:
        """The real one lets it be done twice."""
        self.producer = None


@define(eq=False)
class Asker:
    """Notes what it is told."""

    told: list[object] = field(factory=list)

    def interim(self, head: AnswerHead) -> None:
        self.told.append(head.status)

    def begun(self, head: AnswerHead, body: Body) -> None:
        self.told.append(head.status)

    def came(self, content: bytes) -> None:
        self.told.append(content)

    def complete(self) -> None:
        self.told.append("complete")

    def switched(self, head: AnswerHead) -> None:
        self.told.append("switched")

    def failed(self, why: str) -> None:
        self.told.append("failed")


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def upstream(transport: Transport) -> Upstream:
    upstream = Upstream()
    upstream.makeConnection(transport)
    return upstream


def asked(upstream: Upstream) -> Asker:
    asker = Asker()
    upstream.ask(asker, b"GET / HTTP/1.1\r\n\r\n", method=b"GET", may_switch=False)
    upstream.asked_all()
    return asker


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_an_answer_may_come_in_any_pieces(upstream: Upstream, size: int) -> None:
    asker = asked(upstream)
    data = b"HTTP/1.1 103 A\r\n\r\nHTTP/1.1 200 B\r\nContent-Length: 5\r\n\r\nhello"
    for at in range(0, len(data), size):
        upstream.dataReceived(data[at : at + size])
    assert asker.told[:2] == [103, 200]
    assert b"".join(piece for piece in asker.told if isinstance(piece, bytes)) == b"hello"
    assert asker.told[-1] == "complete"
    assert upstream.is_good


def test_whoever_took_the_answer_slowly_does_not_leave_it_paused(
    upstream: Upstream, transport: Transport
) -> None:
    asked(upstream)
    upstream.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
    upstream.pauseProducing()
    assert transport.producerState == "paused"
    upstream.dataReceived(b"b")
    assert transport.producerState == "producing"


@pytest.mark.parametrize(
    ("answer", "is_good"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", True),
    ],
)
def test_a_connection_is_good_for_more_if_nothing_says_otherwise(
    upstream: Upstream, answer: bytes, is_good: bool
) -> None:
    assert asked(upstream).told == []
    upstream.dataReceived(answer)
    assert upstream.is_good is is_good


def test_it_is_not_while_its_request_is_not_complete(upstream: Upstream) -> None:
    upstream.ask(Asker(), b"PUT / HTTP/1.1\r\n\r\n", method=b"PUT", may_switch=False)
    upstream.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert not upstream.is_good


def test_a_body_without_length_ends_with_the_connection(upstream: Upstream) -> None:
    asker = asked(upstream)
    upstream.dataReceived(b"HTTP/1.1 200 OK\r\n\r\nabc")
    upstream.readConnectionLost()
    assert asker.told == [200, b"abc", "complete"]
    assert not upstream.is_good


def test_one_with_a_length_does_not(upstream: Upstream) -> None:
    asker = asked(upstream)
    upstream.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")
    upstream.readConnectionLost()
    assert asker.told == [200, b"abc", "failed"]


def test_what_comes_unasked_ends_it(upstream: Upstream, transport: Transport) -> None:
    asked(upstream)
    upstream.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert not transport.disconnecting
    upstream.dataReceived(b"HTTP/1.1 408 Late\r\n\r\n")
    assert transport.disconnecting
