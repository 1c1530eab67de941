"""The config lock on disk: read from the newest checkpoint's manifest; .config_lock.json is the copy for bad days."""

from __future__ import annotations

import os
from pathlib import Path

from overnight.disk import files, run_identity
from overnight.disk.layout import Layout
from overnight.disk.manifest import read_manifest
from overnight.domain.checkpoint import step_of
from overnight.domain.errors import DiskError
from overnight.domain.locked import NOTHING_LOCKED, Locked

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
        return NOTHING_LOCKED
    return _read_file(layout)


def refresh(layout: Layout) -> Locked:
    """Write .config_lock.json anew where it differs from what the newest checkpoint says; return what is locked.

    Raises DiskError.
    """
    locked = read(layout)
    if locked.source is None or locked.source == layout.config_lock.name:
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
