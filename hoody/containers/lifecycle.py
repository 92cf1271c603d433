"""
What may become of a container, when: the one place that says so.

The machine is pure. It is told what is asked and what has happened, and says what is to be
done (L{Core.begin}); while that is being done nothing else is begun, so that no two things
are ever done to one container at once.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol

from attrs import define
from automat import TypeMachineBuilder


class Task(StrEnum):
    """What is to be done, as C{pending} names it while it is."""

    CREATE = "creating"
    COPY = "copying"
    START = "starting"
    STOP = "stopping"
    KILL = "killing"
    RESTART = "restarting"
    PAUSE = "pausing"
    RESUME = "resuming"
    DOZE = "dozing"
    RESTORE = "restoring"
    RETURN = "returning"
    DELETE = "deleting"
    BURY = "ending"


@define(eq=False)
class Core:
    """
    What the machine needs of the world.

    @ivar begin: called with each task that is to be done now, and what it is done for; when
        it is over it calls L{Life.done} or L{Life.failed}.
    @ivar settled: called when nothing is being done any more.
    """

    begin: Callable[[Task, Any], None]
    settled: Callable[[], None]


class Life(Protocol):
    """First what can be asked for, then what can happen."""

    def start(self, order: Any) -> None: ...
    def stop(self, order: Any) -> None: ...
    def force_stop(self, order: Any) -> None: ...
    def restart(self, order: Any) -> None: ...
    def pause(self, order: Any) -> None: ...
    def resume(self, order: Any) -> None: ...
    def delete(self, order: Any) -> None: ...
    def doze(self, order: Any) -> None: ...
    def restore(self, order: Any) -> None: ...
    def create(self, order: Any) -> None: ...
    def copy_from(self, order: Any) -> None: ...

    def woke(self) -> None:
        """It goes on, as somebody has come."""

    def go_on_restoring(self, order: Any) -> None:
        """An earlier server has begun to, and it has to come to its end."""

    def ended(self, order: Any) -> None:
        """Its first process is gone, by itself."""

    def done(self) -> None:
        """What was begun is done."""

    def failed(self) -> None:
        """It is not, and cannot be."""

    def adopt_running(self) -> None:
        """It was found so, by a server that has just started."""

    def adopt_paused(self) -> None: ...
    def adopt_stopped(self) -> None: ...
    def adopt_failed(self) -> None: ...

    def back_to_running(self) -> None:
        """What was begun could not be, and nothing has changed."""

    def back_to_paused(self) -> None: ...
    def back_to_stopped(self) -> None: ...
    def back_to_failed(self) -> None: ...

    def state(self) -> str:
        """The state's name, for sentences."""


builder: TypeMachineBuilder[Life, Core] = TypeMachineBuilder(Life, Core)

unknown = builder.state("unknown")
creating = builder.state("creating")
stopped = builder.state("stopped")
starting = builder.state("starting")
running = builder.state("running")
stopping = builder.state("stopping")
restarting = builder.state("restarting")
pausing = builder.state("pausing")
paused = builder.state("paused")
resuming = builder.state("resuming")
dozing = builder.state("dozing")
restoring = builder.state("restoring")
ending = builder.state("ending")
failed = builder.state("failed")
deleting = builder.state("deleting")
gone = builder.state("gone")

_STATES = {
    "unknown": unknown,
    "creating": creating,
    "stopped": stopped,
    "starting": starting,
    "running": running,
    "stopping": stopping,
    "restarting": restarting,
    "pausing": pausing,
    "paused": paused,
    "resuming": resuming,
    "dozing": dozing,
    "restoring": restoring,
    "ending": ending,
    "failed": failed,
    "deleting": deleting,
    "gone": gone,
}

_BEGINS: list[tuple[list[Any], Any, Any, Task]] = [
    # from, asked, meanwhile, what is done
    ([unknown], Life.create, creating, Task.CREATE),
    ([unknown], Life.copy_from, creating, Task.COPY),
    ([stopped, failed], Life.start, starting, Task.START),
    ([running], Life.stop, stopping, Task.STOP),
    ([running, paused], Life.force_stop, stopping, Task.KILL),
    ([paused], Life.stop, stopping, Task.STOP),
    ([running, paused, stopped, failed], Life.restart, restarting, Task.RESTART),
    ([running], Life.pause, pausing, Task.PAUSE),
    ([paused], Life.resume, resuming, Task.RESUME),
    ([running], Life.doze, dozing, Task.DOZE),
    ([running, paused, stopped, failed], Life.restore, restoring, Task.RESTORE),
    ([unknown], Life.go_on_restoring, restoring, Task.RETURN),
    ([running, paused], Life.ended, ending, Task.BURY),
    ([unknown, running, paused, stopped, failed], Life.delete, deleting, Task.DELETE),
]

_ENDS: list[tuple[Any, Any, Any]] = [
    # meanwhile, if it is done, if it is not
    (creating, stopped, gone),
    (starting, running, failed),
    (stopping, stopped, failed),
    (restarting, running, failed),
    (pausing, paused, running),
    (resuming, running, failed),
    (dozing, paused, running),
    (restoring, running, failed),  # or back to what it was: see Life.back_to_...
    (ending, stopped, failed),
    (deleting, gone, failed),
]


def _begin(task: Task) -> Callable[[Life, Core, Any], None]:
    def begin(life: Life, core: Core, order: Any) -> None:
        core.begin(task, order)

    return begin


def _settle(life: Life, core: Core) -> None:
    core.settled()


def _ignore(life: Life, core: Core, order: Any) -> None:
    """Who does something to it sees that it ended, too."""


for _sources, _asked, _meanwhile, _task in _BEGINS:
    for _source in _sources:
        _source.upon(_asked).to(_meanwhile)(_begin(_task))

for _meanwhile, _well, _badly in _ENDS:
    _meanwhile.upon(Life.done).to(_well)(_settle)
    _meanwhile.upon(Life.failed).to(_badly)(_settle)
    if _meanwhile is not ending:
        _meanwhile.upon(Life.ended).loop()(_ignore)

paused.upon(Life.woke).to(running)(_settle)

for _found, _as in (
    (Life.adopt_running, running),
    (Life.adopt_paused, paused),
    (Life.adopt_stopped, stopped),
    (Life.adopt_failed, failed),
):
    unknown.upon(_found).to(_as)(_settle)

for _meanwhile, _, _ in _ENDS:
    for _back, _as in (
        (Life.back_to_running, running),
        (Life.back_to_paused, paused),
        (Life.back_to_stopped, stopped),
        (Life.back_to_failed, failed),
    ):
        _meanwhile.upon(_back).to(_as)(_settle)

for _state in (stopped, failed, gone, unknown, ending):
    _state.upon(Life.ended).loop()(_ignore)


def _say(name: str) -> Callable[[Life, Core], str]:
    def say(life: Life, core: Core) -> str:
        return name

    return say


for _name, _state in _STATES.items():
    _state.upon(Life.state).loop()(_say(_name))

Machine = builder.build()
"""Makes the life of one container, of a L{Core}; it begins in C{unknown}."""

SETTLED = frozenset({"running", "paused", "stopped", "failed", "gone", "unknown"})
"""States in which nothing is being done."""
