"""Whom a container knows, as its files say; and what these may be instead."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hoody.containers.container import Volume
from hoody.containers.storage import Storage
from hoody.containers.users import MOST, knows
from tests.support.clockwork import APP, container

PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(mount=tmp_path, image=tmp_path / "x", given=None, size=None)


@pytest.fixture
def image(storage: Storage) -> Path:
    etc = storage.image_path("i" * 24) / "etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text(PASSWD)
    return etc


@pytest.fixture
def upper(storage: Storage) -> Path:
    """Its own C{/etc}, which is not there yet."""
    path = storage.state_path(APP) / "root" / "upper"
    path.mkdir(parents=True)
    return path / "etc"


Ask = Callable[..., Any]


@pytest.fixture
def ask(storage: Storage) -> Ask:
    def ask(user: str, **fields: Any) -> bool | None:
        return knows(storage, container(**fields), user)

    return ask


def test_what_is_not_written_yet_is_the_image_s(ask: Ask, image: Path, upper: Path) -> None:
    assert ask("alice") is True
    assert ask("root") is True
    assert ask("bob") is False
    assert ask("alic") is False
    assert ask("x") is False


def test_what_it_has_written_counts(ask: Ask, image: Path, upper: Path) -> None:
    upper.mkdir()
    assert ask("alice") is True  # something else in /etc is its own
    (upper / "passwd").write_text("bob:x:1:1::/:/bin/sh\n")
    assert ask("bob") is True
    assert ask("alice") is False


def test_a_folder_that_hides_the_image_s_says_nothing(ask: Ask, image: Path, upper: Path) -> None:
    upper.mkdir()
    try:
        os.setxattr(upper, "trusted.overlay.opaque", b"y")
    except OSError as error:
        pytest.skip(f"trusted attributes: {error.strerror}")
    assert ask("alice") is None


def _link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _pipe(path: Path, target: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path, target: Path) -> None:
    path.mkdir()


def _large(path: Path, target: Path) -> None:
    path.write_text(PASSWD + "#" * MOST)


def _device(path: Path, target: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(0, 0))
    except PermissionError:
        pytest.skip("as root only")


@pytest.mark.parametrize("put", [_link, _pipe, _folder, _large, _device])
def test_what_is_no_list_of_users_is_not_read(
    ask: Ask, image: Path, upper: Path, put: Callable[[Path, Path], None]
) -> None:
    upper.mkdir()
    put(upper / "passwd", Path("/etc/passwd"))
    assert ask("root") is None
    assert ask("alice") is None


def test_no_link_is_followed(ask: Ask, image: Path, upper: Path) -> None:
    upper.symlink_to("/etc")
    assert ask("root") is None


def test_of_what_is_not_there_nothing_is_known(ask: Ask, tmp_path: Path) -> None:
    assert ask("root") is None


def test_a_volume_in_its_place_says_nothing(ask: Ask, image: Path, upper: Path) -> None:
    assert ask("alice", volumes=(Volume("v", "/etc"),)) is None
    assert ask("alice", volumes=(Volume("v", "/etc/ssl"),)) is True


@pytest.mark.parametrize("line", ["alice", "+alice", "+:x:::", ""])
def test_lines_that_are_no_users_are_passed_over(
    ask: Ask, image: Path, upper: Path, line: str
) -> None:
    upper.mkdir()
    (upper / "passwd").write_text(f"{line}\nbob:x:1:1::/:/bin/sh\n")
    assert ask("bob") is True
    assert ask("alice") is False
