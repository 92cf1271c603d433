"""A runtime that does not always do what it is asked to."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

WRAPPER = r"""#!/bin/sh
for word; do
    case $word in create|start|delete|exec) call=$word; break;; esac
done
case $(cat "{folder}/$call" 2>/dev/null) in
hang) {folder}/sleep 1234 & wait;;
stuck) exec {folder}/sleep 1234;;
late) {runc} "$@"; {folder}/sleep 1234 & wait;;
died) kill -9 $$;;
half) {runc} "$@"; kill -9 $$;;
garbage)
    printf '"a\\n5\n{{"level":"error","msg":"b\\u0000\\ud800c"}}\n' > "{folder}/log"
    for word; do [ "$before" = --log ] && cat "{folder}/log" > "$word"; before=$word; done
    head -c 100000 /dev/urandom >&2; exit 1;;
noise) head -c 100000 /dev/urandom >&2; exit 1;;
lie) exit 0;;
odd) {runc} "$@" && for word; do
        [ "$before" = --pid-file ] && echo 99999999999999999999 > "$word"; before=$word
    done; exit 0;;
own) for word; do [ "$before" = --pid-file ] && echo $PPID > "$word"; before=$word; done; exit 0;;
esac
exec {runc} "$@"
"""


def _words(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:
        return ""


class Moody:
    """The real runtime, behind a script that does not always do what it is asked to."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        real = shutil.which("runc", path=os.environ["PATH"] + ":/usr/sbin")
        self.folder = folder
        (folder / "sleep").symlink_to("/usr/bin/sleep")
        program = folder / "runc"
        program.write_text(WRAPPER.format(folder=folder, runc=real))
        program.chmod(0o755)

    @property
    def runs(self) -> bool:
        """Whether there is a process of it."""
        return self._there_is(str(self.folder))

    @property
    def hangs(self) -> bool:
        """Whether there is one that does nothing."""
        return self._there_is(f"{self.folder}/sleep")

    def end(self) -> None:
        """Of those that do nothing each."""
        for process in self._with(f"{self.folder}/sleep"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)

    def _there_is(self, word: str) -> bool:
        return any(self._with(word))

    def _with(self, word: str) -> list[Path]:
        return [each for each in Path("/proc").glob("[0-9]*") if word in _words(each)]

    def be(self, **moods: str) -> None:
        """What is to come of each call from now on; those that are not named work."""
        for call in ("create", "start", "delete", "exec"):
            (self.folder / call).unlink(missing_ok=True)
            if call in moods:
                (self.folder / call).write_text(moods[call])
