"""At the border between two jobs: nothing trains, and nothing that was begun waits for its end.

Whoever puts another version in use, or brings a checkpoint back, stands on what the jobs before have left. A job that
is trained and not yet judged is none of that: it may still be kept aside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from overnight.database import candidates as stored
from overnight.database import events, queue
from overnight.database.connection import Connection
from overnight.database.trained import is_commit_known
from overnight.disk import attempts, files
from overnight.disk.layout import Layout
from overnight.domain.attempt import Outcome
from overnight.domain.errors import BusyError
from overnight.publishing import accepting, settling
from overnight.publishing.resting import at_rest


@contextmanager
def at_border(layout: Layout, connection: Connection, *, what: str, fix: str, now: float) -> Iterator[None]:
    """Hold off every new attempt, and end what was begun. Raises BusyError where a trainer works or a job hangs."""
    with at_rest(layout, connection, what=what, fix=fix, now=now):
        settling.settle(layout, connection)
        require_decided(layout, connection, fix=fix)
        for candidate in stored.in_state(connection, stored.ACCEPTING):
            accepting.carry_out(layout, connection, candidate, now=now)
        _note_commits(layout, connection, now=now)
        yield


def require_decided(layout: Layout, connection: Connection, *, fix: str) -> None:
    """Refuse while a job is trained to its end, and the loop has not yet said what becomes of it."""
    job = queue.running(connection)
    if job is None:
        return
    if files.lock_holder(layout.daemon_lock) is None:
        ran = queue.attempts_of(connection, job.id)
        report = attempts.read_report(layout.attempt(ran[-1].id)) if ran else None
        if report is None or report.outcome is not Outcome.COMPLETED:
            return  # its trainer died: it goes on from wherever the model stands
        fix = "overnight up decides it; then try again"
    raise BusyError(
        "A job has just ended, and what becomes of it is not decided yet",
        found=f"{job.file} (job {job.id}): its last checkpoint is read, and the gate judges it",
        expected="a model at the border between two jobs",
        fix=fix,
        code="undecided",
    )


def _note_commits(layout: Layout, connection: Connection, *, now: float) -> None:
    """Write down what attempts saved that died with the loop: told later, it would seem to be of another version."""
    for attempt in queue.open_attempts(connection):
        heartbeat = attempts.read_heartbeat(layout.attempt(attempt.id))
        step = heartbeat.checkpoint if heartbeat is not None else None
        if step is not None and not is_commit_known(connection, attempt.id, step):
            events.record(
                connection, now=now, kind="checkpoint.committed", message=f"checkpoint at step {step}", step=step,
                attempt=attempt.id,
            )  # fmt: skip
