"""Seeing that copies are made in the second place: by a process of its own, which a tick starts and never waits for."""

from __future__ import annotations

from overnight.daemon.context import Context, Moment
from overnight.database.backups import commits_since
from overnight.disk import backup_memory, versions
from overnight.domain.backup import Kind, is_checkpoint_due, kind_of
from overnight.launchers import guards
from overnight.launchers.base import LaunchError

LOOK_S = 5.0
RETRY_S = 60.0
"""After a trouble (a disk that is full, read-only or not there) it is tried again so often."""

AGAIN_S = 6 * 3600.0
"""So often copies are looked at where nothing new is due: one that was damaged is found and replaced."""

SLOW_S = 3600.0


def keep_copies(context: Context, now: Moment) -> None:
    """Start the process that makes copies, where something is due and none is at it."""
    child = context.helpers.get("backup")
    if child is not None:
        code = child.poll()
        if code is None:
            if now.boot - context.memory["backup_began"] > SLOW_S:
                told = f"copies in the second place take long (pid {child.pid}); nothing else waits for them"
                context.tell("backup", told, kind="backup.slow", at=now.unix)
            return
        del context.helpers["backup"]
        context.forget("backup")
        context.memory["backup_at"] = now.boot + (RETRY_S if code else LOOK_S)
        context.memory["backup_again"] = now.boot + (RETRY_S if code else AGAIN_S)
    settings = context.limits.backup
    if settings.path is None or context.config_problem is not None or context.signals:
        return
    if now.boot < context.memory.get("backup_at", 0.0):
        return
    context.memory["backup_at"] = now.boot + LOOK_S
    if not _is_due(context, settings.path, now):
        return
    try:
        context.helpers["backup"] = guards.start_backup(context.layout)
        context.memory["backup_began"] = now.boot
    except LaunchError as error:
        context.tell("backup", f"the backup cannot be started: {error.found}", kind="backup.waiting", at=now.unix)
        context.memory["backup_at"] = now.boot + RETRY_S


def _is_due(context: Context, path: str, now: Moment) -> bool:
    """Return whether there is anything to do; cheap, and rather once too often."""
    if now.boot >= context.memory.get("backup_again", 0.0):
        return True
    settings, memory = context.limits.backup, backup_memory.read(context.layout, path)
    if not memory.token:
        return True  # another place than before
    if settings.versions and set(versions.identities(context.layout)) - set(memory.copies):
        return True
    commits, _ = commits_since(context.connection, memory.commit)
    has_copy = any(kind_of(name) is Kind.CHECKPOINT for name in memory.copies)
    return commits > 0 and is_checkpoint_due(commits=commits, every=settings.every_checkpoints, has_copy=has_copy)
