"""Jobs and attempts in SQLite; each change is one transaction and names the state it expects.

Every function takes an open connection. A move that the stored state does not allow changes nothing and returns False:
somebody else was first.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from overnight.database import events
from overnight.database.connection import transaction
from overnight.domain import attempt as attempts
from overnight.domain import job as jobs
from overnight.domain.attempt import Attempt, AttemptMove, AttemptState, FailureKind, Outcome
from overnight.domain.job import Job, JobMove, JobState, Priority, dispatch_order

_JOB_COLUMNS = (
    "id, file, sha256, dataset, state, priority, examples, steps, attempts, charged, overtaken, reason, submitted_at,"
    " finished_at, not_before, start_step, settings, filed"
)


# jobs


def submit(
    connection: sqlite3.Connection,
    *,
    claim: str,
    file: str,
    sha256: str,
    dataset: str | None,
    priority: Priority,
    examples: int,
    accounting: dict[str, Any],
    rejection: str | None,
    now: float,
) -> Job:
    """Queue an accepted file, or record a rejected one (``rejection`` says why); the same claim gives the same job."""
    state = JobState.REJECTED if rejection is not None else JobState.QUEUED
    with transaction(connection):
        known = connection.execute(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE claim = ?", (claim,)).fetchone()
        if known is not None:
            return _to_job(known)
        cursor = connection.execute(
            "INSERT INTO jobs (claim, file, sha256, dataset, state, priority, examples, reason, submitted_at,"
            " finished_at, accounting) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (
                claim, file, sha256, dataset, state.value, priority.value, examples, rejection or "waiting", now,
                now if rejection is not None else None, json.dumps(accounting),
            ),
        )  # fmt: skip
        number = cursor.lastrowid
        if rejection is not None:
            events.record(
                connection,
                now=now,
                kind="job.rejected",
                level="error",
                message=f"{file} was rejected: {rejection}",
                job=number,
                file=file,
            )
        else:
            events.record(
                connection,
                now=now,
                kind="job.queued",
                message=f"{file} is queued as job {number}",
                job=number,
                file=file,
                examples=examples,
                priority=priority.value,
            )
        row = connection.execute(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE id = ?", (number,)).fetchone()
    return _to_job(row)


def find(connection: sqlite3.Connection, job: int) -> Job | None:
    """Return one job, or None."""
    row = connection.execute(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE id = ?", (job,)).fetchone()
    return _to_job(row) if row is not None else None


def accounting(connection: sqlite3.Connection, job: int) -> dict[str, Any]:
    """Return what was counted of a job's rows and tokens."""
    row = connection.execute("SELECT accounting FROM jobs WHERE id = ?", (job,)).fetchone()
    return dict(json.loads(row[0])) if row is not None and row[0] else {}


def set_accounting(connection: sqlite3.Connection, job: int, value: dict[str, Any]) -> None:
    """Store what was counted of a job's rows and tokens."""
    connection.execute("UPDATE jobs SET accounting = ? WHERE id = ?", (json.dumps(value), job))


