"""In which form an answer is wanted."""

from __future__ import annotations

import re

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from hoody.protocols.request import Request

JSON, SSE = "application/json", "text/event-stream"
HTML, TEXT = "text/html", "text/plain"


_PARAMETER = re.compile(r""";\s*+(?!q\s*=)[^;,="]+=("[^"]*"|[^;,]*)""", re.IGNORECASE)
"""Of a media range; what we offer has none, and charset=utf-8 is what it is."""


def preferred(request: Request, offered: tuple[str, ...]) -> str:
    """What suits an Accept header best (RFC 9110 section 12.5.1); the first, if nothing does."""
    given = re.sub(r"\s+", " ", (request.getHeader(b"accept") or b"*/*").decode("latin-1"))
    given = _PARAMETER.sub("", given)
    accepted = parse_accept_header(given, MIMEAccept)
    return accepted.best_match(list(offered), default=offered[0]) or offered[0]
