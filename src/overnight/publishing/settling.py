"""A change of versions that was begun is brought to its end: by whoever comes next, where the one who began it died."""

from __future__ import annotations

import os
import socket
import time

from overnight import removal
from overnight.database import events, intents
from overnight.database.connection import Connection, transaction
from overnight.disk import files, transition, versions
from overnight.disk.layout import Layout
from overnight.disk.transition import Deletion, Transition
from overnight.domain.errors import BusyError, FailedError
from overnight.publishing import merging

WISH = "consolidate"
"""The intent of a consolidation that waits behind the current job."""


def commit(layout: Layout, connection: Connection, plan: Transition | Deletion) -> None:
    """Write the plan and carry it out. Under the lock of resting.py. Raises DiskError before it, or in the middle."""
    transition.write(layout, plan)
    _finish(layout, connection, plan)


def settle(layout: Layout, connection: Connection) -> bool:
    """Bring a pending change to its end; return whether there was one. Under the lock. Raises DiskError."""
    try:
        plan = transition.read(layout)
    except ValueError as error:
        raise FailedError(
            "A version change was begun, and its plan cannot be read",
            found=str(error),
            expected=f"the plan as it was written to {layout.transition}",
            fix="put the file back from a copy; without it nobody can tell what belongs together",
            code="transition",
        ) from error
    if plan is None:
        return False
    _finish(layout, connection, plan)
    return True


def settle_if_possible(layout: Layout, connection: Connection) -> bool:
    """Bring a pending change to its end unless somebody is at it; return whether none is pending any more.

    A merge whose starter is gone is ended, and what it wrote removed.
    """
    if not layout.transition.exists() and not layout.consolidation.exists():
        return True
    lock = files.Lock(layout.checkpoints_lock)
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time(), "what": "a version change ends"}
    if not lock.acquire(holder=holder):
        return False
    try:
        settle(layout, connection)
        merging.end_leftover(layout)
        versions.remove_staging(layout)
    finally:
        lock.release()
    return True


def require_settled(layout: Layout, connection: Connection) -> None:
    """Bring a pending change to its end before anything else is done. Raises BusyError while somebody is at it."""
    if not settle_if_possible(layout, connection):
        raise BusyError(
            "Another version is being put in use now",
            found=str(layout.transition),
            expected="a model at rest",
            fix="try again in a moment",
            code="held",
        )


def _finish(layout: Layout, connection: Connection, plan: Transition | Deletion) -> None:
    if isinstance(plan, Deletion):
        _delete(layout, plan)
    else:
        transition.carry_out(layout, plan)
    _record(connection, plan)
    transition.clear(layout)
    versions.remove_staging(layout)


def _delete(layout: Layout, plan: Deletion) -> None:
    """Move what is not in the trash yet."""
    for path in plan.paths:
        if os.path.lexists(layout.root / path):
            removal.set_version_aside(layout, layout.root / path)


def _record(connection: Connection, plan: Transition | Deletion) -> None:
    """Write the change into the history, once, and take back the wish that it meets."""
    kind = f"version.{plan.kind}"
    last = events.newest_of(connection, kind)
    if last is not None and last["data"].get("transition") == plan.id:
        return
    if isinstance(plan, Deletion):
        events.record(
            connection, now=plan.at, kind=kind, message=plan.message, version=plan.version,
            freed_bytes=plan.freed_bytes, transition=plan.id,
        )  # fmt: skip
        return
    with transaction(connection):
        events.record(
            connection, now=plan.at, kind=kind, message=plan.message, version=plan.version, before=plan.before,
            step=plan.step, checkpoint=plan.checkpoint, jobs=plan.jobs, transition=plan.id, wish=plan.wish,
        )  # fmt: skip
        standing = intents.standing(connection).get(WISH)
        if plan.wish is not None and standing is not None and standing.value.get("token") == plan.wish:
            intents.withdraw(connection, WISH)
