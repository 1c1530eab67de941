"""Two workspaces must not share a model folder: found by links, and by a label on the folder itself.

The label names the workspace that uses the folder. It counts only while that workspace is there and its folder is this
very one, so a workspace that is moved or copied is in nobody's way.
"""

from __future__ import annotations

import os
from pathlib import Path

from overnight.disk import files
from overnight.disk.layout import Layout
from overnight.domain.errors import ConfigError

LABEL = "overnight.workspace"


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
        if files.label_of(folder, LABEL) != str(layout.root):
            files.set_label(folder, LABEL, str(layout.root))


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
    told = files.label_of(folder, LABEL)
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
