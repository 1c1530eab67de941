"""Running attempt -> healthy, hung or gone; what the operator wants of it is passed on here."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from overnight.daemon import ending, wishes
from overnight.daemon.context import Context, Moment, Watched
from overnight.daemon.wishes import Stop
from overnight.database import queue
from overnight.disk import attempts, logs
from overnight.disk.attempts import Notice, Wish
from overnight.domain import health
from overnight.domain.attempt import Attempt, AttemptMove, AttemptState, Phase
from overnight.domain.config import Settings
from overnight.domain.errors import DiskError
from overnight.domain.failure import EndedBy
from overnight.launchers.base import Exited, Launcher

TOUCH_S = 5.0
"""So often the trainer is told that somebody watches it."""

LONGEST_TICK_S = 2.0
"""What a tick may count as watched time: after a longer gap it was the loop that stood still."""

NOTICE, TERM, KILL = 1, 2, 3


def watch_attempts(context: Context, now: Moment) -> None:
    """Look at each attempt that has not ended."""
    for attempt in queue.open_attempts(context.connection):
        watched = context.watched
        if watched is None or watched.attempt != attempt.id:
            watched = context.watched = Watched(attempt=attempt.id, handle=attempt.handle, ticked_at=now.boot)
        _watch(context, attempt, watched, now)


def _watch(context: Context, attempt: Attempt, watched: Watched, now: Moment) -> None:
    folder = context.layout.attempt(attempt.id)
    if attempt.handle is None:
        ending.end(context, attempt, watched, Exited(exit_code=None, signal=None), now)
        return
    launcher = launcher_of(context, attempt)
    found = launcher.poll(attempt.handle)  # before its files are read: what it wrote last is then seen
    _hear(context, attempt, watched, folder, now)
    if isinstance(found, Exited):
        ending.end(context, attempt, watched, found, now)
        return
    if not found.is_ours:
        message = f"attempt {attempt.id} goes on: its trainer (pid {found.pid}) is adopted"
        context.tell("adopted", message, kind="attempt.adopted", level="info", at=now.unix, attempt=attempt.id)
    try:
        _note(context, attempt, watched, now)
        if now.boot - watched.touched_at >= TOUCH_S:
            attempts.touch_watched(folder)
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


def _hear(context: Context, attempt: Attempt, watched: Watched, folder: Path, now: Moment) -> None:
    """Read the heartbeat where it is new, and count for how long nothing moved."""
    passed_s = min(now.boot - watched.ticked_at, LONGEST_TICK_S)
    watched.ticked_at = now.boot
    watched.unmoved_s += max(0.0, passed_s)
    try:
        facts = os.stat(folder / "heartbeat.json")
    except OSError:
        return
    looks = (facts.st_ino, facts.st_mtime_ns)
    heartbeat = attempts.read_heartbeat(folder) if looks != watched.looks else None
    if heartbeat is None or heartbeat.attempt != attempt.id:
        return
    before, watched.heartbeat, watched.looks = watched.heartbeat, heartbeat, looks
    if before is None or (before.progress, before.phase) != (heartbeat.progress, heartbeat.phase):
        watched.unmoved_s = 0.0


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
    watch = context.limits.watch
    if watched.stop is None:
        stop, ended_by = wanted, EndedBy.WISH
        if stop is None:
            phase = watched.heartbeat.phase if watched.heartbeat is not None else None
            verdict = health.judge(phase=phase, unmoved_s=watched.unmoved_s, watch=watch)
            if not verdict.is_stuck:
                return
            stop, ended_by = Stop(reason=verdict.reason), EndedBy.STUCK
            told = f"attempt {attempt.id} is stuck: {verdict.reason}"
            context.record(told, kind="attempt.stuck", level="error", at=now.unix, attempt=attempt.id)
            logs.add_line(context.layout.log("anti-stuck"), f"{told}; it is ended, its job is tried again")
        _ask(context, attempt, watched, launcher, stop, ended_by, now)
    elif wanted is not None and wanted.is_immediate:
        watched.stop = wanted
    _escalate(context, attempt, watched, launcher, watch.grace_s, now)


def _ask(
    context: Context,
    attempt: Attempt,
    watched: Watched,
    launcher: Launcher,
    stop: Stop,
    ended_by: EndedBy,
    now: Moment,
) -> None:
    """Ask the trainer to save and leave."""
    watched.stop, watched.stop_at, watched.ended_by, watched.stage = stop, now.boot, ended_by, NOTICE
    state = AttemptState.STARTING if watched.heartbeat is None else AttemptState.RUNNING
    moved = queue.move_attempt(
        context.connection, attempt.id, AttemptMove.STOP, expected=state, reason=stop.reason, now=now.unix
    )
    if moved:
        context.record(
            f"attempt {attempt.id} is asked to leave: {stop.reason}", kind="attempt.stop", at=now.unix,
            attempt=attempt.id,
        )  # fmt: skip
    if stop.is_immediate:
        return
    try:
        notice = Notice(wish=Wish.SAVE_AND_LEAVE, reason=stop.reason)
        attempts.write_notice(context.layout.attempt(attempt.id), notice)
    except DiskError:
        is_heard = False  # a full disk takes no notice; the signal says the same
    else:
        # while it loads it reads no notice, and has nothing to save: the signal ends that at once
        is_heard = watched.heartbeat is not None and watched.heartbeat.phase is not Phase.LOADING
    if not is_heard:
        watched.stage = TERM
        launcher.stop(watched.handle or "")


def _escalate(
    context: Context, attempt: Attempt, watched: Watched, launcher: Launcher, grace_s: float, now: Moment
) -> None:
    """Notice, after a grace TERM, after another KILL; what is stuck heeds no notice and gets TERM at once."""
    assert watched.stop is not None
    assert attempt.handle is not None
    waited_s = now.boot - watched.stop_at + (grace_s if watched.ended_by is EndedBy.STUCK else 0.0)
    if watched.stop.is_immediate or waited_s >= 2 * grace_s:
        launcher.kill(attempt.handle)
        if watched.stage == KILL and waited_s >= 3 * grace_s and not watched.complained:
            watched.complained = True
            context.record(
                f"attempt {attempt.id} cannot be killed: its process is frozen or waits in the kernel; nothing else is"
                " started beside it",
                kind="attempt.unkillable", level="error", at=now.unix, attempt=attempt.id,
            )  # fmt: skip
        watched.stage = KILL
    elif waited_s >= grace_s and watched.stage < TERM:
        watched.stage = TERM
        launcher.stop(attempt.handle)
