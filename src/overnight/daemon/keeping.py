"""The loop's part in keeping the guards alive: its own locks, and the watchdog."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any

from overnight.daemon import traces
from overnight.daemon.context import Context, Moment
from overnight.daemon.locks import Locks, holder
from overnight.disk import files, lease, logs, workspace
from overnight.domain.lease import RENEW_S
from overnight.launchers import beats, guards, processes
from overnight.launchers.base import LaunchError

EVERY_S = 2.0
"""So often the loop looks whether the watchdog is there."""


def keep_guards(context: Context, now: Moment) -> None:
    """See that this loop is still the only one, and that a watchdog looks after it."""
    if context.locks is not None:
        _keep_locks(context, context.locks, now)
        if context.lost_at is None and now.boot >= context.memory.get("renew_at", 0.0):
            context.memory["renew_at"] = now.boot + RENEW_S
            _renew_lease(context, now)
    if now.boot >= context.memory.get("guard_at", 0.0):
        context.memory["guard_at"] = now.boot + EVERY_S
        _keep_watchdog(context, now)
        if context.lost_at is None:
            keep_folders(context, now)


def keep_folders(context: Context, now: Moment) -> None:
    """Make folders again that somebody removed: only what was in them is gone. Raises DiskError."""
    for folder in workspace.missing_folders(context.layout):
        files.make_directory(folder)
        message = f"{folder.relative_to(context.layout.root)}/ was removed and is made again"
        context.record(message, kind="daemon.folder_made", level="warning", at=now.unix)


def _keep_locks(context: Context, locks: Locks, now: Moment) -> None:
    gone = context.layout.state if not locks.folder.is_in_place() else _lost_database(context)
    if gone is not None:
        message = (
            f"CRITICAL: {gone} was moved or removed under the running daemon: the trainer is asked to leave, and the"
            " daemon ends. Start it again where the workspace lies now"
        )
        if locks.folder.is_unmounted():
            context.memory["unmounted"] = True
            message = (
                f"CRITICAL: the file system of {gone} is no longer mounted there: the trainer is asked to leave, and"
                " the daemon ends; the watchdog starts it again when the file system is back"
            )
        if context.tell("moved", message, kind="daemon.moved", level="error", at=now.unix):
            context.lost_at = now.boot
        return
    if not locks.file.is_intact():
        locks.file.release()
        if locks.file.acquire(holder=holder(context.started_at)):
            message = f"{context.layout.daemon_lock.name} was deleted under the running daemon; it is made again"
            context.record(message, kind="daemon.lock_deleted", level="error", at=now.unix)


def _renew_lease(context: Context, now: Moment) -> None:
    """Say that the workspace is still ours; one that another machine has taken meanwhile is left to it."""
    who = lease.foreign(context.layout)
    if who is None:
        lease.write(context.layout, since=context.started_at)
        return
    message = (
        f"CRITICAL: another machine has taken the workspace: {who}. This daemon had not renewed its lease for minutes;"
        " the trainer is asked to leave, and the daemon ends"
    )
    if context.tell("lease", message, kind="daemon.lease_lost", level="error", at=now.unix):
        context.lost_at = now.boot


def _lost_database(context: Context) -> Path | None:
    """Return the database's path where another file or none has its name: what is written then reaches nobody."""
    try:
        facts = os.stat(context.layout.database)
    except FileNotFoundError:
        return context.layout.database
    identity = (facts.st_dev, facts.st_ino)
    return None if context.memory.setdefault("database", identity) == identity else context.layout.database


def _keep_watchdog(context: Context, now: Moment) -> None:
    child = context.helpers.get("watchdog")
    if child is not None and child.poll() is not None:
        del context.helpers["watchdog"]
    seen = files.lock_holder(context.layout.watchdog_lock)
    context.memory["watchdog_pid"] = seen.get("pid") if seen is not None else None
    if not context.wishes.up or context.signals or context.wishes.down:
        return
    starting = context.helpers.get("watchdog")
    pid = context.memory["watchdog_pid"] if seen is not None else starting.pid if starting is not None else None
    if seen is not None or starting is not None:
        context.forget("watchdog")
        _listen_to_watchdog(context, seen if seen is not None else {"pid": pid}, now)
        return
    try:
        context.helpers["watchdog"] = guards.start_watchdog_process(context.layout)
        context.record("the watchdog was gone and is started again", kind="watchdog.started", at=now.unix)
    except LaunchError as error:
        context.tell("watchdog", f"the watchdog cannot be started: {error.found}", kind="watchdog.failed", at=now.unix)


def _listen_to_watchdog(context: Context, holder_told: dict[str, Any], now: Moment) -> None:
    """Kill a watchdog that hangs, by its identity; the next look starts another one."""
    identity = processes.identity_of(holder_told)
    ear: beats.Ear | None = context.memory.get("watchdog_ear")
    if ear is not None and ear.identity != identity:
        ear.close()
        ear = None
    if identity is None:
        context.memory["watchdog_ear"] = None
        return
    if ear is None:
        ear = context.memory["watchdog_ear"] = beats.Ear(identity, longest_s=2 * EVERY_S)
    verdict = ear.judge(at=now.boot, limit_s=context.limits.watch.daemon_dead_s)
    if verdict is None or not verdict.is_hung:
        return
    told = f"the watchdog (pid {identity.pid}) is killed: {verdict.reason}"
    if context.tell("watchdog hung", told, kind="watchdog.hung", level="error", at=now.unix):
        seen = traces.of_guard(identity)
        for line in (told, *seen):
            logs.add_line(context.layout.log("watchdog"), line, level=logging.ERROR)
    processes.send(identity, signal.SIGKILL)
