"""
Doing something inside another network namespace: setns(2), which changes one thread.

What is opened there (a socket; a file under C{/proc/sys/net}) stays of that namespace
after the thread has come back.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)


def within(namespace: int, work: Callable[[], T]) -> T:
    """
    Do C{work} with this thread in C{namespace}. A thread that cannot come back would
    serve the container's network as if it were the host's: then the process ends.

    @param namespace: a descriptor of C{/proc/PID/ns/net}.
    @raise ValueError: if that is where we are: nothing here is meant for the host.
    @raise OSError: if it cannot be entered.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.path.samestat(os.fstat(home), os.fstat(namespace)):
            raise ValueError("this is the server's own network namespace")
        _enter(namespace)
        try:
            return work()
        finally:
            _return(home)
    finally:
        os.close(home)


def in_a_new_one(work: Callable[[], T]) -> T:
    """Do C{work} with this thread in a network namespace that ends with it."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            return work()
        finally:
            _return(home)
    finally:
        os.close(home)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _return(home: int) -> None:
    if _libc.setns(home, _CLONE_NEWNET):
        os.write(2, b"hoody: a thread cannot come back from a container's network; ending\n")
        os.abort()
