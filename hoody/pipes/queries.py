"""What a sender or a receiver may ask for behind the C{?} of a pipe's URL."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

from attrs import frozen

from hoody.errors import CallerError
from hoody.units import size

MAX_RECEIVERS = 256
_YES = frozenset({"", "1", "true", "yes"})
_NO = frozenset({"0", "false", "no"})

Query = Mapping[str, Sequence[str]]


@frozen(kw_only=True)
class SendQuery:
    """
    @ivar wanted: C{n}, how many receivers there are to be.
    @ivar digest: whether the body is to be hashed on its way.
    @ivar expected: the size in bytes that spectators are told where the body
        has no length of its own.
    """

    wanted: int = 1
    digest: bool = False
    expected: int | None = None


@frozen(kw_only=True)
class ReceiveQuery:
    """
    @ivar download: C{True} for an attachment, C{False} for no disposition,
        C{None} to leave it to the sender.
    @ivar filename: as asked, not yet made safe.
    @ivar progress: to watch instead of receiving.
    """

    wanted: int = 1
    download: bool | None = None
    filename: str | None = None
    progress: bool = False


def parse(query: bytes) -> Query:
    """
    Read what stands behind the C{?}.

    Twisted's own C{request.args} will not do: it leaves a bare C{?download} out.
    """
    try:
        return parse_qs(
            query.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=100
        )
    except ValueError:
        raise CallerError("The query has more than 100 fields; send fewer.") from None


def read_send(query: Query) -> SendQuery:
    """@raise CallerError: naming the field and the cure."""
    digest = _once(query, "digest")
    if digest not in (None, "sha256"):
        raise CallerError(f"digest must be sha256, the only one there is; got {_shown(digest)}.")
    expected = _once(query, "size")
    try:
        total = None if expected is None else size(expected)
    except ValueError as error:
        raise CallerError(f"size: {error}; got {_shown(expected)}.") from None
    return SendQuery(wanted=_receivers(query), digest=digest is not None, expected=total)


def read_receive(query: Query) -> ReceiveQuery:
    """@raise CallerError: naming the field and the cure."""
    return ReceiveQuery(
        wanted=_receivers(query),
        download=_yes_no(query, "download"),
        filename=_once(query, "filename"),
        progress=bool(_yes_no(query, "progress")),
    )


def _receivers(query: Query) -> int:
    given = query.get("n", ["1"])
    if len(given) > 1:
        raise CallerError(f"n is given {len(given)} times; give it once, the same on both sides.")
    if not re.fullmatch(r"[0-9]{1,3}", given[0]) or not 1 <= int(given[0]) <= MAX_RECEIVERS:
        raise CallerError(
            f"n must be a whole number from 1 to {MAX_RECEIVERS}, the number of receivers;"
            f" got {_shown(given[0])}."
        )
    return int(given[0])


def _yes_no(query: Query, field: str) -> bool | None:
    given = _once(query, field)
    if given is None:
        return None
    if given.lower() in _YES:
        return True
    if given.lower() in _NO:
        return False
    raise CallerError(f"{field} must be 1 or 0, true or false, yes or no; got {_shown(given)}.")


def _once(query: Query, field: str) -> str | None:
    given = query.get(field, [])
    if len(given) > 1:
        raise CallerError(f"{field} is given {len(given)} times; give it once.")
    return given[0] if given else None


def _shown(value: str | None) -> str:
    """What was given, short enough and printable, to be read in an error."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "...'"
