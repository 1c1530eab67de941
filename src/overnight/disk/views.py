"""The folders for people: where the user's files lie while they wait, are worked on, and when it is over.

Nothing here is ever trained: what is trained was stored at intake. So whatever somebody does to these files, no run is
harmed; at the end each folder shows what was trained, and an edited file is kept beside it. Every function can be
called again after a crash: what is done already is seen and left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Any

from overnight.disk import files, moving
from overnight.disk.layout import Layout
from overnight.domain.job import Job
from overnight.domain.names import numbered_name, view_name

REPORT = ".report.json"


def into_waiting(layout: Layout, job: Job, source: Path, *, is_first: bool) -> None:
    """Move a file that has just become a job into queue/waiting/."""
    _move(source, layout.waiting / _name(job, is_first), job)


def back_into_waiting(layout: Layout, job: Job, *, is_first: bool) -> None:
    """Show a job as waiting again: interrupted, or set back in line after it had failed."""
    name = _name(job, is_first)
    _remove_report(layout.failed / name)
    source = _first_there(layout.processing / name, layout.failed / name)
    if source is not None:
        _move(source, layout.waiting / name, job)


def into_processing(layout: Layout, job: Job, *, is_first: bool) -> None:
    """Show a job as being worked on."""
    name = _name(job, is_first)
    source = _first_there(layout.waiting / name)
    if source is not None:
        _move(source, layout.processing / name, job)


def into_done(layout: Layout, job: Job, *, is_first: bool) -> Path:
    """Put the file of a trained job into done/; return where. Raises DiskError."""
    return _settle(layout, layout.done, job, is_first=is_first)


def into_failed(layout: Layout, job: Job, report: dict[str, Any], *, is_first: bool) -> Path:
    """Put the file of a job that was not trained to the end into failed/, with the reason beside it; return where."""
    path = _settle(layout, layout.failed, job, is_first=is_first)
    _write_report(path, report)
    return path


def is_on_its_way(layout: Layout, job: Job, *, is_first: bool) -> bool:
    """Return whether a job's file stands among those that wait or are worked on."""
    name = _name(job, is_first)
    return _first_there(layout.processing / name, layout.waiting / name) is not None


def into_rejected(layout: Layout, job: Job, source: Path, report: dict[str, Any], *, is_first: bool) -> Path:
    """Move a file that was refused into rejected/, with all its problems beside it; return where."""
    target = layout.rejected / _name(job, is_first)
    if not os.path.lexists(source):
        return target
    target = _free(target, job, source)
    _write_report(target, report)  # first: a file in rejected/ always has its reason
    moving.move_durably(source, target)
    return target


def _name(job: Job, is_first: bool) -> str:
    return view_name(job.file, job.id, is_first=is_first)


def _first_there(*paths: Path) -> Path | None:
    """Return the first path that is a regular file."""
    for path in paths:
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.lstat(path).st_mode):
                return path
    return None


def _move(source: Path, target: Path, job: Job) -> None:
    try:
        moving.move(source, _free(target, job, source))  # lost in a power cut, it is simply done again
    except FileNotFoundError:
        return  # somebody took it away: no run needs it
    except OSError as error:
        raise files.disk_error(error, target) from error


def _free(target: Path, job: Job, source: Path) -> Path:
    """Return the target, or the next free name where something of somebody else's is in its place."""
    count = 1
    candidate = target
    while os.path.lexists(candidate) and not _is_same(candidate, source):
        count += 1
        candidate = target.with_name(numbered_name(target.name, job.id, count))
    return candidate


def _is_same(one: Path, other: Path) -> bool:
    """Return whether two names are one file, or one is the copy that a killed move to another file system left."""
    try:
        first, second = os.lstat(one), os.lstat(other)
        if first.st_dev == second.st_dev or first.st_size != second.st_size or not stat.S_ISREG(first.st_mode):
            return os.path.samestat(first, second)
        return files.sha256_of(one) == files.sha256_of(other)
    except OSError:
        return False


def _settle(layout: Layout, folder: Path, job: Job, *, is_first: bool) -> Path:
    """Put a job's file where it ends: the user's own where it is untouched, else a fresh copy of what was trained."""
    name = _name(job, is_first)
    target = folder / name
    source = _first_there(layout.processing / name, layout.waiting / name)
    try:
        if source is None:
            if not _holds(target, job):
                target = _copy_from_store(layout, target, job)
            return target
        if _holds(source, job):
            if not _holds(target, job):  # else it is our copy, made when the file had not come out of its claim yet
                target = _free(target, job, source)
            moving.move_durably(source, target)
            return target
        edited = folder / numbered_name(name, *([job.id] if is_first else []), "edited")
        moving.move_durably(source, _free(edited, job, source))
        return target if _holds(target, job) else _copy_from_store(layout, target, job)
    except OSError as error:
        raise files.disk_error(error, target) from error


def _holds(path: Path, job: Job) -> bool:
    """Return whether a path holds the file as it was given, or the rows as they were stored."""
    try:
        with files.open_regular(path, follow_links=False):
            return files.sha256_of(path) in (job.sha256, job.dataset)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL, errno.ELOOP, errno.EACCES):
            return False
        raise


def _copy_from_store(layout: Layout, target: Path, job: Job) -> Path:
    """Write the stored rows to a path; nothing where the store has them no longer."""
    if job.dataset is None:
        return target
    rows = layout.rows(job.dataset)
    if not rows.exists():
        return target
    target = _free(target, job, target.with_name(".none"))
    files.copy_durably(rows, target)
    return target


def _write_report(path: Path, report: dict[str, Any]) -> None:
    files.write_json_durably(path.with_name(path.name + REPORT), report)


def _remove_report(path: Path) -> None:
    with contextlib.suppress(OSError):
        files.remove_file(path.with_name(path.name + REPORT))
