"""A kernel lock on a folder itself: it holds as long as its holder lives, whatever becomes of the files in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from overnight.disk import files


class FolderLock:
    """An exclusive flock on an open directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock without waiting; return whether it is ours. Raises DiskError where locks do not work."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not files.try_lock(descriptor):
                os.close(descriptor)
                return False
        except OSError as error:
            os.close(descriptor)
            raise files.no_locks(error, self.folder) from error
        self._descriptor = descriptor
        return True

    def is_in_place(self) -> bool:
        """Return whether the locked folder still has its name (somebody may have moved or removed it)."""
        return self._descriptor is not None and _is_at(self._descriptor, self.folder)

    def is_unmounted(self) -> bool:
        """Return whether the folder is whole and nowhere to be found: its file system is no longer mounted."""
        if self._descriptor is None or os.fstat(self._descriptor).st_nlink == 0:
            return False
        try:
            path = os.readlink(f"/proc/self/fd/{self._descriptor}")
        except OSError:
            return False
        return not _is_at(self._descriptor, Path(path))

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_locked(folder: Path) -> bool:
    """Return whether somebody holds the lock of a folder. Raises DiskError where locks do not work."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        raise files.no_locks(error, folder) from error
    finally:
        os.close(descriptor)
    return False


@contextmanager
def lock_folder(path: Path) -> Iterator[bool]:
    """Hold a kernel lock on a folder itself; yield whether it is ours. False too where the folder is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield _is_at(descriptor, path)
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, folder: Path) -> bool:
    ours = os.fstat(descriptor)
    try:
        theirs = os.stat(folder)
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)
