"""What was set aside: whole, out of the way, for a limited time.

How long something lies there is counted, not read off a clock: the loop adds the time that it watched. So neither a
clock that jumps, nor a restart, nor a year switched off makes anything old. ``.overnight/trash.json`` holds the count;
without it everything counts as new.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from overnight.disk import files
from overnight.disk.layout import Layout
from overnight.domain.errors import DiskError
from overnight.domain.retention import Resting

SCHEMA = 1
HIDDEN = re.compile(r"\.(checkpoint-[0-9]+|v[0-9]+|before-v[0-9]+|on-v[0-9]+\.[0-9]+)\.[0-9a-f]{8}")
"""The names of what was set aside where it lay, because the trash is on another file system."""


def listing(layout: Layout) -> list[Resting]:
    """Return what lies in the trash, by name."""
    ages = _ages(layout)
    return [
        Resting(
            name=path.name,
            path=str(path),
            bytes=tree_bytes(path),
            age_s=ages.get(path.name, 0.0),
            files=sum(1 + len(names) for _, _, names in os.walk(path)) or 1,
        )
        for path in _paths(layout)
    ]


def grow_older(layout: Layout, passed_s: float) -> None:
    """Add watched time to everything in the trash. Never fails: what is not counted stays longer."""
    ages = _ages(layout)
    value = {path.name: round(ages.get(path.name, 0.0) + max(0.0, passed_s), 1) for path in _paths(layout)}
    if not value and not ages:
        return
    with contextlib.suppress(DiskError):
        files.write_json_atomically(_file(layout), {"schema": SCHEMA, "watched_s": value})


def tree_bytes(path: Path) -> int:
    """Return the bytes of the files below a folder; links count nothing and are not followed."""
    total = 0
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            return 0 if path.is_symlink() else os.lstat(path).st_size
    for parent, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):  # gone while we looked
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _paths(layout: Layout) -> list[Path]:
    places = (layout.model, layout.versions, layout.history)
    hidden = [path for place in places for path in _entries(place) if HIDDEN.fullmatch(path.name)]
    return [*_entries(layout.trash), *hidden]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _file(layout: Layout) -> Path:
    return layout.state / "trash.json"


def _ages(layout: Layout) -> dict[str, float]:
    try:
        value = files.read_json(_file(layout))
        found = value["watched_s"] if value["schema"] == SCHEMA else {}
        return {str(name): float(age) for name, age in found.items() if float(age) >= 0}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
