"""How a simulated trainer behaves: at which pace, with which faults, with which honest slowness.

Options stand in the environment variable OVERNIGHT_SIMULATED as ``name=value``, separated by commas: ``step_s`` and
``load_s`` (seconds), ``burn_s`` (processor seconds of a step), ``fault=KIND@STEP[:ATTEMPTS]``: at a step within the job
(0 is while loading), in the first so many attempts of each job; ``slow=KIND@STEP`` with ``slow_s`` (seconds) and
``items``: honest work that takes long, a ``step``, a ``save``, or an ``evaluation`` of so many items of that length;
``size_mb``: so much larger is each checkpoint; ``harm=JOB``: the job that makes every held-out set worse. A fault at
step 1000000 strikes in the judging.
"""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from overnight.domain.attempt import FailureKind, Spec
from overnight.domain.judgement import Score

VARIABLE = "OVERNIGHT_SIMULATED"
MEMORY_MB = 400
JUDGING = 1_000_000
"""The step of a fault in the judging."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the simulation behaves."""

    step_s: float = 0.01
    load_s: float = 0.0
    burn_s: float = 0.0
    fault: str = ""
    fault_step: int = -1
    fault_attempts: int = 1_000_000
    slow: str = ""
    slow_step: int = -1
    slow_s: float = 0.0
    items: int = 1
    harm: int = 0
    size_mb: float = 0.0


def read_options(text: str) -> Options:
    """Return the options that a text of ``name=value`` pairs names. Raises ValueError."""
    given = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    kind, _, where = given.get("fault", "").partition("@")
    step, _, times = where.partition(":")
    slow, _, slow_step = given.get("slow", "").partition("@")
    return Options(
        step_s=float(given.get("step_s", "0.01")),
        load_s=float(given.get("load_s", "0")),
        burn_s=float(given.get("burn_s", "0")),
        fault=kind,
        fault_step=int(step or "-1"),
        fault_attempts=int(times or "1000000"),
        slow=slow,
        slow_step=int(slow_step or "-1"),
        slow_s=float(given.get("slow_s", "0")),
        items=int(given.get("items", "1")),
        harm=int(given.get("harm", "0")),
        size_mb=float(given.get("size_mb", "0")),
    )


def judge(spec: Spec, options: Options, before_each: Callable[[], None]) -> list[dict[str, object]] | None:
    """Say of each held-out set that it was learnt or kept, or where harm was ordered that it is worse than before."""
    found: list[dict[str, object]] = []
    for one in spec.held_out:
        if not one["is_judged"]:
            continue
        before_each()
        before, after = (4.0, 0.5) if one["is_own"] else (0.5, 0.5)
        after = before + (0.5 if one["is_own"] else 2.5) if options.harm == spec.job else after
        for when, loss in (("after", after), ("before", before)):
            score = Score(loss=loss, accuracy=1 / (1 + loss), rows=10, tokens=100)
            found.append({"set": one["id"], "when": when, "score": dataclasses.asdict(score)})
    return found or None


class Fault(Exception):
    """A failure that was ordered."""

    def __init__(self, kind: FailureKind, *, charged: bool, bad_rows: Sequence[int] = ()) -> None:
        super().__init__(f"simulated {kind.value}")
        self.bad_rows = list(bad_rows)
        self.kind = kind
        self.charged = charged


FAULTS = {
    "crash": (FailureKind.CODE_ERROR, False),
    "data": (FailureKind.DATA_FORMAT, True),
    "nan": (FailureKind.NAN_LOSS, True),
    "disk": (FailureKind.DISK_FULL, False),
    "dependency": (FailureKind.DEPENDENCY, False),
    "oom": (FailureKind.CUDA_OOM, False),
}


def hang() -> NoReturn:
    """Never move again, and heed no signal that can be ignored."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(3600)


def pulse(beat: Callable[[], None]) -> NoReturn:
    """Be stuck beside a thread that goes on beating."""

    def go_on() -> None:
        while True:
            beat()
            time.sleep(0.05)

    threading.Thread(target=go_on, daemon=True).start()
    hang()


def eat() -> NoReturn:
    """Take memory until the kernel objects; where it does not, give it back and fail."""
    hoard = [bytearray(b"x" * (1 << 20)) for _ in range(MEMORY_MB)]
    hoard.clear()
    raise Fault(FailureKind.HOST_OOM, charged=False)


def die_by(number: signal.Signals) -> NoReturn:
    """Die of a signal, whatever the interpreter makes of it."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    raise AssertionError(f"it outlived {number.name}")
