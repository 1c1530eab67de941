"""The application: its global options, and how a verb opens the workspace."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from overnight.disk.layout import Layout


@dataclass(frozen=True, slots=True)
class Invocation:
    """The global options of one command line."""

    workspace: Path
    debug: bool
    is_named: bool  # by -C or the environment; else it is the current folder


app = typer.Typer(
    name="overnight",
    help="Unattended fine-tuning that is there in the morning.",
    rich_markup_mode=None,  # the coloured help costs more than the whole start may take
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
config_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help='One JSON object on stdout, with "schema": 1.')]
Job = Annotated[int, typer.Argument(metavar="JOB", help="The number that add and queue tell.", show_default=False)]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return at once.")]


def _version(wanted: bool) -> None:
    if wanted:
        from overnight import __version__

        typer.echo(f"overnight {__version__}")
        raise typer.Exit


@app.callback()
def global_options(
    context: typer.Context,
    workspace: Annotated[
        str | None,
        typer.Option(
            "-C",
            "--workspace",
            metavar="DIR",
            help="The workspace; else $OVERNIGHT_WORKSPACE, else the current folder.",
            show_default=False,
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Unattended fine-tuning that is there in the morning."""
    named = workspace or os.environ.get("OVERNIGHT_WORKSPACE")
    context.obj = Invocation(workspace=Path(named or "."), debug=debug, is_named=bool(named))


def is_debugging(words: list[str]) -> bool:
    """Return whether --debug stands before the verb (also where the command line was never understood)."""
    before_verb: list[str] = []
    for word in words:
        if not word.startswith("-") and before_verb[-1:] not in (["-C"], ["--workspace"]):
            break
        before_verb.append(word)
    return "--debug" in before_verb


def layout_of(context: typer.Context) -> Layout:
    """Return the layout of the workspace that the command line means. Raises UsageError where it is none."""
    from overnight.disk.workspace import open_workspace

    return open_workspace(context.obj.workspace)


def is_in_workspace(context: typer.Context) -> bool:
    """Return whether the command line names a workspace, or stands in one; a named one that is none is refused."""
    from overnight.disk.layout import Layout
    from overnight.disk.workspace import is_workspace

    return context.obj.is_named or is_workspace(Layout(Path.cwd()))


@contextmanager
def opened(context: typer.Context) -> Iterator[tuple[Layout, sqlite3.Connection]]:
    """Open the workspace and its database for a verb that changes something."""
    from overnight.database.connection import connect
    from overnight.disk import lease

    layout = layout_of(context)
    lease.require_ours(layout)
    with closing(connect(layout.database)) as connection:
        if layout.transition.exists():
            from overnight.publishing.settling import require_settled

            require_settled(layout, connection)
        yield layout, connection


@contextmanager
def opened_for_reading(context: typer.Context) -> Iterator[tuple[Layout, sqlite3.Connection]]:
    """Open the workspace and its database for a verb that only looks."""
    from overnight.database.connection import connect_readonly
    from overnight.disk import lease

    layout = layout_of(context)
    lease.require_ours(layout)
    _end_change(layout)
    with closing(connect_readonly(layout.database)) as connection:
        yield layout, connection


def _end_change(layout: Layout) -> None:
    """Bring a version change that was begun to its end, where the disk takes it: who only looks is never refused."""
    if not layout.transition.exists():
        return
    from overnight.database.connection import connect
    from overnight.domain.errors import OvernightError
    from overnight.publishing.settling import settle_if_possible

    with suppress(OvernightError, OSError, sqlite3.Error), closing(connect(layout.database)) as connection:
        settle_if_possible(layout, connection)
