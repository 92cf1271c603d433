"""
Pipes of the kernel (pipe(7)), through which bytes go from one socket to others
without ever being ours: splice(2) fills and drains them, tee(2) copies them.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import socket

from attrs import define, field

MEMORY = 64 * 1024 * 1024
"""Bytes that all kernel pipes may keep together."""
MOST = 1024 * 1024
"""Bytes of one pipe, where there is plenty: what an unprivileged user may ask for."""
LEAST = 64 * 1024
"""Bytes of one pipe below which it is not worth it."""

_FLAGS = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)
_tee = getattr(ctypes.CDLL(None, use_errno=True), "tee", None)  # Python has none
if _tee is not None:
    _tee.restype = ctypes.c_ssize_t
    _tee.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint]


@define(eq=False)
class KernelPipe:
    """
    One pipe.

    @ivar capacity: bytes.
    @ivar level: bytes that are in it.
    """

    _reader: int
    _writer: int
    capacity: int
    level: int = field(default=0, init=False)

    @classmethod
    def open(cls, size: int) -> KernelPipe:
        """
        A pipe of C{size} bytes, or of what the kernel grants.

        @raise OSError: if no descriptor is left.
        """
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size)
        except OSError:
            pass  # over /proc/sys/fs/pipe-user-pages-soft, or pipe-max-size
        return cls(reader, writer, fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ))

    def put(self, data: bytes) -> None:
        """
        Put C{data} in from here: some ten bytes, which go whole or not at all.

        @raise BlockingIOError: if no room is left.
        """
        self.level += os.write(self._writer, data)

    def fill(self, descriptor: int, count: int) -> int:
        """
        Take up to C{count} bytes from a socket.

        @return: how many.
        @raise OSError: the socket's; L{BlockingIOError} if there are none, or
            no room is left.
        @raise EOFError: if there will be none any more.
        """
        room = self.capacity - self.level
        if room <= 0:
            raise BlockingIOError
        try:
            moved = os.splice(descriptor, self._writer, min(count, room), None, None, _FLAGS)
        except BlockingIOError:
            if self.level:
                raise
            # Perhaps something "urgent" is next (tcp(7)), which splice never passes; to
            # read passes it.
            moved = os.write(self._writer, os.read(descriptor, min(count, select.PIPE_BUF)))
        if not moved:
            raise EOFError
        self.level += moved
        return moved

    def copy_to(self, other: KernelPipe) -> None:
        """
        Have all of it in C{other} too, which is empty and no smaller.

        @raise OSError: if not all of it could be.
        """
        assert _tee is not None
        copied = _tee(self._reader, other._writer, self.level, _FLAGS)
        if copied != self.level:
            # Not its own error, which may be EAGAIN: what was copied cannot be taken back.
            raise OSError(errno.EIO, f"tee copied {copied} of {self.level} bytes")
        other.level += copied

    def drain(self, descriptor: int) -> None:
        """
        Give to a socket what it takes.

        @raise OSError: the socket's; L{BlockingIOError} if it takes none.
        """
        self.level -= os.splice(self._reader, descriptor, self.level, None, None, _FLAGS)

    def peek(self) -> bytes:
        """
        All that is in it, which stays.

        @raise OSError: if no descriptor is left.
        """
        copy = KernelPipe.open(self.capacity)
        try:
            if self.level:
                self.copy_to(copy)
            return copy.read()
        finally:
            copy.close()

    def move_to(self, other: KernelPipe, most: int) -> int:
        """
        Have in C{other} up to C{most} bytes of what is in this one, and no longer here.
        It must not be empty.

        @return: how many bytes of it.
        @raise BlockingIOError: if that has no room left.
        """
        moved = os.splice(self._reader, other._writer, most, None, None, _FLAGS)
        self.level -= moved
        other.level += moved
        return moved

    def read(self, most: int | None = None) -> bytes:
        """Take out C{most} bytes, or all that is in it."""
        left = self.level if most is None or most > self.level else most
        if not left:
            return b""
        data = os.read(self._reader, left)  # mostly all of it
        self.level -= len(data)
        return data if len(data) == left else data + self.read(left - len(data))

    def close(self) -> None:
        """Give it, and what is in it, back to the kernel."""
        os.close(self._reader)
        os.close(self._writer)


@define(eq=False)
class KernelPipes:
    """
    All pipes of this process: no more than there is room for.

    @ivar memory: bytes that may still be taken.
    @ivar pipes: how many pipes, of two descriptors each, may still be opened.
    @ivar open: how many are open.
    """

    memory: int
    pipes: int
    open: int = field(default=0, init=False)

    def take(self, count: int) -> list[KernelPipe]:
        """
        C{count} pipes of equal capacity: large ones while there is plenty of
        room, smaller ones as it goes to its end.

        @return: none at all, if it cannot be as many.
        """
        if not count:
            return []
        share = min(MOST, max(LEAST, self.memory // 16 // count))
        size = 1 << share.bit_length() - 1
        if size * count > self.memory or count > self.pipes:
            return []
        taken: list[KernelPipe] = []
        try:
            for _ in range(count):
                taken.append(KernelPipe.open(size))
                self._account(taken[-1], 1)
        except OSError:
            self.give_back(taken)
            return []
        if min(pipe.capacity for pipe in taken) < size:
            self.give_back(taken)  # of another size they could not be copied whole
            return []
        return taken

    def give_back(self, pipes: list[KernelPipe]) -> None:
        """Close them."""
        for pipe in pipes:
            pipe.close()
            self._account(pipe, -1)

    def _account(self, pipe: KernelPipe, sign: int) -> None:
        self.memory -= sign * pipe.capacity
        self.pipes -= sign
        self.open += sign


def lack() -> str | None:
    """What this system lacks for bytes to go from socket to socket, or C{None}."""
    if not hasattr(os, "splice") or _tee is None:
        return "splice(2) and tee(2) are Linux's"
    pipes = KernelPipes(MEMORY, 2)
    taken = pipes.take(2)
    ours, theirs = socket.socketpair()
    try:
        if not taken:
            return "no pipe could be opened"
        theirs.send(b"ab")
        taken[0].fill(ours.fileno(), 2)
        taken[0].copy_to(taken[1])
        for pipe in taken:
            pipe.drain(ours.fileno())
        return None if theirs.recv(4) == b"abab" else "splice(2) and tee(2) lose bytes"
    except OSError as error:
        return str(error)
    finally:
        pipes.give_back(taken)
        ours.close()
        theirs.close()
