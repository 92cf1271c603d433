"""
The seams: what each room asks of its neighbours, and nothing about how.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IConsumer, IProtocol, IPushProducer, IStreamClientEndpoint
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from twisted.internet.defer import Deferred

    from hoody.audit.events import Event, Filter
    from hoody.auth.tokens import Token
    from hoody.containers.container import Container
    from hoody.containers.elsewhere import Owner
    from hoody.containers.image import Image
    from hoody.containers.transitions import Transition
    from hoody.cron.entry import Due, Entry, Run
    from hoody.errors import HoodyError
    from hoody.pipes.heads import Head
    from hoody.pipes.meeting import Gathered, Report, Running
    from hoody.pipes.results import Result
    from hoody.pipes.watching import Letter
    from hoody.projects import Project
    from hoody.protocols.request import Request
    from hoody.snapshots.snapshot import Snapshot


class IIntake(Interface):
    """
    Takes the body of one request as it comes. Whoever claims a request at
    header time answers with one of these.
    """

    patient: bool = Attribute(
        "Whether what the peer sent is of use even if the peer itself is gone."
    )

    def halfClosed() -> bool:
        """
        The peer will send no more, and nothing of its body is missing; it may
        still read, or be gone.

        @return: whether to go on.
        """

    def dataReceived(data: bytes) -> None:
        """Some of the body, in order, of any size but empty."""

    def bodyComplete() -> None:
        """The body has ended as its framing says. Called at most once."""

    def connectionLost(error: BaseException) -> None:
        """
        The request is over before its answer was: the peer went, or what it
        sent was not HTTP. Called at most once, and last.
        """


class IDoor(Interface):
    """By which a container's own programs come to the API."""

    container_id: str = Attribute("Whose it is.")

    def may_ask() -> bool:
        """Whether one more request may be made now; it is counted then."""

    def moved() -> None:
        """Something goes in or out by it."""

    def left(protocol: IProtocol) -> None:
        """This connection, which came in by it, is closed."""


class IRequestClaimer(Interface):
    """Looks at every request when its head has come."""

    def claim(request: Request) -> IIntake | None:
        """
        Take the request over, or leave it to be rendered as usual.

        @param request: a L{hoody.protocols.request.Request} without its body.
        @return: L{IIntake} or C{None}.
        """

    def refuse(request: Request, error: HoodyError) -> None:
        """Answer C{request} with what C{error} says, and be done with it."""


class IParty(Interface):
    """One who meets others on a path."""

    wanted: int = Attribute("C{n}, the number of receivers; 1 to 256.")
    address: str | None = Attribute("The peer's IP address, or C{None} where it has none.")

    wire: Request | None = Attribute(
        "The L{hoody.protocols.request.Request} whose own body, or whose answer's, the stream"
        " is; C{None} if it is wrapped in something else."
    )

    def fail(error: HoodyError) -> None:
        """
        Be told that nothing will come of it: a status where none has gone
        out, else an end that cannot be taken for a clean one.
        """


class ISender(IParty, IPushProducer):
    """
    Whose body is to be moved. It produces nothing until L{produceInto}.
    """

    head: Head | None = Attribute(
        "A L{hoody.pipes.heads.Head}, or C{None} until a form comes to its file."
    )

    def accept() -> None:
        """The place is yours: the 200 goes out."""

    def tell(line: str) -> None:
        """Say how it goes; C{line} has no line feed and no C{[INFO]}."""

    def produceInto(consumer: IConsumer) -> None:
        """
        Give the body to C{consumer}, what has come already first; unregister
        from it when the body has ended as its framing says.
        """

    def finish() -> None:
        """The answer is complete, and all is well."""


class IReceiver(IParty, IConsumer):
    """Who is given the body."""

    outstanding: int = Attribute(
        "Bytes of what it was given that its kernel has not acknowledged: megabytes, where the"
        " one who reads is slow."
    )

    def begin(head: Head) -> None:
        """The transfer starts: answer with what L{hoody.pipes.heads.Head} says."""

    def complete(digest: bytes | None) -> Deferred[None]:
        """
        That was the last byte.

        @param digest: SHA-256 of the body, where one was asked for.
        @return: a Deferred that fires with C{None} when the receiver's kernel
            has acknowledged everything, or fails when it cannot any more.
        """


