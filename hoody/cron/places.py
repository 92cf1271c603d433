"""Where commands of cron entries run: in a container, or on the server itself."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from zope.interface import implementer

from hoody.containers.commands import NoSuchUser, run_errand
from hoody.containers.fleet import Fleet
from hoody.containers.network.apidoor import URL
from hoody.cron.entry import Due, Entry
from hoody.cron.host import HostCommand
from hoody.cron.telling import actor_of
from hoody.errors import CannotRun
from hoody.interfaces import ICommand, IPlaces
from hoody.later import Turns, sleep

FLEET_SECONDS = 120.0
"""How long a server that has just begun may take to find its containers."""
LOOK_SECONDS = 0.1


@implementer(IPlaces)
@define(eq=False)
class Places:
    """@ivar own_url: of this server's API, from itself."""

    _fleet: Fleet
    own_url: Callable[[], str | None]
    _turns: Turns = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._turns = Turns(self._fleet.reactor)

    def url(self, entry: Entry) -> str | None:
        return URL if entry.run_on == "container" else self.own_url()

    async def begin(
        self, due: Due, environment: dict[str, str], hear: Callable[[str, str], None]
    ) -> ICommand:
        entry = due.entry
        if entry.run_on == "server":
            reactor = self._fleet.reactor
            await self._turns.mine()
            return await HostCommand.begin(reactor, entry.user, entry.command, environment, hear)
        await self._fleet_is_ready()
        self._fleet.check()
        keeper = self._fleet.keepers.get(entry.container_id or "")
        if keeper is None:
            raise CannotRun("The container is not on this server any more.")
        try:
            return await run_errand(
                self._fleet,
                keeper,
                entry.user,
                entry.command,
                environment,
                hear,
                actor_of(entry),
            )
        except NoSuchUser:
            raise CannotRun(
                f"The container {keeper.container.name} knows no user {entry.user}."
            ) from None

    async def _fleet_is_ready(self) -> None:
        reactor = self._fleet.reactor
        late = reactor.seconds() + FLEET_SECONDS
        while not self._fleet.ready and reactor.seconds() < late:
            await sleep(reactor, LOOK_SECONDS)
