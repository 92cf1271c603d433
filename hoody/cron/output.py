"""What a command said: the first and the last of it, and no secret."""

from __future__ import annotations

from collections import deque

from attrs import define, field

MOST = 64 * 1024
"""Bytes that are kept of the beginning, and as many of the end."""
MASK = "***"


@define
class Excerpt:
    """
    Feed it with L{hear}; it takes memory of some twice L{MOST}, whatever comes.

    @ivar secrets: what is not shown, though the command says it.
    """

    secrets: tuple[str, ...] = ()
    left_out: int = field(default=0, init=False)
    _first: list[bytes] = field(factory=list, init=False)
    _last: deque[bytes] = field(factory=deque, init=False)
    _held: str = field(default="", init=False)
    _room: int = field(default=MOST, init=False)
    _length: int = field(default=0, init=False)

    def hear(self, text: str) -> None:
        self._held = self._masked(self._held + text)
        keep = self._may_go_on()
        known, self._held = (
            self._held[: len(self._held) - keep],
            self._held[-keep:] if keep else "",
        )
        self._take(known.encode("utf-8", "replace"))

    def text(self) -> str:
        """All that is kept; where something is left out, it says how much."""
        self._take(self._masked(self._held).encode("utf-8", "replace"))
        self._held = ""
        first, last = b"".join(self._first), b"".join(self._last)
        spare = len(last) - MOST
        left_out = self.left_out + max(0, spare)
        last = last[max(0, spare) :]
        if not left_out:
            return (first + last).decode("utf-8", "replace")
        note = f"\n[... {left_out} bytes are left out here ...]\n"
        return first.decode("utf-8", "ignore") + note + last.decode("utf-8", "ignore")

    def _masked(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, MASK)
        return text

    def _may_go_on(self) -> int:
        """How many characters at the end could be the beginning of a secret."""
        longest = max(map(len, self.secrets), default=0) - 1
        for count in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-count:]
            if any(secret.startswith(end) for secret in self.secrets):
                return count
        return 0

    def _take(self, data: bytes) -> None:
        if self._room:
            part, data = data[: self._room], data[self._room :]
            self._room -= len(part)
            self._first.append(part)
        if not data:
            return
        self._last.append(data)
        self._length += len(data)
        while self._length - len(self._last[0]) >= MOST:
            gone = len(self._last.popleft())
            self._length -= gone
            self.left_out += gone
