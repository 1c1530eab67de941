"""The loop's last look at the folders, kept for the next loop: .overnight/sight.json.

It may be lost at any time: the next look is then the first. It is worth something only in its own place. A workspace
that was copied or brought back from a backup has other files, so the folder's inode and the time of this very file must
be those that stand in it. Device numbers may change with each boot and are not kept.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.disk import files
from overnight.disk.layout import Layout
from overnight.domain.sightings import Looks, Sight

SCHEMA = 1
"""One more where a look sees other files than before: two looks of different kinds cannot be compared."""

MOST_BYTES = 8 << 20
"""Where the folders of people hold so many files that it would be longer, those are left out."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A look as it was kept."""

    sight: Sight
    event_at: float | None  # unix seconds of its event: another database has another event of that number


def keep(layout: Layout, kept: Kept) -> None:
    """Keep a look for the next loop. Raises OSError or DiskError; the older one then stays."""
    sight = kept.sight
    written = time.time_ns()
    value: dict[str, Any] = {
        "schema": SCHEMA,
        "folder": os.stat(layout.state).st_ino,
        "written": written,
        "event": sight.event,
        "event_at": kept.event_at,
        "people": {folder: _without_device(names) for folder, names in sight.people.items()},
        "checkpoints": {name: _without_device(inside) for name, inside in sight.checkpoints.items()},
        "versions": _without_device(sight.versions),
        "unsure": sight.unsure,
    }
    data = _data(value)
    if len(data) > MOST_BYTES:
        data = _data({**value, "people": {}})
    files.write_atomically(_path(layout), data)
    os.utime(_path(layout), ns=(written, written))


def read(layout: Layout) -> Kept | None:
    """Return the look that the last loop kept; None where there is none, or none that fits this place."""
    path = _path(layout)
    try:
        value = json.loads(files.read_bytes(path, limit=2 * MOST_BYTES))
        if value["schema"] != SCHEMA or value["folder"] != os.stat(layout.state).st_ino:
            return None
        if value["written"] != os.stat(path).st_mtime_ns:
            return None  # a copy
        model = _device(layout.model)
        sight = Sight(
            people={
                str(folder): _with_device(names, _device(layout.root / folder))
                for folder, names in value["people"].items()
            },
            checkpoints={str(name): _with_device(inside, model) for name, inside in value["checkpoints"].items()},
            versions=_with_device(value["versions"], _device(layout.versions)),
            event=int(value["event"]),
            unsure={str(name): bool(was_left) for name, was_left in value["unsure"].items()},
        )
        return Kept(sight, float(value["event_at"]) if value["event_at"] is not None else None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _path(layout: Layout) -> Path:
    return layout.state / "sight.json"


def _data(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _device(folder: Path) -> int:
    try:
        return os.stat(folder).st_dev
    except FileNotFoundError:
        return 0


def _without_device(names: Any) -> dict[str, list[int]]:
    return {name: list(looks[1:]) for name, looks in names.items()}


def _with_device(names: Any, device: int) -> dict[str, Looks]:
    return {str(name): (device, int(inode), int(size), int(at)) for name, (inode, size, at) in names.items()}
