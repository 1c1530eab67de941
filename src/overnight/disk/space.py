"""What a disk has left, in numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Space:
    """The state of the file system that holds a folder; None where it cannot be told."""

    free_bytes: int | None  # that this user may still write
    free_inodes: int | None  # None too where the file system has no fixed number of them
    is_read_only: bool


def space_of(path: Path) -> Space:
    """Return what is left on the file system of a folder."""
    try:
        facts = os.statvfs(path)
    except OSError:
        return Space(free_bytes=None, free_inodes=None, is_read_only=False)
    return Space(
        free_bytes=facts.f_bavail * facts.f_frsize,
        free_inodes=facts.f_favail if facts.f_files else None,
        is_read_only=bool(facts.f_flag & os.ST_RDONLY),
    )
