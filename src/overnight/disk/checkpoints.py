"""Checkpoints on disk: committed with the manifest last, judged by reading them, never trusted by their name.

A commit is: hash and fsync each file, write ``manifest.json``, fsync the folder, rename it to its final name, fsync the
parent. So a folder whose name is final is complete, and whatever was torn before keeps another name. The manifest
carries a hash of itself: an edited one is found like an edited file. Links and special files are never opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from overnight.disk import files, run_identity, sealed
from overnight.disk.manifest import read_manifest as read_manifest
from overnight.disk.manifest import write_manifest
from overnight.domain.checkpoint import CheckpointReport, Manifest, Verdict, step_of

TRAINER_STATE = "trainer_state.json"
SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What this process lacks says nothing of the checkpoint: whoever asks fails, and asks again."""

REFUSED = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.ENXIO, errno.ENODEV}
)
"""What a disk that fails, or is away for a moment, says of a file that may well be whole."""

NO_STEP = -1
"""The step of a report on something that is no checkpoint."""


def commit(staging: Path, target: Path, manifest: Manifest) -> Manifest:
    """Make ``staging`` the checkpoint ``target``, all or nothing; return the manifest with its files.

    Raises DiskError where the disk refuses (``target`` is then not there), FileExistsError where ``target`` is there.
    """
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "a checkpoint of that name is there", str(target))
    try:
        run = run_identity.ensure(target.parent, told_by=_told_runs(target.parent))
        records = {name: sealed.record(staging / name) for name in sorted(sealed.regular_files(staging))}
        manifest = dataclasses.replace(manifest, files=records, run=run)
        write_manifest(staging, manifest)
        sealed.sync_folders(staging)
        _move_in(staging, target)
    except OSError as error:
        raise files.disk_error(error, target) from error
    return manifest


def set_aside(folder: Path, trash: Path) -> Path:
    """Move what stands in the way of a checkpoint into the trash, whole; return where it lies now. Raises DiskError."""
    files.make_directory(trash)
    resting = trash / f"{folder.name[:100]}.{secrets.token_hex(4)}"
    try:
        files.rename_durably(folder, resting)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise files.disk_error(error, resting) from error
        resting = folder.with_name(f".{resting.name}")  # the trash is on another file system: hide it where it is
        try:
            files.rename_durably(folder, resting)
        except OSError as second:
            raise files.disk_error(second, resting) from second
    return resting


def verify(folder: Path) -> CheckpointReport:
    """Judge one folder of the model directory by reading every byte of it."""
    return _judge(folder, verify_content=True)


def judge_by_looks(folder: Path) -> CheckpointReport:
    """Judge one folder by its name, manifest and sizes; its content is not read, and the reason says so."""
    return _judge(folder, verify_content=False)


def scan(model: Path, *, verify_content: bool) -> list[CheckpointReport]:
    """Judge everything in the model directory, newest step first, then what is no checkpoint, by name.

    Without ``verify_content`` only names, manifests and sizes are looked at, and the reason says so.
    """
    ours = [_judge(folder, verify_content=verify_content) for _, folder in _numbered(model)]
    return ours + [_foreign(path) for path in _others(model)]


def newest_complete(model: Path) -> CheckpointReport | None:
    """Return the newest checkpoint whose name, manifest and sizes fit together; its content is not read."""
    for _, folder in _numbered(model):
        report = _judge(folder, verify_content=False)
        if report.verdict is Verdict.VERIFIED:
            return report
    return None


def newest_verified(model: Path) -> tuple[CheckpointReport | None, list[CheckpointReport]]:
    """Return the newest checkpoint that is whole, and the newer ones passed over, each with its reason."""
    passed_over: list[CheckpointReport] = []
    for _, folder in _numbered(model):
        report = verify(folder)
        if report.verdict is Verdict.VERIFIED:
            return report, passed_over
        passed_over.append(report)
    return None, passed_over


def _numbered(model: Path) -> list[tuple[int, Path]]:
    """Return what has a checkpoint's name, the highest step first."""
    found = [(step, path) for path in _entries(model) if (step := step_of(path.name)) is not None]
    return sorted(found, reverse=True)


def _others(model: Path) -> list[Path]:
    return [path for path in _entries(model) if step_of(path.name) is None]


def _entries(model: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(model))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [model / name for name in names if not name.startswith(".")]


def _foreign(path: Path) -> CheckpointReport:
    return _report(path, Verdict.FOREIGN, "not named checkpoint-STEP")


