"""What is uploaded: a body of any size, which goes to a file as it comes; and images by it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from attrs import define
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hoody.auth.tokens import Scope
from hoody.containers.fleet import Fleet
from hoody.containers.image import Image, is_name
from hoody.containers.storage import trouble
from hoody.containers.workshop import Workshop
from hoody.errors import CallerError, HoodyError, Unavailable
from hoody.interfaces import IIntake
from hoody.pipes import queries
from hoody.protocols.channel import Reading
from hoody.protocols.request import Request
from hoody.resources import failures
from hoody.resources.api.operations import enveloped
from hoody.resources.guard import Guard
from hoody.units import new_id

PATHS = (b"/api/v1/images", b"/api/v1/images/")
AT_ONCE = 1 << 20
"""Bytes that are gathered before they are written, by a thread."""
PART_LEFT = 0.05
"""So much of the file system is left to those that are there: containers, and what they write."""

_log = Logger(namespace="hoody.containers")


@define(eq=False)
class Uploads:
    _guard: Guard
    _fleet: Fleet
    _workshop: Workshop
    _row_of: Callable[[Image], msgspec.Struct]

    def claim(self, request: Request) -> IIntake | None:
        """
        A C{POST} with C{?name=} is an upload.

        @raise HoodyError: for one that cannot be; nothing of it is read then.
        """
        if request.method != b"POST" or request.path not in PATHS:
            return None
        names = queries.parse(request.query).get("name")
        if names is None:
            return None
        self._guard.admit_at_once(request, Scope.WRITE).require_all_containers()
        self._fleet.check()
        if not is_name(names[0]):
            raise CallerError(
                f'name: "{names[0]}" will not do; give 1 to 63 lower-case letters, digits, ., _'
                " and -, a letter or digit first and last."
            )
        if request.length == 0:
            raise CallerError("The body is empty; send a tarball: curl -T FILE -X POST URL")

        async def make(path: Path) -> bytes:
            asked = {"kind": "archive", "file": str(path)}
            made = await self._workshop.make(names[0], asked, lambda _: None)
            return enveloped(request, 201, "The image was made.", self._row_of(made))

        return Upload(request, place_for(request, self._fleet), make)


def place_for(request: Request, fleet: Fleet) -> Path:
    """Where the body goes to. @raise Unavailable: if it is known to be too large for the disk."""
    room = _room(os.statvfs(fleet.storage.uploads))
    if (request.length or 0) > room:
        raise Unavailable(
            f"The disk for containers is too full: the upload has {request.length} bytes, and"
            f" there is room for {max(room, 0)}; make some, and send it again."
        )
    return fleet.storage.uploads / new_id(fleet.now)


@implementer(IIntake)
class Upload:
    """
    One of them. While a thread writes, no more is read; when it is whole, what becomes of it
    comes to its end, whoever waits for that.
    """

    patient = False

    def __init__(
        self,
        request: Request,
        path: Path,
        make: Callable[[Path], Awaitable[bytes | None]],
        may: Awaitable[None] | None = None,
    ) -> None:
        """
        @param path: of the file that it goes to.
        @param make: given that when it is whole, makes the answer's body, or answers by itself
            and makes C{None}.
        @param may: what is waited for before any of it is read.
        """
        self._request = request
        self._target = path
        self._make = make
        self._reading = Reading(request.channel)
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise trouble(error) from error
        self._kept = bytearray()
        self._writing = self._ended = self._gone = False
        request.attend()
        if may is None:
            request.send_continue()
        else:
            self._writing = True
            self._reading.pauseProducing()
            ensureDeferred(self._begin(may)).addErrback(self._broken)

    async def _begin(self, may: Awaitable[None]) -> None:
        await may
        if not self._request.gone:
            self._request.send_continue()
        self._written(None)

    # IIntake

    def halfClosed(self) -> bool:
        return True

    def dataReceived(self, data: bytes) -> None:
        self._kept += data
        if len(self._kept) >= AT_ONCE and not self._writing:
            self._write()

    def bodyComplete(self) -> None:
        self._ended = True
        if not self._writing:
            self._write()

    def connectionLost(self, error: BaseException) -> None:
        self._gone = True
        if not self._writing:
            self._clear()

    def _write(self) -> None:
        data, self._kept = bytes(self._kept), bytearray()
        self._writing = True
        if not self._ended:
            self._reading.pauseProducing()
        deferToThread(_write_all, self._file, data).addCallbacks(self._written, self._broken)

    def _written(self, _: None) -> None:
        self._writing = False
        if self._gone:
            self._clear()
        elif self._ended and not self._kept:
            ensureDeferred(self._finish()).addErrback(self._broken)
        elif self._ended:
            self._write()
        else:
            self._reading.resumeProducing()

    async def _finish(self) -> None:
        self._writing = True  # it is in use
        body = await self._make(self._target)
        self._clear()
        if body is not None and not self._request.gone:
            self._request.write(body)
            self._request.finish()

    def _broken(self, failure: Failure) -> None:
        self._clear()
        error: HoodyError
        if isinstance(failure.value, OSError):
            error = trouble(failure.value)
        else:
            error = failures.understood(failure)
        if not self._request.gone:
            failures.answer(self._request, error, failures.as_envelope(error))

    def _clear(self) -> None:
        """In a thread: to give back gigabytes takes a while."""
        if self._file >= 0:
            deferToThread(_forget, self._file, self._target).addErrback(_report)
            self._file = -1


def _write_all(descriptor: int, data: bytes) -> None:
    """@raise Unavailable: if there is none, but for what all others need."""
    if _room(os.fstatvfs(descriptor)) < len(data):
        raise Unavailable(
            "The disk for containers is too full for the rest of the upload; make room, and send"
            " it again."
        )
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _room(status: os.statvfs_result) -> int:
    """Bytes that an upload may have."""
    return int((status.f_bavail - PART_LEFT * status.f_blocks) * status.f_frsize)


def _forget(descriptor: int, path: Path) -> None:
    path.unlink(missing_ok=True)
    os.close(descriptor)


def _report(failure: Failure) -> None:
    _log.failure("an upload could not be removed", failure=failure)
