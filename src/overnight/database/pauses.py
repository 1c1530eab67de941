"""Jobs that wait for their next try, and the one that was interrupted."""

from __future__ import annotations

import sqlite3

from overnight.database import queue
from overnight.domain.job import Job, JobState


def last_begun(connection: sqlite3.Connection) -> Job | None:
    """Return the queued job that ran last, or None where the one that ran last is not queued."""
    row = connection.execute("SELECT job FROM attempts ORDER BY rowid DESC LIMIT 1").fetchone()
    job = queue.find(connection, row["job"]) if row is not None else None
    return job if job is not None and job.state is JobState.QUEUED and job.start_step is not None else None


def first_paused(connection: sqlite3.Connection) -> Job | None:
    """Return the queued job whose pause ends first, or None where nothing is queued."""
    row = connection.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY not_before, id LIMIT 1").fetchone()
    return queue.find(connection, row["id"]) if row is not None else None


def end_pauses(connection: sqlite3.Connection) -> int:
    """Let every waiting retry go on now; return how many there were."""
    return connection.execute("UPDATE jobs SET not_before = 0 WHERE state = 'queued' AND not_before > 0").rowcount
