"""Is there anything left to do, and what became of the jobs of this run."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from overnight.database import overview, queue
from overnight.disk import inbox
from overnight.disk.layout import Layout
from overnight.domain.picture import State
from overnight.status import Snapshot

ENDS = {
    "job.finish": "succeeded",
    "job.give_up": "failed",
    "job.rejected": "rejected",
    "job.cancel": "cancelled",
    "job.skip": "skipped",
}
"""Events that end a job, and the state it then has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of the jobs that ended in one run."""

    ended: dict[str, int]  # by state; states that no job came to are left out
    waiting: int

    @property
    def is_all_good(self) -> bool:
        """Whether no job ended otherwise than well."""
        return not any(number for state, number in self.ended.items() if state != "succeeded")

    def in_words(self) -> str:
        """Return one line for people."""
        told = ", ".join(f"{number} {state}" for state, number in self.ended.items())
        rest = f"; {self.waiting} still waiting" if self.waiting else ""
        return (told or "no job ended") + rest


def since(connection: sqlite3.Connection, event: int) -> Result:
    """Return what became of the jobs that ended after an event; the last word on each job counts."""
    last: dict[int, str] = {}
    for job, kind in overview.job_events_after(connection, event):
        if kind in ENDS:
            last[job] = ENDS[kind]
        else:
            last.pop(job, None)  # queued again
    states = list(last.values())
    ended = {state: states.count(state) for state in ENDS.values() if state in states}
    return Result(ended=ended, waiting=overview.count_unfinished(connection))


def is_all_done(layout: Layout, connection: sqlite3.Connection, shot: Snapshot) -> bool:
    """Return whether the daemon has nothing left to do: no job, no file in the inbox, none to be put away."""
    if shot.state is State.STOPPED and shot.daemon is not None:
        return True  # the operator wants no more work to be taken
    # the files first: one that is just becoming a job is then counted as one or the other
    if shot.state is not State.IDLE or inbox.has_work(layout):
        return False
    return not overview.count_unfinished(connection) and not queue.unfiled(connection)
