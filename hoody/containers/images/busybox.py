"""
The image that is there from the first start: Debian's busybox, and little else.

The same on all machines with the same busybox, to the times of its files, so that its
content address is.
"""

from __future__ import annotations

import os
import struct
import subprocess

from attrs import define, field

from hoody.containers.images.orders import Defaults
from hoody.containers.images.tree import Attributes, Tree, parts_of
from hoody.errors import HoodyError

PORT = 8080
_PLACES = ("/bin/busybox", "/usr/bin/busybox")
_CURE = "install busybox-static (as root: apt-get install busybox-static)"
_PT_INTERP = 3
_SECONDS = 10

_USERS = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/:/bin/false
"""
_GROUP = """\
root:x:0:
daemon:x:1:
tty:x:5:
www-data:x:33:
nogroup:x:65534:
"""
_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>It runs</title>
<h1>It runs</h1>
<p>This container answers. Put files into <code>/var/www</code>, or give it a command of
your own that listens on its port.</p>
</html>
"""
_FILES = {
    "/etc/passwd": _USERS,
    "/etc/group": _GROUP,
    "/etc/shells": "/bin/sh\n",
    "/etc/profile": "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
    "/etc/nsswitch.conf": "hosts: files dns\n",
    "/var/www/index.html": _PAGE,
}
_FOLDERS = {
    "/": 0o755,
    "/bin": 0o755,
    "/etc": 0o755,
    "/home": 0o755,
    "/root": 0o700,
    "/sbin": 0o755,
    "/tmp": 0o1777,  # noqa: S108  # the container's
    "/usr": 0o755,
    "/usr/bin": 0o755,
    "/usr/sbin": 0o755,
    "/usr/local": 0o755,
    "/usr/local/bin": 0o755,
    "/usr/local/sbin": 0o755,
    "/var": 0o755,
    "/var/log": 0o755,
    "/var/tmp": 0o1777,  # noqa: S108
    "/var/www": 0o755,
}


@define
class Busybox:
    """@ivar path: of the program; where Debian has it, if left out."""

    path: str | None = None
    _program: bytes = field(default=b"", init=False)
    _applets: list[str] = field(factory=list, init=False)

    def prepare(self) -> None:
        path = self.path or next((path for path in _PLACES if os.path.exists(path)), None)
        if path is None:
            raise HoodyError(f"The image busybox needs busybox, which is not there; {_CURE}.")
        with open(path, "rb") as file:
            self._program = file.read()
        if not is_static(self._program):
            raise HoodyError(f"{path} needs libraries, which its image would not have; {_CURE}.")
        said = subprocess.run(  # noqa: S603  # Debian's
            [path, "--list-full"], capture_output=True, text=True, check=True, timeout=_SECONDS
        ).stdout
        self._applets = sorted(said.split())
        if "httpd" not in {os.path.basename(applet) for applet in self._applets}:
            raise HoodyError(f"{path} has no httpd, by which its containers answer; {_CURE}.")

    def build(self, tree: Tree) -> Defaults:
        for path, mode in _FOLDERS.items():
            tree.folder(parts_of(path.encode()), Attributes(mode=mode))
        tree.file(
            [b"bin", b"busybox"],
            Attributes(mode=0o755),
            len(self._program),
            [(0, self._program)],
        )
        for applet in self._applets:
            parts = parts_of(applet.encode())
            # (At the top there is but linuxrc, for initial RAM disks.)
            if parts != [b"bin", b"busybox"] and len(parts) > 1:
                tree.symlink(parts, b"/bin/busybox", Attributes(mode=0o777))
        for path, text in _FILES.items():
            data = text.encode()
            tree.file(parts_of(path.encode()), Attributes(mode=0o644), len(data), [(0, data)])
        return Defaults(
            command=("httpd", "-f", "-v", "-p", str(PORT), "-h", "/var/www"),
            port=PORT,
            environment_vars={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            },
        )


def is_static(program: bytes) -> bool:
    """Whether an ELF file asks for no interpreter, that is for no libraries (elf(5))."""
    if program[:4] != b"\x7fELF" or len(program) < 64:
        return False
    wide, order = program[4] == 2, "<" if program[5] == 1 else ">"
    if wide:
        (start,) = struct.unpack_from(order + "Q", program, 32)
        each, count = struct.unpack_from(order + "HH", program, 54)
    else:
        (start,) = struct.unpack_from(order + "I", program, 28)
        each, count = struct.unpack_from(order + "HH", program, 42)
    places = range(start, start + each * count, each or 1)
    if not places or places[-1] + 4 > len(program):
        return False
    kinds = [struct.unpack_from(order + "I", program, place)[0] for place in places]
    return _PT_INTERP not in kinds
