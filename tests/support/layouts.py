"""Images in layers, and a registry that has some."""

from __future__ import annotations

import datetime
import gzip
import hashlib
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hoody.containers.images.oci import architecture
from tests.support.images import Member, member, tarred

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REF = "org.opencontainers.image.ref.name"

Json = dict[str, Any]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@define
class Layout:
    """
    An OCI layout as it is being written.

    @ivar files: path -> content, without C{oci-layout} and C{index.json}.
    """

    files: dict[str, bytes] = field(factory=dict)
    manifests: list[Json] = field(factory=list)

    def blob(self, data: bytes, kind: str, **more: Any) -> Json:
        """Its descriptor."""
        digest = digest_of(data)
        self.files["blobs/sha256/" + digest.removeprefix("sha256:")] = data
        return {"mediaType": kind, "digest": digest, "size": len(data), **more}

    def image(
        self,
        *layers: list[Member],
        packed: bool = True,
        config: Json | None = None,
        machine: Json | None = None,
        **more: Any,
    ) -> Json:
        """The descriptor of its manifest."""
        raw = [tarred(members) for members in layers]
        platform = machine or {"os": "linux", "architecture": architecture()}
        described = [
            self.blob(gzip.compress(data, 1, mtime=0), LAYER + "+gzip")
            if packed
            else self.blob(data, LAYER)
            for data in raw
        ]
        diff_ids = [digest_of(data) for data in raw]
        whole = {
            **platform,
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(json.dumps(whole).encode(), CONFIG),
            "layers": described,
        }
        return self.blob(json.dumps(manifest).encode(), MANIFEST, **more)

    def add(self, *layers: list[Member], name: str | None = None, **more: Any) -> Layout:
        """An image, into the index."""
        if name:
            more["annotations"] = {REF: name}
        self.manifests.append(self.image(*layers, **more))
        return self

    def whole(self) -> dict[str, bytes]:
        index = {"schemaVersion": 2, "manifests": self.manifests}
        return {
            **self.files,
            "index.json": json.dumps(index).encode(),
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        }

    def archive(self, mode: str = "w") -> bytes:
        return tarred([member(name, data) for name, data in self.whole().items()], mode)

    def folder(self, place: Path) -> Path:
        for name, data in self.whole().items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
        return place


def saved(*layers: list[Member], config: Json | None = None, **wrong: Any) -> bytes:
    """As C{docker save} had it before it wrote OCI layouts."""
    raw = [tarred(members) for members in layers]
    whole = {
        "os": "linux",
        "architecture": architecture(),
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(data) for data in raw]},
        **wrong,
    }
    text = json.dumps(whole).encode()
    name = digest_of(text).removeprefix("sha256:")
    names = [digest_of(data).removeprefix("sha256:") + "/layer.tar" for data in raw]
    manifest = [{"Config": name + ".json", "RepoTags": ["a:b"], "Layers": names}]
    return tarred(
        [
            *(member(layer, data) for layer, data in zip(names, raw, strict=True)),
            member(name + ".json", text),
            member("manifest.json", json.dumps(manifest).encode()),
        ]
    )


@define
class FakeRegistry:
    """
    @ivar asked: paths.
    @ivar elsewhere: where blobs are, if not here: a URL without the digest.
    """

    port: int
    layout: Layout
    asked: list[str] = field(factory=list)
    elsewhere: str | None = None


@contextmanager
def registry(place: Path, layout: Layout) -> Iterator[FakeRegistry]:
    """One on this machine, by TLS, with the layout's only image under every name and tag."""

    class Face(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            fake.asked.append(self.path)
            last = self.path.rsplit("/", 1)[-1]
            kind = "application/octet-stream"
            data: bytes | None = None
            if self.path == "/v2/":
                data = b"{}"
            elif "/manifests/" in self.path and "missing" not in self.path:
                top = layout.manifests[0]
                data = layout.files["blobs/sha256/" + top["digest"][7:]]
                kind = top["mediaType"]
            elif "/blobs/" in self.path and fake.elsewhere:
                self.send_response(307)
                self.send_header("Location", fake.elsewhere + last)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            elif "/blobs/" in self.path:
                data = layout.files.get("blobs/sha256/" + last.removeprefix("sha256:"))
            if data is None:
                kind = "application/json"
                data = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
                self.send_response(404)
            else:
                self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *said: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Face)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(place))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    fake = FakeRegistry(server.server_address[1], layout)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _certificate(place: Path) -> Path:
    """Of its own signing, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("registry.test")]), False)
        .sign(key, hashes.SHA256())
    )
    path = place / "registry.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
