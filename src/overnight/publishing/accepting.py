"""A job that was kept aside becomes the model, or is dropped: for the operator, and for the loop where he was killed.

Only while nothing trains, and only where the model still stands where the job began: it was trained on nothing else.
"""

from __future__ import annotations

from overnight.database import arrivals, queue
from overnight.database import candidates as stored
from overnight.database.candidates import Candidate
from overnight.database.connection import Connection
from overnight.disk import candidates, checkpoints, locked, views
from overnight.disk.layout import Layout
from overnight.domain.checkpoint import Verdict, checkpoint_name
from overnight.domain.errors import FailedError, UsageError
from overnight.domain.version import BASE, version_of


def require_kept(connection: Connection, job: int) -> Candidate:
    """Return a job that is kept aside. Raises UsageError where it is not."""
    candidate = stored.find(connection, job)
    if candidate is not None and candidate.state in (stored.KEPT, stored.ACCEPTING):
        return candidate
    kept = ", ".join(f"job {one.job} ({one.file})" for one in stored.in_state(connection, stored.KEPT))
    raise UsageError(
        f"Job {job} is not kept aside",
        found=f"it was {candidate.state}" if candidate is not None else "the gate has not blocked it",
        expected=f"a job that is: {kept}" if kept else "a job that the gate has blocked; there is none now",
        fix="overnight judge tells what the gate said of each job",
        code="no_candidate",
    )


def require_unmoved(layout: Layout, candidate: Candidate) -> None:
    """Refuse where the model has moved on since, or what lies aside is damaged. Raises FailedError."""
    newest = checkpoints.newest_complete(layout.model)
    step = newest.step if newest is not None else 0
    stands = step if newest is not None else (candidate.start_step if not candidate.parent else 0)
    if stands != candidate.start_step or candidates.digest_of(layout, candidate.start_step) != candidate.parent:
        raise _moved_on(candidate, f"the model stands at {checkpoint_name(step)}" if newest else "no checkpoint")
    folder = candidates.folder_of(layout, candidate.job, candidate.attempts) / checkpoint_name(candidate.step)
    report = checkpoints.verify(folder)
    if report.verdict is not Verdict.VERIFIED:
        anew = f"overnight discard {candidate.job}, then overnight retry {candidate.job} trains it again"
        again = f"overnight accept {candidate.job} again when the disk answers"
        raise FailedError(
            f"Job {candidate.job} cannot be accepted: its checkpoint {report.told}",
            found=report.reason,
            expected="the checkpoint as it was trained",
            fix=again if report.is_unreadable else anew,
            code="unreadable" if report.is_unreadable else "damaged",
        )
    trained_on = version_of(report.manifest.locked.get("base_model")) if report.manifest is not None else None
    in_use = locked.version_in_use(layout)
    if trained_on != in_use:
        raise _moved_on(candidate, f"{in_use or BASE} is in use, and it was trained on {trained_on or BASE}")


def _moved_on(candidate: Candidate, found: str) -> FailedError:
    return FailedError(
        f"Job {candidate.job} cannot be accepted any more: the model has moved on since",
        found=found,
        expected=f"the model that the job began on, at step {candidate.start_step}",
        fix=f"overnight discard {candidate.job}; overnight retry {candidate.job} then trains its file on the model"
        " as it stands; a version that was left comes back with overnight versions rollback",
        code="moved_on",
    )


def carry_out(layout: Layout, connection: Connection, candidate: Candidate, *, now: float) -> None:
    """Make an accepted job the model; done again after a crash, it goes on. Under the lock. Raises DiskError."""
    candidates.move_back(layout, candidates.folder_of(layout, candidate.job, candidate.attempts))
    locked.refresh_quietly(layout)
    job = queue.find(connection, candidate.job)
    if job is not None:  # the loop puts it into done/ from there
        views.back_into_waiting(layout, job, is_first=arrivals.is_first_of_its_name(connection, job))
    stored.accept(connection, candidate, now=now)
