"""The verbs of the second place: versions backups, versions restore."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from overnight.cli import output
from overnight.cli.app import Json, opened, opened_for_reading
from overnight.cli.versions import versions_app
from overnight.domain.errors import ExitCode

From = Annotated[
    Path | None,
    typer.Option("--from", metavar="PATH", help="Another second place than backup.path.", show_default=False),
]


@versions_app.command("backups")
def backups(
    context: typer.Context,
    source: From = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every copy to the last byte.")] = False,
    as_json: Json = False,
) -> None:
    """List the copies in the second place (backup.path); with --verify, exit code 1 where one is damaged."""
    from overnight.control import copies

    with opened_for_reading(context) as (layout, _):
        place, found = copies.listing(layout, source=source, verify_content=verify, now=time.time())
    damaged = [copy for copy in found if verify and not copy.is_verified]
    if as_json:
        output.print_json({"ok": not damaged, "path": str(place), "copies": [copies.to_json(copy) for copy in found]})
    elif not found:
        output.print_text(f"no copy in {place} yet")
    else:
        rows = [
            (copy.name, f"{copy.bytes / 1e6:.1f} MB", "verified" if copy.is_verified else "", copy.reason)
            for copy in found
        ]
        output.print_text(output.table(("COPY", "SIZE", "", "BECAUSE"), rows))
    if damaged:
        raise typer.Exit(int(ExitCode.PROBLEM))


@versions_app.command("restore")
def restore(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="V", help="The exact name, such as v001 or checkpoint-400.", show_default=False),
    ],
    source: From = None,
    set_newer_aside: Annotated[
        bool, typer.Option("--set-newer-aside", help="Go back: move newer checkpoints into the trash.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring a version or a checkpoint back from the second place; it is verified before anything is touched.

    A version comes back into models/ (versions rollback V puts it in use), a checkpoint into current_model/. What is
    whole is never replaced. Refused while training (exit code 75), and for a damaged copy (exit code 1).
    """
    from overnight.control import copies

    with opened(context) as (layout, connection):
        done = copies.restore(layout, connection, name, source=source, set_newer_aside=set_newer_aside, now=time.time())
    if as_json:
        told = {"name": done.name, "path": done.path, "bytes": done.bytes, "set_aside": done.set_aside}
        output.print_json({"ok": True, "changed": done.is_changed, **told})
    else:
        output.print_text(done.message)
