"""The only module that deletes finished work: from a plan with a reason for each item, for the loop and `cleanup`.

A checkpoint is renamed away first: under its own name it is whole until the moment it is gone. What a kill leaves half
removed carries a hidden name, and the next removal completes it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from overnight.disk import backup_memory, checkpoints, files, needs, sealed, space, trash, trust
from overnight.disk.layout import Layout
from overnight.domain import retention
from overnight.domain.checkpoint import CheckpointReport, Verdict, step_of
from overnight.domain.retention import Item, TrashItem
from overnight.domain.room import Need

REMOVING = ".removing."
PIN = "pinned"
"""A file of this name in a checkpoint's folder keeps it, whatever its age."""


def plan(layout: Layout, *, keep: int, held: Mapping[int, str]) -> list[Item]:
    """Say what becomes of each checkpoint. Reads the content of the newest until ``keep`` of them are verified."""
    retention.require_keep(keep)
    reports: list[CheckpointReport] = []
    verified = 0
    for seen in checkpoints.scan(layout.model, verify_content=False):
        is_read = verified < keep and seen.verdict is Verdict.VERIFIED
        report = trust.verify(layout, Path(seen.path)) if is_read else seen
        verified += int(is_read and report.verdict is Verdict.VERIFIED)
        reports.append(report)
    pinned = {
        report.step: f"pinned: it holds a file named '{PIN}'"
        for report in reports
        if os.path.lexists(Path(report.path) / PIN)
    }
    held = {**held, **backup_memory.being_copied(layout), **pinned}
    return [*retention.plan(reports, keep=keep, held=held), *half_removed(layout)]


def half_removed(layout: Layout) -> list[Item]:
    """Return what an interrupted removal left behind."""
    return [
        Item(
            step=step, path=str(path), bytes=trash.tree_bytes(path), verdict=Verdict.INCOMPLETE, is_kept=False,
            reason="its removal was interrupted",
        )
        for path in _entries(layout.model)
        if path.name.startswith(REMOVING) and (step := step_of(path.name.removeprefix(REMOVING))) is not None
    ]  # fmt: skip


def remove(layout: Layout, item: Item, *, record: Callable[[], None]) -> None:
    """Remove one checkpoint of a plan, where it is there. Errors of the disk pass as OSError.

    ``record`` writes the removal into the history: once its name is gone and before its files are, so that no kill
    leaves a checkpoint gone of which nothing is told.
    """
    if item.is_kept:
        raise ValueError(f"the plan keeps {item.path}: {item.reason}")
    folder = Path(item.path)
    hidden = folder if folder.name.startswith(REMOVING) else folder.with_name(f"{REMOVING}{folder.name}")
    try:
        if folder != hidden:
            if os.path.lexists(hidden):
                files.remove_tree(hidden, inside=layout.model)
            files.rename_durably(folder, hidden)
        elif not os.path.lexists(folder):
            return
    except FileNotFoundError:
        return  # somebody else removed it
    record()
    with contextlib.suppress(FileNotFoundError):
        files.remove_tree(hidden, inside=layout.model)


def set_aside(layout: Layout, item: Item) -> Path | None:
    """Move a damaged checkpoint of a plan into the trash; return where it lies.

    None where it is gone, or whole after all, or the disk refuses to read it now. Raises DiskError.
    """
    if not item.is_set_aside:
        raise ValueError(f"the plan does not set {item.path} aside: {item.reason}")
    folder = Path(item.path)
    if not folder.exists():
        return None
    found = checkpoints.verify(folder)
    if found.verdict is Verdict.VERIFIED or found.is_unreadable:
        return None
    return checkpoints.set_aside(folder, layout.trash)


def set_version_aside(layout: Layout, folder: Path) -> Path:
    """Move a version, or what belongs to one, into the trash; return where it lies now. Raises DiskError."""
    if folder.parent == layout.versions and not folder.is_symlink() and folder.is_dir():
        sealed.unseal_folders(folder)
    return checkpoints.set_aside(folder, layout.trash)


def plan_trash(layout: Layout, *, trash_days: float, min_free_gb: float, need: Need | None = None) -> list[TrashItem]:
    """Say what becomes of each thing in the trash; where the disk lacks room for the next save, the oldest give way."""
    left = space.space_of(layout.root)
    wanted = max(min_free_gb * 1e9, needs.bytes_to_be_free(need) if need is not None else 0)
    return retention.plan_trash(
        trash.listing(layout),
        limit_s=trash_days * 86_400,
        missing_bytes=wanted - files.free_bytes(layout.root),
        missing_inodes=needs.inodes_to_be_free(need) - left.free_inodes
        if need is not None and left.free_inodes is not None
        else 0,
    )


def remove_resting(layout: Layout, item: TrashItem) -> bool:
    """Remove one thing of a plan from the trash; return whether it was there. Errors of the disk pass as OSError."""
    if item.is_kept:
        raise ValueError(f"the plan keeps {item.resting.path}: {item.reason}")
    path = Path(item.resting.path)
    inside = path.parent if path.parent in (layout.trash, layout.versions, layout.history) else layout.model
    try:
        files.remove_tree(path, inside=inside)
    except FileNotFoundError:
        return False
    return True


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
