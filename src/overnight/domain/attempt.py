r"""An attempt: one launch of the trainer for a job, and what ends it.

::

    STARTING --heartbeat--> RUNNING
        |  \                 |  \
      exit  stop           exit   stop
        |     \             |      v
        v      +-----------> | <- STOPPING
      ENDED <----------------+---- exit

    STARTING -> RUNNING                        heartbeat
    STARTING | RUNNING -> STOPPING             stop
    STARTING | RUNNING | STOPPING -> ENDED     exit

An ended attempt has one outcome, set once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class AttemptState(StrEnum):
    """Where an attempt stands."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


class AttemptMove(StrEnum):
    """The verbs that change an attempt's state."""

    HEARTBEAT = "heartbeat"
    STOP = "stop"
    EXIT = "exit"


MOVES: dict[tuple[AttemptState, AttemptMove], AttemptState] = {
    (AttemptState.STARTING, AttemptMove.HEARTBEAT): AttemptState.RUNNING,
    (AttemptState.STARTING, AttemptMove.STOP): AttemptState.STOPPING,
    (AttemptState.RUNNING, AttemptMove.STOP): AttemptState.STOPPING,
    (AttemptState.STARTING, AttemptMove.EXIT): AttemptState.ENDED,
    (AttemptState.RUNNING, AttemptMove.EXIT): AttemptState.ENDED,
    (AttemptState.STOPPING, AttemptMove.EXIT): AttemptState.ENDED,
}


class Outcome(StrEnum):
    """What became of an ended attempt."""

    COMPLETED = "completed"  # every step of the job was trained and committed
    PREEMPTED = "preempted"  # it was asked to leave: it saved at a step border and left
    CRASHED = "crashed"  # it ended by itself, or a signal ended it
    HUNG = "hung"  # it made no progress and was ended
    LOST = "lost"  # it is gone and nothing tells how (a reboot, a power cut)


class FailureKind(StrEnum):
    """Why an attempt failed; the words of the crash detector."""

    CUDA_OOM = "cuda_oom"
    HOST_OOM = "host_oom"
    CUDA_ERROR = "cuda_error"
    GPU_HARDWARE = "gpu_hardware"
    DRIVER_MISMATCH = "driver_mismatch"
    NCCL_TIMEOUT = "nccl_timeout"
    HANG = "hang"
    KILLED_BY_SIGNAL = "killed_by_signal"
    SEGFAULT = "segfault"
    DISK_FULL = "disk_full"
    CHECKPOINT_CORRUPT = "checkpoint_corrupt"
    CHECKPOINT_MISMATCH = "checkpoint_mismatch"
    DATA_FORMAT = "data_format"
    NAN_LOSS = "nan_loss"
    DEPENDENCY = "dependency"
    FILE_NOT_FOUND = "file_not_found"
    PERMISSION = "permission"
    NETWORK_HUB = "network_hub"
    TOO_MANY_FILES = "too_many_files"
    MULTIPROCESSING = "multiprocessing"
    CONFIG_ERROR = "config_error"
    USER_INTERRUPT = "user_interrupt"
    CODE_ERROR = "code_error"
    NONE = "none"


class Phase(StrEnum):
    """What the trainer says it is doing."""

    LOADING = "loading"
    TRAINING = "training"
    EVALUATING = "evaluating"
    SAVING = "saving"
    MERGING = "merging"
    EXITING = "exiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One launch of the trainer for a job, as stored."""

    id: str  # "000012-02": job 12, second launch
    job: int
    number: int
    state: AttemptState
    outcome: Outcome | None
    kind: FailureKind | None  # of a crash
    handle: str | None  # how its launcher finds it again
    reason: str
    started_at: float  # unix seconds, UTC
    ended_at: float | None
    exit_code: int | None
    signal: int | None
    first_step: int | None  # global step it started from
    last_step: int | None  # global step it was last seen at


def attempt_id(job: int, number: int) -> str:
    """Return the id of a job's n-th launch (n counts from 1)."""
    return f"{job:06d}-{number:02d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What the trainer says about itself while it works."""

    schema: int = 1
    attempt: str
    pid: int
    phase: Phase
    progress: int  # grows by one with everything that moves: a step, an evaluated item, a loaded file
    step: int  # global step
    total: int | None  # global step at which this job ends; None until counted
    loss: float | None
    eval_loss: float | None
    learning_rate: float | None
    epoch: float | None  # of this job
    tokens_per_second: float | None
    eta_s: float | None
    checkpoint: int | None  # global step of the newest commit
    phase_since: float  # CLOCK_BOOTTIME seconds
    beat_at: float  # CLOCK_BOOTTIME seconds
    written_at: float  # unix seconds, UTC
    boot_id: str
    stretch: float = 1.0  # how many times longer than the mean the longest row is
    part: int = 0  # of a merge: parts that are done
    parts: int | None = None  # and how many there are; None until counted
    waits: str = ""  # what it waits for with a save; "" where it does not wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The last word of a trainer: it outranks the exit code."""

    schema: int = 1
    attempt: str
    outcome: Outcome  # completed | preempted | crashed
    kind: FailureKind | None  # of a crash
    message: str  # one paragraph for the user
    traceback: str | None
    charged: bool  # the job's own fault (its data, its numbers), not the machine's
    step: int  # global step reached
    total: int | None
    job_step: int  # step within the job
    checkpoint: int | None  # global step of the newest commit
    loss: float | None
    eval_loss: float | None
    tokens: dict[str, int] | None  # total, supervised, masked, truncated, dropped; rows likewise
    samples: dict[str, object] | None
    notes: list[str]  # things worth telling, such as an evaluation that ran out of time
    ended_at: float  # unix seconds, UTC
    bad_rows: list[int] = field(default_factory=list)  # rows that alone give no number, where that is the failure
    judged: list[dict[str, object]] | None = None  # what the judge found, set by set; None where nothing was judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a trainer is told: written once, before it is launched."""

    schema: int = 1
    kind: str  # "fit"
    attempt: str
    job: int
    workspace: str  # absolute
    dataset: str  # absolute path of the stored rows
    dataset_id: str  # SHA-256 of the stored rows
    settings: dict[str, object]  # the frozen Settings
    base_model: str  # absolute folder, or a Hub id
    base_fingerprint: str | None
    start_step: int  # global step at which the job began
    checkpoint: str | None  # absolute folder of the verified checkpoint to start from
    mode: str  # "fresh" (from the base) | "continue" (next job) | "resume" (same job) | "judge" (trained already)
    seed: int  # of this job: order of rows, dropout
    threads: int
    created_at: float
    left_out: list[int] = field(default_factory=list)  # numbers of rows that are not trained: they gave no number
    rehearsal: list[dict[str, object]] = field(default_factory=list)  # earlier data sets whose rows may be replayed
    held_out: list[dict[str, object]] = field(default_factory=list)  # all that is never trained: trainer/heldout.py
