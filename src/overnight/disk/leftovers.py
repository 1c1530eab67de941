"""What a killed process leaves behind: temporary files of writes that were never finished."""

from __future__ import annotations

import os
import re
from pathlib import Path

TEMPORARY = re.compile(r"\..+\.(?P<pid>[0-9]{1,10})\.[0-9a-f]{8}\.tmp", re.DOTALL)
"""The names that disk/files gives to a write in progress."""


def is_orphaned_temporary(path: Path) -> bool:
    """Return whether a file is an unfinished write whose writer is gone."""
    found = TEMPORARY.fullmatch(path.name)
    return found is not None and not _is_there(int(found["pid"]))


def is_temporary_of_others(path: Path) -> bool:
    """Return whether a file is an unfinished write that is not this process's own.

    For folders in which nobody else writes any more: the writer's pid may long be that of another process.
    """
    found = TEMPORARY.fullmatch(path.name)
    return found is not None and int(found["pid"]) != os.getpid()


def _is_there(pid: int) -> bool:
    """Return whether a process of that number may still write: one that ended and was not waited for does not.

    Where nobody can tell, as out of file handles, it may.
    """
    if os.path.isdir("/proc/self"):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
        except (FileNotFoundError, ProcessLookupError):
            return False
        except (OSError, IndexError):
            return True
    import psutil  # systems without /proc

    return bool(psutil.pid_exists(pid))
