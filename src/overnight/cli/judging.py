"""The verbs of the judge: what was learnt and what was forgotten, and what becomes of a job that is kept aside."""

from __future__ import annotations

import time

import typer

from overnight.cli import output
from overnight.cli.app import Job, Json, app, opened, opened_for_reading
from overnight.domain.printable import shown


@app.command(short_help="What each job taught, and what it undid.")
def judge(context: typer.Context, as_json: Json = False) -> None:
    """Tell what each job taught and undid, by rows that are never trained; with --json the whole matrix."""
    from overnight.status import judge as judged

    with opened_for_reading(context) as (layout, connection):
        if as_json:
            output.print_json(judged.matrix(layout, connection))
            return
        rows = [tuple(map(shown, line)) for line in judged.table(layout, connection)]
    if rows:
        output.print_text(output.table(("JOB", "FILE", "VERDICT", "ITS OWN ROWS", "WORST EARLIER"), rows))
    else:
        output.print_text("nothing was judged yet: evaluation.holdout is the share of a file's rows to judge it by")


@app.command(short_help="Make a job the model that the gate keeps aside.")
def accept(context: typer.Context, job: Job, as_json: Json = False) -> None:
    """Make a job the model that the gate keeps aside; refused while one trains, or once the model has moved on."""
    from overnight.control import candidates

    with opened(context) as (layout, connection):
        _tell(candidates.accept(layout, connection, job, now=time.time()), job, as_json=as_json)


@app.command(short_help="Drop a job that the gate keeps aside.")
def discard(context: typer.Context, job: Job, as_json: Json = False) -> None:
    """Drop a job that the gate keeps aside: it rests in the trash, the model stays as it is."""
    from overnight.control import candidates

    with opened(context) as (layout, connection):
        _tell(candidates.discard(layout, connection, job, now=time.time()), job, as_json=as_json)


def _tell(message: str, job: int, *, as_json: bool) -> None:
    if as_json:
        output.print_json({"ok": True, "job": job, "message": message})
    else:
        output.print_text(message)
