"""The checkpoints of a job that the gate keeps aside, moved whole and back.

::

    .overnight/candidates/<attempt>/checkpoint-<global step>/    as they were in current_model/
                                    candidate.json               what this is and why it lies here; written last

The checkpoint of the last step decides where the model stands: it leaves last, and it comes back first. So there is one
rename at which the model changes, and each of the others may be done again after a crash.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from overnight.disk import checkpoints, files
from overnight.disk.layout import Layout
from overnight.disk.manifest import MANIFEST, read_manifest
from overnight.domain.attempt import attempt_id
from overnight.domain.checkpoint import checkpoint_name, step_of

SCHEMA = 1
NOTE = "candidate.json"


def folder_of(layout: Layout, job: int, attempts: int) -> Path:
    """Return where the checkpoints of a job's last attempt lie while it is kept aside."""
    return layout.candidates / attempt_id(job, attempts)


def digest_of(layout: Layout, step: int) -> str:
    """Return the hash of a checkpoint's manifest, "" where it is not there: what the model stands on."""
    try:
        return files.blake3_of(layout.checkpoint(step) / MANIFEST)
    except OSError:
        return ""


def move_aside(layout: Layout, folder: Path, *, job: int, start_step: int, note: dict[str, Any]) -> None:
    """Move a job's checkpoints out of the model, the last one last. Raises DiskError; the next call goes on."""
    try:
        files.make_directory(folder)
        for step in sorted(_steps(layout.model)):
            if step > start_step and _is_of(layout.checkpoint(step), job):
                files.rename_durably(layout.checkpoint(step), folder / checkpoint_name(step))
        files.write_json_durably(folder / NOTE, {"schema": SCHEMA, **note})
    except OSError as error:
        raise files.disk_error(error, folder) from error


def move_back(layout: Layout, folder: Path) -> None:
    """Move a job's checkpoints into the model, the last one first. Raises DiskError; the next call goes on."""
    try:
        for step in sorted(_steps(folder), reverse=True):
            target = layout.checkpoint(step)
            if os.path.lexists(target):
                checkpoints.set_aside(target, layout.trash)
            files.rename_durably(folder / checkpoint_name(step), target)
        if folder.is_dir():
            files.remove_tree(folder, inside=layout.candidates)
    except OSError as error:
        raise files.disk_error(error, folder) from error


def drop(layout: Layout, job: int, *, but: Path | None = None) -> list[Path]:
    """Move what lies aside of a job into the trash, whole; return where it rests. Raises DiskError."""
    found = sorted(layout.candidates.glob(f"{job:06d}-*")) if layout.candidates.is_dir() else []
    return [checkpoints.set_aside(folder, layout.trash) for folder in found if folder != but]


def jobs(layout: Layout) -> set[int]:
    """Return the jobs of which anything lies aside."""
    try:
        names = os.listdir(layout.candidates)
    except OSError:
        return set()
    return {int(job) for name in names if (job := name.partition("-")[0]).isdigit()}


def _steps(folder: Path) -> list[int]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [step for name in names if (step := step_of(name)) is not None]


def _is_of(folder: Path, job: int) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return read_manifest(folder).job == job
    return False
