"""What the working trainer holds in memory: one that leaks saves and leaves before the machine has nothing left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from overnight.daemon.context import Context, Moment, Watched
from overnight.daemon.wishes import Stop
from overnight.disk import files
from overnight.domain import memory
from overnight.domain.attempt import Attempt, Phase
from overnight.domain.errors import DiskError
from overnight.domain.memory import Footprint
from overnight.launchers.memory import resident_bytes, room_of

EVERY_S = 1.0
FIRST_STEPS = 5
"""So many steps make what an attempt needs: before them it still allocates."""

FILE = "footprint.json"
"""In the attempt directory: what this attempt held after its first steps, for the next loop."""


@dataclass(slots=True)
class Seen:
    """What the loop saw of one attempt's memory."""

    attempt: str
    since: float  # boot seconds
    settled_bytes: int = 0
    settled_at: float | None = None  # boot seconds
    started_s: float = 0.0
    next_look: float = 0.0  # boot seconds


def why_leave(context: Context, attempt: Attempt, watched: Watched, now: Moment) -> Stop | None:
    """Return why the trainer is to make room for a fresh one, or None where it may go on."""
    seen = context.memory.get("footprint")
    if not isinstance(seen, Seen) or seen.attempt != attempt.id:
        seen = context.memory["footprint"] = _remembered(context, attempt, now)
    heartbeat = watched.heartbeat
    if heartbeat is None or heartbeat.phase in (Phase.LOADING, Phase.EXITING) or watched.stop is not None:
        return None
    if now.boot < seen.next_look:
        return None
    seen.next_look = now.boot + EVERY_S
    held = resident_bytes(heartbeat.pid)
    if held is None:
        return None
    if seen.settled_at is None:
        _settle(context, attempt, seen, held, steps=heartbeat.step - (attempt.first_step or 0), now=now)
        return None
    footprint = Footprint(
        settled_bytes=seen.settled_bytes,
        resident_bytes=held,
        started_s=seen.started_s,
        worked_s=now.boot - seen.settled_at,
    )
    max_gb = context.limits.watch.max_memory_gb
    judged = memory.judge(footprint, room_of(heartbeat.pid), max_bytes=max_gb * 1e9 if max_gb is not None else None)
    if judged.is_ended:
        _say(context, attempt, judged.reason, held, now)
        return Stop(reason=judged.reason)
    if judged.is_told and context.memory.get("footprint_told") != attempt.id:
        context.memory["footprint_told"] = attempt.id
        _say(context, attempt, judged.reason, held, now)
    return None


def _say(context: Context, attempt: Attempt, reason: str, held: int, now: Moment) -> None:
    message = f"attempt {attempt.id}: {reason}"
    context.record(
        message, kind="attempt.memory", level="warning", at=now.unix, attempt=attempt.id, resident_bytes=held
    )


def _settle(context: Context, attempt: Attempt, seen: Seen, held: int, *, steps: int, now: Moment) -> None:
    """Take down what the attempt holds after its first steps."""
    seen.settled_bytes = max(seen.settled_bytes, held)
    if steps < FIRST_STEPS:
        return
    seen.settled_at = now.boot
    seen.started_s = now.boot - seen.since
    value = {"settled_bytes": seen.settled_bytes, "settled_at": now.boot, "started_s": seen.started_s}
    try:
        files.write_json_atomically(context.layout.attempt(attempt.id) / FILE, value)
    except DiskError:
        return  # the next loop looks anew


def _remembered(context: Context, attempt: Attempt, now: Moment) -> Seen:
    """Return what an earlier loop saw of this attempt: without it an adopted trainer's leak would look like need."""
    try:
        value: Any = files.read_json(context.layout.attempt(attempt.id) / FILE)
        return Seen(
            attempt=attempt.id,
            since=now.boot,
            settled_bytes=int(value["settled_bytes"]),
            settled_at=float(value["settled_at"]),
            started_s=float(value["started_s"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return Seen(attempt=attempt.id, since=now.boot)