class IMover(Interface):
    """
    Moves the bytes of one transfer, the slowest receiver pacing the sender.
    """

    digest: bytes | None = Attribute(
        "SHA-256 of what has passed as L{bytes}, or C{None} if not asked for."
    )

    spliced: int = Attribute("How many bytes of the body the kernel has moved by itself.")

    def start() -> None:
        """Let the sender produce."""

    def drop(receiver: IReceiver) -> None:
        """Go on without this one."""

    def delivered(receiver: IReceiver) -> int:
        """How many bytes of the body this receiver was given, in bytes; kept after a drop."""

    def waiting(receiver: IReceiver) -> int:
        """How many of those its transport has not had room for yet."""


class IPipeObserver(Interface):
    """Is told how transfers go. Must not raise."""

    def changed(path: str, source: Gathered | Running) -> None:
        """
        Somebody came to this path or left it.

        @param source: what its transfer keeps now; it says who is there.
        """

    def started(path: str, running: Running) -> None:
        """Bytes begin to flow."""

    def ended(report: Report, running: Running) -> None:
        """@param report: a L{hoody.pipes.meeting.Report}."""


class ISpectator(Interface):
    """Watches a path."""

    def tell(letter: Letter) -> None:
        """Something has happened. It may be let pass: L{look} is for making up for it."""

    def look(now: float) -> None:
        """Called now and then, whether something happens or not."""


class ITokens(Interface):
    """The tokens that there are."""

    async def add(token: Token) -> None:
        """@raise hoody.errors.Taken: if another has its alias, or is root too."""

    async def get(token_id: str) -> Token | None:
        """One."""

    async def all() -> list[Token]:
        """Oldest first."""

    async def remove(token_id: str) -> bool:
        """@return: whether it was there."""


class IProjects(Interface):
    """The projects that there are."""

    async def add(project: Project) -> None:
        """@raise hoody.errors.Taken: if another has its alias."""

    async def find(id_or_alias: str, for_change: bool = False) -> Project | None:
        """
        One, by its id, or its alias without regard to case.

        @param for_change: nobody else is to change it before this transaction is over.
        """

    async def idle_timeouts() -> dict[str, int]:
        """C{idle_timeout_seconds} of all, by their ids."""

    async def page(
        offset: int, limit: int, sort_by: str, ascending: bool
    ) -> tuple[list[Project], int]:
        """
        Some, and how many there are.

        @param sort_by: a field of L{Project}.
        """

    async def change(project: Project) -> None:
        """@raise hoody.errors.Taken: if another has its alias."""

    async def remove(project_id: str) -> None:
        """@raise hoody.errors.InUse: if something belongs to it."""


class IEvents(Interface):
    """What has happened."""

    async def page(
        wanted: Filter, offset: int, limit: int, ascending: bool
    ) -> tuple[list[Event], int]:
        """Some, in the order in which they became true or the other way round, and how many."""

    async def after(seq: int, wanted: Filter, limit: int) -> list[Event]:
        """What became true behind C{seq}, oldest first."""

    async def newest() -> int:
        """The last one's C{seq}; 0 if there is none."""

    async def expire(before: datetime, limit: int) -> int:
        """Forget up to C{limit} of what happened before. @return: how many."""


class IResults(Interface):
    """How the last transfer of each path ended."""

    async def keep(results: list[Result]) -> None:
        """In place of earlier ones of the same paths."""

    async def find(path: str) -> Result | None:
        """One."""

    async def expire(before: datetime, limit: int) -> int:
        """Forget up to C{limit} of what ended before. @return: how many."""


