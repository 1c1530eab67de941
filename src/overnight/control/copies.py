"""The verbs of the second place: which copies there are, whether one is whole, and bringing one back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from overnight.database.connection import Connection
from overnight.disk import backup_memory, backups, config
from overnight.disk.layout import Layout
from overnight.domain.backup import Copy
from overnight.domain.errors import OvernightError
from overnight.domain.picture import iso
from overnight.publishing import restoring
from overnight.publishing.restoring import Restored


def listing(layout: Layout, *, source: Path | None, verify_content: bool, now: float) -> tuple[Path, list[Copy]]:
    """Return the second place and its copies; without reading they count while they look as when they were read."""
    place = restoring.place_of(layout, source)
    found = restoring.copies(place, verify_content=verify_content)
    if verify_content:
        return place, found
    memory = backup_memory.read(layout, str(place))
    return place, [backup_memory.remembered(memory, copy, now=now) for copy in found]


def copy_of(layout: Layout, name: str) -> Copy | None:
    """Return the copy of a version, read to the last byte; None where there is none, or no second place."""
    try:
        path = config.read(layout).backup.path
        if path is None or backups.read_marker(Path(path)) is None or name not in backups.names_in(Path(path)):
            return None
        return backups.judge(backups.folder_of(Path(path), name), verify_content=True)
    except (OvernightError, OSError):
        return None  # the doctor tells what is wrong with the place


def restore(
    layout: Layout, connection: Connection, name: str, *, source: Path | None, set_newer_aside: bool, now: float
) -> Restored:
    """Bring a copy back."""
    return restoring.restore(layout, connection, name, source=source, set_newer_aside=set_newer_aside, now=now)


def to_json(copy: Copy) -> dict[str, Any]:
    """Return one entry of ``overnight versions backups --json``."""
    return {
        "name": copy.name,
        "kind": copy.kind.value,
        "made_at": iso(copy.made_at) if copy.made_at else None,
        "bytes": copy.bytes,
        "path": copy.path,
        "verified": copy.is_verified,
        "reason": copy.reason,
    }
