"""What makes a loop the only one of its workspace."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from overnight.disk import files
from overnight.disk.folder_lock import FolderLock
from overnight.disk.layout import Layout
from overnight.domain.errors import BusyError

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
    return {"pid": os.getpid(), "host": os.uname().nodename, "since": since}


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
