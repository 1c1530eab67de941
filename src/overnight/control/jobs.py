"""Cancel, retry, move, skip: what the operator does to one job."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from overnight.control.wishes import PAUSE_S, is_daemon_alive, wait_for
from overnight.database import candidates, events, intents, queue
from overnight.database.connection import transaction
from overnight.disk import config
from overnight.disk.layout import Layout
from overnight.domain.errors import BusyError, UsageError
from overnight.domain.job import Job, JobMove, JobState, Priority

TRIES = 5
"""A job may be dispatched or settled between our look and our move; then we look again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a verb on one job."""

    job: Job | None
    message: str
    is_wish: bool  # True: the daemon carries it out at the next step border


def find(connection: sqlite3.Connection, number: int) -> Job:
    """Return a job. Raises UsageError where there is none of that number."""
    job = queue.find(connection, number) if -(2**63) <= number < 2**63 else None
    if job is None:
        raise UsageError(
            f"There is no job {number}",
            found=f"job {number}",
            expected="the number of a job",
            fix="overnight queue --all lists them",
            code="no_job",
        )
    return job


def cancel(layout: Layout, connection: sqlite3.Connection, number: int, *, now: float) -> Outcome:
    """Cancel a waiting job at once; a running one is saved and left at the next step border."""
    for _ in range(TRIES):
        job = find(connection, number)
        if job.state is JobState.QUEUED:
            if _move(connection, job, JobMove.CANCEL, reason="cancelled by the operator", now=now):
                return _told(connection, number, f"{_name(job)} is cancelled")
        elif job.state is JobState.RUNNING:
            return _wish(layout, connection, job, "cancel", now=now)
        elif job.state is JobState.CANCELLED:
            return _told(connection, number, f"{_name(job)} is cancelled already")
        else:
            raise _ended(job, "cancelled", fix="overnight retry queues a failed or skipped job again")
    raise _contended(number)


def retry(connection: sqlite3.Connection, number: int, *, now: float) -> Outcome:
    """Queue a failed, cancelled or skipped job again; nothing of its old life counts."""
    for _ in range(TRIES):
        job = find(connection, number)
        if job.state in (JobState.QUEUED, JobState.RUNNING):
            return _told(connection, number, f"{_name(job)} is {job.state.value} already")
        if job.state is JobState.SUCCEEDED:
            raise _ended(job, "queued again", fix="to train the file once more: overnight add FILE")
        if job.state is JobState.REJECTED:
            raise _ended(job, "queued again", fix="mend the file as its report says, then: overnight add FILE")
        if candidates.resubmit(connection, job, reason="queued again by the operator", now=now):
            return _told(connection, number, f"{_name(job)} is queued again")
    raise _contended(number)


def move(connection: sqlite3.Connection, number: int, priority: Priority, *, now: float) -> Outcome:
    """Give a waiting job another priority."""
    job = find(connection, number)
    if job.state is JobState.QUEUED and queue.set_priority(connection, number, priority, now=now):
        return _told(connection, number, f"{_name(job)} has priority {priority.value}")
    job = find(connection, number)
    if job.state is JobState.RUNNING:
        raise BusyError(
            f"{_name(job)} runs already",
            found="running",
            expected="a waiting job",
            fix="a running job is never interrupted for another one",
            code="running",
        )
    raise _ended(job, "moved", fix="overnight retry queues a failed, cancelled or skipped job again")


def skip(layout: Layout, connection: sqlite3.Connection, *, now: float) -> Outcome:
    """Set the running job aside, this very one; with none running nothing happens, now or later."""
    job = queue.running(connection)
    if job is None:
        return Outcome(job=None, message="nothing to skip: no job is running", is_wish=False)
    return _wish(layout, connection, job, "skip", now=now)


def wait_until_left(layout: Layout, connection: sqlite3.Connection, number: int) -> Job:
    """Wait until a job is no longer running; return it. Raises BusyError after the deadline; the wish stays."""
    limit_s = PAUSE_S + config.raw_number(layout, "watch", "grace_s", 30.0)
    if not wait_for(lambda: find(connection, number).state is not JobState.RUNNING, limit_s=limit_s):
        raise BusyError(
            f"The wish is noted, and job {number} has not left yet",
            found=f"still running after {limit_s:.0f} s",
            expected="a step border",
            fix="it leaves at the next one; overnight status tells",
            code="not_yet",
        )
    return find(connection, number)


def _wish(layout: Layout, connection: sqlite3.Connection, job: Job, verb: str, *, now: float) -> Outcome:
    what = "cancelled" if verb == "cancel" else "set aside"
    with transaction(connection):
        standing = intents.standing(connection).get(verb)
        if standing is None or standing.value.get("job") != job.id:
            intents.wish(connection, verb, {"job": job.id, "reason": f"{what} by the operator"}, now=now)
            events.record(
                connection,
                now=now,
                kind=f"operator.{verb}",
                message=f"the operator wants {_name(job)} left",
                job=job.id,
            )
    when = "at the next step border" if is_daemon_alive(layout) else "when the daemon is back"
    return Outcome(job=job, message=f"{_name(job)} is saved and {what} {when}", is_wish=True)


def _move(connection: sqlite3.Connection, job: Job, verb: JobMove, *, reason: str, now: float) -> bool:
    return queue.move(connection, job.id, verb, expected=job.state, reason=reason, now=now)


def _told(connection: sqlite3.Connection, number: int, message: str) -> Outcome:
    return Outcome(job=find(connection, number), message=message, is_wish=False)


def _name(job: Job) -> str:
    return f"{job.file} (job {job.id})"


def _ended(job: Job, what: str, *, fix: str) -> UsageError:
    return UsageError(
        f"{_name(job)} cannot be {what}",
        found=f"it is {job.state.value}: {job.reason}",
        expected="a job in another state",
        fix=fix,
        code="state",
    )


def _contended(number: int) -> BusyError:
    return BusyError(f"Job {number} keeps changing", found="another command or the daemon", fix="try again")
