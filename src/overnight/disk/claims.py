"""Claims: files taken and not yet judged; nobody's any more but ours.

::

    .overnight/claimed/<time>-<priority>-<token>/<the file under its own name>
    .overnight/claimed/.new-<token>/                  being made: empty, or holding a copy that is not complete

The folder's name is the claim's id, and all there is to know of it: names in order are the order of arrival. Whoever
works on a claim holds a kernel lock on its folder. An empty claim means that its file has been moved on, or never came.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from overnight.disk import files
from overnight.disk.folder_lock import lock_folder
from overnight.disk.layout import Layout
from overnight.domain.errors import DiskError
from overnight.domain.job import Priority
from overnight.domain.names import safe_name

_NEW = ".new-"
_newest: dict[Path, int] = {}
"""The newest stamp that this process knows of each folder of claims."""

_durable: dict[Path, set[str]] = {}
"""Claims whose way out of the inbox this process has synced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claimed file, as found."""

    id: str
    folder: Path
    file: Path | None  # None: moved on, or never came
    priority: Priority

    @property
    def name(self) -> str:
        """The file's name, safe to show."""
        return safe_name(self.file.name) if self.file is not None else ""


def claim_by_rename(layout: Layout, path: Path, *, at: float, priority: Priority = Priority.NORMAL) -> str:
    """Take a file out of the inbox; return the claim. A crash leaves it in the inbox or in the claim, nowhere else.

    Raises FileNotFoundError where it vanished, OSError and DiskError where it cannot be moved; it stays then.
    """
    with _new_folder(layout) as folder:
        claim = _publish(layout, folder, at, priority)
        try:
            files.rename(path, claim / path.name)
        except OSError as error:
            with contextlib.suppress(OSError):
                files.remove_empty_folder(claim)
            if files.is_disk_trouble(error):
                raise files.disk_error(error, claim) from error
            raise
    return claim.name


def claim_by_copy(layout: Layout, source: Path, *, at: float, priority: Priority) -> str:
    """Copy a file into a claim of its own; return the claim. It is there as a whole or not at all.

    Raises OSError where the source cannot be read (EINVAL: no regular file), DiskError where nothing can be written.
    """
    with files.open_regular(source, follow_links=True), _new_folder(layout) as folder:
        files.copy_durably(source, folder / source.name)
        claim = _publish(layout, folder, at, priority)
        files.sync_directory(layout.claimed)
    return claim.name


@contextmanager
def _new_folder(layout: Layout) -> Iterator[Path]:
    """Make a folder that is ours alone as long as this lasts, under whatever name."""
    folder = layout.claimed / f"{_NEW}{secrets.token_hex(6)}"
    try:
        folder.mkdir()
    except OSError as error:
        raise files.disk_error(error, folder) from error
    with lock_folder(folder) as is_ours:
        assert is_ours, "nobody else knows the name yet"
        try:
            yield folder
        finally:
            if folder.exists():  # it was not published
                files.remove_tree(folder, inside=layout.claimed)


def _publish(layout: Layout, folder: Path, at: float, priority: Priority) -> Path:
    """Give a folder its final name: later than all that wait, also where the clock went back."""
    before = _newest.get(layout.claimed)
    if before is None:  # listed once: ten thousand claims must not be listed ten thousand times
        before = max((_stamp(name) for name in pending(layout)), default=0)
    stamp = _newest[layout.claimed] = max(int(at * 1_000_000), before + 1)
    claim = layout.claimed / f"{stamp:020d}-{priority.value}-{secrets.token_hex(4)}"
    files.rename(folder, claim)
    return claim


def _stamp(name: str) -> int:
    digits = name.partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else 0


def pending(layout: Layout) -> list[str]:
    """Return the claims that are not finished, in order of arrival."""
    try:
        return sorted(name for name in os.listdir(layout.claimed) if not name.startswith("."))
    except FileNotFoundError:
        return []


def find(layout: Layout, claim: str) -> Claim:
    """Return what a claim holds. Raises OSError where it is gone."""
    folder = layout.claimed / claim
    names = sorted(
        entry.name for entry in os.scandir(folder) if stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode)
    )
    middle = claim.split("-")[1] if claim.count("-") >= 2 else ""
    priority = Priority(middle) if middle in Priority.__members__.values() else Priority.NORMAL
    return Claim(id=claim, folder=folder, file=folder / names[0] if names else None, priority=priority)


def make_durable(layout: Layout, claim: Claim) -> None:
    """Make sure that the claim survives a power cut, before anything is decided on it."""
    files.sync_directory(claim.folder)
    durable = _durable.setdefault(layout.claimed, set())
    if claim.id not in durable:  # both folders once for all that wait: there may be thousands
        waiting = pending(layout)
        files.sync_directory(layout.claimed)
        files.sync_directory(layout.inbox)
        durable.clear()
        durable.update(waiting)


def finish(layout: Layout, claim: Claim) -> None:
    """Remove a claim whose file has been moved on. Raises DiskError where a file is still in it."""
    try:
        files.remove_empty_folder(claim.folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DiskError(
            f"Cannot finish the claim {claim.id}",
            found=error.strerror,
            expected="an empty folder",
            fix=f"move what lies in {claim.folder} back into the inbox",
        ) from error


def remove_leftovers(layout: Layout) -> list[str]:
    """Remove what a crash left of claims in the making: empty folders, and copies whose origin is where it was."""
    removed: list[str] = []
    for folder in layout.claimed.glob(f"{_NEW}*"):
        with lock_folder(folder) as is_ours:
            if is_ours:
                files.remove_tree(folder, inside=layout.claimed)
                removed.append(folder.name)
    return removed