class IContainers(Interface):
    """The containers that there are, of all servers."""

    async def add(container: Container) -> None:
        """@raise hoody.errors.Taken: if another answers to its name or alias."""

    async def find(label: str, for_change: bool = False) -> Container | None:
        """
        Whose id, name or alias this is.

        @param label: as L{hoody.containers.container.label} makes them.
        @param for_change: nobody else is to change it before this transaction is over.
        """

    async def page(
        offset: int,
        limit: int,
        sort_by: str,
        ascending: bool,
        project_id: str | None = None,
        only: tuple[str, ...] | None = None,
    ) -> tuple[list[Container], int]:
        """
        Some, and how many there are.

        @param only: of those with these ids.
        """

    async def of_server(server_id: str) -> list[Container]:
        """All that it has to see to."""

    async def owners(labels: list[str]) -> dict[str, Owner]:
        """Which servers those are of, of them that some container answers to."""

    async def free_number(server_id: str) -> int:
        """The least that no container of this server has, kept for this transaction."""

    async def count(project_id: str) -> int:
        """How many a project has."""

    async def change(container: Container) -> None:
        """@raise hoody.errors.Taken: if another answers to its name or alias."""

    async def remove(container_id: str) -> None:
        """With all that is told of it alone."""

    async def passed(transition: Transition) -> None:
        """Its status has changed."""

    async def transitions(
        container_id: str, offset: int, limit: int, ascending: bool
    ) -> tuple[list[Transition], int]:
        """Some, and how many there are."""


class IImages(Interface):
    """The images that there are, each on one server."""

    async def add(image: Image) -> None:
        """@raise hoody.errors.Taken: if that server has one of the name."""

    async def find(server_id: str, name: str) -> Image | None:
        """One; it is not removed before this transaction is over."""

    async def of_server(server_id: str) -> list[Image]:
        """By name."""

    async def change(image: Image) -> None:
        """What is known of it now."""

    async def remove(image_id: str) -> None:
        """@raise hoody.errors.InUse: if a container is made of it."""


class ISnapshots(Interface):
    """The snapshots that there are, of the containers of all servers."""

    async def add(snapshot: Snapshot) -> None:
        """
        It may be there already.

        @raise hoody.errors.Taken: if another of its container has the name or the alias.
        """

    async def find(container_id: str, name: str) -> Snapshot | None:
        """One, by its name or its alias."""

    async def of_container(container_id: str) -> list[Snapshot]:
        """Newest first."""

    async def of_server(server_id: str) -> list[Snapshot]:
        """Those of all containers that it has."""

    async def ids(server_id: str) -> set[str]:
        """Of those of all containers that it has."""

    async def unread(server_id: str) -> list[Snapshot]:
        """Those of them whose digest nobody knows yet, oldest first."""

    async def expired(server_id: str, now: datetime) -> list[Snapshot]:
        """Those of them whose time is over."""

    async def counts(container_ids: list[str]) -> dict[str, int]:
        """How many these have, what restores have replaced aside; none is not there."""

    async def change(snapshot: Snapshot) -> None:
        """@raise hoody.errors.Taken: if another of its container has the name or the alias."""

    async def remove(snapshot_id: str) -> None:
        """It may be gone already."""


