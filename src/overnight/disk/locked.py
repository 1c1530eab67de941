"""The config lock on disk: read from the newest checkpoint's manifest; .config_lock.json is the copy for bad days.

Where a version is in use and nothing was trained on it yet, it is read from that version.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from overnight.disk import config, files, run_identity, versions
from overnight.disk.layout import Layout
from overnight.disk.manifest import read_manifest
from overnight.domain.checkpoint import step_of
from overnight.domain.errors import ConfigError, DiskError
from overnight.domain.lock_values import NOTHING_LOCKED, Locked
from overnight.domain.version import Version, base_model_of, version_of

SCHEMA = 1


def read(layout: Layout) -> Locked:
    """Return what is locked now: by the newest checkpoint that can tell, else by .config_lock.json."""
    folders, run = _checkpoint_folders(layout.model), run_identity.read(layout.model)
    for step, folder in folders:
        try:
            manifest = read_manifest(folder)
        except (OSError, ValueError):
            continue
        if manifest.run and run is not None and manifest.run != run:
            continue  # another model's: it locks nothing here
        return Locked(values=dict(manifest.locked), source=folder.name, step=step)
    if not any(_is_used(folder) for _, folder in folders):
        return _of_version(layout)
    return _read_file(layout)


def version_in_use(layout: Layout) -> str | None:
    """Return the id of the version that training goes on from, None where it is the base model of the workspace."""
    values = read(layout).values
    return version_of(values["base_model"] if "base_model" in values else _configured_base(layout))


def of_version(version: Version) -> dict[str, Any]:
    """Return what .config_lock.json says while a version is in use on which nothing was trained yet."""
    return {
        "schema": SCHEMA,
        "locked": version.locked,
        "version": version.id,
        "checkpoint": None,
        "step": version.step,
        "fingerprints": version.fingerprints,
        "why": f"these settings belong to {base_model_of(version.id)}; see overnight config lock",
    }


def _of_version(layout: Layout) -> Locked:
    """Return what a version locks on which nothing was trained yet: told by the lock's file, else by config.json."""
    try:
        value = files.read_json(layout.config_lock)
        told = value.get("version")
        locked_by_file = dict(value["locked"]) if told is not None else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        told, locked_by_file = None, {}
    identity = told if isinstance(told, str) else version_of(_configured_base(layout))
    if identity is None:
        return NOTHING_LOCKED
    try:
        version = versions.read(layout.versions / identity)
    except (OSError, ValueError):
        return Locked(values=locked_by_file, source=layout.config_lock.name, step=None) if told else NOTHING_LOCKED
    return Locked(values=dict(version.locked), source=identity, step=version.step)


def _configured_base(layout: Layout) -> object:
    try:
        return config.read_raw(layout.config, patience_s=0.0).get("base_model")
    except ConfigError:
        return None


def refresh(layout: Layout) -> Locked:
    """Write .config_lock.json anew where it differs from what the newest checkpoint says; return what is locked.

    Raises DiskError.
    """
    locked = read(layout)
    if locked.source is None or step_of(locked.source) is None:
        return locked
    manifest = read_manifest(layout.model / locked.source)
    value = {
        "schema": SCHEMA,
        "locked": locked.values,
        "checkpoint": locked.source,
        "step": locked.step,
        "fingerprints": manifest.fingerprints,
        "why": "these settings belong to the checkpoints in current_model/; see overnight config lock",
    }
    try:
        known = files.read_json(layout.config_lock)
        if all(known.get(name) == value[name] for name in ("schema", "locked", "fingerprints")):
            return locked  # written at an earlier checkpoint, and still true
    except (OSError, ValueError, AttributeError):
        pass  # missing or damaged: it is written anew
    files.write_json_durably(layout.config_lock, value)
    return locked


def let_go(layout: Layout) -> None:
    """Lock what stays locked without any checkpoint: what the version in use locks, else nothing. Raises DiskError."""
    identity = version_in_use(layout)
    if identity is None:
        files.remove_file(layout.config_lock)
        return
    with contextlib.suppress(ValueError, FileNotFoundError):  # a damaged version is told where it is to be used
        files.write_json_durably(layout.config_lock, of_version(versions.read(layout.versions / identity)))


def refresh_quietly(layout: Layout) -> None:
    """Refresh where the disk allows it: the file is a copy, the checkpoints are the truth."""
    try:
        refresh(layout)
    except (DiskError, OSError, ValueError):
        return


def _read_file(layout: Layout) -> Locked:
    try:
        value = files.read_json(layout.config_lock)
        values, step = dict(value["locked"]), int(value["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return Locked(values={}, source=None, step=None, readable=False)
    return Locked(values=values, source=layout.config_lock.name, step=step)


def _checkpoint_folders(model: Path) -> list[tuple[int, Path]]:
    """Return what has a checkpoint's name, the highest step first."""
    try:
        names = os.listdir(model)
    except OSError:
        return []
    return sorted(((step, model / name) for name in names if (step := step_of(name)) is not None), reverse=True)


def _is_used(folder: Path) -> bool:
    """Return whether there is anything in it: an empty folder of that name is junk."""
    try:
        return not folder.is_symlink() and bool(os.listdir(folder))
    except OSError:
        return False
