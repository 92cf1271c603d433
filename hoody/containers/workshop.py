"""Where images are made: by a process of their own each, into a subvolume that is then sealed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from hoody import commands
from hoody.commands import CommandFailed
from hoody.containers.image import BUSYBOX, Image, ImageStatus
from hoody.containers.storage import Storage, trouble
from hoody.errors import (
    CallerError,
    Conflict,
    DatabaseAway,
    Forbidden,
    HoodyError,
    InUse,
    NoSuchThing,
    Taken,
    Unavailable,
)
from hoody.interfaces import IStore
from hoody.later import sleep
from hoody.units import moment, new_id

SECONDS = 1800.0
"""How long an image may take to be made."""
DATABASE_PAUSE = 0.5
BUILDER = "hoody.containers.images"

_log = Logger(namespace="hoody.containers")


class ImageFailed(CallerError):
    """It could not be made of what was given."""


_ERRORS: dict[int, type[HoodyError]] = {403: Forbidden, 503: Unavailable}
"""As the builder says by whose doing."""


def user_of(root: Path, said: str | None) -> str | None:
    """
    C{UID:GID} of what an image says of its user, as its own files have it. They are not ours:
    no link is followed.
    """
    if not said:
        return None
    user, _, group = said.partition(":")
    users, groups = _accounts(root / "etc/passwd"), _accounts(root / "etc/group")
    found = users.get(user, [user])
    uid = found[2] if len(found) > 3 else user
    gid = found[3] if len(found) > 3 else "0"
    if group:
        entry = groups.get(group, [group])
        gid = entry[2] if len(entry) > 2 else group
    return f"{uid}:{gid}" if uid.isdigit() and gid.isdigit() else None


def _accounts(path: Path) -> dict[str, list[str]]:
    """The lines of such a file by name, and by number."""
    found: dict[str, list[str]] = {}
    try:
        if path.parent.is_symlink():
            return found
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return found
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        for line in file.read(1 << 20).splitlines():
            words = line.split(":")
            if len(words) > 2:
                found.setdefault(words[0], words)
                found.setdefault(words[2], words)
    return found


@define(eq=False)
class Workshop:
    """@ivar making: names of images that are being made, with what was said of that last."""

    _reactor: Any
    _store: IStore
    _storage: Storage
    server_id: str = field(default="", init=False)
    making: dict[str, str] = field(factory=dict, init=False)

    async def tidy(self) -> None:
        """What was being made when an earlier server ended is forgotten."""
        async with self._store.transaction() as transaction:
            for image in await transaction.images.of_server(self.server_id):
                if image.status is ImageStatus.MAKING:
                    await transaction.images.remove(image.id)

    async def ensure_busybox(self) -> None:
        """Have the one image that needs nothing but this machine."""
        async with self._store.transaction() as transaction:
            found = await transaction.images.find(self.server_id, BUSYBOX)
        if found is None:
            await self.make(BUSYBOX, {"kind": "busybox"}, lambda _: None)

    async def make(
        self, name: str, asked: dict[str, Any], progress: Callable[[str], None]
    ) -> Image:
        """
        @param asked: what the builder's C{Order} is to say, without C{into}.
        @param progress: given sentences as it goes.
        @raise Conflict: if there is one of the name.
        @raise ImageFailed: if it cannot be; nothing is left of it then.
        """
        now = moment(self._reactor.seconds())
        image = Image(
            id=new_id(now),
            server_id=self.server_id,
            name=name,
            source=str(asked.get("reference") or asked.get("layout") or asked["kind"]),
            created_at=now,
        )
        try:
            async with self._store.transaction() as transaction:
                await transaction.images.add(image)
        except Taken:
            raise Conflict(
                f"name: there is an image {name!r} already; choose another name, or delete it."
            ) from None
        except DatabaseAway:
            # It may be true all the same, and nobody makes it.
            removing = self._insist(lambda transaction: transaction.images.remove(image.id))
            ensureDeferred(removing).addErrback(_report, name)
            raise
        self.making[name] = "begun"
        try:
            done = await self._build(image, asked, progress)
        except BaseException as error:
            await self._undo(image)
            if isinstance(error, OSError):
                raise trouble(error) from error
            raise
        finally:
            del self.making[name]
        config = {
            key: done.get(key)
            for key in ("command", "port", "environment_vars", "working_dir", "user")
        }
        config["user"] = await deferToThread(
            user_of, self._storage.image_path(image.id), done.get("user")
        )
        ready = evolve(image, status=ImageStatus.READY, config=config, size=done["size"])
        await self._insist(lambda transaction: transaction.images.change(ready))
        return ready

    async def _build(
        self, image: Image, asked: dict[str, Any], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        into = await deferToThread(self._storage.begin_image, image.id)
        said: dict[str, Any] = {}

        def hear(line: bytes) -> None:
            said.update(json.loads(line))
            sentence = said.pop("progress", None)
            if sentence is not None:
                self.making[image.name] = sentence
                progress(sentence)

        order = {**asked, "into": str(into), "parent": os.getpid()}
        try:
            output = await commands.run(
                self._reactor,
                [sys.executable, "-m", BUILDER],
                given=json.dumps(order).encode(),
                seconds=SECONDS,
                each_line=hear,
                well=False,
                environment={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        except CommandFailed as error:
            raise ImageFailed(f"The image {image.name!r} was not made: {error}.") from error
        if "done" not in said:
            reason = said.get("error") or commands.last_line(output.err) or "it broke off"
            sentence = f"The image {image.name!r} was not made: {reason}"
            raise _ERRORS.get(said.get("status", 400), ImageFailed)(sentence)
        await deferToThread(self._storage.seal_image, image.id)
        found: dict[str, Any] = said["done"]
        return found

    async def _undo(self, image: Image) -> None:
        await self._remove_files(image)
        await self._insist(lambda transaction: transaction.images.remove(image.id))

    async def _remove_files(self, image: Image) -> None:
        """What nobody knows of any more is in nobody's way until the next start sweeps it away."""
        try:
            await deferToThread(self._storage.remove_image, image.id)
        except OSError as error:
            _log.error(
                "the files of the image {name} stay on the disk: {reason}",
                name=image.name,
                reason=error.strerror,
            )

    async def _insist(self, work: Callable[[Any], Any]) -> None:
        """What is done already is written down, however long the database is away."""
        while True:
            try:
                async with self._store.transaction() as transaction:
                    await work(transaction)
                return
            except DatabaseAway:
                await sleep(self._reactor, DATABASE_PAUSE)

    async def remove(self, name: str) -> Image:
        """
        @raise NoSuchThing: if there is none.
        @raise Conflict: if it is in use, or being made.
        """
        if name in self.making:
            raise Conflict(f"The image {name!r} is being made; wait until it is ready.")
        try:
            async with self._store.transaction() as transaction:
                found = await transaction.images.find(self.server_id, name)
                if found is None:
                    raise NoSuchThing(f"There is no image {name!r}; GET /api/v1/images has them.")
                await transaction.images.remove(found.id)
        except InUse:
            raise Conflict(
                f"The image {name!r} is in use; delete the containers that are made of it first."
            ) from None
        await self._remove_files(found)
        return found


def _report(failure: Any, name: str) -> None:
    _log.failure("the image {name} could not be seen to", failure=failure, name=name)
