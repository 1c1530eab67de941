"""The only raw file calls: durable writes, digests, kernel locks, guarded removal.

A durable write is: write to a temporary name, fsync, rename, fsync the directory. Until the rename, the old file stays.
What only some callers need is imported where it is used: the watchdog writes files too, and is to stay small.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from overnight.disk.new_files import give_to_owner
from overnight.disk.reading import blake3_of as blake3_of
from overnight.disk.reading import open_regular as open_regular
from overnight.disk.reading import read_bytes as read_bytes
from overnight.disk.reading import read_json as read_json
from overnight.disk.reading import sha256_of as sha256_of
from overnight.domain.errors import BusyError, DiskError

CHUNK_BYTES = 1 << 20
ASIDE = ".in-the-way-"
"""A part of the names under which lies what was found in the place of a file of ours."""

PROBE_S = 0.1
"""Longer than a reader that asks who holds a lock keeps it."""

_DISK_ERRNOS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk reported an input/output error",
    errno.EFBIG: "the file size limit is reached",
}


def disk_error(error: OSError, path: Path | str) -> DiskError:
    """Return the user's words for a failed write."""
    why = _DISK_ERRNOS.get(error.errno or 0, error.strerror or str(error))
    if error.errno == errno.ENOSPC and not _has_free_inodes(path):
        why = "the file system is out of inodes"
    return DiskError(
        f"Cannot write {path}",
        found=why,
        expected="a file system that takes writes",
        fix="free space or make it writable; work goes on by itself then",
        code=errno.errorcode.get(error.errno or 0),
    )


def is_disk_trouble(error: OSError) -> bool:
    """Return whether the disk, and not the caller, is at fault."""
    return error.errno in _DISK_ERRNOS


def _has_free_inodes(path: Path | str) -> bool:
    folder = Path(path)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        facts = os.statvfs(folder)
    except OSError:
        return True
    return facts.f_files == 0 or facts.f_favail > 0


def token() -> str:
    """Return eight signs that no other temporary name has."""
    return os.urandom(4).hex()


def write_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data``; after return it survives a power cut. Raises DiskError; the old file then stays."""
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.{token()}.tmp")
    try:
        _write_new(temporary, data, mode=mode, sync=True)
        _replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        _remove_quietly(temporary)
        raise disk_error(error, path) from error


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data`` without fsync: never torn for a reader, may be the older one after a power cut."""
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.{token()}.tmp")
    try:
        _write_new(temporary, data, mode=mode, sync=False)
        _replace(temporary, path)
    except OSError as error:
        _remove_quietly(temporary)
        raise disk_error(error, path) from error


def _replace(temporary: Path, path: Path) -> None:
    """Rename over a file of ours; a folder that somebody put in its place makes way."""
    try:
        os.replace(temporary, path)
    except IsADirectoryError:
        make_way(path)
        os.replace(temporary, path)


def make_way(path: Path) -> Path | None:
    """Move what is no file (a folder, a FIFO) out of the place of a file of ours, whole; return where it lies now.

    None where nothing is in the way. Errors pass as OSError.
    """
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return None
    except FileNotFoundError:
        if not os.path.lexists(path):
            return None  # nothing there; a link that leads nowhere is in the way too
    aside = path.with_name(f"{path.name[:100]}{ASIDE}{token()}")
    os.rename(path, aside)
    return aside


