"""
What a request says, as values. What will not do is refused with the field's name,
what was given, and what would do.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar, get_args
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET

from hoody.errors import CallerError
from hoody.protocols.request import Request

T = TypeVar("T")

_AT = re.compile(r"(?P<what>.*) - at `\$(?P<path>[^`]*)`", re.DOTALL)
_SHOWN = 60


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
        raise CallerError(
            f"The body is not JSON ({_lower(str(error))}); send a JSON object."
        ) from None
    except UnicodeDecodeError:
        raise CallerError("The body is not UTF-8; send a JSON object in UTF-8.") from None
    return _convert(value, form, "body", strict=True)


def read_query(request: Request, form: Any) -> Any:
    """What stands behind the C{?}. What it knows nothing of is let pass, as clients differ."""
    pairs = parse_qsl(request.query.decode("ascii", "replace"), keep_blank_values=True)
    names = {field.encode_name: field for field in msgspec.structs.fields(form)}
    value: dict[str, str] = {}
    for name, text in pairs:
        # A flag may stand there bare; an empty filter is none.
        if name in names and (text or _is_flag(names[name].type)):
            value[name] = text or "true"
    return _convert(value, form, "query", strict=False)


def _is_flag(kind: Any) -> bool:
    return bool in (kind, *get_args(kind))


def _convert(value: Any, form: type[T], where: str, *, strict: bool) -> T:
    try:
        return msgspec.convert(value, form, strict=strict)
    except msgspec.ValidationError as error:
        raise CallerError(_sentence(str(error), value, form, where)) from None


def _sentence(said: str, value: Any, form: type, where: str) -> str:
    match = _AT.fullmatch(said)
    what, path = (match["what"], match["path"]) if match else (said, "")
    field = path.lstrip(".")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL)
    missing = re.fullmatch(r"Object missing required field `(.*)`", what)
    if unknown:
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(form))
        return f"{_shown(unknown[1])} is no field of this; known are: {known}."
    if missing:
        return f"{missing[1]} is missing; give it."
    if not field:
        return f"The {where} will not do: {_lower(what)}."
    choices = _choices(form, field.split(".")[0].split("[")[0])
    cure = f"give one of {choices}" if choices and "enum" in what else _lower(what)
    return f"{field}: {_shown(_at(value, path))} will not do; {cure}."


def _choices(form: type, name: str) -> str:
    for field in msgspec.structs.fields(form):
        if field.encode_name == name:
            schema = msgspec.json.schema(field.type)
            text = msgspec.json.encode(schema).decode()
            found = re.search(r'"enum":\[([^\]]*)\]', text)
            return found[1].replace('"', "").replace(",", ", ") if found else ""
    return ""


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


def given(form: msgspec.Struct) -> dict[str, Any]:
    """The fields that were given, of a form whose others are UNSET."""
    return {
        name: value
        for name in form.__struct_fields__
        if (value := getattr(form, name)) is not UNSET
    }
