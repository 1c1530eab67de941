"""What makes a loop the only one of its workspace."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import Any

from overnight.disk import files, lease, ownership
from overnight.disk.folder_lock import FolderLock
from overnight.disk.layout import Layout
from overnight.domain.errors import DiskError
from overnight.launchers import processes
from overnight.status import holders

INTRODUCTION_S = 2.0
"""A loop that has just begun has written its name after so long."""


@dataclass(slots=True)
class Locks:
    """What makes this loop the only one: the lock on the state folder itself, and the file that names the holder.

    The file can be deleted and is then made again; the folder's lock holds all the while. The lease keeps out the
    daemons of other machines, where they share a disk that shares no locks.
    """

    folder: FolderLock
    file: files.Lock


def holder(since: float) -> dict[str, Any]:
    """Return what a lock file says of its holder."""
    return {
        "pid": os.getpid(),
        "host": os.uname().nodename,
        "since": since,
        "identity": processes.ourselves(),
    }


def take_locks(layout: Layout, *, now: float) -> Locks:
    """Become the only loop of a workspace.

    Raises BusyError that names the other one, ConfigError where its model folder is another workspace's.
    """
    locks = Locks(folder=FolderLock(layout.state), file=files.Lock(layout.daemon_lock))
    if not locks.folder.acquire() or not locks.file.acquire(holder=holder(now)):
        raise holders.held(layout, _introduced(layout))
    lease.require_ours(layout)
    ownership.claim_folders(layout)
    with contextlib.suppress(DiskError):  # a full disk: the loop tells it, and renews the lease when there is room
        lease.write(layout, since=now)
    return locks


def _introduced(layout: Layout) -> dict[str, Any]:
    """Return who holds the lock; one that began this instant is given the time to write its name."""
    deadline = time.monotonic() + INTRODUCTION_S
    while True:
        other = files.lock_holder(layout.daemon_lock)
        if (other is not None and "pid" in other) or time.monotonic() > deadline:
            return other or {}
        time.sleep(0.02)
