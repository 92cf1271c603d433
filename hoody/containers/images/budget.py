"""How much an archive may still bring, and what of it was made harmless."""

from __future__ import annotations

from collections import Counter

from attrs import define, field

from hoody.containers.images.orders import MOST_SKIPPED, Limits
from hoody.errors import CallerError
from hoody.units import size_in_words

_HEADS = 4096
"""Bytes of an archive that are no file's content: heads, names, padding; for each entry."""
_SLACK = 16 * 1024**2


def shown(name: bytes) -> str:
    """A name from an archive, for a sentence: short, and without control characters."""
    text = name.decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return text if len(text) <= 100 else text[:60] + "…" + text[-39:]


@define
class Budget:
    """
    All layers of an image have one together. What a later entry replaces stays counted: it
    was written.
    """

    limits: Limits
    _bytes: int = field(default=0, init=False)
    _entries: int = field(default=0, init=False)
    _stream: int = field(default=0, init=False)

    def take_entry(self) -> None:
        self._entries += 1
        if self._entries > self.limits.entries:
            raise CallerError(
                f"The archive has more than {self.limits.entries} entries, the most that an image"
                " may have; leave some out."
            )

    def take_file(self, size: int) -> None:
        """@param size: with its holes: a container that fills them must not find less room."""
        self._bytes += size
        if self._bytes > self.limits.bytes:
            raise self._too_large()

    def take_stream(self, count: int) -> None:
        """
        What came out of a compressed stream, whether or not it becomes a file: a bomb costs
        time even if nothing of it is kept.
        """
        self._stream += count
        if self._stream > 2 * self.limits.bytes + _HEADS * self.limits.entries + _SLACK:
            raise self._too_large()

    def _too_large(self) -> CallerError:
        return CallerError(
            f"The archive comes to more than {size_in_words(self.limits.bytes)} unpacked, holes"
            " of sparse files included, the most that an image may have; leave some out."
        )


@define
class Notes:
    """What was left out or made harmless: each kind once, with one example and a count."""

    _first: dict[str, bytes] = field(factory=dict, init=False)
    _counts: Counter[str] = field(factory=Counter, init=False)

    def add(self, what: str, name: bytes) -> None:
        """@param what: of one entry, such as C{"a device was left out"}."""
        self._first.setdefault(what, name)
        self._counts[what] += 1

    def told(self) -> tuple[str, ...]:
        """As sentences, at most L{MOST_SKIPPED}."""
        notes = []
        for what, name in self._first.items():
            more = self._counts[what] - 1
            notes.append(f"{shown(name)}: {what}" + (f" (and {more} more)" if more else ""))
        if len(notes) > MOST_SKIPPED:
            rest = len(notes) - MOST_SKIPPED + 1
            notes[MOST_SKIPPED - 1 :] = [f"and {rest} more kinds"]
        return tuple(notes)
