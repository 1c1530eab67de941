"""What the history knows of training: jobs that were trained to their end, and how far each attempt was saved."""

from __future__ import annotations

import json
import sqlite3

from overnight.database import events
from overnight.domain.job import JobState
from overnight.domain.lineage import Reached
from overnight.domain.rehearsal import Trained


def reached_after(connection: sqlite3.Connection, event: int) -> list[Reached]:
    """Return how far each attempt was saved since an event, in the order in which they saved."""
    rows = connection.execute(
        "SELECT attempts.job, coalesce(attempts.first_step, 0) AS first_step,"
        " max(CAST(json_extract(events.data, '$.step') AS INTEGER)) AS step"
        " FROM events JOIN attempts ON attempts.id = json_extract(events.data, '$.attempt')"
        " WHERE events.kind = 'checkpoint.committed' AND events.id > ? GROUP BY attempts.id ORDER BY max(events.id)",
        (event,),
    )
    return [Reached(job=row["job"], first_step=row["first_step"], step=row["step"]) for row in rows]


def is_commit_known(connection: sqlite3.Connection, attempt: str, step: int) -> bool:
    """Return whether the last checkpoint in the history is this one."""
    last = events.newest_of(connection, "checkpoint.committed")
    return last is not None and (last["data"].get("step"), last["data"].get("attempt")) == (step, attempt)


def trained_jobs(connection: sqlite3.Connection) -> list[Trained]:
    """Return them, the first one first; a job that was set aside before its end is none."""
    rows = connection.execute(
        "SELECT id, dataset, examples, settings, accounting, coalesce(start_step, 0) + coalesce(steps, 0) AS end_step"
        " FROM jobs"
        " WHERE state = ? AND dataset IS NOT NULL ORDER BY finished_at, id",
        (JobState.SUCCEEDED.value,),
    )
    return [
        Trained(
            dataset=row["dataset"],
            holdout=_holdout(row["settings"]),
            job=row["id"],
            end_step=row["end_step"],
            left_out=[number for number in _left_out(row["accounting"]) if number <= row["examples"]],
        )
        for row in rows
    ]


def _holdout(settings: str | None) -> float:
    return float(json.loads(settings).get("evaluation", {}).get("holdout", 0.0)) if settings else 0.0


def _left_out(accounting: str | None) -> list[int]:
    """Return the rows that gave no number; higher numbers are those of rows that the job itself replayed."""
    return [int(number) for number in json.loads(accounting).get("left_out", [])] if accounting else []
