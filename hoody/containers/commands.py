"""Commands in containers as users of theirs, which the containers themselves know."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack

from attrs import frozen

from hoody.containers.execution import Execution
from hoody.containers.fleet import Fleet
from hoody.containers.keeper import Keeper

USER_SECONDS = 5.0
USER_WORDS = 5000
"""How long, and how many characters of, an answer is that says who somebody is."""
IN_ITS_HOME = 'cd "$HOME" 2>/dev/null || cd /; unset OLDPWD; exec /bin/sh -c "$1"'
"""For sh(1): runs what stands behind it as cron(8) does."""
MOST_GROUPS = 100
"""That somebody may be in; of more, these."""
_ANSWER = re.compile(r"([0-9]{1,10})\n([0-9]{1,10})\n([0-9 ]*)\n([^\n]*)\n")
_NO_GROUP = 2**32 - 1
_ROOT = "root"


class NoSuchUser(Exception):
    """The container knows nobody of this name."""


@frozen
class Insider:
    """
    @ivar ids: C{UID:GID}.
    @ivar home: their folder, as the container says it.
    @ivar groups: in which they are.
    """

    ids: str
    home: str
    groups: tuple[int, ...] = ()


def is_dense(keeper: Keeper) -> bool:
    return keeper.run is not None and keeper.run.is_dense


async def find_user(fleet: Fleet, keeper: Keeper, name: str) -> Insider:
    """
    Ask a container that runs.

    @param name: of letters, digits, C{_}, C{-} and C{.} alone; a number is a UID.
    @raise NoSuchUser: if there is none, or the container has no C{id}.
    """
    if name.isdigit():
        return Insider(f"{name}:{name}", "/")
    if name == _ROOT:  # whom all have, and who is asked for most
        return Insider("0:0", "/root")
    said = ""

    def hear(_: str, text: str) -> None:
        nonlocal said
        said += text
        if len(said) > USER_WORDS:  # its programs are its own, and may say anything
            execution.kill()

    runtime, own_id = fleet.runtime, keeper.container.id
    execution = runtime.execution(own_id, hear)
    asked = f"id -u {name} && id -g {name} && id -G {name} && echo ~{name}"
    command = ["/bin/sh", "-c", asked]
    await runtime.execute(
        execution, own_id, command, None, {}, USER_SECONDS, dense=is_dense(keeper)
    )
    status = await execution.ended
    found = _ANSWER.fullmatch(said)
    if status != 0 or found is None:
        raise NoSuchUser(name)
    groups = [int(number) for number in found[3].split()]
    # What is no number of a group would have the runtime refuse the command.
    known = tuple(number for number in groups if number < _NO_GROUP)[:MOST_GROUPS]
    return Insider(f"{found[1]}:{found[2]}", found[4], known)


async def run_errand(
    fleet: Fleet,
    keeper: Keeper,
    user: str,
    command: str,
    environment: dict[str, str],
    hear: Callable[[str, str], None],
    actor: str,
) -> Execution:
    """
    Begin a command that nobody waits for: it wakes the container, which is let idle again
    after.

    @param actor: whose command it is, as the audit names them.
    @raise NoSuchUser: as L{find_user}.
    @raise hoody.errors.NotServing: as L{Fleet.serving}.
    """
    with ExitStack() as stack:
        stack.enter_context(keeper.errand())
        await fleet.serving(keeper, actor)
        insider = await find_user(fleet, keeper, user)
        execution = fleet.runtime.execution(keeper.container.id, hear)
        given = {"HOME": insider.home, "LOGNAME": user, "USER": user, "SHELL": "/bin/sh"}
        await fleet.runtime.execute(
            execution,
            keeper.container.id,
            ["/bin/sh", "-c", IN_ITS_HOME, "sh", command],
            insider.ids,
            {**given, **environment},
            None,
            dense=is_dense(keeper),
            groups=insider.groups,
        )
        errand = stack.pop_all()

    def over(status: int) -> int:
        errand.close()
        return status

    execution.ended.addCallback(over)  # it has no other way to end
    return execution