def _write_new(path: Path, data: bytes, *, mode: int, sync: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        give_to_owner(descriptor, path.parent)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_quietly(path: Path) -> None:
    with contextlib.suppress(OSError):  # the error that led here is the one to tell
        path.unlink(missing_ok=True)


def write_json_durably(path: Path, value: Any) -> None:
    """Write JSON durably, indented, with a final newline."""
    write_durably(path, json_bytes(value))


def write_json_atomically(path: Path, value: Any) -> None:
    """Write JSON so that no reader ever sees half of it."""
    write_atomically(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return JSON as our files hold it."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "surrogateescape")


def append_line(path: Path, line: str) -> None:
    """Append one line in one write, so that two writers never mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    try:
        os.write(descriptor, (line + "\n").encode("utf-8", "backslashreplace"))
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make a file's bytes survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_durably(source: Path, target: Path) -> None:
    """Rename inside one file system; afterwards both directories are synced."""
    os.rename(source, target)
    sync_directory(target.parent)
    if source.parent != target.parent:
        sync_directory(source.parent)


def rename(source: Path, target: Path) -> None:
    """Rename inside one file system; whoever needs it to survive a power cut syncs the directories."""
    os.rename(source, target)


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file's bytes to a new name that appears complete or not at all. Raises DiskError."""
    temporary = target.with_name(f".{target.name[:100]}.{os.getpid()}.{token()}.tmp")
    try:
        import shutil

        with open(source, "rb") as reader, open(temporary, "xb") as writer:
            shutil.copyfileobj(reader, writer, CHUNK_BYTES)
            writer.flush()
            os.fsync(writer.fileno())
        os.replace(temporary, target)
        sync_directory(target.parent)
    except OSError as error:
        _remove_quietly(temporary)
        raise disk_error(error, target) from error


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name that takes no space, or a synced copy where hard links do not work.

    Only for files that nobody writes in place. Errors pass as OSError.
    """
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        import shutil

        with open(source, "rb") as reader, open_new(target) as writer:
            shutil.copyfileobj(reader, writer, CHUNK_BYTES)


@contextmanager
def open_new(path: Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """Open a file that must not be there for writing; synced on leaving. Errors pass as OSError."""
    with open(path, "xb") as writer:
        yield writer
        writer.flush()
        if sync:
            os.fsync(writer.fileno())


def make_directory(path: Path) -> None:
    """Make a directory and its parents; no error where it is there. Raises DiskError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, path) from error


def remove_file(path: Path) -> None:
    """Remove a file or a link itself; no error where it is gone."""
    path.unlink(missing_ok=True)


def remove_empty_folder(path: Path) -> None:
    """Remove a folder in which nothing lies. Errors pass as OSError."""
    path.rmdir()


def remove_tree(path: Path, *, inside: Path) -> None:
    """Remove a directory that lies inside another one; links are removed, never followed."""
    resolved, border = path.parent.resolve() / path.name, inside.resolve()
    if border not in resolved.parents:
        raise ValueError(f"{resolved} is not inside {border}")
    if path.is_symlink() or not stat.S_ISDIR(os.lstat(path).st_mode):
        path.unlink()
        return
    import shutil

    shutil.rmtree(path)


def free_bytes(path: Path) -> int:
    """Return the bytes that this user may still write on the file system of ``path``."""
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize


class Lock:
    """A kernel lock (flock) on an open file: it dies with its holder and can never be stale.

    The text in the file only names the holder for people. The file is never removed, so that two processes can never
    hold locks on two files of one name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, *, holder: dict[str, Any], inheritable: bool = False) -> bool:
        """Take the lock without waiting; return whether it is ours. Raises DiskError where locks do not work."""
        descriptor = self._open()
        try:
            if not try_lock(descriptor):
                os.close(descriptor)
                return False
        except OSError as error:
            os.close(descriptor)
            raise no_locks(error, self.path) from error
        if not _is_same_file(descriptor, self.path):  # it was replaced between open and lock
            os.close(descriptor)
            return self.acquire(holder=holder, inheritable=inheritable)
        give_to_owner(descriptor, self.path.parent)
        with contextlib.suppress(OSError):  # a full disk takes no text; the lock is held all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json_bytes(holder), 0)
        os.set_inheritable(descriptor, inheritable)
        self._descriptor = descriptor
        return True

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            return os.open(self.path, flags, 0o644)
        except IsADirectoryError:
            make_way(self.path)
            return os.open(self.path, flags, 0o644)
        except PermissionError as error:  # another user made it
            raise disk_error(error, self.path) from error

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def is_intact(self) -> bool:
        """Return whether our lock is still on the file of that name (somebody may have deleted it)."""
        return self._descriptor is not None and _is_same_file(self._descriptor, self.path)


def no_locks(error: OSError, path: Path) -> DiskError:
    """Return the user's words for a file system on which the kernel locks nothing: nothing is safe there."""
    return DiskError(
        f"Cannot lock {path}",
        found=error.strerror or str(error),
        expected="a file system with kernel locks (flock): without them two daemons could train one model",
        fix="move the workspace to a local disk, or mount the share with locks (NFS: without nolock)",
        code="no_locks",
    )


def try_lock(descriptor: int) -> bool:
    """Lock without waiting for a holder; but whoever asks lock_holder holds it for an instant, and is outwaited."""
    deadline = time.monotonic() + PROBE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        time.sleep(PROBE_S / 20)


def _is_same_file(descriptor: int, path: Path) -> bool:
    ours = os.fstat(descriptor)
    try:
        theirs = os.stat(path)
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def lock_holder(path: Path) -> dict[str, Any] | None:
    """Return what the holder of a lock says of itself, or None where nobody holds it. Takes no lock for long.

    Raises DiskError where locks do not work.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                told = json.loads(os.pread(descriptor, 65536, 0).decode("utf-8"))
            except (ValueError, OSError):  # torn, or no file at all
                told = {}
            return told if isinstance(told, dict) else {}
        except OSError as error:
            raise no_locks(error, path) from error
        return None
    finally:
        os.close(descriptor)


def require_lock(lock: Lock, *, holder: dict[str, Any], what: str) -> None:
    """Take a lock or raise BusyError that names the holder."""
    if not lock.acquire(holder=holder):
        other = lock_holder(lock.path) or {}
        raise BusyError(
            what,
            found=f"held by pid {other.get('pid', 'unknown')} on {other.get('host', 'this host')}"
            f" since {other.get('since', 'unknown')}",
            expected="nobody else at work here",
            fix="wait for it, or end it with overnight down",
        )
