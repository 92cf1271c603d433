"""A Postgres that does what it is told, and goes before it says so."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_SOCKET = ".s.PGSQL.5432"


class Forgetful:
    """
    Stands before one.

    @ivar folder: where its socket is.
    @ivar forgot: how many answers it has kept to itself.
    """

    def __init__(self, behind: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hoody-test-"))
        self.folder.chmod(0o755)
        self.forgot = 0
        self._behind = behind
        self._wanted: bytes | None = None
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.folder / _SOCKET))
        (self.folder / _SOCKET).chmod(0o777)
        self._listening.listen(50)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listening.close()
        shutil.rmtree(self.folder)

    def forget(self, text: bytes) -> None:
        """Go at the end of the next transaction in which somebody says this."""
        self._wanted = text

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._behind / _SOCKET))
                _Conversation(self, client, server)

    def is_wanted(self, asked: bytes) -> bool:
        if self._wanted is None or self._wanted not in asked:
            return False
        self._wanted = None
        return True


class _Conversation:
    def __init__(self, around: Forgetful, client: socket.socket, server: socket.socket) -> None:
        self._around, self._client, self._server = around, client, server
        self._is_wanted = self._is_last = False
        for pass_on in (self._ask, self._answer):
            threading.Thread(target=pass_on, daemon=True).start()

    def _ask(self) -> None:
        with contextlib.suppress(OSError):
            while asked := self._client.recv(1 << 20):
                self._is_wanted = self._is_wanted or self._around.is_wanted(asked)
                self._is_last = self._is_wanted and b"COMMIT" in asked
                self._server.sendall(asked)
        self._close()

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            while answer := self._server.recv(1 << 20):
                if self._is_last:
                    self._around.forgot += 1
                    break
                self._client.sendall(answer)
        self._close()

    def _close(self) -> None:
        for each in (self._client, self._server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
