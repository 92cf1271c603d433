"""The states of containers on the disk, while others of them are being forgotten."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hoody.containers.states import States
from hoody.containers.storage import Storage, clone
from tests.support.containers import pool

__all__ = ["pool"]

ROUNDS = 12
MOST = 1 << 30


@pytest.fixture
def states(pool: Path, request: pytest.FixtureRequest) -> Iterator[States]:
    """Of a container that is called C{own}, and has a volume, and a snapshot C{first}."""
    root = pool / f"states-{abs(hash(request.node.name))}"
    storage = Storage(root, root / "image", root, None)
    root.mkdir()
    storage.prepare("a database", is_new=True)
    assert storage.is_simple
    storage.make_container("own", ["data"], MOST)
    states = States(storage)
    states.keep("own", "first")
    try:
        yield states
    finally:
        storage.remove_container("own")
        shutil.rmtree(root)


@contextlib.contextmanager
def others_forgotten(states: States) -> Iterator[None]:
    """Some come and go all the time, for as long as this lasts."""
    over = threading.Event()

    def come_and_go(number: int) -> None:
        source = states.storage.state_path("own")
        for turn in itertools.count():
            if over.is_set():
                return
            name = f"other-{number}-{turn}"
            with contextlib.suppress(FileNotFoundError):  # that is being exchanged
                clone(source, states.storage.snapshot_path("own", name), read_only=True)
            states.forget("own", name)

    with ThreadPoolExecutor(2) as at_once:
        going = [at_once.submit(come_and_go, number) for number in range(2)]
        try:
            yield
        finally:
            over.set()
    for each in going:
        each.result()


def test_one_is_kept_and_put_back_while_others_are_forgotten(states: States) -> None:
    with others_forgotten(states):
        for turn in range(ROUNDS):
            states.keep("own", f"kept-{turn}")
            states.prepare("own", "first", ["data", "more"], MOST, b"a note")
            states.exchange("own")
            states.keep_replaced("own", f"undo-{turn}")
            states.settle("own")
    expected = {f"{kind}-{turn}" for kind in ("kept", "undo") for turn in range(ROUNDS)}
    assert states.known("own") == {"first", *expected}


def test_a_limit_holds_for_all_while_others_are_forgotten(states: States) -> None:
    with others_forgotten(states):
        for turn in range(ROUNDS):
            volumes = ["data", f"more-{turn}"]
            states.storage.reshape("own", volumes, MOST + turn, limit=True)
    assert (states.storage.state_path("own") / f"volume-more-{ROUNDS - 1}").exists()


def test_all_of_it_is_deleted_while_some_are_forgotten(states: States) -> None:
    for _ in range(ROUNDS):
        ids = [f"kept-{number}" for number in range(6)]
        for each in ids:
            states.keep("own", each)
        with ThreadPoolExecutor(3) as at_once:
            forgetting = [at_once.submit(states.forget, "own", each) for each in ids]
            deleting = at_once.submit(states.storage.remove_container, "own")
        for each_done in (*forgetting, deleting):
            each_done.result()
        assert not states.storage.container_path("own").exists()
        states.storage.make_container("own", ["data"], MOST)
