"""Two workspaces must not share a model folder: found by links, and by a label on the folder itself.

The label names the workspace that uses the folder. It counts only while that workspace is there and its folder is this
very one, so a workspace that is moved or copied is in nobody's way.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from overnight.disk.layout import Layout
from overnight.domain.errors import ConfigError

LABEL = "user.overnight.workspace"


def require_own_folders(layout: Layout) -> None:
    """Refuse a model folder that belongs to another workspace. Raises ConfigError."""
    for folder in (layout.model, layout.versions):
        owner = _owner(layout, folder)
        if owner is not None:
            raise ConfigError(
                f"{folder.name}/ of this workspace is another workspace's",
                found=f"{folder} is {os.path.realpath(folder)}, the folder of {owner}",
                expected="a model folder of its own: two workspaces would overwrite each other's checkpoints",
                fix=f"take the link or mount away; to go on from that model, copy {folder.name}/ with its contents",
                code="shared_model",
            )


def claim_folders(layout: Layout) -> None:
    """Label the model folders as ours. Raises ConfigError where one is another workspace's."""
    require_own_folders(layout)
    for folder in (layout.model, layout.versions):
        if label_of(folder) != str(layout.root):
            _set_label(folder, str(layout.root))


def label_of(folder: Path) -> str | None:
    """Return which workspace says that a folder is its own (an extended attribute), None where none does."""
    try:
        return os.getxattr(folder, LABEL).decode("utf-8", "surrogateescape") if hasattr(os, "getxattr") else None
    except OSError:  # none, or a file system without such attributes
        return None


def _set_label(folder: Path, text: str) -> None:
    if hasattr(os, "setxattr"):
        with contextlib.suppress(OSError):  # then the trainer's lock on the folder is what tells
            os.setxattr(folder, LABEL, text.encode("utf-8", "surrogateescape"))


def workspace_around(path: Path) -> Layout | None:
    """Return the workspace that a path lies in, by its real place; None where it lies in none."""
    for folder in Path(os.path.realpath(path)).parents:
        found = Layout(folder)
        if _is_there(found):
            return found
    return None


def _owner(layout: Layout, folder: Path) -> Path | None:
    """Return the other workspace whose folder this is."""
    around = workspace_around(folder)
    if around is not None and not _is_same(around.state, layout.state):
        return around.root
    told = label_of(folder)
    other = Layout(Path(told)) if told and os.path.isabs(told) else None
    if other is None or not _is_there(other) or _is_same(other.state, layout.state):
        return None
    return other.root if any(_is_same(theirs, folder) for theirs in (other.model, other.versions)) else None


def _is_there(layout: Layout) -> bool:
    try:
        return layout.database.exists()
    except OSError:  # not for us to look into
        return False


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
