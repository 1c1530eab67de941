"""The plan that puts another version in use, or deletes one, durable before the first of its moves.

``.overnight/transition.json`` is the one border: until it is written nothing has changed, and what was prepared is
removed; once it is there, every move of it is made, by whoever comes next where the one who wrote it died. Each move
leaves a mark by which a second pass knows that it is done, so a plan may be carried out any number of times.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.disk import config, files, run_identity
from overnight.disk.layout import Layout
from overnight.disk.manifest import read_manifest
from overnight.domain.checkpoint import step_of

SCHEMA = 1
DELETED = "deleted"
SAVED = "state.json"
"""In a folder of the history: whose checkpoints these are, and config.json and the lock as they were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """What changes when another version is put in use; names only, all below the workspace."""

    schema: int = SCHEMA
    id: str
    kind: str  # "published" | "rolled_back"
    version: str | None  # that comes into use; None: the base model of the workspace
    before: str | None  # that was in use
    at: float  # unix seconds
    staging: str | None  # hidden folder in models/ that becomes the version
    save: str  # folder of the history that takes what leaves
    leaving: list[str]  # names of checkpoints
    restore: str | None  # folder of the history from which checkpoints come
    coming: list[str]
    saved: dict[str, Any]  # what is kept with the checkpoints that leave
    config: str  # text of config.json from now on
    config_lock: str | None  # text of .config_lock.json; None: there is none
    step: int  # where the model stands afterwards
    checkpoint: int | None  # the newest checkpoint afterwards
    jobs: list[int]  # that were trained since the version that comes into use, as far as it was trained on
    message: str
    wish: str | None = None  # of the operator, which is met by this


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """What goes when a version is deleted: it, and the checkpoints that were its own."""

    schema: int = SCHEMA
    id: str
    kind: str = DELETED
    version: str
    at: float  # unix seconds
    paths: list[str]  # relative to the workspace
    freed_bytes: int
    message: str


def write(layout: Layout, plan: Transition | Deletion) -> None:
    """Write the plan: from now on it will be carried out. Raises DiskError; nothing has changed then."""
    files.write_json_durably(layout.transition, dataclasses.asdict(plan))


def read(layout: Layout) -> Transition | Deletion | None:
    """Return the plan that is to be carried out, or None. Raises ValueError where it cannot be read."""
    try:
        value = files.read_json(layout.transition)
    except FileNotFoundError:
        return None
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise ValueError(f"{layout.transition} is of another format")
    kind = Deletion if value.get("kind") == DELETED else Transition
    known = {one.name: value[one.name] for one in dataclasses.fields(kind) if one.name in value}
    try:
        return kind(**known)
    except TypeError as error:
        raise ValueError(f"{layout.transition} is damaged: {error}") from error


def carry_out(layout: Layout, plan: Transition) -> None:
    """Make every move that is not made yet. Raises DiskError; the next call goes on."""
    try:
        if plan.staging is not None and plan.version is not None:
            _rename(layout.versions / plan.staging, layout.versions / plan.version)
        resting = layout.history / plan.save
        files.make_directory(resting)
        if not (resting / SAVED).exists():
            files.write_json_durably(resting / SAVED, plan.saved)
            files.sync_directory(layout.history)
            files.sync_directory(layout.model)
        for name in plan.leaving:
            _rename(layout.model / name, resting / name)
        if plan.restore is not None:
            for name in plan.coming:
                _rename(layout.history / plan.restore / name, layout.model / name)
            _remove(layout, layout.history / plan.restore)
        if text_of(layout.config) != plan.config:
            config.put_text(layout, plan.config)
        if plan.config_lock is None:
            files.remove_file(layout.config_lock)
        elif text_of(layout.config_lock) != plan.config_lock:
            files.write_durably(layout.config_lock, plan.config_lock.encode("utf-8"))
    except OSError as error:
        raise files.disk_error(error, error.filename or layout.model) from error


def clear(layout: Layout) -> None:
    """Remove the plan: it was carried out. Raises DiskError."""
    try:
        files.remove_file(layout.transition)
        files.sync_directory(layout.state)
    except OSError as error:
        raise files.disk_error(error, layout.transition) from error


def checkpoint_names(folder: Path) -> list[str]:
    """Return the names of what are checkpoints of this workspace in a folder, the newest first; foreign ones stay."""
    try:
        names = [name for name in os.listdir(folder) if step_of(name) is not None]
    except OSError:
        return []
    return sorted((name for name in names if not _is_foreign(folder / name)), key=lambda name: step_of(name) or 0)[::-1]


def _is_foreign(folder: Path) -> bool:
    """Return whether a checkpoint says that it belongs to another workspace."""
    own = run_identity.read(folder.parent)
    with contextlib.suppress(OSError, ValueError):
        manifest = read_manifest(folder)
        return bool(manifest.run) and own is not None and manifest.run != own
    return False


def _rename(source: Path, target: Path) -> None:
    """Move something where that was not done yet: it is there already, or its place is."""
    if os.path.lexists(source) and not os.path.lexists(target):
        files.rename_durably(source, target)


def _remove(layout: Layout, folder: Path) -> None:
    """Remove a folder of the history from which everything has come; what is left in it keeps it."""
    if not folder.is_dir() or checkpoint_names(folder):
        return
    files.remove_tree(folder, inside=layout.history)


def text_of(path: Path) -> str | None:
    """Return a file's text as the plan keeps it, or None where there is none or none that is text."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