class ICron(Interface):
    """
    Cron entries, all their versions, and their runs.

    Whose an entry is: that of the server which has its container, if it is a container's; else
    that of C{server_id}.
    """

    async def add(entry: Entry) -> None:
        """It is its first version, too."""

    async def find(entry_id: str, for_change: bool = False) -> Entry | None:
        """@param for_change: have others who want to change it wait until this is over."""

    async def page(
        offset: int,
        limit: int,
        user: str | None = None,
        container_id: str | None = None,
        only: tuple[str, ...] | None = None,
        sort_by: str = "created_at",
        ascending: bool = True,
    ) -> tuple[list[Entry], int]:
        """
        @param sort_by: a field of L{Entry}; what has none there is less than all that has.
        @param user: whose; C{container_id}: of this container; C{None} for all.
        @param only: of containers of these ids alone.
        @return: that part, and how many there are in all.
        """

    async def users(
        offset: int,
        limit: int,
        container_id: str | None = None,
        only: tuple[str, ...] | None = None,
    ) -> tuple[list[str], int]:
        """Who has entries, or a layout, by name; the rest as L{page}."""

    async def change(entry: Entry) -> None:
        """If its version is another than before, that is kept as one, too."""

    async def remove(entry_id: str) -> None:
        """Its versions stay, and so do its runs."""

    async def versions(entry_id: str) -> list[Entry]:
        """Newest first; of one that was removed, too."""

    async def layout(user: str, container_id: str | None) -> str | None:
        """How the user's crontab looked when it was put, for this container or for all."""

    async def lay_out(user: str, container_id: str | None, layout: str | None) -> None:
        """Keep that; C{None} forgets it."""

    # What the clock does

    async def next_due(server_id: str) -> datetime | None:
        """When something of this server is next to be seen to: a fire, a retry, an expiry."""

    async def due(server_id: str, now: datetime, limit: int) -> list[Due]:
        """
        Those whose next fire is at C{now} or was before, longest due first. They are this
        transaction's until it is over: others of this kind pass over them.
        """

    async def retries(server_id: str, now: datetime, limit: int) -> list[Due]:
        """As L{due}, those with a run that is to be tried again; its entry is as it is now."""

    async def ending(server_id: str, now: datetime, limit: int) -> list[Due]:
        """As L{due}, those whose time is over, which has not been told yet."""

    async def seen(entry_ids: list[str]) -> list[Due]:
        """What there is to know of these, in this order, without those that are not there."""

    async def later_than(server_id: str, now: datetime, after: str, limit: int) -> list[Entry]:
        """
        Those that are due at some time after C{now}, locked as by L{due}, by id; those alone
        whose id is greater than C{after}.
        """

    async def take_back(server_id: str, now: datetime, wait: timedelta) -> None:
        """
        The clock may have been ahead: forget those runs of this server that were missed or
        skipped at a time which is yet to come, and have retries wait for no longer than they do.

        @param wait: before the second attempt; twice that before the third, and so on.
        """

    async def set_next(fires: dict[str, datetime | None]) -> None:
        """When each of these entries, by id, is due next; this makes no version."""

    async def begin(runs: list[Run]) -> set[str]:
        """
        @return: the ids of those that are there now: of one entry, time and attempt, there is
            one run, and who comes later does not replace it.
        """

    async def run(run_id: str) -> Run | None:
        """One."""

    async def change_runs(runs: list[Run]) -> None:
        """All of each; they may be gone."""

    async def runs(entry_id: str, offset: int, limit: int) -> tuple[list[Run], int]:
        """Newest first."""

    async def last_runs(entry_ids: list[str]) -> dict[str, Run]:
        """The newest of each, without what it said."""

    async def unfinished(server_id: str, after: str, limit: int) -> list[Run]:
        """Those of this server that are not over, by id; those alone whose id is greater."""

    async def expire(before: datetime, limit: int) -> int:
        """Forget runs that were due before, of those that are over. @return: how many."""


class ICommand(Interface):
    """A command that runs."""

    ended: Deferred[int] = Attribute(
        "Fires with its exit status, or minus the signal that ended it."
    )

    def terminate() -> None:
        """Ask it to end, and all that it has begun (SIGTERM)."""

    def kill() -> None:
        """End it, and all that it has begun (SIGKILL)."""


class IRunner(Interface):
    """Runs what is not to wait for its time."""

    async def run_now(entry: Entry, actor: str, request_id: str | None = None) -> Run:
        """
        As if it were due now.

        @param actor: who asks, as the audit names them.
        @return: the run, which has not begun, or is skipped.
        @raise hoody.errors.Misdirected: if it runs on another server.
        """


class IUsers(Interface):
    """As whom a command can run."""

    async def knows(user: str, container: Container | None) -> bool | None:
        """
        Whether there is a user of this name.

        @param container: in which one; C{None} for this server.
        @return: C{None} if that cannot be told.
        """


