"""
What a request says, as values. What will not do is refused with the field's name,
what was given, and what would do.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, TypeVar, get_args
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET

from hoody.errors import BadBody, BadField, CallerError, NotJson
from hoody.protocols.request import Request

T = TypeVar("T")

_AT = re.compile(r"(?P<what>.*) - at `\$(?P<path>[^`]*)`", re.DOTALL)
_SHOWN = 60
_EARLIEST, _LATEST = datetime(1971, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)


def read_body(request: Request, form: type[T]) -> T:
    """
    A JSON body, whatever its Content-Type says.

    @param form: a L{msgspec.Struct}.
    """
    assert request.content is not None
    raw = request.content.read()
    try:
        value = msgspec.json.decode(raw or b"{}")
    except msgspec.DecodeError as error:
        raise BadBody(
            f"The body is not JSON ({_lower(str(error))}); send a JSON object."
        ) from None
    except RecursionError:
        raise BadBody("The body is nested too deep; send a flat JSON object.") from None
    except UnicodeDecodeError:
        raise BadBody("The body is not UTF-8; send a JSON object in UTF-8.") from None
    return _convert(value, form, "body", strict=True)


def check_is_json(request: Request) -> None:
    """@raise NotJson: if the body says that it is something else."""
    given = (request.getHeader(b"content-type") or b"").decode("latin-1")
    kind = given.partition(";")[0].strip().lower()
    if kind not in ("", "application/json"):
        raise NotJson(
            f"The body says that it is {kind}; send JSON, and say so: Content-Type:"
            " application/json."
        )


def read_query(request: Request, form: Any) -> Any:
    """What stands behind the C{?}. What it knows nothing of is let pass, as clients differ."""
    pairs = parse_qsl(request.query.decode("ascii", "replace"), keep_blank_values=True)
    names = {field.encode_name: field for field in msgspec.structs.fields(form)}
    value: dict[str, str] = {}
    for name, text in pairs:
        if "\x00" in text:
            sentence = f"{name}: a NUL character will not do; leave it out."
            raise BadField(sentence, name, "query")
        # A flag may stand there bare; an empty filter is none.
        if name in names and (text or _is_flag(names[name].type)):
            value[name] = text or "true"
    return _convert(value, form, "query", strict=False)


def whole(pattern: str) -> str:
    """A pattern for all of a text; C{$} alone lets a line end pass behind it."""
    return f"^(?:{pattern})$(?!\\n)"


def _is_flag(kind: Any) -> bool:
    return bool in (kind, *get_args(kind))


def _convert(value: Any, form: type[T], where: str, *, strict: bool) -> T:
    try:
        return msgspec.convert(value, form, strict=strict)
    except msgspec.ValidationError as error:
        raise _fault(str(error), value, form, where) from None


def _fault(said: str, value: Any, form: type, where: str) -> CallerError:
    match = _AT.fullmatch(said)
    what, path = (match["what"], match["path"]) if match else (said, "")
    field = path.lstrip(".")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL)
    missing = re.fullmatch(r"Object missing required field `(.*)`", what)
    if unknown:
        known = ", ".join(field.encode_name for field in _fields(form))
        sentence = f"{_shown(unknown[1])} is no field of this; known are: {known}."
        if not known:
            sentence = f"{_shown(unknown[1])} is no field of this, which has none; send no body."
        return BadField(sentence, unknown[1], where)
    if missing:
        return BadField(f"{missing[1]} is missing; give it.", missing[1], where)
    if not field:
        return BadBody(f"The {where} will not do: {_lower(what)}.")
    name = re.split(r"[.\[]", field)[0]
    # Of what kind all values of an object are, the library does not say which one is not.
    shown = "one of its values" if "[...]" in path else _shown(_at(value, path))
    said = field.replace("[...]", "")
    return BadField(f"{said}: {shown} will not do; {_cure(form, name, what)}.", name, where)


def _cure(form: type, name: str, what: str) -> str:
    """What would do, as the form says it, or else the library."""
    if "datetime" in what:
        return "give a time such as 2026-05-04T02:55:08Z"
    kinds = [field.type for field in _fields(form) if field.encode_name == name]
    schema = msgspec.json.encode(msgspec.json.schema(kinds[0])).decode() if kinds else ""
    choices = re.search(r'"enum":\[([^\]]*)\]', schema)
    if choices and "enum" in what:
        return "give one of " + choices[1].replace('"', "").replace(",", ", ")
    described = re.search(r'"description":("(?:[^"\\]|\\.)*")', schema)
    if described and "regex" in what:
        return f"give {msgspec.json.decode(described[1])}"
    return _lower(what)


def _fields(form: Any) -> tuple[msgspec.structs.FieldInfo, ...]:
    """None of what is a mapping."""
    is_struct = isinstance(form, type) and issubclass(form, msgspec.Struct)
    return msgspec.structs.fields(form) if is_struct else ()


def _at(value: Any, path: str) -> Any:
    for step in re.findall(r"\.([^.\[]+)|\[(\d+)\]", path):
        try:
            value = value[step[0]] if step[0] else value[int(step[1])]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _lower(text: str) -> str:
    first = text[:1] if text[1:2].isupper() else text[:1].lower()
    return first + text[1:].rstrip(".").replace("`", "")


def in_utc(name: str, value: datetime) -> datetime:
    """A time that was given, if it says where."""
    if value.tzinfo is None:
        raise BadField(
            f'{name}: "{value.isoformat()}" has no time zone; end it with Z for UTC.', name
        )
    if not _EARLIEST < value < _LATEST:
        raise BadField(
            f'{name}: "{value.isoformat()}" will not do; give a year of 1971 to 2999.', name
        )
    return value.astimezone(UTC)


def given(form: msgspec.Struct) -> dict[str, Any]:
    """The fields that were given, of a form whose others are UNSET."""
    return {
        name: value
        for name in form.__struct_fields__
        if (value := getattr(form, name)) is not UNSET
    }
