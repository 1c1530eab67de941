"""The verbs of data and jobs: add, validate, queue, cancel, retry, move."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overnight.cli import output
from overnight.cli.app import Job, Json, NoWait, app, is_in_workspace, opened, opened_for_reading
from overnight.domain.errors import ExitCode
from overnight.domain.job import ENDED, JobState, Priority
from overnight.domain.printable import shown

if TYPE_CHECKING:
    from overnight.control.adding import Added
    from overnight.control.jobs import Outcome
    from overnight.disk.layout import Layout
    from overnight.domain import job as jobs

RECENT = 10
PROBLEMS_SHOWN = 20
REASON_WIDTH = 80
CODES_OF_ADD = {True: ExitCode.BAD_DATA, False: ExitCode.USAGE}


@app.command(short_help="Validate and queue copies of files.")
def add(
    context: typer.Context,
    sources: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Data files, one JSON object a line.", show_default=False)
    ],
    priority: Annotated[Priority, typer.Option("--priority", help="Where it is to wait.")] = Priority.NORMAL,
    as_json: Json = False,
) -> None:
    """Validate files and queue a copy of each; exit code 65 where one is rejected. Works with the daemon down.

    The same content as before is trained again, and told.
    """
    from overnight.cli import progress
    from overnight.control.adding import Adding
    from overnight.disk import config

    with opened(context) as (layout, connection):
        adding = Adding(layout, connection, config.read(layout))
        done = []
        for source in sources:
            with progress.shown_for(source) as report:
                one = adding.add(source, priority=priority, progress=report)
            done.append(one)
            if not as_json:
                _tell_added(one, layout)
    if as_json:
        errors = [{"file": str(one.source), **output.error_json(one.error)} for one in done if one.error is not None]
        added = [{**job_json(one.job), "warnings": one.warnings} for one in done if one.job is not None]
        output.print_json({"ok": all(one.is_queued for one in done), "jobs": added, "errors": errors})
    if not all(one.is_queued for one in done):
        raise typer.Exit(int(CODES_OF_ADD[any(one.job is not None and not one.is_queued for one in done)]))


@app.command(short_help="Check a data file without queueing it.")
def validate(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="One JSON object a line.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Check a data file without queueing it: rows, formats, tokens, every bad line by number; 65 where it is refused.

    In a workspace by its settings and its tokenizer; elsewhere rows and formats only.
    """
    from overnight.cli import progress, report
    from overnight.control import adding
    from overnight.disk import config

    layout, settings, trained = None, None, list[str]()
    if is_in_workspace(context):
        with opened_for_reading(context) as (layout, connection):
            settings, trained = config.read(layout), _trained(connection)
    with progress.shown_for(source) as told:
        found = adding.validate(source, layout=layout, settings=settings, trained=trained, progress=told)
    if as_json:
        output.print_json(found.to_json())
    else:
        output.print_text(report.lines(found, name=shown(str(source)), limit=PROBLEMS_SHOWN))
    if not found.ok:
        raise typer.Exit(int(ExitCode.BAD_DATA))


def _trained(connection: sqlite3.Connection) -> list[str]:
    from overnight.database import arrivals

    return arrivals.trained_datasets(connection)


def _tell_added(one: Added, layout: Layout) -> None:
    from overnight.cli import report

    name = shown(str(one.source))
    if one.error is not None:
        output.say(str(one.error))
    elif one.job is not None and not one.is_queued:
        output.say(f"{name}: rejected: {one.job.reason}")
        if one.validation is not None:
            output.say(report.problems(one.validation, limit=PROBLEMS_SHOWN))
        output.say(f"  the file and its report lie in {layout.rejected}; mend it and add it again")
    elif one.job is not None:
        output.print_text(
            f"{name}: queued as job {one.job.id} ({one.job.examples} rows, {one.job.priority.value} priority)"
        )
    for warning in one.warnings:
        output.say(f"  note: {warning}")


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
        _short(job.reason.partition("\n")[0]),
    )


def _short(text: str) -> str:
    return text if len(text) <= REASON_WIDTH else text[: REASON_WIDTH - 3] + "..."
