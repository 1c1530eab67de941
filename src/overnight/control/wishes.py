"""Pause, resume, stop: wishes about the whole queue, kept in the database until they are met or withdrawn."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from overnight.database import events, intents, queue
from overnight.database.connection import transaction
from overnight.disk import config, files
from overnight.disk.layout import Layout
from overnight.domain.errors import BusyError
from overnight.domain.picture import iso

POLL_S = 0.05
PAUSE_S = 30.0
"""A step may take so long; then the trainer has its grace to save."""

CONFIRM_S = 3.0
"""How long a free device is watched where the loop does not confirm the pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a wish, fit for the user."""

    message: str
    is_changed: bool  # False: it was so already
    is_daemon_alive: bool

    def now_saying(self, message: str) -> Answer:
        """Return the answer with later words."""
        return replace(self, message=message)


def pause(layout: Layout, connection: sqlite3.Connection, *, now: float) -> Answer:
    """Wish that no attempt runs until resume; it survives restarts. Returns at once."""
    alive = is_daemon_alive(layout)
    standing = intents.standing(connection).get("paused")
    if standing is not None:
        return Answer(message=f"paused already, since {iso(standing.at)}", is_changed=False, is_daemon_alive=alive)
    _record(connection, "paused", {"reason": "paused by the operator"}, verb="pause", now=now)
    how = "the step is finished, saved, and the device freed" if alive else "no daemon runs; it holds from the next up"
    return Answer(message=f"paused: {how}", is_changed=True, is_daemon_alive=alive)


def wait_until_free(layout: Layout, connection: sqlite3.Connection) -> None:
    """Wait until no trainer holds the device. Raises BusyError after the deadline; the wish stays."""
    limit_s = PAUSE_S + config.raw_number(layout, "watch", "grace_s", 30.0)
    free_since: float | None = None

    def is_free() -> bool:
        nonlocal free_since
        if files.lock_holder(layout.model_lock) is not None:
            free_since = None
            return False
        if not is_daemon_alive(layout):
            return True
        if queue.open_attempts(connection):
            free_since = None
            return False
        free_since = free_since if free_since is not None else time.monotonic()
        return _told_state(layout) == "paused" or time.monotonic() - free_since > CONFIRM_S

    if not wait_for(is_free, limit_s=limit_s):
        holder = files.lock_holder(layout.model_lock) or {}
        raise BusyError(
            "The pause is noted, and the trainer has not left yet",
            found=f"pid {holder.get('pid', 'unknown')} still holds the device after {limit_s:.0f} s",
            expected="a step border",
            fix="it leaves at the next one; overnight status tells",
            code="not_yet",
        )


def resume(layout: Layout, connection: sqlite3.Connection, *, now: float) -> Answer:
    """Withdraw pause and stop."""
    alive = is_daemon_alive(layout)
    with transaction(connection):
        gone = [name for name in ("paused", "stopped") if intents.withdraw(connection, name)]
        if gone:
            message = "the operator resumed the queue"
            events.record(connection, now=now, kind="operator.resume", message=message, withdrawn=gone)
    if not gone:
        return Answer(
            message="nothing to resume: the queue is neither paused nor stopped",
            is_changed=False,
            is_daemon_alive=alive,
        )
    then = "work goes on" if alive else "no daemon runs: overnight up starts it"
    return Answer(message=f"resumed: {then}", is_changed=True, is_daemon_alive=alive)


def stop(layout: Layout, connection: sqlite3.Connection, *, now: float) -> Answer:
    """Wish that the current file is finished and no other one begun. Returns at once."""
    alive = is_daemon_alive(layout)
    standing = intents.standing(connection).get("stopped")
    if standing is not None:
        return Answer(message=f"stopped already, since {iso(standing.at)}", is_changed=False, is_daemon_alive=alive)
    _record(connection, "stopped", {"reason": "stopped by the operator"}, verb="stop", now=now)
    job = queue.running(connection)
    if not alive:
        message = "stopped: no daemon runs, nothing is taken (overnight up takes work again)"
    elif job is not None:
        message = f"stopping: {job.file} (job {job.id}) is finished, then no more work is taken"
    else:
        message = "stopped: no more work is taken until resume"
    return Answer(message=message, is_changed=True, is_daemon_alive=alive)


def is_daemon_alive(layout: Layout) -> bool:
    """Return whether a loop holds this workspace."""
    return files.lock_holder(layout.daemon_lock) is not None


def wait_for(condition: Callable[[], bool], *, limit_s: float, poll_s: float = POLL_S) -> bool:
    """Poll until the condition holds; return whether it did in time."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll_s)
    return True


def _record(connection: sqlite3.Connection, name: str, value: dict[str, object], *, verb: str, now: float) -> None:
    with transaction(connection):
        intents.wish(connection, name, value, now=now)
        events.record(connection, now=now, kind=f"operator.{verb}", message=str(value["reason"]))


def _told_state(layout: Layout) -> str:
    try:
        return str(files.read_json(layout.daemon_state)["state"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
