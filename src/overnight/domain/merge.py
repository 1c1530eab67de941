"""A merge: what a trainer is told to make a model of its own out of base and adapter, and its last word.

The number formats and what may differ, in logits, are these:

=========  ==========================================  =========================================================
method     how                                         the merged model against base + adapter
=========  ==========================================  =========================================================
``lora``   in float32, rounded once to the format      before rounding that of float32; as written
           that the base's file has for that tensor    and loaded anew that of the coarsest format
``qlora``  into the base as training saw it: the       as above; the reference is the 4-bit base
           4-bit weights, spread out again
``full``   no merge: the trained weights as they are   equal
=========  ==========================================  =========================================================

Why qlora is not merged into the full-precision base: the adapter has learnt against the 4-bit weights, and makes up
for their errors too. Added to weights without those errors it gives another model than the one that was trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from overnight.domain.attempt import FailureKind, Outcome

KIND = "merge"
METHODS = ("lora", "qlora", "full")

FLOAT32_TOLERANCE = 1e-5
TOLERANCES = {"F64": FLOAT32_TOLERANCE, "F32": FLOAT32_TOLERANCE, "F16": 0.02, "BF16": 0.16}
"""How far logits may be from those of base + adapter, by the coarsest number format of the weights as written.

float32 is the merge itself. The coarser formats round each weight once, to 11 and to 8 binary digits; that they hold
the right weights is proven apart, bit by bit, and this limit only catches what is grossly wrong.
"""

FINE_LOGIT = 2.62
"""For logits larger than this each limit grows with the largest: a weight rounded to 24 binary digits moves a logit by
more, the larger it is. For float32 the limit is then 18 of the 24 digits, 4e-6 of the largest logit."""

FIXED_PROBES = (
    "The quick brown fox jumps over the lazy dog.",
    "What is 17 + 25?",
    "def add(a, b):\n    return a + b\n",
    "Zażółć gęślą jaźń. 你好，世界。 😀",
)
"""Asked in every merge, beside a few rows of the newest data."""

PROBE_TOKENS = 48
"""Of each probe so many tokens are asked at most."""

SPARE_BYTES = 32 << 20
"""What a version needs beside its weights: tokenizer, settings, manifest, folders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSpec:
    """What a merge is told: written once, before it is launched."""

    schema: int = 1
    kind: str = KIND
    attempt: str
    workspace: str  # absolute
    base_model: str  # absolute folder
    base_fingerprint: str  # what the base must be, as the workspace records it
    checkpoint: str  # absolute folder of the verified checkpoint: with an adapter, or of the whole model
    method: str  # lora | qlora | full
    target: str  # absolute folder that is to be made, on the file system of models/; its parent is there
    step: int  # global step of the checkpoint
    probes: list[str] = field(default_factory=list)  # texts; FIXED_PROBES are asked as well
    tolerance: float | None = None  # of logits, in place of the rule in TOLERANCES
    seed: int = 42
    threads: int = 1
    device: str = "cpu"  # cpu | cuda | mps | auto
    unwatched_limit_s: float = 90.0  # left alone for so long it leaves; only where somebody ever touched ``watched``
    takes_lock: bool = True  # it takes the model's lock itself; False: whoever started it holds it
    created_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a merge was refused or failed, in the words of every error."""

    code: str
    what: str
    found: str | None = None
    expected: str | None = None
    fix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeReport:
    """The last word of a merge: it outranks the exit code. Unless completed, the target folder is of no use."""

    schema: int = 1
    kind: str = KIND
    attempt: str
    outcome: Outcome  # completed | preempted | crashed
    message: str
    problem: Problem | None = None  # of a crash
    failure: FailureKind | None = None  # of a crash
    traceback: str | None = None
    max_abs_difference: float | None = None  # of logits, written model and base + adapter
    max_abs_difference_unrounded: float | None = None  # the same before weights were rounded to the base's format
    max_abs_difference_from_base: float | None = None  # of logits, written model and base: what was learnt
    tolerance: float | None = None  # that max_abs_difference was held against
    tensors_changed: int = 0  # differ from the base's
    tensors: int = 0
    dtype: str = ""  # number formats of the weights as written, as in safetensors: "F32", "BF16 F32"
    bytes: int = 0  # of all files
    files: dict[str, str] = field(default_factory=dict)  # relative name -> BLAKE3, as written and read again
    versions: dict[str, str] = field(default_factory=dict)  # of the libraries
    probes: int = 0
    needed_bytes: int = 0  # of disk, as estimated before anything was written
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    notes: list[str] = field(default_factory=list)
    ended_at: float = 0.0  # unix seconds, UTC


def needed_bytes(*, weights: int, adapter: int) -> int:
    """Return the bytes of disk that a version takes: the weights, the adapter kept beside them, and the rest."""
    return weights + adapter + SPARE_BYTES


def tolerance_of(formats: Iterable[str], *, largest_logit: float) -> float:
    """Return how far logits may be off for weights written in these number formats. Raises KeyError for others."""
    return max(TOLERANCES[name] for name in formats) * max(1.0, largest_logit / FINE_LOGIT)
