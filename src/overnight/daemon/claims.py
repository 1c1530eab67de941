"""Claimed files: taken from the inbox, not yet judged. The judging is done by a process of its own."""

from __future__ import annotations

from pathlib import Path

from overnight.daemon.context import Context, Moment
from overnight.disk import files
from overnight.disk.layout import Layout
from overnight.domain.printable import shown

SCHEMA = 1


def claim(layout: Layout, path: Path, *, at: float) -> None:
    """Rename a file out of the inbox, into a claim of its own."""


def report_not_taken(layout: Layout, name: str, message: str, *, at: float) -> bool:
    """Write beside the rejected files why a name is not taken; return whether that is news."""
    path = layout.rejected / f"{name}.report.json"
    try:
        if files.read_json(path).get("reason") == message:
            return False
    except (OSError, ValueError, AttributeError):
        pass
    files.write_json_atomically(path, {"schema": SCHEMA, "file": shown(name), "reason": message, "at": at})
    return True


def judge_claimed(context: Context, now: Moment) -> None:
    """Start the process that judges claimed files, where there are any and none is at it."""
