"""
Images in layers: OCI layouts (image-spec: image-layout.md, image-index.md, manifest.md,
config.md, layer.md) and what C{docker save} writes.

umoci could unpack them too. But then there would be two ways for a hostile archive into a
root file system, the one of the uploads and umoci's; with our own there is one to be safe,
and layers and tarballs are confined by the same walls.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import Any, TypeVar

import msgspec
from attrs import define

from hoody.containers.images.budget import shown
from hoody.containers.images.files import Files
from hoody.containers.images.orders import Defaults
from hoody.containers.images.streams import PIECE, Checked, Part, opened
from hoody.containers.images.unpacking import Unpacking
from hoody.errors import CallerError

T = TypeVar("T")

_MOST_JSON = 4 * 1024**2
"""As registries have it for manifests."""
_MOST_LAYERS = 200
_MOST_NESTED = 4
_REF = "org.opencontainers.image.ref.name"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LAYER = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar|"
    r"docker\.image\.rootfs\.(foreign\.)?diff\.tar)([.+]gzip)?"
)
_MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}


def architecture() -> str:
    """This machine's, as images name it."""
    machine = os.uname().machine
    return _MACHINES.get(machine, machine)


class Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True):
    manifests: list[Descriptor]


class Manifest(msgspec.Struct, frozen=True):
    config: Descriptor
    layers: list[Descriptor]


class Wishes(msgspec.Struct, frozen=True, rename="pascal"):
    """How the image wants to be run."""

    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] | None = None
    exposed_ports: dict[str, Any] | None = None
    working_dir: str | None = None
    user: str | None = None


class Rootfs(msgspec.Struct, frozen=True):
    diff_ids: list[str] = []


