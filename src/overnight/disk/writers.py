"""Whether somebody still writes a file: the kernel knows, by a read lease or by the open files of each process."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR


def is_open_for_writing(path: Path) -> bool:
    """Return whether any process has a regular file open for writing. Links are not followed; errors pass as OSError.

    A read lease is only granted where nobody writes. Where the system grants no leases (another user's file, some file
    systems), the open files of all processes that may be looked at are searched.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not hasattr(fcntl, "F_SETLEASE"):
            return False
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return True
            facts = os.fstat(descriptor)
            return _is_open_somewhere(facts.st_dev, facts.st_ino)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    finally:
        os.close(descriptor)


def _is_open_somewhere(device: int, inode: int) -> bool:
    """Search /proc for a process that has a file open for writing."""
    for process in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else []):
        try:
            for descriptor in os.listdir(f"/proc/{process}/fd"):
                facts = os.stat(f"/proc/{process}/fd/{descriptor}")
                if (facts.st_dev, facts.st_ino) == (device, inode) and _writes(process, descriptor):
                    return True
        except OSError:
            continue  # it is gone, or another user's
    return False


def _writes(process: str, descriptor: str) -> bool:
    with open(f"/proc/{process}/fdinfo/{descriptor}") as file:
        for line in file:
            if line.startswith("flags:"):
                return bool(int(line.split()[1], 8) & WRITING)
    return False
