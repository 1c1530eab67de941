"""The loop's tidying: surplus checkpoints, the trash, the scratch of ended attempts, torn leftovers.

What is finished work goes through removal.py, from its plan: the one that ``overnight cleanup`` shows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from overnight import removal
from overnight.daemon import publish, room
from overnight.daemon.context import Context, Moment
from overnight.daemon.locks import holder
from overnight.database import overview, queue
from overnight.disk import crashes, files, logs, trash
from overnight.disk.layout import Layout
from overnight.disk.leftovers import is_orphaned_temporary, is_temporary_of_others
from overnight.domain import crash
from overnight.domain.crash import Kept
from overnight.domain.retention import Item

STAGING = ".staging"
LOG_TAIL_BYTES = 256 << 10
RETRY_S = 30.0
BUDGET_S = 0.1
"""What one tick spends on ended attempts at most."""

TRASH_EVERY_S = 60.0
"""So often the trash is looked through; longer gaps between two looks do not make it older."""

REMOVED = "removed"
"""What the loop remembers having removed, until it has looked at the folders again."""

URGENT_S = 2.0
"""So often where the next save does not fit."""


@dataclass(slots=True)
class Plan:
    """What is to be removed or set aside, one item a tick."""

    items: list[Item]
    kept: list[str]  # paths of what stays
    folders: dict[str, int]  # the inode of each folder when it was judged, by its name


def tidy(context: Context, now: Moment) -> None:
    """Remove one surplus checkpoint a tick, and what ended attempts left behind."""
    _tidy_attempts(context)
    if context.memory.pop("crashes_untidied", True):
        _tidy_crashes(context)
    _tidy_trash(context, now)
    plan: Plan | None = context.memory.get("plan")
    if plan is not None and plan.items:
        if _remove(context, plan, plan.items[0], now):
            plan.items.pop(0)
        return
    looks = _looks(context.layout.model, context.limits.checkpoint.keep)
    if looks is None or looks == context.memory.get("tidied"):
        return
    if now.boot < context.memory.get("tidy_at", 0.0):
        return
    context.memory["tidy_at"] = now.boot + RETRY_S  # where reading fails it is not tried again in each tick
    keep, held = context.limits.checkpoint.keep, overview.held_steps(context.connection)
    answer = context.errands.ask("retention", lambda: (looks, _plan(context.layout, keep=keep, held=held)))
    if answer is None:
        context.memory["tidy_at"] = 0.0
        return
    looked_like, found = answer.value  # as it was when it was asked: what was saved since needs another plan
    context.memory["tidied"], context.memory["tidy_at"] = looked_like, 0.0
    context.memory["plan"] = found


def _plan(layout: Layout, *, keep: int, held: Mapping[int, str]) -> Plan:
    folders = _inodes(layout.model)  # before anything is read
    found = removal.plan(layout, keep=keep, held=held)
    return Plan(
        items=[item for item in found if item.is_set_aside or not item.is_kept],
        kept=[item.path for item in found if item.is_kept and not item.is_set_aside],
        folders=folders,
    )


def _inodes(model: Path) -> dict[str, int]:
    try:
        with os.scandir(model) as entries:
            return {entry.name: entry.inode() for entry in entries}
    except OSError:
        return {}


def _tidy_crashes(context: Context) -> None:
    """Remove evidence of crashes where there is too much of it, by the plan of domain/crash.py."""
    folder = context.layout.crashes
    busy = {attempt.id for attempt in queue.unsettled_attempts(context.connection)}
    verdicts = {one: crashes.read_verdict(folder, one) or {} for one in crashes.identities(folder) if one not in busy}
    known = [
        Kept(
            id=one,
            at=float(verdict.get("at_unix") or 0.0),
            likeness=(verdict.get("job"), verdict.get("kind"), verdict.get("step")),
        )
        for one, verdict in verdicts.items()
    ]
    for item in crash.surplus(known):
        files.remove_tree(folder / item.id, inside=folder)
        context.log.info("the evidence of crash %s is removed: %s", item.id, item.reason)


def _looks(folder: Path, keep: int) -> tuple[int, int, int] | None:
    """Return what a plan hangs on: where it is as before, so is the plan."""
    try:
        facts = os.stat(folder)
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, keep


def _remove(context: Context, plan: Plan, item: Item, now: Moment) -> bool:
    """Remove one item; return whether it is dealt with. It waits while somebody else removes."""
    if item.step in overview.held_steps(context.connection):
        return True  # an attempt began since the plan was made
    lock = files.Lock(context.layout.checkpoints_lock)
    if not lock.acquire(holder=holder(now.unix)):
        return False
    try:
        if not _is_as_planned(context.layout, plan, item):
            context.memory["plan"] = context.memory["tidied"] = None
            return False
        resting = removal.set_aside(context.layout, item) if item.is_set_aside else None
        if not item.is_set_aside:
            removal.remove(context.layout, item, record=partial(tell_removed, context, item, now))
    finally:
        lock.release()
    if resting is not None:
        context.record(
            f"{Path(item.path).name} is set aside, it is {item.reason}", kind="checkpoint.set_aside", level="warning",
            at=now.unix, step=item.step, trash=str(resting),
        )  # fmt: skip
    return True


def _is_as_planned(layout: Layout, plan: Plan, item: Item) -> bool:
    """Return whether an item still is what the plan judged, and what the plan keeps still is there.

    Another version may have come into use meanwhile, with checkpoints of the same names.
    """
    folders = _inodes(layout.model)
    names = [Path(path).name for path in (item.path, *plan.kept)]
    return all(folders.get(name) == plan.folders.get(name) for name in names)


def tell_removed(context: Context, item: Item, now: Moment) -> None:
    """Write into the history that a checkpoint is removed; where the disk is full, the loop remembers it itself."""
    message = f"{Path(item.path).name} is removed: {item.reason}"
    context.memory.setdefault(REMOVED, []).append(message)
    context.record(message, kind="checkpoint.removed", at=now.unix, step=item.step, freed_bytes=item.bytes)


def _tidy_trash(context: Context, now: Moment) -> None:
    """Count how long things lie in the trash; remove the one whose time is over, or that has to give way."""
    looked_at: float | None = context.memory.get("trash_at")
    passed_s = 0.0 if looked_at is None else now.boot - looked_at
    is_urgent = context.memory.get("room", room.ENOUGH) != room.ENOUGH or "no_room" in context.memory
    if looked_at is not None and passed_s < (URGENT_S if is_urgent else TRASH_EVERY_S):
        return
    context.memory["trash_at"] = now.boot
    trash.grow_older(context.layout, min(passed_s, 2 * TRASH_EVERY_S))
    disk = context.limits.disk
    plan = removal.plan_trash(
        context.layout, trash_days=disk.trash_days, min_free_gb=disk.min_free_gb, need=room.next_save(context)
    )
    for item in plan:
        if not item.is_kept and removal.remove_resting(context.layout, item):
            context.record(
                f"{item.resting.name} is removed from the trash: {item.reason}", kind="trash.removed", at=now.unix,
                freed_bytes=item.resting.bytes,
            )  # fmt: skip


def _tidy_attempts(context: Context) -> None:
    """Remove the scratch of ended attempts; what they were told, what they said and measured stays.

    A new loop looks through all of them, some in each tick; afterwards only those that ended since are looked at: after
    years there are many.
    """
    waiting: list[str] | None = context.memory.get("untidied")
    if waiting is None:
        waiting = context.memory["untidied"] = os.listdir(context.layout.attempts)
    deadline = time.monotonic() + BUDGET_S
    unfinished: list[str] = context.memory.setdefault("unfinished", [])
    if waiting:
        busy = {attempt.id for attempt in queue.open_attempts(context.connection)}
        busy |= {attempt.id for attempt in queue.unsettled_attempts(context.connection)}
        while waiting and time.monotonic() < deadline:
            name = waiting.pop()
            if name not in busy:  # those come again when they have ended
                _tidy_attempt(context.layout, context.layout.attempt(name))
                unfinished.append(name)
    _finish_logs(context, unfinished, deadline)


def _finish_logs(context: Context, unfinished: list[str], deadline: float) -> None:
    """Finish the logs that are copied: those that are not come again in the next tick."""
    if context.pump is None:
        return
    not_yet: list[str] = []
    while unfinished and time.monotonic() < deadline:
        name = unfinished.pop()
        if publish.is_pumped(context, name):
            logs.finish(context.layout.attempt(name) / "trainer.log", LOG_TAIL_BYTES)
        else:
            not_yet.append(name)
    unfinished.extend(not_yet)


def mark_untidied(context: Context, attempt: str) -> None:
    """Say that an attempt has ended: its scratch may go."""
    if "untidied" in context.memory:
        context.memory["untidied"].append(attempt)


def _tidy_attempt(layout: Layout, folder: Path) -> None:
    if not folder.is_dir():
        return
    if (folder / "output").exists():
        files.remove_tree(folder / "output", inside=layout.attempts)
    for path in _entries(folder):
        is_ours = path.name in ("notice.json", "watched") or is_temporary_of_others(path)
        if is_ours and (path.is_symlink() or not path.is_dir()):  # a folder in its place is somebody else's
            files.remove_file(path)


def finish_removals(context: Context, now: Moment) -> None:
    """Complete the removals in which a loop or a command was killed."""
    for item in removal.half_removed(context.layout):
        removal.remove(context.layout, item, record=partial(tell_removed, context, item, now))


def remove_leftovers(layout: Layout) -> list[str]:
    """Remove what a killed process left half done; return the names. Only where no trainer works."""
    removed: list[str] = []
    if files.lock_holder(layout.model_lock) is None:
        for path in _entries(layout.model):
            if path.name.startswith(".") and path.name.endswith((STAGING, ".tmp")):
                files.remove_tree(path, inside=layout.model)
                removed.append(path.name)
    for folder in (layout.root, layout.state, layout.status_file.parent):
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
