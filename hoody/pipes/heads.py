"""
What a sender's headers become for its receivers: passed, rewritten, added.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol
from unicodedata import category
from urllib.parse import quote

from attrs import frozen
from werkzeug.http import parse_options_header

from hoody.errors import CallerError
from hoody.pipes.queries import ReceiveQuery

Header = tuple[bytes, bytes]

MAX_PASSED = 8 * 1024
MAX_FILENAME = 255
PASSED = (b"X-Piping", b"X-Hoody-Pipe")

ALWAYS: tuple[Header, ...] = (
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Content-Security-Policy", b"sandbox"),
    (b"X-Robots-Tag", b"none"),
    (b"Cache-Control", b"no-store"),
)
"""What keeps a stranger's bytes from acting as a page of ours, or being kept."""

# Subtypes that a browser runs or renders with scripts, whatever the type
# before the slash: a page on our origin made of a stranger's bytes.
_ACTIVE = re.compile(
    r"(x-)?(html|xhtml|javascript|ecmascript|jscript|livescript|vbscript|typescript|xsl|xslt)"
    r"|(java|ecma|j|live|vb)script1\.\d|xml|xml-.*|.*\+xml|svg.*|x-mixed-replace"
)
_WORD = r"[\w!#$%&'*+.^`|~-]+"  # RFC 9110 section 5.6.2
# A media type and nothing behind it: browsers take the last of a list.
_MEDIA_TYPE = re.compile(
    rf'{_WORD}/({_WORD})(?:[ \t]*;[ \t]*(?:{_WORD}=(?:{_WORD}|"[^"\\\x00-\x1f\x7f]*"))?)*',
    re.ASCII,
)
# Marks that turn text around could make "exe.txt" of "txt.exe".
_TURNING = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2028\u2029\u2066\u2067\u2068\u2069"
)


class HeaderSource(Protocol):
    """What of C{twisted.web.http_headers.Headers} is needed here."""

    def getRawHeaders(self, name: bytes) -> Iterable[bytes] | None: ...


@frozen(kw_only=True)
class Head:
    """
    What is known of a body before its first byte.

    @ivar content_type: already safe to show; C{None} where the sender said nothing.
    @ivar length: in bytes; C{None} where only the end will tell.
    @ivar expected: what the sender said that it will be, for spectators.
    @ivar passed: headers that go through as they are.
    @ivar disposition: C{"attachment"} or C{"inline"} as the sender said, or C{None}.
    @ivar filename: the sender's, already safe, or C{None}.
    @ivar digest: whether a digest will follow the body.
    """

    content_type: bytes | None = None
    length: int | None = None
    expected: int | None = None
    passed: tuple[Header, ...] = ()
    disposition: str | None = None
    filename: str | None = None
    digest: bool = False

    def headers_for(self, query: ReceiveQuery) -> list[Header]:
        """What one receiver is to read before the body, but for its framing."""
        headers = [*ALWAYS, *self.passed]
        if self.content_type is not None:
            headers.append((b"Content-Type", self.content_type))
        disposition = self._disposition_for(query)
        if disposition is not None:
            headers.append((b"Content-Disposition", disposition))
        return headers

    def _disposition_for(self, query: ReceiveQuery) -> bytes | None:
        if query.download is False:
            return None
        asked = safe_filename(query.filename or "")
        kind = "attachment" if query.download or asked else self.disposition
        return None if kind is None else write_disposition(kind, asked or self.filename)


def read_head(
    headers: HeaderSource, *, length: int | None, digest: bool, expected: int | None
) -> Head:
    """
    The head of a plain upload.

    @raise CallerError: for what cannot be passed on.
    """
    if headers.getRawHeaders(b"Content-Range"):
        raise CallerError(
            "Content-Range: a pipe has no parts; send the whole body without this header."
        )
    kind, filename = read_disposition(_last(headers, b"Content-Disposition"))
    content_type = _last(headers, b"Content-Type")
    return Head(
        content_type=None if content_type is None else safe_type(content_type),
        length=length,
        expected=expected,
        passed=tuple(header for name in PASSED for header in _passed(headers, name)),
        disposition=kind,
        filename=filename,
        digest=digest,
    )


def safe_type(content_type: bytes) -> bytes:
    """
    A Content-Type under which a browser runs nothing: html, svg, xml and
    scripts become C{text/plain}, with their charset; what is no media type
    becomes C{application/octet-stream}.
    """
    text = content_type.decode("latin-1").strip()
    match = _MEDIA_TYPE.fullmatch(text)
    if match is None:
        return b"application/octet-stream"
    if not _ACTIVE.fullmatch(match[1].lower()):
        return content_type
    charset = re.search(r';\s*charset\s*=\s*"?([\w.:+-]+)"?', text, re.ASCII | re.IGNORECASE)
    return b"text/plain" + (b"; charset=" + charset[1].encode() if charset else b"")


def read_disposition(value: bytes | None) -> tuple[str | None, str | None]:
    """
    C{("attachment" | "inline" | None, filename | None)} of a
    Content-Disposition (RFC 6266); an unknown kind counts as an attachment, as
    section 4.2 wants it.
    """
    if value is None:
        return None, None
    kind, options = parse_options_header(_text(value))
    if not kind:
        return None, None
    filename = safe_filename(options.get("filename", ""))
    return ("inline" if kind.lower() == "inline" else "attachment"), filename


def safe_filename(name: str) -> str | None:
    """
    A name to save under that stays in the folder it is saved to: no path
    separators, control characters, turning marks or leading dots; at most 255
    characters. C{None} where nothing is left.
    """
    kept = "".join(
        letter
        for letter in name
        if letter not in "/\\" and category(letter) not in ("Cc", "Cs") and letter not in _TURNING
    )
    return kept.strip().lstrip(". ")[:MAX_FILENAME].rstrip() or None


def write_disposition(kind: str, filename: str | None) -> bytes:
    """
    A Content-Disposition that old and new clients read: a plain name, and one
    by RFC 5987 where that says more.
    """
    if filename is None:
        return kind.encode()
    plain = re.sub(r'["%]|[^ -~]', "_", filename)
    text = f'{kind}; filename="{plain}"'
    if plain != filename:
        text += "; filename*=UTF-8''" + quote(filename, safe="!#$&+^`|~")
    return text.encode("ascii")


def _passed(headers: HeaderSource, name: bytes) -> list[Header]:
    values = list(headers.getRawHeaders(name) or [])
    if sum(map(len, values)) > MAX_PASSED:
        raise CallerError(f"{name.decode()} is over {MAX_PASSED // 1024} KiB; send less in it.")
    return [(name, value) for value in values]


def _last(headers: HeaderSource, name: bytes) -> bytes | None:
    values = list(headers.getRawHeaders(name) or [])
    return values[-1] if values else None


def _text(value: bytes) -> str:
    """Header bytes as text: UTF-8, as clients send it, else Latin-1, as RFC 9110 has it."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
