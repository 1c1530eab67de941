"""The verbs of data and jobs: add, validate, queue, cancel, retry, move."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overnight.cli import output
from overnight.cli.app import Job, Json, NoWait, app, opened, opened_for_reading
from overnight.domain.job import ENDED, JobState, Priority

if TYPE_CHECKING:
    from overnight.control.jobs import Outcome
    from overnight.disk.layout import Layout
    from overnight.domain import job as jobs

RECENT = 10


@app.command(short_help="What runs, what waits, what ended.")
def queue(
    context: typer.Context,
    show_all: Annotated[bool, typer.Option("--all", help="Every job; else the open ones and the last to end.")] = False,
    as_json: Json = False,
) -> None:
    """Show the queue: what runs, what waits and in which order, what ended; with --json every job."""
    from overnight.database import queue as store

    with opened_for_reading(context) as (_, connection):
        found = store.listing(connection)
    if as_json:
        output.print_json({"jobs": [job_json(job) for job in found]})
    elif not found:
        output.print_text("the queue is empty: drop .jsonl files into inbox/, or overnight add FILE")
    else:
        output.print_text(_queue_table(found, show_all=show_all))


@app.command(short_help="Cancel a waiting or running job.")
def cancel(context: typer.Context, job: Job, no_wait: NoWait = False, as_json: Json = False) -> None:
    """Cancel a job; a running one is saved and left at the next step border."""
    from overnight.control import jobs as verbs

    with opened(context) as (layout, connection):
        outcome = verbs.cancel(layout, connection, job, now=time.time())
        finish_wish(layout, connection, outcome, no_wait=no_wait, as_json=as_json)


@app.command(short_help="Queue a failed, cancelled or skipped job again.")
def retry(context: typer.Context, job: Job, as_json: Json = False) -> None:
    """Queue a failed, cancelled or skipped job again."""
    from overnight.control import jobs as verbs

    with opened(context) as (_, connection):
        _tell(verbs.retry(connection, job, now=time.time()), as_json)


@app.command(short_help="Give a waiting job another priority.")
def move(
    context: typer.Context,
    job: Job,
    priority: Annotated[Priority, typer.Option("--priority", help="Where it is to wait.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Give a waiting job another priority."""
    from overnight.control import jobs as verbs

    with opened(context) as (_, connection):
        _tell(verbs.move(connection, job, priority, now=time.time()), as_json)


def finish_wish(
    layout: Layout, connection: sqlite3.Connection, outcome: Outcome, *, no_wait: bool, as_json: bool
) -> None:
    """Tell what became of a wish about a running job, once the daemon has carried it out (if there is one)."""
    from overnight.control import jobs as verbs
    from overnight.control.wishes import is_daemon_alive

    if outcome.is_wish and outcome.job is not None and not no_wait and is_daemon_alive(layout):
        output.say(outcome.message)
        left = verbs.wait_until_left(layout, connection, outcome.job.id)
        outcome = verbs.Outcome(job=left, message=f"{left.file} (job {left.id}) is {left.state.value}", is_wish=False)
    _tell(outcome, as_json)


def job_json(job: jobs.Job) -> dict[str, Any]:
    """Return a job as answers hold it."""
    from overnight.domain.picture import iso

    return {
        "id": job.id,
        "file": job.file,
        "sha256": job.sha256,
        "state": job.state.value,
        "priority": job.priority.value,
        "examples": job.examples,
        "steps": job.steps,
        "attempts": job.attempts,
        "reason": job.reason,
        "submitted_at": iso(job.submitted_at),
        "finished_at": iso(job.finished_at),
    }


def _tell(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        job = job_json(outcome.job) if outcome.job is not None else None
        output.print_json({"ok": True, "job": job, "message": outcome.message})
    else:
        output.print_text(outcome.message)


def _queue_table(found: list[jobs.Job], *, show_all: bool) -> str:
    from overnight.domain.job import dispatch_order

    running = [job for job in found if job.state is JobState.RUNNING]
    waiting = sorted((job for job in found if job.state is JobState.QUEUED), key=dispatch_order)
    ended = sorted((job for job in found if job.state in ENDED), key=lambda job: (job.finished_at or 0.0, job.id))
    told = [*ended[-RECENT:], *running, *waiting[: 2 * RECENT]] if not show_all else [*ended, *running, *waiting]
    rows = [_queue_row(job) for job in told]
    table = output.table(("JOB", "STATE", "PRIORITY", "ROWS", "STEPS", "TRIES", "FILE", "REASON"), rows)
    left_out = len(found) - len(told)
    return table + (f"\n... and {left_out} more: overnight queue --all" if left_out else "")


def _queue_row(job: jobs.Job) -> tuple[str, ...]:
    steps = "-" if job.steps is None else str(job.steps)
    return (
        str(job.id),
        job.state.value,
        job.priority.value,
        str(job.examples),
        steps,
        str(job.attempts),
        job.file,
        job.reason.partition("\n")[0][:100],
    )
