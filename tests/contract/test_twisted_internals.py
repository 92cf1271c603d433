"""
What we use of Twisted that it has not promised: when a new Twisted changes
one of these, this fails before a pipe does.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from twisted.internet import posixbase, tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.base import ReactorBase
from twisted.internet.testing import StringTransport
from twisted.web import http, server

import hoody.protocols

CHANNEL = http.HTTPChannel()
CHANNEL.makeConnection(StringTransport())
DECODERS = (
    http._ChunkedTransferDecoder(lambda data: None, lambda rest: None),
    http._IdentityTransferDecoder(5, lambda data: None, lambda rest: None),
)
DESCRIPTOR = FileDescriptor()


@pytest.mark.parametrize(
    "name",
    [
        "_networkProducer",
        "_waitingForTransport",
        "_handlingRequest",
        "_dataBuffer",
        "_optimisticEagerReadSize",
        "_transferDecoder",
        "_savedTimeOut",
        "_receivedHeaderSize",
        "_receivedHeaderCount",
        "_respondToBadRequestAndDisconnect",
        "_send100Continue",
        "_buffer",
        "line_mode",
        "length",
        "persistent",
    ],
)
def test_the_channel_has(name: str) -> None:
    assert hasattr(CHANNEL, name)


def test_the_channel_learns_the_request_line_before_the_headers_end() -> None:
    source = inspect.getsource(http.HTTPChannel.lineReceived)
    for name in ("self._command = ", "self._path = ", "self._version = "):
        assert name in source


def test_the_length_is_told_before_100_continue_and_the_body() -> None:
    source = inspect.getsource(http.HTTPChannel.allHeadersReceived)
    assert source.index("gotLength") < source.index("_send100Continue")


def test_the_decoders_say_how_far_they_are() -> None:
    assert DECODERS[0].state == "CHUNK_LENGTH"
    assert DECODERS[0]._buffer == b""
    assert DECODERS[1].contentLength == 5
    DECODERS[0].dataReceived(b"5\r\n")
    assert DECODERS[0].length == 5


def test_a_decoder_keeps_the_trailers() -> None:
    decoder = http._ChunkedTransferDecoder(lambda data: None, lambda rest: None)
    decoder.dataReceived(b"0\r\nA: b\r\nC: d\r\n\r\n")
    assert [bytes(line) for line in decoder._trailerHeaders] == [b"A: b", b"C: d"]


@pytest.mark.parametrize("name", ["gotLength", "handleContentChunk", "requestReceived"])
def test_the_channel_tells_the_request(name: str) -> None:
    assert callable(getattr(http.Request, name))


def test_the_request_knows_when_it_is_over() -> None:
    request = server.Request(http_channel_with_site())
    for name in ("_disconnected", "chunked", "finished", "startedWriting"):
        assert not getattr(request, name)


def http_channel_with_site() -> http.HTTPChannel:
    channel = http.HTTPChannel()
    channel.site = server.Site(server.resource.Resource())  # type: ignore[attr-defined]
    channel.makeConnection(StringTransport())
    return channel


def test_a_descriptor_counts_what_it_has_not_sent() -> None:
    descriptor = FileDescriptor()
    descriptor.connected = 1
    descriptor.startWriting = lambda: None  # type: ignore[method-assign]
    descriptor.write(b"abc")
    assert descriptor.dataBuffer == b""
    assert descriptor.offset == 0
    assert descriptor._tempDataBuffer == [b"abc"]


def test_the_reactor_calls_what_stands_in_for_a_descriptor_s_methods() -> None:
    """The kernel's mover puts its own there, as an aborted connection does."""
    assert "selectable.doRead()" in inspect.getsource(posixbase)
    assert "selectable.doWrite()" in inspect.getsource(posixbase)
    abort = inspect.getsource(tcp._AbortingMixin.abortConnection)
    assert "self.doRead = " in abort
    assert "self.doWrite = " in abort
    assert "__slots__" not in tcp.Server.__dict__
    assert "__slots__" not in tcp.Client.__dict__


def test_a_descriptor_reads_as_much_at_once_as_it_says() -> None:
    assert "recv(self.bufferSize)" in inspect.getsource(tcp.Connection.doRead)
    assert FileDescriptor.bufferSize == 65536


def test_a_descriptor_that_is_to_be_closed_says_so_when_it_has_written() -> None:
    """So it is left to the reactor, which hears it; L{Channel.flush} would not."""
    source = inspect.getsource(FileDescriptor.doWrite)
    assert "return self._postLoseConnection()" in source


@pytest.mark.parametrize("name", ["writeHeaders", "write", "writeSequence"])
def test_answers_leave_through_the_channel(name: str) -> None:
    source = inspect.getsource(http.Request)
    assert f"self.channel.{name}(" in source


def test_the_reactor_s_timers_go_by_its_seconds_and_are_in_two_lists() -> None:
    reactor = _Turning()
    now = [5.0]
    reactor.seconds = lambda: now[0]
    called: list[str] = []
    kept, cancelled = (reactor.callLater(2, called.append, each) for each in "ab")
    assert reactor._newTimedCalls == [kept, cancelled]
    reactor.runUntilCurrent()
    assert reactor._newTimedCalls == []
    assert sorted(reactor._pendingTimedCalls, key=id) == sorted([kept, cancelled], key=id)
    cancelled.cancel()
    assert cancelled in reactor._pendingTimedCalls
    assert kept.time == 7.0
    now[0] = 7.0
    reactor.runUntilCurrent()
    assert called == ["a"]


class _Turning(ReactorBase):
    def installWaker(self) -> None:
        self.waker = None


def test_private_names_of_twisted_stay_in_protocols() -> None:
    root = Path(hoody.protocols.__file__).parent.parent
    private = re.compile(
        r"\.(_networkProducer|_waitingForTransport|_handlingRequest|_dataBuffer|_transferDecoder"
        r"|_savedTimeOut|doRead|doWrite|bufferSize|_send100Continue|_tempDataBuffer|_command|_path|_version|_disconnected"
        r"|_trailerHeaders|_pendingTimedCalls|_newTimedCalls)\b"
    )
    for path in root.rglob("*.py"):
        if path.parent.name != "protocols":
            text = path.read_text()
            if path.name == "links.py":  # its transport is txpostgres's, which has no such seam
                text = text.replace("super().doRead()", "").replace("Connection.doRead", "")
            assert not private.search(text), path
