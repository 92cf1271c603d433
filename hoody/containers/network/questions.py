"""DNS messages, as far as one looks at them who only passes them on: RFC 1035, section 4.1."""

from __future__ import annotations

import struct

from attrs import frozen

_HEAD = struct.Struct("!6H")  # id, flags, counts of questions, answers, authorities, additions
_ANSWER, _OPCODE, _RECURSION_WANTED, _RECURSION_DONE, _CODE = 0x8000, 0x7800, 0x100, 0x80, 0xF
FORMAT_ERROR, SERVER_FAILURE, NOT_IMPLEMENTED, REFUSED = 1, 2, 4, 5
_TRANSFERS = (251, 252)  # IXFR, AXFR
_LONGEST_NAME = 255
_LONGEST_LABEL = 63


class NotAQuestion(Exception):
    """What came is nothing that could be answered."""


@frozen
class Question:
    """
    @ivar message: all of it, as it came.
    @ivar asked: the question section: name, type, class; empty if that is not one question.
    """

    message: bytes
    asked: bytes

    @classmethod
    def read(cls, message: bytes) -> Question:
        """@raise NotAQuestion: if an answer to it could only do harm."""
        if len(message) < _HEAD.size or _flags(message) & _ANSWER:
            raise NotAQuestion
        return cls(message, _asked(message))

    @property
    def number(self) -> int:
        return int.from_bytes(self.message[:2], "big")

    @property
    def refusal(self) -> int | None:
        """Why it is not passed on, as an RCODE; C{None} if it is."""
        if _flags(self.message) & _OPCODE:
            return NOT_IMPLEMENTED  # above all an UPDATE, of the host's own zones
        if not self.asked:
            return FORMAT_ERROR
        if int.from_bytes(self.asked[-4:-2], "big") in _TRANSFERS:
            return REFUSED
        return None

    def numbered(self, number: int) -> bytes:
        """The same with another id."""
        return number.to_bytes(2, "big") + self.message[2:]

    def failure(self, code: int) -> bytes:
        """An answer that is none."""
        flags = _flags(self.message) & (_OPCODE | _RECURSION_WANTED)
        flags |= _ANSWER | _RECURSION_DONE | code
        return _HEAD.pack(self.number, flags, bool(self.asked), 0, 0, 0) + self.asked

    def is_answered_by(self, message: bytes, number: int) -> bool:
        """Whether C{message} answers it, when it was asked by that number."""
        if len(message) < _HEAD.size or not _flags(message) & _ANSWER:
            return False
        if int.from_bytes(message[:2], "big") != number:
            return False
        # Whoever cannot read a question need not repeat it.
        repeated = bool(_HEAD.unpack_from(message)[2])
        return not repeated or _asked(message).lower() == self.asked.lower()


def code_of(answer: bytes) -> int:
    """Its RCODE."""
    return _flags(answer) & _CODE


def _flags(message: bytes) -> int:
    return int.from_bytes(message[2:4], "big")


def _asked(message: bytes) -> bytes:
    if _HEAD.unpack_from(message)[2] != 1:
        return b""
    at = _HEAD.size
    while at < len(message) and 0 < message[at] <= _LONGEST_LABEL:
        at += 1 + message[at]
    end = at + 5  # the root's label, type, class
    if end > len(message) or message[at] or at - _HEAD.size >= _LONGEST_NAME:
        return b""
    return message[_HEAD.size : end]
