"""The stream by which a container moves: what goes in comes out, or it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoody.errors import HoodyError
from hoody.manifests import soundness
from hoody.manifests.content import EMPTY, PART
from hoody.manifests.manifest import ROOT, Entry, Kind
from hoody.manifests.names import escape
from hoody.manifests.soundness import Unsound
from hoody.manifests.stream import (
    IMAGE,
    Config,
    Content,
    Damaged,
    Header,
    ImageHead,
    Item,
    Reader,
    Run,
    SnapshotHead,
    TreeHead,
    Writer,
    content_of,
    pieces,
    runs,
)

_NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=()), min_size=1, max_size=9
).filter(lambda name: name not in (".", "..") and name.isascii())
_KINDS: tuple[Kind, ...] = ("folder", "file", "link", "fifo", "socket")
_DATA = st.binary(max_size=20)


@st.composite
def _trees(draw: st.DrawFn) -> tuple[list[Item], dict[str, bytes]]:
    """A tree as a container could have it, and its contents by digest."""
    found: dict[str, Entry] = {"": _entry("", "folder")}
    contents: dict[str, bytes] = {}
    for name in draw(st.lists(_NAMES, max_size=8)):
        folders = [path for path, entry in found.items() if entry.kind == "folder"]
        folder = draw(st.sampled_from(folders))
        path = f"{folder}/{escape(name)}" if folder else escape(name)
        kind: Kind = draw(st.sampled_from(_KINDS))
        if path not in found:
            data = draw(_DATA)
            found[path] = _entry(path, kind, data)
            if kind == "file" and data:
                contents[found[path].digest] = data
    times = st.integers(-(2**40), 2**60)
    return [Item(draw(times), found[path]) for path in sorted(found)], contents


def _entry(path: str, kind: Kind, data: bytes = b"") -> Entry:
    size, digest = (len(data), sha256(data).hexdigest()) if kind == "file" else (0, "")
    target = "else\\x0awhere" if kind == "link" else ""
    return Entry(path, kind, 0o755, 1, 2, size=size, digest=digest, target=target)


def _header(**fields: object) -> Header:
    usual = {
        "container": {"name": "app", "environment_vars": {"A": "ä\n"}},
        "image": ImageHead(
            name="busybox", digest=f"sha256:{'0' * 64}", size=7, config=Config(command=("sh",))
        ),
        "snapshot": SnapshotHead(
            name="snap-2026-05-04",
            digest=f"sha256:{'1' * 64}",
            created_at=datetime(2026, 5, 4, 2, 55, tzinfo=UTC),
            consistency="frozen",
        ),
    }
    return Header(**{**usual, **fields})  # type: ignore[arg-type]


def _written(trees: dict[str, list[Item]], data: dict[str, bytes]) -> bytes:
    contents = [Content(digest, len(each)) for digest, each in data.items()]
    header = _header(
        trees=tuple(TreeHead(name=name, entries=len(items)) for name, items in trees.items()),
        contents=len(contents),
        size=sum(map(len, data.values())),
    )
    out = BytesIO()
    writer = Writer(out.write)
    writer.head(header, trees, contents)
    for content in contents:
        writer.content(content, _parted(data[content.digest]))
    writer.end()
    return out.getvalue()


def _parted(data: bytes) -> Iterator[bytes]:
    for offset in range(0, len(data), 3):
        yield data[offset : offset + 3]


def _read(raw: bytes) -> tuple[Header, dict[str, list[Item]], dict[str, bytes]]:
    reader = Reader(BytesIO(raw))
    reader.head()
    contents = {each.digest: b"".join(reader.content(each)) for each in reader.contents}
    reader.end()
    return reader.header, reader.trees, contents


@given(_trees(), _trees())
def test_what_is_written_is_read_as_it_was(
    root: tuple[list[Item], dict[str, bytes]], volume: tuple[list[Item], dict[str, bytes]]
) -> None:
    trees = {ROOT: root[0], "volume-data": volume[0]}
    contents = {**root[1], **volume[1]}
    header, found, data = _read(_written(trees, contents))
    assert found == trees
    assert data == contents
    assert header.snapshot == _header(trees=(), contents=0, size=0).snapshot
    assert header.container == {"name": "app", "environment_vars": {"A": "ä\n"}}
    for name, items in found.items():
        soundness.check(name, (item.entry for item in items))


SMALL = _written(
    {ROOT: [Item(1, _entry("", "folder")), Item(2, _entry("a", "file", b"content"))]},
    {sha256(b"content").hexdigest(): b"content"},
)


def test_a_stream_that_is_cut_anywhere_is_refused() -> None:
    for length in range(len(SMALL)):
        with pytest.raises(Damaged):
            _read(SMALL[:length])


@pytest.mark.parametrize("bit", [1 << place for place in range(8)])
def test_a_stream_with_any_bit_changed_is_refused(bit: int) -> None:
    for place in range(len(SMALL)):
        with pytest.raises(Damaged):
            _read(SMALL[:place] + bytes([SMALL[place] ^ bit]) + SMALL[place + 1 :])


@given(_trees(), st.data())
def test_any_stream_that_is_not_as_it_was_is_refused(
    tree: tuple[list[Item], dict[str, bytes]], data: st.DataObject
) -> None:
    raw = _written({ROOT: tree[0]}, tree[1])
    place = data.draw(st.integers(0, len(raw) - 1))
    instead = data.draw(st.binary(max_size=5))
    changed = raw[:place] + instead + raw[place + data.draw(st.integers(0, 5)) :]
    if changed != raw:
        with pytest.raises(Damaged):
            _read(changed)


def test_what_follows_the_end_is_refused() -> None:
    with pytest.raises(Damaged):
        _read(SMALL + b"\n")


@given(st.binary(max_size=200))
def test_what_is_no_stream_is_refused(raw: bytes) -> None:
    with pytest.raises(Damaged):
        _read(raw)


def test_a_stream_of_a_newer_server_is_told_from_one_that_is_none() -> None:
    with pytest.raises(Damaged, match="newer server"):
        Reader(BytesIO(b"hoody-snapshot 2\n{}\n"))
    with pytest.raises(Damaged, match="no snapshot"):
        Reader(BytesIO(b"PK\3\4" + bytes(100)))


@pytest.mark.parametrize(
    ("now", "then"),
    [
        (b"2026-05-04T02:55:00Z", b"2026-05-04T02:55:00"),
        (b"snap-2026-05-04", b"snap-2026-05-4"),
        (b'"comment":null', b'"comment":"\\u0000"'),
        (b'["sh"]', b'["\\u0000"]'),
        (b'"root"', b'"../x"'),
        (b'"frozen"', b'"molten"'),
    ],
)
def test_a_header_says_what_it_may_and_nothing_else(now: bytes, then: bytes) -> None:
    assert now in SMALL
    with pytest.raises(Damaged, match="newer server"):
        Reader(BytesIO(SMALL.replace(now, then, 1)))


def test_content_that_is_not_what_was_said_is_not_sent_as_if_it_were() -> None:
    writer = Writer(lambda _: None)
    with pytest.raises(Damaged):
        writer.content(Content(sha256(b"one").hexdigest(), 3), [b"two"])


def test_a_files_runs_are_what_its_zeros_leave() -> None:
    entry = Entry("", "file", 0, 0, 0, size=5 * PART, zeros=((0, PART), (2 * PART, PART)))
    assert list(runs(entry)) == [Run(PART, PART), Run(3 * PART, 2 * PART)]
    assert [piece.offset for run in runs(entry) for piece in pieces(run)] == [
        PART,
        3 * PART,
        4 * PART,
    ]
    assert content_of(entry) == Content("", 3 * PART)
    assert content_of(Entry("", "file", 0, 0, 0, size=PART, zeros=((0, PART),))) is None


# What no container could have

TOP = _entry("", "folder")
FILE = Entry("a", "file", 0o644, 0, 0, digest=EMPTY.digest)


def _with(**fields: object) -> Entry:
    usual = {name: getattr(FILE, name) for name in ("path", "kind", "mode", "uid", "gid")}
    return Entry(**{**usual, "digest": EMPTY.digest, **fields})


def _other(kind: Kind, **fields: object) -> Entry:
    return _with(kind=kind, digest="", **fields)


UNSOUND = [
    [FILE],
    [_with(path="")],
    [TOP, TOP],
    [TOP, _with(path="b"), _with(path="a")],
    [TOP, _with(path="a/b")],
    [TOP, FILE, _with(path="a/b")],
    [TOP, _other("link", target="/etc"), _with(path="a/b")],
    *([TOP, _with(path=path)] for path in ("..", ".", "a\tb", "\\x2e", "\\x00", "a" * 256)),
    *([TOP, _with(path=path)] for path in ("/", "/a", "a/", "\\xzz", "\\x2e\\x2e")),
    [TOP, _with(uid=65536)],
    [TOP, _with(gid=-1)],
    [TOP, _with(mode=0o10000)],
    [TOP, _with(size=-1)],
    [TOP, _with(size=2**63, digest="0" * 64)],
    [TOP, _with(digest="0" * 64)],
    [TOP, _with(digest="A" * 64)],
    [TOP, _with(size=1)],
    [TOP, _with(size=PART, zeros=((1, PART),))],
    [TOP, _with(size=PART, zeros=((0, 2 * PART),))],
    [TOP, _with(size=2 * PART, zeros=((0, PART), (PART, PART)))],
    [TOP, _with(target="b")],
    [TOP, _other("link")],
    [TOP, _other("link", target="\\x00")],
    [TOP, _other("link", target="a" * 4096)],
    [TOP, _other("char", device="1:3")],
    [TOP, _other("block", device="0:0")],
    [TOP, _other("fifo", device="0:0")],
    [TOP, _other("fifo", size=3)],
    [TOP, FILE, _with(path="b", first="c")],
    [TOP, FILE, _with(path="b", first="a", mode=0o600)],
    [TOP, _other("folder"), _other("folder", path="b", first="a")],
    *(
        [TOP, _with(xattrs=((name, b""),))]
        for name in ("trusted.overlay.opaque", "trusted.overlay.redirect", "security.ima", "x")
    ),
    [TOP, _with(xattrs=(("user.b", b""), ("user.a", b"")))],
    [_other("folder", path="", mark="opaque")],
    [TOP, _with(mark="opaque")],
    [TOP, _other("folder", mark="whiteout")],
]


@pytest.mark.parametrize("entries", UNSOUND)
def test_what_no_container_could_have_is_refused(entries: list[Entry]) -> None:
    with pytest.raises(Unsound):
        soundness.check(ROOT, entries)


SOUND = [
    FILE,
    _with(size=PART, zeros=((0, PART),)),
    _with(mode=0o4755),
    _with(xattrs=(("security.capability", b"x"), ("user.a", b""))),
    _other("char", device="0:0"),
    _with(mark="whiteout"),
    _other("folder", mark="opaque"),
]


@pytest.mark.parametrize("entry", SOUND)
def test_what_a_container_could_have_is_not_refused(entry: Entry) -> None:
    soundness.check(ROOT, [TOP, entry])


@pytest.mark.parametrize("entry", SOUND[2:])
def test_an_image_has_less(entry: Entry) -> None:
    with pytest.raises(HoodyError):
        soundness.check(IMAGE, [TOP, entry])


@pytest.mark.parametrize("entry", SOUND[5:])
def test_nothing_is_hidden_by_a_volume(entry: Entry) -> None:
    with pytest.raises(HoodyError):
        soundness.check("volume-data", [TOP, entry])
