"""Accept and discard: what the operator does with a job that the gate keeps aside."""

from __future__ import annotations

import sqlite3

from overnight.database import candidates as stored
from overnight.database import events
from overnight.disk import candidates
from overnight.disk.layout import Layout
from overnight.publishing import accepting, settling
from overnight.publishing.border import require_decided
from overnight.publishing.resting import at_rest

FIX = "wait for its end, or overnight pause; the job stays where it is meanwhile"


def accept(layout: Layout, connection: sqlite3.Connection, number: int, *, now: float) -> str:
    """Make a job the model though the gate has blocked it; return words on it.

    Raises UsageError where it is not kept aside, BusyError while something trains, FailedError where the model has
    moved on since.
    """
    accepting.require_kept(connection, number)
    with at_rest(layout, connection, what=f"job {number} is accepted", fix=FIX, now=now):
        settling.settle(layout, connection)
        require_decided(layout, connection, fix=FIX)
        candidate = accepting.require_kept(connection, number)
        if candidate.state == stored.KEPT:
            accepting.require_unmoved(layout, candidate)
            stored.begin_accepting(connection, candidate)
        accepting.carry_out(layout, connection, candidate, now=now)
    return f"{candidate.file} (job {number}) is the model now, at step {candidate.step}"


def discard(layout: Layout, connection: sqlite3.Connection, number: int, *, now: float) -> str:
    """Drop what is kept aside of a job; return words on it. Raises UsageError where it is not kept aside."""
    candidate = accepting.require_kept(connection, number)
    with at_rest(layout, connection, what=f"job {number} is discarded", fix=FIX, now=now):
        settling.settle(layout, connection)
        candidate = accepting.require_kept(connection, number)
        if candidate.state == stored.ACCEPTING:
            accepting.carry_out(layout, connection, candidate, now=now)
            return f"{candidate.file} (job {number}) had been accepted already: it is the model"
        stored.discard(
            connection, candidate,
            reason=f"discarded by the operator: {candidate.reason}; overnight retry {number} trains it again",
        )  # fmt: skip
        candidates.drop(layout, number)
        events.record(
            connection, now=now, kind="job.discard", job=number,
            message=f"{candidate.file} (job {number}): what was kept aside is discarded by the operator",
        )  # fmt: skip
    return f"what was kept aside of {candidate.file} (job {number}) lies in the trash; the model stays as it is"
