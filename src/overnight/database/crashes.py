"""What the database knows of crashes: attempts that ended badly."""

from __future__ import annotations

import sqlite3

from overnight.database.queue import to_attempt
from overnight.domain.attempt import Attempt
from overnight.domain.crash import BAD


def bad_attempts(connection: sqlite3.Connection, *, limit: int | None = None) -> list[Attempt]:
    """Return attempts that crashed, hung or were lost, newest first."""
    outcomes = sorted(outcome.value for outcome in BAD)
    rows = connection.execute(
        f"SELECT * FROM attempts WHERE outcome IN ({','.join('?' * len(outcomes))})"
        " ORDER BY coalesce(ended_at, started_at) DESC, id DESC LIMIT ?",
        (*outcomes, -1 if limit is None else limit),
    )
    return [to_attempt(row) for row in rows]


def newest_ended(connection: sqlite3.Connection, *, limit: int = 50) -> list[Attempt]:
    """Return the newest ended attempts of all jobs, newest first."""
    rows = connection.execute("SELECT * FROM attempts WHERE state = 'ended' ORDER BY rowid DESC LIMIT ?", (limit,))
    return [to_attempt(row) for row in rows]
