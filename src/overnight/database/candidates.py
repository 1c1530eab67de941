"""Jobs that the gate keeps aside: trained, and not the model until they are accepted."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from overnight.database import judgements, queue
from overnight.database.connection import transaction
from overnight.domain.job import Job, JobMove, JobState

MOVING, KEPT, ACCEPTING, ACCEPTED, DISCARDED = "moving", "kept", "accepting", "accepted", "discarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A job that is kept aside."""

    job: int
    file: str
    attempts: int  # of the job: the last one's folder holds its checkpoints
    state: str
    start_step: int  # where the model stands without it
    parent: str  # hash of that checkpoint's manifest; "" where there is none
    step: int  # where it stands with it
    reason: str
    at: float


def find(connection: sqlite3.Connection, job: int) -> Candidate | None:
    """Return what is known of a job that was kept aside, or None."""
    return next(iter(_select(connection, "candidates.job = ?", job)), None)


def in_state(connection: sqlite3.Connection, state: str) -> list[Candidate]:
    """Return those in one state, the oldest first."""
    return _select(connection, "candidates.state = ?", state)


def begin(connection: sqlite3.Connection, job: Job, *, parent: str, step: int, reason: str, now: float) -> None:
    """Decide that a job is kept aside: from now on its checkpoints are moved, by whoever comes next."""
    connection.execute(
        "INSERT INTO candidates (job, state, start_step, parent, step, reason, at) VALUES (?,?,?,?,?,?,?)"
        " ON CONFLICT (job) DO UPDATE SET state = excluded.state, start_step = excluded.start_step,"
        " parent = excluded.parent, step = excluded.step, reason = excluded.reason, at = excluded.at",
        (job.id, MOVING, job.start_step or 0, parent, step, reason, now),
    )


def keep(
    connection: sqlite3.Connection, candidate: Candidate, *, reason: str, checkpoint: int | None, now: float
) -> bool:
    """Say that all of it lies aside; the job has failed, with what can be done about it. Once."""
    with transaction(connection):
        _set(connection, candidate.job, KEPT)
        return queue.move(
            connection, candidate.job, JobMove.KEEP_ASIDE, expected=JobState.RUNNING, reason=reason, level="error",
            now=now, step=candidate.step, checkpoint=checkpoint,
        )  # fmt: skip


def begin_accepting(connection: sqlite3.Connection, candidate: Candidate) -> None:
    """Decide that a job becomes the model: from now on its checkpoints are moved back, by whoever comes next."""
    _set(connection, candidate.job, ACCEPTING)


def accept(connection: sqlite3.Connection, candidate: Candidate, *, now: float) -> bool:
    """Say that the model stands on a job. Once."""
    with transaction(connection):
        _set(connection, candidate.job, ACCEPTED)
        judgements.set_current(connection, candidate.job, is_current=True)
        connection.execute("UPDATE jobs SET filed = 0 WHERE id = ?", (candidate.job,))
        return queue.move(
            connection, candidate.job, JobMove.ACCEPT, expected=JobState.FAILED, now=now, step=candidate.step,
            checkpoint=candidate.step, reason=f"accepted by the operator, though: {candidate.reason}",
        )  # fmt: skip


def discard(connection: sqlite3.Connection, candidate: Candidate, *, reason: str) -> None:
    """Say that a job will not become the model."""
    with transaction(connection):
        _set(connection, candidate.job, DISCARDED)
        queue.set_reason(connection, candidate.job, reason)


def resubmit(connection: sqlite3.Connection, job: Job, *, reason: str, now: float) -> bool:
    """Queue a job again; what was kept aside of its earlier life will not become the model. False while it does."""
    with transaction(connection):
        candidate = find(connection, job.id)
        if candidate is not None and candidate.state == ACCEPTING:
            return False
        moved = queue.move(connection, job.id, JobMove.RESUBMIT, expected=job.state, reason=reason, now=now)
        if moved and candidate is not None and candidate.state == KEPT:
            _set(connection, job.id, DISCARDED)
    return moved


def _set(connection: sqlite3.Connection, job: int, state: str) -> None:
    connection.execute("UPDATE candidates SET state = ? WHERE job = ?", (state, job))


def _select(connection: sqlite3.Connection, where: str, value: object) -> list[Candidate]:
    rows = connection.execute(
        "SELECT candidates.job, file, attempts, candidates.state, candidates.start_step, parent, step,"
        f" candidates.reason, at FROM candidates JOIN jobs ON jobs.id = candidates.job WHERE {where} ORDER BY at",
        (value,),
    )
    return [Candidate(**dict(row)) for row in rows]
