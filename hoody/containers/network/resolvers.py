"""
The host's own resolvers, asked on behalf of containers: these cannot reach them, as most
are in private nets or on loopback.

Messages go through as they are, but for the id: so whatever resolvers understand works.
"""

from __future__ import annotations

import os
import secrets
import struct
from typing import Any

from attrs import define, field
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoody.containers.network.questions import (
    NOT_IMPLEMENTED,
    REFUSED,
    SERVER_FAILURE,
    Question,
    code_of,
)

PORT = 53
_ATTEMPTS = 3
_OTHERS_MAY_KNOW = (SERVER_FAILURE, NOT_IMPLEMENTED, REFUSED)
_LARGEST = 65535

_log = Logger(namespace="hoody.dns")


class NoAnswer(Exception):
    """A resolver does not answer, or not what it was asked."""


@define(eq=False)
class Resolvers:
    """
    @ivar path: a file of the form of resolv.conf(5), read again when it changes.
    @ivar limit: how many questions of all containers may be open; each is a descriptor.
    @ivar patience: seconds for each of three attempts; clients commonly wait five in all, and
        ask again.
    """

    _reactor: Any
    path: str = "/etc/resolv.conf"
    limit: int = 1024
    patience: float = 2.0
    _open: int = field(default=0, init=False)
    _seen: tuple[int, int] | None = field(default=None, init=False)
    _addresses: list[str] = field(factory=list, init=False)

    async def ask(self, question: Question, *, tcp: bool) -> bytes:
        """The answer, whoever knows it, with the question's id; a failure if nobody does."""
        if self._open >= self.limit:
            return question.failure(SERVER_FAILURE)
        self._open += 1
        try:
            answer = await self._ask_in_turn(question, tcp)
        finally:
            self._open -= 1
        return question.message[:2] + answer[2:]

    def addresses(self) -> list[str]:
        """Whom we ask, in this order."""
        try:
            found = os.stat(self.path)
            seen = (found.st_mtime_ns, found.st_ino)
            if seen != self._seen:
                with open(self.path, encoding="utf-8", errors="replace") as lines:
                    self._addresses = _nameservers(lines.read(_LARGEST))
                self._seen = seen
        except OSError as error:
            _log.warn("cannot read {path}: {error}", path=self.path, error=error)
        return self._addresses or ["127.0.0.1"]  # as resolv.conf(5) has it

    async def _ask_in_turn(self, question: Question, tcp: bool) -> bytes:
        known = self.addresses()
        best = question.failure(SERVER_FAILURE)
        for address in (known * _ATTEMPTS)[:_ATTEMPTS]:
            try:
                answer = await self._attempt(address, question, tcp)
            except (NoAnswer, OSError, CannotListenError):
                self._put_last(address)
                continue
            if code_of(answer) not in _OTHERS_MAY_KNOW:
                return answer
            best = answer
            if len(known) == 1:
                break
        return best

    def _put_last(self, address: str) -> None:
        """So the next question does not wait for it as well."""
        if address in self._addresses:
            self._addresses = [one for one in self._addresses if one != address] + [address]

    async def _attempt(self, address: str, question: Question, tcp: bool) -> bytes:
        number = secrets.randbelow(1 << 16)
        done: Deferred[bytes] = Deferred()
        done.addTimeout(self.patience, self._reactor, _too_late)
        if tcp:
            asking = _ByStream(question, number, done)
            connector = self._reactor.connectTCP(address, PORT, asking, timeout=self.patience)

            def stop() -> None:
                if connector.state != "disconnected":
                    connector.disconnect()

        else:
            interface = "::" if isIPv6Address(address) else "0.0.0.0"  # noqa: S104  # to ask from
            port = self._reactor.listenUDP(
                0, _ByDatagram(address, question, number, done), interface, _LARGEST
            )
            stop = port.stopListening
        try:
            return await done
        finally:
            stop()


def _too_late(result: object, seconds: float) -> None:
    raise NoAnswer


def _nameservers(text: str) -> list[str]:
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            address = words[1]
            if isIPAddress(address) or isIPv6Address(address.partition("%")[0]):
                found.append(address)
    return list(dict.fromkeys(found))[:3]  # as many as the C library looks at (MAXNS)


@define(eq=False)
class _ByDatagram(DatagramProtocol):
    """Its socket is connected: only the resolver is heard on it."""

    address: str
    question: Question
    number: int
    done: Deferred[bytes]
    noisy = False
    transport: Any = field(default=None, init=False)

    def startProtocol(self) -> None:
        try:
            self.transport.connect(self.address, PORT)
            self.transport.write(self.question.numbered(self.number))
        except OSError:
            self.connectionRefused()

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        if not self.done.called and self.question.is_answered_by(datagram, self.number):
            self.done.callback(datagram)

    def connectionRefused(self) -> None:
        self.stopProtocol()

    def stopProtocol(self) -> None:
        # Also what a refusal comes to: epoll tells of an error, and Twisted closes the port.
        if not self.done.called:
            self.done.errback(NoAnswer())


@define(eq=False)
class _ByStream(ClientFactory):
    question: Question
    number: int
    done: Deferred[bytes]

    noisy = False

    def buildProtocol(self, addr: object) -> Protocol:
        return _Stream(self)

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self.fail()

    def take(self, message: bytes) -> None:
        if not self.done.called:
            if self.question.is_answered_by(message, self.number):
                self.done.callback(message)
            else:
                self.fail()

    def fail(self) -> None:
        if not self.done.called:
            self.done.errback(NoAnswer())


@define(eq=False)
class _Stream(Protocol):
    asking: _ByStream
    transport: Any = field(default=None, init=False)
    _read: bytearray = field(factory=bytearray, init=False)

    def connectionMade(self) -> None:
        self.transport.write(framed(self.asking.question.numbered(self.asking.number)))

    def dataReceived(self, data: bytes) -> None:
        self._read += data
        message = unframed(self._read)
        if message is not None:
            self.asking.take(message)
            self.transport.loseConnection()

    def connectionLost(self, reason: object = None) -> None:
        self.asking.fail()


def framed(message: bytes) -> bytes:
    """As it goes over a stream: RFC 1035, section 4.2.2."""
    return struct.pack("!H", len(message)) + message


def unframed(read: bytearray) -> bytes | None:
    """Take the first message off, if all of it is there."""
    size = 2 + int.from_bytes(read[:2], "big")
    if len(read) < max(size, 2):
        return None
    message = bytes(read[2:size])
    del read[:size]
    return message
