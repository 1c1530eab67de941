"""A database that was lost, made anew from what is known of the work; and whether one is sound."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from overnight.database import events, intents
from overnight.database.connection import connect, connect_readonly, transaction
from overnight.domain.errors import OvernightError
from overnight.domain.remains import Rebuilt


def damage(path: Path) -> str | None:
    """Return what is wrong with a database file, None where it is sound.

    Raises OvernightError for what is no damage: a newer format, a disk that does not let itself be read.
    """
    if not path.exists():
        return f"{path.name} is missing"
    try:
        with closing(connect_readonly(path)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            missing = {"jobs", "attempts", "intents", "events"} - {
                row["name"] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
    except OvernightError as error:
        if error.code == "database":
            return f"{path.name} is damaged: {error.found}"
        raise
    except sqlite3.DatabaseError as error:
        return f"{path.name} is damaged: {error}"
    if verdict != "ok":
        return f"{path.name} is damaged: {str(verdict)[:200]}"
    return f"{path.name} lacks {', '.join(sorted(missing))}" if missing else None


def write(path: Path, rebuilt: Rebuilt, *, why: str, now: float) -> None:
    """Make a new database, in one file that is complete once this returns."""
    with closing(connect(path, create=True)) as connection:
        with transaction(connection):
            _fill(connection, rebuilt)
            if rebuilt.committed is not None:  # no later start may forget it
                events.record(
                    connection, now=now, kind="checkpoint.committed", step=rebuilt.committed,
                    message=f"checkpoint at step {rebuilt.committed}, before the database was lost",
                )  # fmt: skip
            if rebuilt.paused is not None:
                intents.wish(connection, "paused", {"reason": rebuilt.paused}, now=now)
            message = (
                f"{why}: it was made anew from the attempts, checkpoints, datasets and folders: {len(rebuilt.jobs)}"
                f" jobs, {sum(job.state == 'queued' for job in rebuilt.jobs)} of them queued; lost are the history"
                " before, priorities and pauses between tries"
            )
            for line in (message, *rebuilt.notes):
                events.record(connection, now=now, kind="database.rebuilt", level="error", message=line)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _fill(connection: sqlite3.Connection, rebuilt: Rebuilt) -> None:
    for job in rebuilt.jobs:
        left_out = rebuilt.left_out.get(job.id)
        connection.execute(
            "INSERT INTO jobs (id, file, sha256, dataset, state, priority, examples, steps, attempts, charged, reason,"
            " submitted_at, finished_at, start_step, settings, filed, accounting)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                job.id, job.file, job.sha256, job.dataset, job.state.value, job.priority.value, job.examples, job.steps,
                job.attempts, job.charged, job.reason, job.submitted_at, job.finished_at, job.start_step,
                json.dumps(job.settings) if job.settings is not None else None, int(job.filed),
                json.dumps({"left_out": left_out} if left_out else {}),
            ),
        )  # fmt: skip
    known = {job.id for job in rebuilt.jobs}
    for one in sorted(rebuilt.attempts, key=lambda attempt: attempt.started_at):  # the last one is the one begun last
        if one.job not in known:
            continue
        connection.execute(
            "INSERT INTO attempts (id, job, number, state, outcome, kind, reason, started_at, ended_at, first_step,"
            " last_step, settled) VALUES (?,?,?,?,?,?,?,?,?,?,?,1)",
            (
                one.id, one.job, one.number, one.state.value, one.outcome.value if one.outcome else None,
                one.kind.value if one.kind else None, one.reason, one.started_at, one.ended_at, one.first_step,
                one.last_step,
            ),
        )  # fmt: skip
