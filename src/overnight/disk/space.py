"""What a disk has left, in numbers."""

from __future__ import annotations

import os
from pathlib import Path

from overnight.domain.room import Space


def space_of(path: Path) -> Space:
    """Return what is left on the file system of a folder."""
    try:
        facts = os.statvfs(path)
    except OSError:
        return Space(free_bytes=None, free_inodes=None, is_read_only=False)
    return Space(
        free_bytes=facts.f_bavail * facts.f_frsize if facts.f_blocks else None,  # some file systems count nothing
        free_inodes=facts.f_favail if facts.f_files else None,
        is_read_only=bool(facts.f_flag & os.ST_RDONLY),
    )
