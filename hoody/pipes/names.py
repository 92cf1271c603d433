"""What a pipe may be called."""

from __future__ import annotations

import re
from unicodedata import category
from urllib.parse import unquote_to_bytes

from hoody.errors import CallerError, TooLong

MAX_LENGTH = 1024
_OF_CONTAINER = re.compile(r"containers/([0-9a-f]{24})/")
RESERVED = frozenset({"", "noscript", "help", "health", "version", "favicon.ico", "robots.txt"})


def read(encoded: bytes) -> str:
    """
    A pipe's name from the rest of a URL's path, decoded once; an encoded slash
    is a slash, since some clients encode the whole path. Dots and doubled
    slashes mean nothing: a name is a name.

    @raise CallerError: for one that cannot be a name.
    """
    try:
        name = unquote_to_bytes(encoded).decode("utf-8")
    except UnicodeDecodeError:
        raise CallerError(
            "The path is not UTF-8 once decoded; percent-encode it from UTF-8."
        ) from None
    if len(name) > MAX_LENGTH:
        raise TooLong(f"Path too long (max {MAX_LENGTH} characters); choose a shorter one.")
    if any(letter == "\\" or category(letter) == "Cc" for letter in name):
        raise CallerError("The path holds a control character or a backslash; leave them out.")
    return name


def of_container(container_id: str, name: str) -> str:
    """Of a pipe among a container's own: which are the others' as well, by this name."""
    return f"containers/{container_id}/{name}"


def container_of(name: str) -> str | None:
    """The id of the container among whose own pipes one of this name is, if it is."""
    match = _OF_CONTAINER.match(name)
    return match[1] if match else None


def page(name: str) -> str | None:
    """
    The reserved page that a name stands for, in any case and with slashes or
    dots behind it, so that none can be posed as another; C{None} for a pipe.
    """
    folded = name.rstrip("/.").lower()
    return folded if folded in RESERVED else None
