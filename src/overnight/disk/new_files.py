"""Whose a new file is: what root's tools make in somebody's workspace is given to the owner of the folder.

Else a lock or a file that an administrator's look left behind would hold up a daemon that runs as another user.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def give_to_owner(descriptor: int, folder: Path) -> None:
    """Give a file that root has just made to the owner of its folder; for anybody else this does nothing."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(OSError):  # a file system without owners
        ours, theirs = os.fstat(descriptor), os.stat(folder)
        if ours.st_uid == 0 and theirs.st_uid != 0:
            os.fchown(descriptor, theirs.st_uid, theirs.st_gid)
