"""Images from registries: skopeo fetches them as an OCI layout, and we unpack that."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import secrets
import socket
import struct
from collections.abc import Callable

from attrs import define, field

from hoody.containers.images import confinement, programs
from hoody.containers.images.archives import Layout
from hoody.containers.images.gate import Gate
from hoody.containers.images.oci import architecture
from hoody.containers.images.orders import Defaults, Order
from hoody.containers.images.programs import Ended
from hoody.containers.images.references import HTTPS, Reference, read
from hoody.containers.images.tree import Tree
from hoody.containers.images.unpacking import Unpacking
from hoody.errors import CallerError, HoodyError, Unavailable
from hoody.units import size_in_words

_SLACK = 64 * 1024**2
"""For manifests and TLS, beside the layers."""
_POLICY = "/etc/containers/policy.json"
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_NOT_THERE = re.compile("manifest unknown|not found|unauthorized|denied|no image found", re.I)
_FATAL = re.compile(r'level=fatal msg="(.*)"$')


@define
class Registry:
    order: Order
    unpacking: Callable[[Tree], Unpacking]
    say: Callable[[str], None]
    _name: str = field(init=False)
    """
    What is fetched lies in the root that is being made, so that it takes room there and goes
    with it. It is gone before that is done; and until then no archive can know its name.
    """
    _layout: Layout | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._name = f".fetched-{secrets.token_hex(16)}"

    def prepare(self) -> None:
        reference = read(self.order.reference or "", self.order.registries)
        programs.require("skopeo", "skopeo")
        folder = os.path.join(self.order.into, self._name)
        os.makedirs(os.path.join(folder, "tmp"), mode=0o700)
        asyncio.run(self._fetch(reference, folder))
        self._layout = Layout(os.path.join(folder, "layout"), self.unpacking)
        self._layout.prepare()

    def build(self, tree: Tree) -> Defaults:
        assert self._layout is not None
        defaults = self._layout.build(tree)
        tree.hide([self._name.encode()], frozenset())
        return defaults

    async def _fetch(self, reference: Reference, folder: str) -> None:
        known = self.order.rehearsal.hosts if self.order.rehearsal else {}
        most = self.order.limits.bytes + _SLACK
        gate = Gate(frozenset({HTTPS, reference.port}), most, known)
        await gate.check(reference.host, reference.port)
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            listener = _alone()
            environment = {
                "HTTPS_PROXY": f"http://127.0.0.1:{listener.getsockname()[1]}",
                "HOME": folder,
                "XDG_RUNTIME_DIR": folder,
            }
            process = await programs.start(self._words(reference), folder, environment)
        finally:
            confinement.set_network(home)
            os.close(home)
        async with await asyncio.start_server(gate.serve, sock=listener):
            telling = asyncio.ensure_future(self._tell(reference, gate))
            try:
                ended = await programs.watch(process, self.order.seconds, lambda line: None)
            finally:
                telling.cancel()
        if ended.status:
            raise _error(reference, ended, gate)

    def _words(self, reference: Reference) -> list[str]:
        # Whose signatures are asked for is the administrator's choice, where there is one.
        policy = [] if os.path.exists(_POLICY) else ["--insecure-policy"]
        verify = ["--src-tls-verify=false"] if self.order.rehearsal else []
        return [
            "skopeo",
            *policy,
            "--override-os=linux",
            f"--override-arch={architecture()}",
            "--tmpdir=tmp",
            "copy",
            "--quiet",
            "--src-no-creds",
            *verify,
            f"docker://{reference}",
            "oci:layout:image",
        ]

    async def _tell(self, reference: Reference, gate: Gate) -> None:
        while True:
            self.say(f"fetching {reference}: {size_in_words(gate.count)}")
            await asyncio.sleep(1)


def _alone() -> socket.socket:
    """Be in a network namespace with nothing but a loopback, on which this listens."""
    confinement.unshare(confinement.CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", _IFF_UP)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)
    return socket.create_server(("127.0.0.1", 0))


def _error(reference: Reference, ended: Ended, gate: Gate) -> HoodyError:
    if gate.refused:
        return CallerError(f"{reference} cannot be fetched: {gate.refused[-1]}.")
    said = ended.said[-1] if ended.said else f"status {ended.status}"
    match = _FATAL.search(said)
    why = (match[1] if match else said).replace('\\"', '"')[-400:]
    if _NOT_THERE.search(said):
        return CallerError(f"{reference} is not to be had without a password: {why}.")
    return Unavailable(f"{reference} cannot be fetched: {why}.")
