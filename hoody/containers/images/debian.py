"""A small Debian, as mmdebstrap makes it from a mirror."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from attrs import define

from hoody.containers.images import programs
from hoody.containers.images.orders import Defaults, Order
from hoody.containers.images.tree import MOUNTED_FILES, Attributes, Tree, parts_of
from hoody.errors import CallerError, Unavailable

PACKAGES = ("ca-certificates", "curl", "procps")
"""Those that are always there beside the essential ones."""
_MOST_PACKAGES = 200
# Debian Policy, section 5.6.7.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,99}")
_SUITE = re.compile(r"[a-z][a-z0-9-]{1,39}")
_MIRROR = re.compile(r"https?://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]{0,200})?")
_SPOKEN = re.compile(r"(?:I: |Setting up |Unpacking |Get:\d+ )(.{1,200})")
_FAILED = re.compile(r"E: (.*)")
_NO_SUCH = re.compile("Unable to locate package|has no installation candidate", re.I)


@define
class Debian:
    order: Order
    say: Callable[[str], None]

    def prepare(self) -> None:
        command = self._words()
        programs.require("mmdebstrap", "mmdebstrap")
        asyncio.run(self._make(command))

    def build(self, tree: Tree) -> Defaults:
        """It is there already; it was made by Debian, whose packages are signed."""
        for path in MOUNTED_FILES:  # this machine's, for as long as packages were fetched
            tree.file(parts_of(path), Attributes(mode=0o644))
        return Defaults(
            command=("sleep", "infinity"),
            environment_vars={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            },
        )

    async def _make(self, command: list[str]) -> None:
        def hear(line: str) -> None:
            match = _SPOKEN.match(line)
            if match:
                self.say(match[0].removeprefix("I: "))

        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        process = await programs.start(command, "/", environment)
        ended = await programs.watch(process, self.order.seconds, hear)
        if ended.status:
            failed = [match[1] for line in ended.said if (match := _FAILED.match(line))]
            why = "; ".join(failed[:3]) or (ended.said or ("it says nothing",))[-1]
            kind = CallerError if _NO_SUCH.search(why) else Unavailable
            raise kind(f"mmdebstrap made no Debian {self.order.suite}: {why[:500]}.")

    def _words(self) -> list[str]:
        order = self.order
        if not _SUITE.fullmatch(order.suite):
            raise CallerError(
                f"suite: {order.suite[:40]!r} is none; give the name of a release, such as"
                " bookworm."
            )
        if len(order.packages) > _MOST_PACKAGES:
            raise CallerError(f"packages: name {_MOST_PACKAGES} at most.")
        for name in order.packages:
            if not _PACKAGE.fullmatch(name):
                raise CallerError(
                    f"packages: {name[:100]!r} is no name of a Debian package: lower-case"
                    " letters, digits and + - . are."
                )
        if order.mirror is not None and not _MIRROR.fullmatch(order.mirror):
            raise CallerError("mirror: give a URL such as http://deb.debian.org/debian.")
        included = sorted({*PACKAGES, *order.packages})
        return [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            "--format=directory",
            f"--include={','.join(included)}",
            order.suite,
            order.into,
            *([order.mirror] if order.mirror else []),
        ]
