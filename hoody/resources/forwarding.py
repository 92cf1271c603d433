"""
What of a head goes on through the gateway, either way, and what does not.

What belongs to one connection ends with it (RFC 9110 section 7.6.1). What only a proxy
can know is never taken from outside. What lets somebody in here is nobody else's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_plus

from twisted.web.http_headers import Headers

from hoody.auth import tokens
from hoody.protocols.answers import AnswerHead, Header, read_length, words
from hoody.protocols.request import Request

COOKIES = b"__host-hoody"
"""How our cookies' names begin, in lower case; no container may have or set one."""

_OURS_TO_SAY = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization"
    b" proxy-authentication-info te transfer-encoding upgrade content-length".split()
)
"""Of one connection, or of the framing, which is made anew."""
_NOT_FROM_OUTSIDE = frozenset(
    b"host expect forwarded x-real-ip proxy http2-settings x-request-id".split()
)
"""C{Proxy} would become HTTP_PROXY in a CGI program, and be believed (httpoxy)."""
_NOT_IN_TRAILERS = frozenset(
    b"host authorization cookie set-cookie content-encoding content-type content-range trailer"
    b" cache-control expect max-forwards pragma range www-authenticate".split()
)
"""What says how a message is to be read comes too late there (RFC 9110 section 6.5.1)."""

_BEARER = re.compile(rb"bearer +" + tokens.PREFIX.encode(), re.IGNORECASE)
_NODE = re.compile(r"[0-9.]+")


def request_head(request: Request) -> bytes:
    """What the container is asked, with the empty line at its end."""
    given = request.requestHeaders
    lines = [b"%b %b HTTP/1.1" % (request.method, target(request)), b"Host: " + request.authority]
    dropped = words(list(given.getRawHeaders(b"connection", [])))
    for name, values in given.getAllRawHeaders():
        # Programs behind CGI or WSGI cannot tell the two characters apart.
        folded = name.lower().replace(b"_", b"-")
        if folded in dropped or not _may_go_in(folded):
            continue
        if folded == b"cookie":
            values = [kept for value in values if (kept := without_ours(value))]
        elif folded == b"authorization":
            values = [value for value in values if not _BEARER.match(value.strip())]
        lines += [b"%b: %b" % (name, value) for value in values]
    lines += _said_by_us(request)
    return b"\r\n".join([*lines, b"", b""])


def target(request: Request) -> bytes:
    """Path and query, as they came but for our tokens."""
    if b"?" not in request.uri:
        return request.path
    query = query_without_tokens(request.query)
    return request.path + b"?" + query if query or not request.query else request.path


def _may_go_in(folded: bytes) -> bool:
    return not (
        folded in _OURS_TO_SAY or folded in _NOT_FROM_OUTSIDE or folded.startswith(b"x-forwarded-")
    )


def without_ours(cookies: bytes) -> bytes:
    """A C{Cookie} header without our own cookies."""
    kept = [pair for pair in cookies.split(b";") if not pair.strip().lower().startswith(COOKIES)]
    return b";".join(kept).strip()


def _said_by_us(request: Request) -> list[bytes]:
    """Framing, what this connection is for, and from where the request came."""
    lines = [b"X-Request-Id: " + request.request_id, *_origin(request)]
    if request.length is None:
        lines.append(b"Transfer-Encoding: chunked")
    elif request.requestHeaders.hasHeader(b"content-length"):
        lines.append(b"Content-Length: %d" % request.length)
    if request.expects_continue:
        lines.append(b"Expect: 100-continue")
    wanted = upgrade_of(request)
    if wanted:
        lines += [b"Connection: Upgrade", b"Upgrade: " + wanted]
    elif b"trailers" in words(list(request.requestHeaders.getRawHeaders(b"te", []))):
        lines += [b"Connection: TE", b"TE: trailers"]
    return lines


def upgrade_of(request: Request) -> bytes:
    """
    The protocols to which the client would switch, or nothing. HTTP/2 is not among them: its
    requests would pass by all that is here. Nor does one that has a body get any.
    """
    headers = request.requestHeaders
    if request.clientproto != b"HTTP/1.1" or request.length != 0:
        return b""
    if b"upgrade" not in words(list(headers.getRawHeaders(b"connection", []))):
        return b""
    named = [
        one.strip() for value in headers.getRawHeaders(b"upgrade", []) for one in value.split(b",")
    ]
    return b", ".join(one for one in named if one and not one.lower().startswith((b"h2", b"http")))


