"""A trainer that shall leave: a notice, after a grace TERM, after another KILL. What is stuck gets TERM at once."""

from __future__ import annotations

from overnight.daemon.context import Context, Moment, Watched
from overnight.daemon.wishes import Stop
from overnight.database import queue
from overnight.disk import attempts, logs
from overnight.disk.attempts import Notice, Wish
from overnight.domain.attempt import Attempt, AttemptMove, AttemptState, Phase
from overnight.domain.errors import DiskError
from overnight.domain.failure import EndedBy
from overnight.launchers.base import Exited, Launcher

NOTICE, TERM, KILL = 1, 2, 3

STUCK_GRACE_S = 5.0
"""Who was stuck and does not move within so long after TERM is killed; who moves again has the whole grace to save."""


def ask(
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
    watched.progress_at_stop = watched.heartbeat.progress if watched.heartbeat is not None else None
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
    if not is_heard or ended_by is EndedBy.STUCK:
        _terminate(context, watched, launcher)


def escalate(
    context: Context, attempt: Attempt, watched: Watched, launcher: Launcher, grace_s: float, now: Moment
) -> None:
    """Go on from what was done so far, as the time passes."""
    assert watched.stop is not None
    assert attempt.handle is not None
    waited_s = now.boot - watched.stop_at
    patience_s = 2 * grace_s if watched.ended_by is not EndedBy.STUCK else _grace_of_stuck(watched, grace_s)
    if watched.stop.is_immediate or waited_s >= patience_s:
        launcher.kill(attempt.handle)
        if watched.stage < KILL:
            watched.stage, watched.killed_at = KILL, now.boot
            _tell(context, watched, f"KILL: attempt {attempt.id} did not leave within {waited_s:.1f} s")
        elif now.boot - watched.killed_at >= grace_s and not watched.complained:
            watched.complained = True
            message = (
                f"attempt {attempt.id} cannot be killed: its process is frozen or waits in the kernel; nothing else is"
                " started beside it"
            )
            context.record(message, kind="attempt.unkillable", level="error", at=now.unix, attempt=attempt.id)
            logs.add_line(context.layout.log("anti-stuck"), message)
    elif waited_s >= grace_s and watched.stage < TERM:
        _terminate(context, watched, launcher)


def _grace_of_stuck(watched: Watched, grace_s: float) -> float:
    progress = watched.heartbeat.progress if watched.heartbeat is not None else None
    return grace_s if progress != watched.progress_at_stop else min(grace_s, STUCK_GRACE_S)


def _terminate(context: Context, watched: Watched, launcher: Launcher) -> None:
    watched.stage = TERM
    launcher.stop(watched.handle or "")
    _tell(context, watched, f"TERM: attempt {watched.attempt} is to save at a step border and leave, if it still can")


def tell_gone(context: Context, watched: Watched, exited: Exited, now: Moment) -> None:
    """Say that what was stuck is gone."""
    how = f"by signal {exited.signal}" if exited.signal else f"with exit code {exited.exit_code}"
    _tell(context, watched, f"gone: attempt {watched.attempt} ended {how} after {now.boot - watched.stop_at:.1f} s")


def _tell(context: Context, watched: Watched, message: str) -> None:
    """Write into the log of the anti-stuck monitor; a wish of the operator is none of its matters."""
    if watched.ended_by is EndedBy.STUCK:
        logs.add_line(context.layout.log("anti-stuck"), message)
