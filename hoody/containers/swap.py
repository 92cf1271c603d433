"""
A swap in compressed memory (zram; Linux, C{Documentation/admin-guide/blockdev/zram.rst}), into
which what sleeps can be put. It is the whole machine's, and stays when we stop: what containers
have in it is theirs.
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from attrs import frozen
from twisted.logger import Logger

ALGORITHMS = ("lzo-rle", "lz4", "zstd")
"""The best first: a third of the size, and a page back in some microseconds."""
PRIORITY = 100
"""Before any swap on a disk."""

_log = Logger(namespace="hoody.containers")


@frozen
class CompressedSwap:
    """@ivar size: bytes of what can be put into it; they take memory only as they do."""

    size: int
    control: Path = Path("/sys/class/zram-control")
    blocks: Path = Path("/sys/block")
    swaps: Path = Path("/proc/swaps")

    def ensure(self) -> None:
        """
        Have one, if there is none yet. To be called from a thread. What goes wrong is told in
        the log: without it containers sleep as well, and keep more memory.
        """
        if "/dev/zram" in self.swaps.read_text():
            _log.info("there is a swap in compressed memory already, and it is left as it is")
            return
        try:
            if not self.control.exists():
                _run("modprobe", "zram")
            device = self._make()
        except FileNotFoundError as error:
            _log.warn("no zram: {what} is missing", what=error.filename)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or b"").decode("utf-8", "replace").strip()
            _log.warn("no zram: {reason}", reason=said or error)
        else:
            _log.info(
                "{size} bytes of swap in compressed memory, for the whole machine; they stay when"
                " this server stops: swapoff {device} undoes it",
                size=self.size,
                device=device,
            )

    def _make(self) -> str:
        number = (self.control / "hot_add").read_text().strip()
        block, device = self.blocks / f"zram{number}", f"/dev/zram{number}"
        try:
            offered = (block / "comp_algorithm").read_text().replace("[", "").replace("]", "")
            chosen = next((name for name in ALGORITHMS if name in offered.split()), None)
            if chosen is not None:
                (block / "comp_algorithm").write_text(chosen)
            (block / "disksize").write_text(str(self.size))
            _run("mkswap", "--label", "hoody", device)
            _run("swapon", "--priority", str(PRIORITY), device)
        except BaseException:
            with contextlib.suppress(OSError):
                (block / "reset").write_text("1")
                (self.control / "hot_remove").write_text(number)
            raise
        return device


def _run(*words: str) -> None:
    # In a thread, and of words of our own.
    subprocess.run(words, check=True, capture_output=True, timeout=60)  # noqa: S603
