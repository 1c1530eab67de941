"""The verbs of the judge: what was learnt and what was forgotten."""

from __future__ import annotations

import typer

from overnight.cli import output
from overnight.cli.app import Json, app, opened_for_reading
from overnight.domain.printable import shown


@app.command(short_help="What each job taught, and what it undid.")
def judge(context: typer.Context, as_json: Json = False) -> None:
    """Tell what each job taught and undid, by rows that are never trained; with --json the whole matrix."""
    from overnight.status import judge as judged

    with opened_for_reading(context) as (_, connection):
        if as_json:
            output.print_json(judged.matrix(connection))
            return
        rows = [tuple(map(shown, line)) for line in judged.table(connection)]
    if rows:
        output.print_text(output.table(("JOB", "FILE", "VERDICT", "ITS OWN ROWS", "WORST EARLIER"), rows))
    else:
        output.print_text("nothing was judged yet: evaluation.holdout is the share of a file's rows to judge it by")
