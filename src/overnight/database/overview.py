"""What the picture needs of the queue, cheap on ten thousand jobs."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from overnight.database.queue import find_attempt, open_attempts, running
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


def attempt_after(connection: sqlite3.Connection, attempt: str) -> str | None:
    """Return the attempt that was opened next after another one, None where there is none.

    After an unknown one it is the one that has not ended.
    """
    row = connection.execute("SELECT rowid FROM attempts WHERE id = ?", (attempt,)).fetchone()
    if row is None:
        found = open_attempts(connection)
        return found[-1].id if found else None
    row = connection.execute(
        "SELECT id FROM attempts WHERE rowid > ? ORDER BY rowid LIMIT 1", (row["rowid"],)
    ).fetchone()
    return str(row["id"]) if row is not None else None


def is_later(connection: sqlite3.Connection, attempt: str, *, than: str) -> bool:
    """Return whether an attempt was opened after another one."""
    row = connection.execute(
        "SELECT (SELECT rowid FROM attempts WHERE id = ?) > (SELECT rowid FROM attempts WHERE id = ?)", (attempt, than)
    ).fetchone()
    return bool(row[0])


def newest_event(connection: sqlite3.Connection) -> int:
    """Return the id of the newest event, 0 where there is none."""
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])


def newest_of_each_kind(connection: sqlite3.Connection) -> list[tuple[str, str, int]]:
    """Return (kind, level, id of the newest event of both), in one pass over the history."""
    rows = connection.execute("SELECT kind, level, max(id) AS newest FROM events GROUP BY kind, level")
    return [(str(row["kind"]), str(row["level"]), int(row["newest"])) for row in rows]


def told_at(connection: sqlite3.Connection, event: int) -> tuple[float, str] | None:
    """Return when an event happened (unix seconds), and its words."""
    row = connection.execute("SELECT at, message FROM events WHERE id = ?", (event,)).fetchone()
    return (float(row["at"]), str(row["message"])) if row is not None else None


def job_events_after(connection: sqlite3.Connection, event: int) -> list[tuple[int, str]]:
    """Return (job, kind) of every event about a job's state after an event, oldest first."""
    rows = connection.execute(
        "SELECT json_extract(data, '$.job') AS job, kind FROM events WHERE id > ? AND kind GLOB 'job.*'"
        " AND job IS NOT NULL ORDER BY id",
        (event,),
    )
    return [(int(row["job"]), str(row["kind"])) for row in rows]


def count_unfinished(connection: sqlite3.Connection) -> int:
    """Return how many jobs wait or run."""
    return int(connection.execute("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')").fetchone()[0])


def held_steps(connection: sqlite3.Connection) -> dict[int, str]:
    """Return the steps that unfinished work may go back to, each with the reason why its checkpoint stays."""
    held: dict[int, str] = {}
    for begun in interrupted(connection):
        held[begun.start_step] = f"the parent of job {begun.job}, which is not finished"
    job = running(connection)
    if job is not None and job.start_step is not None:
        held[job.start_step] = f"the parent of job {job.id}, which is not finished"
    for attempt in open_attempts(connection):
        if attempt.first_step is not None:
            held[attempt.first_step] = f"in use: attempt {attempt.id} started from it"
    return held


def damage_of(connection: sqlite3.Connection) -> str | None:
    """Return what is wrong with the database, read from end to end, or None."""
    try:
        told = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)").fetchall()]
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if told == ["ok"] else "; ".join(told)[:300]
