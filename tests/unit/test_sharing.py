"""Which files are to share blocks, and which parts of them do not yet."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hoody.containers.btrfs import Extent
from hoody.manifests.manifest import Entry
from hoody.manifests.sharing import (
    LEAST,
    File,
    Group,
    Part,
    Tree,
    apart,
    common,
    groups,
    is_worth_it,
    steps,
)

BLOCK = 4096
IMAGE = Tree(owner="", name="root", top=Path("/images/i"), made=90)


def tree(owner: str, made: int, name: str = "root") -> Tree:
    place = Path("/", owner)
    top = place / str(made) / name
    return Tree(owner=owner, name=name, top=top, now=place / "state", made=made)


def entry(path: str, digest: str = "d", **more: object) -> Entry:
    fields: dict[str, object] = {"size": LEAST, "inode": hash(path) % 1000, **more}
    return Entry(path=path, kind="file", mode=0o644, uid=0, gid=0, digest=digest, **fields)  # type: ignore[arg-type]


def planned(*trees: tuple[Tree, Iterable[Entry]]) -> list[Group]:
    return groups(lambda: trees)


def test_the_oldest_snapshot_gives_its_blocks_to_all_others() -> None:
    old, mid, new = tree("b", 1), tree("a", 2), tree("c", 3)
    [group] = planned((mid, [entry("y")]), (new, [entry("z")]), (old, [entry("x")]))
    assert (group.source.tree, group.source.path) == (old, "x")
    assert [(file.tree.owner, file.path) for file in group.targets] == [("a", "y"), ("c", "z")]


def test_an_image_gives_and_never_takes() -> None:
    other = Tree(owner="", name="root", top=Path("/images/j"), made=95)
    own = tree("a", 1)
    [group] = planned((other, [entry("x")]), (IMAGE, [entry("x")]), (own, [entry("x")]))
    assert group.source.tree is IMAGE
    assert [file.tree for file in group.targets] == [own]
    assert not planned((other, [entry("x")]), (IMAGE, [entry("x")]))


def test_all_snapshots_of_a_container_take_part_so_that_no_old_blocks_stay() -> None:
    first, second = tree("b", 2), tree("b", 3)
    [group] = planned((tree("a", 1), [entry("x")]), (second, [entry("x")]), (first, [entry("x")]))
    assert [file.tree for file in group.targets] == [first, second]


def test_one_file_in_several_snapshots_is_no_reason() -> None:
    assert not planned((tree("a", 1), [entry("x")]), (tree("a", 2), [entry("x")]))
    moved = entry("y", inode=entry("x").inode)
    assert not planned((tree("a", 1), [entry("x")]), (tree("a", 2), [moved]))


def test_two_files_of_one_container_are_a_reason() -> None:
    own = tree("a", 1)
    [group] = planned((own, [entry("x", inode=1), entry("y", inode=2)]))
    assert [file.path for file in group.targets] == ["y"]
    # Numbers of inodes say nothing between subvolumes.
    volume = tree("a", 1, "volume-data")
    assert planned((own, [entry("x", inode=1)]), (volume, [entry("x", inode=1)]))


def test_content_is_equal_if_digest_size_and_zeros_are() -> None:
    one = entry("x", size=4 << 20)
    for other in (
        entry("x", "other", size=4 << 20),
        entry("x", size=5 << 20),
        entry("x", size=4 << 20, zeros=((0, 1 << 20),)),
    ):
        assert not planned((tree("a", 1), [one]), (tree("b", 2), [other]))
    holed = entry("x", size=4 << 20, zeros=((0, 1 << 20),))
    assert planned((tree("a", 1), [holed]), (tree("b", 2), [holed]))


def test_small_files_links_and_what_is_nearly_all_zeros_are_left_alone() -> None:
    assert is_worth_it(entry("x"))
    assert not is_worth_it(entry("x", size=LEAST - 1))
    assert not is_worth_it(entry("x", size=(1 << 30) + 5, zeros=((0, 1 << 30),)))
    assert not is_worth_it(entry("x", first="w"))
    assert not is_worth_it(Entry(path="x", kind="folder", mode=0o755, uid=0, gid=0))


def test_what_saves_most_comes_first() -> None:
    large, many = entry("l", "l", size=LEAST * 3), entry("m", "m", size=LEAST * 2)
    holed = entry("h", "h", size=1 << 40, zeros=((0, (1 << 40) - LEAST),))
    trees = [(tree(owner, 1), [large, many, holed]) for owner in "ab"]
    found = planned(*trees, (tree("c", 1), [many]))
    assert [group.source.path for group in found] == ["m", "l", "h"]


def test_one_file_is_known_again_in_all_snapshots() -> None:
    assert File(tree("a", 1), "x", 7).identity == File(tree("a", 2), "y", 7).identity
    assert File(tree("a", 1), "x", 7).identity != File(tree("b", 1), "x", 7).identity
    assert File(IMAGE, "x", 7).identity != File(tree("a", 1), "x", 7).identity


# Blocks. A file is drawn as what is in each of its blocks: the number of one on the disk, or a
# hole; places of the same extent are next to each other.

blocks = st.lists(st.integers(min_value=0, max_value=12), max_size=12)


def extents(numbers: list[int], cuts: set[int]) -> list[Extent]:
    """
    @param numbers: of blocks on the disk, those of one extent 4 apart from the next; 0: a hole.
    @param cuts: where an extent is in two items.
    """
    found: list[Extent] = []
    for index, number in enumerate(numbers):
        offset = index * BLOCK
        place, inner = (number + 3) // 4 * 4, (number - 1) % 4
        origin = offset - inner * BLOCK
        last = found[-1] if found else None
        if number and last and (last.place, last.origin) == (place, origin) and index not in cuts:
            found[-1] = last._replace(length=last.length + BLOCK, taken=last.taken + BLOCK)
        elif number:
            found.append(Extent(offset, BLOCK, place, origin, BLOCK))
        else:
            found.append(Extent(offset, BLOCK, 0, offset, 0))
    return found


@given(blocks, blocks, st.sets(st.integers(0, 12)), st.sets(st.integers(0, 12)))
def test_parts_are_apart_that_are_other_blocks(
    source: list[int], target: list[int], one: set[int], other: set[int]
) -> None:
    theirs, ours = extents(source, one), extents(target, other)
    wanted = [
        index
        for index, number in enumerate(target)
        if number and not (index < len(source) and source[index] == number)
    ]
    found = apart(theirs, ours, 1 << 40)
    assert [
        offset // BLOCK
        for part in found
        for offset in range(part.offset, part.offset + part.length, BLOCK)
    ] == wanted
    assert all(before.offset + before.length < after.offset for before, after in pairwise(found))
    used = sum(1 for number in target if number)
    assert common(theirs, ours) == (used - len(wanted)) * BLOCK


def test_a_file_ends_where_it_ends() -> None:
    target = [Extent(0, 2 * BLOCK, 4096, 0, 100)]
    assert apart([], target, BLOCK + 5) == [Part(0, BLOCK + 5)]
    assert apart([], target, 0) == []
    assert apart(target, target, BLOCK + 5) == []
    assert common(target, target) == 100


def test_a_part_of_what_is_compressed_counts_as_its_share() -> None:
    source = [Extent(0, BLOCK, 8192, 0, 500)]
    target = [Extent(0, 4 * BLOCK, 8192, 0, 1000)]
    assert common(source, target) == 250


@given(st.integers(0, 1 << 40), st.integers(1, 1 << 26), st.integers(1 << 20, 1 << 24))
def test_steps_are_a_part_as_a_whole(offset: int, length: int, most: int) -> None:
    found = list(steps(Part(offset, length), most))
    assert found[0].offset == offset
    assert sum(step.length for step in found) == length
    assert all(step.length == most for step in found[:-1])
    assert all(one.offset + one.length == two.offset for one, two in pairwise(found))
