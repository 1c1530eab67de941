"""Attempt that is gone -> ended, with what it died of."""

from __future__ import annotations

from pathlib import Path

from overnight.daemon.context import Context, Moment, Watched
from overnight.database import queue
from overnight.database.trained import is_commit_known
from overnight.disk import attempts, crashes, endings, evidence, locked
from overnight.disk.endings import Ended
from overnight.domain.attempt import Attempt, AttemptState, FailureKind, Outcome, Report
from overnight.domain.crash_verdict import classify_log
from overnight.domain.facts import Facts
from overnight.domain.failure import OUTSIDE_SIGNALS, EndedBy, Evidence, classify
from overnight.launchers.base import Exited
from overnight.status import deaths

NO_CAUSE = frozenset({FailureKind.NONE, FailureKind.KILLED_BY_SIGNAL, FailureKind.SEGFAULT, FailureKind.CODE_ERROR})
"""What a log says that the kernel says better, or that says nothing."""

LINE_LIMIT = 300


def end(context: Context, attempt: Attempt, watched: Watched, exited: Exited, now: Moment) -> None:
    """Write down how an attempt ended."""
    folder = context.layout.attempt(attempt.id)
    report = _report_of(folder, attempt)
    ended = _how(context, folder, attempt, watched, exited, report, now)
    heartbeat = watched.heartbeat
    asked = attempt.state is AttemptState.STOPPING  # perhaps by an earlier loop
    ended_by = watched.ended_by
    if watched.stop is None and asked:
        ended_by = EndedBy.STUCK if _was_stuck(folder, attempt) else EndedBy.WISH
    is_told = report is not None or ended.signal in OUTSIDE_SIGNALS  # who killed it did not write into its log
    kind, line = (None, "") if is_told else _log_of(folder, ended)
    ending = classify(
        Evidence(
            report=report,
            exit_code=ended.exit_code,
            signal=ended.signal,
            launched=attempt.handle is not None,
            heard=heartbeat is not None,
            ended_by=ended_by,
            reason=watched.stop.reason if watched.stop is not None else attempt.reason,
            facts=ended.facts,
            log_kind=kind,
            log_line=line,
        )
    )
    committed = report.checkpoint if report is not None else heartbeat.checkpoint if heartbeat is not None else None
    if committed is not None:
        note_commit(context, attempt, committed, now)
    step = report.step if report is not None else heartbeat.step if heartbeat is not None else attempt.first_step
    queue.end_attempt(
        context.connection,
        attempt.id,
        outcome=ending.outcome,
        kind=ending.kind,
        reason=ending.reason,
        exit_code=ended.exit_code,
        signal=ended.signal,
        last_step=step,
        now=now.unix,
        ended_at=ended.at,
    )
    level = "info" if ending.outcome in (Outcome.COMPLETED, Outcome.PREEMPTED) else "warning"
    context.log.log(30 if level == "warning" else 20, "attempt %s %s: %s", attempt.id, ending.outcome, ending.reason)
    for note in report.notes if report is not None else ():
        context.record(
            f"attempt {attempt.id}: {note}", kind="attempt.note", level="warning", at=now.unix, attempt=attempt.id
        )
    context.watched = None
    context.launcher = None


def _was_stuck(folder: Path, attempt: Attempt) -> bool:
    """Return whether an earlier loop asked an attempt to leave because it was stuck."""
    hang = evidence.read_hang(folder)
    return hang is not None and bool(hang.get("reason")) and hang.get("reason") == attempt.reason


def _report_of(folder: Path, attempt: Attempt) -> Report | None:
    report = attempts.read_report(folder)
    return report if report is not None and report.attempt == attempt.id else None


def _log_of(folder: Path, ended: Ended) -> tuple[FailureKind | None, str]:
    """Return what the log speaks of, and the line that says so: asked for only where the trainer left no report."""
    text = crashes.safe_text(crashes.read_tail(folder / crashes.LOG, crashes.LOG_TAIL_BYTES))
    verdict = classify_log(text.splitlines(), exit_code=ended.exit_code, signal=ended.signal)
    if verdict.kind in NO_CAUSE or verdict.is_guess or not verdict.evidence:
        return None, ""
    return verdict.kind, verdict.evidence[0].text.strip()[:LINE_LIMIT]


def _how(
    context: Context,
    folder: Path,
    attempt: Attempt,
    watched: Watched,
    exited: Exited,
    report: Report | None,
    now: Moment,
) -> Ended:
    """Return how it ended: as noted by a loop that died after it, else with the facts gathered now."""
    if report is not None and report.outcome in (Outcome.COMPLETED, Outcome.PREEMPTED):
        return Ended(exit_code=exited.exit_code, signal=exited.signal, at=now.unix, facts=Facts())
    noted = endings.read_ended(folder)
    if noted is not None:
        return noted
    was_unwatched = watched.touched_at == float("-inf")
    facts = deaths.gather(
        folder, context.layout.root, attempt, watched.heartbeat or attempts.read_heartbeat(folder),
        was_unwatched=was_unwatched, signal=exited.signal, now=now.unix, boot=now.boot,
    )  # fmt: skip
    is_seen = exited.exit_code is not None or exited.signal is not None or not was_unwatched
    if report is not None:
        at = min(report.ended_at, now.unix)
    elif is_seen and facts.booted_at is None:
        at = now.unix
    else:
        at = deaths.last_sign(folder, attempt, facts, now=now.unix)
    ended = Ended(exit_code=exited.exit_code, signal=exited.signal, at=at, facts=facts)
    endings.write_ended(folder, ended)
    return ended


def note_commit(context: Context, attempt: Attempt, step: int, now: Moment) -> None:
    """Write into the history, once, that a checkpoint was committed: no later start may forget it."""
    if not is_commit_known(context.connection, attempt.id, step):
        context.record(
            f"checkpoint at step {step}", kind="checkpoint.committed", at=now.unix, step=step, attempt=attempt.id
        )
        locked.refresh_quietly(context.layout)
