"""Pipes as HTTP sees them: which request is whose part in what."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import define

from hoody.errors import CallerError, WrongMethod
from hoody.interfaces import IIntake
from hoody.pipes import names, queries
from hoody.pipes.heads import read_head
from hoody.pipes.rendezvous import Rendezvous
from hoody.pipes.transfer import Transfer
from hoody.protocols.request import Request
from hoody.resources import cors
from hoody.resources.forms import FormSender
from hoody.resources.guard import PipeGuard
from hoody.resources.parties import Receiver, Sender
from hoody.units import MOST_BYTES


@define(kw_only=True)
class PipeFace:
    """
    @ivar private_network: see L{cors.answer_preflight}.
    """

    rendezvous: Rendezvous
    guard: PipeGuard
    private_network: bool

    def claim(
        self, request: Request, encoded_name: bytes, container_id: str | None = None
    ) -> IIntake | None:
        """
        Take part in a pipe; C{None} for what is a page, or watches one.

        @param container_id: among whose own pipes it is.
        @raise HoodyError: for what cannot be.
        """
        cors.allow(request)
        name = names.read(encoded_name)
        page = names.page(name)
        if container_id is not None:
            request.pipe_space = names.of_container(container_id, "")
            name = request.pipe_space + name
        if request.method == b"OPTIONS":
            return None
        if request.method in (b"PUT", b"POST"):
            if page is not None:
                raise CallerError(f"The path /{page} is reserved; choose another one to send to.")
            self.guard.admit_at_once(request, name)
            return self._send(request, name)
        if page is not None:
            if request.method not in (b"GET", b"HEAD"):
                raise WrongMethod("This path is a page; GET it.", Allow="GET, HEAD, OPTIONS")
            return None
        if request.method == b"GET" and self._is_watched(request):
            request.pipe_path = name
            return None
        if request.method != b"GET":
            raise WrongMethod(
                "A pipe takes PUT or POST to send and GET to receive.",
                Allow="GET, POST, PUT, OPTIONS",
            )
        self.guard.admit_at_once(request, name)
        return self._receive(request, name)

    def _is_watched(self, request: Request) -> bool:
        return queries.read_receive(queries.parse(request.query)).progress

    def _send(self, request: Request, name: str) -> IIntake:
        query = queries.read_send(queries.parse(request.query))
        if request.length is not None and request.length > MOST_BYTES:
            raise CallerError("Content-Length is over 8 EiB; send less, or in chunks.")
        head = read_head(
            request.requestHeaders,
            length=request.length,
            digest=query.digest,
            expected=query.expected,
        )
        if not _is_form(request):
            sender = Sender(request, query.wanted, head)
            _join(request, sender, partial(self.rendezvous.send, name, sender))
            sender.hold_back()
            return sender
        form = FormSender(request, query.wanted, head)
        _join(request, form, partial(self.rendezvous.send, name, form))
        form.seek()
        return form

    def _receive(self, request: Request, name: str) -> IIntake:
        query = queries.read_receive(queries.parse(request.query))
        if request.getHeader(b"service-worker") == b"script":
            raise CallerError("A pipe is no place for a service worker's script.")
        receiver = Receiver(request, query)
        _join(request, receiver, partial(self.rendezvous.receive, name, receiver))
        return receiver


def _join(request: Request, party: Sender | Receiver, join: Callable[[], Transfer]) -> None:
    request.attend()
    party.transfer = join()


def _is_form(request: Request) -> bool:
    content_type = request.getHeader(b"content-type") or b""
    return content_type.partition(b";")[0].strip().lower() == b"multipart/form-data"
