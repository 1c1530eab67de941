"""Up and down: starting the guards of a workspace, and ending everything of it."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.control import hung, settings
from overnight.control.wishes import is_daemon_alive, wait_for
from overnight.database import events, intents, overview, queue
from overnight.database.connection import transaction
from overnight.disk import attempts, config, files, folder_lock, lease, ownership
from overnight.disk.attempts import Notice, Wish
from overnight.disk.layout import Layout
from overnight.domain.errors import BusyError, NotRunningError
from overnight.launchers import guards, processes, spare
from overnight.launchers.base import Exited
from overnight.launchers.choice import launcher_of
from overnight.status import holders as holders_of

START_S = 30.0
"""The loop must hold its lock so long after ``up``."""

END_S = 30.0
"""Beside the trainer's grace: for the loop and the watchdog to leave."""

HUNG_S, QUICK_HUNG_S = 10.0, 3.0
"""A guard that does not move for so long while everything is to end is killed: for a guard that is harmless."""

TAIL_BYTES = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """The guards that run now."""

    daemon_pid: int | None
    watchdog_pid: int | None
    since_event: int  # id of the newest event before


@dataclass(frozen=True, slots=True, kw_only=True)
class Down:
    """What was ended."""

    message: str
    was_running: bool


def up(layout: Layout, connection: sqlite3.Connection, *, now: float) -> Up:
    """Start watchdog and daemon; return once the daemon holds the workspace.

    Raises ConfigError before anything is started, BusyError where another daemon holds the workspace,
    NotRunningError with the end of its log where the daemon does not come up.
    """
    killed = hung.end_hung(layout, limit_s=config.raw_number(layout, "watch", "daemon_dead_s", 30.0))
    for told in killed:
        events.record(connection, now=now, kind="daemon.hung", message=told, level="error")
    refuse_when_held(layout)
    settings.require(layout)
    ownership.require_own_folders(layout)
    since_event = overview.newest_event(connection)
    with transaction(connection):
        intents.withdraw(connection, "down")
        intents.withdraw(connection, "stopped")
        intents.withdraw(connection, "up")
        intents.wish(connection, "up", {"reason": "asked to run"}, now=now)
        events.record(connection, now=now, kind="operator.up", message="the operator starts the daemon")
    ours = guards.start_watchdog(layout)
    if not wait_for(lambda: is_daemon_alive(layout), limit_s=START_S):
        raise NotRunningError(
            f"The daemon did not come up within {START_S:.0f} s",
            found=tail(layout.log("daemon")) or tail(layout.log("watchdog")) or "empty logs",
            expected="a daemon that holds this workspace",
            fix=f"read {layout.log('daemon')} and {layout.log('watchdog')}",
            code="not_up",
        )
    watchdog = files.lock_holder(layout.watchdog_lock)
    if watchdog is not None and watchdog.get("pid") not in (None, ours):
        raise holders_of.held(layout, watchdog)
    daemon = files.lock_holder(layout.daemon_lock) or {}
    return Up(daemon_pid=daemon.get("pid"), watchdog_pid=ours, since_event=since_event)


def down(layout: Layout, connection: sqlite3.Connection, *, now: float, is_quick: bool) -> Down:
    """End everything of this workspace and wait until it has ended.

    With ``is_quick`` nothing is saved. A disk that takes no wish is gone round by signals. Raises BusyError where
    something is still there after the deadline.
    """
    if not holders(layout):
        _end_spare(layout)
        forget(connection)
        return Down(message="nothing was running", was_running=False)
    try:
        ask_down(connection, now=now, is_quick=is_quick)
    except sqlite3.OperationalError as error:
        return down_by_signals(layout, is_quick=is_quick, why=str(error))
    limit_s = patience_s(layout, is_quick=is_quick)
    are_guards_gone = _wait_for_guards(layout, limit_s=limit_s, is_quick=is_quick)
    if are_guards_gone and holders(layout):
        _end_orphan(layout, connection, grace_s=0.0 if is_quick else limit_s - END_S)
    _require_end(layout)
    _end_spare(layout)
    forget(connection)
    return Down(message="everything has ended", was_running=True)


def down_by_signals(layout: Layout, *, is_quick: bool, why: str) -> Down:
    """End everything where no wish can be written down, as on a read-only disk: the guards are asked by signals."""
    if not holders(layout):
        return Down(message="nothing was running", was_running=False)
    limit_s = patience_s(layout, is_quick=is_quick)
    for holder in (_guards(layout).get("watchdog") or _guards(layout).get("daemon"),):
        for _ in range(2 if is_quick else 1):
            _signal(holder, signal.SIGTERM)
    if _wait_for_guards(layout, limit_s=limit_s, is_quick=is_quick):
        for number, patience in ((signal.SIGTERM, 0.0 if is_quick else limit_s - END_S), (signal.SIGKILL, END_S)):
            if trainer := files.lock_holder(layout.model_lock):
                _signal(trainer, number)
                wait_for(lambda: not holders(layout), limit_s=patience)
    _require_end(layout)
    return Down(
        message=f"everything has ended (asked by signals: the wish could not be written, {why})", was_running=True
    )


