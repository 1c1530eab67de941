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


def _is_there(pid: int) -> bool:
    if os.path.isdir("/proc/self"):
        return os.path.exists(f"/proc/{pid}")
    import psutil  # systems without /proc

    return bool(psutil.pid_exists(pid))
