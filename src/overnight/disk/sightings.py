"""A look at the folders of a workspace as the kernel tells of them: which files lie there; nothing is read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from overnight.disk import files
from overnight.disk.layout import Layout
from overnight.disk.views import REPORT
from overnight.domain.checkpoint import step_of
from overnight.domain.sightings import Folder, Looks

MOST_ENTRIES = 10_000
"""A folder with more entries is not watched: a look at it would hold up the loop."""


def of_people(layout: Layout) -> dict[str, Folder]:
    """Return the files in the folders that people look into, by folder; one that cannot be looked at is left out."""
    folders = (layout.waiting, layout.processing, layout.done, layout.failed, layout.rejected)
    seen = {folder.relative_to(layout.root).as_posix(): _files(folder) for folder in folders}
    return {folder: names for folder, names in seen.items() if names is not None}


def of_checkpoints(layout: Layout) -> dict[str, dict[str, Looks]]:
    """Return the files of each checkpoint, by its name; under "" stands the folder itself, without its time."""
    found: dict[str, dict[str, Looks]] = {}
    for name in _names(layout.model):
        if step_of(name) is None:
            continue
        folder = layout.model / name
        itself = _looks(folder)
        if itself is not None:
            found[name] = {"": (*itself[:2], 0, 0), **(_files(folder) or {})}
    return found


def of_versions(layout: Layout) -> dict[str, Looks]:
    """Return the folders in models/, without their times."""
    looks = {name: _looks(layout.versions / name) for name in _names(layout.versions)}
    return {name: (*seen[:2], 0, 0) for name, seen in looks.items() if seen is not None}


def set_aside(layout: Layout) -> set[tuple[int, int]]:
    """Return device and inode of what we moved out of the way ourselves, or are just removing."""
    places = [layout.trash / name for name in _names(layout.trash)]
    for folder in (layout.model, layout.versions):
        places += [folder / name for name in _names(folder, hidden=True)]
    # what made way for another version, belongs to a job that is kept aside, or went into the trash with one of those
    for resting in [*_inside(layout.history), *_inside(layout.candidates), *_inside(layout.trash)]:
        places += [path for path in _inside(resting) if step_of(path.name) is not None]
    return {looks[:2] for place in places if (looks := _looks(place)) is not None}


def names_kept_aside(layout: Layout) -> set[str]:
    """Return the names of the checkpoints that belong to jobs which are kept aside, or lie in the trash."""
    in_trash = {name.partition(".")[0] for name in _names(layout.trash)}
    return in_trash | {name for folder in _inside(layout.candidates) for name in _names(folder)}


def in_the_way(layout: Layout) -> list[str]:
    """Return, relative to the workspace, what was found in the place of our own files and made way."""
    places = (layout.state, layout.logs, layout.status_file.parent, layout.root)
    return [
        (place / name).relative_to(layout.root).as_posix()
        for place in places
        for name in _names(place)
        if files.ASIDE in name
    ]


def _files(folder: Path) -> dict[str, Looks] | None:
    try:
        with os.scandir(folder) as entries:
            found: dict[str, Looks] = {}
            for entry in entries:
                if entry.name.startswith(".") or entry.name.endswith((REPORT, ".tmp", ".part")):
                    continue
                if len(found) >= MOST_ENTRIES:
                    return None
                facts = entry.stat(follow_symlinks=False)
                if not stat.S_ISDIR(facts.st_mode):
                    found[entry.name] = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
            return found
    except OSError:
        return None  # it is not there, or something of it went away while we looked: the next look tells


def _inside(folder: Path) -> list[Path]:
    return [folder / name for name in _names(folder)]


def _looks(path: Path) -> Looks | None:
    try:
        facts = os.lstat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _names(folder: Path, *, hidden: bool = False) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.startswith(".") is hidden)
    except OSError:
        return []
