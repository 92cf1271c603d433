"""What is not the same in two snapshots, as a container sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from hoody.manifests.manifest import Entry, line


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """
    @ivar tree: C{root} or C{volume-NAME}.
    @ivar path: in it, escaped (L{hoody.manifests.names}).
    @ivar size: in bytes, of a file; of one that was removed, what it had.
    """

    tree: str
    path: str
    size: int


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """Each sorted, by tree and path."""

    added: tuple[Difference, ...]
    changed: tuple[Difference, ...]
    removed: tuple[Difference, ...]

    def page(self, offset: int, limit: int) -> Diff:
        """So many of all of them, counted by tree and path, whatever happened to them."""
        everything = sorted((*self.added, *self.changed, *self.removed), key=_place)
        wanted = {_place(each) for each in everything[offset : offset + limit]}
        return Diff(
            added=tuple(each for each in self.added if _place(each) in wanted),
            changed=tuple(each for each in self.changed if _place(each) in wanted),
            removed=tuple(each for each in self.removed if _place(each) in wanted),
        )


Trees = Mapping[str, Iterable[Entry]]


def diff(before: Trees, after: Trees) -> Diff:
    """@param before: trees by name, the root merged; as C{after}."""
    old, new = _by_place(before), _by_place(after)
    return Diff(
        added=_differences(new, new.keys() - old.keys()),
        changed=_differences(
            new, {each for each in new.keys() & old.keys() if _differ(old, new, each)}
        ),
        removed=_differences(old, old.keys() - new.keys()),
    )


_Place = tuple[str, str]


def _differ(old: Mapping[_Place, Entry], new: Mapping[_Place, Entry], place: _Place) -> bool:
    # The image's entries are the same ones, mostly.
    return old[place] is not new[place] and line(old[place]) != line(new[place])


def _place(difference: Difference) -> _Place:
    return difference.tree, difference.path


def _by_place(trees: Trees) -> dict[_Place, Entry]:
    return {(tree, entry.path): entry for tree, entries in trees.items() for entry in entries}


def _differences(
    entries: Mapping[_Place, Entry], places: Iterable[_Place]
) -> tuple[Difference, ...]:
    return tuple(
        Difference(tree=place[0], path=place[1], size=entries[place].size)
        for place in sorted(places)
    )