def listing(
    connection: sqlite3.Connection, *, states: list[JobState] | None = None, limit: int | None = None
) -> list[Job]:
    """Return jobs in order of arrival, newest ``limit`` of them."""
    where = f"WHERE state IN ({','.join('?' * len(states))})" if states else ""
    values: list[Any] = [state.value for state in states or []]
    tail = "LIMIT ?" if limit is not None else ""
    if limit is not None:
        values.append(limit)
    rows = connection.execute(f"SELECT {_JOB_COLUMNS} FROM jobs {where} ORDER BY id DESC {tail}", values).fetchall()
    return [_to_job(row) for row in reversed(rows)]


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the number of jobs in each state, every state named."""
    found = dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
    return {state.value: int(found.get(state.value, 0)) for state in JobState}


def earlier_with(connection: sqlite3.Connection, sha256: str) -> list[Job]:
    """Return jobs whose file had the same content."""
    rows = connection.execute(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE sha256 = ? ORDER BY id", (sha256,))
    return [_to_job(row) for row in rows]


def running(connection: sqlite3.Connection) -> Job | None:
    """Return the job that runs, or None."""
    row = connection.execute(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE state = 'running' ORDER BY id").fetchone()
    return _to_job(row) if row is not None else None


def next_in_line(connection: sqlite3.Connection, *, now: float, avoid: frozenset[int] = frozenset()) -> Job | None:
    """Return the queued job whose turn it is, or None where each one waits out a pause (or is to be avoided)."""
    # The first of each (priority, overtaken class) is enough: inside a class the smallest id wins.
    rows = connection.execute(
        f"SELECT {_JOB_COLUMNS}, min(id) FROM jobs WHERE state = 'queued' AND not_before <= ?"
        f" AND id NOT IN ({','.join('?' * len(avoid))}) GROUP BY priority, overtaken / ?",
        (now, *sorted(avoid), jobs.OVERTAKEN_LIMIT),
    ).fetchall()
    return min((_to_job(row) for row in rows), key=dispatch_order, default=None)


def next_pause_end(connection: sqlite3.Connection) -> float | None:
    """Return when the first waiting retry may go on (unix seconds), or None where nothing is queued."""
    row = connection.execute("SELECT min(not_before) FROM jobs WHERE state = 'queued'").fetchone()
    return float(row[0]) if row[0] is not None else None


def move(
    connection: sqlite3.Connection,
    job: int,
    verb: JobMove,
    *,
    expected: JobState,
    reason: str,
    now: float,
    level: str = "info",
    not_before: float | None = None,
    charge: bool = False,
    settings: dict[str, Any] | None = None,
    accounting: dict[str, Any] | None = None,
    **data: Any,
) -> bool:
    """Make one move of the machine; False where the job is not in the expected state (nothing is changed then).

    ``settings`` replace the frozen ones, ``accounting`` what was counted, in the same transaction.
    """
    target = jobs.MOVES[expected, verb]
    with transaction(connection):
        changed = connection.execute(
            "UPDATE jobs SET state = ?, reason = ?, finished_at = ?, not_before = coalesce(?, not_before),"
            " charged = charged + ?, settings = coalesce(?, settings), accounting = coalesce(?, accounting)"
            " WHERE id = ? AND state = ?",
            (
                target.value, reason, now if target in jobs.ENDED else None, not_before, int(charge),
                _json(settings), _json(accounting), job, expected.value,
            ),
        ).rowcount  # fmt: skip
        if changed and verb is JobMove.RESUBMIT:  # a new life: nothing of the old one counts
            connection.execute(
                "UPDATE jobs SET charged = 0, filed = 0, not_before = 0, settings = NULL, start_step = NULL,"
                " steps = NULL, forgiven = attempts,"
                " accounting = json_remove(accounting, '$.left_out', '$.rehearsal') WHERE id = ?",
                (job,),
            )
        if changed:
            row = connection.execute("SELECT file FROM jobs WHERE id = ?", (job,)).fetchone()
            events.record(
                connection,
                now=now,
                kind=f"job.{verb.value}",
                level=level,
                message=f"{row['file']} (job {job}): {expected.value} -> {target.value}: {reason}",
                job=job,
                **data,
            )
    return bool(changed)


def _json(value: dict[str, Any] | None) -> str | None:
    return json.dumps(value) if value is not None else None


def set_priority(connection: sqlite3.Connection, job: int, priority: Priority, *, now: float) -> bool:
    """Change a queued job's priority; False where it is not queued."""
    with transaction(connection):
        changed = connection.execute(
            "UPDATE jobs SET priority = ?, overtaken = 0 WHERE id = ? AND state = 'queued'", (priority.value, job)
        ).rowcount
        if changed:
            events.record(
                connection, now=now, kind="job.moved", message=f"job {job} has priority {priority.value}", job=job
            )
    return bool(changed)


