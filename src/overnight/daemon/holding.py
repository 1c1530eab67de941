"""What keeps a job, or the whole queue, from being launched after failures that are not its own."""

from __future__ import annotations

import os

from overnight.daemon.context import Context, Moment
from overnight.database import crashes, queue
from overnight.disk import endings
from overnight.domain import facts, hold
from overnight.domain.attempt import FailureKind
from overnight.domain.job import Job
from overnight.launchers.memory import room_of


def why_wait(context: Context, job: Job, now: Moment) -> str | None:
    """Return why a job is not launched now, or None."""
    held = hold.judge(crashes.newest_ended(context.connection), now=now.unix)
    return held.reason if held is not None else _why_memory(context, job, now)


def jobs_to_avoid(context: Context) -> frozenset[int]:
    """Return jobs that come after all others for now: they failed alike, one after the other."""
    return hold.failing_alike(crashes.newest_ended(context.connection))


def _why_memory(context: Context, job: Job, now: Moment) -> str | None:
    history = queue.attempts_since_submit(context.connection, job.id)
    if not history or history[-1].kind is not FailureKind.HOST_OOM:
        return None
    ended = endings.read_ended(context.layout.attempt(history[-1].id))
    room = room_of(os.getpid())
    return hold.wait_for_memory(
        history,
        needed_bytes=facts.memory_held(ended.facts) if ended is not None else None,
        available_bytes=room.available_bytes if room is not None else None,
        now=now.unix,
    )
