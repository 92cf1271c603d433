"""What is digested of a container's disk, without a disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoody.manifests import content
from hoody.manifests.differences import Diff, Difference, diff
from hoody.manifests.manifest import Entry, digest, grouped, in_order, line, replaced
from hoody.manifests.names import escape, unescape
from hoody.manifests.overlay import merged
from hoody.manifests.record import VERSION, Damaged, Header, Record, State, decode, encode

# Trees


NAMES = st.sampled_from(["a", "a-b", "a.b", "b", "\\x0a", "ä", "\U0001f600", "\ue000"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
FOLDER = Entry("", "folder", 0o755, 0, 0)
WHITEOUT = Entry("", "char", 0, 0, 0, device="0:0")
LEAVES = st.builds(
    Entry,
    path=st.just(""),
    kind=st.just("file"),
    mode=st.sampled_from([0o644, 0o4755]),
    uid=st.integers(0, 2),
    gid=st.just(0),
    size=st.integers(0, 3),
    digest=st.sampled_from(["x", "y"]),
    xattrs=st.sampled_from([(), (("user.a", b"\0"),)]),
    inode=st.integers(1, 6),
)


def _tree(leaves: dict[str, Entry]) -> list[Entry]:
    """With the folders that are needed, and of several names of a file, the same file."""
    found: dict[str, Entry] = {"": FOLDER}
    files: dict[int, Entry] = {}
    for path, leaf in sorted(leaves.items()):
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts))]
        if any(each in leaves for each in above):
            continue
        for each in above:
            found.setdefault(each, replaced(FOLDER, path=each))
        found[path] = replaced(files.setdefault(leaf.inode, leaf), path=path)
    return grouped(found.values())


TREES = st.dictionaries(PATHS, LEAVES, max_size=8).map(_tree)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _upper(
    wanted: list[Entry], image: list[Entry], copied: set[int], opaque: set[str]
) -> list[Entry]:
    """
    What makes C{wanted} of an image.

    @param copied: inodes of files that are above, too, though they are the same below.
    @param opaque: folders that hide all that is below, and so have all of it above.
    """
    below = {entry.path: entry for entry in image}
    after = {entry.path: entry for entry in wanted}
    found: dict[str, Entry] = {"": after[""]}
    hidden: set[str] = set()
    for entry in wanted:
        path = entry.path
        inside = path and _parent(path) in hidden
        if entry.kind == "folder":
            is_new = bool(inside) or path not in below or below[path].kind != "folder"
            if is_new or path in opaque:
                hidden.add(path)
            if path in opaque and not inside:
                found[path] = msgspec.structs.replace(entry, mark="opaque")
            elif is_new or line(below[path]) != line(entry):
                found[path] = entry
    same = _same_files(wanted, image, hidden, copied)
    for entry in wanted:
        if entry.kind != "folder" and entry.inode not in same:
            found[entry.path] = entry
    for path in below:
        if path not in after and not _is_hidden(path, after, hidden):
            found[path] = replaced(WHITEOUT, path=path)
    for path in list(found):
        while path := _parent(path):
            found.setdefault(path, after[path])
    return in_order(found.values())


def _same_files(
    wanted: list[Entry], image: list[Entry], hidden: set[str], copied: set[int]
) -> set[int]:
    """Inodes of those all of whose names are below, are one file there, and can be seen."""
    below = {entry.path: entry for entry in image}
    names: dict[int, list[Entry]] = {}
    for entry in wanted:
        names.setdefault(entry.inode, []).append(entry)
    return {
        inode
        for inode, entries in names.items()
        if inode not in copied
        and not any(_parent(entry.path) in hidden for entry in entries)
        and all(
            entry.path in below
            and line(replaced(below[entry.path], first="")) == line(replaced(entry, first=""))
            for entry in entries
        )
        and len({below[entry.path].inode for entry in entries}) == 1
        and not any(
            entry.inode == other.inode
            for entry in [below[each.path] for each in entries]
            for other in image
            if other.path not in {each.path for each in entries}
            and other.path in {each.path for each in wanted}
        )
    }


def _is_hidden(path: str, after: dict[str, Entry], hidden: set[str]) -> bool:
    parent = _parent(path)
    return parent in hidden or parent not in after or after[parent].kind != "folder"


@given(TREES, TREES, st.sets(st.integers(1, 6)), st.sets(PATHS))
def test_however_a_tree_is_split_it_has_one_digest(
    wanted: list[Entry], image: list[Entry], copied: set[int], opaque: set[str]
) -> None:
    upper = _upper(wanted, image, copied, opaque)
    found = merged(image, upper)
    assert [line(each) for each in found] == [line(each) for each in wanted]
    assert digest({"root": found}) == digest({"root": wanted})


@given(TREES, st.sets(st.integers(1, 7)))
def test_names_of_a_file_that_are_left_stay_names_of_one_file(
    image: list[Entry], gone: set[int]
) -> None:
    paths = {entry.path for number, entry in enumerate(image) if number in gone}
    removed = {path for path in paths if not any(_is_within(path, each) for each in paths)}
    upper = in_order([FOLDER, *(replaced(WHITEOUT, path=path) for path in removed)])
    left = [each for each in image if not any(_is_within(each.path, top) for top in paths)]
    assert merged(image, upper) == grouped(each for each in left if each.path not in paths)


def _is_within(path: str, top: str) -> bool:
    return path.startswith(f"{top}/")


@given(TREES)
def test_nothing_above_changes_nothing(tree: list[Entry]) -> None:
    assert merged(tree, tree[:1]) == tree
    assert merged(tree[:1], tree) == tree


@given(TREES)
def test_a_whiteout_by_an_attribute_is_one_too(tree: list[Entry]) -> None:
    removed = Entry("a", "file", 0, 0, 0, digest="e", mark="whiteout")
    left = [each for each in tree if f"{each.path}/".partition("/")[0] != "a"]
    assert [each.path for each in merged(tree, [tree[0], removed])] == [e.path for e in left]


@given(TREES, st.randoms())
def test_the_order_in_which_it_is_read_is_no_matter(tree: list[Entry], random: object) -> None:
    shuffled = list(tree)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert grouped(shuffled) == tree


def test_the_canonical_text() -> None:
    """Fixed for ever: other servers have written theirs down."""
    file = Entry("ä b", "file", 0o4755, 1, 2, 5, "d1", ((0, 1 << 20), (1 << 30, 1 << 21)))
    entries = [
        FOLDER,
        Entry("a", "char", 0o600, 0, 0, device="1:3"),
        Entry("b", "link", 0o777, 0, 0, target="c\\x09"),
        msgspec.structs.replace(file, xattrs=(("user.b", b"\xff"), ("user.a=", b"")), first="a"),
    ]
    lines = [
        "tree\troot",
        "\tfolder\t755\t0\t0\t\t\t\t",
        "a\tchar\t600\t0\t0\t1:3\t\t\t",
        "b\tlink\t777\t0\t0\tc\\x09\t\t\t",
        "ä b\tfile\t4755\t1\t2\td1\t5\t0+1048576,1073741824+2097152\ta\tuser.a==\tuser.b=ff",
        "tree\tvolume-a",
        "\tfolder\t755\t0\t0\t\t\t\t",
    ]
    text = "".join(f"{each}\n" for each in lines).encode()
    trees = {"volume-a": [FOLDER], "root": entries}
    assert digest(trees) == f"sha256:{hashlib.sha256(text).hexdigest()}"


# Names


@given(st.binary().filter(lambda raw: b"\0" not in raw))
def test_names_come_back_from_what_is_written_of_them(raw: bytes) -> None:
    text = escape(os.fsdecode(raw))
    assert os.fsencode(unescape(text)) == raw
    assert not set(text) & {"\n", "\t"}


@given(st.binary(), st.binary())
def test_no_two_names_are_written_alike(one: bytes, other: bytes) -> None:
    assert (escape(os.fsdecode(one)) == escape(os.fsdecode(other))) == (one == other)


def test_names_that_can_be_read_stay_readable() -> None:
    assert escape("café - 日本.txt") == "café - 日本.txt"
    assert escape(os.fsdecode(b"a\nb\\\xff\xc3\xa4")) == "a\\x0ab\\x5c\\xffä"


# Differences


@given(TREES)
def test_nothing_differs_from_itself(tree: list[Entry]) -> None:
    assert diff({"root": tree}, {"root": tree}) == Diff(added=(), changed=(), removed=())


@given(TREES, TREES)
def test_what_is_added_one_way_is_removed_the_other(one: list[Entry], other: list[Entry]) -> None:
    there, back = diff({"root": one}, {"root": other}), diff({"root": other}, {"root": one})
    assert (there.added, there.removed) == (back.removed, back.added)
    assert [each.path for each in there.changed] == [each.path for each in back.changed]
    assert (digest({"root": one}) == digest({"root": other})) == (there == back)


def test_trees_are_compared_by_name_and_all_of_one_that_is_new_is_added() -> None:
    file = Entry("f", "file", 0o644, 0, 0, 3, "x")
    found = diff({"root": [FOLDER]}, {"root": [FOLDER], "volume-a": [FOLDER, file]})
    assert found.added == (
        Difference(tree="volume-a", path="", size=0),
        Difference(tree="volume-a", path="f", size=3),
    )


@given(TREES, TREES, st.integers(1, 4))
def test_pages_together_are_all_of_it(one: list[Entry], other: list[Entry], limit: int) -> None:
    whole = diff({"root": one}, {"root": other})
    count = len(whole.added) + len(whole.changed) + len(whole.removed)
    pages = [whole.page(offset, limit) for offset in range(0, count, limit)]
    for kind in ("added", "changed", "removed"):
        assert sum((getattr(page, kind) for page in pages), ()) == getattr(whole, kind)


# Records


def _record(tree: list[Entry]) -> Record:
    state = State(entries=len(tree), changed=1, made=1, identity="a", parent="b")
    header = Header(version=VERSION, image="i", digest="d", trees={"root": state})
    return Record(header=header, trees={"root": tree})


@given(TREES)
def test_a_record_comes_back(tree: list[Entry]) -> None:
    found = decode(encode(_record(tree)))
    assert (found.header, found.trees) == (_record(tree).header, {"root": tree})
    assert encode(found).endswith(f"{found.checksum}\n".encode())


@given(TREES, st.data())
def test_each_bit_of_a_record_counts(tree: list[Entry], data: st.DataObject) -> None:
    raw = bytearray(encode(_record(tree)))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Damaged):
        decode(bytes(raw))


@pytest.mark.parametrize("raw", [b"", b"\n", b"x" * 200])
def test_what_is_no_record_is_refused(raw: bytes) -> None:
    with pytest.raises(Damaged):
        decode(raw)


# Content


PIECES = st.lists(st.sampled_from(["hole", "zeros", "data", "short"]), max_size=5)


def _written(path: str, pieces: Iterable[str], *, sparse: bool) -> tuple[int, bytes]:
    whole = b""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    for piece in pieces:
        part = {"data": b"d" * content.PART, "short": b"\0" * 5000}.get(piece, bytes(content.PART))
        if piece == "data" or not sparse:
            os.pwrite(descriptor, part, len(whole))
        whole += part
        os.truncate(descriptor, len(whole))
    return descriptor, whole


def _expected(whole: bytes) -> str:
    parts = [whole[each : each + content.PART] for each in range(0, len(whole), content.PART)]
    kept = [part for part in parts if part != bytes(content.PART)]
    return hashlib.sha256(b"".join(kept)).hexdigest()


@settings(max_examples=25, deadline=None)
@given(PIECES)
def test_the_digest_of_a_file_knows_of_no_holes(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str]
) -> None:
    path = str(tmp_path_factory.getbasetemp() / "content")
    found = []
    for sparse in (True, False):
        descriptor, whole = _written(path, pieces, sparse=sparse)
        try:
            found.append(content.read(descriptor, len(whole), lambda count: None))
        finally:
            os.close(descriptor)
        assert found[-1].digest == _expected(whole)
        left = sum(length for _, length in found[-1].zeros)
        assert left % content.PART == 0
    assert found[0] == found[1]
