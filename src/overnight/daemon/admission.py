"""Judging claimed files: ``python -m overnight.daemon.admission WORKSPACE``, a short life beside the loop.

It takes every claim in order of arrival and ends. A file that kills it again and again is found out by the note that it
leaves before each one: that file is taken last then, so that it does not stand in the way of others for ever.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from overnight import intake
from overnight.database import events
from overnight.database.connection import connect
from overnight.disk import claims, config, files, workspace
from overnight.disk.layout import Layout
from overnight.domain.config import Settings
from overnight.domain.errors import ExitCode, OvernightError
from overnight.launchers.humble import step_back

SCHEMA = 1
NICENESS = 10
DEATHS_LIMIT = 5
"""A file at which so many processes died in a row is no longer waited for; a few deaths may be anything."""


@dataclass(slots=True)
class Note:
    """What is known of claims at which a process died."""

    path: Path
    deaths: dict[str, int]
    at: str | None = None  # the claim being judged

    def begin(self, claim: str | None) -> None:
        """Write down what is judged now; None at the end."""
        self.at = claim
        if claim is None and not self.deaths:
            files.remove_file(self.path)
            return
        files.write_json_atomically(self.path, {"schema": SCHEMA, "at": claim, "deaths": self.deaths})


def read_note(layout: Layout) -> Note:
    """Return the note of the process before this one; the claim that it was at when it died counts one more."""
    path = layout.state / "admission.json"
    try:
        value = files.read_json(path)
        deaths = {str(claim): int(count) for claim, count in value["deaths"].items()}
        died_at = value["at"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Note(path=path, deaths={})
    known = set(claims.pending(layout))
    if isinstance(died_at, str):
        deaths[died_at] = deaths.get(died_at, 0) + 1
    return Note(path=path, deaths={claim: count for claim, count in deaths.items() if claim in known})


def main(folder: Path) -> ExitCode:
    """Judge what is claimed."""
    step_back(NICENESS)  # a running trainer goes first
    try:
        layout = workspace.open_workspace(folder)
        lock = files.Lock(layout.state / "admission.lock")
        if not lock.acquire(holder={"pid": os.getpid(), "since": time.time()}):
            return ExitCode.BUSY
        connection = connect(layout.database)
        settings = config.read(layout)
        judge(layout, connection, settings)
    except OvernightError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    connection.close()
    lock.release()
    return ExitCode.OK


def judge(layout: Layout, connection: sqlite3.Connection, settings: Settings) -> None:
    """Take every claim, those that killed somebody last, until none is left that was not tried."""
    note = read_note(layout)
    tried: set[str] = set()
    encoder = intake.encoder_of(layout, settings)
    while waiting := [claim for claim in claims.pending(layout) if claim not in tried]:
        claim = min(waiting, key=lambda claim: (note.deaths.get(claim, 0) >= DEATHS_LIMIT, claim))
        tried.add(claim)
        if note.deaths.get(claim, 0) >= DEATHS_LIMIT:
            _tell(connection, claim, f"the intake died at the file in claimed/{claim}; it is taken last, and again")
        note.begin(claim)
        try:
            intake.take(layout, connection, claim, settings, now=time.time(), encoder=encoder)
        except (OvernightError, OSError, sqlite3.Error) as error:
            _tell(connection, claim, f"a file from the inbox waits, it is tried again: {_one_line(error)}")
        else:
            note.deaths.pop(claim, None)
    note.begin(None)


def _one_line(error: Exception) -> str:
    return "; ".join(part.strip() for part in str(error).splitlines() if part.strip())


def _tell(connection: sqlite3.Connection, claim: str, message: str) -> None:
    """Write into the history what hinders a claim, once while it stays the same."""
    last = events.newest_of(connection, "intake.waiting")
    if last is None or last["message"] != message:
        events.record(connection, now=time.time(), kind="intake.waiting", message=message, level="warning", claim=claim)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m overnight.daemon.admission WORKSPACE")
    raise SystemExit(main(Path(sys.argv[1])))
