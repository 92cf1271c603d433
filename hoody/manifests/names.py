"""
Names of files, which are bytes to the kernel, as text that has no line ends and no tabs, and
from which the bytes come back.

What is UTF-8 stays as it is, but for the backslash and the control characters of ASCII: these,
and each byte that is part of no UTF-8, become C{\\xHH}, two small hexadecimal digits.
"""

from __future__ import annotations

import os
import re

_PLAIN = re.compile(r"[^\x00-\x1f\x7f\\\ud800-\udfff]*")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def escape(name: str) -> str:
    """@param name: as Python's C{os} has it, bytes that are no UTF-8 as surrogates (PEP 383)."""
    if _PLAIN.fullmatch(name):
        return name
    return "".join(each if _PLAIN.fullmatch(each) else _hex(each) for each in name)


def unescape(text: str) -> str:
    """The reverse of L{escape}."""
    if "\\" not in text:
        return text
    raw = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), text.encode())
    return os.fsdecode(raw)


def _hex(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
