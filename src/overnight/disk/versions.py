"""Versions on disk: ``models/vNNN``, each an immutable model with a manifest that says what it is.

A version is made aside, in a hidden folder of ``models/``: its files, the model card, then the manifest with the hash
of each file and of itself; then everything is made read-only. It gets its name in the transition that puts it in use
(transition.py). What a manifest does not name, or names otherwise, is found by reading.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from overnight.disk import files, fingerprints, sealed
from overnight.disk.layout import Layout
from overnight.disk.manifest import digest_of, read_value, records_of, write_value
from overnight.domain.checkpoint import Verdict
from overnight.domain.version import (
    WHAT,
    Version,
    VersionReport,
    VersionState,
    model_card,
    number_of,
    unknown,
)

CARD = "README.md"
STAGING = re.compile(r"\.(v[0-9]+)\.[0-9a-f]{8}\.staging")
"""Where a version is made."""

_STATES = {Verdict.INCOMPLETE: VersionState.INCOMPLETE}


def read(folder: Path) -> Version:
    """Return a version's manifest. Raises OSError, or ValueError where it is torn, edited or something else."""
    value = read_value(folder)
    if value.get("what") != WHAT:
        raise ValueError("the manifest is not that of a version")
    records = records_of(value)
    fields = dataclasses.fields(Version)
    has_default = (dataclasses.MISSING, dataclasses.MISSING)
    needed = [one.name for one in fields if (one.default, one.default_factory) == has_default]
    missing = [name for name in needed if name not in value]
    if missing:
        raise ValueError(f"the manifest lacks {', '.join(missing)}")
    known = {one.name: value[one.name] for one in fields if one.name in value}
    return Version(**{**known, "files": records})


def digest(version: Version) -> str:
    """Return the hash of a manifest, as it stands in it."""
    return digest_of(dataclasses.asdict(version))


def listing(layout: Layout, *, in_use: str | None = None) -> list[VersionReport]:
    """Judge every version by its manifest and sizes, in order of their numbers; the content is not read.

    One that is gone and that another names as its parent, or that is in use, is listed as incomplete.
    """
    reports = [judge_by_looks(layout.versions / identity) for identity in identities(layout)]
    there = {report.id for report in reports}
    wanted = {report.version.parent for report in reports if report.version is not None} | {in_use}
    gone = [
        VersionReport(
            id=identity, path=str(layout.versions / identity), state=VersionState.INCOMPLETE,
            reason="its folder is gone", bytes=0, version=None,
        )
        for identity in wanted
        if identity is not None and identity not in there
    ]  # fmt: skip
    return sorted([*reports, *gone], key=lambda report: number_of(report.id) or 0)


def identities(layout: Layout) -> list[str]:
    """Return the ids of what lies in ``models/``, in order of their numbers."""
    try:
        names = os.listdir(layout.versions)
    except OSError:
        return []
    return sorted((name for name in names if number_of(name) is not None), key=lambda name: number_of(name) or 0)


def require(layout: Layout, identity: str) -> Path:
    """Return the folder of a version. Raises UsageError where there is none of exactly that id."""
    known = identities(layout)
    if identity not in known:
        raise unknown(identity, known)
    return layout.versions / identity


def verify(folder: Path) -> VersionReport:
    """Judge a version by reading every byte of it."""
    return _judge(folder, verify_content=True)


def judge_by_looks(folder: Path) -> VersionReport:
    """Judge a version by its manifest and sizes; the content is not read, and the reason says so."""
    return _judge(folder, verify_content=False)


def children(layout: Layout, identity: str) -> list[str]:
    """Return the versions that were made from one; of those whose manifest cannot be read nobody can tell."""
    found = []
    for other in identities(layout):
        with contextlib.suppress(OSError, ValueError):
            if read(layout.versions / other).parent == identity:
                found.append(other)
    return found


def make_staging(layout: Layout, identity: str) -> Path:
    """Make the hidden folder in which a version is made. Raises DiskError."""
    staging = layout.versions / f".{identity}.{files.token()}.staging"
    files.make_directory(staging)
    return staging


