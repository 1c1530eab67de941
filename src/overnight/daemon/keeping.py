"""The loop's part in keeping the guards alive: its own locks, and the watchdog."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import Any

from overnight.daemon.context import Context, Moment
from overnight.disk import files
from overnight.disk.folder_lock import FolderLock
from overnight.disk.layout import Layout
from overnight.domain.errors import BusyError
from overnight.launchers import guards
from overnight.launchers.base import LaunchError

EVERY_S = 2.0
"""So often the loop looks whether the watchdog is there."""

INTRODUCTION_S = 2.0
"""A loop that has just begun has written its name after so long."""


@dataclass(slots=True)
class Locks:
    """What makes this loop the only one: the lock on the state folder itself, and the file that names the holder.

    The file can be deleted and is then made again; the folder's lock holds all the while.
    """

    folder: FolderLock
    file: files.Lock


def holder(since: float) -> dict[str, Any]:
    """Return what a lock file says of its holder."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since}


def take_locks(layout: Layout, *, now: float) -> Locks:
    """Become the only loop of a workspace. Raises BusyError that names the other one."""
    locks = Locks(folder=FolderLock(layout.state), file=files.Lock(layout.daemon_lock))
    if not locks.folder.acquire() or not locks.file.acquire(holder=holder(now)):
        other = _introduced(layout)
        raise BusyError(
            "Another daemon holds this workspace",
            found=f"pid {other.get('pid', 'unknown')} on {other.get('host', 'this host')},"
            f" since {_shown(other.get('since'))}",
            expected="no daemon, or this one only",
            fix="overnight status shows it; overnight down ends it",
            code="held",
        )
    return locks


def _introduced(layout: Layout) -> dict[str, Any]:
    """Return who holds the lock; one that began this instant is given the time to write its name."""
    deadline = time.monotonic() + INTRODUCTION_S
    while True:
        other = files.lock_holder(layout.daemon_lock)
        if (other is not None and "pid" in other) or time.monotonic() > deadline:
            return other or {}
        time.sleep(0.02)


def _shown(since: object) -> str:
    if not isinstance(since, int | float):
        return "an unknown time"
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))


def keep_guards(context: Context, now: Moment) -> None:
    """See that this loop is still the only one, and that a watchdog looks after it."""
    locks: Locks | None = context.memory.get("locks")
    if locks is not None:
        _keep_locks(context, locks, now)
    if now.boot >= context.memory.get("guard_at", 0.0):
        context.memory["guard_at"] = now.boot + EVERY_S
        _keep_watchdog(context, now)


def _keep_locks(context: Context, locks: Locks, now: Moment) -> None:
    if not locks.folder.is_in_place():
        message = (
            f"CRITICAL: {context.layout.state} was moved or removed under the running daemon: the trainer is asked to"
            " leave, and the daemon ends. Start it again where the workspace lies now"
        )
        if context.tell("moved", message, kind="daemon.moved", level="error", at=now.unix):
            context.is_lost = True
            context.signals = max(context.signals, 1)
        return
    if not locks.file.is_intact():
        locks.file.release()
        if locks.file.acquire(holder=holder(context.started_at)):
            message = f"{context.layout.daemon_lock.name} was deleted under the running daemon; it is made again"
            context.record(message, kind="daemon.lock_deleted", level="error", at=now.unix)


def _keep_watchdog(context: Context, now: Moment) -> None:
    child = context.helpers.get("watchdog")
    if child is not None and child.poll() is not None:
        del context.helpers["watchdog"]
    seen = files.lock_holder(context.layout.watchdog_lock)
    context.memory["watchdog_pid"] = seen.get("pid") if seen is not None else None
    if seen is not None or not context.wishes.up or context.signals or context.wishes.down:
        context.forget("watchdog")
        return
    if "watchdog" in context.helpers:
        return  # it is just starting
    try:
        context.helpers["watchdog"] = guards.start_watchdog_process(context.layout)
        context.record("the watchdog was gone and is started again", kind="watchdog.started", at=now.unix)
    except LaunchError as error:
        context.tell("watchdog", f"the watchdog cannot be started: {error.found}", kind="watchdog.failed", at=now.unix)
