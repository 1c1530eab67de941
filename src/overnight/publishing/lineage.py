"""Which jobs the model as it stands was trained on: those in its version and in all that it was made from, and since.

After a rollback a job that was trained on what was left is none of them, however well it ended.
"""

from __future__ import annotations

from overnight.database.connection import Connection
from overnight.disk import checkpoints, locked, versions
from overnight.disk.layout import Layout
from overnight.publishing import place


def jobs(layout: Layout, connection: Connection) -> set[int] | None:
    """Return their numbers, also of those not trained to their end; None where a version of the line cannot be read."""
    found = set(place.jobs_since_change(connection))
    identity = locked.version_in_use(layout)
    seen: set[str] = set()
    while identity is not None and identity not in seen:
        seen.add(identity)
        try:
            version = versions.read(layout.versions / identity)
            found |= {int(one["job"]) for one in version.datasets}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        identity = version.parent
    return found


def step(layout: Layout) -> int | None:
    """Return the global step at which the model stands, by the looks of its checkpoints; None before the first one."""
    newest = checkpoints.newest_complete(layout.model)
    if newest is not None:
        return newest.step
    identity = locked.version_in_use(layout)
    try:
        return versions.read(layout.versions / identity).step if identity is not None else None
    except (OSError, ValueError):
        return None