def may_persist(request: Request) -> bool:
    """Whether the client would ask more on its connection."""
    said = words(list(request.requestHeaders.getRawHeaders(b"connection", [])))
    return request.clientproto == b"HTTP/1.1" and b"close" not in said


def _origin(request: Request) -> list[bytes]:
    """C{Forwarded} (RFC 7239), and what was there before it and is more widely read."""
    proto = "https" if request.isSecure() else "http"
    host = request.authority.decode("ascii")
    port = re.search(r":(\d+)$", host)
    lines = [
        f"X-Forwarded-Host: {host}",
        f"X-Forwarded-Proto: {proto}",
        f"X-Forwarded-Port: {port[1] if port else {'http': 80, 'https': 443}[proto]}",
    ]
    address = request.peer_address
    node = "unknown"
    if address is not None:
        lines.append(f"X-Forwarded-For: {address}")
        node = address if _NODE.fullmatch(address) else f'"[{address}]"'
    lines.append(f'Forwarded: for={node};host="{host}";proto={proto}')
    return [line.encode() for line in lines]


def query_without_tokens(query: bytes) -> bytes:
    """A query without such C{token}s as are ours, which are not the container's to see."""
    return b"&".join(pair for pair in query.split(b"&") if not is_token(pair))


def is_token(pair: bytes) -> bool:
    """Whether a part of a query is C{token=} and what has the form of one of ours."""
    name, _, value = pair.partition(b"=")
    if unquote_plus(name.decode("latin-1")) != "token":
        return False
    return tokens.identity(unquote_plus(value.decode("latin-1"))) is not None


def answer_headers(head: AnswerHead) -> list[Header]:
    """What the client is told of a container's head, less what says how its body ends."""
    dropped = head.tokens(b"connection")
    kept = []
    for name, value in head.headers:
        folded = name.lower()
        is_the_point = folded == b"upgrade" and head.status == 426
        if (folded in dropped or folded in _OURS_TO_SAY) and not is_the_point:
            continue
        # One without a name, "=__Host-...", is sent back as if that were its name.
        if folded == b"set-cookie" and value.lstrip(b"= \t").lower().startswith(COOKIES):
            continue
        kept.append((name, value))
    return kept


def set_answer(request: Request, head: AnswerHead) -> None:
    """Have the client told what the container says, and of ours only what that left out."""
    headers = request.responseHeaders
    date = headers.getRawHeaders(b"date", [])
    for name in (b"server", b"date", b"x-request-id", b"connection"):
        headers.removeHeader(name)
    for name, value in answer_headers(head):
        headers.addRawHeader(name, value)
    if not headers.hasHeader(b"x-request-id"):
        headers.setRawHeaders(b"x-request-id", [request.request_id])
    if not headers.hasHeader(b"date"):
        headers.setRawHeaders(b"date", date)  # RFC 9110 section 6.6.1
    length = read_length(head)
    if length is not None and head.status != 204:
        headers.setRawHeaders(b"content-length", [b"%d" % length])
    request.setResponseCode(head.status, head.reason)


def is_stream_of_events(head: AnswerHead) -> bool:
    """Whether it goes on for as long as somebody listens (C{text/event-stream})."""
    kinds = head.values(b"content-type")
    return any(kind.lower().startswith(b"text/event-stream") for kind in kinds)


def interim_headers(head: AnswerHead) -> Headers:
    """As L{answer_headers}, for what comes before the answer."""
    headers = Headers()
    for name, value in answer_headers(head):
        headers.addRawHeader(name, value)
    return headers


def switching_headers(head: AnswerHead) -> Headers:
    """As L{answer_headers}, for 101."""
    headers = interim_headers(head)
    headers.setRawHeaders(b"connection", [b"Upgrade"])
    headers.setRawHeaders(b"upgrade", head.values(b"upgrade"))
    return headers


def trailer_lines(trailers: Iterable[Header]) -> bytes:
    """Trailers that may go on, as they stand on the wire."""
    kept = (
        (name, value)
        for name, value in trailers
        if (folded := name.lower().replace(b"_", b"-")) not in _NOT_IN_TRAILERS
        and _may_go_in(folded)
    )
    return b"".join(b"%b: %b\r\n" % trailer for trailer in kept)


def tell_of_wake(headers: Headers, found: str, milliseconds: float) -> None:
    """
    Say that a container had to be woken for this answer.

    @param found: what it was: C{paused} or C{stopped}.
    """
    took = f"dur={milliseconds:.1f}"
    headers.setRawHeaders(b"X-Hoody-Wake", [f"{found}; {took}".encode()])
    headers.addRawHeader(b"Server-Timing", f"wake;{took};desc={found}".encode())
