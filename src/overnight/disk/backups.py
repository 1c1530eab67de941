"""The second place: another disk or path that holds copies of versions and checkpoints.

::

    PATH/overnight-backup.json          whose copies these are; written first
    PATH/config.json                    the settings, as they were at the last copy
    PATH/versions/v001/                 as in models/
    PATH/checkpoints/checkpoint-400/    as in current_model/
    PATH/.copying-*/                    being written or on its way out; of no meaning after a crash

A copy is written aside, synced, read back from the disk, compared with its own manifest, and then gets its name. So
what has a name is a whole copy, and whatever became of it later is found by reading it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from overnight.disk import checkpoints, files, run_identity, versions
from overnight.disk.layout import Layout
from overnight.disk.manifest import MANIFEST, read_manifest
from overnight.disk.reading import blake3_of_text
from overnight.domain.backup import Copy, Kind, kind_of
from overnight.domain.checkpoint import FileRecord, Verdict
from overnight.domain.errors import DiskError, FailedError
from overnight.domain.version import VersionState

SCHEMA = 1
WHAT = "overnight backup"
MARKER = "overnight-backup.json"
STAGING = ".copying-"
SPARE_BYTES = 32 << 20
"""What must stay free beside a copy."""

_FOLDERS = {Kind.VERSION: "versions", Kind.CHECKPOINT: "checkpoints"}


def folder_of(place: Path, name: str) -> Path:
    """Return where the copy of a version or checkpoint lies. Raises ValueError where the name is none of one."""
    kind = kind_of(name)
    if kind is None:
        raise ValueError(f"{name} names neither a version nor a checkpoint")
    return place / _FOLDERS[kind] / name


def source_of(layout: Layout, name: str) -> Path:
    """Return where the original of a copy lies."""
    return layout.versions / name if kind_of(name) is Kind.VERSION else layout.model / name


def read_marker(place: Path) -> dict[str, Any] | None:
    """Return what the place says of itself, or None where it says nothing. Errors of the disk pass as OSError."""
    try:
        value = files.read_json(place / MARKER)
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) and value.get("what") == WHAT and value.get("schema") == SCHEMA else None


def open_place(layout: Layout, place: Path, *, known: str | None, model_name: str, now: float) -> str:
    """Make sure that copies may be put there; return the token of the place.

    ``known`` is the token that it had when it was used last: without it the disk is not mounted. Raises DiskError where
    it cannot be used now, FailedError where it is somebody else's.
    """
    if not place.is_dir():
        raise DiskError(
            f"The second place {place} is not there",
            found="no such folder: its disk is not mounted, or it was never made",
            expected="a folder on another disk",
            fix=f"mount the disk, or mkdir -p {place}; copies are made by themselves then",
            code="ENOENT",
        )
    if place == layout.root or layout.root in place.resolve().parents:
        raise FailedError(
            "The second place lies inside the workspace",
            found=str(place),
            expected="a folder elsewhere, best on another disk",
            fix="overnight config set backup.path /another/disk/folder",
            code="inside",
        )
    try:
        marker = read_marker(place)
    except OSError as error:
        raise files.disk_error(error, place / MARKER) from error
    if marker is None:
        return _mark(layout, place, known=known, model_name=model_name, now=now)
    ours, theirs = run_identity.read(layout.model), str(marker.get("run", ""))
    if ours and not theirs:
        files.write_json_durably(place / MARKER, {**marker, "run": ours})
    elif ours and ours != theirs:
        raise FailedError(
            "The second place holds the copies of another model",
            found=f"{place}: model '{marker.get('model_name')}' of {marker.get('workspace')}",
            expected="a folder of this model's own",
            fix="overnight config set backup.path to another folder",
            code="foreign",
        )
    return str(marker["token"])


def _mark(layout: Layout, place: Path, *, known: str | None, model_name: str, now: float) -> str:
    if known is not None:
        raise DiskError(
            f"The second place {place} is not the one that was used",
            found=f"{MARKER} is not there: its disk is not mounted, or it was emptied",
            expected="the folder that holds the copies",
            fix="mount the disk; where it was emptied on purpose, give another folder with"
            " overnight config set backup.path",
            code="ENOENT",
        )
    token = files.token()
    value = {
        "schema": SCHEMA, "what": WHAT, "token": token, "run": run_identity.read(layout.model) or "",
        "model_name": model_name, "workspace": str(layout.root), "since": now,
    }  # fmt: skip
    files.write_json_durably(place / MARKER, value)
    return token


def names_in(place: Path) -> list[str]:
    """Return the names of all copies; what has another name is not ours. Errors of the disk pass as OSError."""
    found: list[str] = []
    for kind, folder in _FOLDERS.items():
        with contextlib.suppress(FileNotFoundError):
            found += [name for name in sorted(os.listdir(place / folder)) if kind_of(name) is kind]
    return found


def judge(folder: Path, *, verify_content: bool) -> Copy:
    """Judge one copy; it is verified only where its content was read."""
    kind = kind_of(folder.name)
    assert kind is not None
    if kind is Kind.VERSION:
        version = versions.verify(folder) if verify_content else versions.judge_by_looks(folder)
        made_at = version.version.created_at if version.version is not None else 0.0
        is_good, reason, size = version.state is VersionState.OK, version.reason, version.bytes
    else:
        report = checkpoints.verify(folder) if verify_content else checkpoints.judge_by_looks(folder)
        made_at = report.manifest.created_at if report.manifest is not None else 0.0
        is_good, reason, size = report.verdict is Verdict.VERIFIED, report.reason, report.bytes
    return Copy(
        kind=kind, name=folder.name, path=str(folder), made_at=made_at, bytes=size,
        is_verified=is_good and verify_content, reason=reason,
    )  # fmt: skip


def looks_of(folder: Path) -> str:
    """Return what the kernel says of each file of a copy without reading it, as one short text."""
    parts = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            with contextlib.suppress(OSError):
                facts = os.lstat(path)
                numbers = (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
                parts.append(f"{os.path.relpath(path, folder)}:{':'.join(map(str, numbers))}")
    return blake3_of_text("\n".join(parts))


def records_of(folder: Path) -> dict[str, FileRecord]:
    """Return the files that a version or checkpoint consists of. Raises OSError, or ValueError for a bad manifest."""
    return versions.read(folder).files if kind_of(folder.name) is Kind.VERSION else read_manifest(folder).files


def copy_aside(source: Path, staging: Path) -> Copy:
    """Copy a version or checkpoint into a folder of its own, read it back there, and return the whole copy.

    Only the files of its manifest are copied. Raises DiskError where the disk refuses, FailedError where what came out
    is not what the manifest says (a damaged original, or one that was removed meanwhile).
    """
    target = staging / source.name
    try:
        records = records_of(source)
        needed = sum(record.bytes for record in records.values())
        _require_room(staging, needed)
        for name in [*sorted(records), MANIFEST]:
            files.make_directory((target / name).parent)
            _copy_file(source / name, target / name)
        for parent, _, _ in os.walk(target, topdown=False):
            files.sync_directory(Path(parent))
    except (FileNotFoundError, ValueError) as error:
        raise unusable(source, str(error)) from error
    except OSError as error:
        raise files.disk_error(error, target) from error
    for name in records:
        _forget_cached(target / name)
    copy = judge(target, verify_content=True)
    if not copy.is_verified:
        raise unusable(source, copy.reason)
    return copy


def _copy_file(source: Path, target: Path) -> None:
    with files.open_regular(source, follow_links=False) as reader, files.open_new(target) as writer:
        while block := reader.read(files.CHUNK_BYTES):
            writer.write(block)


def _forget_cached(path: Path) -> None:
    """Ask the kernel to drop a synced file from memory, so that the next reading asks the disk."""
    with contextlib.suppress(OSError, AttributeError):  # a hint, and not every system has it
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _require_room(folder: Path, needed: int) -> None:
    free = files.free_bytes(folder)
    if free < needed + SPARE_BYTES:
        raise DiskError(
            f"There is no room for a copy on the disk of {folder.parent}",
            found=f"{free / 1e9:.2f} GB free",
            expected=f"{(needed + SPARE_BYTES) / 1e9:.2f} GB",
            fix="free space there; it is tried again by itself",
            code=errno.errorcode[errno.ENOSPC],
        )


def unusable(source: Path, found: str) -> FailedError:
    """Return the refusal of an original that is not whole, or did not come out whole."""
    return FailedError(
        f"{source.name} cannot be copied",
        found=found,
        expected="every file as its manifest says, in the original and in the copy",
        fix="overnight verify and overnight versions verify tell what is damaged; a whole one is copied by itself",
        code="not_whole",
    )


def is_same(source: Path, copy: Path) -> bool:
    """Return whether two folders have the very same manifest, which names every file with its hash."""
    try:
        return (source / MANIFEST).read_bytes() == (copy / MANIFEST).read_bytes()
    except OSError:
        return False


def make_staging(place: Path) -> Path:
    """Make the hidden folder in which a copy is made. Raises DiskError."""
    staging = place / f"{STAGING}{files.token()}"
    files.make_directory(staging)
    return staging


def store(layout: Layout, place: Path, name: str) -> Copy:
    """Put a copy of a version or checkpoint into the second place, all or nothing; a damaged one is replaced.

    Raises DiskError, FailedError; nothing but a hidden folder can stay behind then.
    """
    final = folder_of(place, name)
    files.make_directory(final.parent)
    staging = make_staging(place)
    try:
        copy = copy_aside(source_of(layout, name), staging)
        try:
            if os.path.lexists(final):
                files.rename(final, staging / "damaged")
            files.rename_durably(Path(copy.path), final)
        except OSError as error:
            raise files.disk_error(error, final) from error
    finally:
        with contextlib.suppress(OSError):
            files.remove_tree(staging, inside=place)
    return replace(copy, path=str(final))


def remove(place: Path, name: str) -> None:
    """Remove one copy: it leaves its name first, so that under its name it is whole until it is gone."""
    folder = folder_of(place, name)
    staging = make_staging(place)
    try:
        files.rename_durably(folder, staging / name)
        files.remove_tree(staging, inside=place)
    except OSError as error:
        raise files.disk_error(error, folder) from error


def remove_staging(place: Path) -> list[str]:
    """Remove what killed copies and removals left behind; return the names. Only where no other process copies."""
    removed: list[str] = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(place)):
            if name.startswith(STAGING):
                files.remove_tree(place / name, inside=place)
                removed.append(name)
    return removed


def listing(place: Path, *, names: Iterable[str] | None = None, verify_content: bool) -> list[Copy]:
    """Judge the copies of a place. Errors of the disk pass as OSError."""
    return [judge(folder_of(place, name), verify_content=verify_content) for name in (names or names_in(place))]
