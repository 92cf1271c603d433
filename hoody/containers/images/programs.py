"""Programs of Debian's that fetch images: run so that nothing of them outlives us."""

from __future__ import annotations

import asyncio
import ctypes
import shutil
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from hoody.errors import HoodyError, Unavailable

_PR_SET_PDEATHSIG = 1
_LAST_LINES = 20
_MOST_LINE = 64 * 1024
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TMPDIR = "/dev/shm"  # noqa: S108  # one of their own
# A pid namespace ends with its first process, which ends with unshare(1), which ends with
# us; and what is mounted in the mount namespace goes with it, temporary files too.
_WITHIN = [
    *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"),
    *("sh", "-c", f'mount -t tmpfs -o mode=1777 tmpfs {TMPDIR} && exec "$@"', "sh"),
]
_libc = ctypes.CDLL(None)


@frozen
class Ended:
    """@ivar said: the last lines of both outputs."""

    status: int
    said: tuple[str, ...]


def require(program: str, package: str) -> None:
    for name in (program, "unshare"):
        if shutil.which(name, path=_PATH) is None:
            raise HoodyError(
                f"{name} is needed for images of this kind and is not there; install it (as root:"
                f" apt-get install {package if name == program else 'util-linux'})."
            )


async def start(
    command: Sequence[str], folder: str, environment: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """@param folder: to be in."""
    return await asyncio.create_subprocess_exec(
        *_WITHIN,
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        env={"PATH": _PATH, "LANG": "C.UTF-8", "TMPDIR": TMPDIR, **environment},
        limit=_MOST_LINE,
        preexec_fn=lambda: _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
    )


async def watch(
    process: asyncio.subprocess.Process, seconds: float, hear: Callable[[str], None]
) -> Ended:
    """
    Wait for its end.

    @param hear: is told each line.
    @raise Unavailable: if it takes too long.
    """
    lines: deque[str] = deque(maxlen=_LAST_LINES)
    try:
        async with asyncio.timeout(seconds):
            await _listen(process, lines, hear)
            return Ended(await process.wait(), tuple(lines))
    except TimeoutError:
        raise Unavailable(
            f"The image took longer than {seconds:.0f} s to be fetched; try again later."
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _listen(
    process: asyncio.subprocess.Process, lines: deque[str], hear: Callable[[str], None]
) -> None:
    assert process.stdout is not None
    while True:
        try:
            raw = await process.stdout.readline()
        except ValueError:
            continue  # a line without an end
        if not raw:
            return
        line = raw.decode("utf-8", "replace").strip()
        if line:
            lines.append(line)
            hear(line)
