"""The verbs of the daemon and the whole queue: up, down, pause, resume, skip, stop, demo."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from overnight.cli import output
from overnight.cli.app import Json, NoWait, app, layout_of, opened

if TYPE_CHECKING:
    import sqlite3

    from overnight.control.wishes import Answer
    from overnight.disk.layout import Layout


@app.command(short_help="Start the daemon and show live progress.")
def up(
    context: typer.Context,
    detach: Annotated[bool, typer.Option("--detach", help="Return once it runs.")] = False,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Return when nothing is left to do: 0 if every job succeeded, else 1.")
    ] = False,
    no_web: Annotated[bool, typer.Option("--no-web", help="Without the web page.")] = False,  # there is none yet
    as_json: Json = False,
) -> None:
    """Start the daemon; in the foreground show live progress (Ctrl-C: save, then end everything)."""
    from overnight.cli import foreground
    from overnight.control import life
    from overnight.domain.errors import UsageError

    if detach and until_idle:
        raise UsageError(
            "--detach and --until-idle exclude each other",
            found="both",
            expected="one of them",
            fix="leave one out",
            code="usage",
        )
    layout = layout_of(context)
    if not os.access(layout.database, os.W_OK):  # another user's: who is at work there is the better answer
        life.refuse_when_held(layout)
    _mend_database(context)
    with opened(context) as (layout, connection):
        started = life.up(layout, connection, now=time.time())
        if as_json:
            output.print_json({"daemon": {"pid": started.daemon_pid}, "watchdog": {"pid": started.watchdog_pid}})
        elif detach:
            output.print_text(f"up: daemon pid {started.daemon_pid}, watchdog pid {started.watchdog_pid}")
        if not detach:
            ending = foreground.stay(layout, connection, started, is_until_idle=until_idle, as_json=as_json)
            output.say(ending.message)
            raise typer.Exit(ending.exit_code)


def _mend_database(context: typer.Context) -> None:
    """Make a lost database anew from what lies in the workspace, and say so; raises where that is not exact."""
    from overnight import rebuilding

    mended = rebuilding.mend(layout_of(context), now=time.time())
    if mended is not None:
        output.say(f"{mended.why}: it was made anew from what lies here, {mended.jobs} jobs")
        for line in [*mended.notes, *(f"the damaged file is kept as .overnight/{name}" for name in mended.kept)]:
            output.say(line)


@app.command(short_help="Save at the next step border, then end everything.")
def down(
    context: typer.Context,
    now: Annotated[bool, typer.Option("--now", help="Do not save first; the last checkpoint stands.")] = False,
    as_json: Json = False,
) -> None:
    """Save at the next step border, then end everything of this workspace."""
    from overnight.control import life
    from overnight.domain.errors import DiskError, OvernightError

    try:
        with opened(context) as (layout, connection):
            ended = life.down(layout, connection, now=time.time(), is_quick=now)
    except DiskError as error:  # also of a database that cannot even be opened for writing
        ended = life.down_by_signals(layout_of(context), is_quick=now, why=error.found or error.what)
    except OvernightError as error:
        if error.code != "database":
            raise
        ended = life.down_by_signals(layout_of(context), is_quick=now, why=error.what)
    if as_json:
        output.print_json({"ok": True, "was_running": ended.was_running, "message": ended.message})
    else:
        output.print_text(ended.message)


@app.command(short_help="Finish the step, save, free the device, until resume.")
def pause(context: typer.Context, no_wait: NoWait = False, as_json: Json = False) -> None:
    """Finish the step, save, free the device; holds until resume, also over restarts."""
    from overnight.control import wishes

    with _opened_for_wish(context, "pause") as (layout, connection):
        answer = wishes.pause(layout, connection, now=time.time())
        if answer.is_changed:
            output.say(answer.message)
        if not no_wait:
            wishes.wait_until_free(layout, connection)
    _tell(answer if no_wait or not answer.is_changed else answer.now_saying("paused: the device is free"), as_json)


@app.command(short_help="Take work again after pause or stop.")
def resume(context: typer.Context, as_json: Json = False) -> None:
    """Take work again after pause or stop."""
    from overnight.control import wishes

    with opened(context) as (layout, connection):
        _tell(wishes.resume(layout, connection, now=time.time()), as_json)


@app.command(short_help="Set the running job aside.")
def skip(context: typer.Context, no_wait: NoWait = False, as_json: Json = False) -> None:
    """Set the running job aside; it does not come back by itself (retry brings it back)."""
    from overnight.cli.work import finish_wish
    from overnight.control import jobs

    with opened(context) as (layout, connection):
        finish_wish(
            layout, connection, jobs.skip(layout, connection, now=time.time()), no_wait=no_wait, as_json=as_json
        )


@app.command(short_help="Finish the current file, then take no more.")
def stop(context: typer.Context, as_json: Json = False) -> None:
    """Finish the current file, then take no more work until resume or up."""
    from overnight.control import wishes

    with opened(context) as (layout, connection):
        _tell(wishes.stop(layout, connection, now=time.time()), as_json)


@app.command(short_help="A real model on real facts, start to end.")
def demo(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Where its workspace is made; else a new demo-workspace.")
    ] = None,
) -> None:
    """Train a real model on real facts, with a kill -9 in the middle, and show what it has learnt."""
    from overnight import demo as demonstration

    raise typer.Exit(int(demonstration.run(folder) or 0))


@contextmanager
def _opened_for_wish(context: typer.Context, verb: str) -> Iterator[tuple[Layout, sqlite3.Connection]]:
    """Open the workspace to write down a wish; where the disk takes none, say what still works."""
    import sqlite3

    from overnight.database.connection import translated
    from overnight.domain.errors import DiskError

    try:
        with opened(context) as places:
            yield places
    except (DiskError, sqlite3.OperationalError) as error:
        refusal = error if isinstance(error, DiskError) else translated(error, Path("state.db"))
        if not isinstance(refusal, DiskError):
            raise  # somebody else holds the database: that passes
        raise DiskError(
            f"The wish to {verb} cannot be written down",
            found=refusal.found,
            expected="a disk that takes writes: the wish is to hold over restarts",
            fix="overnight down works all the same, it asks by signals; or free the disk and try again",
            code="not_written",
        ) from error


def _tell(answer: Answer, as_json: bool) -> None:
    if as_json:
        output.print_json({"ok": True, "changed": answer.is_changed, "message": answer.message})
    else:
        output.print_text(answer.message)
