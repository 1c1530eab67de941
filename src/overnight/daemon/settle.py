"""Ended attempt -> retry, give up, set aside, or done; then its file is put where people look for it.

Every change names the state that it expects: what an interrupted settling had already done is not done twice.
"""

from __future__ import annotations

from dataclasses import replace

from overnight.daemon import aside, crashing, filing, gatekeeping, repairing
from overnight.daemon.context import Context, Moment
from overnight.database import crashes as stored
from overnight.database import intents, queue
from overnight.disk import attempts, trust
from overnight.domain import gate, hold, retry
from overnight.domain.attempt import Attempt, FailureKind, Outcome, Report
from overnight.domain.checkpoint import CheckpointReport, Verdict
from overnight.domain.job import Job, JobMove, JobState
from overnight.domain.retry import GiveUp


def settle_attempts(context: Context, now: Moment) -> None:
    """Draw the consequence of each ended attempt, then file what has ended.

    It is marked as settled a little later, once its evidence is kept: the next attempt does not wait for that.
    """
    for attempt in queue.unsettled_attempts(context.connection):
        judged = _settle(context, attempt, now)
        if judged is not None:
            crashing.expect(context, judged)
    _withdraw_stale(context, now)
    aside.accept_begun(context, now)
    aside.drop_stale(context, now)
    filing.file_ended(context, now)


def _settle(context: Context, attempt: Attempt, now: Moment) -> Attempt | None:
    """Return the attempt as judged, where the consequence is drawn now; None while a checkpoint is still being read."""
    job = queue.find(context.connection, attempt.job)
    if crashing.is_drawn(job, attempt):
        return None
    assert job is not None
    report = attempts.read_report(context.layout.attempt(attempt.id))
    if aside.is_begun(context, job):
        return attempt if aside.finish(context, job, now) else None
    if attempt.outcome is Outcome.COMPLETED:
        final = _final_checkpoint(context, job, attempt, report)
        if final is None:
            return None
        if final.verdict is Verdict.VERIFIED:
            decision = gatekeeping.judge(context, job, report, now)
            _account(context, job, report)
            if decision is not None and decision.verdict is gate.Verdict.BLOCKED:
                aside.begin(context, job, step=final.step, reason=decision.reason, now=now)
                return attempt if aside.finish(context, job, now) else None
            _finish(context, job, attempt, now)
            return attempt
        reason = f"the checkpoint of its last step is {final.verdict.value}: {final.reason}"
        attempt = replace(
            attempt, outcome=Outcome.CRASHED, kind=FailureKind.CHECKPOINT_CORRUPT, reason=reason
        )  # the older one is taken, and the rest of the job is trained again
    if not _obey(context, job, attempt, now):
        _retry(context, job, attempt, report, now)
    return attempt


def _final_checkpoint(context: Context, job: Job, attempt: Attempt, report: Report | None) -> CheckpointReport | None:
    """Return the judgement on the checkpoint that ends a job, None while it is read."""
    step = report.checkpoint if report is not None and report.checkpoint is not None else attempt.last_step or 0
    folder = context.layout.checkpoint(step)
    answer = context.errands.ask(f"final {attempt.id}", lambda: trust.verify(context.layout, folder))
    if answer is None:
        return None
    found = answer.value
    manifest = found.manifest
    if found.verdict is not Verdict.VERIFIED or manifest is None:
        return found
    if manifest.job != job.id or manifest.job_step != manifest.job_total:
        reason = f"it is step {manifest.job_step} of {manifest.job_total} of job {manifest.job}"
        return replace(found, verdict=Verdict.FOREIGN, reason=reason)
    return found


def _account(context: Context, job: Job, report: Report | None) -> None:
    if report is not None:
        queue.set_steps(context.connection, job.id, report.job_step)  # a quick job was never seen at work
        counted = queue.accounting(context.connection, job.id)
        trained = {
            "tokens": report.tokens,
            "steps": report.job_step,
            "loss": report.loss,
            "eval_loss": report.eval_loss,
            "samples": report.samples,
            "notes": report.notes,
        }
        queue.set_accounting(context.connection, job.id, {**counted, "trained": trained})


