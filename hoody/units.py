"""How durations, sizes and times are written, and read."""

from __future__ import annotations

import math
import re
import secrets
import unicodedata
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

MOST_BYTES = 2**63 - 1
"""More than that neither files nor databases count."""
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1, None: 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"([0-9]{1,18})(\.[0-9]{1,9})?(?:([KMGTPE])(iB|B)?)?", re.IGNORECASE)


def duration(text: str) -> float:
    """Seconds of C{"90"}, C{"1.5s"}, C{"250ms"}, C{"5m"}, C{"2h"} or C{"7d"}."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("give seconds, or a number with ms, s, m, h or d, such as 300 or 5m")
    return float(match[1]) * _SECONDS[match[2]]


def size(text: str) -> int:
    """
    Bytes of C{"1024"}, C{"60M"}, C{"200G"} or C{"1.5GiB"}, by powers of 1024,
    or of C{"60MB"}, by powers of 1000: as GNU head has it.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("give bytes, or a number with K, M, G, T, P or E, such as 60M or 1.5GiB")
    whole, fraction, letter, ending = match.groups()
    base = 1000 if ending and ending.upper() == "B" else 1024
    unit = base ** ("KMGTPE".index(letter.upper()) + 1) if letter else 1
    count = int(whole) * unit + int(float(fraction or 0) * unit)
    if count > MOST_BYTES:
        raise ValueError("give less than 8E, the most that a file can have")
    return count


def size_in_words(count: int) -> str:
    """A number of bytes for eyes, by powers of 1024, in three digits or four."""
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    if unit == "bytes":
        return "1 byte" if count == 1 else f"{count} bytes"
    return f"{_fixed(amount, 2 if amount < 10 else 1 if amount < 100 else 0)} {unit}"


def _fixed(amount: float, digits: int) -> str:
    """As JavaScript's toFixed has it, so that pages say the same with scripts and without."""
    return str(Decimal(amount).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def duration_in_words(seconds: float) -> str:
    """How long something took or takes, for eyes."""
    if seconds < 1:
        return f"{_fixed(seconds * 1000, 0)} ms"
    if seconds < 60:
        return f"{_fixed(seconds, 1)} s"
    minutes, rest = divmod(math.floor(seconds + 0.5), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def rfc3339(seconds: float) -> str:
    """A time as every answer writes it: UTC, with Z."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(seconds: float) -> datetime:
    """A clock's seconds since the epoch as a time, to the millisecond."""
    return datetime.fromtimestamp(round(seconds, 3), UTC)


def new_id(now: datetime) -> str:
    """An id, 24 lower-case hex digits; later ones sort behind earlier ones, roughly."""
    return f"{int(now.timestamp()) & 0xFFFFFFFF:08x}{secrets.token_hex(8)}"


def timed_id(when: datetime, number: int) -> str:
    """An id that says when, and bears a number."""
    return f"{int(when.timestamp()) & 0xFFFFFFFF:08x}{number:016x}"


def case_folded(text: str) -> str:
    """C{text} as it is compared where case makes no difference (Unicode, section 3.13)."""
    return unicodedata.normalize("NFC", text).casefold()
