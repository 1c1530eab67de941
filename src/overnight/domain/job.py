r"""A job: one queued piece of work, and the only moves it can make.

::

    QUEUED ---dispatch---> RUNNING ---finish---> SUCCEEDED
      ^  \                 |  |  \
      |   cancel        retry |   give_up ----> FAILED
      |     \              |  |                  |
      |      v             |  skip --> SKIPPED    |
      |   CANCELLED <-cancel                |     | keep_aside ----> FAILED ---accept---> SUCCEEDED
      +-------+---- resubmit ---------------+-----+

    QUEUED -> RUNNING              dispatch
    QUEUED | RUNNING -> CANCELLED  cancel
    RUNNING -> QUEUED              retry
    RUNNING -> SKIPPED             skip
    RUNNING -> SUCCEEDED           finish
    RUNNING -> FAILED              give_up
    RUNNING -> FAILED              keep_aside
    FAILED -> SUCCEEDED            accept
    FAILED | CANCELLED | SKIPPED -> QUEUED  resubmit

A job is kept aside where the gate blocks it: it is trained, and the model stands where it stood before; accepted, it
becomes the model after all. REJECTED is set once, at intake, and is final: drop a mended file instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    REJECTED = "rejected"


class Priority(StrEnum):
    """The order of dispatch; inside one priority, the order of arrival."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class JobMove(StrEnum):
    """The verbs that change a job's state."""

    DISPATCH = "dispatch"
    CANCEL = "cancel"
    RETRY = "retry"
    SKIP = "skip"
    FINISH = "finish"
    GIVE_UP = "give_up"
    KEEP_ASIDE = "keep_aside"
    ACCEPT = "accept"
    RESUBMIT = "resubmit"


MOVES: dict[tuple[JobState, JobMove], JobState] = {
    (JobState.QUEUED, JobMove.DISPATCH): JobState.RUNNING,
    (JobState.QUEUED, JobMove.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, JobMove.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, JobMove.RETRY): JobState.QUEUED,
    (JobState.RUNNING, JobMove.SKIP): JobState.SKIPPED,
    (JobState.RUNNING, JobMove.FINISH): JobState.SUCCEEDED,
    (JobState.RUNNING, JobMove.GIVE_UP): JobState.FAILED,
    (JobState.RUNNING, JobMove.KEEP_ASIDE): JobState.FAILED,
    (JobState.FAILED, JobMove.ACCEPT): JobState.SUCCEEDED,
    (JobState.FAILED, JobMove.RESUBMIT): JobState.QUEUED,
    (JobState.CANCELLED, JobMove.RESUBMIT): JobState.QUEUED,
    (JobState.SKIPPED, JobMove.RESUBMIT): JobState.QUEUED,
}

FINAL = frozenset({JobState.SUCCEEDED, JobState.REJECTED})
"""States that no move leaves."""

ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED, JobState.REJECTED})
"""States in which the daemon has nothing left to do for the job."""

OVERTAKEN_LIMIT = 10
"""Each time a waiting job was overtaken this often it rises by one priority: low is never starved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One queued piece of work, as stored."""

    id: int
    file: str  # the shown name: safe to print, at most 255 bytes
    sha256: str  # of the file as the user gave it; "" when it could not be read
    dataset: str | None  # the stored dataset's id; None for a rejected file
    state: JobState
    priority: Priority
    examples: int  # rows accepted
    steps: int | None  # optimizer steps of this job alone; None until a trainer has counted them
    attempts: int  # launches so far
    charged: int  # launches whose failure was the job's own fault
    overtaken: int  # later jobs of a higher priority dispatched before this one
    reason: str  # why it is in this state, fit for the user
    submitted_at: float  # unix seconds, UTC
    finished_at: float | None
    not_before: float  # unix seconds; a retry pause
    start_step: int | None  # global step at which its first attempt began
    settings: dict[str, object] | None  # frozen at the first dispatch; None before
    filed: bool  # the file lies in done/, failed/ or rejected/


def dispatch_order(job: Job) -> tuple[int, int]:
    """Return the sort key of a queued job: smaller goes first."""
    rank = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}[job.priority]
    return max(0, rank - job.overtaken // OVERTAKEN_LIMIT), job.id
