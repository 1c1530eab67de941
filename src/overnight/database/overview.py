"""What the picture needs of the queue, cheap on ten thousand jobs."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from overnight.database.queue import find_attempt
from overnight.domain.attempt import Attempt
from overnight.domain.job import OVERTAKEN_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """A queued job that a trainer has begun."""

    job: int
    start_step: int  # global step at which it began
    steps: int  # of the whole job


def interrupted(connection: sqlite3.Connection) -> list[Interrupted]:
    """Return queued jobs that were begun and counted."""
    rows = connection.execute(
        "SELECT id, start_step, steps FROM jobs WHERE state = 'queued' AND start_step IS NOT NULL AND steps IS NOT NULL"
    )
    return [Interrupted(job=row["id"], start_step=row["start_step"], steps=row["steps"]) for row in rows]


def next_files(connection: sqlite3.Connection, *, limit: int) -> list[str]:
    """Return the names of the jobs whose turn is next, in that order."""
    rows = connection.execute(
        "SELECT file FROM jobs WHERE state = 'queued' ORDER BY max(0, CASE priority WHEN 'high' THEN 0 WHEN 'normal'"
        " THEN 1 ELSE 2 END - overtaken / ?), id LIMIT ?",
        (OVERTAKEN_LIMIT, limit),
    )
    return [str(row["file"]) for row in rows]


def last_attempt(connection: sqlite3.Connection) -> Attempt | None:
    """Return the attempt that was opened last, or None."""
    row = connection.execute("SELECT id FROM attempts ORDER BY rowid DESC LIMIT 1").fetchone()
    return find_attempt(connection, row["id"]) if row is not None else None


def newest_event(connection: sqlite3.Connection) -> int:
    """Return the id of the newest event, 0 where there is none."""
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])
