"""The verbs that only look: status, logs, events, checkpoints, verify."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overnight.cli import output
from overnight.cli.app import Json, app, layout_of, opened_for_reading
from overnight.domain.errors import ExitCode, UsageError
from overnight.domain.printable import shown

if TYPE_CHECKING:
    import sqlite3

    from overnight.disk.layout import Layout
    from overnight.domain.checkpoint import CheckpointReport
    from overnight.status import Snapshot

LOGS = ("daemon", "watchdog", "anti-stuck", "trainer")
POLL_S = 0.2

Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on as more comes.")]
Lines = Annotated[int, typer.Option("-n", "--lines", min=0, help="How many to begin with.")]


@app.command(short_help="What goes on, and since when.")
def status(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it, live in a terminal.")] = False,
    guards: Annotated[
        bool, typer.Option("--guards", help="Show each guard: its state, and when it last acted.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell what goes on, and since when; exit code 69 where the daemon should run and does not."""
    from overnight import status as picture
    from overnight.cli import board
    from overnight.domain.picture import State

    with opened_for_reading(context) as (layout, connection):
        if watch:
            from overnight import tui

            tui.watch(layout, connection, as_json=as_json)
            return
        shot = picture.snapshot(layout, connection, now=time.time())
        board_of_guards = _guards(layout, connection, shot) if guards else None
    if as_json:
        answer = picture.to_json(shot)
        output.print_json(answer if board_of_guards is None else {**answer, "guards": board_of_guards})
    elif board_of_guards is not None:
        rows = [
            (
                g["name"],
                g["state"] + (f" ({g['note']})" if g["note"] else ""),
                g["since"] or "-",
                g["last_acted"] or "never",
                g["why"] or g["does"],
            )
            for g in board_of_guards
        ]
        output.print_text(output.table(("GUARD", "STATE", "SINCE", "LAST ACTED", "WHY, OR WHAT IT DOES"), rows))
    else:
        output.print_safe(board.lines(shot))
    if shot.state is State.DEAD:
        raise typer.Exit(int(ExitCode.NOT_RUNNING))


def _guards(layout: Layout, connection: sqlite3.Connection, shot: Snapshot) -> list[dict[str, Any]]:
    from overnight.status.guards import guards  # it compares settings, which are slow to import

    return guards(layout, connection, shot)


@app.command(short_help="The end of a log.")
def logs(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="[daemon|watchdog|anti-stuck|trainer]", help="Which log.", show_default="daemon")
    ] = "daemon",
    follow: Follow = False,
    lines: Lines = 50,
    as_json: Json = False,
) -> None:
    """Show the end of a log."""
    from overnight.cli.following import follow_file, last_lines
    from overnight.domain.secrets import without_secrets

    if name not in LOGS:
        raise UsageError(f"There is no log '{name}'", found=name, expected=" or ".join(LOGS), fix="name one of them")
    layout = layout_of(context)
    path = layout.log(name)
    if name == "trainer":
        path = _trainer_log(path, layout.attempts)
    if as_json and not follow:
        output.print_json(
            {"log": name, "path": str(path), "lines": [without_secrets(line) for line in last_lines(path, lines)]}
        )
        return
    if not path.exists():
        output.say(f"{path} is not there yet")
    for line in follow_file(path, lines) if follow else last_lines(path, lines):
        _print_line(without_secrets(line), name, as_json=as_json)  # a trainer's own log has them until it ends


def _print_line(line: str, name: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json({"log": name, "line": line})
    else:
        print(shown(line, keep="\t"), flush=True)


def _trainer_log(path: Path, attempts: Path) -> Path:
    """Return the trainer's log; before the first one was filed, that of the newest attempt."""
    if path.exists():
        return path
    found = sorted(attempts.glob("*/trainer.log"))
    return found[-1] if found else path


@app.command(short_help="The history: what happened, when, and why.")
def events(context: typer.Context, follow: Follow = False, lines: Lines = 50, as_json: Json = False) -> None:
    """Show the history: what happened, when, and why; with --json one object a line."""
    from overnight.database import events as history

    with opened_for_reading(context) as (_, connection):
        found = history.newest(connection, limit=lines)
        newest = found[-1]["id"] if found else 0
        if not found and lines == 0:
            newest = next((event["id"] for event in history.newest(connection, limit=1)), 0)
        while True:
            for event in found:
                _print_event(event, as_json=as_json)
                newest = event["id"]
            if not follow:
                return
            time.sleep(POLL_S)
            found = history.since(connection, newest)


def _print_event(event: dict[str, Any], *, as_json: bool) -> None:
    from overnight.domain.picture import iso

    at = iso(event["at"])
    if as_json:
        output.print_json({**event, "at": at})
        return
    color = {"error": output.RED, "warning": output.YELLOW}.get(event["level"])
    message = output.colored(event["message"], color) if color else shown(event["message"])
    output.print_safe(f"{at}  {shown(event['kind']):<20} {message}")


@app.command(short_help="The checkpoints, newest first, each judged by content.")
def checkpoints(context: typer.Context, as_json: Json = False) -> None:
    """List the checkpoints, newest first, each one judged by its content."""
    from overnight.disk import checkpoints as store
    from overnight.disk import trust

    layout = layout_of(context)
    seen = store.scan(layout.model, verify_content=False)
    found = [trust.verify(layout, Path(one.path)) if one.manifest is not None else one for one in seen]
    if as_json:
        output.print_json({"checkpoints": [_checkpoint_json(report) for report in found]})
    elif not found:
        output.print_text("no checkpoint yet")
    else:
        output.print_text(_checkpoint_table(found))


@app.command(short_help="Which checkpoint will be resumed, and why no newer one.")
def verify(context: typer.Context, as_json: Json = False) -> None:
    """Tell which checkpoint will be resumed, and why not a newer one; exit code 1 where something is wrong."""
    from overnight.control import verifying

    with opened_for_reading(context) as (layout, connection):
        verdict = verifying.verify(layout, connection)
    if as_json:
        output.print_json(verdict.to_json())
    else:
        output.print_text(verdict.in_words())
    if not verdict.is_ok:
        raise typer.Exit(int(ExitCode.PROBLEM))


def _checkpoint_json(report: CheckpointReport) -> dict[str, Any]:
    from overnight.domain.picture import iso

    return {
        "step": report.step if report.step >= 0 else None,
        "path": report.path,
        "bytes": report.bytes,
        "state": report.verdict.value,
        "reason": report.reason,
        "created_at": iso(report.manifest.created_at) if report.manifest is not None else None,
    }


def _checkpoint_table(found: list[CheckpointReport]) -> str:
    from overnight.domain.picture import iso

    rows = [
        (
            str(report.step) if report.step >= 0 else "-",
            report.verdict.value,
            f"{report.bytes / 1e6:.1f} MB",
            (iso(report.manifest.created_at) if report.manifest is not None else None) or "-",
            Path(report.path).name,
            report.reason,
        )
        for report in found
    ]
    return output.table(("STEP", "STATE", "SIZE", "MADE", "FOLDER", "BECAUSE"), rows)
