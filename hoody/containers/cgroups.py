"""
What the kernel counts and holds of a container's processes together: control groups, of
version 1, of version 2, or of both (cgroups(7)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, frozen

from hoody.later import sleep

RECLAIM_BYTES = 16 << 20
"""Of memory that are asked back at once."""
FREEZE_SECONDS = 5.0
"""How long processes may take to stand still."""
DISSOLVE_TIMES, DISSOLVE_PAUSE = 50, 0.01


@frozen
class Hierarchies:
    """
    Where each controller is mounted.

    @ivar unified: the one of version 2, or C{None}.
    @ivar controllers: of version 1, by name.
    """

    unified: Path | None
    controllers: dict[str, Path]

    @classmethod
    def read(cls, mounts: str = "/proc/self/mountinfo") -> Hierarchies:
        unified: Path | None = None
        controllers: dict[str, Path] = {}
        with open(mounts) as file:
            for line in file:
                before, _, after = line.partition(" - ")
                kind, _, options = after.split()[:3]
                place = Path(before.split()[4])
                if kind == "cgroup2":
                    unified = place
                elif kind == "cgroup":
                    for name in options.split(","):
                        controllers.setdefault(name, place)
                    for name in place.name.split(","):
                        controllers.setdefault(name, place)
        return cls(unified, controllers)

    @property
    def is_pure(self) -> bool:
        """Whether version 2 has all controllers."""
        return self.unified is not None and "memory" not in self.controllers

    def lacks(self) -> list[str]:
        """Controllers that containers need, and that are not there."""
        needed = {"cpu", "memory", "pids"}
        if self.is_pure:
            assert self.unified is not None
            there = set((self.unified / "cgroup.controllers").read_text().split())
        else:
            there = set(self.controllers)
            needed |= {"freezer", "devices"}
        return sorted(needed - there)


@define(eq=False)
class Cgroup:
    """@ivar path: below the root of each hierarchy, with a slash first."""

    _hierarchies: Hierarchies
    path: str

    def _of(self, controller: str) -> Path:
        found = self._hierarchies
        root = found.unified if found.is_pure else found.controllers[controller]
        assert root is not None
        return root / self.path[1:]

    @property
    def exists(self) -> bool:
        return self._of("memory").exists()

    @property
    def pids(self) -> list[int]:
        """Its processes, with those of groups within."""
        found: list[int] = []
        for folder, _, _ in os.walk(self._of("pids")):
            with contextlib.suppress(OSError):  # it may go just now
                found += [int(line) for line in Path(folder, "cgroup.procs").read_text().split()]
        return found

    # Groups within

    def within(self, name: str) -> Cgroup:
        """
        One in this, for some of its processes: of the controller alone that counts processes,
        where controllers are by themselves.
        """
        return Cgroup(self._hierarchies, f"{self.path}/{name}")

    @property
    def names_within(self) -> list[str]:
        with contextlib.suppress(OSError):
            return [each.name for each in os.scandir(self._of("pids")) if each.is_dir()]
        return []

    def make_within(self) -> None:
        self._of("pids").mkdir(mode=0o755)

    @property
    def as_within(self) -> str:
        """How a runtime is told of one that is within a container's."""
        name = self.path.rpartition("/")[2]
        return name if self._hierarchies.is_pure else f"pids:{name}"

    def kill_within(self) -> None:
        """End all that is in it; of it nothing is begun any more."""
        if self._hierarchies.is_pure:
            with contextlib.suppress(FileNotFoundError):
                (self._of("pids") / "cgroup.kill").write_text("1")
            return
        with contextlib.suppress(FileNotFoundError):
            (self._of("pids") / "pids.max").write_text("0")
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def dissolve_within(self) -> None:
        """
        It goes, and what is in it is from now on in the one that it is within. To be called
        from a thread. Who begins processes all the time keeps it, to the container's end.
        """
        place = self._of("pids")
        for _ in range(DISSOLVE_TIMES):
            for pid in self.pids:
                with contextlib.suppress(OSError):  # it has ended
                    (place.parent / "cgroup.procs").write_text(str(pid))
            try:
                place.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(DISSOLVE_PAUSE)
            else:
                return

    async def freeze(self, reactor: Any) -> None:
        """
        Have all its processes stand still.

        @raise TimeoutError: if one does not; all go on then, as if this is cancelled.
        """
        late = reactor.seconds() + FREEZE_SECONDS
        pause = 0.001
        self._set_frozen(True)
        try:
            while not self.is_frozen:
                if reactor.seconds() > late:
                    raise TimeoutError(
                        f"its processes did not stand still in {FREEZE_SECONDS:g} s"
                    )
                await sleep(reactor, pause)
                pause = min(pause * 2, 0.05)
        except BaseException:
            self.thaw()
            raise

    def thaw(self) -> None:
        """Let them go on; they may have been going on."""
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        if self._hierarchies.is_pure:
            (self._of("pids") / "cgroup.freeze").write_text("1" if frozen else "0")
        else:
            state = self._of("freezer") / "freezer.state"
            state.write_text("FROZEN" if frozen else "THAWED")

    @property
    def is_frozen(self) -> bool:
        if self._hierarchies.is_pure:
            return "frozen 1" in self._read("pids", "cgroup.events")
        return self._read("freezer", "freezer.state").strip() == "FROZEN"

    @property
    def stands_still(self) -> bool:
        """As L{is_frozen}; not if it has gone."""
        try:
            return self.is_frozen
        except OSError:
            return False

    def reclaim(self, goes_on: Callable[[], bool]) -> None:
        """
        Have the kernel take back what memory it can: caches, and what fits into swap. To be
        called from a thread: it takes seconds where there is much.

        @param goes_on: asked now and then whether to go on.
        """
        try:
            if not self._hierarchies.is_pure:
                (self._of("memory") / "memory.force_empty").write_text("0")
                return
            while goes_on():
                (self._of("memory") / "memory.reclaim").write_text(str(RECLAIM_BYTES))
        except OSError as error:
            # EAGAIN: there is no more to be had. ENOENT: it is gone. EBUSY: of version 1.
            if error.errno not in (errno.EAGAIN, errno.ENOENT, errno.EBUSY, errno.ENODEV):
                raise

    def _read(self, controller: str, name: str) -> str:
        return (self._of(controller) / name).read_text()

    # What is counted

    @property
    def cpu_ns(self) -> int:
        """CPU time of all that ran in it, in nanoseconds."""
        if self._hierarchies.is_pure:
            return 1000 * _fields(self._read("cpu", "cpu.stat"))["usage_usec"]
        return int(self._read("cpuacct", "cpuacct.usage"))

    @property
    def memory(self) -> dict[str, int]:
        """In bytes: C{own}, what nobody else has; C{shared}, of files; C{swap}."""
        stat = _fields(self._read("memory", "memory.stat"))
        if self._hierarchies.is_pure:
            swap = self._of("memory") / "memory.swap.current"
            return {
                "own": stat["anon"] + stat.get("kernel", 0),
                "shared": stat["file"],
                "swap": int(swap.read_text()) if swap.exists() else 0,
            }
        return {
            "own": stat["total_rss"],
            "shared": stat["total_cache"],
            "swap": stat.get("total_swap", 0),
        }

    def remove(self) -> None:
        """Of every hierarchy; where it is gone already, well."""
        roots = {*self._hierarchies.controllers.values()}
        if self._hierarchies.unified is not None:
            roots.add(self._hierarchies.unified)
        for root in roots:
            place = root / self.path[1:]
            for folder, _, _ in sorted(os.walk(place), reverse=True):
                os.rmdir(folder)


def _fields(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}
