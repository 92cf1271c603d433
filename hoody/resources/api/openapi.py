"""C{/openapi.json}: what the operations say of themselves (OpenAPI 3.1)."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import msgspec

from hoody import __version__
from hoody.resources.api.operations import Operation

_TEMPLATE = "#/components/schemas/{name}"
_COMMON_ERRORS = (400, 401, 403, 405, 429, 503)


class Failure(msgspec.Struct, rename={"status_code": "statusCode"}):
    """What is answered when it does not go well."""

    status_code: int
    error: str
    message: str
    data: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class CronFailure(msgspec.Struct):
    """The same of cron's."""

    code: str
    message: str
    details: dict[str, Any] | None


def document(operations: list[Operation], plain: list[dict[str, Any]]) -> dict[str, Any]:
    """
    @param plain: what is no L{Operation}: C{path}, C{method} and the rest as OpenAPI has it.
    """
    types: set[Any] = {CronFailure if each.bare else Failure for each in operations}
    for operation in operations:
        types |= {kind for kind in (operation.body, operation.returns) if kind is not None}
    ordered = sorted(types, key=lambda kind: str(kind.__name__))
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_TEMPLATE)
    by_type = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _describe(operation, by_type)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    for one in plain:
        rest = {key: value for key, value in one.items() if key not in ("path", "method")}
        rest.setdefault("security", [])
        paths.setdefault(one["path"], {})[one["method"].lower()] = rest
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hoody",
            "version": __version__,
            "description": "A Linux box whose long-lived things are URLs.",
        },
        "security": [{"bearer": []}, {"capability": []}, {"session": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "hdy_..."},
                "capability": {"type": "apiKey", "in": "query", "name": "cap"},
                "session": {"type": "apiKey", "in": "cookie", "name": "__Host-hoody"},
            },
        },
    }


def _describe(operation: Operation, schemas: dict[Any, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": f"{operation.name}_by_put" if operation.method == "PUT" else operation.name,
        "summary": operation.summary,
        "description": f"Needs the scope {' or '.join((operation.scope, *operation.others))}.",
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"{(\w+)}", operation.path)
        ]
        + _query(operation),
        "responses": _responses(operation, schemas),
    }
    if operation.body is not None:
        said["requestBody"] = {
            "required": _is_needed(operation.body),
            "content": {"application/json": {"schema": schemas[operation.body]}},
        }
    if operation.takes is not None:
        raw = {"schema": {"type": "string", "format": "binary"}}
        said["requestBody"] = {"required": True, "content": {operation.takes: raw}}
    if operation.page:
        said["parameters"].append(
            _parameter("Last-Event-ID", {"type": "string"}, "where a stream is to go on", "header")
        )
        said["responses"]["303"] = {
            "description": "A token in the URL became a session; ask again without it."
        }
    return said


def _is_needed(body: Any) -> bool:
    """Whether it has anything that has to be said."""
    is_form = isinstance(body, type) and issubclass(body, msgspec.Struct)
    return not is_form or any(field.required for field in msgspec.structs.fields(body))


def _query(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    schema = msgspec.json.schema(operation.query)["$defs"][operation.query.__name__]
    return [
        {"name": name, "in": "query", "required": False, "schema": said}
        for name, said in schema["properties"].items()
    ]


def _responses(operation: Operation, schemas: dict[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.bare:
        content["application/json"] = {"schema": schemas[operation.returns]}
    elif operation.returns is not None:
        envelope = {
            "type": "object",
            "required": ["statusCode", "message", "data"],
            "properties": {
                "statusCode": {"const": operation.status},
                "message": {"type": "string"},
                "data": schemas[operation.returns],
            },
        }
        content["application/json"] = {"schema": envelope}
    content |= {media: {"schema": {"type": "string"}} for media in operation.media}
    said = {str(operation.status): {"description": operation.says, "content": content}}
    failure = schemas[CronFailure if operation.bare else Failure]
    for status in sorted({*_COMMON_ERRORS, *operation.errors}):
        said[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": failure}},
        }
    return said


def _said(path: str, method: str, summary: str, *types: str, **rest: object) -> dict[str, Any]:
    content = {
        kind: {"schema": {"type": "object" if kind == _JSON else "string"}} for kind in types
    }
    return {
        "path": path,
        "method": method,
        "summary": summary,
        "responses": {"200": {"description": "OK", **({"content": content} if types else {})}},
        **rest,
    }


def _parameter(name: str, schema: dict[str, Any], summary: str, place: str = "query") -> Any:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "schema": schema,
        "description": summary,
    }


_PATH = _parameter("path", {"type": "string"}, "1 to 1024 characters; may have slashes", "path")
_N = _parameter(
    "n", {"type": "integer", "minimum": 1, "maximum": 256, "default": 1}, "how many receivers"
)
_SEND = {
    "parameters": [
        _PATH,
        _N,
        _parameter("digest", {"enum": ["sha256"]}, "hash what passes, and tell both sides"),
        _parameter("size", {"type": "string"}, "the total that is expected, such as 200G"),
    ],
    "requestBody": {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
}
_RECEIVE = {
    "parameters": [
        _PATH,
        _N,
        _parameter("download", {"type": "string"}, "force an attachment, or not"),
        _parameter("filename", {"type": "string"}, "the attachment's name"),
        _parameter(
            "progress",
            {"type": "string"},
            "watch instead: text/event-stream, text/html or application/json, by Accept",
        ),
    ]
}
_TEXT, _JSON, _ANY = "text/plain", "application/json", "application/octet-stream"


def plain_cron_routes() -> list[dict[str, Any]]:
    """What is beside the operations where there is cron alone."""
    return [
        _said("/health", "GET", "Whether all is well", _JSON),
        _said("/openapi.json", "GET", "This", _JSON),
    ]


def plain_routes() -> list[dict[str, Any]]:
    """The pipes, and the pages that are not of the container API."""
    pipe = "/api/v1/pipe"
    return [
        _said(f"{pipe}/{{path}}", "PUT", "Send", _TEXT, **_SEND),
        _said(f"{pipe}/{{path}}", "POST", "Send, perhaps a form", _TEXT, **_SEND),
        _said(f"{pipe}/{{path}}", "GET", "Receive, or watch", _ANY, **_RECEIVE),
        _said(f"{pipe}/", "GET", "The page to send from", _TEXT),
        _said(f"{pipe}/noscript", "GET", "The same without scripts", _TEXT),
        _said(f"{pipe}/help", "GET", "How to use pipes with curl", _TEXT),
        _said(f"{pipe}/version", "GET", "The version", _TEXT),
        _said(f"{pipe}/health", "GET", "Whether all is well", _JSON),
        _said(f"{pipe}/robots.txt", "GET", "Nothing for robots", _TEXT),
        _said("/", "GET", "What there is", _TEXT),
        _said("/metrics", "GET", "For Prometheus", _TEXT),
        *plain_cron_routes(),
    ]
