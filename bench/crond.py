"""
Debian's own cron(8), with crontabs, and a minute, of its own.

It runs in a mount namespace in which nothing of the machine's crontabs is to be seen, nor the
machine's cron of it. Its minutes begin when that is wanted: its clock shows the time of a zone
whose seconds are others (TZ of POSIX has seconds, too).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from bench.house import run_well
from bench.processes import descendants, process

CRON = "cron"
# Its pid file and its note that @reboot was seen to are in /run; /dev/log is often there, too.
_SCRIPT = """\
mount -t tmpfs none /run &&
mount --bind "$1/spool" /var/spool/cron/crontabs &&
mount --bind "$1/cron.d" /etc/cron.d &&
mount --bind "$1/crontab" /etc/crontab || exit 1
[ ! -S /dev/log ] || mount --bind /dev/null /dev/log
exec cron -f
"""


@frozen
class Crond:
    """
    @ivar began: when it was started, in seconds since 1970.
    @ivar minute: when its first minute begins.
    """

    pid: int
    began: float
    minute: float


@contextmanager
def crond(folder: Path, lines: Sequence[str], seconds: int) -> Iterator[Crond]:
    """
    @param folder: for its files; it is made.
    @param lines: as in C{/etc/crontab}, which has a user in each.
    @param seconds: until its first minute, at least.
    """
    for name in ("spool", "cron.d"):
        (folder / name).mkdir(parents=True)
    (folder / "crontab").write_text("".join(f"{line}\n" for line in lines))
    began = time.time()
    minute = int(began) + 1 + seconds
    zone = f"TZ=AAA-0:00:{-minute % 60:02}"
    command = ["/usr/bin/env", zone, "unshare", "--mount", "--propagation", "private"]
    with process([*command, "sh", "-c", _SCRIPT, "sh", str(folder)]) as popen:
        try:
            yield Crond(popen.pid, began, minute)
            if popen.poll() is not None:
                raise OSError(f"cron has ended with {popen.returncode}")
        finally:
            for pid in descendants(popen.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def version() -> str:
    return run_well("dpkg-query", "-W", "-f", "${Version}", CRON)
