"""A job that the gate blocks -> kept aside whole; the model stands where it stood before. And the way back.

The decision is written first (state "moving" or "accepting"), then the checkpoints are moved, then it is done: whoever
comes after a crash goes on. Until the last checkpoint has moved the model is the old one, afterwards the new one.
"""

from __future__ import annotations

from overnight.daemon import locks
from overnight.daemon.context import Context, Moment
from overnight.database import candidates as stored
from overnight.disk import candidates, checkpoints, files, locked
from overnight.domain.job import Job
from overnight.publishing import accepting


def is_begun(context: Context, job: Job) -> bool:
    """Return whether a job is being kept aside: an earlier loop has died over it."""
    known = stored.find(context.connection, job.id)
    return known is not None and known.state == stored.MOVING


def begin(context: Context, job: Job, *, step: int, reason: str, now: Moment) -> None:
    """Decide that a job is kept aside."""
    parent = candidates.digest_of(context.layout, job.start_step or 0)
    stored.begin(context.connection, job, parent=parent, step=step, reason=reason, now=now.unix)


def finish(context: Context, job: Job, now: Moment) -> bool:
    """Move a job's checkpoints aside and say so; False while somebody else is at the checkpoints. Raises DiskError."""
    candidate = stored.find(context.connection, job.id)
    assert candidate is not None
    lock = files.Lock(context.layout.checkpoints_lock)
    if not lock.acquire(holder={**locks.holder(now.unix), "what": f"job {job.id} is kept aside"}):
        return False
    try:
        folder = candidates.folder_of(context.layout, job.id, job.attempts)
        candidates.drop(context.layout, job.id, but=folder)  # of an earlier life of the job
        note = {"job": job.id, "file": job.file, "reason": candidate.reason, "step": candidate.step}
        candidates.move_aside(
            context.layout, folder, job=job.id, start_step=candidate.start_step,
            note={**note, "start_step": candidate.start_step, "parent": candidate.parent, "at": candidate.at},
        )  # fmt: skip
        newest = checkpoints.newest_complete(context.layout.model)
        if newest is None:
            locked.let_go(context.layout)
        else:
            locked.refresh_quietly(context.layout)
        stored.keep(
            context.connection, candidate, reason=f"kept aside by the gate: {candidate.reason}; {to_do(job.id)}",
            checkpoint=newest.step if newest is not None else None, now=now.unix,
        )  # fmt: skip
    finally:
        lock.release()
    context.log.error("%s (job %d) is kept aside: %s; %s", job.file, job.id, candidate.reason, to_do(job.id))
    return True


def to_do(job: int) -> str:
    """Return what can be done about a job that is kept aside."""
    return f"overnight accept {job} makes it the model all the same, overnight discard {job} drops it"


def accept_begun(context: Context, now: Moment) -> None:
    """Bring to its end what an ``accept`` has begun that died over it."""
    for candidate in stored.in_state(context.connection, stored.ACCEPTING):
        lock = files.Lock(context.layout.checkpoints_lock)
        if not lock.acquire(holder={**locks.holder(now.unix), "what": f"job {candidate.job} is accepted"}):
            return
        try:
            accepting.carry_out(context.layout, context.connection, candidate, now=now.unix)
        finally:
            lock.release()


def drop_stale(context: Context, now: Moment) -> None:
    """Move into the trash what lies aside of a job that was discarded, or queued again: nobody can accept it now."""
    stale = [
        job for job in candidates.jobs(context.layout)
        if (known := stored.find(context.connection, job)) is not None and known.state == stored.DISCARDED
    ]  # fmt: skip
    lock = files.Lock(context.layout.checkpoints_lock)
    if not stale or not lock.acquire(holder={**locks.holder(now.unix), "what": "what was kept aside is dropped"}):
        return
    try:
        for job in stale:
            candidates.drop(context.layout, job)
    finally:
        lock.release()


def why_wait(context: Context) -> str | None:
    """Return why no attempt may be launched because of a job that is kept aside or accepted, None where it may."""
    pending = [
        *stored.in_state(context.connection, stored.MOVING), *stored.in_state(context.connection, stored.ACCEPTING)
    ]  # fmt: skip
    return f"job {pending[0].job} is {pending[0].state}: its checkpoints are moved" if pending else None
