"""Which host and path is whose: every request comes through here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum, auto
from urllib.parse import unquote_to_bytes

from attrs import frozen
from klein import Klein
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from werkzeug.exceptions import HTTPException
from zope.interface import implementer

from hoody import logs
from hoody.errors import CallerError, HoodyError, NoSuchThing
from hoody.interfaces import IIntake, IRequestClaimer
from hoody.metrics import Metrics
from hoody.pipes import names
from hoody.protocols.request import Request
from hoody.resources import cors, failures, pages, refusals
from hoody.resources.gateway import Address, GatewayFace, read_address
from hoody.resources.guard import Guard
from hoody.resources.pipe import PipeFace

PIPES = b"/api/v1/pipe"
CRON = re.compile(rb"/(users|crontab)(/|$)")
_OF_SERVICE = re.compile(rb"cron$|.*-(cron|pipe)-")
"""Hosts under which not the container itself is found, or perhaps not."""


class Area(Enum):
    """The parts of the house that a URL can lead to."""

    PIPE = auto()
    SERVER = auto()
    CONTAINER = auto()
    CRON = auto()


@frozen
class Place:
    """
    Where a request leads.

    @ivar rest: the path within the area, still encoded, without its first slash.
    @ivar of: the container whose own this area is, as its host says it.
    """

    area: Area
    rest: bytes
    of: Address | None = None


def containers_suffix(domain: bytes) -> bytes:
    """What the hosts of containers end with."""
    return b".containers." + domain


def locate(domain: bytes, host: bytes, path: bytes) -> Place:
    """
    Find the place of a URL (the contract's "Hosts").

    @param domain: ours, lower case.
    @param host: lower case, without port.
    @param path: still encoded, with its first slash.
    """
    is_pipe = path == PIPES or path.startswith(PIPES + b"/")
    rest = path[len(PIPES) + 1 :] if is_pipe else path[1:]
    if host.endswith(suffix := containers_suffix(domain)):
        name = host.removesuffix(suffix)
        address = read_address(name.decode()) if _OF_SERVICE.match(name) else None
        if address is not None and address.service == "pipe":
            return Place(Area.PIPE, rest, address)
        if address is not None and address.service == "cron":
            return Place(Area.CRON, path[1:], address)
        return Place(Area.CONTAINER, path)
    if is_pipe or host == b"pipe." + domain:
        return Place(Area.PIPE, rest)
    if CRON.match(path) and host != b"api." + domain:
        return Place(Area.CRON, rest)
    return Place(Area.SERVER, rest)


def witness_request(metrics: Metrics, domain: bytes, request: Request) -> None:
    """Log a request that is over, and count it."""
    logs.log_access(request)
    area = locate(domain, request.host_name, request.path).area
    kind = "other"
    if area is Area.PIPE:
        kind = "pipe"
    elif area is Area.CONTAINER:
        kind = "container"
    elif area is Area.CRON:
        kind = "cron"
    elif request.path.startswith(b"/api/"):
        kind = "api"
    metrics.request_is_over(
        kind,
        request.method.decode("ascii", "replace"),
        logs.status_of(request),
        request.site.reactor.seconds() - request.started_at,
    )


@implementer(IRequestClaimer)
class Root(Resource):
    """The resource of the whole site, and its claimer."""

    isLeaf = True

    def __init__(
        self,
        *,
        domain: str,
        pipe: PipeFace,
        pipe_pages: Klein,
        server_pages: Klein,
        cron_pages: Klein,
        gateway: GatewayFace,
        guard: Guard,
        uploads: Sequence[Callable[[Request], IIntake | None]] = (),
    ) -> None:
        super().__init__()
        self._domain = domain.encode()
        self._pipe = pipe
        self._gateway = gateway
        self._guard = guard
        self._uploads = uploads
        self._apps = {
            Area.PIPE: pipe_pages,
            Area.SERVER: server_pages,
            Area.CRON: cron_pages,
        }
        self._pages = {area: app.resource() for area, app in self._apps.items()}

    # IRequestClaimer

    def claim(self, request: Request) -> IIntake | None:
        place = self._locate(request)
        try:
            if place.area is Area.PIPE:
                of = None if place.of is None else self._gateway.here(request, place.of)
                space = None if of is None else of.container_id
                return self._pipe.claim(request, place.rest, space)
            for claim in self._uploads:
                if (upload := claim(request)) is not None:
                    return upload
            if request.path == b"*" and request.method != b"OPTIONS":
                raise CallerError("The target * is for OPTIONS only.")
            if place.area is Area.CONTAINER:
                if request.door is not None:
                    raise NoSuchThing("By its own door a container comes to the API only.")
                return self._gateway.claim(request)
            if request.length != 0:
                if request.door is not None:  # what is kept in memory is of somebody we know
                    self._guard.check_at_once(request)
                self._check_route(request, place)
        except HoodyError as error:
            self.refuse(request, error)
        except Exception:
            self.refuse(request, failures.understood(Failure()))
        return None

    def _check_route(self, request: Request, place: Place) -> None:
        """Refuse a body that nobody wants before it is sent."""
        app = self._apps[place.area]
        path = unquote_to_bytes(b"/" + place.rest).decode("utf-8", "replace")
        try:
            app.url_map.bind("").match(path, request.method.decode("ascii", "replace"))
        except HTTPException as error:
            raise failures.routing_error(error) from None

    def refuse(self, request: Request, error: HoodyError) -> None:
        place = self._locate(request)
        if place.area is Area.CONTAINER:
            refusals.refuse(request, error)
            return
        if place.area is Area.CRON:
            failures.answer_coded(request, error)
            return
        if place.area is Area.SERVER and request.path.startswith(b"/api/"):
            body = failures.as_envelope(error)
        else:
            cors.allow(request)
            body = failures.as_line(error)
        failures.answer(request, error, body)

    def _locate(self, request: Request) -> Place:
        return locate(self._domain, request.host_name, request.path)

    # IResource

    def render(self, request: Request) -> object:
        """Show a page."""
        place = self._locate(request)
        if request.method == b"OPTIONS":
            cors.answer_preflight(request, private_network=self._pipe.private_network)
        else:
            self._show(request, place)
        return 1  # twisted.web.server.NOT_DONE_YET

    def _show(self, request: Request, place: Place) -> None:
        rest = place.rest
        if request.pipe_path is not None:
            rest = pages.PROGRESS
        elif place.area is Area.PIPE:
            rest = (names.page(names.read(rest)) or "").encode()
        request.prepath = []
        request.postpath = [unquote_to_bytes(segment) for segment in rest.split(b"/")]
        if isinstance(self._pages[place.area].render(request), bytes):
            # Klein's own word for what is not UTF-8; it leaves the answer to us.
            self.refuse(request, CallerError("The path is not UTF-8 once decoded; encode it so."))
