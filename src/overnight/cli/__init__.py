"""The command line: argv -> one verb; every error becomes words and an exit code here, and nowhere else.

Start-up time is a promise: what a verb needs is imported inside the verb, and at the top stands what every start needs.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer

from overnight.cli import output, quick
from overnight.cli.app import app, is_debugging
from overnight.domain.errors import DiskError, ExitCode, OvernightError, UsageError

PROGRAM = "overnight"
VERBS = (
    "init", "up", "down", "pause", "resume", "skip", "stop", "add", "queue", "cancel", "retry", "move", "validate",
    "status", "logs", "events", "config", "checkpoints", "verify", "judge", "accept", "discard",
    "doctor", "cleanup", "crashes", "consolidate", "versions", "demo",
)  # fmt: skip
"""Every verb, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command line and leave with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    output.prepare_streams()
    sys.exit(run(words))


def run(words: list[str]) -> int:
    """Run one command line; return its exit code."""
    try:
        code = _command(words).main(args=words, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else int(ExitCode.OK)
    except BrokenPipeError:
        output.drop_stdout()
        return int(ExitCode.PROBLEM)
    except typer.TyperException as error:
        return _tell(_as_usage_error(error), words)
    except Exception as error:  # the border of the process: whatever it is, the user gets words
        if is_debugging(words):
            raise
        return _tell(_translated(error), words)


def _command(words: Sequence[str] = ()) -> Any:
    """Return the command line, its verbs in the order of VERBS; only the one that is meant, where there is one."""
    # they put their verbs into the app
    from overnight.cli import copies, crashes, judging, keeping, looking, running, versions, work, workspace  # noqa: F401

    quick.spare_conversions()
    group: Any = typer.main.get_command(quick.narrowed(app, words))
    group.commands = dict(sorted(group.commands.items(), key=lambda item: VERBS.index(item[0])))
    return group


def _tell(error: OvernightError, words: list[str]) -> int:
    with contextlib.suppress(BrokenPipeError):  # nobody reads it: the exit code says it all the same
        if "--json" in words:
            output.print_json({"error": output.error_json(error)})
        output.say(f"{PROGRAM}: {error}")
    return int(error.exit_code)


def _as_usage_error(error: typer.TyperException) -> OvernightError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else PROGRAM
    message = error.format_message()
    if any(f" {option}" in message for option in ("-C", "--workspace", "--debug", "--version")) and context is not None:
        path = f"options for all commands stand before the verb: {PROGRAM} -C DIR VERB; {PROGRAM}"
    return UsageError(message, fix=f"{path} --help tells how", code="usage")


def _translated(error: Exception) -> OvernightError:
    """Return the user's words for an error that nobody expected to come this far."""
    if isinstance(error, OvernightError):
        return error
    import sqlite3
    from pathlib import Path

    from overnight.database.connection import damaged, translated
    from overnight.disk import files

    if isinstance(error, sqlite3.OperationalError):
        return translated(error, Path("state.db"))
    if isinstance(error, sqlite3.DatabaseError):
        return damaged(error, Path("state.db"))
    if isinstance(error, PermissionError):
        return _forbidden(error)
    if isinstance(error, OSError) and files.is_disk_trouble(error):
        refusal: DiskError = files.disk_error(error, error.filename or "the disk")
        return refusal
    return OvernightError(
        f"Overnight met an error of its own: {type(error).__name__}: {error}",
        fix=f"the same with {PROGRAM} --debug shows where; please report it",
        code="internal",
    )


def _forbidden(error: PermissionError) -> DiskError:
    """Return the user's words for a workspace of another user."""
    path = error.filename or "the workspace"
    try:
        owner = f"uid {os.stat(os.path.dirname(path)).st_uid}"
    except (OSError, TypeError):
        owner = "its owner"
    return DiskError(
        f"This user may not use {path}",
        found=f"{error.strerror} (uid {os.geteuid()})",
        expected=f"the workspace's owner ({owner})",
        fix="run the command as the user that runs the daemon",
        code="EACCES",
    )


__all__ = ["main", "run"]
