"""What helps against each kind of failure: words for the user, and what is done by itself. One table, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from overnight.domain.attempt import FailureKind

K = FailureKind


class Action(StrEnum):
    """What is done about a failure without being asked."""

    NONE = "none"  # nothing failed
    RETRY_AT_ONCE = (
        "retry_at_once"  # it came from outside: launched again at once, with growing pauses where it repeats
    )
    RETRY_LATER = "retry_later"  # growing pauses; the same crash at the same step three times sets the file aside
    SMALLER_BATCH = "smaller_batch"  # smaller micro-batch, same effective batch; at one row the file is set aside
    LAST_CHECKPOINT = (
        "last_checkpoint"  # back to the last good checkpoint; train.nan_rows says what becomes of the rows
    )
    OLDER_CHECKPOINT = "older_checkpoint"  # the damaged one is set aside, the newest whole one is taken
    WAIT_FOR_MEMORY = "wait_for_memory"  # a few quick tries, then it waits until the memory is there
    WAIT_FOR_DISK = "wait_for_disk"  # waits until there is space
    WAIT_FOR_ENVIRONMENT = "wait_for_environment"  # growing pauses without end, loud, never charged to the data
    SET_ASIDE = "set_aside"  # the file is at fault: put into failed/ after queue.max_attempts, the queue goes on


WAITING = frozenset(
    {Action.OLDER_CHECKPOINT, Action.WAIT_FOR_MEMORY, Action.WAIT_FOR_DISK, Action.WAIT_FOR_ENVIRONMENT}
)
"""Actions that wait for the machine: they never cost a job a try and never give it up."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """What helps against one kind of failure."""

    words: str  # what the user can do, one sentence or two
    action: Action  # what is done by itself


REMEDIES: dict[FailureKind, Remedy] = {
    K.CUDA_OOM: Remedy(
        "Lower train.batch_size (raise train.gradient_accumulation_steps to keep the effective batch) or max_length,"
        " use method lora or qlora, or free the GPU of other programs.",
        Action.SMALLER_BATCH,
    ),
    K.HOST_OOM: Remedy(
        "Free memory, raise the memory limit of the container or service, or lower train.batch_size or max_length.",
        Action.WAIT_FOR_MEMORY,
    ),
    K.CUDA_ERROR: Remedy(
        "Nothing at first: a fresh process tries again. Where it repeats, run once with CUDA_LAUNCH_BLOCKING=1 and look"
        " for a token id beyond the vocabulary, or update the driver.",
        Action.RETRY_LATER,
    ),
    K.GPU_HARDWARE: Remedy(
        "Check the GPU (nvidia-smi -q, dmesg for Xid), reset it or take it out of service; work goes on by itself once"
        " it is back.",
        Action.WAIT_FOR_ENVIRONMENT,
    ),
    K.DRIVER_MISMATCH: Remedy(
        "Install the torch build for this driver, or update the driver to what this torch needs.",
        Action.WAIT_FOR_ENVIRONMENT,
    ),
    K.NCCL_TIMEOUT: Remedy(
        "Look for the process that died or stalled first, and check the network between the processes.",
        Action.RETRY_LATER,
    ),
    K.HANG: Remedy(
        "Look at the stacks kept with the crash: they show where it stood. It is tried again from its last checkpoint.",
        Action.RETRY_LATER,
    ),
    K.KILLED_BY_SIGNAL: Remedy(
        "Find out who sent the signal (a person, a scheduler, a service manager); the job goes on from its last"
        " checkpoint.",
        Action.RETRY_AT_ONCE,
    ),
    K.SEGFAULT: Remedy(
        "A fault in native code: update or reinstall torch and its companions, and test the machine's memory where it"
        " repeats.",
        Action.RETRY_LATER,
    ),
    K.DISK_FULL: Remedy(
        "Free space or inodes on the disk, or raise its quota or file-size limit; work goes on by itself then.",
        Action.WAIT_FOR_DISK,
    ),
    K.CHECKPOINT_CORRUPT: Remedy(
        "Nothing: the newest whole checkpoint is taken instead; overnight verify tells which, and what is damaged.",
        Action.OLDER_CHECKPOINT,
    ),
    K.CHECKPOINT_MISMATCH: Remedy(
        "Set model, adapter and tokenizer back to what the checkpoint was made with (overnight config lock shows it),"
        " or begin a new workspace.",
        Action.WAIT_FOR_ENVIRONMENT,
    ),
    K.DATA_FORMAT: Remedy(
        "Mend the rows that are named and add the file again; overnight validate FILE names every bad line.",
        Action.SET_ASIDE,
    ),
    K.NAN_LOSS: Remedy(
        "Look at the rows that are named, lower train.learning_rate, or set train.nan_rows to skip to go on without"
        " them.",
        Action.LAST_CHECKPOINT,
    ),
    K.DEPENDENCY: Remedy(
        "Install what is missing, or the version that fits, into the trainer's Python environment:"
        " pip install 'overnight[train]'.",
        Action.WAIT_FOR_ENVIRONMENT,
    ),
    K.FILE_NOT_FOUND: Remedy(
        "Bring the file back, or mend the path; work goes on by itself then.",
        Action.WAIT_FOR_ENVIRONMENT,
    ),
    K.PERMISSION: Remedy(
        "Give the user who trains the right to read or write what is named.",
        Action.WAIT_FOR_ENVIRONMENT,
    ),
    K.NETWORK_HUB: Remedy(
        "Check the network, the model's id and the access token; or fetch the model once and name its local folder.",
        Action.WAIT_FOR_ENVIRONMENT,
    ),
    K.TOO_MANY_FILES: Remedy(
        "Raise the limit on open files (ulimit -n, or LimitNOFILE of the service), or on processes and threads"
        " (ulimit -u, or TasksMax).",
        Action.WAIT_FOR_ENVIRONMENT,
    ),
    K.MULTIPROCESSING: Remedy(
        "A helper process of the trainer died: use fewer workers, raise /dev/shm, or start workers by spawn instead of"
        " fork.",
        Action.RETRY_LATER,
    ),
    K.CONFIG_ERROR: Remedy(
        "Mend the setting or argument that is named; overnight config check tells more.",
        Action.WAIT_FOR_ENVIRONMENT,
    ),
    K.USER_INTERRUPT: Remedy(
        "Nothing: somebody interrupted it; the job goes on from its last checkpoint.",
        Action.RETRY_AT_ONCE,
    ),
    K.CODE_ERROR: Remedy(
        "Read the traceback; it names the line that failed.",
        Action.RETRY_LATER,
    ),
    K.NONE: Remedy("Nothing: no failure was found.", Action.NONE),
}

ENVIRONMENT = frozenset(kind for kind, remedy in REMEDIES.items() if remedy.action in WAITING)
"""Failures of the machine or its settings: they are waited out and never cost the job a try."""

UNKNOWN = Remedy(
    "Nothing: it is gone without a trace (a reboot, a power cut, a kill while nobody watched); the job goes on from its"
    " last checkpoint.",
    Action.RETRY_AT_ONCE,
)
"""For an end of which no kind is known."""


def remedy_of(kind: FailureKind | None) -> Remedy:
    """Return what helps against a kind of failure."""
    return UNKNOWN if kind is None else REMEDIES[kind]
