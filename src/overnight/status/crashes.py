"""The crashes of a workspace, newest first: from the database, the evidence kept, and trainers that nobody saw die.

Pure reading, and each source stands in for the others: evidence that is damaged or gone leaves what the database
knows, a database without an attempt leaves the verdict, and with the loop down a dead trainer is judged on the spot.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path
from typing import Any

from overnight.database import crashes as stored
from overnight.database import queue
from overnight.disk import attempts, crashes, endings, files
from overnight.disk.layout import Layout
from overnight.domain import crash, failure
from overnight.domain.attempt import Attempt, AttemptState
from overnight.domain.crash import Crash
from overnight.domain.facts import Facts
from overnight.domain.failure import EndedBy, Evidence
from overnight.launchers import processes
from overnight.status import deaths

WHERE = "evidence_in"


def listing(
    layout: Layout, connection: sqlite3.Connection, *, now: float, limit: int | None = None
) -> list[dict[str, Any]]:
    """Return the newest crashes as JSON objects, newest first."""
    found = {one.id: _told(layout, one) for one in _unseen(layout, connection, now=now)}
    for attempt in stored.bad_attempts(connection, limit=limit):
        found.setdefault(attempt.id, _of(layout, connection, attempt))
    for identity in crashes.identities(layout.crashes):
        verdict = crashes.read_verdict(layout.crashes, identity) if identity not in found else None
        if verdict is not None:
            found[identity] = _checked(layout, identity, verdict)
    newest = sorted(found.values(), key=lambda one: (one.get("at_unix") or 0.0, str(one["id"])), reverse=True)
    return newest if limit is None else newest[:limit]


def find(layout: Layout, connection: sqlite3.Connection, identity: str, *, now: float) -> dict[str, Any] | None:
    """Return one crash, or None."""
    return next((one for one in listing(layout, connection, now=now) if one["id"] == identity), None)


def log_tail(layout: Layout, identity: str, *, lines: int = 20) -> list[str]:
    """Return the last lines of what a crashed trainer printed, from its evidence or from its own folder."""
    for folder in (layout.crashes / identity, layout.attempt(identity)):
        text = crashes.safe_text(crashes.read_tail(folder / crashes.LOG, crashes.LOG_TAIL_BYTES))
        if text:
            return text.splitlines()[-lines:]
    return []


def _of(layout: Layout, connection: sqlite3.Connection, attempt: Attempt) -> dict[str, Any]:
    verdict = crashes.read_verdict(layout.crashes, attempt.id)
    if verdict is not None:
        return _checked(layout, attempt.id, verdict)
    ended = endings.read_ended(layout.attempt(attempt.id))
    job = queue.find(connection, attempt.job)
    is_last = job is not None and job.attempts == attempt.number
    made = crash.of_attempt(attempt, job, ended.facts if ended is not None else Facts())
    if not is_last:  # the job's word is about a later attempt
        made = dataclasses.replace(made, consequence="")
    return _told(layout, made)


def _told(layout: Layout, made: Crash) -> dict[str, Any]:
    return _checked(layout, made.id, made.to_json())


def _checked(layout: Layout, identity: str, verdict: dict[str, Any]) -> dict[str, Any]:
    """Return a verdict with every field that is promised, whatever a damaged file lacks."""
    wanted = ("at", "job", "step", "kind", "signal", "exit_code", "summary", "remedy", "action")
    value = {name: verdict.get(name) for name in wanted} | verdict
    value |= {"id": identity, "attempt": identity, "files": crashes.contents(layout.crashes, identity)}
    value[WHERE] = str(layout.crashes / identity) if value["files"] else None
    if not isinstance(value.get("at_unix"), (int, float)):
        value["at_unix"] = 0.0
    return value


def _unseen(layout: Layout, connection: sqlite3.Connection, *, now: float) -> list[Crash]:
    """Return open attempts whose trainer is gone while no loop looks: they are judged here, and nothing is written."""
    if files.lock_holder(layout.daemon_lock) is not None:
        return []
    return [
        _judged(layout, connection, attempt, now=now)
        for attempt in queue.open_attempts(connection)
        if not _is_alive(attempt) and attempts.read_report(layout.attempt(attempt.id)) is None
    ]


def _is_alive(attempt: Attempt) -> bool:
    try:
        identity = processes.parse_identity((attempt.handle or "").partition(":")[2])
    except ValueError:
        return False
    return processes.is_alive(identity)


def _judged(layout: Layout, connection: sqlite3.Connection, attempt: Attempt, *, now: float) -> Crash:
    folder: Path = layout.attempt(attempt.id)
    heartbeat = attempts.read_heartbeat(folder)
    facts = deaths.gather(
        folder, layout.root, attempt, heartbeat, was_unwatched=True, now=now, boot=attempts.boot_time()
    )  # fmt: skip
    is_asked = attempt.state is AttemptState.STOPPING
    ending = failure.classify(
        Evidence(
            report=None, exit_code=None, signal=None, launched=attempt.handle is not None, heard=heartbeat is not None,
            ended_by=EndedBy.WISH if is_asked else EndedBy.ITSELF, reason=attempt.reason, facts=facts,
        )
    )  # fmt: skip
    gone = dataclasses.replace(
        attempt, outcome=ending.outcome, kind=ending.kind, reason=ending.reason,
        ended_at=deaths.last_sign(folder, attempt, facts, now=now),
        last_step=heartbeat.step if heartbeat is not None else attempt.first_step,
    )  # fmt: skip
    made = crash.of_attempt(gone, queue.find(connection, attempt.job), facts)
    return dataclasses.replace(made, consequence="not yet taken up: the daemon does not run; overnight up goes on")