def _signal(holder: dict[str, Any] | None, number: signal.Signals) -> None:
    """Signal whoever holds a lock of this workspace, by its identity."""
    identity = processes.identity_of(holder)
    if identity is not None:
        processes.send(identity, number)


def _wait_for_guards(layout: Layout, *, limit_s: float, is_quick: bool) -> bool:
    """Wait until the guards have ended; one that hangs is killed, lest it keep the others."""
    looker = hung.Looker(layout, limit_s=QUICK_HUNG_S if is_quick else HUNG_S)
    next_look = 0.0

    def are_gone() -> bool:
        nonlocal next_look
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + hung.POLL_S
            looker.look()
        return not _guards(layout) or not holders(layout)

    try:
        return wait_for(are_gone, limit_s=limit_s)
    finally:
        looker.close()


def _require_end(layout: Layout) -> None:
    left = holders(layout)
    if left:
        raise BusyError(
            "Not everything has ended yet",
            found=", ".join(f"{name} (pid {holder.get('pid', 'unknown')})" for name, holder in left.items()),
            expected="all of them gone",
            fix="a save may take its time: try again, or overnight down --now",
            code="not_yet",
        )


def patience_s(layout: Layout, *, is_quick: bool) -> float:
    """Return how long an end may take: the trainer's grace, and the guards' own time to leave."""
    return END_S + (0.0 if is_quick else config.raw_number(layout, "watch", "grace_s", 30.0))


def ask_down(connection: sqlite3.Connection, *, now: float, is_quick: bool) -> None:
    """Wish that everything ends; return at once. A quick wish replaces a patient one."""
    reason = "the operator ends it at once" if is_quick else "the operator ends it at the next step border"
    with transaction(connection):
        intents.withdraw(connection, "up")  # a watchdog that waits to start the loop again ends at once
        intents.wish(connection, "down", {"now": is_quick, "reason": reason}, now=now)
        events.record(connection, now=now, kind="operator.down", message=reason, quick=is_quick)


def holders(layout: Layout) -> dict[str, dict[str, Any]]:
    """Return who is alive, as each one's lock tells."""
    trainer = files.lock_holder(layout.model_lock)
    return _guards(layout) | ({"trainer": trainer} if trainer is not None else {})


def tail(path: Path) -> str:
    """Return the end of a log, "" where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _guards(layout: Layout) -> dict[str, dict[str, Any]]:
    found = {
        "daemon": files.lock_holder(layout.daemon_lock),
        "watchdog": files.lock_holder(layout.watchdog_lock),
    }
    return {name: holder for name, holder in found.items() if holder is not None}


def refuse_when_held(layout: Layout) -> None:
    """Raise BusyError that names who holds the workspace; a watchdog alone is about to start a daemon."""
    for lock in (layout.daemon_lock, layout.watchdog_lock):
        holder = files.lock_holder(lock)
        if holder is not None:
            raise holders_of.held(layout, holder)
    if folder_lock.is_locked(layout.state):  # the file that would name its holder was deleted or replaced
        raise holders_of.held(layout, {})
    lease.require_ours(layout)


def forget(connection: sqlite3.Connection) -> None:
    """Withdraw the wishes to run and to end: nothing runs, and nothing should."""
    with transaction(connection):
        intents.withdraw(connection, "up")
        intents.withdraw(connection, "down")


def _end_spare(layout: Layout) -> None:
    """End a spare trainer that has outlived its loop: it does so only where somebody has stopped it."""
    if not _guards(layout) and (holder := files.lock_holder(layout.spare_lock)) is not None:
        spare.end_leftover(holder)


def _end_orphan(layout: Layout, connection: sqlite3.Connection, *, grace_s: float) -> None:
    """End a trainer that no daemon looks after: first by a notice, then by a signal, at last by force."""
    for attempt in queue.open_attempts(connection):
        if grace_s > 0:
            notice = Notice(wish=Wish.SAVE_AND_LEAVE, reason="overnight down")
            attempts.write_notice(layout.attempt(attempt.id), notice)
    if wait_for(lambda: not holders(layout), limit_s=grace_s):
        return
    launcher = launcher_of("local")
    for attempt in queue.open_attempts(connection):
        if attempt.handle is not None and not isinstance(launcher.poll(attempt.handle), Exited):
            launcher.kill(attempt.handle)
    wait_for(lambda: not holders(layout), limit_s=END_S)
