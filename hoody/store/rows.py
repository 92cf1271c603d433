"""Rows and the values that stand for them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

import psycopg2.errors
from attrs import fields

from hoody.errors import Taken

T = TypeVar("T")


def names_of(cls: type[Any], *without: str) -> list[str]:
    """The fields of a class of attrs, which are its table's columns."""
    return [attribute.name for attribute in fields(cls) if attribute.name not in without]


async def unique(answer: Awaitable[T]) -> T:
    """@raise Taken: if another row has what must be unique."""
    try:
        return await answer
    except psycopg2.errors.UniqueViolation as error:
        raise Taken from error


def without_nul(text: str) -> str:
    """As Postgres can keep it: it has every character but U+0000."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
