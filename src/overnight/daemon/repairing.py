"""What the next attempt of a job does otherwise, where something can be done about the failure of the last one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from overnight.daemon.context import Context
from overnight.database import queue
from overnight.disk import attempts
from overnight.domain import bad_rows, micro_batch
from overnight.domain.attempt import Attempt, FailureKind, Report
from overnight.domain.config import Settings
from overnight.domain.job import Job
from overnight.domain.rehearsal import name_of_row


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """A change to the job, made in the same transaction as its retry."""

    words: str
    settings: dict[str, Any] | None = None  # frozen ones of the job
    accounting: dict[str, Any] | None = None  # of the job


def repair_of(context: Context, job: Job, attempt: Attempt, report: Report | None) -> Repair | None:
    """Return what can be done, or None."""
    if job.settings is None or job.start_step is None:
        return None
    if attempt.kind is FailureKind.CUDA_OOM:
        return _smaller_batch(context, job, job.settings, job.start_step, attempt, report)
    if attempt.kind is FailureKind.NAN_LOSS and report is not None and report.total is not None:
        queue.set_steps(context.connection, job.id, report.total - job.start_step)
        return _without_rows(context, job, job.settings, report)
    return None


def _smaller_batch(
    context: Context, job: Job, settings: dict[str, Any], start_step: int, attempt: Attempt, report: Report | None
) -> Repair | None:
    """Divide each step into more forward passes, where the device had no room for one in training."""
    heartbeat = attempts.read_heartbeat(context.layout.attempt(attempt.id))
    total = report.total if report is not None else heartbeat.total if heartbeat is not None else None
    if total is None:
        return None  # it did not come to train: the batch is not to blame
    queue.set_steps(context.connection, job.id, total - start_step)  # a quick one was never seen at work
    before = micro_batch.of_settings(settings)
    after = micro_batch.smaller(before)
    if after is None:
        return None
    words = (
        f"with {after} instead of {before} rows and passes in a step, the same rows in each step (the next job begins"
        " with what config.json says: set train.batch_size there to keep it small)"
    )
    return Repair(words=words, settings=micro_batch.with_batch(settings, after))


def _without_rows(context: Context, job: Job, settings: dict[str, Any], report: Report) -> Repair | None:
    """Leave the rows out that give no number, where that is the policy of the job."""
    if Settings.model_validate(settings).train.nan_rows != "skip":
        return None
    accounting = queue.accounting(context.connection, job.id)
    left_out = bad_rows.left_out(accounting.get("left_out", []), report.bad_rows, of=job.examples)
    if left_out is None:
        return None
    named = ", ".join(name_of_row(number, own=job.examples) for number in report.bad_rows[:20])
    words = f"without rows {named} (train.nan_rows is skip; {len(left_out)} of {job.examples} rows are left out now)"
    return Repair(words=words, accounting={**accounting, "left_out": left_out})
