"""What intake asks of the jobs: which claim became which job, and which names and contents came before."""

from __future__ import annotations

import sqlite3

from overnight.database import queue
from overnight.domain.job import Job


def find_by_claim(connection: sqlite3.Connection, claim: str) -> Job | None:
    """Return the job that a claimed file became, or None."""
    row = connection.execute("SELECT id FROM jobs WHERE claim = ?", (claim,)).fetchone()
    return queue.find(connection, row[0]) if row is not None else None


def is_first_of_its_name(connection: sqlite3.Connection, job: Job) -> bool:
    """Return whether no earlier job's file had the same name."""
    row = connection.execute("SELECT 1 FROM jobs WHERE file = ? AND id < ? LIMIT 1", (job.file, job.id)).fetchone()
    return row is None


def trained_datasets(connection: sqlite3.Connection) -> list[str]:
    """Return the datasets that were trained to the end, each once."""
    rows = connection.execute("SELECT DISTINCT dataset FROM jobs WHERE state = 'succeeded' AND dataset IS NOT NULL")
    return [row[0] for row in rows]


def set_unfiled(connection: sqlite3.Connection, job: int) -> None:
    """Record that a job's file has still to be put where people look for it: it came late out of its claim."""
    connection.execute("UPDATE jobs SET filed = 0 WHERE id = ?", (job,))
