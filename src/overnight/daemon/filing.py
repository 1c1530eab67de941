"""The view of the queue for people: where the user's files lie. Training never reads them."""

from __future__ import annotations

from overnight.daemon.context import Context, Moment
from overnight.database import queue


def file_ended(context: Context, now: Moment) -> None:
    """Put the file of each ended job into done/, failed/ or rejected/."""
    for job in queue.unfiled(context.connection):
        queue.set_filed(context.connection, job.id)