def set_steps(connection: sqlite3.Connection, job: int, steps: int) -> None:
    """Record how many optimizer steps a job has, once its trainer has counted them."""
    connection.execute("UPDATE jobs SET steps = ? WHERE id = ?", (steps, job))


def set_reason(connection: sqlite3.Connection, job: int, reason: str) -> None:
    """Say why a job is where it is; the caller records the event where the reason changed."""
    connection.execute("UPDATE jobs SET reason = ? WHERE id = ?", (reason, job))


def unfiled(connection: sqlite3.Connection) -> list[Job]:
    """Return ended jobs whose file has not yet been put into done/, failed/ or rejected/."""
    ended = ",".join(f"'{state.value}'" for state in sorted(jobs.ENDED))
    rows = connection.execute(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE filed = 0 AND state IN ({ended}) ORDER BY id")
    return [_to_job(row) for row in rows]


def set_filed(connection: sqlite3.Connection, job: int) -> None:
    """Record that an ended job's file lies where people look for it."""
    connection.execute("UPDATE jobs SET filed = 1 WHERE id = ?", (job,))


# attempts


def dispatch(
    connection: sqlite3.Connection,
    job: int,
    *,
    settings: dict[str, Any],
    start_step: int,
    first_step: int,
    reason: str,
    now: float,
) -> Attempt | None:
    """Move a queued job to running and open its next attempt, in one transaction; None where it is not queued.

    Settings and start step are frozen at the first dispatch since it was submitted; the caller passes the frozen ones
    again for a resume, and new ones for a fresh start.
    """
    with transaction(connection):
        changed = connection.execute(
            "UPDATE jobs SET state = 'running', attempts = attempts + 1, reason = ?, settings = ?, start_step = ?"
            " WHERE id = ? AND state = 'queued' AND NOT EXISTS (SELECT 1 FROM jobs WHERE state = 'running')",
            (reason, json.dumps(settings), start_step, job),
        ).rowcount
        if not changed:
            return None
        row = connection.execute("SELECT id, file, attempts, priority FROM jobs WHERE id = ?", (job,)).fetchone()
        better = {"high": ["normal", "low"], "normal": ["low"], "low": []}[row["priority"]]
        connection.execute(
            f"UPDATE jobs SET overtaken = overtaken + 1 WHERE state = 'queued' AND id < ?"
            f" AND priority IN ({','.join('?' * len(better))})",
            (job, *better),
        )
        number = row["attempts"]
        identity = attempts.attempt_id(job, number)
        connection.execute(
            "INSERT INTO attempts (id, job, number, state, reason, started_at, first_step) VALUES (?,?,?,?,?,?,?)",
            (identity, job, number, AttemptState.STARTING.value, reason, now, first_step),
        )
        events.record(
            connection,
            now=now,
            kind="job.dispatch",
            message=f"{row['file']} (job {job}), attempt {number}: {reason}",
            job=job,
            attempt=identity,
            step=first_step,
        )
        return find_attempt(connection, identity)


def find_attempt(connection: sqlite3.Connection, attempt: str) -> Attempt | None:
    """Return one attempt, or None."""
    row = connection.execute("SELECT * FROM attempts WHERE id = ?", (attempt,)).fetchone()
    return to_attempt(row) if row is not None else None


def open_attempts(connection: sqlite3.Connection) -> list[Attempt]:
    """Return attempts that have not ended."""
    return [to_attempt(row) for row in connection.execute("SELECT * FROM attempts WHERE state != 'ended' ORDER BY id")]


def unsettled_attempts(connection: sqlite3.Connection) -> list[Attempt]:
    """Return ended attempts whose job has not yet drawn the consequence."""
    rows = connection.execute("SELECT * FROM attempts WHERE state = 'ended' AND settled = 0 ORDER BY id")
    return [to_attempt(row) for row in rows]


def attempts_of(connection: sqlite3.Connection, job: int) -> list[Attempt]:
    """Return a job's attempts, oldest first."""
    rows = connection.execute("SELECT * FROM attempts WHERE job = ? ORDER BY number", (job,))
    return [to_attempt(row) for row in rows]


def attempts_since_submit(connection: sqlite3.Connection, job: int) -> list[Attempt]:
    """Return a job's attempts since it was queued or queued again by the user, oldest first."""
    rows = connection.execute(
        "SELECT attempts.* FROM attempts JOIN jobs ON jobs.id = attempts.job"
        " WHERE job = ? AND number > forgiven ORDER BY number",
        (job,),
    )
    return [to_attempt(row) for row in rows]


def set_handle(connection: sqlite3.Connection, attempt: str, handle: str) -> None:
    """Record how the launcher finds the attempt again."""
    connection.execute("UPDATE attempts SET handle = ? WHERE id = ?", (handle, attempt))


def move_attempt(
    connection: sqlite3.Connection, attempt: str, verb: AttemptMove, *, expected: AttemptState, reason: str, now: float
) -> bool:
    """Make a heartbeat or stop move; False where the attempt is not in the expected state."""
    target = attempts.MOVES[expected, verb]
    changed = connection.execute(
        "UPDATE attempts SET state = ?, reason = ? WHERE id = ? AND state = ?",
        (target.value, reason, attempt, expected.value),
    ).rowcount
    return bool(changed)


def end_attempt(
    connection: sqlite3.Connection,
    attempt: str,
    *,
    outcome: Outcome,
    kind: FailureKind | None,
    reason: str,
    exit_code: int | None,
    signal: int | None,
    last_step: int | None,
    now: float,
    ended_at: float | None = None,
) -> bool:
    """Set an attempt's outcome, once; False where it has one. ``ended_at``: when it ended, where that is not now."""
    at = now if ended_at is None else ended_at
    with transaction(connection):
        changed = connection.execute(
            "UPDATE attempts SET state = 'ended', outcome = ?, kind = ?, reason = ?, exit_code = ?, signal = ?,"
            " last_step = ?, ended_at = ? WHERE id = ? AND state != 'ended'",
            (outcome.value, kind.value if kind else None, reason, exit_code, signal, last_step, at, attempt),
        ).rowcount
        if changed:
            events.record(
                connection,
                now=now,
                kind="attempt.ended",
                message=f"attempt {attempt} {outcome.value}: {reason}",
                level="info" if outcome in (Outcome.COMPLETED, Outcome.PREEMPTED) else "warning",
                attempt=attempt,
                outcome=outcome.value,
                failure=kind.value if kind else None,
                exit_code=exit_code,
                signal=signal,
                step=last_step,
                ended_at=at,
            )
    return bool(changed)


def set_settled(connection: sqlite3.Connection, attempt: str) -> None:
    """Record that the attempt's job has drawn the consequence."""
    connection.execute("UPDATE attempts SET settled = 1 WHERE id = ?", (attempt,))


def _to_job(row: sqlite3.Row) -> Job:
    return Job(
        id=row["id"], file=row["file"], sha256=row["sha256"], dataset=row["dataset"], state=JobState(row["state"]),
        priority=Priority(row["priority"]), examples=row["examples"], steps=row["steps"], attempts=row["attempts"],
        charged=row["charged"], overtaken=row["overtaken"], reason=row["reason"], submitted_at=row["submitted_at"],
        finished_at=row["finished_at"], not_before=row["not_before"], start_step=row["start_step"],
        settings=json.loads(row["settings"]) if row["settings"] else None, filed=bool(row["filed"]),
    )  # fmt: skip


def to_attempt(row: sqlite3.Row) -> Attempt:
    """Return an attempt as stored."""
    return Attempt(
        id=row["id"], job=row["job"], number=row["number"], state=AttemptState(row["state"]),
        outcome=Outcome(row["outcome"]) if row["outcome"] else None,
        kind=FailureKind(row["kind"]) if row["kind"] else None, handle=row["handle"], reason=row["reason"],
        started_at=row["started_at"], ended_at=row["ended_at"], exit_code=row["exit_code"], signal=row["signal"],
        first_step=row["first_step"], last_step=row["last_step"],
    )  # fmt: skip
