"""Moving a file, also to another file system: there it appears as a whole, and only then the source goes."""

from __future__ import annotations

import errno
from pathlib import Path

from overnight.disk import files


def move(source: Path, target: Path) -> None:
    """Move a file. Raises OSError, and DiskError where a copy does not fit; the source then stays.

    Killed in between, a move to another file system leaves the file in both places, whole.
    """
    try:
        files.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        files.copy_durably(source, target)
        files.remove_file(source)


def move_durably(source: Path, target: Path) -> None:
    """Move a file as ``move`` does; afterwards both directories are synced."""
    move(source, target)
    files.sync_directory(target.parent)
    if source.parent != target.parent:
        files.sync_directory(source.parent)