def _finish(context: Context, job: Job, attempt: Attempt, now: Moment) -> None:
    moved = queue.move(
        context.connection, job.id, JobMove.FINISH, expected=JobState.RUNNING, reason=attempt.reason or "trained",
        now=now.unix, attempt=attempt.id,
    )  # fmt: skip
    if moved:
        context.log.info("%s (job %d) is done", job.file, job.id)


def _obey(context: Context, job: Job, attempt: Attempt, now: Moment) -> bool:
    """Set the job aside where the operator wants that; return whether it is."""
    wanted = context.wishes
    if wanted.cancel == job.id:
        verb = JobMove.CANCEL
    elif wanted.skip == job.id:
        verb = JobMove.SKIP
    else:
        return False
    where = f" at step {attempt.last_step}" if attempt.last_step is not None else ""
    queue.move(
        context.connection, job.id, verb, expected=JobState.RUNNING, reason=f"{wanted.why or verb.value}{where}",
        now=now.unix, attempt=attempt.id,
    )  # fmt: skip
    return True


def _retry(context: Context, job: Job, attempt: Attempt, report: Report | None, now: Moment) -> None:
    if attempt.outcome is Outcome.PREEMPTED:
        queue.move(
            context.connection, job.id, JobMove.RETRY, expected=JobState.RUNNING,
            reason=f"interrupted, goes on from the last checkpoint: {attempt.reason}", now=now.unix, not_before=0,
            attempt=attempt.id,
        )  # fmt: skip
        filing.show_waiting(context, job, now)
        return
    history = queue.attempts_since_submit(context.connection, job.id)
    repair = repairing.repair_of(context, job, attempt, report)
    decision = retry.decide(
        [*[past for past in history if past.number < attempt.number], attempt],
        checkpoint=report.checkpoint if report is not None else _reached(context, attempt),
        charged=report is not None and report.charged,
        charged_before=job.charged,
        max_attempts=context.limits.queue.max_attempts,
        now=now.unix,
        repair=repair.words if repair is not None else None,
        is_shared=attempt.kind is not FailureKind.CUDA_OOM and hold.is_shared(stored.newest_ended(context.connection)),
    )
    verb = JobMove.GIVE_UP if isinstance(decision, GiveUp) else JobMove.RETRY
    moved = queue.move(
        context.connection, job.id, verb, expected=JobState.RUNNING, reason=decision.reason, now=now.unix,
        level="error" if verb is JobMove.GIVE_UP else "warning",
        not_before=None if isinstance(decision, GiveUp) else decision.not_before,
        charge=decision.charge, settings=repair.settings if repair is not None else None,
        accounting=repair.accounting if repair is not None else None, attempt=attempt.id,
        failure=attempt.kind.value if attempt.kind else None,
    )  # fmt: skip
    if moved:
        context.log.warning("%s (job %d): %s", job.file, job.id, decision.reason)
    if verb is JobMove.RETRY:
        filing.show_waiting(context, job, now)


def _reached(context: Context, attempt: Attempt) -> int | None:
    heartbeat = attempts.read_heartbeat(context.layout.attempt(attempt.id))
    return heartbeat.checkpoint if heartbeat is not None else None


def _withdraw_stale(context: Context, now: Moment) -> None:
    """Take back wishes about a job that has ended: they must never hit another one."""
    for name, wanted in (("cancel", context.wishes.cancel), ("skip", context.wishes.skip)):
        if wanted is None:
            continue
        job = queue.find(context.connection, wanted)
        if job is not None and name == "cancel" and job.state is JobState.QUEUED:
            queue.move(
                context.connection, job.id, JobMove.CANCEL, expected=JobState.QUEUED,
                reason=context.wishes.why or "cancelled", now=now.unix,
            )  # fmt: skip
            continue
        if job is None or job.state not in (JobState.QUEUED, JobState.RUNNING):
            intents.withdraw(context.connection, name)
            context.log.info("%s of job %s is withdrawn: the job is over", name, wanted)
