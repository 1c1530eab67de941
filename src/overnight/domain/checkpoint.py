"""A checkpoint: resumable state at a step, and how far it can be trusted.

::

    WRITING --commit--> COMMITTED --verify_ok--> VERIFIED --retire--> DELETED
       |                    |                        |
       |                    +------verify_bad--------+--> CORRUPT --cleanup--> DELETED
       +------------------------cleanup---------------------------------------> DELETED

    WRITING -> COMMITTED             commit
    COMMITTED -> VERIFIED            verify_ok
    COMMITTED | VERIFIED -> CORRUPT  verify_bad
    VERIFIED -> DELETED              retire
    WRITING | CORRUPT -> DELETED     cleanup

The state is read from the directory, never stored: a folder whose name is final holds a manifest, and the manifest
names each file with its size and hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CheckpointState(StrEnum):
    """Where a checkpoint stands in its life."""

    WRITING = "writing"
    COMMITTED = "committed"
    VERIFIED = "verified"
    CORRUPT = "corrupt"
    DELETED = "deleted"


class CheckpointMove(StrEnum):
    """The verbs that change a checkpoint's state."""

    COMMIT = "commit"
    VERIFY_OK = "verify_ok"
    VERIFY_BAD = "verify_bad"
    RETIRE = "retire"
    CLEANUP = "cleanup"


MOVES: dict[tuple[CheckpointState, CheckpointMove], CheckpointState] = {
    (CheckpointState.WRITING, CheckpointMove.COMMIT): CheckpointState.COMMITTED,
    (CheckpointState.COMMITTED, CheckpointMove.VERIFY_OK): CheckpointState.VERIFIED,
    (CheckpointState.COMMITTED, CheckpointMove.VERIFY_BAD): CheckpointState.CORRUPT,
    (CheckpointState.VERIFIED, CheckpointMove.VERIFY_BAD): CheckpointState.CORRUPT,
    (CheckpointState.VERIFIED, CheckpointMove.RETIRE): CheckpointState.DELETED,
    (CheckpointState.WRITING, CheckpointMove.CLEANUP): CheckpointState.DELETED,
    (CheckpointState.CORRUPT, CheckpointMove.CLEANUP): CheckpointState.DELETED,
}


class Verdict(StrEnum):
    """What the verifier says of a folder in the model directory."""

    VERIFIED = "verified"  # every file is what the manifest says
    CORRUPT = "corrupt"  # a file differs from the manifest
    INCOMPLETE = "incomplete"  # no manifest, or a file is missing
    FOREIGN = "foreign"  # not ours: another model, another base, or no checkpoint at all


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file of a checkpoint as it was when it was committed."""

    bytes: int
    blake3: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a checkpoint is; written last."""

    schema: int = 1
    step: int  # global step
    job: int
    job_step: int  # step within the job
    job_total: int  # steps of the whole job
    start_step: int  # global step at which the job began
    attempt: str
    dataset_id: str
    created_at: float
    model_name: str
    method: str
    locked: dict[str, object]  # the locked settings as they were, by dotted key
    data_cursor: dict[str, object]  # epoch, step in the epoch, rows consumed
    fingerprints: dict[str, str]  # config, base_model, tokenizer, dataset
    environment: dict[str, object]  # library versions, threads, device, CPU capability
    files: dict[str, FileRecord]
    run: str = ""  # identity of the model folder's history; "" in manifests that are older than that


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointReport:
    """One folder of the model directory, judged."""

    step: int
    path: str
    verdict: Verdict
    reason: str
    bytes: int
    manifest: Manifest | None
    is_unreadable: bool = False
    """The disk refused to read it. That may pass, and says nothing of what was committed."""

    @property
    def told(self) -> str:
        """How it is, to follow its name in an error."""
        return "cannot be read now" if self.is_unreadable else f"is {self.verdict.value}"


def checkpoint_name(step: int) -> str:
    """Return the folder name of a checkpoint at a global step."""
    return f"checkpoint-{step}"


def step_of(name: str) -> int | None:
    """Return the step in a checkpoint's folder name, or None where the name is not one of ours."""
    prefix, _, digits = name.partition("-")
    if prefix != "checkpoint" or not digits.isascii() or not digits.isdigit():
        return None
    step = int(digits) if len(digits) <= 18 else None
    return step if step is not None and str(step) == digits else None
