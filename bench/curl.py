"""Large streams, as people send them: with curl."""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from bench.processes import process
from bench.rivals import Server
from bench.wire import Wrong

# -q: no .curlrc of whoever runs this.
_CURL = ("curl", "-q", "-sS", "--noproxy", "*")
_RECEIVE = (*_CURL, "-o", "/dev/null", "-w", "%{size_download} %{http_code}")
_SEND = (*_CURL, "-w", "%{http_code}", "-T")
# Bytes a second, far below what any server does.
_SLOWEST = 20e6


def transfer(
    server: Server, pipe: str, size: int, *, receivers: int = 1, file: Path | None = None
) -> float:
    """
    C{head -c SIZE /dev/zero | curl -T -}, or C{curl -T FILE}, to one curl or more.

    @return: seconds from the clients' start to the end of the last of them.
    @raise Wrong: if not everybody had every byte, and a status of 200.
    """
    url = server.url(pipe) + (f"?n={receivers}" if receivers > 1 else "")
    start = time.monotonic()
    with ExitStack() as clients:
        readers = [
            clients.enter_context(process([*_RECEIVE, url]))
            for _ in range(0 if server.sinks else receivers)
        ]
        if file is None:
            source = clients.enter_context(process(["head", "-c", str(size), "/dev/zero"]))
            sender = clients.enter_context(process([*_SEND, "-", url], stdin=source.stdout))
        else:
            sender = clients.enter_context(process([*_SEND, str(file), url]))
        deadline = start + 20 + size * receivers / _SLOWEST
        told = _told(sender, deadline)
        received = [_told(reader, deadline) for reader in readers]
        seconds = time.monotonic() - start
    if server.sinks and told != f"{size}\n200":
        raise Wrong(f"the sink had {told!r} of {size} bytes")
    if not told.endswith("200") or any(text != f"{size} 200" for text in received):
        raise Wrong(f"of {size} bytes: sender {told!r}, receivers {received}")
    return seconds


def _told(client: subprocess.Popen[bytes], deadline: float) -> str:
    """What a client printed, when it has ended."""
    try:
        out, errors = client.communicate(timeout=deadline - time.monotonic())
    except subprocess.TimeoutExpired:
        raise Wrong("a client has not ended in time") from None
    if client.returncode:
        raise Wrong(f"a client failed: {errors.decode().strip()}")
    return out.decode()
