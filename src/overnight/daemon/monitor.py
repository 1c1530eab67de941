"""Running attempt -> healthy, hung or gone; what the operator wants of it is passed on here."""

from __future__ import annotations

import sqlite3

from overnight.daemon import anti_stuck, ending, footprint, leaving, room, wishes
from overnight.daemon import facts as grounds
from overnight.daemon.context import Context, Moment, Watched
from overnight.daemon.wishes import Stop
from overnight.database import queue
from overnight.disk import attempts, paces
from overnight.domain import vitals
from overnight.domain.attempt import Attempt, AttemptMove, AttemptState
from overnight.domain.config import Settings
from overnight.domain.errors import DiskError
from overnight.domain.failure import EndedBy
from overnight.domain.pace import subject_of
from overnight.launchers.base import Exited, Launcher

TOUCH_S = 5.0
"""So often the trainer is told that somebody watches it."""


def watch_attempts(context: Context, now: Moment) -> None:
    """Look at each attempt that has not ended."""
    for attempt in queue.open_attempts(context.connection):
        watched = context.watched
        if watched is None or watched.attempt != attempt.id:
            watched = context.watched = _begin(context, attempt, now)
        _watch(context, attempt, watched, now)


def _begin(context: Context, attempt: Attempt, now: Moment) -> Watched:
    """Return the memory of an attempt that was not looked at before, with what was learnt from others like it."""
    job = queue.find(context.connection, attempt.job)
    subject = subject_of(job.settings) if job is not None and job.settings else ""
    return Watched(
        attempt=attempt.id,
        handle=attempt.handle,
        ticked_at=now.boot,
        begun_at=now.boot,
        from_start=attempt.state is AttemptState.STARTING and now.unix - attempt.started_at < vitals.LOST_S,
        subject=subject,
        paces=paces.read(context.layout, subject),
    )


def _watch(context: Context, attempt: Attempt, watched: Watched, now: Moment) -> None:
    folder = context.layout.attempt(attempt.id)
    if attempt.handle is None:
        ending.end(context, attempt, watched, Exited(exit_code=None, signal=None), now)
        return
    launcher = launcher_of(context, attempt)
    found = launcher.poll(attempt.handle)  # before its files are read: what it wrote last is then seen
    anti_stuck.hear(context, attempt, watched, launcher, now)
    room.tell_wait(context, attempt.id, watched.heartbeat.waits if watched.heartbeat is not None else "", now)
    if isinstance(found, Exited):
        if watched.ended_by is EndedBy.STUCK:
            leaving.tell_gone(context, watched, found, now)
        ending.end(context, attempt, watched, found, now)
        return
    if not found.is_ours:
        message = f"attempt {attempt.id} goes on: its trainer (pid {found.pid}) is adopted"
        context.tell("adopted", message, kind="attempt.adopted", level="info", at=now.unix, attempt=attempt.id)
    try:
        _note(context, attempt, watched, now)
        if now.boot - watched.touched_at >= TOUCH_S:
            attempts.touch_watched(folder)
            grounds.note_life(folder, found.pid, now)
            watched.touched_at = now.boot
    except (DiskError, sqlite3.Error) as error:  # a full disk must not blind the rest of the watch
        context.tell("notes", f"cannot write down how attempt {attempt.id} goes: {error}", kind="disk", at=now.unix)
    else:
        context.forget("notes")
    _judge(context, attempt, watched, launcher, now)


def launcher_of(context: Context, attempt: Attempt) -> Launcher:
    """Return the launcher of an attempt: that of the settings frozen into its job."""
    if context.launcher is None:
        job = queue.find(context.connection, attempt.job)
        frozen = Settings.model_validate(job.settings) if job is not None and job.settings else context.limits
        context.launcher = context.launcher_of(frozen.launcher.kind)
    return context.launcher


def _note(context: Context, attempt: Attempt, watched: Watched, now: Moment) -> None:
    """Write down what the heartbeat says and the database does not know yet."""
    heartbeat = watched.heartbeat
    if heartbeat is None:
        return
    if attempt.state is AttemptState.STARTING:
        queue.move_attempt(
            context.connection,
            attempt.id,
            AttemptMove.HEARTBEAT,
            expected=AttemptState.STARTING,
            reason="the trainer works",
            now=now.unix,
        )
    if heartbeat.total is not None and watched.noted_total != heartbeat.total:
        _note_steps(context, attempt, heartbeat.total)
        watched.noted_total = heartbeat.total
    if heartbeat.checkpoint is not None and watched.noted_commit != heartbeat.checkpoint:
        ending.note_commit(context, attempt, heartbeat.checkpoint, now)
        watched.noted_commit = heartbeat.checkpoint


def _note_steps(context: Context, attempt: Attempt, total: int) -> None:
    job = queue.find(context.connection, attempt.job)
    if job is not None and job.start_step is not None and job.steps != total - job.start_step:
        queue.set_steps(context.connection, job.id, total - job.start_step)


def _judge(context: Context, attempt: Attempt, watched: Watched, launcher: Launcher, now: Moment) -> None:
    """Pass on what the operator wants; end what is stuck."""
    wanted = wishes.why_stop(context.wishes, job=attempt.job, signals=context.signals)
    wanted = wanted or footprint.why_leave(context, attempt, watched, now)
    if watched.stop is None:
        if wanted is not None:
            leaving.ask(context, attempt, watched, launcher, wanted, EndedBy.WISH, now)
        else:
            found = anti_stuck.examine(context, attempt, watched, launcher, now)
            if found is None:
                return
            leaving.ask(context, attempt, watched, launcher, Stop(reason=found.reason), EndedBy.STUCK, now)
    else:
        anti_stuck.keep_awake(context, attempt, watched, launcher, now)
        if wanted is not None and wanted.is_immediate:
            watched.stop = wanted
    leaving.escalate(context, attempt, watched, launcher, context.limits.watch.grace_s, now)
