"""Which jobs the model was trained on to their end, in their order."""

from __future__ import annotations

import json
import sqlite3

from overnight.domain.job import JobState
from overnight.domain.rehearsal import Trained


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
