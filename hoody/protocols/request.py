"""
A request that can be claimed when its head has come, before its body.

Private names of twisted.web used here, as of 26.10: C{HTTPChannel._command},
C{._path} and C{._version}; C{Request.gotLength}, C{.handleContentChunk},
C{.requestReceived}, C{._disconnected} and C{.chunked}.
L{tests.contract.test_twisted_internals} fails when they change.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from random import getrandbits
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import datetimeToString
from twisted.web.http_headers import Headers

from hoody.errors import BodyTooLarge, CallerError, HoodyError, NotSupported, PeerError
from hoody.interfaces import IDoor, IIntake
from hoody.protocols import sockets

if TYPE_CHECKING:
    from hoody.protocols.channel import Channel
    from hoody.protocols.site import Site
    from hoody.protocols.tunnel import TunnelEnd

BODY_LIMIT = 1024 * 1024
"""Bytes of a body that is not streamed."""
BREAK_SECONDS = 2.0
"""How long the rest of a broken answer may take to go out."""

_HOST = re.compile(rb"[a-z0-9._~!$&'()*+,;=%-]*(:\d*)?|\[[0-9a-f:.]+\](:\d*)?")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


class Request(server.Request):
    """
    One request.

    @ivar intake: who claimed it; C{None} if it is rendered as usual.
    @ivar query: what stands behind the C{?}, as it came.
    @ivar request_id: the client's C{X-Request-Id} if it is a sane one, else made up.
    @ivar authority: the host it is for, with its port, as the client wrote it.
    @ivar host_name: the same in lower case, without port.
    @ivar trailer_lines: what came behind the last chunk of its body.
    @ivar pipe_path: the pipe that it watches, or C{None}.
    @ivar pipe_space: what stands before the names of pipes that its host has for itself.
    @ivar body_done: whether the body has come to its end.
    @ivar received: bytes of the body so far.
    @ivar broken: whether the answer was left incomplete on purpose.
    """

    defaultContentType = None
    channel: Channel
    site: Site

    intake: IIntake | None = None
    query = b""
    request_id = b""
    authority = b""
    host_name = b""
    trailer_lines: Sequence[bytes] = ()
    pipe_path: str | None = None
    pipe_space: str = ""
    body_done = False
    received = 0
    broken = False
    started_at = 0.0
    length: int | None = 0
    _begun = False
    _lost = False
    _logged = False
    _expects_continue = False

    def __init__(self, channel: Channel, *args: object) -> None:
        super().__init__(channel, *args, parsePOSTFormSubmission=False)

    # What the channel calls

    def gotLength(self, length: int | None) -> None:
        """The head is complete. A request without a body is claimed when that has "come"."""
        self.length = length
        expects = self.requestHeaders.getRawHeaders(b"expect", [b""])[0].lower()
        self.requestHeaders.removeHeader(b"expect")
        channel = self.channel
        self._expects_continue = expects == b"100-continue" and channel._version == b"HTTP/1.1"
        if length != 0:
            self._begin(channel._command, channel._path, channel._version)

    def handleContentChunk(self, data: bytes) -> None:
        self.received += len(data)
        if self.intake is not None:
            self.intake.dataReceived(data)
        elif self.content is not None and not self.finished:
            if self.received > BODY_LIMIT:
                self.site.claimer.refuse(self, BodyTooLarge())
            else:
                self.content.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        self.body_done = True
        if not self._begun:
            self._begin(command, path, version)
        if self.intake is not None:
            self.intake.bodyComplete()
        elif not self.finished:
            assert self.content is not None
            self.content.seek(0)
            self.args = {}
            self.process()

    def process(self) -> None:
        """Have it rendered, as C{twisted.web} would, with our own headers already set."""
        try:
            self.render(self.site.resource)
        except Exception:
            self.processingFailed(Failure())

    def connectionLost(self, reason: Failure) -> None:
        self._disconnected = True
        # Whether the kernel or Twisted came upon it first, it is the same to who reads it.
        self.lose(PeerError("it closed the connection"))
        if self._begun and not self._logged:
            self._log_access()
        super().connectionLost(reason)

    def _begin(self, command: bytes, path: bytes, version: bytes) -> None:
        """Take in the request line, and find somebody to claim the request."""
        self._begun = True
        self.site = self.channel.site
        self.started_at = self.site.reactor.seconds()
        self.content = BytesIO()
        self.method, self.uri, self.clientproto = command, path, version
        given = self.requestHeaders.getRawHeaders(b"x-request-id", [b""])[0]
        self.request_id = given if _REQUEST_ID.fullmatch(given) else b"%032x" % getrandbits(128)
        self.setHeader(b"server", self.site.server_name)
        self.setHeader(b"date", datetimeToString())
        self.setHeader(b"x-request-id", self.request_id)
        try:
            self._read_target()
        except HoodyError as error:
            self.path = b""
            self.site.claimer.refuse(self, error)
            return
        self.intake = self.site.claim(self)
        if self.intake is None and not self.body_done and not self.finished:
            if self.length is not None and self.length > BODY_LIMIT:
                self.site.claimer.refuse(self, BodyTooLarge())
            else:
                self.send_continue()

    def _read_target(self) -> None:
        """
        Path, query and host of the request line and C{Host} (RFC 9112
        sections 3.2 and 3.3).
        """
        target, hosts = self.uri, self.requestHeaders.getRawHeaders(b"host", [])
        if len(hosts) > 1 or (not hosts and self.clientproto == b"HTTP/1.1"):
            raise CallerError("An HTTP/1.1 request needs one Host header; send one.")
        if self.method == b"CONNECT":
            raise NotSupported("CONNECT is for proxies; this is none.")
        absolute = re.match(rb"https?://([^/?#]*)", target, re.IGNORECASE)
        if absolute is not None:
            hosts, target = [absolute[1]], target[absolute.end() :] or b"/"
        elif not target.startswith(b"/") and target != b"*":
            raise CallerError("The request's target must begin with a slash.")
        path, _, self.query = target.partition(b"?")
        self.path = path.partition(b"#")[0]
        self.authority = (hosts or [b""])[0].strip()
        host = self.authority.lower()
        if not _HOST.fullmatch(host):
            raise CallerError("Host is not a host name; send one with its port, if any.")
        self.host_name = re.sub(rb":\d*$", b"", host).rstrip(b".")
        self.prepath = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]

    # For whoever has claimed it

    def attend(self) -> None:
        """Wait with this peer as long as it lives, and notice when it does not."""
        self.channel.attend_party()

    def send_continue(self) -> None:
        """Ask for the body, of a client that waits to be asked (RFC 9110 section 10.1.1)."""
        if self._expects_continue and not self.startedWriting:
            self._expects_continue = False
            self.channel.send_continue()

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits to be asked for the body."""
        return self._expects_continue

    def send_interim(self, status: int, reason: bytes, headers: Headers) -> None:
        """Send a head that comes before the real one (RFC 9110 section 15.2)."""
        if self.clientproto == b"HTTP/1.1" and not (self.gone or self.startedWriting):
            self._expects_continue = self._expects_continue and status != 100
            self.channel.writeHeaders(self.clientproto, b"%d" % status, reason, headers)
            self.channel.flush()

    def switch_protocols(self, reason: bytes, headers: Headers, end: TunnelEnd) -> None:
        """Answer with 101; the connection becomes a tunnel, and the request lasts as long."""
        self.setResponseCode(101, reason)
        self.startedWriting = 1
        self.channel.writeHeaders(self.clientproto, b"101", reason, headers)
        self.channel.become_tunnel(end)

    def close_after(self) -> None:
        """Let no other request follow this one."""
        self.setHeader(b"connection", b"close")
        self.channel.persistent = False

    def send_head(self) -> None:
        """Let the status and the headers go out, and all that follows as it is written."""
        self.write(b"")
        self.channel.write_promptly()

    @property
    def gone(self) -> bool:
        """Whether there is nobody, or nothing left, to write to."""
        return bool(self._disconnected or self.finished or self.broken)

    @property
    def close_delimited(self) -> bool:
        """Whether only the end of the connection tells the end of the answer."""
        return not self.chunked and not self.responseHeaders.hasHeader(b"content-length")

    def end_body(self, trailers: bytes = b"") -> None:
        """
        The answer is whole, but not finished: its end may still be waited for.

        @param trailers: header lines with their line ends, for a chunked answer.
        """
        if self.chunked:
            self.channel.write(b"0\r\n" + trailers + b"\r\n")
            self.chunked = 0

    def break_off(self) -> None:
        """
        End an answer so that nobody can take it for a whole one: without its
        last chunk, short of its length, or by a reset where a mere end would
        look clean.
        """
        if self.gone:
            return
        self.broken = True
        self._log_access()
        if self.close_delimited:
            self.channel.transport.abortConnection()
        else:
            self.channel.close_within(BREAK_SECONDS)

    def break_off_upload(self) -> None:
        """As L{break_off}, but let the client, who still sends, read what was said."""
        if not self.gone:
            self.broken = True
            self._log_access()
            self.channel.linger()

    def lose(self, error: BaseException) -> None:
        """Tell whoever has claimed it that nothing more is to be had of the peer."""
        if not self._lost and not self.finished:
            self._lost = True
            if self.intake is not None:
                self.intake.connectionLost(error)

    def finish(self) -> None:
        if not self.gone:
            self._logged = True
            super().finish()

    def finish_promptly(self) -> None:
        """Finish, and let what was kept of the answer go out now."""
        channel = self.channel
        self.finish()
        channel.flush()

    def _log_access(self) -> None:
        self._logged = True
        self.site.log(self)

    @property
    def door(self) -> IDoor | None:
        """The container's own door by which it came, if it did."""
        return self.channel.door

    @property
    def peer_address(self) -> str | None:
        """The client's IP address, or whose door it came by."""
        if self.door is not None:
            return f"container {self.door.container_id}"
        return getattr(self.getClientAddress(), "host", None)

    @property
    def unsent(self) -> int:
        """Bytes written that the kernel has not been given yet."""
        return sockets.unsent(self.channel.transport)
