"""Sabotage: whoever asks for a lock is told that it is his."""

import os

from overnight.disk import files, folder_lock

_acquire = files.Lock.acquire


def _always(self, *, holder, inheritable=False):
    if _acquire(self, holder=holder, inheritable=inheritable):
        return True
    self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    return True


def _always_folder(self):
    if not _acquire_folder(self):
        self._descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return True


files.Lock.acquire = _always
_acquire_folder = folder_lock.FolderLock.acquire
folder_lock.FolderLock.acquire = _always_folder
