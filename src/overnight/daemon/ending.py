"""Attempt that is gone -> ended, with what it died of."""

from __future__ import annotations

from overnight.daemon.context import Context, Moment, Watched
from overnight.database import events, queue
from overnight.disk import attempts, locked
from overnight.domain.attempt import Attempt, AttemptState, Outcome
from overnight.domain.failure import EndedBy, Evidence, classify
from overnight.launchers.base import Exited


def end(context: Context, attempt: Attempt, watched: Watched, exited: Exited, now: Moment) -> None:
    """Write down how an attempt ended."""
    report = attempts.read_report(context.layout.attempt(attempt.id))
    if report is not None and report.attempt != attempt.id:
        report = None
    heartbeat = watched.heartbeat
    asked = attempt.state is AttemptState.STOPPING  # perhaps by an earlier loop
    ended_by = watched.ended_by if watched.stop is not None or not asked else EndedBy.WISH
    ending = classify(
        Evidence(
            report=report,
            exit_code=exited.exit_code,
            signal=exited.signal,
            launched=attempt.handle is not None,
            heard=heartbeat is not None,
            ended_by=ended_by,
            reason=watched.stop.reason if watched.stop is not None else attempt.reason,
        )
    )
    committed = report.checkpoint if report is not None else heartbeat.checkpoint if heartbeat is not None else None
    if committed is not None:
        note_commit(context, attempt, committed, now)
    if report is not None:
        step: int | None = report.step
    else:
        step = heartbeat.step if heartbeat is not None else attempt.first_step
    queue.end_attempt(
        context.connection,
        attempt.id,
        outcome=ending.outcome,
        kind=ending.kind,
        reason=ending.reason,
        exit_code=exited.exit_code,
        signal=exited.signal,
        last_step=step,
        now=now.unix,
    )
    level = "info" if ending.outcome in (Outcome.COMPLETED, Outcome.PREEMPTED) else "warning"
    context.log.log(30 if level == "warning" else 20, "attempt %s %s: %s", attempt.id, ending.outcome, ending.reason)
    context.watched = None
    context.launcher = None


def note_commit(context: Context, attempt: Attempt, step: int, now: Moment) -> None:
    """Write into the history, once, that a checkpoint was committed: no later start may forget it."""
    last = events.newest_of(context.connection, "checkpoint.committed")
    if last is None or last["data"].get("step") != step:
        context.record(
            f"checkpoint at step {step}", kind="checkpoint.committed", at=now.unix, step=step, attempt=attempt.id
        )
        locked.refresh_quietly(context.layout)
