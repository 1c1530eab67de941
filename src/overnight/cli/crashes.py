"""The verbs of crashes: what went wrong, and what a log tells of it."""

from __future__ import annotations

from typing import Annotated

import typer

from overnight.cli import output
from overnight.cli.app import Json, app
from overnight.domain.errors import ExitCode

crashes_app = typer.Typer(rich_markup_mode=None)

app.add_typer(
    crashes_app,
    name="crashes",
    short_help="Crashes and hangs: their causes and remedies.",
    help="Tell what crashed, why, and what helps.",
    no_args_is_help=True,
)


@crashes_app.command("classify")
def classify(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="The log of a training run; - reads stdin.", show_default=False)
    ],
    exit_code: Annotated[
        int | None,
        typer.Option(
            "--exit-code", metavar="N", help="What the shell reported; 128 + N for signal N.", show_default=False
        ),
    ] = None,
    signal: Annotated[
        str | None,
        typer.Option("--signal", metavar="NAME", help="The signal that ended it, as KILL or 9.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Name what a training run died of, from its log and how it ended; exit code 1 where a failure is found, else 0.

    It needs no workspace, and any run's log will do. The kind none means that nothing tells of a failure.
    """
    from overnight.control import classifying

    code, number = classifying.end_given(exit_code, signal)
    found = classifying.classify(source, exit_code=code, signal=number)
    if as_json:
        output.print_json(found.to_json())
    else:
        output.print_text(found.in_words())
    if found.is_crash:
        raise typer.Exit(int(ExitCode.PROBLEM))
