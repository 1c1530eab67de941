"""What the loop tells the outside on its way: daemon.json, the status file, the trainer's log.

All of it can be lost or refused by a full disk without harm: each tick says it anew.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from overnight.daemon.context import Context, Moment, Standing
from overnight.database import overview
from overnight.disk import attempts, files
from overnight.disk.logs import Pump
from overnight.domain.attempt import Phase
from overnight.domain.errors import DiskError
from overnight.status import snapshot, training_status

SCHEMA = 1
EVERY_S = 1.0
AT_MOST_EVERY_S = 0.25
COST_SHARE = 250
"""The picture costs more the longer the queue is: between two stays so many times what one takes, or a second."""

_STATES = {
    None: "loading",
    Phase.LOADING: "loading",
    Phase.TRAINING: "training",
    Phase.EVALUATING: "evaluating",
    Phase.SAVING: "saving",
    Phase.MERGING: "saving",
    Phase.EXITING: "saving",
}


def publish(context: Context, now: Moment) -> None:
    """Say how things are, where they have changed or the last word is old."""
    _stand_by_trainer(context, now)
    try:
        _say_daemon(context, now)
        _say_status(context, now)
    except DiskError as error:
        context.tell("publish", f"the status files cannot be written: {error.found}", kind="disk", at=now.unix)
    else:
        context.forget("publish")


def _stand_by_trainer(context: Context, now: Moment) -> None:
    watched = context.watched
    if watched is None:
        return
    heartbeat = watched.heartbeat
    state = _STATES[heartbeat.phase if heartbeat is not None else None]
    reason = f"attempt {watched.attempt}"
    if heartbeat is not None and heartbeat.waits:
        state, reason = "waiting", context.memory.get("save_waits", (heartbeat.waits, 0.0))[0]
    if watched.stop is not None:
        state, reason = "stopping", watched.stop.reason
    if (context.standing.state, context.standing.reason) != (state, reason):
        level = logging.INFO if (context.standing.state, state) not in _QUIET else logging.DEBUG
        context.log.log(level, "%s: %s", state, reason)
        context.standing = Standing(state=state, reason=reason, since=now.unix)


_QUIET = {("training", "saving"), ("saving", "training"), ("training", "evaluating"), ("evaluating", "training")}
"""Changes of every few seconds: the status tells them, the log need not."""


def _say_daemon(context: Context, now: Moment) -> None:
    standing = context.standing
    watched = context.watched
    said = (standing.state, standing.reason, watched.slow if watched is not None else "")
    if said == context.memory.get("said") and now.boot - context.memory.get("said_at", float("-inf")) < EVERY_S:
        return
    holder = context.memory.get("watchdog_pid")
    files.write_json_atomically(
        context.layout.daemon_state,
        {
            "schema": SCHEMA,
            "pid": os.getpid(),
            "boot_id": attempts.boot_id(),
            "started_at": context.started_at,
            "state": standing.state,
            "reason": standing.reason,
            "since": standing.since,
            "updated_at": now.unix,
            "beat": now.boot,
            "watchdog_pid": holder,
            "slow": watched.slow if watched is not None else "",
            "limit": watched.limit.allowed if watched is not None and watched.limit is not None else "",
        },
    )
    context.memory["said"], context.memory["said_at"] = said, now.boot


def _say_status(context: Context, now: Moment) -> None:
    watched = context.watched
    looks: Any = (context.standing.state, context.standing.reason, watched.looks if watched is not None else None)
    age_s = now.boot - context.memory.get("status_at", float("-inf"))
    least_s = min(EVERY_S, max(AT_MOST_EVERY_S, COST_SHARE * context.memory.get("status_cost_s", 0.0)))
    if age_s < least_s or (looks == context.memory.get("status") and age_s < EVERY_S):
        return
    began = time.thread_time()
    shot = snapshot(context.layout, context.connection, now=now.unix)
    files.write_json_atomically(context.layout.status_file, training_status(shot))
    context.memory["status_cost_s"] = time.thread_time() - began
    context.memory["status"], context.memory["status_at"] = looks, now.boot


def pump_log(context: Context, now: Moment) -> None:
    """Copy what the trainers printed into logs/trainer.log, one attempt after the other."""
    if context.pump is None:
        context.pump = Pump(context.layout.log("trainer"), context.layout.state / "trainer_log.json")
    pump = context.pump
    latest = context.memory.get("pumped") or pump.attempt
    more = pump.pump(context.layout.attempt(latest) / "trainer.log", latest) if latest else False
    if not more:
        context.memory["pumped"] = overview.attempt_after(context.connection, latest) or latest


def is_pumped(context: Context, attempt: str) -> bool:
    """Return whether all that an ended attempt printed stands in logs/trainer.log, as far as it will."""
    pump = context.pump
    if pump is None:
        return False
    if pump.attempt == attempt:
        return pump.is_drained(context.layout.attempt(attempt) / "trainer.log")
    return not overview.is_later(context.connection, attempt, than=pump.attempt)
