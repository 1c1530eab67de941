"""What somebody did to the files of a workspace while it works: two looks at its folders, compared.

A file that Overnight moves from one folder to the next keeps its inode, so it is found again; one that nobody of ours
ever deletes and that is gone was taken away by somebody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

Looks = tuple[int, int, int, int]
"""Device, inode, bytes and time of change (ns) of a file."""

Folder = Mapping[str, Looks]
MOST_NAMES = 3
"""So many names are told one by one."""


@dataclass(slots=True)
class Sight:
    """What was seen at one look."""

    people: dict[str, Folder]  # the files in the folders that people look into, by folder
    checkpoints: dict[str, dict[str, Looks]]  # the files of each one; under "" stands the folder itself
    versions: dict[str, Looks]
    event: int  # id of the newest event then, or before something that is still unsure
    unsure: dict[str, bool] = field(default_factory=dict)
    """What is gone, and whether another checkpoint was left then: told when the next look still finds no word of it."""


class Deed(StrEnum):
    """What was done."""

    REMOVED = "removed"
    EDITED = "edited"
    REPLACED = "replaced"
    ADDED = "added"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Change:
    """Something that somebody did to one file."""

    folder: str
    deed: Deed
    name: str


def recognised(before: Sight, after: Sight) -> Sight:
    """Return an older look with the numbers that files bear now.

    Who moves a folder to another disk gives its files other numbers: what bears the same name, size and time is known.
    """
    people = {folder: _renumbered(names, after.people.get(folder, {})) for folder, names in before.people.items()}
    checkpoints = {
        name: after.checkpoints[name] if _is_alike(files, after.checkpoints.get(name, {})) else files
        for name, files in before.checkpoints.items()
    }
    return replace(before, people=people, checkpoints=checkpoints)


def _renumbered(before: Folder, after: Folder) -> Folder:
    return {name: after[name] if looks[2:] == after.get(name, ())[2:] else looks for name, looks in before.items()}


def _is_alike(before: Folder, after: Folder) -> bool:
    return len(before) == len(after) and all(looks[2:] == after.get(name, ())[2:] for name, looks in before.items())


def changes_of_files(before: Mapping[str, Folder], after: Mapping[str, Folder]) -> list[Change]:
    """Return what was done to the files of several folders, between which they may be moved at any time.

    A folder that is in one of the looks only was not watched: nothing is said of it. What is moved to another disk is
    a new file there, of the same name and size.
    """
    there = {looks[:2]: (name, looks) for folder in after.values() for name, looks in folder.items()}
    sizes = {
        (name.partition(".")[0], looks[2], looks[0]) for folder in after.values() for name, looks in folder.items()
    }
    disks = {disk for _, _, disk in sizes}
    found: list[Change] = []
    for folder, names in before.items():
        if folder not in after:
            continue
        for name, looks in names.items():
            place, now = there.get(looks[:2], ("", None))
            if now == looks:
                continue
            if now is not None and _is_of_one_name(place, name):
                deed = Deed.EDITED
            elif name in after[folder]:
                deed = Deed.REPLACED
            elif any((name.partition(".")[0], looks[2], disk) in sizes for disk in disks - {looks[0]}):
                continue
            else:
                deed = Deed.REMOVED
            found.append(Change(folder=folder, deed=deed, name=name))
    return found


def _is_of_one_name(one: str, other: str) -> bool:
    """Return whether two names begin alike: where a file was removed, the next new one may be given its inode."""
    return one.partition(".")[0] == other.partition(".")[0]


def changes_inside(folder: str, before: Folder, after: Folder, *, matters: Iterable[str] = ()) -> list[Change]:
    """Return what was done to the files of one folder that never change; of new ones only those that matter count."""
    found: list[Change] = []
    for name, looks in before.items():
        now = after.get(name)
        if now is None:
            found.append(Change(folder=folder, deed=Deed.REMOVED, name=name))
        elif now != looks:
            deed = Deed.EDITED if now[:2] == looks[:2] else Deed.REPLACED
            found.append(Change(folder=folder, deed=deed, name=name))
    added = [name for name in after if name not in before and name.endswith(tuple(matters))]
    return found + [Change(folder=folder, deed=Deed.ADDED, name=name) for name in added]


def in_words(changes: list[Change]) -> dict[tuple[str, Deed], str]:
    """Return one sentence for each folder and deed, naming the files, the first few one by one."""
    groups: dict[tuple[str, Deed], list[str]] = {}
    for change in sorted(changes):
        groups.setdefault((change.folder, change.deed), []).append(change.name)
    return {key: f"{names_of(key[0], names)} {verb_of(key[1], len(names))}" for key, names in groups.items()}


def names_of(folder: str, names: list[str]) -> str:
    """Return the files of a folder in words."""
    prefix = f"{folder}/" if folder else ""
    told = ", ".join(prefix + name for name in names[:MOST_NAMES])
    more = len(names) - MOST_NAMES
    return f"{told} and {more} more" if more > 0 else told


def verb_of(deed: Deed, count: int) -> str:
    """Return the deed as a verb."""
    return f"{'was' if count == 1 else 'were'} {deed.value} by somebody"
