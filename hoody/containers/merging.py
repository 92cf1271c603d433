"""
Equal memory of dense projects, merged by the kernel (KSM; Linux,
C{Documentation/admin-guide/mm/ksm.rst}).

It merges all over the machine, whatever offers its memory for that: who may write to a page
can tell by the time it takes whether somebody else has an equal one. So nothing in a container
may offer memory (C{seccomp.json}); for dense projects the launcher does, before anything of
theirs runs. What is switched on is not switched off when we stop: containers go on without us.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from attrs import define, field
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

KSM = Path("/sys/kernel/mm/ksm")
PAGES_TO_SCAN = 1000
"""At each look, where the kernel does not see to that by itself: up to 200 MB a second."""
_PR_GET_MEMORY_MERGE = 68
_READINGS = {
    "pages_shared": "ksm_pages_shared",
    "pages_sharing": "ksm_pages_sharing",
    "general_profit": "ksm_general_profit_bytes",
}

_log = Logger(namespace="hoody.containers")


@define(eq=False)
class Merging:
    """
    @ivar is_allowed: whether the machine's own settings may be touched for it.
    """

    is_allowed: bool
    folder: Path = KSM
    _is_ensured: bool = field(default=False, init=False)

    def ensure(self) -> None:
        """
        A dense container is there. This does something once in a server's life: whoever
        changes the machine afterwards has a reason.
        """
        if not self._is_ensured:
            self._is_ensured = True
            deferToThread(self._switch_on).addErrback(
                lambda failure: _log.warn(
                    "KSM cannot be switched on: {reason}", reason=failure.getErrorMessage()
                )
            )

    def _switch_on(self) -> None:
        run = self.folder / "run"
        if not run.exists():
            _log.warn("this kernel has no KSM: memory of dense projects is not merged")
        elif not _merges_processes():
            _log.warn(
                "this kernel merges no memory of programs that did not ask for it: that of dense"
                " projects stays as it is; Linux 6.7 and later do"
            )
        elif run.read_text().strip() == "1":
            _log.info("KSM is on already, and left as it is set")
        elif not self.is_allowed:
            _log.warn(
                "KSM is off: memory of dense projects is not merged; --ksm=on switches it on,"
                " for the whole machine"
            )
        else:
            speed = self._choose_speed()
            run.write_text("1")
            _log.info(
                "KSM is switched on, for the whole machine, {speed}; it stays on when this"
                " server stops: echo 2 >{run} undoes it",
                speed=speed,
                run=run,
            )

    def _choose_speed(self) -> str:
        """
        As it comes it looks at 20 MB a second.

        @return: how much it looks at now, in words.
        """
        advisor = self.folder / "advisor_mode"
        if advisor.exists():  # since Linux 6.8
            advisor.write_text("scan-time")
            return "at a speed that the kernel chooses"
        (self.folder / "pages_to_scan").write_text(str(PAGES_TO_SCAN))
        return f"{PAGES_TO_SCAN} pages at a time"

    def readings(self) -> dict[str, float]:
        """For L{Metrics<hoody.metrics.Metrics>}; of the whole machine."""
        found = {}
        for name, ours in _READINGS.items():
            try:
                found[ours] = float((self.folder / name).read_text())
            except OSError:
                pass  # not in this kernel
        return found


def _merges_processes() -> bool:
    return int(ctypes.CDLL(None).prctl(_PR_GET_MEMORY_MERGE, 0, 0, 0, 0)) >= 0