class Config(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""
    config: Wishes | None = None
    rootfs: Rootfs = Rootfs()


class Saved(msgspec.Struct, frozen=True, rename="pascal"):
    """One image of C{docker save}'s manifest.json."""

    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


@define
class Layered:
    """
    @ivar reference: which of several images; C{None} if there is but one.
    """

    files: Files
    unpacking: Unpacking
    reference: str | None = None

    def build(self) -> Defaults:
        """The root file system, and how it wants to be run."""
        if self.files.find("index.json") and self.files.find("oci-layout"):
            return self._layout()
        return self._saved()

    def _layout(self) -> Defaults:
        index = _read(self._needed("index.json"), Index, "index.json")
        manifest = self._manifest(self._chosen(index.manifests), _MOST_NESTED)
        config = self._json(manifest.config, Config)
        _check_platform(config)
        self._check_count(len(manifest.layers))
        for number, layer in enumerate(manifest.layers, 1):
            if not _LAYER.fullmatch(layer.media_type):
                raise CallerError(
                    f"A layer is of the type {_short(layer.media_type)}, which is not read here;"
                    " give an image with layers of tar or tar+gzip (skopeo copy"
                    " --dest-compress-format gzip makes them)."
                )
            self._say(number, len(manifest.layers))
            self._apply(Checked(self._blob(layer), _hex(layer.digest)))
        return wishes(config.config or Wishes())

    def _saved(self) -> Defaults:
        images = _read(self._needed("manifest.json"), list[Saved], "manifest.json")
        if len(images) != 1:
            raise CallerError(
                f"The archive has {len(images)} images; save one alone (docker save NAME:TAG)."
            )
        image = images[0]
        config = _read(self._needed(image.config), Config, image.config)
        _check_platform(config)
        self._check_count(len(image.layers))
        if len(config.rootfs.diff_ids) != len(image.layers):
            raise CallerError("The image's configuration is of other layers; save it anew.")
        for number, name in enumerate(image.layers, 1):
            self._say(number, len(image.layers))
            # Layers are saved as they are when not compressed, which is what these are of.
            self._apply(Checked(self._needed(name), _hex(config.rootfs.diff_ids[number - 1])))
        return wishes(config.config or Wishes())

    def _apply(self, blob: Checked) -> None:
        self.unpacking.layer(opened(blob, self.unpacking.budget))
        blob.finish()

    def _say(self, number: int, count: int) -> None:
        self.unpacking.say(f"unpacking layer {number} of {count}")

    def _check_count(self, count: int) -> None:
        if count > _MOST_LAYERS:
            raise CallerError(f"The image has {count} layers; {_MOST_LAYERS} at most are read.")

    def _chosen(self, manifests: list[Descriptor]) -> Descriptor:
        """Of the images in the layout, by name; of several of one name, by platform."""
        if self.reference is not None:
            named = [one for one in manifests if _name(one) == self.reference]
            if not named:
                raise CallerError(
                    f"There is no image {_short(self.reference)} in the layout; it has"
                    f" {_names(manifests)}."
                )
            return _fitting(named)
        if len({_name(one) for one in manifests}) > 1:
            raise CallerError(
                f"The layout has several images, {_names(manifests)}; name one, as :NAME behind"
                " its path, or give an archive of one alone."
            )
        return _fitting(manifests)

    def _manifest(self, descriptor: Descriptor, depth: int) -> Manifest:
        if "manifest.list" in descriptor.media_type or "index" in descriptor.media_type:
            if not depth:
                raise CallerError("The image has indexes within indexes, too many; make it anew.")
            inner = self._json(descriptor, Index)
            return self._manifest(_fitting(inner.manifests), depth - 1)
        return self._json(descriptor, Manifest)

    def _json(self, descriptor: Descriptor, form: type[T]) -> T:
        checked = Checked(_bounded(self._blob(descriptor)), _hex(descriptor.digest))
        data = b""
        while piece := checked.read(PIECE):
            data += piece
        checked.finish()
        return _parse(data, form, descriptor.digest)

    def _blob(self, descriptor: Descriptor) -> Part:
        part = self._needed("blobs/sha256/" + _hex(descriptor.digest))
        if part.length != descriptor.size:
            raise CallerError(
                f"The blob {descriptor.digest} has {part.length} bytes where its descriptor says"
                f" {descriptor.size}; the image was changed or damaged: make it anew."
            )
        return part

    def _needed(self, name: str) -> Part:
        part = self.files.find(name)
        if part is None:
            raise CallerError(f"The image lacks {_short(name)}; it is not whole: make it anew.")
        return part


def wishes(config: Wishes) -> Defaults:
    """
    How an image wants to be run. Its port is the first that it exposes for TCP; what
    cannot be part of a command or an environment is refused.
    """
    command = (config.entrypoint or []) + (config.cmd or [])
    variables = dict(text.split("=", 1) for text in config.env or [] if "=" in text[1:])
    said = [*command, *(config.env or []), config.working_dir or "", config.user or ""]
    if any("\0" in text for text in said):
        raise CallerError("The image's configuration has a NUL in a text; make it anew.")
    # (POSIX lets two slashes at the beginning stand.)
    place = "/" + posixpath.normpath(f"/{config.working_dir or ''}").lstrip("/")
    if any(f"{place}/".startswith(f"{system}/") for system in ("/proc", "/sys", "/dev")):
        # Not for any runtime to come to what the host has open (CVE-2024-21626).
        raise CallerError(
            f"The image wants to begin in {_short(place)}, which is the system's; make it anew"
            " with another WorkingDir."
        )
    return Defaults(
        command=tuple(command) or None,
        port=next(filter(None, map(_port, config.exposed_ports or {})), None),
        environment_vars=variables,
        working_dir=config.working_dir or None,
        user=config.user or None,
    )


def _port(text: str) -> int | None:
    match = re.fullmatch(r"([0-9]{1,5})(?:/tcp)?", text, re.IGNORECASE | re.ASCII)
    return int(match[1]) if match and 0 < int(match[1]) < 65536 else None


def _fitting(manifests: list[Descriptor]) -> Descriptor:
    """
    The one for this machine; or the one that does not say for which it is. (An index has
    things beside images too, of the platform "unknown".)
    """
    wanted = Platform(architecture(), "linux")
    for one in manifests:
        if one.platform == wanted:
            return one
    for one in manifests:
        if one.platform is None:
            return one
    there = ", ".join(
        sorted(
            {f"{one.platform.os}/{one.platform.architecture}" for one in manifests if one.platform}
        )
    )
    raise CallerError(
        f"The image is not for linux/{wanted.architecture}, as this machine needs it, but for"
        f" {_short(there) or 'none at all'}; choose another."
    )


def _check_platform(config: Config) -> None:
    if config.os not in ("", "linux") or config.architecture not in ("", architecture()):
        raise CallerError(
            f"The image is for {_short(f'{config.os}/{config.architecture}')}, and this machine"
            f" is linux/{architecture()}; choose another."
        )


def _name(descriptor: Descriptor) -> str:
    return (descriptor.annotations or {}).get(_REF, "")


def _names(manifests: list[Descriptor]) -> str:
    names = sorted({_name(one) or "one without a name" for one in manifests})
    return ", ".join(_short(name) for name in names[:10]) or "none"


def _hex(digest: str) -> str:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise CallerError(
            f"The digest {_short(digest)} is not sha256: and 64 lower-case hex digits, the only"
            " kind that is read here."
        )
    return match[1]


def _bounded(part: Part) -> Part:
    if part.length > _MOST_JSON:
        raise CallerError("A manifest or configuration of the image has more than 4 MiB.")
    return part


def _read(part: Part, form: type[T], name: str) -> T:
    data = b""
    while piece := _bounded(part).read(PIECE):
        data += piece
    return _parse(data, form, name)


def _parse(data: bytes, form: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(data, type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CallerError(
            f"{_short(name)} of the image is not as the OCI's image format has it ({error});"
            " make the image anew."
        ) from None


def _short(text: str) -> str:
    return shown(text.encode("utf-8", "replace"))
