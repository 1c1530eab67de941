"""Attempt that ended badly -> its evidence in crashes/, before the attempt's own folder is tidied.

Evidence is best effort: a disk that refuses it is told of, and the job goes its way all the same.
"""

from __future__ import annotations

from dataclasses import replace

from overnight.daemon import cleanup, replaying
from overnight.daemon.context import Context, Moment
from overnight.database import queue
from overnight.disk import crashes, endings, evidence
from overnight.domain import crash
from overnight.domain.attempt import Attempt, FailureKind, Outcome
from overnight.domain.facts import Facts
from overnight.domain.job import Job, JobState

MEMORY = "drawn"


def is_drawn(job: Job | None, attempt: Attempt) -> bool:
    """Return whether the consequence of an ended attempt is drawn: its job went on to something else."""
    return job is None or job.state is not JobState.RUNNING or job.attempts > attempt.number


def expect(context: Context, attempt: Attempt) -> None:
    """Remember how an attempt was judged, and what its job's next state is, until the evidence is kept."""
    job = queue.find(context.connection, attempt.job)
    context.memory.setdefault(MEMORY, {})[attempt.id] = (attempt, job)


def keep_crashes(context: Context, now: Moment) -> None:
    """Keep the evidence of each attempt whose consequence is drawn, and mark it as settled.

    After the dispatch: syncing files takes time, and the next attempt is to start at once. Under a workspace that was
    moved away nothing is written, lest the folders be made anew at the old place: the next loop does it.
    """
    is_here = context.locks is None or context.locks.folder.is_in_place()  # it may have gone within this very tick
    if context.lost_at is not None or not is_here:
        return
    drawn: dict[str, tuple[Attempt, Job | None]] = context.memory.get(MEMORY, {})
    for attempt in queue.unsettled_attempts(context.connection):
        job = queue.find(context.connection, attempt.job)
        if not is_drawn(job, attempt):
            continue
        if job is not None and job.attempts > attempt.number:
            job = replace(job, reason="")  # it is about a later attempt
        judged, job = drawn.pop(attempt.id, (attempt, job))
        keep_evidence(context, judged, job, now)
        queue.set_settled(context.connection, attempt.id)
        cleanup.mark_untidied(context, attempt.id)
        replaying.compare_ended(context, attempt, now)


def keep_evidence(context: Context, attempt: Attempt, job: Job | None, now: Moment) -> None:
    """Keep what an attempt left, where it crashed, hung or was lost; ``job`` as it was when that was settled."""
    folder = context.layout.attempt(attempt.id)
    if attempt.outcome not in crash.BAD:
        hang = evidence.read_hang(folder)
        if hang is None or not hang.get("reason") or str(hang["reason"]) not in attempt.reason:
            return  # it was well, or only suspected for a moment
        attempt = replace(attempt, outcome=Outcome.HUNG, kind=FailureKind.HANG)  # it hung, and saved in the end
    try:
        ended = endings.read_ended(folder)
        made = crash.of_attempt(attempt, job, ended.facts if ended is not None else Facts())
        is_new = crashes.keep(context.layout.crashes, folder, attempt.id, made.to_json())
    except Exception as error:  # the border of evidence: whatever it is, the run goes on without it
        message = f"the evidence of attempt {attempt.id} cannot be kept: {error}"
        context.tell("evidence", message, kind="crash.unkept", at=now.unix, attempt=attempt.id)
        return
    context.forget("evidence")
    if is_new:
        context.record(
            f"attempt {attempt.id}: {made.kind.value} at step {made.step}; evidence in crashes/{made.id};"
            f" what helps: {made.remedy}",
            kind="crash", level="warning", at=now.unix, attempt=attempt.id, failure=made.kind.value,
            action=made.action.value,
        )  # fmt: skip
        context.memory["crashes_untidied"] = True