class IPlaces(Interface):
    """Where the commands of cron entries run."""

    async def begin(
        due: Due, environment: dict[str, str], hear: Callable[[str, str], None]
    ) -> ICommand:
        """
        Begin an entry's command where it belongs.

        @param environment: beyond what whoever runs it has anyway.
        @param hear: given C{stdout} or C{stderr}, and what came on it.
        @raise hoody.errors.HoodyError: if it cannot be begun.
        """

    def url(entry: Entry) -> str | None:
        """Where this server's API is from there, without a slash at its end."""


class IServers(Interface):
    """The servers of this database."""

    async def say(server_id: str, name: str) -> None:
        """What this one is called."""

    async def names(server_ids: set[str]) -> dict[str, str]:
        """What these are called, of whom it is known."""


class ITransaction(Interface):
    """What is done in it becomes true as a whole, when it is left without an error."""

    tokens: ITokens = Attribute("L{ITokens}")
    projects: IProjects = Attribute("L{IProjects}")
    events: IEvents = Attribute("L{IEvents}")
    results: IResults = Attribute("L{IResults}")
    containers: IContainers = Attribute("L{IContainers}")
    images: IImages = Attribute("L{IImages}")
    servers: IServers = Attribute("L{IServers}")
    snapshots: ISnapshots = Attribute("L{ISnapshots}")
    cron: ICron = Attribute("L{ICron}")

    async def secret(name: str, fresh: bytes) -> bytes:
        """What all servers of this database know under C{name}: C{fresh}, if nothing yet."""

    def record(event: Event) -> None:
        """Tell of what is done here."""

    def announce(topic: str) -> None:
        """Let all servers know that something of C{topic} has changed."""


class IStore(Interface):
    """What outlives the process."""

    def transaction(patience: float = 1.5) -> AbstractAsyncContextManager[ITransaction]:
        """
        @param patience: seconds that it may take as a whole.
        @raise hoody.errors.DatabaseAway: on entering or within, if it cannot be. Only
            what was left without an error has surely happened.
        """

    def observe(topic: str, observer: Callable[[], None]) -> None:
        """
        Have C{observer} called after each change of C{topic}, by whatever server,
        and whenever changes may have been missed.
        """


class IDestinations(Interface):
    """The containers, as the gateway comes to them."""

    def here(label: str) -> IDestination | None:
        """As L{find}, of those of this server alone."""

    async def find(label: str) -> IDestination | None:
        """
        Whose name, alias or id this is.

        @param label: one label of a host name, lower case.
        """


class IDestination(Interface):
    """One container, as those come to it who ask for its name."""

    container_id: str = Attribute("24 hex digits.")
    project_id: str = Attribute("24 hex digits.")
    name: str = Attribute("What it is called, for sentences.")
    access: str = Attribute("C{public}, or C{token}.")
    port: int = Attribute("The main port.")
    ports: frozenset[int] = Attribute("All that may be reached from outside.")

    sleeps: str | None = Attribute(
        "C{paused} or C{stopped}, if it is so only until the next request comes."
    )

    def visit(*, counts: bool = True) -> IVisit:
        """
        A request has come for it.

        @param counts: whether that keeps it awake for longer than it lasts.
        """

    async def last_words() -> str:
        """The end of its log, for those who may read it."""


class IVisit(Interface):
    """One request, as it wakes its container, and keeps it awake."""

    wake: tuple[str, float] | None = Attribute(
        "C{paused} or C{stopped}, which the container was when this came, and milliseconds from"
        " then until it took the connection; C{None} if it was awake, or has not yet."
    )

    patience: float = Attribute(
        "For how many seconds more its port may refuse, and is asked again; known with the"
        " endpoint."
    )

    async def endpoint(port: int) -> IStreamClientEndpoint:
        """
        Have it run, which may take a while, and say where to connect to.

        @raise hoody.errors.NotServing: if it does not, and will not now.
        """

    def connected() -> None:
        """The container has taken the connection."""

    def answered() -> None:
        """The answer has begun: from now on only bytes count."""

    def moved() -> None:
        """Bytes have passed, this way or that."""

    def holds_back(some: bool) -> None:
        """
        @param some: whether there are bytes for the container that it does not take, so that
            the client has to wait with more.
        """

    def ended() -> None:
        """It is over, however. Called once, and last."""