def seal(staging: Path, version: Version) -> Version:
    """Make a version of the files in its hidden folder: card, hashes, manifest last, read-only; all synced.

    Raises DiskError where the disk refuses.
    """
    try:
        own = {"base_model": fingerprints.of_folder(staging), "tokenizer": fingerprints.of_tokenizer(staging)}
        version = dataclasses.replace(version, fingerprints=own)
        files.write_durably(staging / CARD, model_card(version).encode("utf-8"))
        records = {name: sealed.record(staging / name) for name in sorted(sealed.regular_files(staging))}
        version = dataclasses.replace(version, files=records)
        write_value(staging, dataclasses.asdict(version))
        sealed.seal_tree(staging)
        sealed.sync_folders(staging)
    except OSError as error:
        raise files.disk_error(error, staging) from error
    return version


def remove_staging(layout: Layout, *, but: Iterable[str] = ()) -> list[str]:
    """Remove what a version that was never finished left behind; return the names."""
    spared, removed = set(but), []
    try:
        names = os.listdir(layout.versions)
    except OSError:
        return []
    for name in names:
        if STAGING.fullmatch(name) and name not in spared:
            folder = layout.versions / name
            if folder.is_dir() and not folder.is_symlink():
                sealed.unseal_folders(folder)
            files.remove_tree(folder, inside=layout.versions)
            removed.append(name)
    return removed


def to_json(report: VersionReport) -> dict[str, Any]:
    """Return one entry of ``overnight versions --json``."""
    from overnight.domain.picture import iso

    version = report.version
    return {
        "id": report.id,
        "parent": version.parent if version is not None else None,
        "created_at": iso(version.created_at) if version is not None else None,
        "description": version.description if version is not None else None,
        "base_model": version.base_model if version is not None else None,
        "step": version.step if version is not None else None,
        "bytes": report.bytes,
        "state": report.state.value,
        "reason": report.reason,
        "path": report.path,
    }


def _judge(folder: Path, *, verify_content: bool) -> VersionReport:
    try:
        return _judge_folder(folder, verify_content=verify_content)
    except FileNotFoundError as error:
        return _report(folder, VersionState.INCOMPLETE, f"{_shown(error.filename, folder)} is missing")
    except OSError as error:
        what = f"{_shown(error.filename, folder)} cannot be read: {error.strerror or error}"
        return _report(folder, VersionState.CORRUPT, what)


def _judge_folder(folder: Path, *, verify_content: bool) -> VersionReport:
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        return _report(folder, VersionState.CORRUPT, "not a folder of its own (a file or a link)")
    try:
        version = read(folder)
    except FileNotFoundError:
        return _report(folder, VersionState.INCOMPLETE, "it has no manifest: nobody can tell what it is")
    except ValueError as error:
        return _report(folder, VersionState.CORRUPT, f"the manifest cannot be trusted: {error}")
    if version.id != folder.name and not STAGING.fullmatch(folder.name):
        reason = f"the folder's name says {folder.name}, the manifest says {version.id}"
        return _report(folder, VersionState.CORRUPT, reason, version)
    problem = sealed.first_problem(folder, version.files, verify_content=verify_content)
    if problem is not None:
        return _report(folder, _STATES.get(problem[0], VersionState.CORRUPT), problem[1], version)
    reason = "every file is as published" if verify_content else "complete; the content was not read"
    return _report(folder, VersionState.OK, reason, version)


def _report(folder: Path, state: VersionState, reason: str, version: Version | None = None) -> VersionReport:
    total = 0
    with contextlib.suppress(OSError):
        for name in sealed.regular_files(folder, with_manifest=True):
            total += os.lstat(folder / name).st_size
    return VersionReport(id=folder.name, path=str(folder), state=state, reason=reason, bytes=total, version=version)


def _shown(filename: Any, folder: Path) -> str:
    return os.path.relpath(filename, folder) if isinstance(filename, str) and filename != str(folder) else "the folder"
