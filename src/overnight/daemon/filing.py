"""The view of the queue for people: where the user's files lie. Training never reads them.

A file that cannot be moved now (a full disk) is told and tried again; it never holds up the work.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from overnight.daemon.context import Context, Moment
from overnight.database import arrivals, candidates, queue
from overnight.disk import views
from overnight.domain.attempt import Attempt
from overnight.domain.errors import DiskError
from overnight.domain.job import Job, JobState

SCHEMA = 1
RETRY_S = 10.0


def show_processing(context: Context, job: Job, now: Moment) -> None:
    """Show the file of a job that is launched."""
    is_first = arrivals.is_first_of_its_name(context.connection, job)
    try:
        if job.attempts:  # it had failed, and was queued again by the user
            views.back_into_waiting(context.layout, job, is_first=is_first)
        views.into_processing(context.layout, job, is_first=is_first)
    except (DiskError, OSError) as error:
        _tell(context, job, error, now)


def show_waiting(context: Context, job: Job, now: Moment) -> None:
    """Show the file of a job that was interrupted."""
    try:
        views.back_into_waiting(context.layout, job, is_first=arrivals.is_first_of_its_name(context.connection, job))
    except (DiskError, OSError) as error:
        _tell(context, job, error, now)


def file_ended(context: Context, now: Moment) -> None:
    """Put the file of each ended job into done/ or failed/; those in rejected/ were put there at intake."""
    if now.boot < context.memory.get("file_at", 0.0):
        return
    for job in queue.unfiled(context.connection):
        if job.state is JobState.REJECTED:
            continue
        try:
            _file(context, job)
        except (DiskError, OSError) as error:
            _tell(context, job, error, now)
            context.memory["file_at"] = now.boot + RETRY_S
        else:
            queue.set_filed(context.connection, job.id)
            if views.is_on_its_way(
                context.layout, job, is_first=arrivals.is_first_of_its_name(context.connection, job)
            ):
                arrivals.set_unfiled(
                    context.connection, job.id
                )  # it came late out of its claim, as we looked elsewhere
            context.forget(f"file {job.id}")


def _file(context: Context, job: Job) -> None:
    is_first = arrivals.is_first_of_its_name(context.connection, job)
    if job.state is JobState.SUCCEEDED:
        views.into_done(context.layout, job, is_first=is_first)
    else:
        views.into_failed(context.layout, job, report_of(context.connection, job), is_first=is_first)


def report_of(connection: sqlite3.Connection, job: Job) -> dict[str, Any]:
    """Return what stands beside the file of a job that was not trained to the end, or is kept aside."""
    candidate = candidates.find(connection, job.id)
    is_kept = candidate is not None and candidate.state == candidates.KEPT
    to_do = f"overnight accept {job.id} makes it the model all the same, overnight discard {job.id} drops it"
    return {
        "schema": SCHEMA,
        "file": job.file,
        "job": job.id,
        "state": job.state.value,
        "reason": job.reason,
        "attempts": [_attempt(attempt) for attempt in queue.attempts_of(connection, job.id)],
        **queue.accounting(connection, job.id),
        "to_do": to_do if is_kept else f"overnight retry {job.id} queues it again",
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "id": attempt.id,
        "outcome": attempt.outcome.value if attempt.outcome else None,
        "kind": attempt.kind.value if attempt.kind else None,
        "reason": attempt.reason,
        "first_step": attempt.first_step,
        "last_step": attempt.last_step,
        "exit_code": attempt.exit_code,
        "signal": attempt.signal,
    }


def _tell(context: Context, job: Job, error: Exception, now: Moment) -> None:
    why = error.found if isinstance(error, DiskError) else str(error)
    message = f"{job.file} (job {job.id}) cannot be moved to where people look for it, it is tried again: {why}"
    context.tell(f"file {job.id}", message, kind="filing.waiting", at=now.unix, job=job.id)
