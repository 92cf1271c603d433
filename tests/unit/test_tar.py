"""Reading tar archives, those that are none among them."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from hoody.containers.images.budget import Budget
from hoody.containers.images.orders import Limits
from hoody.containers.images.streams import Part, opened
from hoody.containers.images.tar import Archive, Entry, Kind
from hoody.errors import CallerError
from tests.support.images import folder, hard_link, member, symlink, tarred


@define
class Bytes:
    """A source that gives a little at a time."""

    data: bytes
    most: int = 10**9

    def read(self, count: int) -> bytes:
        count = min(count, self.most)
        piece, self.data = self.data[:count], self.data[count:]
        return piece


def read(raw: bytes, most: int = 10**9) -> list[tuple[Entry, bytes]]:
    archive = Archive(Bytes(raw, most))
    found = []
    for entry in archive:
        content = bytearray(min(entry.size, 2**20)) if entry.kind is Kind.FILE else bytearray()
        for offset, piece in archive.data(entry) if entry.kind is Kind.FILE else ():
            content[offset : offset + len(piece)] = piece
        found.append((entry, bytes(content)))
    return found


FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


@pytest.mark.parametrize("most", [1, 700, 10**9])
@pytest.mark.parametrize("form", FORMATS)
def test_all_formats_are_read(form: int, most: int) -> None:
    members = [
        folder("d/", uid=1000, gid=1001, mtime=5),
        member("d/" + "n" * 90 + "/" + "m" * 60, b"x" * 1000, mode=0o640),
        symlink("s", "t" * 99),
        hard_link("h", "s"),
        member("fifo", type=tarfile.FIFOTYPE),
        member("empty"),
    ]
    found = read(tarred(members, form=form), most)
    assert [entry.name for entry, _ in found] == [
        os.fsencode(info.name).rstrip(b"/") + (b"/" if info.isdir() else b"")
        for info, _ in members
    ]
    assert [entry.kind for entry, _ in found] == [
        Kind.DIRECTORY,
        Kind.FILE,
        Kind.SYMLINK,
        Kind.LINK,
        Kind.FIFO,
        Kind.FILE,
    ]
    assert (found[0][0].uid, found[0][0].gid, found[0][0].mtime) == (1000, 1001, 5 * 10**9)
    assert found[1][1] == b"x" * 1000
    assert found[2][0].target == b"t" * 99


@pytest.mark.parametrize("form", FORMATS[1:])
def test_long_names_and_large_numbers_are_read(form: int) -> None:
    long = "/".join(["long"] * 300)
    members = [
        member(long, b"x", uid=2**30, mtime=2**40),
        symlink("s", long),
        member(b"\xff\xfe", b"1"),
    ]
    (first, _), (second, _), (third, _) = read(tarred(members, form=form))
    assert first.name == second.target == long.encode()
    assert (first.uid, first.mtime) == (2**30, 2**40 * 10**9)
    assert third.name == b"\xff\xfe"


def test_fractions_of_seconds_and_attributes_are_read() -> None:
    headers = {"mtime": "1.5", "SCHILY.xattr.user.a": "b=c\nd", "comment": "none"}
    ((entry, _),) = read(tarred([member("x", pax_headers=headers)]))
    assert entry.mtime == 1_500_000_000
    assert entry.xattrs == {b"user.a": b"b=c\nd"}


@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=posix", "--sparse-version=0.0"],
        ["--format=posix", "--sparse-version=0.1"],
        ["--format=posix", "--sparse-version=1.0"],
    ],
)
@pytest.mark.parametrize("pieces", [0, 1, 3, 60])
def test_sparse_files_of_gnu_tar_are_read(tmp_path: Path, options: list[str], pieces: int) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for number in range(pieces):
            file.seek(number * 16384)
            file.write(b"%04d" % number * 1024)
        file.truncate(1024 * 1024)
    (tmp_path / "after").write_bytes(b"after")
    raw = subprocess.run(
        ["tar", "-C", tmp_path, "--sparse", *options, "-cf", "-", "sparse", "after"],
        capture_output=True,
        check=True,
    ).stdout
    assert len(raw) < 1024 * 1024
    (sparse, content), (_, after) = read(raw, 1000)
    assert sparse.name == b"sparse"
    assert (sparse.size, content) == (1024 * 1024, path.read_bytes())
    assert sparse.spans is not None
    assert sum(length for _, length in sparse.spans) < 512 * 1024
    assert after == b"after"


def _sparse(map_: str, size: int = 100, data: bytes = b"x" * 10) -> bytes:
    headers = {"GNU.sparse.map": map_, "GNU.sparse.size": str(size)}
    return tarred([member("s", data, pax_headers=headers)])


def test_a_sparse_map_says_where_data_belongs() -> None:
    ((entry, content),) = read(_sparse("20,10,100,0"))
    assert entry.size == 100
    assert content == bytes(20) + b"x" * 10 + bytes(70)


@pytest.mark.parametrize(
    "map_",
    ["0,11", "0,9", "95,10", "0,5,3,5", "10,5,0,5", "0,5,5", "-1,10", "a,b", "0,10,9999999999,0",
     "99999999999999999999,10", "0,5" + ",5,0" * 201_000 + ",5,5"],
)  # fmt: skip
def test_a_sparse_map_that_does_not_fit_is_refused(map_: str) -> None:
    with pytest.raises(CallerError):
        read(_sparse(map_))


def test_no_archive_is_no_archive() -> None:
    for raw in (b"x", b"x" * 512, b"x" * 5000, b"\xff" * 1024):
        with pytest.raises(CallerError):
            read(raw)


def test_an_archive_without_its_end_is_refused_wherever_it_was_cut() -> None:
    raw = tarred([member("a", b"x" * 700), folder("b"), member("c" * 200, b"y")])
    whole = len(raw.rstrip(b"\0"))
    for cut in [*range(0, whole, 128), *range(0, whole, 512)]:
        with pytest.raises(CallerError, match="cut off"):
            read(raw[:cut])
    read(raw[: -(-whole // 512) * 512 + 512])


def test_a_broken_head_in_the_middle_is_no_end() -> None:
    raw = bytearray(tarred([member("a", b"x"), member("b", b"y")]))
    raw[1024 + 3] ^= 1
    with pytest.raises(CallerError, match="checksum"):
        read(bytes(raw))


def _head(size: bytes, letter: bytes, name: bytes = b"x") -> bytes:
    head = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    head[:100] = name.ljust(100, b"\0")
    head[124:136], head[156:157] = size.rjust(12, b"0"), letter
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


@pytest.mark.parametrize("letter", [b"x", b"g", b"L", b"K"])
def test_extended_heads_of_gigabytes_are_not_read(letter: bytes) -> None:
    class Endless:
        count = 0

        def read(self, count: int) -> bytes:
            self.count += count
            assert self.count < 10_000_000
            return b"x" * count

    source = Endless()
    first = [_head(b"77777777777", letter)]
    archive = Archive(
        type("Both", (), {"read": lambda _, n: first.pop() if first else source.read(n)})()
    )
    with pytest.raises(CallerError, match="more than a MiB"):
        list(archive)


def test_endless_extended_heads_are_refused() -> None:
    one = _head(b"0", b"x")
    with pytest.raises(CallerError, match="too many"):
        read(one * 10_000)


@pytest.mark.parametrize(
    "records",
    [b"x", b"5 a=b", b"99 path=x\n", b"0 path=x\n", b"3 a\n", b"12 size=abc\n", b"13 mtime=now\n"],
)
def test_broken_records_are_refused(records: bytes) -> None:
    size = b"%o" % len(records)
    raw = _head(size, b"x") + records.ljust(512, b"\0") + tarred([member("a")])
    with pytest.raises(CallerError):
        read(raw)


def test_sizes_below_nothing_are_refused() -> None:
    raw = bytearray(_head(b"0", b"0"))
    raw[124:136] = b"\xff" * 12
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    with pytest.raises(CallerError):
        read(bytes(raw) + bytes(1024))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_comes_is_an_archive_or_a_sentence(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(FORMATS[1:]))
    raw = bytearray(
        tarred(
            [
                member("a" * 150, b"x" * 600, pax_headers={"SCHILY.xattr.user.a": "b"}),
                symlink("l", "t" * 200),
                member("b", b"y"),
            ],
            form=form,
        )
    )
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.integers(0, 255))
        # A checksum that is right again, or little would be found behind it.
        start = place - place % 512
        block = raw[start : start + 512]
        block[148:156] = b" " * 8
        if data.draw(st.booleans()):
            raw[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    try:
        found = read(bytes(raw))
    except CallerError:
        return
    assert all(entry.size >= 0 for entry, _ in found)


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
            st.binary(max_size=2000),
            st.integers(0, 0o7777),
            st.integers(0, 2**31),
        ),
        max_size=5,
    ),
    st.sampled_from(FORMATS[1:]),
)
@settings(deadline=None)
def test_it_reads_what_python_reads(files: list[tuple[str, bytes, int, int]], form: int) -> None:
    raw = tarred(
        [member(name, data, mode=mode, uid=uid) for name, data, mode, uid in files], form=form
    )
    with tarfile.open(fileobj=io.BytesIO(raw)) as theirs:
        expected = [(os.fsencode(info.name), info.mode, info.uid) for info in theirs]
    ours = read(raw)
    # Python takes slashes from the ends of names; to us, as to GNU tar, they make folders.
    assert [(entry.name.rstrip(b"/"), entry.mode, entry.uid) for entry, _ in ours] == [
        (name.rstrip(b"/"), *rest) for name, *rest in expected
    ]
    kept = [data for name, data, _, _ in files if not name.endswith("/")]
    assert [data for entry, data in ours if entry.kind is Kind.FILE] == kept


class TestCompressed:
    def opened(self, tmp_path: Path, raw: bytes) -> bytes:
        path = tmp_path / "file"
        path.write_bytes(raw)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            source = opened(Part.whole(descriptor), Budget(Limits()))
            return b"".join(iter(lambda: source.read(1000), b""))
        finally:
            os.close(descriptor)

    @pytest.mark.parametrize("program", ["gzip", "bzip2", "xz"])
    def test_streams_behind_each_other_are_one(self, tmp_path: Path, program: str) -> None:
        text = os.urandom(300_000) + bytes(3_000_000)
        packed = [
            subprocess.run([program, "-c"], input=part, capture_output=True, check=True).stdout
            for part in (text, b"", text)
        ]
        raw = b"".join(packed)
        assert self.opened(tmp_path, raw) == text + text
        assert self.opened(tmp_path, raw + bytes(1024)) == text + text
        with pytest.raises(CallerError):
            self.opened(tmp_path, raw + b"garbage")
        for cut in (len(raw) - 1, len(raw) - 10, len(packed[0]) // 2):
            with pytest.raises(CallerError, match="cut off"):
                self.opened(tmp_path, raw[:cut])
        broken = bytearray(raw)
        broken[len(packed[0]) // 2] ^= 1
        with pytest.raises(CallerError, match="damaged"):
            self.opened(tmp_path, bytes(broken))

    @pytest.mark.parametrize("magic", [b"\x28\xb5\x2f\xfd", b"\x51\x2a\x4d\x18"])
    def test_zstd_is_refused_with_a_way_out(self, tmp_path: Path, magic: bytes) -> None:
        with pytest.raises(CallerError, match=r"zstd -dc ARCHIVE \| gzip"):
            self.opened(tmp_path, magic + bytes(100))

    def test_a_compressed_archive_is_read_to_its_last_byte(self, tmp_path: Path) -> None:
        # Its checksum is behind the archive's end.
        raw = bytearray(tarred([member("a", b"x")], "w:gz"))
        raw[-6] ^= 1
        path = tmp_path / "file"
        path.write_bytes(raw)
        descriptor = os.open(path, os.O_RDONLY)
        with pytest.raises(CallerError, match="damaged"):
            list(Archive(opened(Part.whole(descriptor), Budget(Limits()))))
        os.close(descriptor)
