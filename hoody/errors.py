"""
What can go wrong, by whose doing.

Each error carries the status that answers it best and a sentence that says
what, why and what to do. How it looks to a client is decided in
L{hoody.resources.failures} alone.
"""

from __future__ import annotations

from typing import ClassVar


class HoodyError(Exception):
    """
    @cvar status: the HTTP status to answer with, where one can still be sent.
    @ivar headers: what the answer must also bear.
    """

    status: ClassVar[int] = 500

    def __init__(self, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class CallerError(HoodyError):
    """The request asks for something that cannot be."""

    status = 400


class BadField(CallerError):
    """
    Something that was given will not do.

    @ivar field: what it is called.
    @ivar place: C{body}, or C{query}.
    """

    def __init__(self, sentence: str, field: str, place: str = "body") -> None:
        super().__init__(sentence)
        self.field = field
        self.place = place


class BadBody(CallerError):
    """What was sent cannot be read at all."""


class BodyTooLarge(CallerError):
    """More was sent than is ever read of a body that is no stream."""

    def __init__(self) -> None:
        super().__init__("The body is over 1 MiB; send a smaller one.")


class NotJson(CallerError):
    """What was sent says that it is something else."""

    status = 415


class NoSuchThing(CallerError):
    status = 404


class WrongMethod(CallerError):
    """@ivar headers: with C{Allow}."""

    status = 405


class WaitedTooLong(CallerError):
    status = 408


class TooLong(CallerError):
    status = 414


class TooMany(CallerError):
    """A cap was reached. Answered with C{Retry-After}."""

    status = 429

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, Retry_After="10")


class HeadTooLarge(CallerError):
    status = 431


class NoToken(CallerError):
    status = 401

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, WWW_Authenticate='Bearer realm="hoody"')


class Forbidden(CallerError):
    """Somebody known asks for what is not theirs."""

    status = 403


class Conflict(CallerError):
    """It cannot be, as things are."""

    status = 409


class Misdirected(CallerError):
    """Another server has what is asked for."""

    status = 421


class NotSupported(HoodyError):
    """A part of HTTP, or of the contract, that this version does not have."""

    status = 501


class OldVersion(HoodyError):
    """An HTTP version that we do not speak."""

    status = 505


class PeerError(HoodyError):
    """The other side of a pipe broke off: nobody's fault here."""

    status = 502


class BadGateway(HoodyError):
    """A container did not answer, or not in HTTP."""

    status = 502


class GatewayTimeout(HoodyError):
    """A container did not take the connection."""

    status = 504


class FormHadNoFile(CallerError):
    """A multipart form came to no file; its sender gets 400."""


class NothingToReceive(HoodyError):
    """What the receivers get whose sender's form came to no file."""

    status = 500


class Unavailable(HoodyError):
    """We cannot now, and could later."""

    status = 503

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, Retry_After="5")


class NotServing(Unavailable):
    """
    A container that is asked for does not answer.

    @ivar why: C{paused} or C{stopped}, by hand; C{failed}; or C{silent}: it runs, and
        nothing listens on the port.
    """

    def __init__(self, why: str, sentence: str) -> None:
        super().__init__(sentence)
        self.why = why


class CannotRun(HoodyError):
    """A command that is due cannot be begun; its run tells why."""


class DatabaseAway(Unavailable):
    """Postgres does not answer, or not in time."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The database is not there just now ({reason}); nothing was changed that you were"
            " told of. Try again in a moment."
        )
        self.reason = reason


class NotWrittenYet(DatabaseAway):
    """What was asked for is done, and Postgres could not be told."""

    def __init__(self, reason: str, done: str) -> None:
        """@param done: what that is, as the beginning of a sentence."""
        super().__init__(reason)
        self.sentence = (
            f"{done}; the database is not there just now ({reason}), and will say so when it is"
            " back."
        )


class NoPostgres(DatabaseAway):
    """There is none that could be started; somebody has to install it."""


class Taken(Exception):
    """Another row has what must be unique."""


class InUse(Exception):
    """Other rows belong to it."""
