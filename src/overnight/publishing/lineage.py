"""Which jobs the model as it stands was trained on: those in its version and in all that it was made from, and since.

A job that was trained on what was left by a rollback, that the gate keeps aside, or behind which the model went back,
is none of them, however well it ended. Looking at a workspace asks for it too: nothing slow to import stands here.
"""

from __future__ import annotations

from typing import Any

from overnight.database import events
from overnight.database.connection import Connection
from overnight.database.trained import reached_after
from overnight.disk import checkpoints, locked, versions
from overnight.disk.layout import Layout
from overnight.domain.lineage import Reached, line_of

CHANGES = ("version.published", "version.rolled_back")
"""Events that put a version in use."""


def last_change(connection: Connection) -> dict[str, Any] | None:
    """Return the event that put the version in use which is in use now, or None."""
    found = [events.newest_of(connection, kind) for kind in CHANGES]
    return max((event for event in found if event is not None), key=lambda event: int(event["id"]), default=None)


def jobs_since_change(layout: Layout, connection: Connection) -> list[int]:
    """Return the jobs from which the checkpoints come that stand on the version in use, in order."""
    return list(_since_change(layout, connection))


def jobs(layout: Layout, connection: Connection) -> set[int] | None:
    """Return their numbers, also of those not trained to their end; None where a version of the line cannot be read."""
    found = reached(layout, connection)
    return set(found) if found is not None else None


def reached(layout: Layout, connection: Connection) -> dict[int, int] | None:
    """Return up to which global step each of them is in the model; None where a version of the line cannot be read."""
    found = _since_change(layout, connection)
    identity = locked.version_in_use(layout)
    seen: set[str] = set()
    while identity is not None and identity not in seen:
        seen.add(identity)
        try:
            version = versions.read(layout.versions / identity)
            found = {int(one["job"]): version.step for one in version.datasets} | found
        except (OSError, ValueError, KeyError, TypeError):
            return None
        identity = version.parent
    return found


def _since_change(layout: Layout, connection: Connection) -> dict[int, int]:
    change = last_change(connection)
    event, data = (int(change["id"]), change["data"]) if change is not None else (0, {})
    stood = int(data.get("step") or 0)
    before = [Reached(job=int(job), first_step=-1, step=stood) for job in data.get("jobs") or []]
    return line_of([*before, *reached_after(connection, event)], stands=step(layout))


def has_changed(connection: Connection, since: int, newest: int) -> bool:
    """Return whether a version came into use after an event; only what is newer is read: it is asked with each look."""
    return newest < since or bool(events.of_kinds_after(connection, CHANGES, since, limit=1))


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
