"""DNS messages that are passed on, and how fast they are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.names.dns import A, Message, Query

from hoody.containers.network.allowance import Allowance
from hoody.containers.network.questions import (
    FORMAT_ERROR,
    NOT_IMPLEMENTED,
    REFUSED,
    SERVER_FAILURE,
    NotAQuestion,
    Question,
    code_of,
)
from hoody.containers.network.resolvers import _nameservers, framed, unframed


def message(
    *names: str, number: int = 7, kind: int = A, opcode: int = 0, answer: bool = False
) -> bytes:
    made = Message(id=number, answer=answer, opCode=opcode, recDes=1)
    made.queries = [Query(name.encode(), kind) for name in names]
    return bytes(made.toStr())


def test_a_question_is_passed_on_as_it_is_but_for_its_number() -> None:
    original = message("example.org", number=7) + b"what comes behind it"
    question = Question.read(original)
    assert question.number == 7
    assert question.refusal is None
    assert question.numbered(0xABCD) == b"\xab\xcd" + original[2:]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (message("example.org", opcode=5), NOT_IMPLEMENTED),
        (message("example.org", kind=252), REFUSED),
        (message("example.org", kind=251), REFUSED),
        (message(), FORMAT_ERROR),
        (message("a.example", "b.example"), FORMAT_ERROR),
        (message("example.org")[:-1], FORMAT_ERROR),
        (message("example.org")[:12] + b"\xc0\x0c\0\1\0\1", FORMAT_ERROR),
        (message("example.org")[:12] + b"\x3f" + b"a" * 63, FORMAT_ERROR),
        (message("x")[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", FORMAT_ERROR),
    ],
    ids=["update", "axfr", "ixfr", "none", "two", "cut", "pointer", "no-end", "long"],
)
def test_what_is_no_plain_question_goes_no_further(asked: bytes, code: int) -> None:
    assert Question.read(asked).refusal == code


@pytest.mark.parametrize("data", [b"", b"short", message("example.org", answer=True)])
def test_what_must_not_be_answered_is_not(data: bytes) -> None:
    with pytest.raises(NotAQuestion):
        Question.read(data)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_question_or_not(data: bytes) -> None:
    try:
        question = Question.read(data)
    except NotAQuestion:
        return
    failure = question.failure(question.refusal or SERVER_FAILURE)
    assert failure[:2] == data[:2]
    assert question.is_answered_by(failure, question.number)
    assert len(failure) <= max(len(data), 12)  # never more than came
    with pytest.raises(NotAQuestion):
        Question.read(failure)  # two doors would not answer each other for ever


def test_a_failure_names_the_question() -> None:
    made = Message()
    made.fromStr(Question.read(message("example.org")).failure(SERVER_FAILURE))
    assert (made.id, made.answer, made.rCode, made.recDes) == (7, 1, SERVER_FAILURE, 1)
    assert [str(query.name) for query in made.queries] == ["example.org"]


def test_only_its_own_answer_counts() -> None:
    question = Question.read(message("Example.org"))
    assert question.is_answered_by(message("eXample.org", number=9, answer=True), 9)
    assert question.is_answered_by(message(number=9, answer=True), 9)
    assert not question.is_answered_by(message("example.org", number=8, answer=True), 9)
    assert not question.is_answered_by(message("example.com", number=9, answer=True), 9)
    assert not question.is_answered_by(message("example.org", number=9), 9)
    assert not question.is_answered_by(b"\0\x09", 9)
    assert code_of(question.failure(REFUSED)) == REFUSED


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 50))
def test_a_stream_of_messages_may_be_cut_anywhere(messages: list[bytes], size: int) -> None:
    stream = b"".join(map(framed, messages))
    read, found = bytearray(), []
    for at in range(0, len(stream), size):
        read += stream[at : at + size]
        while (one := unframed(read)) is not None:
            found.append(one)
    assert found == messages
    assert not read


def test_resolvers_are_read_as_the_c_library_reads_them() -> None:
    text = """
    # a comment
    search example.org
    nameserver 127.0.0.53
    nameserver\tfe80::1%eth0
    nameserver nonsense
    nameserver 127.0.0.53
    nameserver
    nameserver 9.9.9.9
    nameserver 8.8.8.8
    """
    assert _nameservers(text) == ["127.0.0.53", "fe80::1%eth0", "9.9.9.9"]


def test_an_allowance_grows_up_to_its_burst() -> None:
    allowance = Allowance(rate=10, burst=3)
    for _ in range(3):
        assert allowance.wait(100) == 0
        allowance.take()
    assert allowance.wait(100) == pytest.approx(0.1)
    assert allowance.wait(100.05) == pytest.approx(0.05)
    assert allowance.wait(99) > 0  # a clock that goes back gives nothing
    for _ in range(3):
        assert allowance.wait(200) == 0
        allowance.take()
    assert allowance.wait(200) > 0