def _judge(folder: Path, *, verify_content: bool) -> CheckpointReport:
    try:
        return _judge_folder(folder, verify_content=verify_content)
    except FileNotFoundError as error:  # it went away, or a part of it did, while we looked
        return _report(folder, Verdict.INCOMPLETE, f"{_shown(error.filename, folder)} is missing")
    except OSError as error:
        if error.errno in SCARCE:
            raise
        reason = f"{_shown(error.filename, folder)} cannot be read: {error.strerror or error}"
        report = _report(folder, Verdict.CORRUPT, reason)
        return dataclasses.replace(report, is_unreadable=error.errno in REFUSED)


def _judge_folder(folder: Path, *, verify_content: bool) -> CheckpointReport:
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        return _report(folder, Verdict.FOREIGN, "not a folder of its own (a file or a link)")
    if step_of(folder.name) is None:
        return _foreign(folder)
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return _report(
            folder, Verdict.INCOMPLETE, "it has no manifest: it was never committed, or the manifest is gone"
        )
    except ValueError as error:
        return _report(folder, Verdict.CORRUPT, f"the manifest cannot be trusted: {error}")
    if manifest.step != step_of(folder.name):
        reason = f"the folder's name says step {step_of(folder.name)}, the manifest says step {manifest.step}"
        return _report(folder, Verdict.CORRUPT, reason, manifest)
    run = run_identity.read(folder.parent)
    if manifest.run and run is not None and manifest.run != run:
        reason = f"it belongs to another model's history (run {manifest.run[:8]}, this one is {run[:8]})"
        return _report(folder, Verdict.FOREIGN, reason, manifest)
    problem = sealed.first_problem(folder, manifest.files, verify_content=verify_content)
    if problem is not None:
        return _report(folder, *problem, manifest)
    if verify_content and (told := _told_step(folder, manifest)) not in (None, manifest.job_step):
        reason = f"{TRAINER_STATE} says step {told} of the job, the manifest says step {manifest.job_step}"
        return _report(folder, Verdict.CORRUPT, reason, manifest)
    return _report(folder, Verdict.VERIFIED, _praise(folder, manifest, verify_content=verify_content), manifest)


def _told_step(folder: Path, manifest: Manifest) -> int | None:
    """Return the step that Hugging Face's own state tells, None where there is none or it tells nothing."""
    if TRAINER_STATE not in manifest.files:
        return None
    try:
        step = files.read_json(folder / TRAINER_STATE)["global_step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) else None


def _told_runs(model: Path) -> Iterator[str]:
    """Yield the identities that the manifests tell, the newest first."""
    for _, folder in _numbered(model):
        with contextlib.suppress(OSError, ValueError):
            yield read_manifest(folder).run


def _praise(folder: Path, manifest: Manifest, *, verify_content: bool) -> str:
    reason = "every file is as committed" if verify_content else "complete; the content was not read"
    strangers = sorted(set(sealed.regular_files(folder)) - set(manifest.files))
    return f"{reason}; not part of it: {', '.join(strangers[:5])}" if strangers else reason


def _report(folder: Path, verdict: Verdict, reason: str, manifest: Manifest | None = None) -> CheckpointReport:
    step = step_of(folder.name)
    return CheckpointReport(
        step=NO_STEP if step is None else step,
        path=str(folder),
        verdict=verdict,
        reason=reason,
        bytes=_folder_bytes(folder),
        manifest=manifest,
    )


def _folder_bytes(folder: Path) -> int:
    total = 0
    if folder.is_symlink():
        return total
    with contextlib.suppress(OSError):  # gone while we looked
        for name in sealed.regular_files(folder, with_manifest=True):
            with contextlib.suppress(OSError):
                total += os.lstat(folder / name).st_size
    return total


def _shown(filename: Any, folder: Path) -> str:
    return os.path.relpath(filename, folder) if isinstance(filename, str) and filename != str(folder) else "the folder"


def _move_in(staging: Path, target: Path) -> None:
    """Rename into place; from another file system by a hidden copy first, so that the name stays all or nothing."""
    files.make_directory(target.parent)
    try:
        files.rename_durably(staging, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        hidden = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            for name in sealed.regular_files(staging, with_manifest=True):
                files.make_directory((hidden / name).parent)
                files.copy_durably(staging / name, hidden / name)
            sealed.sync_folders(hidden)
            files.rename_durably(hidden, target)
        except BaseException:  # half a copy would hold the room that the next try needs
            if hidden.exists():
                files.remove_tree(hidden, inside=target.parent)
            raise
        files.remove_tree(staging, inside=staging.parent)
