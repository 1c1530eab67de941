"""The verbs of crashes: what went wrong, and what a log tells of it."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from overnight.cli import output
from overnight.cli.app import Json, app, opened_for_reading
from overnight.domain.errors import ExitCode, UsageError

crashes_app = typer.Typer(rich_markup_mode=None)

app.add_typer(
    crashes_app,
    name="crashes",
    short_help="Crashes and hangs: their causes and remedies.",
    help="Tell what crashed, hung or was lost, newest first: why, what helps, and what is done about it.",
)

Limit = Annotated[int, typer.Option("-n", "--lines", min=1, help="How many, newest first.")]


@crashes_app.callback(invoke_without_command=True)
def crashes(context: typer.Context, lines: Limit = 50, as_json: Json = False) -> None:
    """Tell what crashed, hung or was lost, newest first: why, what helps, and what is done about it."""
    if context.invoked_subcommand is not None:
        return
    from overnight.status import crashes as told

    with opened_for_reading(context) as (layout, connection):
        found = told.listing(layout, connection, now=time.time(), limit=lines)
    if as_json:
        output.print_json({"crashes": found})
    elif not found:
        output.print_text("no crash")
    else:
        output.print_text(_table(found))


@crashes_app.command("show")
def show(
    context: typer.Context,
    identity: Annotated[str, typer.Argument(metavar="ID", help="As crashes lists it.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show one crash: cause, evidence, remedy, what was done, and the end of its log."""
    from overnight.status import crashes as told

    with opened_for_reading(context) as (layout, connection):
        found = told.find(layout, connection, identity, now=time.time())
        log = told.log_tail(layout, identity) if found is not None else []
    if found is None:
        raise UsageError(
            f"There is no crash '{identity}'",
            found=identity,
            expected="an id that overnight crashes lists",
            fix="overnight crashes",
        )
    if as_json:
        output.print_json({**found, "log": log})
    else:
        output.print_text(_page(found, log))


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


def _table(found: list[dict[str, Any]]) -> str:
    rows = [
        (
            str(one["id"]),
            str(one["at"] or "-"),
            str(one["job"]),
            str(one["step"] if one["step"] is not None else "-"),
            str(one["kind"]),
            str(one["action"]),
            str(one["summary"]),
        )
        for one in found
    ]
    return output.table(("ID", "AT", "JOB", "STEP", "KIND", "ACTION", "BECAUSE"), rows)


def _page(found: dict[str, Any], log: list[str]) -> str:
    facts = (
        ("crash", f"{found['id']} ({found.get('outcome')})"),
        ("at", found["at"]),
        ("job", f"{found['job']} {found.get('file') or ''}".strip()),
        ("step", found["step"]),
        ("kind", found["kind"]),
        ("signal", found["signal"]),
        ("exit code", found["exit_code"]),
        ("because", found["summary"]),
        ("what helps", found["remedy"]),
        ("action", found["action"]),
        ("then", found.get("consequence")),
        ("evidence", found["evidence_in"]),
    )
    lines = [f"{name:<11} {output.one_line(str(value))}" for name, value in facts if value not in (None, "")]
    lines += [f"            {output.one_line(str(line))}" for line in found.get("evidence") or []]
    if log:
        lines += ["", "the end of its log:", *(f"  {output.one_line(line)}" for line in log)]
    return "\n".join(lines)
