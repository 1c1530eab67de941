"""Making a workspace and opening one; nothing but ``create`` ever makes the tree."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from overnight.disk import config, files
from overnight.disk.layout import Layout
from overnight.domain.errors import UsageError
from overnight.domain.printable import shown

SCHEMA = 1


def open_workspace(folder: Path) -> Layout:
    """Return the layout of the workspace in a folder. Raises UsageError where it is none."""
    root = _resolved(folder)
    if not os.path.isdir(root):
        found = "a file" if os.path.lexists(root) else "nothing there"
        raise UsageError(
            f"{shown(str(root))} is no workspace",
            found=found,
            expected="a folder made by overnight init",
            fix="name the workspace with overnight -C DIR, or make one with overnight init DIR",
            code="no_workspace",
        )
    layout = Layout(root)
    if not is_workspace(layout):
        raise UsageError(
            f"{shown(str(root))} is no workspace",
            found="a folder without config.json and .overnight/",
            expected="a folder made by overnight init",
            fix="name the workspace with overnight -C DIR, or make one with overnight init DIR",
            code="no_workspace",
        )
    return layout


def is_workspace(layout: Layout) -> bool:
    """Return whether the folder was made by ``init``, be it damaged since."""
    return layout.database.exists() or (layout.config.exists() and layout.state.is_dir())


def new_layout(folder: Path) -> Layout:
    """Return the layout of a workspace that is about to be made. Raises UsageError where something is in the way."""
    root = _resolved(folder)
    layout = Layout(root)
    if layout.config.exists() or (layout.database.exists() and _is_used(layout)):
        raise UsageError(
            f"{shown(str(root))} is a workspace already",
            found="config.json" if layout.config.exists() else "a database and checkpoints without a config.json",
            expected="an empty or new folder",
            fix="use it as it is, or give another folder",
            code="exists",
        )
    in_the_way = [name for name in ("inbox", "queue", "current_model", "models") if _has_content(root / name)]
    if os.path.lexists(root) and not root.is_dir():
        raise UsageError(
            f"{shown(str(root))} is no folder", found="a file", expected="a new folder", fix="give another name"
        )
    if in_the_way and not layout.state.exists():
        raise UsageError(
            f"{shown(str(root))} holds something else",
            found=f"{', '.join(name + '/' for name in in_the_way)} with content",
            expected="an empty or new folder",
            fix="give another folder",
            code="in_the_way",
        )
    return layout


def create(layout: Layout) -> None:
    """Make the tree without config.json: until that is written, ``init`` may be run again. Raises DiskError."""
    for folder in layout.folders():
        files.make_directory(folder)
    try:
        os.chmod(layout.state, 0o700)
    except OSError as error:
        raise files.disk_error(error, layout.state) from error
    config.write_schema(layout)


def finish(layout: Layout, values: dict[str, Any]) -> None:
    """Write config.json: from now on it is a workspace. Raises DiskError."""
    config.write(layout, {"$schema": "./config.schema.json", "schema": SCHEMA, **values})
    try:
        files.sync_directory(layout.root)
        files.sync_directory(layout.root.parent)
    except OSError as error:
        raise files.disk_error(error, layout.root) from error


def missing_folders(layout: Layout) -> list[Path]:
    """Return the folders of the tree that somebody removed."""
    return [folder for folder in layout.folders() if not folder.is_dir()]


def _resolved(folder: Path) -> Path:
    """Return the absolute folder, links resolved. Raises UsageError for a name that no file system takes."""
    try:
        return folder.expanduser().resolve()
    except (ValueError, OSError, RuntimeError) as error:  # a NUL byte, a loop of links, no home folder
        raise UsageError(
            f"{str(folder)!r} is no folder name",
            found=str(error),
            expected="the path of a folder",
            fix="give another name",
        ) from error


def _is_used(layout: Layout) -> bool:
    """Return whether work was done here: a half-made workspace holds none."""
    return _has_content(layout.model) or _has_content(layout.datasets) or _has_content(layout.attempts)


def _has_content(folder: Path) -> bool:
    try:
        return bool(os.listdir(folder))
    except OSError:
        return False
