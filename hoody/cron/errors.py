"""What can go wrong with cron, by the contract's codes."""

from __future__ import annotations

from http import HTTPStatus

from hoody.errors import BadBody, BadField, BodyTooLarge, CallerError, HoodyError

_CODES = {
    "user": "INVALID_USER",
    "schedule": "INVALID_SCHEDULE",
    "command": "INVALID_COMMAND",
    "comment": "INVALID_COMMENT",
    "name": "INVALID_NAME",
    "timezone": "INVALID_TIMEZONE",
    "expires_at": "INVALID_EXPIRES_AT",
    "container_id": "INVALID_CONTAINER",
    "run_on": "INVALID_CONTAINER",
}
"""By the field that will not do; the contract has none for others."""
_BODY, _QUERY = "INVALID_BODY", "INVALID_PAGINATION"
_STATUSES = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "PAYLOAD_TOO_LARGE",
    HTTPStatus.MISDIRECTED_REQUEST: "MISDIRECTED",
    HTTPStatus.SERVICE_UNAVAILABLE: "UNAVAILABLE",
}
"""Of those that are not called as HTTP calls them."""


class CronError(CallerError):
    """
    @ivar code: the contract's.
    @ivar details: what else there is for programs to know; C{None} if there is nothing.
    """

    def __init__(self, code: str, sentence: str, **details: object) -> None:
        super().__init__(sentence)
        self.code = code
        self.details = details or None


class Invalid(CronError):
    """A field will not do."""

    def __init__(self, field: str, sentence: str, code: str | None = None, **more: object) -> None:
        """
        @param sentence: what is wrong, and the cure.
        @param code: if it is not the field's.
        """
        super().__init__(code or _CODES.get(field, _BODY), sentence, field=field, **more)


class NotThere(CronError):
    status = 404


class PayloadTooLarge(CronError):
    status = 413

    def __init__(self, sentence: str) -> None:
        super().__init__("PAYLOAD_TOO_LARGE", sentence)


def coded(error: HoodyError) -> HoodyError:
    """As it is here: a body that is too large has a status of its own."""
    return PayloadTooLarge(error.sentence) if isinstance(error, BodyTooLarge) else error


def code_of(error: HoodyError) -> str:
    """Of any error: the contract's, or one by its status."""
    if isinstance(error, CronError):
        return error.code
    if isinstance(error, BadField):
        return _QUERY if error.place == "query" else _CODES.get(error.field, _BODY)
    if isinstance(error, BadBody):
        return _BODY
    status = HTTPStatus(error.status)
    return _STATUSES.get(status, status.name)


def details_of(error: HoodyError) -> dict[str, object] | None:
    if isinstance(error, CronError):
        return error.details
    return {"field": error.field} if isinstance(error, BadField) else None
