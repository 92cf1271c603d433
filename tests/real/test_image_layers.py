"""Images in layers: OCI archives and layouts, docker save, registries."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
from typing import Any

import pytest

from hoody.containers.images.orders import Line
from tests.real.test_images import pytestmark as needs_root
from tests.real.test_images import shop
from tests.support.images import Workshop, folder, hard_link, member, symlink, tarred
from tests.support.layouts import INDEX, LAYER, MANIFEST, Layout, digest_of, registry, saved

__all__ = ["shop"]

pytestmark = needs_root

CONFIG = {
    "Entrypoint": ["/serve"],
    "Cmd": ["--port", "80"],
    "Env": ["A=b=c", "EMPTY=", "nonsense", "=x"],
    "ExposedPorts": {"53/udp": {}, "80/tcp": {}, "443/tcp": {}},
    "WorkingDir": "/srv",
    "User": "7:8",
}


class TestLayers:
    @pytest.mark.parametrize("packed", [True, False])
    @pytest.mark.parametrize("mode", ["w", "w:gz"])
    def test_layers_are_laid_upon_each_other(
        self, shop: Workshop, mode: str, packed: bool
    ) -> None:
        layout = Layout().add(
            [folder("d", mode=0o700, mtime=9), member("d/one", b"1"), member("d/two", b"2")],
            [member("d/.wh.one"), member("d/three", b"3"), member(".wh.never")],
            packed=packed,
            config=CONFIG,
        )
        image = shop.done(shop.upload(layout.archive(mode)))
        assert sorted(os.listdir(shop.path("d"))) == ["three", "two"]
        assert stat.S_IMODE(shop.path("d").stat().st_mode) == 0o700
        assert shop.path("d").stat().st_mtime == 9
        assert image.command == ("/serve", "--port", "80")
        assert image.port == 80
        assert image.environment_vars == {"A": "b=c", "EMPTY": ""}
        assert (image.working_dir, image.user) == ("/srv", "7:8")
        assert set(os.listdir(shop.into)) == {"d", "dev", "etc", "proc", "run", "sys", "tmp"}

    def test_a_folder_is_a_layout_too(self, shop: Workshop) -> None:
        place = Layout().add([member("x", b"1")], name="a").folder(shop.place / "layout")
        for number, path in enumerate((place, f"{place}:a")):
            one = Workshop(shop.place / str(number))
            assert one.done(one.run(kind="layout", layout=str(path))).size == 1
        line = shop.run(kind="layout", layout=f"{place}:b")
        assert line.error == "There is no image b in the layout; it has a."

    def test_links_out_of_a_layouts_folder_are_not_followed(self, shop: Workshop) -> None:
        place = Layout().add([member("x", b"1")]).folder(shop.place / "layout")
        shutil.move(place / "blobs", shop.place / "blobs")
        (place / "blobs").symlink_to(shop.place / "blobs")
        assert "lacks" in (shop.run(kind="layout", layout=str(place)).error or "")

    def test_of_several_images_one_must_be_named(self, shop: Workshop) -> None:
        layout = Layout().add([member("x")], name="one").add([member("y")], name="two")
        assert "one, two" in (shop.upload(layout.archive()).error or "")

    def test_of_an_index_this_machines_is_taken(self, shop: Workshop) -> None:
        layout = Layout()
        other = {"os": "linux", "architecture": "sparc"}
        own = layout.image([member("own", b"1")])
        inner = {
            "manifests": [
                {**layout.image([member("other")], machine=other), "platform": other},
                {**own, "platform": {"os": "unknown", "architecture": "unknown"}},
                {**own, "platform": {"os": "linux", "architecture": _architecture()}},
            ]
        }
        layout.manifests.append(layout.blob(json.dumps(inner).encode(), INDEX))
        shop.done(shop.upload(layout.archive()))
        assert shop.path("own").exists()
        foreign = Layout()
        foreign.manifests.append(
            {**foreign.image([member("other")], machine=other), "platform": other}
        )
        line = Workshop(shop.place / "f").upload(foreign.archive())
        assert "but for linux/sparc" in (line.error or "")
        foreign = Layout().add([member("other")], machine=other)
        line = Workshop(shop.place / "g").upload(foreign.archive())
        assert "is for linux/sparc" in (line.error or "")

    def test_what_skopeo_writes_is_read(self, shop: Workshop) -> None:
        if shutil.which("skopeo") is None:
            pytest.skip("needs skopeo")
        place = (
            Layout()
            .add([member("x", b"1")], config=CONFIG, name="a")
            .folder(shop.place / "layout")
        )
        for number, form in enumerate(("oci-archive", "docker-archive")):
            to = f"{form}:{shop.place}/{form}:some/name:tag"
            command = ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{place}:a", to]
            subprocess.run(command, check=True)
            one = Workshop(shop.place / str(number))
            image = one.done(one.upload((shop.place / form).read_bytes()))
            assert image.command == ("/serve", "--port", "80")
            assert one.path("x").read_bytes() == b"1"


class TestWhiteouts:
    def test_an_opaque_folder_keeps_what_its_own_layer_brings(self, shop: Workshop) -> None:
        layout = Layout().add(
            [folder("d"), member("d/old", b"1"), member("d/sub/old", b"1")],
            [
                member("d/new", b"2"),
                member("d/sub/new", b"2"),
                member("d/.wh..wh..opq"),
                member("d/newer", b"3"),
                member("d/.wh..wh.plnk"),
            ],
        )
        shop.done(shop.upload(layout.archive()))
        found = {str(path.relative_to(shop.path("d"))) for path in shop.path("d").rglob("*")}
        assert found == {"new", "newer", "sub", "sub/new"}

    def test_a_removal_is_of_what_is_below_only(self, shop: Workshop) -> None:
        layout = Layout().add(
            [member("a", b"1"), member("d/x", b"1"), member("e/x", b"1")],
            [
                member("a", b"2"),
                member(".wh.a"),
                folder("d"),
                member("d/y", b"2"),
                member(".wh.d"),
                member(".wh.e"),
            ],
        )
        shop.done(shop.upload(layout.archive()))
        assert shop.path("a").read_bytes() == b"2"
        assert os.listdir(shop.path("d")) == ["y"]
        assert not shop.path("e").exists()

    @pytest.mark.parametrize("name", [".wh.", ".wh..", "d/.wh..."])
    def test_a_removal_of_what_is_above_is_refused(self, shop: Workshop, name: str) -> None:
        layout = Layout().add([member("d/x", b"1")], [member(name)])
        assert "cannot be" in (shop.upload(layout.archive()).error or "")

    def test_removals_reach_nothing_outside(self, shop: Workshop) -> None:
        layout = Layout().add(
            [
                symlink("way", str(shop.canary)),
                symlink("up", "../../../../../.." + str(shop.canary)),
            ],
            [
                member("way/.wh.file"),
                member("up/.wh..wh..opq"),
                member("up/deep/.wh.shadow"),
                member("way/evil", b"1"),
            ],
        )
        shop.done(shop.upload(layout.archive()))
        assert shop.path(str(shop.canary / "evil")).read_bytes() == b"1"

    def test_a_tarball_of_a_root_knows_no_removals(self, shop: Workshop) -> None:
        shop.image(member("a", b"1"), member(".wh.a", b"2"))
        assert shop.path("a").exists()
        assert shop.path(".wh.a").exists()


class TestForgeries:
    def test_a_blob_that_was_changed_is_refused(self, shop: Workshop) -> None:
        for number, change in enumerate((_flip, _shorten, _lengthen)):
            layout = Layout().add([member("x", b"hello" * 1000)], packed=False)
            layer = json.loads(layout.files[_path(layout.manifests[0])])["layers"][0]
            layout.files[_path(layer)] = change(layout.files[_path(layer)])
            line = Workshop(shop.place / str(number)).upload(layout.archive())
            assert "was changed or damaged" in (line.error or "")

    def test_a_manifest_or_configuration_that_was_changed_is_refused(self, shop: Workshop) -> None:
        layout = Layout().add([member("x")])
        config = json.loads(layout.files[_path(layout.manifests[0])])["config"]
        for number, one in enumerate((layout.manifests[0], config)):
            files = dict(layout.files)
            forged = Layout(files, layout.manifests)
            files[_path(one)] = files[_path(one)].replace(b"{", b" ", 1)
            line = Workshop(shop.place / str(number)).upload(forged.archive())
            assert "was changed or damaged" in (line.error or "")

    def test_a_blob_that_is_missing_is_named(self, shop: Workshop) -> None:
        layout = Layout().add([member("x")])
        del layout.files[_path(layout.manifests[0])]
        assert "lacks blobs/sha256/" in (shop.upload(layout.archive()).error or "")

    @pytest.mark.parametrize(
        "digest",
        ["sha256:../../../etc/passwd", "sha512:" + "a" * 128],
    )
    def test_a_digest_is_no_path(self, shop: Workshop, digest: str) -> None:
        layout = Layout()
        layout.manifests.append({"mediaType": MANIFEST, "digest": digest, "size": 3})
        assert "The digest" in (shop.upload(layout.archive()).error or "")

    @pytest.mark.parametrize(
        ("kind", "said"), [(LAYER + "+zstd", "gzip"), ("application/helm", "application/helm")]
    )
    def test_layers_of_other_types_are_refused(self, shop: Workshop, kind: str, said: str) -> None:
        layout = Layout()
        config = layout.blob(b"{}", "application/json")
        manifest = {"config": config, "layers": [layout.blob(b"x", kind)]}
        layout.manifests.append(layout.blob(json.dumps(manifest).encode(), MANIFEST))
        assert said in (shop.upload(layout.archive()).error or "")

    @pytest.mark.parametrize(
        "index",
        [b"", b'{"manifests": 3}', b"[" * 100_000, b'{"manifests": []}', b"\xff"],
    )
    def test_an_index_that_is_none_is_refused(self, shop: Workshop, index: bytes) -> None:
        members = [member("oci-layout", b"{}"), member("index.json", index)]
        assert shop.refused(*members)

    def test_indexes_within_indexes_come_to_an_end(self, shop: Workshop) -> None:
        layout = Layout()
        inner = layout.image([member("x")])
        for _ in range(10):
            inner = layout.blob(json.dumps({"manifests": [inner]}).encode(), INDEX)
        layout.manifests.append(inner)
        assert "too many" in (shop.upload(layout.archive()).error or "")

    def test_all_layers_have_one_budget(self, shop: Workshop) -> None:
        layers = [[member("x", os.urandom(300_000))] for _ in range(5)]
        line = shop.upload(Layout().add(*layers).archive(), limits={"bytes": 1_000_000})
        assert "more than" in (line.error or "")
        assert shop.used() < 1_200_000

    def test_a_layer_is_as_confined_as_a_tarball(self, shop: Workshop) -> None:
        target = str(shop.canary / "file")
        layout = Layout().add(
            [symlink("a", target), hard_link("b", "a"), member("su", b"x", mode=0o4755)],
            [member("a", b"evil"), member("su2", b"x", mode=0o2755)],
        )
        image = shop.done(shop.upload(layout.archive()))
        assert "(and 1 more)" in image.skipped[0]
        assert "'..'" in (
            Workshop(shop.place / "w").upload(Layout().add([member("../x", b"1")]).archive()).error
            or ""
        )


class TestSaved:
    def test_what_docker_saved_is_read(self, shop: Workshop) -> None:
        raw = saved([member("x", b"1"), member("y", b"1")], [member(".wh.y")], config=CONFIG)
        image = shop.done(shop.upload(raw))
        assert image.port == 80
        assert shop.path("x").exists()
        assert not shop.path("y").exists()

    def test_layers_that_are_not_those_of_its_configuration_are_refused(
        self, shop: Workshop
    ) -> None:
        other = digest_of(b"other")
        for number, wrong in enumerate(([other], [])):
            raw = saved([member("x", b"1")], rootfs={"diff_ids": wrong})
            line = Workshop(shop.place / str(number)).upload(raw)
            assert line.status == 400

    def test_layers_are_looked_for_in_the_archive_alone(self, shop: Workshop) -> None:
        (shop.place / "layer.tar").write_bytes(tarred([member("x")]))
        manifest = [{"Config": "../c.json", "Layers": [f"{shop.place}/layer.tar"]}]
        raw = json.dumps(manifest).encode()
        assert "lacks" in shop.refused(member("manifest.json", raw))
        ways = [member("manifest.json", raw), symlink("a" * 64, str(shop.place))]
        assert "lacks" in Workshop(shop.place / "w").refused(*ways)


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
class TestRegistry:
    def pull(self, shop: Workshop, port: int, reference: str = "", **more: Any) -> Line:
        return shop.run(
            kind="registry",
            reference=reference or "registry.test/some/image:tag",
            registries=["registry.test", "localhost", "127.0.0.1", "10.0.0.1"],
            rehearsal={"hosts": {"registry.test": ["127.0.0.1", port]}},
            **more,
        )

    def test_an_image_comes_from_a_registry(self, shop: Workshop) -> None:
        layout = Layout().add([member("x", b"1")], [member("y", b"2")], config=CONFIG)
        with registry(shop.place, layout) as fake:
            image = shop.done(self.pull(shop, fake.port))
        assert image.command == ("/serve", "--port", "80")
        assert shop.path("y").read_bytes() == b"2"
        assert "/v2/some/image/manifests/tag" in fake.asked
        assert set(os.listdir(shop.into)) == {
            "x", "y", "dev", "etc", "proc", "run", "sys", "tmp",
        }  # fmt: skip

    def test_what_is_not_there_is_the_callers_fault(self, shop: Workshop) -> None:
        with registry(shop.place, Layout().add([member("x")])) as fake:
            line = self.pull(shop, fake.port, "registry.test/missing")
        assert line.status == 400
        assert "registry.test/missing:latest is not to be had" in (line.error or "")

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_addresses_of_this_network_are_not_gone_to(self, shop: Workshop, host: str) -> None:
        line = self.pull(shop, 1, f"{host}/x")
        assert line.status == 400
        assert "which is not an address of the Internet" in (line.error or "")

    def test_a_registry_cannot_send_us_to_this_machine(self, shop: Workshop) -> None:
        layout = Layout().add([member("x")])
        with socket.create_server(("127.0.0.1", 0)) as trap:
            trap.setblocking(False)
            with registry(shop.place, layout) as fake:
                for number, host in enumerate(
                    ("127.0.0.1", "localhost", "[::1]", "169.254.169.254")
                ):
                    fake.elsewhere = f"https://{host}:{trap.getsockname()[1]}/"
                    line = self.pull(Workshop(shop.place / str(number)), fake.port)
                    assert line.error
            with pytest.raises(BlockingIOError):
                trap.accept()

    def test_more_than_an_image_may_have_is_not_fetched(self, shop: Workshop) -> None:
        layout = Layout().add([member("x", os.urandom(80_000_000))], packed=False)
        with registry(shop.place, layout) as fake:
            line = self.pull(shop, fake.port, limits={"bytes": 1_000_000})
        assert "larger than one may be" in (line.error or "")
        assert shop.used() < 80_000_000

    def test_a_registry_that_says_nothing_is_given_up(self, shop: Workshop) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            line = self.pull(shop, silent.getsockname()[1], seconds=1)
        assert line.status == 503
        assert "longer than 1 s" in (line.error or "")

    def test_only_registries_that_are_allowed_are_asked(self, shop: Workshop) -> None:
        line = shop.run(kind="registry", reference="evil.test/x", registries=["docker.io"])
        assert line.status == 403
        assert "allowed: docker.io" in (line.error or "")


def _architecture() -> str:
    from hoody.containers.images.oci import architecture

    return architecture()


def _path(descriptor: dict[str, Any]) -> str:
    return "blobs/sha256/" + str(descriptor["digest"]).removeprefix("sha256:")


def _flip(data: bytes) -> bytes:
    return data.replace(b"hello", b"jello", 1)


def _shorten(data: bytes) -> bytes:
    return data[:-512]


def _lengthen(data: bytes) -> bytes:
    return data + bytes(512)
