"""Carrying out what may go, item by item: surplus checkpoints, the scratch of ended attempts, torn leftovers.

The only module that deletes finished work, and only from a plan that gives a reason for each item. A checkpoint is
renamed away first: under its own name it is whole until the moment it is gone.
"""

from __future__ import annotations

import os
from pathlib import Path

from overnight.daemon.context import Context, Moment
from overnight.database import queue
from overnight.disk import checkpoints, files, logs, trust
from overnight.disk.layout import Layout
from overnight.disk.leftovers import is_orphaned_temporary
from overnight.domain import retention
from overnight.domain.checkpoint import CheckpointReport, Verdict
from overnight.domain.retention import Item

REMOVING = ".removing."
STAGING = ".staging"
LOG_TAIL_BYTES = 256 << 10
RETRY_S = 30.0


def tidy(context: Context, now: Moment) -> None:
    """Remove one surplus checkpoint a tick, and what ended attempts left behind."""
    if context.memory.pop("untidied", True):
        _tidy_attempts(context)
    plan: list[Item] = context.memory.get("plan", [])
    if plan:
        _remove(context, plan.pop(0), now)
        return
    looks = _looks(context.layout.model)
    if looks is None or looks == context.memory.get("tidied"):
        return
    if now.boot < context.memory.get("tidy_at", 0.0):
        return
    context.memory["tidy_at"] = now.boot + RETRY_S  # where reading fails it is not tried again in each tick
    keep, in_use = context.limits.checkpoint.keep, _in_use(context)
    answer = context.errands.ask("retention", lambda: _plan(context.layout, keep=keep, in_use=in_use))
    if answer is None:
        context.memory["tidy_at"] = 0.0
        return
    context.memory["tidied"], context.memory["tidy_at"] = looks, 0.0
    context.memory["plan"] = [item for item in answer.value if not item.is_kept]


def _looks(folder: Path) -> tuple[int, int] | None:
    try:
        facts = os.stat(folder)
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns


def _in_use(context: Context) -> frozenset[int]:
    """Return the steps that open attempts started from: they go back there when they fail."""
    steps = [attempt.first_step for attempt in queue.open_attempts(context.connection)]
    return frozenset(step for step in steps if step is not None)


def _plan(layout: Layout, *, keep: int, in_use: frozenset[int]) -> list[Item]:
    """Read the content of the newest checkpoints until enough are verified; the older ones are the surplus."""
    reports: list[CheckpointReport] = []
    verified = 0
    for seen in checkpoints.scan(layout.model, verify_content=False):
        is_read = verified < keep and seen.verdict is Verdict.VERIFIED
        report = trust.verify(layout, Path(seen.path)) if is_read else seen
        verified += int(is_read and report.verdict is Verdict.VERIFIED)
        reports.append(report)
    return retention.plan(reports, keep=keep, in_use=in_use) if verified >= keep else []


def _remove(context: Context, item: Item, now: Moment) -> None:
    folder = Path(item.path)
    if item.step in _in_use(context):
        return  # an attempt began since the plan was made
    hidden = folder.with_name(f"{REMOVING}{folder.name}")
    try:
        if hidden.exists():
            files.remove_tree(hidden, inside=context.layout.model)
        files.rename_durably(folder, hidden)
        files.remove_tree(hidden, inside=context.layout.model)
    except FileNotFoundError:
        return  # somebody else removed it
    context.record(
        f"{folder.name} is removed: {item.reason}", kind="checkpoint.removed", at=now.unix, step=item.step,
        freed_bytes=item.bytes,
    )  # fmt: skip


def _tidy_attempts(context: Context) -> None:
    """Remove the scratch of ended attempts; what they were told, what they said and measured stays."""
    busy = {attempt.id for attempt in queue.open_attempts(context.connection)}
    busy |= {attempt.id for attempt in queue.unsettled_attempts(context.connection)}
    try:
        folders = [Path(entry.path) for entry in os.scandir(context.layout.attempts) if entry.is_dir()]
    except OSError:
        return
    for folder in folders:
        if folder.name not in busy:
            _tidy_attempt(context.layout, folder)


def _tidy_attempt(layout: Layout, folder: Path) -> None:
    if (folder / "output").exists():
        files.remove_tree(folder / "output", inside=layout.attempts)
    for name in ("notice.json", "watched"):
        files.remove_file(folder / name)
    logs.keep_tail(folder / "trainer.log", LOG_TAIL_BYTES)


def remove_leftovers(layout: Layout) -> list[str]:
    """Remove what a killed process left half done; return the names. Only where no trainer works."""
    removed: list[str] = []
    if files.lock_holder(layout.model_lock) is None:
        for path in _entries(layout.model):
            if path.name.startswith(REMOVING) or (path.name.startswith(".") and path.name.endswith((STAGING, ".tmp"))):
                files.remove_tree(path, inside=layout.model)
                removed.append(path.name)
    for folder in (layout.root, layout.state, layout.status_file.parent, *_entries(layout.attempts)):
        for path in _entries(folder):
            if is_orphaned_temporary(path):
                files.remove_file(path)
                removed.append(path.name)
    return removed


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
