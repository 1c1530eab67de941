"""At start: what the last loop left, brought in order. There is no special mode: the ordinary steps do the rest.

Attempts whose process still lives are adopted by the monitor's first look, gone ones are ended there; claimed files are
judged by the ordinary intake; a job between two moves is settled by the ordinary settling. What remains are torn files.
"""

from __future__ import annotations

from overnight.daemon import cleanup
from overnight.daemon.context import Context, Moment
from overnight.daemon.keeping import keep_folders
from overnight.database import queue
from overnight.disk import claims
from overnight.domain.job import JobMove, JobState


def recover(context: Context, now: Moment) -> None:
    """Bring database, disk and processes to a consistent start."""
    keep_folders(context, now)
    removed = cleanup.remove_leftovers(context.layout) + claims.remove_leftovers(context.layout)
    if removed:
        context.log.info("removed what was left half done: %s", ", ".join(removed[:20]))
    _requeue_orphaned_jobs(context, now)
    cleanup.finish_removals(context, now)


def _requeue_orphaned_jobs(context: Context, now: Moment) -> None:
    """A running job without an open or unsettled attempt belongs to nobody: it is queued again."""
    job = queue.running(context.connection)
    if job is None:
        return
    waiting = [*queue.open_attempts(context.connection), *queue.unsettled_attempts(context.connection)]
    if all(attempt.job != job.id for attempt in waiting):
        queue.move(
            context.connection, job.id, JobMove.RETRY, expected=JobState.RUNNING, not_before=0,
            reason="nobody works on it: queued again", level="warning", now=now.unix,
        )  # fmt: skip
